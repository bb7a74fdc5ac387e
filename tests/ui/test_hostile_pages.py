"""Nothing that a user or a job has written becomes markup, or turns or hides what is read."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from redis import Redis
from starlette.testclient import TestClient

from flowq.runtime import approvals, keys
from flowq.spec import Approval, Input, JobSpec, Shell, Workflow
from tests.jobs.page_jobs import HOSTILE
from tests.runtime.language import RUN, each
from tests.ui.test_run_page import Page, call, drain, submit_all

FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
SHOWN = ("aria-label", "title", "placeholder")
"""The attributes that are read to somebody; others have names as they are, for the script."""

LARGEST = 300_000


def look(page: TestClient, path: str) -> Page:
    """Read a page of which nothing may have become markup."""
    reply = page.get(path)
    assert reply.status_code == 200, (path, reply.text[-500:])
    assert len(reply.content) < LARGEST, (path, len(reply.content))
    found = Page(reply.text)
    assert not FORBIDDEN.search("".join(found.words)), path
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    assert [each["src"] for each in scripts] == ["/static/flowq.js"]
    for tag, attributes in found.elements:
        assert tag not in ("img", "b2", "style", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        shown = "".join(attributes.get(name) or "" for name in SHOWN)
        assert not FORBIDDEN.search(shown), (path, tag, attributes)
        assert not (attributes.get("href") or "").startswith(("javascript:", "//"))
    assert "49049" not in found.text  # no text is a template
    return found


@pytest.fixture
def hostile(connection: Redis) -> Redis:
    everything = dict(zip("abcdefgh", HOSTILE, strict=True))
    texts = ", ".join(HOSTILE)
    asks = (
        Input("x", description=HOSTILE[0]),
        Input("y", "enum", choices=(HOSTILE[1], HOSTILE[3]), description=HOSTILE[2]),
    )
    say = {"text": "x", "value": everything}
    workflow = Workflow(
        f"demo {HOSTILE[0]}",
        (
            call(
                "page",
                "be_hostile",
                with_={"number": "${{ index }}"},
                for_each=each(list(HOSTILE), key="item"),
            ),
            call("give", "say", with_=say),
            call("ask", "say", with_=say, approval=Approval(texts, inputs=asks)),
            call("refuse", "say", with_=say, approval=Approval(HOSTILE[1])),
            call("given", "say", with_=say, approval=Approval(HOSTILE[2])),
            call("queue", "say", with_=say, queue=f"q{HOSTILE[0]}"),
            call("huge", "be_huge", with_={"megabytes": 10}),
            call("hugely", "fail_hugely", with_={"megabytes": 10}),
            JobSpec("shell", run=Shell(f"printf %s '{HOSTILE[0]}'; exit 3")),
        ),
        outputs={"all": "${{ jobs.give.result }}"},
    )
    inputs = everything | {HOSTILE[0]: HOSTILE[2]}
    submit_all(connection, workflow, inputs)
    connection.hset(keys.run(RUN), "file", HOSTILE[3])
    drain(connection)
    approvals.reject(RUN, "refuse", connection, reason=texts, by=HOSTILE[0])
    approvals.approve(RUN, "given", connection, note=texts, by=HOSTILE[1])
    drain(connection)
    return connection


def test_no_text_becomes_markup(hostile: Redis, page: TestClient) -> None:
    run = look(page, f"/runs/{RUN}?graph=1&find={quote(HOSTILE[1])}&state={quote(HOSTILE[0])}")
    assert "<img src=x onerror=alert(1)>" in run.text  # as text
    look(page, f"/runs/{RUN}")
    group = look(page, f"/runs/{RUN}/groups/page")
    for state in ("failed", "finished", HOSTILE[0]):
        look(page, f"/runs/{RUN}/groups/page?state={quote(state)}&find={quote(HOSTILE[4])}")
    for at, text in enumerate(HOSTILE):
        name = f"page[{text}]"
        job = look(page, f"/runs/{RUN}/jobs/{quote(name, safe='')}?search={quote(text)}")
        state = "failed" if at % 2 else "finished"
        assert f" {state}" in job.text
    links = {link for found in (run, group) for link in found.links()}
    assert [link for link in links if "/jobs/page%5B" in link]
    for link in sorted(links):
        if link.startswith(f"/runs/{RUN}/"):
            look(page, link)
    for name in ("give", "ask", "refuse", "given", "queue", "huge", "hugely", "shell"):
        look(page, f"/runs/{RUN}/jobs/{name}?full=1&search={quote(HOSTILE[2])}")
        look(page, f"/runs/{RUN}/jobs/{name}")
