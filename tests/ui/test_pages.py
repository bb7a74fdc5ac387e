"""Every page: without any data, with runs of all kinds, and with what an attacker may send.

A page has a line in `PAGES`, and is then held to the rules of `html_rules.py` in each case.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry as Retries
from starlette.testclient import TestClient

import flowq.ui
from flowq.client import Executing, InProgress, WorkerRecord, submit
from flowq.graph import build_graph
from flowq.pictures.stored import make_source
from flowq.planner import make_plan
from flowq.reports import Progress
from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.schedules import record_schedule
from flowq.scheduling import pause
from flowq.spec import Approval, Input, JobSpec, Retry, Schedule, Workflow
from tests.runtime.calls import count_calls
from tests.runtime.language import each, job
from tests.ui.html_rules import find_problems

PAGES = (
    "/",
    "/?state=failed&text=a&label=team%3Ddata&workflow=nightly",
    "/?state=nonsense",
    "/?label=nonsense",
    "/now",
    "/workers",
    "/schedules",
    "/workflows/nightly",
    "/submit",
    "/submit?workflow=typed",
    "/submit?workflow=bad",
)
"""Pages that are there without any run."""

PAGES_OF_RUNS = (
    "/runs/{run}",
    "/runs/{run}/jobs/bad",
    "/runs/{run}/jobs/fails",
    "/runs/{run}/groups/many",
    "/runs/{run}/again",
)
"""Pages of each run. One that it has not got is the page of that error."""

ROOT = "/flow/q"

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\x1b]8;;http://evil\x1b\\\x1b[2J\x00",
    "\u202egnp.exe\u2066",
    "</textarea></table></main>{{ 7007 * 7 }}",
    "非常に長い名前 مرحبا بالعالم " + "x" * 5_000,
)
"""What users may put wherever they can put a text."""

FILLED_IN = re.compile(r' value="[^"]*"|<textarea [^>]*>[^<]*')
"""What forms have to send as it is."""

Work = Callable[..., None]


TYPED = """\
name: typed
description: <b>Bold</b>
inputs:
  word: {type: str, description: "\\"><script>alert(1)</script>"}
  many: {type: list, default: [1]}
  sure: {type: bool, default: false}
  kind: {type: enum, choices: [a, "</select>"], default: a}
  limit: {type: int, default: 3}
  code: {type: str, pattern: "[a-z]+[0-9]{2}"}
  other: {type: str, pattern: "(?i)[a-z-]+"}
jobs: {say: {run: echo}}
"""


@pytest.fixture
def mounted(connection: Redis, tmp_path: Path) -> TestClient:
    """The page behind a prefix, with workflows to submit, one of which has a problem."""
    (tmp_path / "typed.yaml").write_text(TYPED)
    (tmp_path / "bad.yaml").write_text("name: bad\njobs: {a: {needs: [b], run: echo}}\n")
    page = flowq.ui.app(connection=connection, authorize=lambda _: "ada", workflows=tmp_path)
    return TestClient(page, root_path=ROOT)


def submitted(
    connection: Redis, name: str, *jobs: JobSpec, run_id: str = "", **more: object
) -> str:
    """Submit a run with a stored workflow, and return its id."""
    inputs = more.pop("given", {})
    labels = more.pop("labels", {})
    graph = build_graph(Workflow(name, jobs, **more))  # type: ignore[arg-type]
    run_id = run_id or f"run{connection.zcard(keys.RUNS)}"
    plan = make_plan(graph, inputs, run_id)  # type: ignore[arg-type]
    plan = replace(plan, labels=labels, source=make_source(graph))  # type: ignore[arg-type]
    return submit(plan, connection).run_id


def submit_some(connection: Redis, work: Work) -> list[str]:
    """Submit runs of all kinds; return their ids. One is never executed."""
    typed = (
        Input("month", "str", "2026-11", required=False, pattern=r"\d{4}-\d\d"),
        Input("count", "int", 3, required=False, description="How many"),
        Input("ratio", "float", 0.5, required=False),
        Input("dry", "bool", True, required=False),
        Input("format", "enum", "pdf", required=False, choices=("pdf", "epub")),
        Input("names", "list", ["a", "b"], required=False),
        Input("options", "json", {"deep": [1, None]}, required=False),
        Input("folder", "path", None, required=False),
    )
    given = {declared.name: declared.default for declared in typed}
    found = [
        submitted(
            connection,
            "nightly",
            job("one", "give", with_={"value": 1}),
            job("many", "square", for_each=each([1, 2, 3]), with_={"number": "${{ item }}"}),
            inputs=typed,
            given=given,
            labels={"team": "finance", "env": "test"},
        ),
        submitted(
            connection,
            "nightly",
            job("bad", "fail", retries=Retry(max=1)),
            job("after", "give", with_={"value": 1}, needs=("bad",)),
        ),
        submitted(connection, "release", job("asks", "give", approval=Approval("Deploy?"))),
    ]
    work()
    for name in ("nightly", "paused", "old"):
        dues = (Schedule("30 6 * * *", "Europe/Berlin", catch_up="all"), Schedule("@daily"))
        record_schedule(name, dues if name != "old" else (), connection, read_clock(connection))
    pause("paused", connection)
    connection.set(keys.scheduler("nightly"), "host 12 abcd")
    found.append(submitted(connection, "mails", job("send", "give", queue="mails")))
    return found


def submit_hostile(connection: Redis, work: Work) -> list[str]:
    """Submit runs that say hostile things wherever a text is theirs; return their ids."""
    found = []
    for text in HOSTILE:
        declared = (Input("text", "str", text, required=False, description=text),)
        found.append(
            submitted(
                connection,
                text,
                job("fails", "fail", with_={"message": text}, description=text),
                job("asks", "give", approval=Approval(text)),
                inputs=declared,
                given={"text": f"{text} \ud800"},
                labels={"team": text[:200]},
            )
        )
        record_schedule(text, (Schedule(text, text),), connection, read_clock(connection))
    work()
    return found


def addresses(run_ids: list[str]) -> Iterator[str]:
    yield from PAGES
    for run_id in run_ids:
        yield from (page.format(run=run_id) for page in PAGES_OF_RUNS)


def test_pages_without_any_data_are_well_formed(connection: Redis, mounted: TestClient) -> None:
    for address in addresses([]):
        reply = mounted.get(ROOT + address)
        assert find_problems(reply.text, ROOT) == [], address


def test_pages_of_all_kinds_of_runs_are_well_formed(
    connection: Redis, mounted: TestClient, work: Work
) -> None:
    for address in addresses(submit_some(connection, work)):
        reply = mounted.get(ROOT + address)
        assert reply.status_code in (200, 400, 404), address
        assert find_problems(reply.text, ROOT) == [], address


def test_pages_show_hostile_texts_as_texts(
    connection: Redis, mounted: TestClient, work: Work
) -> None:
    run_ids = submit_hostile(connection, work)
    of_workflows = [f"/workflows/{quote(text, safe='')}" for text in HOSTILE]
    for address in [*addresses(run_ids), *of_workflows]:
        text = mounted.get(ROOT + address).text
        assert find_problems(text, ROOT) == [], address
        for mark in ("<script>alert", "<img", "49049"):
            assert mark not in text, (address, mark)
        shown = FILLED_IN.sub("", text)
        for mark in ("\x1b", "\x00", "\u202e", "\u2066"):
            assert mark not in shown, (address, mark)


def test_forms_to_submit_have_a_field_of_its_kind_for_each_input(mounted: TestClient) -> None:
    listed = mounted.get(f"{ROOT}/submit").text
    form = mounted.get(f"{ROOT}/submit?workflow=typed").text

    assert f'href="{ROOT}/submit?workflow=typed"' in listed
    assert "cannot be submitted" in listed
    assert f'action="{ROOT}/api/runs"' in form
    assert '<input type="hidden" name="workflow" value="typed">' in form
    for name, kind in (("word", "str"), ("many", "list"), ("sure", "bool"), ("kind", "enum")):
        assert f'name="inputs.{name}" data-type="{kind}"' in form
    assert 'data-type="str" type="text" value=""' in form
    assert 'data-type="int" type="text" inputmode="numeric" pattern="' in form
    assert 'pattern="[a-z]+[0-9]{2}" title="the whole text must match [a-z]+[0-9]{2}"' in form
    assert 'pattern="(' not in form  # a browser might understand it otherwise
    assert 'name="labels" data-type="labels"' in form
    assert 'name="hold"' in form
    assert "<form" not in mounted.get(f"{ROOT}/submit?workflow=bad").text.partition("<main")[2]


def test_a_read_only_page_offers_no_forms(connection: Redis, tmp_path: Path) -> None:
    run_id = submitted(connection, "nightly", job("one", "give", with_={"value": 1}))
    application = flowq.ui.app(
        connection=connection, authorize=lambda _: "ada", workflows=tmp_path, is_read_only=True
    )
    page = TestClient(application)

    assert page.get("/submit").status_code == 404
    assert page.get(f"/runs/{run_id}/again").status_code == 404
    for address in ("/", f"/runs/{run_id}", "/workflows/nightly"):
        text = page.get(address).text
        assert "/submit" not in text
        assert "/again" not in text
        assert 'method="post"' not in text


def test_the_list_of_runs_costs_as_much_with_twice_as_many_runs(
    connection: Redis, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.ui.pages.runs.PER_PAGE", 5)
    costs = []
    for _ in range(2):
        for _ in range(20):
            submitted(connection, "nightly", job("one", "give", with_={"value": 1}))
        connection.config_resetstat()
        assert page.get("/?text=night&state=running").text.count("<tr data-key=") == 5 + 1
        costs.append(count_calls(connection))

    assert costs[0] == costs[1] < 60


def test_older_pages_list_each_run_once(connection: Redis, page: TestClient) -> None:
    for number in range(60):
        name = "odd" if number % 2 else "even"
        submitted(connection, name, job("one", "give", with_={"value": 1}))
    found, url = [], "/?workflow=even&state=running&text=even"
    first = page.get(url).text
    assert first.count('<th scope="row" class="mono">') == 30  # all of them
    assert "Older" not in first

    url = "/"
    while url:
        text = page.get(url).text
        found += re.findall(r'<tr data-key="(run\d+)"', text)
        older = re.search(r'<a href="([^"]*)" rel="next">', text)
        url = html.unescape(older[1]) if older else ""

    assert found == [f"run{number}" for number in reversed(range(60))]
    gone = page.get("/?workflow=even&after=nope", follow_redirects=False)
    assert (gone.status_code, gone.headers["location"]) == (303, "/?workflow=even")


def test_errors_are_pages_that_say_what_to_do_and_no_details_of_faults(
    connection: Redis, mounted: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Redis(unix_socket_path="/nonexistent/server.sock", retry=Retries(NoBackoff(), 0))
    away = TestClient(
        flowq.ui.app(connection=nowhere, authorize=lambda _: "ada"), root_path=ROOT
    ).get(f"{ROOT}/")
    unknown = mounted.get(f"{ROOT}/runs/nope")
    monkeypatch.setattr("flowq.ui.pages.runs.read_queues", _break)
    application = flowq.ui.app(connection=connection, authorize=lambda _: "ada")
    fault = TestClient(application, root_path=ROOT, raise_server_exceptions=False).get(f"{ROOT}/")

    for reply, code, words in (
        (away, 503, "tries again every few seconds"),
        (unknown, 404, "no run nope"),
        (fault, 500, "in the log of"),
    ):
        assert reply.status_code == code
        assert words in reply.text
        assert find_problems(reply.text, ROOT) == []
    assert int(away.headers["refresh"]) > 0
    assert "password" not in fault.text


def test_lists_say_in_words_what_is_lost_handed_over_or_rests(
    connection: Redis, mounted: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 11, 29, 12, tzinfo=UTC)
    told = {"host": "web1", "pid": 7, "seen_at": at, "timeout_s": 60, "state": "lost"}
    lost = Executing("j1", "e1", "default", "w1", "call()", at, "r1", "thumb[3]", "photos", **told)
    reported = Progress(3, 10, HOSTILE[0])
    waits = replace(lost, execution_id="e2", started_at=None, state="handed", pid=None)
    alone = replace(lost, execution_id="e3", run_id="", name="", state="started", timeout_s=None)
    alone = replace(alone, description=HOSTILE[1], progress=reported)
    wip = InProgress(at + timedelta(seconds=42), (lost, waits, alone), {"lost": 1, "handed": 9})
    monkeypatch.setattr("flowq.client.read_wip", lambda *_, **__: wip, raising=False)
    workers = [
        WorkerRecord("w1", "lost", (HOSTILE[0],), seen_at=at, born_at=at, jobs=2, concurrency=4),
        WorkerRecord("", "resting", run_id="r1"),
        WorkerRecord(HOSTILE[1], "suspended", mode="fork", finished=1_000),
    ]
    monkeypatch.setattr("flowq.client.list_workers", lambda _: list(workers), raising=False)

    now, there = mounted.get(f"{ROOT}/now").text, mounted.get(f"{ROOT}/workers").text

    assert find_problems(now, ROOT) == find_problems(there, ROOT) == []
    for words in ("lost</span>", "handed over</span>", ">42s<", ">18s<", "no timeout", "no run"):
        assert words in now
    assert f'href="{ROOT}/runs/r1/jobs/thumb%5B3%5D"' in now
    assert "and 7 more jobs" in now
    for words in ("lost</span>", "resting</span>", "suspended</span>", "2 of 4", "1,000"):
        assert words in there
    assert "<script>alert" not in now + there


def _break(*_: object) -> None:
    raise RuntimeError("the password is hunter2")


BAD = """<main><h1></h1><p style="x" onclick="y"><a href="/elsewhere">a</a><b></p></b>
<input id="one"><label for="two">two</label><span id="one" data-state="failed">✗</span>
<table><tr><th>head</th></tr></table><svg></svg><script>run()</script>"""


def test_the_rules_for_pages_find_what_breaks_them() -> None:
    found = "\n".join(find_problems(BAD, ROOT))

    for words in (
        "<h1 {}> has no text",
        "has style=",
        "has onclick=",
        "leads to '/elsewhere'",
        "</p> closes nothing",
        "the id one is there 2 times",
        "nothing has the id two",
        "has no label",
        "without a word",
        "<th> without a scope",
        "<svg> is neither",
        "<script> in the page",
        "<main> is never closed",
        "there are 0 <title>",
    ):
        assert words in found, words
