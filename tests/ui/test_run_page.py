"""The pages of a run, of its jobs and of its groups, asked as a browser asks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis
from starlette.testclient import TestClient

import flowq.ui
from flowq.client import Run, read_workflow_history, submit
from flowq.durations import utc_time
from flowq.graph import build_graph
from flowq.history import find_run_duration
from flowq.pictures.stored import make_source
from flowq.planner import make_plan
from flowq.render import tally
from flowq.render.groups import with_span
from flowq.render.lines import format_duration
from flowq.runtime import counts, runs
from flowq.runtime.approvals import say_who
from flowq.spec import ALL_TOLERATED, Approval, Input, JobSpec, Retry, Workflow
from flowq.ui import reading
from flowq.ui.looks import uncoloured
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
    jobs = (
        call("list", "say", with_={"text": "listing", "value": list(range(items))}),
        call(
            "page",
            "fail_if",
            for_each=each("${{ jobs.list.result }}"),
            with_={"value": "${{ item }}", "bad": 2},
        ),
        call("flaky", "fail", with_={"text": "no luck"}, retries=Retry(1)),
        call("loose", "fail", with_={"text": "never mind"}, continue_on_error=ALL_TOLERATED),
        call("deploy", "say", needs=("list",), with_={"text": "x"}, approval=ask),
        JobSpec("inner", workflow="ship", needs=("list",)),
        call("after", "say", needs=("page", "flaky"), with_={"text": "after"}),
        call("mails", "say", queue="mails", with_={"text": "mail"}),
    )
    submit_all(runs.connection, Workflow("demo", jobs, workflows={"ship": ship}), {"who": "ada"})


def submit_all(
    connection: Redis, workflow: Workflow, inputs: Mapping[str, object], run_id: str = RUN
) -> None:
    """Submit a run as the commands do: with its picture."""
    graph = build_graph(workflow)
    plan = make_plan(graph, inputs, run_id)
    submit(replace(plan, source=make_source(graph), labels={"team": "data"}), connection)


@pytest.fixture(params=["folded", "counted"])
def shop(
    connection: Redis, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Runs:
    """A run that has gone as far as it can without an approval, read in one of two ways."""
    if request.param == "counted":
        monkeypatch.setattr(counts, "FEW_EVENTS", 0)
    if _dumped:
        with connection.pipeline() as pipeline:
            for key, (ttl_ms, dumped) in _dumped.items():
                pipeline.restore(key, max(ttl_ms, 0), dumped)
            pipeline.execute()
    else:
        submit_shop(Runs(connection))
        drain(connection)
        for key in connection.scan_iter():
            if (dumped := connection.dump(key)) is not None:  # it may have expired
                _dumped[key] = connection.pttl(key), dumped
    return Runs(connection)


_dumped: dict[bytes, tuple[int, bytes]] = {}
"""What the run has left on the server: one execution is enough for all tests."""


def drain(connection: Redis, max_jobs: int | None = None) -> None:
    Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm").work(
        burst=True, logging_level="WARNING", max_jobs=max_jobs
    )


def get(page: TestClient, path: str) -> Page:
    reply = page.get(path)
    assert reply.status_code == 200, reply.text
    assert "<style" not in reply.text
    assert "style=" not in reply.text
    return Page(reply.text)


def test_a_run_answers_what_its_readers_ask(shop: Runs, page: TestClient) -> None:
    found = get(page, f"/runs/{RUN}")
    text = found.text

    assert "1 approval waits" in text
    assert "2 failures" in text
    assert "page[2] : LookupError: 2 is bad" in text  # what failed, and why
    assert "flaky (2 attempts): ValueError: no luck" in text
    assert re.search(
        r"UTC \S.{2,12} on \S+, process \d+; after it: after", text
    )  # since when, where
    assert "No worker listens on mails" in text
    assert "start one: flowq worker mails" in text  # what to do
    assert "Deploy it?" in text
    assert "Inputs who ada" in text  # as forms have them
    assert f"Submitted by {say_who()} ," in text
    assert "raise ValueError(text)" in text  # the traceback, and what it printed
    assert text.count("no luck") > 2
    assert "execute.py" not in text
    assert "page[2] failed" in text  # why `after` was skipped
    rows = {found["data-job"] for found in found.all("tr") if "data-job" in found}
    assert {"list", "page", "inner", "inner.pack", "inner.send", "after"} <= rows
    boxes = {
        found["data-job"]: found.get("class") for found in found.all("g") if "data-job" in found
    }
    assert boxes["page"] == "failed"
    assert f"/runs/{RUN}/groups/page" in found.links()


def test_what_needs_somebody_comes_first_and_what_was_tolerated_is_folded(
    shop: Runs, page: TestClient
) -> None:
    found = get(page, f"/runs/{RUN}")

    assert {each["data-failure"] for each in found.all("article")} == {"page[2]", "flaky"}
    assert "2 failures" in found.text
    assert "1 tolerated failure loose : ValueError: never mind" in found.text
    assert found.all("details", id="tolerated")
    order = ["Cancel this run", "2 failures", "1 approval to decide", "1 tolerated failure"]
    order += ["Waiting", "Graph", "Timeline", "Jobs", "About this run", "Inputs"]
    places = [found.text.index(f"{each} ") for each in order]
    assert places == sorted(places)
    assert "who = ada" in found.text[: places[1]]


@pytest.mark.parametrize(
    ("number", "said"),
    [(6, "1 more job waits; its page says why."), (7, "2 more jobs wait; the page of each says")],
)
def test_what_waits_beside_the_explained_is_counted(
    connection: Redis, page: TestClient, number: int, said: str
) -> None:
    jobs = tuple(call(f"job{at}", "say", with_={"text": "x"}) for at in range(number))
    submit_all(connection, Workflow("demo", jobs), {})

    assert said in get(page, f"/runs/{RUN}").text


def test_every_link_of_a_run_leads_to_a_page(shop: Runs, page: TestClient) -> None:
    links = [link for link in get(page, f"/runs/{RUN}").links() if link.startswith("/runs/")]

    assert len(links) > 6
    for link in links:
        get(page, link)


def test_an_approval_has_a_form_with_typed_fields(shop: Runs, page: TestClient) -> None:
    for path in (f"/runs/{RUN}", f"/runs/{RUN}/jobs/deploy"):
        found = get(page, path)
        names = {each.get("name") for tag in ("input", "select") for each in found.all(tag)}
        acts = {each["action"] for each in found.all("form", method="post")}

        assert {"inputs.version", "inputs.loud", "inputs.place", "note", "reason"} <= names
        assert f"/api/runs/{RUN}/jobs/deploy/approve" in acts
        assert f"/api/runs/{RUN}/jobs/deploy/reject" in acts
        assert all("disabled" in each for each in found.all("button", type="submit"))
        assert found.all("details")  # which the form to reject is in


def test_a_job_shows_each_attempt_with_its_output_and_error(shop: Runs, page: TestClient) -> None:
    found = get(page, f"/runs/{RUN}/jobs/flaky")

    assert "2 attempts" in found.text
    assert found.text.count("ValueError: no luck") == 3  # the traceback, and each attempt
    assert "Attempt 2 1 line, 8 bytes" in found.text
    assert "Attempt 1 1 line, 8 bytes" in found.text
    assert "text 'no luck'" in found.text  # its argument
    assert "execute.py" not in found.text
    assert "execute.py" in get(page, f"/runs/{RUN}/jobs/flaky?full=1").text
    assert "1 of them found" in get(page, f"/runs/{RUN}/jobs/flaky?search=LUCK").text
    assert "0 of them found" in get(page, f"/runs/{RUN}/jobs/flaky?search=other").text


def test_every_job_has_a_page_and_a_log_by_its_name(connection: Redis, page: TestClient) -> None:
    """An item, one with a key of its own, a nested job, and an item of a group in a group."""
    with_ = {"text": "from ${{ item }}"}
    leaf = call("leaf", "say", for_each=each(["x", "y"]), with_=with_)
    inner = Workflow("ship", (call("pack", "say", with_={"text": "packed"}), leaf))
    keyed = each(["de", "fr"], key="item")
    jobs = (
        call("flat", "say", for_each=each(["p", "q"]), with_=with_),
        call("keyed", "say", for_each=keyed, with_=with_),
        JobSpec("one", workflow="ship"),
        JobSpec("many", workflow="ship", for_each=keyed),
    )
    submit_all(connection, Workflow("demo", jobs, workflows={"ship": inner}), {})
    drain(connection)
    printed = {
        "flat[1]": "from q\n",
        "keyed[fr]": "from fr\n",
        "one.pack": "packed\n",
        "one.leaf[1]": "from y\n",
        "many[fr].pack": "packed\n",
        "many[de].leaf[0]": "from x\n",
    }

    for _ in ("folded", "counted"):
        for name, text in printed.items():
            log = page.get(f"/api/runs/{RUN}/jobs/{quote(name, safe='')}/log")
            assert (log.status_code, log.json().get("text")) == (200, text), name
            assert text.strip() in get(page, f"/runs/{RUN}/jobs/{quote(name, safe='')}").text
        for name in ("flat[2]", "keyed[1]", "one.leaf[2]", "flat--1", "x[", "]", "flat[1].x"):
            assert page.get(f"/api/runs/{RUN}/jobs/{quote(name)}/log").status_code == 404, name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counts, "FEW_EVENTS", 0)
            assert counts.read_counted(RUN, connection) is not None


def test_a_job_shows_its_result_and_its_place_in_the_run(shop: Runs, page: TestClient) -> None:
    found = get(page, f"/runs/{RUN}/jobs/list")
    assert "[0, 1, 2, 3]" in found.text
    assert {f"/runs/{RUN}/groups/page", f"/runs/{RUN}/jobs/deploy"} <= found.links()
    inside = get(page, f"/runs/{RUN}/jobs/inner.send")
    assert f"/runs/{RUN}/jobs/inner.pack" in inside.links()
    item = get(page, f"/runs/{RUN}/jobs/page%5B2%5D")
    assert f"/runs/{RUN}/groups/page" in item.links()
    assert "no worker listens on the queue mails" in get(page, f"/runs/{RUN}/jobs/mails").text
    assert page.get(f"/runs/{RUN}/jobs/nothing").status_code == 404


def test_a_group_shows_its_items_by_state_and_finds_them(shop: Runs, page: TestClient) -> None:
    path = f"/runs/{RUN}/groups/page"
    keys = {each.get("data-key") for each in get(page, path).all("tr")}
    assert keys & {"page[2]", "page[1]"} == {"page[2]"}  # failures first
    assert (
        "1 LookupError" in get(page, path).text or "LookupError: 2 is bad 1" in get(page, path).text
    )
    finished = {each.get("data-key") for each in get(page, f"{path}?state=finished").all("tr")}
    assert {"page[0]", "page[1]", "page[3]"} <= finished
    found = {each.get("data-key") for each in get(page, f"{path}?find=3").all("tr")}
    assert "page[3]" in found
    assert "page[1]" not in found
    assert page.get(f"/runs/{RUN}/groups/list").url.path == f"/runs/{RUN}/jobs/list"
    assert page.get(f"/runs/{RUN}/jobs/page").url.path == path
    assert page.get(f"/runs/{RUN}/groups/lost").status_code == 404


def test_the_table_can_be_filtered_and_the_graph_focused(shop: Runs, page: TestClient) -> None:
    found = get(page, f"/runs/{RUN}?state=failed&find=PAGE")
    assert {each["data-job"] for each in found.all("tr") if "data-job" in each} == {"page"}
    assert "Around page ." in get(page, f"/runs/{RUN}?focus=page").text
    assert page.get(f"/runs/{RUN}?focus=nothing").status_code == 400


def test_a_run_tells_who_has_done_what(shop: Runs, page: TestClient, connection: Redis) -> None:
    Run(RUN, connection).approve("deploy", {"version": 2, "place": "here"}, by="bob", note="fine")
    Run(RUN, connection).cancel(by="carol", may_wait=False)
    said = get(page, f"/runs/{RUN}/jobs/deploy").text
    assert "by bob ," in said
    assert "Note fine" in said
    assert "version = 2" in said

    Run(RUN, connection).retry("deploy", by="dan")
    Run(RUN, connection).reject("deploy", by="eve")
    text = get(page, f"/runs/{RUN}").text
    at = "[0-9: -]* UTC just now"
    assert re.search(f"Rejected by eve , {at} : deploy Retried by dan , {at} : deploy", text)
    assert re.search("Approved by bob , .*: deploy", text)
    assert "Canceled by carol ," in text


def test_what_was_decided_takes_the_place_of_its_form(
    shop: Runs, page: TestClient, connection: Redis
) -> None:
    Run(RUN, connection).approve("deploy", {"version": 2, "place": "here"}, by="bob", note="fine")

    text = get(page, f"/runs/{RUN}").text
    decided = text[text.index("Approvals deploy Deploy it?") :]
    assert re.match(r"Approvals deploy Deploy it\? Approved by bob , .* Note fine Given", decided)


def test_the_title_of_a_tab_has_the_state_and_the_name(shop: Runs, page: TestClient) -> None:
    assert "<title>▶ demo (2 failed) – flowq</title>" in page.get(f"/runs/{RUN}").text
    assert "<title>✗ flaky – flowq</title>" in page.get(f"/runs/{RUN}/jobs/flaky").text
    assert "<title>✗ page – flowq</title>" in page.get(f"/runs/{RUN}/groups/page").text
    assert page.get("/static/flowq.svg").headers["content-type"].startswith("image/svg+xml")


def test_colours_of_output_are_left_out_and_nothing_else() -> None:
    assert uncoloured("\x1b[1;31mred\x1b[0m \x1b[2Jx\x1b[m") == "red \x1b[2Jx"


def test_a_page_that_may_only_look_has_no_forms_of_acts(shop: Runs, connection: Redis) -> None:
    application = flowq.ui.app(connection=connection, authorize=lambda _: "ada", is_read_only=True)
    for path in (f"/runs/{RUN}", f"/runs/{RUN}/jobs/deploy", f"/runs/{RUN}/jobs/flaky"):
        assert not get(TestClient(application), path).all("form", method="post")
    assert (
        "flowq approve r1 deploy -i version=…" in get(TestClient(application), f"/runs/{RUN}").text
    )


def test_the_style_of_drawings_is_scoped_to_them(page: TestClient) -> None:
    rules = page.get("/pictures.css").text

    assert ".graph .failed .box{" in rules
    assert ".graph .scheduled .box{" in rules  # a state that a box may get while the page is open
    for line in rules.splitlines():
        assert line.startswith((".graph ", ".timeline ", ".histogram ", "@media", "}"))


def test_a_page_does_not_wait_while_a_large_run_is_counted(
    shop: Runs, page: TestClient, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(reading, "MANY_EVENTS", 0)
    reader = page.app._app.state.site.reader  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(reading, "PATIENCE_S", 0)
        patch.setattr(Run, "counted", lambda _: counted.wait(60) and None)
        counted = Event()
        for path in ("", "/jobs/list", "/groups/page"):
            found = get(page, f"/runs/{RUN}{path}")
            assert "events of this run are counted" in found.text
            assert found.all("meta", content="1")
        counted.set()
        wait_until(lambda: reader.is_idle)

    assert "2 failures" in get(page, f"/runs/{RUN}").text


def test_items_are_read_from_their_records_as_from_their_events(
    shop: Runs, connection: Redis
) -> None:
    counted = counts.read_counted(RUN, connection)
    assert counted is not None
    for state, number in (("finished", 3), ("failed", 1)):
        quick = counts.read_items(counted, "page", state, connection, limit=9)
        slow = counts.read_page(counted, "page", state, connection, limit=9)
        told = [
            (one.name, one.job_id, one.state, one.attempts, one.worker, one.error) for one in quick
        ]
        assert slow is not None
        assert told == [
            (one.name, one.job_id, one.state, one.attempts, one.worker, one.error) for one in slow
        ]
        assert len(told) == number
        for one, other in zip(quick, slow, strict=True):
            assert one.duration_s is not None
            assert one.duration_s == pytest.approx(other.duration_s, abs=0.01)
    behind = counts.read_items(counted, "page", "finished", connection, after="page[0]", limit=1)
    assert [one.name for one in behind] == ["page[1]"]
    found = counts.find_items(RUN, "page", "3", connection, 9)
    assert [(one.name, one.state) for one in found] == [("page[3]", "finished")]
    assert not counts.find_items(RUN, "page", "*", connection, 9)


def test_a_run_estimates_how_long_a_group_goes_on(
    connection: Redis, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_ = {"value": "${{ item }}", "bad": -1}
    items = call("page", "fail_if", for_each=each(list(range(20))), with_=with_)
    submit_all(connection, Workflow("demo", (items,)), {})
    monkeypatch.setattr(tally, "LEAST_S", 0)
    drain(connection, max_jobs=16)

    found = get(page, f"/runs/{RUN}").text
    assert re.search("page : [1-9] items? left, about .* at the present rate", found)


def test_a_log_is_complete_when_its_attempt_is(shop: Runs, page: TestClient) -> None:
    def read(query: str) -> tuple[str, int, bool]:
        told = page.get(f"/api/runs/{RUN}/jobs/flaky/log?{query}").json()
        return told["text"], told["attempt"], told["is_complete"]

    assert read("attempt=1") == read("attempt=1&from=999") == ("no luck\n", 1, True)
    assert read("from=999") == ("no luck\n", 2, True)
    with shop.connection.pipeline() as pipe:
        pipe.hset(f"rq:job:{RUN}-flaky", "status", "started")
        pipe.execute()
    assert read("attempt=1") == ("no luck\n", 1, True)
    assert read("attempt=2") == ("no luck\n", 2, False)


def test_a_run_without_news_is_not_read_again(connection: Redis) -> None:
    submit_shop(Runs(connection))
    run, reader = Run(RUN, connection), reading.Reader()
    seen = reader.read_run(run)
    assert reader.read_run(run).status is seen.status
    run.cancel(may_wait=False)
    assert reader.read_run(run).status.state == "canceled"


def test_what_is_inside_of_a_nested_group_can_be_reached_by_links(
    connection: Redis, page: TestClient
) -> None:
    """The group has the times of its items' workflows, and a rejection is the first failure."""
    mail = Workflow(
        "mail",
        (
            call("render", "say", with_={"text": "to"}),
            call("send", "fail", needs=("render",), with_={"text": "no luck"}),
        ),
    )
    jobs = (
        JobSpec("letters", workflow="mail", for_each=each(items=(1, 2))),
        call("pay", "say", with_={"text": "x"}, approval=Approval("Pay?")),
        call("told", "say", with_={"text": "y"}, description="Tells it", timeout_s=77),
    )
    submit_all(connection, Workflow("post", jobs, workflows={"mail": mail}), {})
    drain(connection)
    run = Run(RUN, connection)
    run.reject("pay", "too dear", by="bob")

    ended = sum(run.status().count_by_state().values())
    assert ended == 8  # without the jobs that begin workflows
    assert f"{ended} of {ended} ended" in get(page, "/").text
    letters, both = f"/runs/{RUN}/groups/letters", f"/runs/{RUN}/groups/letters.render"
    found = get(page, f"/runs/{RUN}")
    assert {letters, both} <= found.links()
    assert "2 failures, 1 rejection" in found.text
    assert found.all("article")[0]["data-failure"] == "pay"
    assert re.search("Rejected by bob", found.text)
    assert f"/runs/{RUN}/jobs/letters%5B0%5D.render" in get(page, both).links()

    item = get(page, f"/runs/{RUN}/jobs/letters%5B0%5D")
    inside = {f"/runs/{RUN}/jobs/letters%5B0%5D.{name}" for name in ("render", "send")}
    assert inside <= item.links()
    assert "attempt" not in item.text.partition("Output")[0]  # as in `flowq status --json`
    took_s = with_span(run.status())["letters[0]"].duration_s
    assert took_s is not None
    took = format_duration(took_s)
    assert f"Took {took}" in item.text
    assert took in get(page, letters).text
    told = get(page, f"/runs/{RUN}/jobs/told").text
    assert "Description Tells it Executes page_jobs:say Timeout 1m 17s" in told


def test_a_retry_changes_neither_when_a_run_began_nor_what_counts_as_flaky(
    connection: Redis, page: TestClient
) -> None:
    jobs = (
        call("bad", "fail", with_={"text": "no luck"}),
        call("tidy", "say", with_={"text": "x"}, is_final=True),
    )
    submit_all(connection, Workflow("demo", jobs), {})
    drain(connection)
    run = Run(RUN, connection)
    before = run.record()
    run.retry()
    drain(connection)

    status, record = run.status(), run.record()
    assert status.since is not None
    assert status.started_at is not None
    assert status.since > status.started_at
    assert record.committed_at == before.committed_at
    found = get(page, f"/runs/{RUN}").text
    assert record.committed_at is not None
    assert f"Began {utc_time(record.committed_at)}" in found
    took = find_run_duration(record)
    assert took is not None
    assert f"Took {format_duration(took)}" in found
    by_name = {job.name: job for job in read_workflow_history("demo", connection).jobs}
    assert {name: job.retried for name, job in by_name.items()} == {"bad": 1, "tidy": 0}
    listed = get(page, "/").text
    assert "2 of 2 ended, 1 unsuccessful" in listed


def test_viewers_of_a_run_share_one_reading_and_see_what_they_have_done(
    connection: Redis, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    submit_shop(Runs(connection))
    run, reader, go_on = Run(RUN, connection), reading.Reader(), Event()
    began: list[int] = []

    def read_slowly(*arguments: Any) -> Iterator[Any]:
        began.append(1)
        assert go_on.wait(60)
        return runs.read_events(*arguments)

    monkeypatch.setattr(reading, "read_events", read_slowly)
    with ThreadPoolExecutor(10) as threads:
        viewers = [threads.submit(reader.read_run, run) for _ in range(9)]
        wait_until(lambda: began)
        run.cancel(may_wait=False)  # after the first reading has begun
        actor = threads.submit(reader.read_run, run)
        go_on.set()
        assert {viewer.result(60).run.run_id for viewer in viewers} == {RUN}
        assert actor.result(60).status.state == "canceled"
    assert len(began) == 2


def test_of_runs_that_were_read_few_events_are_kept(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_shop(Runs(connection))
    run, reader = Run(RUN, connection), reading.Reader()
    monkeypatch.setattr(reading, "MAX_KEPT_EVENTS", 0)
    reader.read_run(run)
    mail = Workflow("mail", (call("mails", "say", with_={"text": "mail"}),))
    submit_all(connection, mail, {}, "r2")
    reader.read_run(Run("r2", connection))
    reader.read_run(Run("r2", connection))
    assert reader.folds == 2
    reader.read_run(run)
    assert reader.folds == 3


def test_a_search_says_what_it_could_not_search_and_the_graph_has_room_for_words(
    connection: Redis, page: TestClient
) -> None:
    jobs = (
        call("loud", "say", with_={"text": "12999\n" * 30_000}),
        call("ask", "say", with_={"text": "x"}, approval=Approval("Well?")),
    )
    submit_all(connection, Workflow("demo", jobs), {})
    drain(connection)

    log = get(page, f"/runs/{RUN}/jobs/loud?search=nothing").text
    assert re.search(r"0 of them found, [\d,]+ bytes, of which [\d,]+ were not kept and not", log)
    assert re.search(r"\[… [\d,]+ bytes left out …\]", log)
    drawn = get(page, f"/runs/{RUN}").text  # in the tooltip, and in the box itself
    assert drawn.count("deferred · waits for approval") == 2
