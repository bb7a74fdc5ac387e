"""The promises about how workflows end: `finally`, deadlines, rounds, policies of retries. Pure.

What must hold is read from the graph as it was declared and from the jobs' own lines; of what Redis
says only outcomes, generations and reasons count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos_jobs import LATER_S

from tests.chaos.evidence import Evidence, Execution, GraphFacts
from tests.chaos.proofs import find_reason, is_over
from tests.chaos.shapes import SLEEPS_S, Node

BAD = {"failed", "stopped", "canceled", "skipped", "expired", "deleted"}
AGAINST_RUN = BAD - {"skipped"}

FOREVER = float("inf")
CLOCKS_S = 0.05
"""By how much the clocks of the server and of a job may differ over a short wait."""


@dataclass(frozen=True)
class Fault:
    """A promise that was not kept. Shape: `job_id` may be the id of a run."""

    job_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.job_id}: {self.text}"


def check_endings(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """Yield what was not kept of the promises below."""
    yield from check_finals(facts, evidence)
    yield from check_run_deadline(facts, evidence)
    for node in facts.graph.nodes:
        if node.is_workflow and facts.graph.job_id(node.name) in facts.jobs:
            yield from check_workflow_deadline(facts, node)
            yield from check_rounds(facts, node, evidence)
        elif not node.is_workflow:
            yield from check_attempts(facts, node, evidence)


def find_stopped(facts: GraphFacts) -> set[tuple[str, int]]:
    """Return the jobs that a deadline has ended, with the generation in which it did.

    Shape: none where the graph has no deadline.
    """
    if not facts.graph.has_deadline:
        return set()
    found: set[tuple[str, int]] = set()
    generation_by_job: dict[str, int] = {}
    before: dict[str, str] = {}
    for line in facts.log:
        if line.state == "deferred" and line.job_id in before:
            generation_by_job[line.job_id] = generation_by_job.get(line.job_id, 0) + 1
        if line.state in ("stopped", "canceled"):
            found.add((line.job_id, generation_by_job.get(line.job_id, 0)))
        before[line.job_id] = line.state
    return found


def has_unnoted_start(facts: GraphFacts, job_id: str, evidence: Evidence) -> bool:
    """Whether a child was killed that had been given the job, and had not told of it yet.

    It had no other execution then, and nothing of the job was told by anybody else since.
    """
    workers = [
        line.worker for line in facts.log if (line.job_id, line.state) == (job_id, "started")
    ]
    executions = evidence.executions.get(job_id, [])
    if len(workers) <= len(executions):
        return False
    told = {(each.worker, each.pid) for each in executions}
    return any(
        kill.kind in ("child", "nursery")
        and kill.worker in workers
        and (kill.worker, kill.pid) not in told
        for kill in evidence.kills
    )


# Jobs under `finally` ----------------------------------------------------------------------------


def check_finals(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """A job under `finally` runs when everything else of its workflow has ended, however."""
    for node in facts.graph.nodes:
        if node.is_final:
            yield from _check_final(facts, node, evidence)


def _check_final(facts: GraphFacts, final: Node, evidence: Evidence) -> Iterator[Fault]:
    job_id = facts.graph.job_id(final.name)
    job = facts.jobs.get(job_id)
    if job is None or _has_never_begun(facts, final, evidence):
        return  # check_submission says so, where it is about the run
    executions = evidence.executions.get(job_id, [])
    has_run = any(each.generation == job.generation for each in executions)
    has_run = has_run or has_unnoted_start(facts, job_id, evidence)
    if not final.needs and not (has_run and job.outcome in ("finished", "failed")):
        yield Fault(job_id, f"under `finally`, is {job.outcome}, has run: {has_run}")
    stopped = find_stopped(facts)
    others = [n for n in facts.graph.nodes if _comes_before(n, final) and not n.is_workflow]
    for at, execution in enumerate(executions):
        is_last = at == len(executions) - 1 and execution.generation == job.generation
        for other in (facts.graph.job_id(each.name) for each in others):
            for earlier in evidence.executions.get(other, ()):
                if earlier.started_at > execution.started_at and not is_last:
                    continue  # it has run again, and so has this one
                if not is_over(earlier, execution.started_at, evidence.kills, stopped):
                    text = f"under `finally`, started {execution.started_at:.3f} before the end of"
                    yield Fault(job_id, f"{text} {other}")


def _has_never_begun(facts: GraphFacts, final: Node, evidence: Evidence) -> bool:
    """Whether it is of a workflow whose start has failed, and none of whose jobs has run."""
    start = facts.jobs.get(f"{facts.graph.job_id(final.inside)}--0") if final.inside else None
    if start is None or start.outcome not in BAD:
        return False
    ids = [facts.graph.job_id(each.name) for each in facts.graph.inside(final.inside)]
    return not any(
        each.generation == facts.jobs[job_id].generation
        for job_id in ids
        if job_id in facts.jobs
        for each in evidence.executions.get(job_id, ())
    )


def _comes_before(node: Node, final: Node) -> bool:
    if node.inside == final.inside:
        return not node.is_final
    return not final.inside


# Deadlines ---------------------------------------------------------------------------------------


def check_run_deadline(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """A run is canceled when it takes longer than its timeout, and only then."""
    graph = facts.graph
    for node in graph.nodes:
        ended = [e for e in evidence.executions.get(graph.job_id(node.name), ()) if e.how == "end"]
        if node.seconds >= SLEEPS_S and ended:
            yield Fault(ended[0].job_id, "was to be stopped by a deadline, and came to its end")
    if graph.timeout_s is None:
        if facts.state == "canceled":
            yield Fault(graph.id, "is canceled, and has no timeout")
    elif facts.state == "canceled":
        if not facts.reason.startswith("timed out after"):
            yield Fault(graph.id, f"is canceled without its timeout: {facts.reason or 'no reason'}")
    elif facts.state in ("failed", "succeeded") and not _has_failed(facts, ""):
        yield Fault(graph.id, f"is {facts.state}, and not canceled by its timeout")


def _has_failed(facts: GraphFacts, inside: str) -> bool:
    """Whether something failed by itself, so that nothing was left to take too long."""
    ids = (
        facts.graph.job_id(node.name) for node in facts.graph.inside(inside) if not node.is_final
    )
    return any(facts.jobs[each].outcome == "failed" for each in ids if each in facts.jobs)


def check_workflow_deadline(facts: GraphFacts, node: Node) -> Iterator[Fault]:
    """A nested workflow that takes longer than its timeout is canceled, with that reason."""
    join = facts.graph.job_id(node.name)
    outcome = facts.jobs[join].outcome
    if node.timeout_s is None:
        if outcome == "canceled":
            yield Fault(join, "is canceled, and has no timeout")
        return
    if not _has_begun(facts, node) or _has_failed(facts, node.name):
        return
    reasons = [line.reason for line in facts.log if line.job_id == join]
    if outcome != "canceled" or "timed out after" not in reasons[-1]:
        yield Fault(join, f"is {outcome}, and not canceled by its timeout: {reasons[-1:]}")


def _has_begun(facts: GraphFacts, node: Node) -> bool:
    start = facts.jobs.get(f"{facts.graph.job_id(node.name)}--0")
    return start is not None and start.outcome == "finished"


# Rounds ------------------------------------------------------------------------------------------


def check_rounds(facts: GraphFacts, node: Node, evidence: Evidence) -> Iterator[Fault]:
    """A nested workflow runs again as often as its retries say, and ends as its jobs do."""
    join = facts.graph.job_id(node.name)
    ids = [facts.graph.job_id(each.name) for each in facts.graph.inside(node.name)]
    jobs = [facts.jobs[each] for each in ids if each in facts.jobs]
    rounds = (node.retries + 1) * (1 + facts.told.count("retry"))
    for job in jobs:
        if job.generation >= rounds:
            yield Fault(job.job_id, f"ran in {job.generation + 1} rounds of {rounds}")
    if not _has_begun(facts, node):
        return
    bad = [job.job_id for job in jobs if job.outcome in BAD]
    is_finished = facts.jobs[join].outcome == "finished"
    if is_finished == bool(bad) and not has_unnoted_start(facts, join, evidence):
        yield Fault(join, f"is {facts.jobs[join].outcome}, and bad inside are: {bad or 'none'}")
    is_sure = "retry" not in facts.told or "retried" in facts.told
    if (
        is_sure
        and node.timeout_s is None
        and not _has_start_failed(facts, node)
        and not any(_is_killed(facts, each, evidence) for each in ids)
    ):
        yield from _check_planned_rounds(facts, node, rounds)


def _has_start_failed(facts: GraphFacts, node: Node) -> bool:
    """Whether a round was used up because what begins the workflow was killed."""
    start = f"{facts.graph.job_id(node.name)}--0"
    return any(line.job_id == start and line.state == "failed" for line in facts.log)


def _check_planned_rounds(facts: GraphFacts, node: Node, rounds: int) -> Iterator[Fault]:
    """Where nobody was killed the number of rounds is known."""
    for each in facts.graph.inside(node.name):
        job = facts.jobs.get(facts.graph.job_id(each.name))
        if each.fails_rounds and job is not None:
            wanted = min(each.fails_rounds, rounds - 1)
            if job.generation != wanted:
                text = f"ended in round {job.generation + 1}, and not in round {wanted + 1}"
                yield Fault(job.job_id, text)


def _is_killed(facts: GraphFacts, job_id: str, evidence: Evidence) -> bool:
    executions = evidence.executions.get(job_id, ())
    is_seen = any(find_reason(each, FOREVER, evidence.kills) for each in executions)
    return is_seen or has_unnoted_start(facts, job_id, evidence)


# Policies of retries -----------------------------------------------------------------------------


def check_attempts(facts: GraphFacts, node: Node, evidence: Evidence) -> Iterator[Fault]:
    """What is not to be tried again is not, what is to be is, and never too early."""
    job_id = facts.graph.job_id(node.name)
    executions = evidence.executions.get(job_id, [])
    for before, after in pairwise(executions):
        is_again = before.generation == after.generation and before.how == "raise"
        if not is_again or find_reason(before, after.started_at, evidence.kills):
            continue
        if node.is_tried_once:
            yield Fault(job_id, f"raised {before.text}, and was tried again")
        if node.raises == "delay" and _wait_s(before, after) < LATER_S - CLOCKS_S:
            yield Fault(job_id, f"was tried again after {_wait_s(before, after):.3f} s")
    job = facts.jobs.get(job_id)
    if job is None or not (node.on or node.never_on or node.raises != "failure"):
        return
    last = [each for each in executions if each.generation == job.generation]
    if not _is_killed(facts, job_id, evidence) and last:
        yield from _check_planned_attempts(node, job_id, last)


def _check_planned_attempts(
    node: Node, job_id: str, executions: Sequence[Execution]
) -> Iterator[Fault]:
    wanted = 1 if node.is_tried_once else min(node.fails, node.retries) + 1
    if len(executions) != wanted:
        yield Fault(job_id, f"was tried {len(executions)} times, and not {wanted}")


def _wait_s(before: Execution, after: Execution) -> float:
    assert before.ended_at is not None
    return after.started_at - before.ended_at
