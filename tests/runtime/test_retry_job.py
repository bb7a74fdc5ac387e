"""`flowq retry RUN JOB`: one job runs again, and what follows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import NotFound, WrongState
from flowq.runtime import runs
from flowq.runtime.job import get_job
from flowq.spec import JobSpec, Matrix, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def note(name: str, log: Path, **more: Any) -> JobSpec:
    return job(name, "note", with_={"path": str(log), "text": more.pop("text", name)}, **more)


def submit(run: Runs, log: Path) -> None:
    """first → group (for_each) and legs (matrix) and sub (a workflow) → last; other; end."""
    inner = Workflow("inner", (note("x", log), note("y", log, needs=("x",))))
    text = "group ${{ item }}"
    run.submit(
        job("first", "give", with_={"value": ["a", "b"]}),
        note("group", log, text=text, for_each=each("${{ jobs.first.result }}")),
        note("legs", log, text="leg ${{ matrix.os }}", matrix=Matrix({"os": ["linux", "mac"]})),
        JobSpec("sub", workflow="inner", needs=("first",)),
        note("last", log, needs=("group", "legs", "sub")),
        note("other", log),
        note("end", log, is_final=True),
        workflows={"inner": inner},
    )


def lines(log: Path) -> list[str]:
    found = sorted(log.read_text().splitlines())
    log.unlink()
    return found


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("last", ["last"]),
        ("group[1]", ["group b", "last"]),
        ("group", ["group a", "group b", "last"]),
        ("legs", ["last", "leg linux", "leg mac"]),
        ("legs[mac]", ["last", "leg mac"]),
        ("sub", ["last", "x", "y"]),
        ("sub.y", ["last", "y"]),
        ("first", ["group a", "group b", "last", "x", "y"]),
        ("other", ["other"]),
        ("end", []),
    ],
)
def test_a_job_that_has_succeeded_runs_again_with_what_follows_it(
    run: Runs, work: Work, log: Path, connection: Redis, name: str, again: list[str]
) -> None:
    submit(run, log)
    work()
    assert (run.state, len(lines(log))) == ("succeeded", 9)
    other = get_job(f"{RUN}-other", connection).ended_at
    Run(RUN, connection).retry(name)
    assert run.state == "running"
    work()
    assert run.state == "succeeded"
    assert lines(log) == sorted([*again, "end"])
    assert (get_job(f"{RUN}-other", connection).ended_at == other) == (name != "other")


def test_what_failed_elsewhere_stays_failed(run: Runs, work: Work, log: Path) -> None:
    run.submit(note("a", log), job("bad", "fail"), note("b", log, needs=("a",)))
    work()
    assert Run(RUN, run.connection).retry("a") == ("b", "a")
    work()
    assert (run.state, run.states["bad"], run.status.jobs["bad"].attempts) == (
        "failed",
        "failed",
        1,
    )
    assert lines(log) == ["a", "a", "b", "b"]


def test_a_job_that_failed_runs_again_alone_of_those_that_did(
    run: Runs, work: Work, log: Path, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    run.submit(
        job("a", "fail_unless", with_={"path": gate}),
        job("b", "fail_unless", with_={"path": gate}),
        note("after", log, needs=("a",)),
    )
    work()
    Path(gate).touch()
    Run(RUN, run.connection).retry("a")
    work()
    assert run.states == {"a": "finished", "b": "failed", "after": "finished"}


def test_a_job_is_not_retried_that_one_before_it_keeps_from_running(
    run: Runs, work: Work, log: Path
) -> None:
    run.submit(
        job("bad", "fail"),
        note("middle", log, needs=("bad",)),
        note("last", log, needs=("middle",)),
        note("always", log, needs=("bad",), if_="always()"),
    )
    work()
    for name, culprit in (("middle", "bad"), ("last", "middle")):
        with pytest.raises(WrongState) as refusal:
            Run(RUN, run.connection).retry(name)
        assert str(refusal.value) == (
            f"job {name} of run {RUN} cannot run: {culprit} before it did not succeed; "
            f"retry {culprit}, and {name} runs again after it, or the whole run"
        )
    assert run.state == "failed"
    Run(RUN, run.connection).retry("always")
    work()
    assert lines(log) == ["always", "always"]


def test_a_run_that_goes_on_is_refused(run: Runs, work: Work, log: Path) -> None:
    submit(run, log)
    with pytest.raises(WrongState, match=f"run {RUN} is running; cancel it first, or wait"):
        Run(RUN, run.connection).retry("first")
    work()
    with pytest.raises(WrongState, match="A retry that names a job runs it again"):
        Run(RUN, run.connection).retry()


def test_a_name_that_no_job_has_is_refused(run: Runs, work: Work, log: Path) -> None:
    submit(run, log)
    work()
    with pytest.raises(NotFound, match="there is no job lst in run r1; did you mean 'last'"):
        Run(RUN, run.connection).retry("lst")


def test_a_job_that_was_deleted_is_refused(run: Runs, work: Work, log: Path) -> None:
    submit(run, log)
    work()
    get_job(f"{RUN}-other", run.connection).delete()
    with pytest.raises(WrongState, match="job other of run r1 was deleted"):
        Run(RUN, run.connection).retry("other")


def test_a_job_of_a_canceled_run_runs_again_where_nothing_before_it_is_missing(
    run: Runs, work: Work, log: Path
) -> None:
    run.submit(note("a", log), note("b", log, needs=("a",)), note("end", log, is_final=True))
    runs.cancel(RUN, run.connection, is_now=True)
    with pytest.raises(WrongState, match="cannot run: a before it did not succeed"):
        Run(RUN, run.connection).retry("b")
    Run(RUN, run.connection).retry("a")
    work()
    assert (run.state, lines(log)) == ("succeeded", ["a", "b", "end"])
