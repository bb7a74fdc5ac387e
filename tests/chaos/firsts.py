"""The promises about jobs that start at the first success or failure before them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.endings import AGAINST_RUN, BAD, Fault
from tests.chaos.evidence import Evidence, GraphFacts
from tests.chaos.shapes import Node

FAILED = BAD - {"canceled"}
CALLED_OFF = {"skipped", "passed", "canceled"}


def find_firsts(facts: GraphFacts) -> dict[str, Node]:
    """Return the nodes with `start_when` by the ids of their jobs."""
    graph = facts.graph
    return {graph.job_id(node.name): node for node in graph.nodes if node.start_when}


def check_firsts(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """Yield what was not kept of the promises below."""
    for job_id, node in find_firsts(facts).items():
        if job_id in facts.jobs:
            yield from check_start(facts, job_id, node)
            yield from check_winner(facts, job_id, node, evidence)
            yield from check_rest(facts, job_id, node)
            yield from check_decision(facts, job_id)


def check_start(facts: GraphFacts, job_id: str, node: Node) -> Iterator[Fault]:
    """It runs exactly if a job before it has ended in the right way; else it is skipped."""
    outcomes = {facts.jobs[facts.graph.job_id(name)].outcome for name in node.needs}
    outcome = facts.jobs[job_id].outcome
    if node.start_when == "one_success":
        expected = "run" if "finished" in outcomes else "skipped" if outcomes & BAD else "passed"
    elif "retry" in facts.told:
        return  # what has failed and started it may have succeeded since
    else:
        expected = "run" if outcomes & FAILED else "passed"
    found = outcome if outcome in CALLED_OFF else "run"
    if found != expected:
        text = f"{node.start_when}, is {outcome}, and before it: {', '.join(sorted(outcomes))}"
        yield Fault(job_id, text)


def check_winner(facts: GraphFacts, job_id: str, node: Node, evidence: Evidence) -> Iterator[Fault]:
    """When it was first queued, a job before it had ended in the right way."""
    right = {"finished"} if node.start_when == "one_success" else {"failed", "skipped", "stopped"}
    blockers = {facts.graph.job_id(name) for name in node.needs}
    state_by_job: dict[str, str] = {}
    for line in facts.log:
        if line.job_id == job_id and line.state == "queued":
            winners = [each for each in blockers if state_by_job.get(each) in right]
            if not winners:
                yield Fault(job_id, "was queued, and nothing before it had started it")
            started = evidence.executions.get(job_id, [])
            ended = [e for each in winners for e in evidence.executions.get(each, ())]
            if (
                started
                and ended
                and not any(
                    e.ended_at is None or e.ended_at <= started[0].started_at for e in ended
                )
            ):
                yield Fault(job_id, "started before what started it had ended")
            return
        state_by_job[line.job_id] = line.state


def check_rest(facts: GraphFacts, job_id: str, node: Node) -> Iterator[Fault]:
    """What it cancels does not begin any more, and does not fail; unless another job needs it."""
    if not node.cancels or "retry" in facts.told:
        return
    rest = {
        facts.graph.job_id(name)
        for name in node.needs
        if len([n for n in facts.graph.after(name) if not n.is_final]) == 1
    }
    has_started = False
    for line in facts.log:
        has_started |= line.job_id == job_id and line.state == "queued"
        if has_started and line.job_id in rest and line.state in AGAINST_RUN:
            yield Fault(line.job_id, f"was {line.state}, and {job_id} had canceled it before")


def check_decision(facts: GraphFacts, job_id: str) -> Iterator[Fault]:
    """Once it has succeeded it does not run again."""
    ends = [line.state for line in facts.log if line.job_id == job_id]
    if "finished" in ends and "deferred" in ends[ends.index("finished") :]:
        yield Fault(job_id, "ran again after it had succeeded")
