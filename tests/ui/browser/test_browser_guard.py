"""The guard of the page in a real browser: how the token arrives, and what other sites can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

import flowq
from flowq.cli import ui
from tests.runtime.language import RUN, Runs, job
from tests.ui.browser.conftest import LIMIT_MS, PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FORM = """\
<form id=form method=post enctype=text/plain action="{url}/api/runs/r1/cancel">
<input name='{{"now": false, "x":"' value='"}}'></form><iframe src="{url}/"></iframe>
<script>
fetch("{url}/api/runs/r1/cancel", {{method: "POST", mode: "no-cors", credentials: "include"}})
  .catch(() => 0).then(() => document.getElementById("form").submit())
</script>"""


def test_the_browser_gets_a_cookie_by_the_file_and_forgets_the_token(
    browser: Browser,
    page_server: PageServer,
    connection: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    opened: list[str] = []
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    site = tmp_path / "other.html"  # a page of another site
    site.write_text(f'<a id="link" href="{page_server.url}/workers">workers</a>')
    attack = tmp_path / "attack.html"
    attack.write_text(FORM.format(url=page_server.url))
    context = browser.new_context()
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()

    with ui._opened_in_browser(f"{page_server.url}/?token={page_server.token}", wanted=True):
        while not opened:
            page.wait_for_timeout(10)
        page.goto(opened[0])
        page.wait_for_selector("h1:has-text('Runs')")
    assert page.url == f"{page_server.url}/"
    (cookie,) = context.cookies()
    assert (cookie["sameSite"], cookie["httpOnly"]) == ("Strict", True)
    assert page_server.token not in page.evaluate(
        "document.cookie + document.documentElement.innerHTML"
    )

    # A link from elsewhere leads to the page, though its cookie is `Strict`.
    page.goto(site.as_uri())
    page.click("#link")
    page.wait_for_selector("h1:has-text('Workers')")

    # A form, a request and a frame of another site get nothing, and change nothing.
    page.goto(attack.as_uri())
    page.wait_for_url(f"{page_server.url}/**")
    assert "this needs a token" in page.inner_text("body")
    assert flowq.get_run(RUN, connection=connection).record().state == "running"
    context.close()
