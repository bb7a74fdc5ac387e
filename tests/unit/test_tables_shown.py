"""Tables at 80 columns: what a reader needs of a row is there, whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flowq.history import Attempt
from flowq.render.details import JobDetails, job_details
from flowq.render.lines import plain
from flowq.render.progress import rows
from flowq.render.wip import wip_table
from flowq.reports import Progress
from flowq.runtime.wip import Executing, InProgress
from flowq.status import JobStatus, say_state

START = datetime(2026, 11, 24, 12, 3, 4, tzinfo=UTC)


def test_the_attempts_of_a_job_fit_80_columns_with_their_errors_below() -> None:
    attempts = [
        Attempt(
            number,
            "timed_out",
            "w1",
            queued_at=START,
            started_at=START + timedelta(minutes=59),
            ended_at=START + timedelta(hours=2),
            error="JobTimeoutException: " + "x" * 200,
            exit_code=137,
        )
        for number in (1, 2)
    ]
    said = "The process of the job ended unexpectedly: signal 9 (SIGKILL)"
    attempts.append(replace(attempts[0], number=3, error=said))
    hosts = {"w1": ("a-host", 4_194_304)}
    status = JobStatus("a", "r-a", "failed", progress=Progress(3, 4, "halfway"))
    details = JobDetails(status, attempts=attempts, host_by_worker=hosts)

    lines = [plain(line) for line in job_details(details)]
    table = lines[lines.index("attempts:") :]

    assert max(map(len, table)) <= 80
    assert "  progress  3/4 (75%): halfway" in lines
    assert table[-1].strip() == said, "how it ended is told once"
    told = "exit code 137 (killed by SIGKILL): JobTimeoutException: xxx"
    assert sum(told in line for line in table) == 2


def test_the_id_of_a_run_is_whole_at_80_columns() -> None:
    executing = Executing(
        job_id="k3v9x0q2m5ab-a_job_with_a_long_name--1",
        execution_id="e",
        description="a_module.a_function(1)",
        state="started",
        run_id="k3v9x0q2m5ab",
        workflow="a-long-name-of-a-workflow",
        name="a_job_with_a_long_name[1]",
        queue="default",
        worker="0123456789abcdef",
        host="a-host-with-a-name",
        pid=123_456,
        started_at=START,
        seen_at=START,
        timeout_s=180.0,
    )
    lines = wip_table(InProgress(START, [executing], {"started": 1}), 80)

    assert max(len(plain(line)) for line in lines) <= 80
    assert "k3v9x0q2m5ab" in plain(lines[1])

    reporting = replace(executing, progress=Progress(3, 12, "crunching numbers"))
    for width in (80, 60):
        heads, line = map(plain, wip_table(InProgress(START, [reporting], {"started": 1}), width))
        assert max(len(heads), len(line)) <= width
        assert "k3v9x0q2m5ab" in line, "before the worker, which its host and process name"
        assert "WORKER" not in heads
        assert ("HOST" in heads) == (width == 80)


def test_how_a_process_ended_is_seen_where_the_line_is_cut() -> None:
    error = "The process of the job ended unexpectedly: signal 9 (SIGKILL)"
    [line] = rows([JobStatus("page[200]", "r-page--200", "failed", error=error)], START, 80)
    assert plain(line).endswith("failed, its process ended: signal 9 (SIGKILL)")


def test_states_stand_in_sentences_as_english_has_them() -> None:
    assert say_state("failed") == "has failed"
    assert say_state("queued") == "is queued"
    assert say_state("finished", of_many=True) == "have finished"
