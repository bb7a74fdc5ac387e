"""The lines that runs are told in: pure values, so every size and state can be looked at."""

from __future__ import annotations

import shlex
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowq
from flowq.render.lines import format_duration, plain, plain_text, printable
from flowq.render.narrator import Narrator
from flowq.render.progress import progress
from flowq.render.summary import FailedJob, Report, failure, own_lines, summary, without_runtime
from flowq.status import Event, JobStatus, RunStatus

START = datetime(2026, 11, 24, 12, 3, 4, tzinfo=UTC)
STATES = ("deferred", "queued", "started", "finished", "failed", "skipped", "canceled")


def _at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def _event(second: int, name: str, state: str, reason: str = "") -> Event:
    return Event(f"{second}-0", _at(second), f"r-{name}", name, state, reason)


def _status(*states: str, state: str = "running") -> RunStatus:
    jobs = {}
    for index, each in enumerate(states):
        started_at = None if each in ("deferred", "queued", "skipped") else _at(index)
        ended_at = _at(index + 2) if each in ("finished", "failed") else None
        name = f"job_{index}"
        jobs[name] = JobStatus(
            name, f"r-{name}", each, started_at=started_at, ended_at=ended_at, attempts=1
        )
    return RunStatus("r", "flow", state, jobs, START)


@given(st.lists(st.sampled_from(STATES), max_size=60), st.integers(5, 120), st.integers(1, 40))
def test_progress_never_needs_more_lines_than_there_are(
    states: list[str], width: int, height: int
) -> None:
    assert len(progress(_status(*states), _at(90), width, height)) <= height


def test_progress_shows_each_job_with_its_mark_duration_and_state() -> None:
    status = _status("finished", "failed", "started", "deferred")

    lines = [plain(line) for line in progress(status, _at(90), 80)]

    assert lines == [
        "flow  running 1m 30s  2/4  run r",
        "✓ job_0     2.0s",
        "✗ job_1     2.0s  failed",
        "▶ job_2   1m 28s  started",
        "○ job_3           deferred",
    ]


def test_with_more_jobs_than_lines_they_are_counted_and_what_matters_is_shown() -> None:
    status = _status(*["finished"] * 30, *["failed"] * 9, *["started"] * 9, *["deferred"] * 50)

    lines = [plain(line) for line in progress(status, _at(200), 80, 9)]

    assert lines[1] == "✗ 9 failed  ▶ 9 started  ○ 50 deferred  ✓ 30 finished"
    assert [line.split()[1] for line in lines[2:5]] == ["job_38", "job_37", "job_36"]
    assert [line.split()[1] for line in lines[5:8]] == ["job_39", "job_40", "job_41"]
    assert lines[8] == "… and 12 more"


def test_the_narrator_tells_durations_attempts_and_reasons() -> None:
    events = [
        _event(0, "", "running"),
        _event(1, "slice", "started"),
        _event(3, "slice", "failed"),
        _event(4, "slice", "scheduled"),
        _event(5, "slice", "started"),
        _event(7, "slice", "finished"),
        _event(7, "serve", "skipped", "cut failed"),
    ]

    assert plain_text(Narrator(UTC).tell(events)).splitlines() == [
        "12:03:04 run running",
        "12:03:05 slice started",
        "12:03:07 slice failed (2.0s)",
        "12:03:08 slice scheduled",
        "12:03:09 slice started (attempt 2)",
        "12:03:11 slice finished (2.0s)",
        "12:03:11 serve skipped: cut failed",
    ]


def test_the_narrator_counts_attempts_that_were_made_before_it_began() -> None:
    events = [
        _event(0, "slice", "started"),
        _event(1, "slice", "queued", "attempt 4 failed: exit code 2; again"),
        _event(2, "slice", "started"),
    ]

    assert plain_text(Narrator(UTC).tell(events)).splitlines()[-1] == (
        "12:03:06 slice started (attempt 5)"
    )


def test_the_narrator_leaves_out_what_only_workers_do_and_tells_how_long_a_job_took() -> None:
    events = [
        _event(0, "a", "handed"),
        _event(1, "a", "returned"),
        _event(2, "a", "started"),
        _event(3, "a", "returned"),
        _event(4, "a", "started"),
        _event(5, "a", "started"),
        replace(_event(9, "a", "finished"), began_at=_at(4), took_ms=1500.0),
        _event(9, "b", "handed"),
        replace(_event(9, "b", "finished"), began_at=_at(9), took_ms=0.03),
    ]

    assert plain_text(Narrator(UTC).tell(events)).splitlines() == [
        "12:03:06 a started",
        "12:03:08 a started",
        "12:03:13 a finished (1.5s)",
        "12:03:13 b finished (<1ms)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0ms"),
        (0.0, "0ms"),
        (0.0004, "<1ms"),
        (0.0304, "30ms"),
        (0.9999, "1.0s"),
        (9.96, "10s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (7_800, "2h 10m"),
        (273_600, "3d 04h"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_foreign_text_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\x1b]0;title\x07c\rd\x9bHe\u202ef") == "abc d He f"
    assert printable("a\tb") == "a   b"


def test_a_traceback_keeps_the_users_frames_and_the_messages_of_the_chain() -> None:
    rq_frame = '  File "/v/site-packages/rq/job.py", line 1, in perform\n    return f()\n'
    users = '  File "/home/me/tasks.py", line 7, in load\n    return loads(text)\n           ^^\n'
    text = (
        "Traceback (most recent call last):\n"
        f"{rq_frame}{users}"
        "ValueError: no number:\n  12x\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        f"{rq_frame}"
        "RuntimeError: cannot load\n"
    )

    assert own_lines(text) == [
        '  File "/home/me/tasks.py", line 7, in load',
        "    return loads(text)",
        "           ^^",
        "ValueError: no number:",
        "  12x",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "RuntimeError: cannot load",
    ]


def test_a_syntax_error_keeps_its_place() -> None:
    try:
        compile("a b", "/home/me/tasks.py", "exec")
    except SyntaxError as error:
        lines = own_lines("".join(traceback.format_exception(error)))

    assert '  File "/home/me/tasks.py", line 1' in lines
    assert lines[-1].startswith("SyntaxError:")


def test_what_is_no_traceback_is_told_as_it_is() -> None:
    assert own_lines("killed by signal 9\n  a detail\n") == ["killed by signal 9", "  a detail"]


def test_the_summary_shows_some_failures_and_names_the_others() -> None:
    status = _status(*["failed"] * 20, state="failed")
    failed = [FailedJob(name, "ValueError: x", ["out"]) for name in status.jobs]

    lines = [plain(line) for line in summary(Report(status, {}, failed, _show))]

    assert lines[0] == "✗ flow failed: 20 failed  run r"
    assert lines[2:6] == ["✗ job_0 failed", "  ValueError: x", "  its last output:", "  | out"]
    assert lines[-7].startswith("✗ also failed: job_5, job_6")
    assert lines[-7].endswith(" and 5 more")
    assert lines[-5] == "the rest: flowq show r job_0"
    assert lines[-1] == "          flowq show r job_4"


def _show(name: str) -> str:
    return f"flowq show r {shlex.quote(name)}"


def test_the_command_at_the_end_of_a_summary_can_be_pasted() -> None:
    report = Report(_status("failed", state="failed"), {}, [FailedJob("n[1]")], _show)

    assert plain(summary(report)[-1]) == "the rest: flowq show r 'n[1]'"


def test_what_a_killed_process_wrote_is_told_once() -> None:
    killed = FailedJob("n", "it was killed\n\nIts last output:\nbegin\nend", ["begin", "end"])

    lines = [plain(line) for line in failure(killed)]

    assert lines.count("  end") == 1
    assert "  its last output:" not in lines


def test_results_are_told_in_one_line_each_and_none_is_not_told() -> None:
    status = _status("finished", state="succeeded")
    results = {"a": None, "b": "x" * 500, "c": "one\ntwo", **{f"r{i}": i for i in range(9)}}

    lines = [plain(line) for line in summary(Report(status, results), 60)]

    assert len(lines[1]) <= 60
    assert lines[1].startswith("  b = 'xxx")
    assert lines[2] == "  c = 'one\\ntwo'"
    assert lines[-1] == "  and 5 more results"


def test_a_result_that_cannot_be_shown_does_not_hide_the_others() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    report = Report(_status("finished", state="succeeded"), {"a": Bad(), "b": 1})

    assert "  b = 1" in [plain(line) for line in summary(report)]


def test_the_summary_of_a_run_in_which_no_job_failed_says_what_else_went_wrong() -> None:
    reason = "it expired before it was approved"
    jobs = {
        "publish": JobStatus("publish", "r-publish", "canceled", reason),
        "after": JobStatus("after", "r-after", "skipped", "publish was canceled"),
    }
    status = RunStatus("r", "demo", "failed", jobs)

    lines = [plain(line) for line in summary(Report(status))]

    assert lines[-1] == f"⊘ publish canceled: {reason}"


def test_the_summary_of_a_failed_run_lists_what_was_rejected_beside_what_failed() -> None:
    jobs = {
        "bad": JobStatus("bad", "r-bad", "failed"),
        "publish": JobStatus("publish", "r-publish", "canceled", "rejected: not today"),
        "n[1]": JobStatus("n[1]", "r-n--1", "canceled", "n[0] failed"),
    }
    status = RunStatus("r", "demo", "failed", jobs)

    lines = [plain(line) for line in summary(Report(status, {}, [FailedJob("bad")]))]

    assert lines[1:4] == ["⊘ publish canceled: rejected: not today", "", "✗ bad failed"]
    assert not any("n[1]" in line for line in lines[1:])


def test_the_summary_counts_apart_what_is_tolerated() -> None:
    jobs = {
        "inner.a": JobStatus("inner.a", "r-inner--a", "failed"),
        "inner": JobStatus("inner", "r-inner", "failed", "tolerated: inner.a failed"),
        "b": JobStatus("b", "r-b", "failed", "tolerated"),
        "c": JobStatus("c", "r-c", "failed"),
    }

    first, *_ = summary(Report(RunStatus("r", "demo", "failed", jobs)))

    assert ": 1 failed, 3 failed and tolerated" in plain(first)


def test_the_frames_of_flowq_and_rq_are_left_out_before_the_users_own() -> None:
    place = Path(flowq.__file__).parent
    runtime = (
        "Traceback (most recent call last):\n"
        f'  File "{place}/runtime/rq.py", line 1, in perform_job\n    value = job.perform()\n'
        "            ^^^^^^^^^^^^^\n"
        '  File "/usr/lib/python3/site-packages/rq/job.py", line 2, in perform\n    call()\n'
    )
    own = (
        '  File "/home/me/jobs.py", line 3, in work\n    get()\n    ~~~^^\n'
        '  File "/usr/lib/python3/site-packages/requests/api.py", line 4, in get\n    raise\n'
    )
    assert without_runtime(f"{runtime}{own}ValueError: no\n") == [
        "Traceback (most recent call last):",
        *own.splitlines(),
        "ValueError: no",
        "(2 frames of flowq and RQ left out; -v shows all)",
    ]
    assert without_runtime(f"{runtime}ValueError: no\n  a detail\n") == [
        "ValueError: no",
        "  a detail",
        "(2 frames of flowq and RQ left out; -v shows all)",
    ]
    for text in (f"Traceback (most recent call last):\n{own}ValueError: no", "killed\n  a detail"):
        assert without_runtime(text) == text.splitlines()


def test_the_id_of_a_run_is_not_broken_by_the_end_of_a_line() -> None:
    status = _status("finished", state="succeeded")
    whole = plain(summary(Report(status))[0])
    assert whole.endswith(f"  run {status.run_id}")
    lines = [plain(line) for line in summary(Report(status), len(whole) - 1)]
    assert lines == [whole.removesuffix(f"  run {status.run_id}"), f"  run {status.run_id}"]


def test_results_that_say_nothing_are_left_out() -> None:
    results = {"silent": "", "nothing": None, "zero": 0, "empty": []}
    lines = [plain(line) for line in summary(Report(_status("finished"), results))]
    assert lines[1:] == ["  zero = 0", "  empty = []"]


def test_the_end_of_a_canceled_run_says_how_to_go_on() -> None:
    report = Report(_status("canceled", state="canceled"), retry_command="flowq retry r")
    assert plain(summary(report)[-1]) == "go on with it: flowq retry r"
