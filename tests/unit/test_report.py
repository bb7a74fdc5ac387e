"""The report of a run: one page, bounded, without scripts, that tells waiting from running."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from flowq.graph import build_graph
from flowq.history import Attempt
from flowq.pictures.html import render_html
from flowq.pictures.of_run import draw_run
from flowq.pictures.picture import Picture, draw
from flowq.pictures.report import MAX_FAILURES, MAX_TRACEBACK, RunReport, find_shown, render_report
from flowq.pictures.timeline import MAX_ROWS, find_rows, render_timeline
from flowq.runtime.results import Failure
from flowq.spec import ForEach, Workflow
from flowq.status import ASKING, JobStatus, RunRecord, RunStatus
from tests.unit.graphs import SAMPLES, SCRIPT, hostile, job

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)
SHIP = Workflow("ship", (job("pack"), job("send", "pack")))
SHOP = Workflow(
    "shop",
    (
        job("list"),
        job("page", "list", for_each=ForEach([1, 2])),
        job("deploy", "page", workflow="ship"),
    ),
    workflows={"ship": SHIP},
)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def attempt(queued: float, started: float, ended: float, **said: object) -> Attempt:
    times = {"queued_at": at(queued), "started_at": at(started), "ended_at": at(ended)}
    return Attempt(1, **{"state": "finished", **times, **said})  # type: ignore[arg-type]


def ended(name: str, state: str = "finished", **said: object) -> JobStatus:
    job_id = f"r-{name}".replace("[", "--").replace("]", "")
    started_at = None if state in ("canceled", "deferred") else BEGIN
    return JobStatus(name, job_id, state, **{"started_at": started_at, **said})  # type: ignore[arg-type]


def report(
    *jobs: JobStatus,
    attempts: Mapping[str, Sequence[Attempt]] | None = None,
    failures: Mapping[str, Failure] | None = None,
    picture: Picture | None = None,
    state: str = "failed",
    ended_at: float | None = 60,
    **inputs: object,
) -> RunReport:
    status = RunStatus(
        "r",
        "shop",
        state,
        {each.name: each for each in jobs},
        BEGIN,
        at(ended_at) if ended_at is not None else None,
        groups=frozenset({"page"}),
    )
    record = RunRecord("r", "shop", state, inputs, BEGIN)
    shown = draw_run(status, picture or draw(build_graph(SHOP)))
    return RunReport(record, status, shown, attempts or {}, failures or {}, at(90))


class Page(HTMLParser):
    """Checks that elements are closed, and collects their names and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in ("meta", "rect", "path", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_has_facts_failures_graph_timeline_and_table() -> None:
    made = report(
        ended("list"),
        ended("page[0]"),
        ended("page[1]", "failed"),
        attempts={"list": [attempt(0, 2, 5, worker="w1")], "page[1]": [attempt(5, 6, 7)]},
        failures={"page[1]": Failure("r-page--1", "", "Traceback …\nValueError: no address")},
        slices=4,
    )
    made = replace(made, hosts={"w1": ("kitchen", 42)})
    page = Page(render_report(made))
    for said in (
        *("2026-11-29 12:00:00 UTC", "input slices", "1 failure", "ValueError: no address"),
        *("✗ page[1]", "✓ list", "kitchen, process 42", "+2.0s", "waited 2.0s", "1 failed"),
    ):
        assert said in page.text, said
    assert {"svg", "table", "pre", "details"} <= page.tags
    assert "script" not in page.tags


def test_waiting_and_running_are_told_apart() -> None:
    made = report(ended("list"), attempts={"list": [attempt(0, 30, 60)]})
    rows = find_rows(made.picture, made.status, made.attempts)
    drawing = render_timeline(rows, BEGIN, at(60))
    bars = {
        found[1]: (float(found[2]), float(found[3]))
        for found in re.finditer(
            r'<rect class="(\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing
        )
    }
    assert set(bars) == {"waits", "finished"}
    (waits_x, waits_width), (runs_x, runs_width) = bars["waits"], bars["finished"]
    assert waits_x + waits_width == runs_x
    assert waits_width == runs_width == 400


def test_each_attempt_has_a_bar_and_an_approval_is_no_waiting_in_a_queue() -> None:
    tries = [attempt(0, 1, 2, state="failed", error="ValueError: no"), attempt(10, 11, 12)]
    asked = ended("page", "deferred", reason=ASKING, deferred_at=at(12))
    made = report(ended("list"), asked, attempts={"list": tries}, ended_at=None)
    page = render_report(made)
    assert page.count('<rect class="bad" x') == 2  # with the legend
    assert "attempt 1, failed, 1.0s: ValueError: no" in page
    assert "held for 1m 18s" in page
    assert "The run had not ended" in page


def test_how_long_a_job_was_held_is_still_shown_when_it_has_run() -> None:
    done = ended("page", deferred_at=at(30), queued_at=at(30))  # when it was approved
    tries = {"page": [attempt(30, 31, 32, held_at=at(2))]}
    assert "<title>held for 28s</title>" in render_report(report(done, attempts=tries))
    judged = ended("page", "deferred", reason=ASKING, queued_at=at(1), deferred_at=at(2))
    assert "<title>held for 1m 28s</title>" in render_report(report(judged, ended_at=None))


def test_a_workflow_s_row_begins_with_its_first_job_and_has_its_jobs_below() -> None:
    made = report(
        ended("deploy", started_at=at(40), ended_at=at(41)),
        replace(ended("deploy.pack"), job_id="r-deploy--pack", started_at=at(10), ended_at=at(20)),
        attempts={"deploy": [attempt(39, 40, 41)], "deploy.pack": [attempt(9, 10, 20)]},
    )
    rows = find_rows(made.picture, made.status, made.attempts)
    assert [row.name for row in rows] == ["deploy", "deploy.pack"]
    (span,) = rows[0].all_attempts
    assert (span.started_at, span.ended_at) == (at(10), at(41))


def test_the_jobs_of_a_nested_workflow_have_rows_before_it_begins() -> None:
    for state, unbegun in (("deferred", "deferred"), ("failed", "skipped"), ("canceled",) * 2):
        picture = draw(build_graph(SHOP))
        made = report(ended("list"), ended("deploy", state), picture=picture)
        rows = {row.name: row for row in find_rows(made.picture, made.status, made.attempts)}
        assert [*rows] == ["list", "deploy", "deploy.pack", "deploy.send"]
        assert [each.state for each in rows["deploy.send"].jobs] == [unbegun]
        assert '<th scope="row">deploy.send</th>' in render_report(made)


def test_a_night_in_which_nothing_ran_is_shortened_to_a_break_that_says_so() -> None:
    night = 14 * 3600
    tries = {
        "list": [attempt(0, 0, 30)],
        "page[0]": [attempt(30 + night, 30 + night, 60 + night, held_at=at(30))],
    }
    made = report(ended("list"), ended("page[0]"), attempts=tries, ended_at=60 + night)
    rows = find_rows(made.picture, made.status, made.attempts)
    drawing = render_timeline(rows, BEGIN, at(60 + night))
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing)
    assert ("finished", "250", "364") in bars, "both halves are drawn to the same scale"
    assert ("finished", "686", "364") in bars
    assert ("break", "614", "72") in bars
    assert ("held", "614", "72") in bars
    assert "14h 00m idle</text>" in drawing
    labels = [float(x) for x in re.findall(r'class="when" x="([\d.]+)"', drawing)]
    assert all(b - a >= 50 for a, b in pairwise(sorted(labels)))
    assert "nothing was queued or running: shortened" in render_report(made)


def test_a_run_without_long_idle_times_has_no_break() -> None:
    tries = {"list": [attempt(0, 1, 25), attempt(30, 31, 60)]}
    page = render_report(report(ended("list"), attempts=tries))
    assert 'class="break"' not in page
    assert "shortened" not in page


def test_a_table_that_is_wider_than_the_page_scrolls_by_itself() -> None:
    made = report(ended("list"), attempts={"list": [attempt(0, 1, 2)]})
    for page in (render_report(made), render_html(made.picture)):
        assert page.count("<table>") == page.count('<div class="scroll" role="region"') > 0
        assert page.count("</table>") == page.count("</table></div>")
        assert ".scroll{overflow-x:auto}" in page


def test_ten_thousand_items_are_a_strip_of_bounded_size() -> None:
    names = [f"page[{index}]" for index in range(10_000)]
    attempts = {
        name: [
            attempt(
                0, index / 200, index / 200 + 1, state="failed" if index % 20 == 7 else "finished"
            )
        ]
        for index, name in enumerate(names)
    }
    jobs = [
        ended(name, "failed" if index % 20 == 7 else "finished") for index, name in enumerate(names)
    ]
    large = render_report(report(ended("list"), *jobs, attempts=attempts))
    assert len(large) < 30_000
    assert "10,000 × page" in large
    assert "ran at once" in large
    assert "500 failures" in large
    assert f"{500 - MAX_FAILURES:,} more failures are not shown" in large
    fewer = render_report(report(ended("list"), *jobs[:2_000], attempts=attempts))
    assert len(large) < 1.5 * len(fewer)


def test_thousands_of_declared_jobs_do_not_make_a_large_page() -> None:
    picture = SAMPLES["2,000 jobs"]()
    jobs = [
        ended(box.name, "failed" if at == len(picture) - 1 else "finished")
        for at, box in enumerate(picture.boxes)
    ]
    tries = {each.name: [attempt(0, 1, 2)] for each in jobs}
    page = render_report(report(*jobs, attempts=tries, picture=picture))
    assert len(page) < 500_000
    assert f"{len(jobs) - MAX_ROWS:,} more jobs are not in the timeline" in page
    last = jobs[-1].name
    assert f"<title>{last}</title>" in page  # a failed one is in it in any case
    assert f'<th scope="row">{last}</th>' in page


def test_a_failure_is_named_by_the_error_of_its_last_attempt_wherever_it_stands() -> None:
    error = "RuntimeError: the disk is full"
    tries = [attempt(0, 1, 2, state="failed"), attempt(10, 11, 14, state="failed", error=error)]
    said = Failure("r-list", "", "Traceback …\nRuntimeError: the disk is full\nsecond line")
    page = render_report(
        report(ended("list", "failed"), attempts={"list": tries}, failures={"list": said})
    )
    assert f"<summary>✗ list (2 attempts): {error}</summary>" in page
    assert f"<td>{error}</td></tr>" in page
    assert '<td class="number">3.0s</td>' in page, "how long the last attempt took"


def test_a_long_traceback_keeps_its_end() -> None:
    text = "x\n" * MAX_TRACEBACK + "ValueError: the end"
    made = report(ended("list", "failed"), failures={"list": Failure("r-list", "", text)})
    page = render_report(made)
    assert "ValueError: the end</pre>" in page
    assert "characters left out" in page
    assert len(page) < 2 * MAX_TRACEBACK + 12_000


def test_a_traceback_shows_the_users_own_frames() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/site-packages/rq/job.py", line 2, in perform\n    call()\n'
        '  File "/home/ann/pages.py", line 3, in read\n    raise ValueError(3)\n'
        "ValueError: 3"
    )
    page = render_report(report(ended("list", "failed"), failures={"list": Failure("r", "", text)}))
    assert "/home/ann/pages.py" in page
    assert "rq/job.py" not in page
    assert "(1 frame of flowq and RQ left out)" in page


def test_failures_that_count_come_before_tolerated_ones_and_rejections_are_among_them() -> None:
    made = report(
        ended("page[0]", "failed", reason="tolerated"),
        ended("list", "canceled", reason="rejected: not today"),
        ended("page[1]", "canceled", reason="the run was canceled"),
    )
    assert [each.name for each in find_shown(made.status)] == ["list", "page[0]"]
    assert "list: rejected: not today" in render_report(made)


def test_a_tolerated_failure_is_called_so_in_each_part_of_a_report() -> None:
    made = report(
        ended("page[0]", "failed", reason="tolerated"),
        ended("page[1]", "finished"),
        ended("list", "failed", reason="tolerated"),
        attempts={"list": [replace(attempt(0, 1, 2), state="failed", error="ValueError: no")]},
    )
    page = render_report(made)
    assert "<dd>1 finished, 2 failed and tolerated</dd>" in page
    assert "<h2>2 failures, all tolerated</h2>" in page
    assert '<td class="short">! failed, tolerated</td>' in page
    assert '<td class="short">✓ 1 finished, ! 1 tolerated</td>' in page or (
        '<td class="short">! 1 tolerated, ✓ 1 finished</td>' in page
    )
    assert "<td>ValueError: no</td>" in page, "why"
    assert "✗" not in page


def test_nothing_in_a_report_is_markup_of_others() -> None:
    text = f"{SCRIPT}</pre>\x1b[2J\u202e\x00\ud800 <img onerror=x>"
    picture = hostile()
    jobs = [ended(box.name, "failed", reason=text, worker=text) for box in picture.boxes]
    tries = {
        each.name: [attempt(0, 1, 2, state="failed", error=text, worker=text)] for each in jobs
    }
    failures = {each.name: Failure("r", text, text) for each in jobs}
    made = report(*jobs, attempts=tries, failures=failures, picture=picture, **{text: text})
    made = replace(made, record=replace(made.record, workflow=text))
    page = render_report(made)
    Page(page)
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", page)


@pytest.mark.parametrize("name", ["nothing", "one job", "40 jobs", "three deep", "star of 2,000"])
def test_a_run_of_any_workflow_has_a_report(name: str) -> None:
    picture = SAMPLES[name]()
    jobs = [ended(box.name) for box in picture.boxes]
    Page(render_report(report(*jobs, picture=picture, state="succeeded")))
