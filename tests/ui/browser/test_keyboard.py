"""The whole way by keyboard: find a failure, read it, follow a log, approve, retry."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from flowq.client import Run
from tests.runtime.language import RUN
from tests.ui.browser.test_browser import OpenPage, place_of, shows, start_workers, submit_run

if TYPE_CHECKING:
    from playwright.sync_api import Page


def press_until(page: Page, key: str, selector: str, text: str = "") -> None:
    """Press a key until the focus is on an element."""
    check = """([selector, text]) => document.activeElement?.matches(selector)
        && document.activeElement.textContent.includes(text)"""
    for _ in range(150):
        if page.evaluate(check, [selector, text]):
            return
        page.keyboard.press(key)
    pytest.fail(f"{key} does not lead to {selector} {text}")


def test_everything_can_be_done_by_keyboard(
    connection: Redis, open_page: OpenPage, start_worker: Callable[..., Any], tmp_path: Path
):
    gate = tmp_path / "gate"
    submit_run(connection, gate)
    start_workers(start_worker)
    page = open_page("/")
    press_until(page, "Tab", f"a[href$='/runs/{RUN}']")
    page.keyboard.press("Enter")

    # Find the failure by searching, and read its traceback.
    shows(page, "[data-failure=broken]")
    press_until(page, "/", "input[type=search]")
    page.keyboard.type("brok")
    page.keyboard.press("Enter")
    page.wait_for_url("**find=brok**")
    press_until(page, "Tab", "tbody a", "broken")
    page.keyboard.press("Enter")
    shows(page, "pre", "ValueError: no such table: orders")

    # Follow what a job prints, from its beginning.
    page.goto(page.url.replace("broken", "talks"))
    shows(page, "pre.log", "line 0\n")
    lines = page.locator("pre.log").first.inner_text().count("\n")
    page.wait_for_function(
        "lines => document.querySelector('pre.log').innerText.split('\\n').length > lines + 5",
        arg=lines,
    )

    # Approve.
    page.goto(page.url.replace("/jobs/talks", ""))
    press_until(page, "Tab", "form.act input[name=note]")
    page.keyboard.type("seen")
    page.keyboard.press("Enter")  # which asks first: it only leads to the button
    assert page.evaluate("document.activeElement.textContent") == "Approve"
    assert Run(RUN, connection).status().jobs["ship"].is_asking
    place = place_of(page.locator(".approval h3"))
    page.keyboard.press("Enter")
    shows(page, ".approval dd", "seen")  # in the place of the form
    page.wait_for_function("() => document.activeElement.matches('.approval h3')")
    assert place_of(page.locator(".approval h3")) == pytest.approx(place, abs=1.5)
    assert page.locator("main form.act", has_text=re.compile("Approve|Reject")).count() == 0
    shows(page, "#connection", "ship is approved")  # what the server answers
    shows(page, "[data-job=ship] .state[data-state=finished]")
    gate.touch()
    shows(page, "[data-status] [data-state=failed]")

    # Retry.
    shows(page, "form.act button", "again")
    press_until(page, "Tab", "form.act button", "again")
    page.keyboard.press("Enter")
    shows(page, "#connection", "run again")
    shows(page, "[aria-label=Jobs] tr[data-job=broken] td.number", "2")
    shows(page, "[data-status] [data-state=failed]")
    assert len(Run(RUN, connection).history()[1]["broken"]) == 2
