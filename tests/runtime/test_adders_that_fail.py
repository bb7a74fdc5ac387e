"""The start of a nested workflow, or the list of a group, fails before it has released its jobs.

`w` has jobs under `finally`, and so has the run, which waits for all that is inside of `w`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.plan import Nested
from flowq.runtime import groups, retry, runs, steps
from flowq.runtime.job import get_job
from flowq.runtime.wire import from_wire
from flowq.spec import Approval, JobSpec, Retry, Workflow
from tests.runtime.language import RUN, Runs, each, job
from tests.runtime.test_rounds import begin_rounds

Work = Callable[..., None]

ADDER_FAILED = "the job that added it has failed"


def give(name: str, **more: Any) -> JobSpec:
    return job(name, "give", with_={"value": name}, **more)


JOBS = (give("a"), give("b", needs=("a",)), give("p"), give("q", needs=("p",)))
FINALS = (give("z0", is_final=True), give("y0", is_final=True))
WITH_FINALS = Workflow("inner", (*JOBS, *FINALS, give("z1", needs=("z0",), is_final=True)))
INSIDE = [f"w.{each.name}" for each in WITH_FINALS.jobs]
W = JobSpec("w", workflow="inner")
END = give("end", is_final=True)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def work_tidying(work: Work, tidy: Work) -> Work:
    """`work_tidying()`: work, do the maintenance after what has failed, and work again."""

    def run_both() -> None:
        work()
        tidy()
        work()

    return run_both


@pytest.fixture
def die(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`die(at)`: an adder fails instead of the release of that number, or after it."""

    def arm(at: int = 0, name: str = "release_added", after: bool = False) -> None:
        real, calls = getattr(groups, name), []

        def release(*arguments: Any, **more: Any) -> None:
            calls.append(arguments)
            if len(calls) - 1 == at and not after:
                raise RuntimeError("killed")
            real(*arguments, **more)
            if len(calls) - 1 == at:
                raise RuntimeError("killed")

        monkeypatch.setattr(groups, name, release)

    return arm


def attempts(run: Runs) -> dict[str, int]:
    return {name: each.attempts for name, each in run.status.jobs.items() if each.attempts}


def test_nothing_of_a_workflow_runs_whose_start_dies_between_adding_and_releasing(
    run: Runs, work_tidying: Work, die: Work
) -> None:
    die()
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert attempts(run) == {"w(start)": 1, "end": 1}
    assert {name: run.states[name] for name in INSIDE} == dict.fromkeys(INSIDE, "canceled")
    assert {run.reason(name) for name in INSIDE} == {ADDER_FAILED}
    assert (run.state, run.states["w"], run.states["end"]) == ("failed", "failed", "finished")


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 8])
def test_nothing_of_it_begins_between_the_steps_that_call_it_off(
    budget: int, run: Runs, work_tidying: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.runtime.steps.ITEMS_PER_STEP", budget)
    die()
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert attempts(run) == {"w(start)": 1, "end": 1}
    assert set(map(run.states.get, INSIDE)) <= {"canceled", "skipped"}


@pytest.mark.parametrize("added", [1, 3, 5])
def test_nor_does_it_where_only_some_of_the_jobs_were_added(
    added: int, run: Runs, work_tidying: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "batches", lambda jobs: [[each] for each in jobs])
    die(added, "add_planned")
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert attempts(run) == {"w(start)": 1, "end": 1}
    assert run.state == "failed"


@pytest.mark.parametrize("released", [0, 1, 2])
def test_nothing_begins_before_the_last_call_of_a_release_that_needs_several(
    released: int, run: Runs, work_tidying: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The future jobs are b, q, z0, y0 and z1: the last call has those that hold all others."""
    real, calls = groups.scripts.RELEASE.call, []

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > released:
            raise RuntimeError("killed")
        return real(*arguments)

    monkeypatch.setattr(groups, "RELEASES_PER_CALL", 2)
    with monkeypatch.context() as patch:
        run.submit(W, END, workflows={"inner": WITH_FINALS})
        patch.setattr(groups.scripts.RELEASE, "call", call)
        work_tidying()
    assert attempts(run) == {"w(start)": 1, "end": 1}
    assert set(map(run.states.get, INSIDE)) <= {"canceled", "skipped"}


def test_all_of_a_workflow_runs_whose_start_dies_after_the_release(
    run: Runs, work_tidying: Work, die: Work
) -> None:
    die(after=True)
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert attempts(run) == dict.fromkeys(["w(start)", "end", *INSIDE], 1)
    assert (run.state, run.states["w"]) == ("failed", "failed")


def test_a_release_that_was_cut_off_after_its_call_is_finished_by_others(
    run: Runs, work_tidying: Work, die: Work
) -> None:
    die(name="finish")
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert attempts(run) == dict.fromkeys(["w(start)", "end", *INSIDE], 1)


def test_a_job_that_waits_for_nothing_is_taken_from_its_queue(
    run: Runs, work: Work, tidy: Work, die: Work
) -> None:
    """It needs no release, and without `finally` in its workflow it is queued when it is added."""
    die()
    run.submit(W, workflows={"inner": Workflow("inner", (*JOBS, give("alone")))})
    work(1)
    tidy()
    assert run.connection.llen("rq:queue:default") == 0
    assert attempts(run) == {"w(start)": 1}
    assert (run.state, run.reason("w.alone")) == ("failed", ADDER_FAILED)


def test_what_began_before_the_start_died_comes_to_its_end_and_nothing_else_begins(
    run: Runs, work: Work, tidy: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute_one_and_die(*_: Any) -> None:
        work(1)
        raise RuntimeError("killed")

    monkeypatch.setattr(groups, "release_added", execute_one_and_die)
    pair = (give("alone"), give("turn"))  # the end of one of them gives its place to the other
    run.submit(W, workflows={"inner": Workflow("inner", (*JOBS, *pair), max_parallel=1)})
    work(1)
    tidy()
    work()
    assert len(attempts(run)) == 2
    assert sorted(run.states[f"w.{each.name}"] for each in pair) == ["canceled", "finished"]
    assert run.state == "failed"


def test_a_place_that_comes_free_before_they_are_called_off_is_given_to_none_of_them(
    run: Runs, work: Work, tidy: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    die()
    run.submit(
        W,
        max_parallel=1,
        workflows={"inner": Workflow("inner", (*JOBS, give("alone")))},
    )
    monkeypatch.setattr("flowq.runtime.steps.ITEMS_PER_STEP", 1)
    work()
    tidy()
    assert attempts(run) == {"w(start)": 1}
    assert run.state == "failed"


def test_nobody_is_asked_for_an_approval_in_a_workflow_whose_start_died(
    run: Runs, work: Work, tidy: Work, die: Work
) -> None:
    asking = Workflow("inner", (give("a", approval=Approval()), *FINALS))
    die()
    run.submit(W, workflows={"inner": asking})
    work()
    tidy()
    assert (run.state, run.states["w.a"], run.states["w.z0"]) == ("failed", "canceled", "canceled")
    events = run.connection.xrange(f"rq:flowq:1:events:{RUN}")
    assert not [each for _, each in events if b"approval" in each.get(b"reason", b"")]


def test_a_workflow_in_a_workflow_does_not_begin_either(
    run: Runs, work_tidying: Work, die: Work
) -> None:
    outer = Workflow(
        "outer", (JobSpec("v", workflow="inner"), END), workflows={"inner": WITH_FINALS}
    )
    die()
    run.submit(JobSpec("w", workflow="outer"), END, workflows={"outer": outer})
    work_tidying()
    assert attempts(run) == {"w(start)": 1, "end": 1}
    assert run.states["w.v"] == run.states["w.v(start)"] == run.states["w.end"] == "canceled"


def test_the_start_within_a_workflow_dies_and_what_is_around_it_ends_as_declared(
    run: Runs, work_tidying: Work, die: Work
) -> None:
    outer = Workflow(
        "outer", (JobSpec("v", workflow="inner"), END), workflows={"inner": WITH_FINALS}
    )
    die(1)
    run.submit(JobSpec("w", workflow="outer"), END, workflows={"outer": outer})
    work_tidying()
    assert attempts(run) == {"w(start)": 1, "w.v(start)": 1, "w.end": 1, "end": 1}


def test_a_list_that_dies_between_adding_and_releasing_loses_only_those_items_until_the_retry(
    run: Runs, work_tidying: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ITEMS_PER_CALL", 2)
    with monkeypatch.context():
        die(1)
        run.submit(
            JobSpec("w", workflow="inner", for_each=each([1, 2, 3, 4, 5])),
            END,
            workflows={"inner": WITH_FINALS},
        )
        work_tidying()
        assert run.states["w[0]"] == run.states["w[1]"] == "finished"
        assert run.states["w[2]"] == run.states["w[3]"] == "canceled"
        assert run.states["w[2](start)"] == run.states["w[3](start)"] == "canceled"
        assert attempts(run)["w[1].z1"] == 1
        assert "w[2].a" not in attempts(run)
        assert (run.state, run.states["end"]) == ("failed", "finished")
    monkeypatch.undo()
    retry.retry(RUN, run.connection)
    work_tidying()
    assert run.state == "succeeded"
    assert {attempts(run)[f"w[{index}].z1"] for index in range(5)} == {1}


def test_nothing_of_an_item_begins_between_the_steps_that_call_it_off(
    run: Runs, work: Work, tidy: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start of the item also stands before `end`, which is not called off."""
    die()
    run.submit(
        JobSpec("w", workflow="inner", for_each=each([1])), END, workflows={"inner": WITH_FINALS}
    )
    work(1)
    monkeypatch.setattr(steps, "ITEMS_PER_STEP", 1)
    strand = f"strand:{RUN}-w"
    while run.states["w[0]"] != "canceled":
        assert steps.step(run.connection, strand).more
    steps.finish(run.connection, f"abandon:{RUN}-w--0")
    assert run.states["w[0](start)"] == "canceled"
    tidy()
    work()
    assert attempts(run) == {"w(list)": 1, "end": 1}


def test_a_run_that_is_retried_runs_each_job_of_the_workflow_once(
    run: Runs, work_tidying: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    die()
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    monkeypatch.undo()
    retry.retry(RUN, run.connection)
    work_tidying()
    assert run.state == "succeeded"
    assert {name: attempts(run)[name] for name in INSIDE} == dict.fromkeys(INSIDE, 1)


def test_a_workflow_with_retries_begins_anew(
    run: Runs, work_tidying: Work, work: Work, tidy: Work, die: Work
) -> None:
    die()
    w = JobSpec("w", workflow="inner", retries=Retry(1))
    run.submit(w, END, workflows={"inner": WITH_FINALS})
    work()
    tidy()
    assert not attempts(run).keys() & {*INSIDE}
    begin_rounds(run.connection)
    work_tidying()
    assert run.state == "succeeded"
    assert {name: attempts(run)[name] for name in INSIDE} == dict.fromkeys(INSIDE, 1)


def test_a_start_that_is_queued_again_after_a_crash_adds_nothing_twice(
    run: Runs, work: Work, tidy: Work, die: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    die()
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    starting = get_job(f"{RUN}-w--0", run.connection)
    with pytest.raises(RuntimeError, match="killed"):
        groups.start(starting, from_wire(Nested, starting.args[0]["nested"]), {})
    monkeypatch.undo()
    tidy()
    work()
    assert run.state == "succeeded"
    assert attempts(run) == dict.fromkeys(["w", "w(start)", "end", *INSIDE], 1)
    assert len(get_job(f"{RUN}-w", run.connection).blockers) == len(INSIDE) + 1
    assert not run.connection.hexists(starting.key, "flowq_adds")


@pytest.mark.parametrize("now", [False, True])
def test_a_run_is_canceled_between_adding_and_releasing(
    now: bool, run: Runs, work_tidying: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel_and_die(*_: Any) -> None:
        runs.cancel(RUN, run.connection, is_now=now)
        raise RuntimeError("killed")

    monkeypatch.setattr(groups, "release_added", cancel_and_die)
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    assert run.state == "canceled"
    assert attempts(run) == {"w(start)": 1} | ({} if now else {"end": 1})


def test_nothing_of_it_is_left_when_the_run_is_removed(
    run: Runs, work_tidying: Work, tidy: Work, die: Work
) -> None:
    die()
    run.submit(W, END, workflows={"inner": WITH_FINALS})
    work_tidying()
    runs.remove(RUN, run.connection)
    tidy()
    assert not [key for key in run.connection.keys("*") if RUN.encode() in key]
