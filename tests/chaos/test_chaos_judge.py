"""The judge of the chaos test finds what it is there for: each promise, broken on purpose."""

from __future__ import annotations

import pytest

from tests.chaos.evidence import Evidence, Execution, GraphFacts, JobFacts, Kill, Transition
from tests.chaos.judge import judge
from tests.chaos.shapes import Graph, Node

GRAPH = Graph(0, 0, "chain", (Node("a"), Node("f", needs=("a",))))
A, F = GRAPH.job_id("a"), GRAPH.job_id("f")
LOG = (
    Transition(A, "queued", ""),
    Transition(A, "started", ""),
    Transition(A, "finished", ""),
    Transition(F, "queued", ""),
    Transition(F, "started", ""),
    Transition(F, "finished", ""),
)


def job(job_id: str, outcome: str = "finished", status: str = "finished") -> JobFacts:
    is_future = job_id == F
    blocks = {} if is_future else {F: True}
    return JobFacts(job_id, status, outcome, 0, 0, is_future, "skip", blocks)


def run(job_id: str, start: float, end: float | None, how: str = "end", **more: str) -> Execution:
    return Execution(job_id, 0, 11, 10, "w", start, end, how if end else "", **more)


def evidence(
    *executions: Execution,
    kills: tuple[Kill, ...] = (),
    log: tuple[Transition, ...] = LOG,
    jobs: tuple[JobFacts, ...] = (job(A), job(F)),
    state: str = "succeeded",
    told: tuple[str, ...] = ("begun", "submitted"),
) -> Evidence:
    facts = GraphFacts(GRAPH, told, 0.0, state, {each.job_id: each for each in jobs}, log)
    by_job: dict[str, list[Execution]] = {}
    for each in executions or (run(A, 1, 2), run(F, 3, 4)):
        by_job.setdefault(each.job_id, []).append(each)
    return Evidence([facts], by_job, list(kills))


def faults(found: Evidence) -> list[str]:
    return [str(fault) for fault in judge(found)[0]]


def test_a_run_in_which_all_went_well_has_no_faults() -> None:
    assert judge(evidence()) == ([], [])


def test_a_future_job_that_starts_before_its_blocker_has_ended_is_found() -> None:
    assert faults(evidence(run(A, 1, 3.5), run(F, 3, 4))) == [
        f"{F}: started 3.000, {A} was not over"
    ]


def test_a_blocker_that_starts_after_its_future_job_is_found() -> None:
    kill = Kill("worker", 9, 1.5, "w")
    found = faults(evidence(run(A, 1, None), run(A, 5, 6), run(F, 3, 4), kills=(kill,)))
    assert f"{F}: started 3.000, {A} was not over" in found


def test_a_repeated_start_without_a_kill_is_found() -> None:
    assert "NO REASON FOUND" in faults(evidence(run(A, 1, 1.4), run(A, 1.5, 2), run(F, 3, 4)))[0]


@pytest.mark.parametrize(
    "kill",
    [
        Kill("worker", 9, 1.2, "another"),
        Kill("child", 12, 1.2, "w"),
        Kill("worker", 9, 0.2, "w"),
        Kill("worker", 9, 2.2, "w"),
        Kill("client", 11, 1.2),
    ],
)
def test_a_kill_of_another_or_at_another_time_is_no_reason(kill: Kill) -> None:
    found = evidence(run(A, 1, None), run(A, 2, 2.5), run(F, 3, 4), kills=(kill,))
    assert "NO REASON FOUND" in faults(found)[0]


@pytest.mark.parametrize(
    "kill",
    [
        Kill("worker", 9, 1.2, "w"),
        Kill("child", 11, 1.2, "w"),
        Kill("nursery", 10, 1.2, "w"),
        Kill("server", 8, 1.2, back_s=0.1),
    ],
)
def test_a_kill_during_the_execution_is_a_reason_and_is_listed(kill: Kill) -> None:
    log = (*LOG[:2], Transition(A, "queued", "its worker was lost"), *LOG[1:])
    found = evidence(run(A, 1, None), run(A, 2, 2.5), run(F, 3, 4), kills=(kill,), log=log)
    no_faults, repeats = judge(found)
    assert no_faults == []
    assert [(repeat.kill, repeat.when) for repeat in repeats] == [(kill, "during that execution")]
    assert repeats[0].recovery_s == pytest.approx(0.8)


def test_a_planned_failure_needs_no_kill_but_an_unplanned_one_is_found() -> None:
    log = (*LOG[:2], Transition(A, "scheduled", ""), *LOG)
    planned = run(A, 1, 1.5, "raise", text="PlannedFailure: ")
    unplanned = run(A, 1, 1.5, "raise", text="FutureEnded: no")
    graph_without_retries = f"{A}: was retried 1 times"
    assert faults(evidence(planned, run(A, 2, 2.5), run(F, 3, 4), log=log)) == [
        graph_without_retries
    ]
    found = faults(evidence(unplanned, run(A, 2, 2.5), run(F, 3, 4), log=log))
    assert f"{A}: raised FutureEnded: no" in found


def test_a_job_that_is_queued_twice_is_found() -> None:
    assert faults(evidence(log=(*LOG[:1], *LOG))) == [
        f"{A}: was queued after queued, as its run's log says"
    ]


def test_a_future_job_that_is_queued_before_the_end_of_a_blocker_is_found() -> None:
    log = (*LOG[:2], LOG[3], LOG[2], *LOG[4:])
    assert faults(evidence(log=log)) == [f"{F}: was queued before the end of {A}"]


def test_a_run_that_is_stuck_is_found_with_its_job() -> None:
    found = evidence(
        run(A, 1, 2), log=LOG[:3], jobs=(job(A), job(F, "", "deferred")), state="running"
    )
    assert faults(found)[:2] == [f"{GRAPH.id}: is stuck: running", f"{F}: is stuck: deferred"]


def test_a_submitted_run_that_is_gone_is_found_unless_the_server_was_killed_just_then() -> None:
    lost = evidence(jobs=(), state="", log=())
    lost.executions = {}
    assert faults(lost) == [f"{GRAPH.id}: submitted, and a, f not there"]
    lost.kills = [Kill("server", 8, 0.5, back_s=0.1)]
    assert faults(lost) == []


def test_a_run_that_was_never_committed_and_ran_is_found() -> None:
    found = evidence(run(A, 1, 2), jobs=(), state="", log=(), told=("begun",))
    assert faults(found) == [f"{GRAPH.id}: never committed, and {A} ran"]


def test_a_policy_that_was_not_kept_is_found() -> None:
    jobs = (job(A, "failed", "failed"), job(F))
    log = (*LOG[:2], Transition(A, "failed", ""), *LOG[3:])
    bad = run(A, 1, 2, "raise", text="PlannedFailure: ")
    found = evidence(bad, run(F, 3, 4), jobs=jobs, log=log, state="failed")
    assert faults(found) == [f"{F}: skip, is finished, and bad are: ['{A}']"]


def test_what_is_left_in_redis_is_found() -> None:
    found = evidence()
    found.leftovers = ["1 WIP entries"]
    assert faults(found) == ["redis: 1 WIP entries left"]
