"""The pages of a run, of its jobs and of its groups, asked as a browser asks them."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from redis import Redis
from starlette.testclient import TestClient

from flowq.spec import Approval, Input, JobSpec, Retry, Workflow
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.runtime.language import RUN, Runs, each

EMPTY = {"br", "img", "input", "link", "meta", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed, and collects elements, attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]

    def links(self) -> set[str]:
        return {found["href"] or "" for found in self.all("a") if "href" in found}


def call(name: str, function: str, **more: object) -> JobSpec:
    return JobSpec(name, f"page_jobs:{function}", **more)  # type: ignore[arg-type]


def submit_shop(runs: Runs, items: int = 4) -> None:
    """A run with something of every kind."""
    ship = Workflow(
        "ship",
        (
            call("pack", "say", with_={"text": "packing"}),
            call("send", "say", needs=("pack",), with_={"text": "sending"}),
        ),
    )
    ask = Approval(
        "Deploy it?",
        inputs=(
            Input("version", "int", description="which one"),
            Input("loud", "bool", False, required=False),
            Input("place", "enum", choices=("here", "there")),
        ),
    )
    runs.submit(
        call("list", "say", with_={"text": "listing", "value": list(range(items))}),
        call(
            "page",
            "fail_if",
            for_each=each("${{ jobs.list.result }}"),
            with_={"value": "${{ item }}", "bad": 2},
        ),
        call("flaky", "fail", with_={"text": "no luck"}, retries=Retry(1)),
        call("deploy", "say", needs=("list",), with_={"text": "x"}, approval=ask),
        JobSpec("inner", workflow="ship", needs=("list",)),
        call("after", "say", needs=("page", "flaky"), with_={"text": "after"}),
        call("mails", "say", queue="mails", with_={"text": "mail"}),
        workflows={"ship": ship},
        inputs={"who": "ada"},
    )


@pytest.fixture
def shop(connection: Redis) -> Runs:
    runs = Runs(connection)
    submit_shop(runs)
    drain(connection)
    return runs


def drain(connection: Redis) -> None:
    Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm").work(
        burst=True, logging_level="WARNING"
    )


def get(page: TestClient, path: str) -> Page:
    reply = page.get(path)
    assert reply.status_code == 200, reply.text
    assert "<style" not in reply.text
    assert "style=" not in reply.text
    return Page(reply.text)


def test_a_run_tells_what_failed_what_waits_and_what_to_decide(
    shop: Runs, page: TestClient
) -> None:
    found = get(page, f"/runs/{RUN}")

    assert "LookupError: 2 is bad" in found.text
    for link in sorted(found.links()):
        if link.startswith("/runs/"):
            get(page, link)
    get(page, f"/runs/{RUN}/jobs/flaky?full=1")
    get(page, f"/runs/{RUN}/jobs/flaky?search=LUCK")
    get(page, f"/runs/{RUN}?focus=page&state=failed&find=a&from=1")
    get(page, f"/runs/{RUN}/groups/page?find=2")
    assert ".graph .failed .box" in page.get("/pictures.css").text
