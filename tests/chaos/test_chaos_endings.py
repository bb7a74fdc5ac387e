"""The judge of the chaos test finds what went wrong under `finally`, and with other ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowq.compiling import compile_plan
from tests.chaos.endings import check_endings
from tests.chaos.evidence import Evidence, Execution, GraphFacts, JobFacts, Kill, Transition
from tests.chaos.firsts import check_firsts
from tests.chaos.judge import check_executions, check_log
from tests.chaos.proofs import is_planned
from tests.chaos.shapes import ENDINGS, PLANNED, SLEEPS_S, Graph, Node, make_graph, make_workflow

ANOTHER = Kill("worker", 9, 1.5, "another")
OURS = Kill("worker", 9, 1.5, "w")


def run(
    name: str,
    start: float,
    end: float | None,
    how: str = "end",
    generation: int = 0,
    text: str = "",
) -> Execution:
    job_id = f"c00000000000-{name}"
    return Execution(job_id, generation, 11, 10, "w", start, end, how if end else "", text)


def job(name: str, outcome: str = "finished", generation: int = 0) -> JobFacts:
    job_id = f"c00000000000-{name}"
    return JobFacts(job_id, outcome, outcome, generation, 0, False, "skip", {})


def line(name: str, state: str, reason: str = "") -> Transition:
    return Transition(f"c00000000000-{name}", state, reason)


def facts_of(
    *nodes: Node,
    jobs: tuple[JobFacts, ...] = (),
    log: tuple[Transition, ...] = (),
    state: str = "succeeded",
    reason: str = "",
    timeout_s: float | None = None,
    told: tuple[str, ...] = ("begun", "submitted"),
) -> GraphFacts:
    graph = Graph(0, 0, "finally", nodes, timeout_s)
    by_id = {each.job_id: each for each in jobs or [job(node.name) for node in nodes]}
    return GraphFacts(graph, told, 0.0, state, by_id, log, reason)


def faults(facts: GraphFacts, *executions: Execution, kills: tuple[Kill, ...] = ()) -> list[str]:
    by_job: dict[str, list[Execution]] = {}
    for each in executions:
        by_job.setdefault(each.job_id, []).append(each)
    found = check_endings(facts, Evidence([facts], by_job, list(kills)))
    return [str(each).removeprefix("c00000000000-") for each in found]


def test_all_of_these_shapes_can_be_declared_and_none_goes_through_the_plain_api() -> None:
    graphs = [make_graph(7, number) for number in range(120)]
    for shape in ENDINGS:
        some = [graph for graph in graphs if graph.shape == shape]
        assert len(some) >= 7
        for graph in some:
            assert not graph.is_plain
            plan = compile_plan(make_workflow(graph), run_id=graph.id, imports=False)
            ids = {enqueue.job_id for enqueue in plan.enqueues}
            assert {graph.job_id(node.name) for node in graph.inside("")} <= ids
    assert {graph.shape for graph in graphs[:12]} >= set(ENDINGS)


# Jobs under `finally` ----------------------------------------------------------------------------

A, B, Z = Node("a"), Node("b"), Node("z", is_final=True)


def test_a_job_under_finally_that_runs_after_all_others_is_no_fault() -> None:
    assert faults(facts_of(A, B, Z), run("a", 1, 2), run("b", 1, 3), run("z", 3, 4)) == []


def test_a_job_under_finally_that_starts_before_another_has_ended_is_found() -> None:
    found = faults(facts_of(A, B, Z), run("a", 1, 2), run("b", 1, 3), run("z", 2.5, 4))
    assert found == ["z: under `finally`, started 2.500 before the end of c00000000000-b"]


def test_a_job_that_starts_after_the_last_start_of_one_under_finally_is_found() -> None:
    facts = facts_of(A, Z)
    found = faults(facts, run("z", 1, 1.2), run("a", 2, 3))
    assert found == ["z: under `finally`, started 1.000 before the end of c00000000000-a"]
    again = facts_of(A, Z, jobs=(job("a", generation=1), job("z", generation=1)))
    executions = [run("a", 0, 0.5), run("z", 1, 1.2), run("a", 2, 3, generation=1)]
    assert faults(again, *executions, run("z", 4, 5, generation=1)) == []


def test_a_job_under_finally_whose_predecessor_was_killed_may_start() -> None:
    facts = facts_of(A, Z, jobs=(job("a", "failed"), job("z")))
    assert faults(facts, run("a", 1, None), run("z", 2, 3), kills=(OURS,)) == []
    found = faults(facts, run("a", 1, None), run("z", 2, 3), kills=(ANOTHER,))
    assert found == ["z: under `finally`, started 2.000 before the end of c00000000000-a"]


@pytest.mark.parametrize("outcome", ["skipped", "canceled"])
def test_a_job_under_finally_that_has_not_run_is_found(outcome: str) -> None:
    facts = facts_of(A, Z, jobs=(job("a"), job("z", outcome)))
    assert faults(facts, run("a", 1, 2)) == [f"z: under `finally`, is {outcome}, has run: False"]


def test_a_job_under_finally_that_did_not_run_again_with_the_others_is_found() -> None:
    facts = facts_of(A, Z, jobs=(job("a", generation=1), job("z", generation=1)))
    found = faults(facts, run("a", 1, 2), run("z", 3, 4), run("a", 5, 6, generation=1))
    assert found == ["z: under `finally`, is finished, has run: False"]


def test_jobs_under_finally_run_although_the_start_failed_where_others_have_run() -> None:
    nodes = (Node("w", is_workflow=True), Node("w--a", inside="w"))
    nodes += (Node("w--z", inside="w", is_final=True),)
    ends = (job("w--0", "failed"), job("w", "failed"), job("w--a", "canceled"))
    facts = facts_of(*nodes, jobs=(*ends, job("w--z", "canceled")), state="failed")
    assert not [fault for fault in faults(facts) if fault.startswith("w--z")]
    found = faults(facts, run("w--a", 1, 2))
    assert "w--z: under `finally`, is canceled, has run: False" in found


# Deadlines ---------------------------------------------------------------------------------------

SLOW = Node("slow", seconds=SLEEPS_S)
HALTED = (line("slow", "started"), line("slow", "stopped", "the run timed out after 1s"))


def late(state: str = "canceled", reason: str = "timed out after 1s", **more: str) -> GraphFacts:
    jobs = (job("slow", more.get("slow", "stopped")), job("z"))
    log = () if "slow" in more else HALTED
    return facts_of(SLOW, Z, jobs=jobs, log=log, state=state, reason=reason, timeout_s=1)


def test_a_run_that_its_timeout_cancels_is_no_fault() -> None:
    assert faults(late(), run("slow", 1, None), run("z", 2, 3)) == []


def test_a_run_that_is_canceled_for_another_reason_is_found() -> None:
    found = faults(late(reason=""), run("slow", 1, None), run("z", 2, 3))
    assert found == ["c00000000000: is canceled without its timeout: no reason"]


def test_a_late_run_that_is_not_canceled_is_found_unless_its_job_had_failed_before() -> None:
    found = faults(late("succeeded", ""), run("slow", 1, None), run("z", 2, 3))
    assert found == ["c00000000000: is succeeded, and not canceled by its timeout"]
    killed = late("failed", "", slow="failed")
    assert faults(killed, run("slow", 1, None), run("z", 2, 3), kills=(OURS,)) == []


def test_a_run_without_a_timeout_that_is_canceled_is_found() -> None:
    found = faults(replace(facts_of(A), state="canceled"), run("a", 1, 2))
    assert found == ["c00000000000: is canceled, and has no timeout"]


def test_a_job_that_a_deadline_should_have_stopped_and_did_not_is_found() -> None:
    found = faults(late(), run("slow", 1, 31), run("z", 32, 33))
    assert found == ["slow: was to be stopped by a deadline, and came to its end"]


W = Node("w", is_workflow=True, timeout_s=1.0)
IN = Node("w--slow", seconds=SLEEPS_S, inside="w")


@pytest.mark.parametrize(
    ("outcome", "reason", "found"),
    [
        ("canceled", "timed out after 1s", []),
        ("canceled", "", ["w: is canceled, and not canceled by its timeout: ['']"]),
        ("failed", "x", ["w: is failed, and not canceled by its timeout: ['x']"]),
    ],
)
def test_a_late_nested_workflow_is_canceled_with_its_reason(
    outcome: str, reason: str, found: list[str]
) -> None:
    jobs = (job("w--0"), job("w--slow", "stopped"), job("w", outcome))
    facts = facts_of(IN, W, jobs=jobs, log=(line("w", outcome, reason),), state="failed")
    assert faults(facts, run("w--slow", 1, None)) == found


# Rounds ------------------------------------------------------------------------------------------

AGAIN = Node("w", is_workflow=True, retries=1)
R = Node("w--r", fails_rounds=1, inside="w")
FIRST = run("w--r", 1, 2, "raise", text="PlannedFailure: ")


def rounds(
    generation: int = 1, inside: str = "finished", outcome: str = "finished", fails: int = 1
) -> GraphFacts:
    jobs = (job("w--0"), job("w--r", inside, generation), job("w", outcome))
    return facts_of(replace(R, fails_rounds=fails), AGAIN, jobs=jobs)


def test_a_workflow_that_succeeds_in_its_second_round_is_no_fault() -> None:
    assert faults(rounds(), FIRST, run("w--r", 3, 4, generation=1)) == []


def test_a_workflow_that_runs_in_more_rounds_than_it_has_is_found() -> None:
    found = faults(rounds(2, fails=2), FIRST, run("w--r", 5, 6, generation=2))
    assert "w--r: ran in 3 rounds of 2" in found


def test_a_workflow_that_gives_up_too_early_is_found_unless_something_was_killed() -> None:
    facts = rounds(0, "failed", "failed")
    assert faults(facts, FIRST) == ["w--r: ended in round 1, and not in round 2"]
    assert faults(facts, replace(FIRST, ended_at=None, how=""), kills=(OURS,)) == []


def test_the_rounds_of_a_retried_run_count_again() -> None:
    facts = replace(rounds(2, fails=2), told=("begun", "submitted", "retry", "retried"))
    assert faults(facts, FIRST, run("w--r", 5, 6, generation=2)) == []


@pytest.mark.parametrize(("inside", "outcome"), [("failed", "finished"), ("finished", "failed")])
def test_a_workflow_that_does_not_end_as_its_jobs_did_is_found(inside: str, outcome: str) -> None:
    found = faults(rounds(1, inside, outcome), FIRST, run("w--r", 3, 4, generation=1))
    bad = ["c00000000000-w--r"] if inside == "failed" else "none"
    assert found == [f"w: is {outcome}, and bad inside are: {bad}"]


def test_only_what_ends_a_nested_workflow_may_wait_for_a_round() -> None:
    log = (line("w", "scheduled"), line("w", "deferred"), line("w", "queued"))
    assert list(check_log(replace(rounds(0), log=log))) == []
    assert len(list(check_log(facts_of(A, log=(line("a", "scheduled"),))))) == 1


def test_only_a_deadline_cancels_what_has_started() -> None:
    log = tuple(line("slow", state) for state in ("queued", "started", "canceled"))
    assert list(check_log(replace(late(), log=log))) == []
    assert len(list(check_log(facts_of(SLOW, log=log)))) == 1


def test_a_job_that_failed_before_it_told_of_its_start_needs_a_killed_child() -> None:
    log = tuple(Transition("c00000000000-a", each, "", "w") for each in ("started", "failed"))
    facts = facts_of(A, jobs=(job("a", "failed"),), log=log, state="failed")

    def found(*kills: Kill) -> list[str]:
        return [str(each) for each in check_executions(facts, Evidence([facts], {}, list(kills)))]

    text = "c00000000000-a: failed, and never started (0 crashes)"
    assert found() == found(ANOTHER) == found(Kill("child", 12, 1, "another")) == [text]
    assert found(Kill("child", 12, 1, "w")) == []


# Policies of retries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        {"raises": "refusal"},
        {"never_on": (PLANNED,)},
        {"on": ("KeyError",)},
    ],
)
def test_what_is_not_to_be_tried_again_and_is_is_found_unless_it_was_killed(
    policy: dict[str, object],
) -> None:
    facts = facts_of(replace(A, fails=99, retries=3, **policy), jobs=(job("a", "failed"),))
    first, second = (run("a", at, at + 0.8, "raise", text="Planned: ") for at in (1, 2))
    assert faults(facts, first) == []
    assert faults(facts, first, second) == [
        "a: raised Planned: , and was tried again",
        "a: was tried 2 times, and not 1",
    ]
    assert faults(facts, first, second, kills=(OURS,)) == []


def test_what_is_to_be_tried_again_and_is_not_is_found() -> None:
    facts = facts_of(replace(A, fails=1, retries=3, on=(PLANNED,)), jobs=(job("a", "failed"),))
    first = run("a", 1, 1.2, "raise", text="PlannedFailure: ")
    assert faults(facts, first) == ["a: was tried 1 times, and not 2"]
    assert faults(facts, first, run("a", 1.3, 2)) == []


def test_what_is_tried_again_too_early_is_found() -> None:
    facts = facts_of(replace(A, fails=1, retries=3, raises="delay"))
    first = run("a", 1, 1.2, "raise", text="PlannedDelay: ")
    assert is_planned(first)
    assert faults(facts, first, run("a", 1.3, 2)) == ["a: was tried again after 0.100 s"]
    assert faults(facts, first, run("a", 1.7, 2)) == []


# The first of several ----------------------------------------------------------------------------

RACE = Node("first", ("a", "b"), start_when="one_success", cancels=True)
ALARM = replace(RACE, start_when="one_failed", cancels=False)


def race(node: Node, outcomes: tuple[str, str, str], *log: tuple[str, str]) -> list[str]:
    names = zip(("a", "b", "first"), outcomes, strict=True)
    jobs = tuple(job(name, outcome) for name, outcome in names)
    facts = facts_of(A, B, node, jobs=jobs, log=tuple(line(*each) for each in log))
    found = check_firsts(facts, Evidence([facts], {}, []))
    return [str(each).removeprefix("c00000000000-") for each in found]


@pytest.mark.parametrize(
    ("node", "outcomes", "expected"),
    [
        (RACE, ("finished", "passed", "finished"), ""),
        (RACE, ("failed", "finished", "failed"), ""),
        (RACE, ("failed", "failed", "finished"), "is finished, and before it: failed"),
        (RACE, ("failed", "finished", "skipped"), "is skipped, and before it: failed, finished"),
        (RACE, ("passed", "passed", "passed"), ""),
        (ALARM, ("finished", "finished", "finished"), "is finished, and before it: finished"),
        (ALARM, ("finished", "finished", "passed"), ""),
        (ALARM, ("finished", "failed", "passed"), "is passed, and before it: failed, finished"),
    ],
)
def test_a_job_that_starts_at_the_wrong_end_is_found(
    node: Node, outcomes: tuple[str, str, str], expected: str
) -> None:
    found = race(node, outcomes)
    assert found == ([f"first: {node.start_when}, {expected}"] if expected else [])


def test_a_start_without_a_winner_a_rest_that_fails_and_a_second_run_are_found() -> None:
    outcomes = ("finished", "failed", "finished")
    good = [("a", "finished"), ("first", "queued"), ("first", "finished")]
    assert race(RACE, outcomes, *good) == []
    early = race(RACE, outcomes, ("first", "queued"), ("a", "finished"))
    assert early == ["first: was queued, and nothing before it had started it"]
    assert race(RACE, outcomes, *good, ("b", "failed"))[0].startswith("b: was failed, and ")
    again = race(RACE, outcomes, *good, ("first", "deferred"))
    assert again == ["first: ran again after it had succeeded"]
