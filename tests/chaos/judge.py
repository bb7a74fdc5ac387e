"""The promises, one function each, over what is known after the chaos. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowq.status import ENDED, RUN_ENDED
from tests.chaos.endings import (
    AGAINST_RUN,
    BAD,
    Fault,
    check_endings,
    find_stopped,
    has_unnoted_start,
)
from tests.chaos.evidence import Evidence, Execution, GraphFacts, JobFacts, Transition
from tests.chaos.firsts import check_firsts, find_firsts
from tests.chaos.proofs import (
    FORGETS_S,
    SILENT_S,
    Repeat,
    find_reason,
    find_repeats,
    is_over,
    is_planned,
)
from tests.chaos.shapes import Node


def judge(evidence: Evidence) -> tuple[list[Fault], list[Repeat]]:
    """Return the faults, and every repeated start with its reason."""
    repeats = [
        repeat
        for executions in evidence.executions.values()
        for repeat in find_repeats(executions, evidence.kills)
    ]
    faults = [
        Fault(repeat.before.job_id, f"started again without a reason: {repeat}")
        for repeat in repeats
        if repeat.kill is None
    ]
    for facts in evidence.graphs:
        faults += _judge_graph(facts, evidence)
    faults += [Fault("redis", f"{left} left") for left in evidence.leftovers]
    return faults, repeats


def _judge_graph(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    yield from check_submission(facts, evidence)
    if not facts.jobs:
        return
    if facts.graph.is_plain:
        yield from check_plain_ends(facts)
    else:
        yield from check_run_end(facts)
        yield from check_log(facts)
        yield from check_queueing(facts)
        yield from check_endings(facts, evidence)
        yield from check_firsts(facts, evidence)
    yield from check_order(facts, evidence)
    yield from check_policies(facts)
    yield from check_executions(facts, evidence)
    yield from check_children(facts, evidence)


# Submission ----------------------------------------------------------------------------------


def check_submission(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """What was submitted is there; what was not has never run."""
    graph = facts.graph
    missing = [n.name for n in graph.inside("") if graph.job_id(n.name) not in facts.jobs]
    if "submitted" in facts.told and missing and not _is_forgotten(facts, evidence):
        yield Fault(graph.id, f"submitted, and {', '.join(missing)} not there")
    if graph.is_plain:
        return
    ran = sorted(job for job in evidence.executions if job.startswith(f"{graph.id}-"))
    if not facts.state and ran:
        yield Fault(graph.id, f"never committed, and {', '.join(ran)} ran")
    if facts.state and missing:
        yield Fault(graph.id, f"committed, and {', '.join(missing)} not there")


def _is_forgotten(facts: GraphFacts, evidence: Evidence) -> bool:
    servers = (kill for kill in evidence.kills if kill.kind == "server")
    return any(0 <= kill.at - facts.told_at <= FORGETS_S for kill in servers)


# Ends ----------------------------------------------------------------------------------------


def check_run_end(facts: GraphFacts) -> Iterator[Fault]:
    """Every committed run has reached its end, and so has every job of it."""
    if facts.state not in RUN_ENDED:
        yield Fault(facts.graph.id, f"is stuck: {facts.state}")
    for job in facts.jobs.values():
        if not job.outcome:
            yield Fault(job.job_id, f"is stuck: {job.status}")
    bad = any(job.outcome in AGAINST_RUN for job in facts.jobs.values())
    if facts.state in RUN_ENDED and (facts.state != "succeeded") != bad:
        yield Fault(facts.graph.id, f"{facts.state}, which its jobs do not say")


def check_plain_ends(facts: GraphFacts) -> Iterator[Fault]:
    """Without a run, too, nothing waits for ever; what a dead client left open has expired."""
    for job in facts.jobs.values():
        if job.status not in ("finished", "failed", "canceled"):
            yield Fault(job.job_id, f"is stuck: {job.status}")


# The log -------------------------------------------------------------------------------------

ALLOWED: Mapping[str, set[str]] = {
    "deferred": {"queued", "canceled", "skipped"},
    **{waiting: {"started", "handed", "canceled"} for waiting in ("queued", "returned")},
    "scheduled": {"queued", "canceled"},
    # What was handed over behind another job may be said to start twice, by the worker that has it,
    # or not at all.
    **{
        held: {"started", "returned", "finished", "failed", "queued", "scheduled", "stopped"}
        for held in ("handed", "started")
    },
    **{end: {"deferred"} for end in ENDED},
}
"""What may follow in the log of one job; from an end only a retry of the run leads on, or a round
of the nested workflow that it is in."""

ALLOWED_OF_WORKFLOW = ALLOWED | {
    "deferred": {*ALLOWED["deferred"], "scheduled", "failed"},
    "scheduled": {*ALLOWED["scheduled"], "deferred"},
}
"""The same for what ends a nested workflow: it is `scheduled` until the next round begins."""

PUT_BACK = ("its worker was lost", "its worker stopped")


def check_log(facts: GraphFacts) -> Iterator[Fault]:
    """A job is queued once in each generation, apart from retries and from what was put back."""
    state_by_job: dict[str, str] = {}
    worker_by_job: dict[str, str] = {}
    generation_by_job: dict[str, int] = {}
    joins = {facts.graph.job_id(node.name) for node in facts.graph.nodes if node.is_workflow}
    for line in facts.log:
        before = state_by_job.get(line.job_id, "deferred")
        if before in ENDED and line.state == "deferred":
            generation_by_job[line.job_id] = generation_by_job.get(line.job_id, 0) + 1
        is_added = line.job_id not in state_by_job and line.state == "deferred"
        allowed = (ALLOWED_OF_WORKFLOW if line.job_id in joins else ALLOWED)[before]
        is_held = before in ("handed", "started")
        is_taken_away = facts.graph.has_deadline and is_held and line.state == "canceled"
        is_needless = facts.graph.shape == "first" and line.state == "skipped"
        if line.state not in allowed and not (is_added or is_taken_away or is_needless):
            yield Fault(line.job_id, f"was {line.state} after {before}, as its run's log says")
        if is_held and line.state == "started" and line.worker != worker_by_job[line.job_id]:
            yield Fault(line.job_id, f"was started by {line.worker}, and another worker had it")
        state_by_job[line.job_id] = line.state
        worker_by_job[line.job_id] = line.worker
    for job in facts.jobs.values():
        if generation_by_job.get(job.job_id, 0) != job.generation:
            yield Fault(job.job_id, f"is of generation {job.generation}, its run's log differs")


def check_queueing(facts: GraphFacts) -> Iterator[Fault]:
    """A future job was queued when all of its blockers had ended; retries were as many as said."""
    blockers = _blockers(facts)
    state_by_job: dict[str, str] = {}
    retried: dict[str, int] = {}
    for line in facts.log:
        before = state_by_job.get(line.job_id, "deferred")
        state_by_job[line.job_id] = line.state
        if line.state == "queued" and before == "deferred":
            retried[line.job_id] = 0
            running = [b for b in blockers.get(line.job_id, ()) if _runs(state_by_job.get(b))]
            if running and line.job_id not in find_firsts(facts):
                yield Fault(line.job_id, f"was queued before the end of {', '.join(running)}")
        elif _is_retry(before, line):
            retried[line.job_id] = retried.get(line.job_id, 0) + 1
    for job_id, count in retried.items():
        if count > _retries(facts, job_id):
            yield Fault(job_id, f"was retried {count} times")


def _runs(state: str | None) -> bool:
    return state not in ENDED


def _is_retry(before: str, line: Transition) -> bool:
    if before not in ("handed", "started") or line.state not in ("queued", "scheduled"):
        return False
    return line.reason not in PUT_BACK


def _retries(facts: GraphFacts, job_id: str) -> int:
    node = _node(facts, job_id)
    return 3 if node is None else node.retries


def _node(facts: GraphFacts, job_id: str) -> Node | None:
    name = job_id.removeprefix(f"{facts.graph.id}-")
    return next((node for node in facts.graph.nodes if node.name == name), None)


def _blockers(facts: GraphFacts) -> dict[str, list[str]]:
    """Return the blockers of each future job."""
    blockers: dict[str, list[str]] = {}
    for job in facts.jobs.values():
        for future in job.blocks:
            blockers.setdefault(future, []).append(job.job_id)
    return blockers


# Executions ----------------------------------------------------------------------------------


def check_order(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """A future job started after all executions of its blockers had ended, one way or the other.

    Of a future job that was started again the last start counts: the kill that made it necessary
    may have made the server forget, and its blockers run again, too.
    """
    stopped = find_stopped(facts)
    for future, blockers in _blockers(facts).items():
        last, job = _last(evidence, future), facts.jobs.get(future)
        if last is None or job is None or last.generation != job.generation:
            continue
        if future in find_firsts(facts):
            continue  # which has rules of its own
        for blocker in blockers:
            for execution in evidence.executions.get(blocker, ()):
                if not is_over(execution, last.started_at, evidence.kills, stopped):
                    yield Fault(future, f"started {last.started_at:.3f}, {blocker} was not over")


def _last(evidence: Evidence, job_id: str) -> Execution | None:
    return next(reversed(evidence.executions.get(job_id, [])), None)


def check_policies(facts: GraphFacts) -> Iterator[Fault]:
    """A future job was skipped exactly when a blocker that matters did not succeed.

    One that asks about all jobs before it also was when a job further above did not succeed.
    """
    blockers_by_future = _blockers(facts)
    firsts = find_firsts(facts)

    def wrong_above(future: str) -> list[str]:
        found: dict[str, None] = {}
        waiting = [future]
        while waiting:
            after = waiting.pop()
            matter = [b for b in blockers_by_future.get(after, ()) if facts.jobs[b].blocks[after]]
            if after in firsts and firsts[after].start_when == "one_success":
                matter = matter if facts.jobs[after].outcome == "skipped" else []
            waiting += [b for b in matter if b not in found]
            found |= dict.fromkeys(matter)
        return [each for each in found if facts.jobs[each].outcome in BAD]

    for future, blockers in blockers_by_future.items():
        job = facts.jobs.get(future)
        if job is None or job.outcome == "canceled" or facts.graph.is_helper(future):
            continue
        rules = {firsts[blocker].start_when for blocker in blockers if blocker in firsts}
        is_after_failure = "one_failed" in rules
        if future in firsts or (is_after_failure and "retry" in facts.told):
            continue  # `firsts.py`; and what has failed before the first decision counts
        bad = [b for b in blockers if facts.jobs[b].outcome in BAD and facts.jobs[b].blocks[future]]
        bad = bad or (wrong_above(future) if job.needs_success else [])
        must_skip = bool(bad) and job.policy == "skip"
        if must_skip != (job.outcome == "skipped"):
            yield Fault(future, f"{job.policy}, is {job.outcome}, and bad are: {bad or 'none'}")


def check_executions(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """What finished came to its end, what was called off never began, what failed has a reason."""
    stopped = find_stopped(facts)
    for job in facts.jobs.values():
        if facts.graph.is_helper(job.job_id):
            continue
        executions = [
            each
            for each in evidence.executions.get(job.job_id, ())
            if each.generation == job.generation
        ]
        if (job.job_id, job.generation) not in stopped:
            is_unnoted = has_unnoted_start(facts, job.job_id, evidence)
            yield from _check_outcome(job, executions, evidence, is_unnoted)
        for each in executions:
            if each.how == "raise" and not is_planned(each) and not _server_died(each, evidence):
                yield Fault(job.job_id, f"raised {each.text}")


def _check_outcome(
    job: JobFacts, executions: list[Execution], evidence: Evidence, is_unnoted: bool
) -> Iterator[Fault]:
    if job.outcome == "finished" and not any(each.how == "end" for each in executions):
        yield Fault(job.job_id, "finished, and never came to its end")
    if job.outcome in ("skipped", "canceled") and executions:
        yield Fault(job.job_id, f"{job.outcome}, and started")
    if job.outcome != "failed" or is_unnoted:
        return
    if not executions:
        yield Fault(job.job_id, f"failed, and never started ({job.crashes} crashes)")
    elif executions[-1].how != "raise" and not find_reason(
        executions[-1], float("inf"), evidence.kills
    ):
        yield Fault(job.job_id, "failed without a reason")


def _server_died(execution: Execution, evidence: Evidence) -> bool:
    """Whether an error of the redis client is no wonder."""
    assert execution.ended_at is not None
    return any(
        kill.kind == "server"
        and execution.started_at - SILENT_S <= kill.at <= execution.ended_at
        and "Connection" in execution.text
        for kill in evidence.kills
    )


def check_children(facts: GraphFacts, evidence: Evidence) -> Iterator[Fault]:
    """An adder that came to its end has added all of its children, and none twice."""
    for node in facts.graph.nodes:
        if node.adds[0]:
            yield from _check_added(facts, facts.graph.job_id(node.name), node.adds, evidence)


def _check_added(
    facts: GraphFacts, job_id: str, adds: tuple[int, int], evidence: Evidence
) -> Iterator[Fault]:
    depth, width = adds
    for generation in range(facts.jobs[job_id].generation + 1 if job_id in facts.jobs else 0):
        start = f"{job_id}--{generation}-"
        added = {j for j in facts.jobs if j.startswith(start) and "--" not in j[len(start) :]}
        has_ended = any(
            each.how == "end" and each.generation == generation
            for each in evidence.executions.get(job_id, ())
        )
        wanted = {f"{start}{number}" for number in range(width if depth else 0)}
        if added - wanted or (has_ended and added != wanted):
            yield Fault(job_id, f"added {len(added)} of {len(wanted)} children")
        for child in added & wanted:
            yield from _check_added(facts, child, (depth - 1, width), evidence)
