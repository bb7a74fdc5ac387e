"""The figures of a run of the chaos test, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rq.utils import as_text

from flowq.errors import FlowqError
from flowq.runtime import keys
from flowq.runtime.explain import explain
from tests.chaos.director import Director
from tests.chaos.evidence import Evidence
from tests.chaos.judge import PUT_BACK, Fault
from tests.chaos.proofs import Repeat, is_planned

LISTED = 40


def render(
    evidence: Evidence, faults: Sequence[Fault], repeats: Sequence[Repeat], played_s: float
) -> str:
    """Return the counts, the proof of every repeated start, and the faults."""
    lines = [
        *_graphs(evidence),
        *_executions(evidence, repeats),
        *_queueings(evidence),
        *_kills(evidence),
        *_recoveries(evidence, repeats),
        f"played for {played_s:.0f} s",
        "",
        f"repeated starts and their reasons ({len(repeats)}):",
        *(f"  {repeat}" for repeat in repeats),
        "",
        f"faults ({len(faults)}):" if faults else "no faults: every promise was kept",
        *(f"  {fault}" for fault in faults[:LISTED]),
    ]
    if len(faults) > LISTED:
        lines.append(f"  … and {len(faults) - LISTED} more")
    return "\n".join(lines)


def _graphs(evidence: Evidence) -> Iterator[str]:
    there = [facts for facts in evidence.graphs if facts.jobs]
    plain = sum(facts.graph.is_plain for facts in there)
    states = Counter(facts.state for facts in there if facts.state)
    shapes = Counter(facts.graph.shape for facts in there)
    retried = sum("retry" in facts.told for facts in there)
    gone = len(evidence.graphs) - len(there)
    yield f"graphs    {len(there)}: {len(there) - plain} runs, {plain} through the plain API"
    yield f"          {_counted(shapes)}"
    yield f"          runs {_counted(states)}; {retried} were retried once they had failed"
    yield f"          beside these {gone} whose client was killed, or cut off, before the commit"


def _executions(evidence: Evidence, repeats: Sequence[Repeat]) -> Iterator[str]:
    jobs = [job for facts in evidence.graphs for job in facts.jobs.values()]
    futures = sum(job.is_future for job in jobs)
    outcomes = Counter(job.outcome or job.status for job in jobs)
    executions = [each for some in evidence.executions.values() for each in some]
    planned = sum(map(is_planned, executions))
    whens = Counter(
        f"{repeat.kill.kind} killed"
        + ("" if repeat.when.startswith("during") else " just before or after")
        for repeat in repeats
        if repeat.kill
    )
    yield f"jobs      {len(jobs)}, {futures} of them future jobs: {_counted(outcomes)}"
    yield f"starts    {len(executions)}; {planned} failed as planned"
    yield f"repeated  {len(repeats)} starts because of a kill: {_counted(whens)}"


def _queueings(evidence: Evidence) -> Iterator[str]:
    counts: Counter[str] = Counter()
    state_by_job: dict[str, str] = {}
    for line in (line for facts in evidence.graphs for line in facts.log):
        if line.state == "queued":
            counts[_why_queued(state_by_job.get(line.job_id, "deferred"), line.reason)] += 1
        state_by_job[line.job_id] = line.state
    yield f"queued    in runs: {_counted(counts)}"


def _why_queued(before: str, reason: str) -> str:
    if before == "deferred":
        return "once in their generation"
    return "put back" if reason in PUT_BACK else "by their Retry"


def _kills(evidence: Evidence) -> Iterator[str]:
    kinds = Counter(kill.kind for kill in evidence.kills)
    yield f"kills     {len(evidence.kills)}: {_counted(kinds)}"


def _recoveries(evidence: Evidence, repeats: Sequence[Repeat]) -> Iterator[str]:
    longest: dict[str, float] = {}
    for repeat in repeats:
        if repeat.kill:
            kind = repeat.kill.kind
            longest[kind] = max(longest.get(kind, 0.0), repeat.recovery_s)
    backs = [kill.back_s for kill in evidence.kills if kill.back_s is not None]
    times = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in sorted(longest.items()))
    yield f"recovery  from the kill to the next start, at the longest: {times or 'none'}"
    if backs:
        yield f"          the server was back after {max(backs):.1f} s at the longest"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def tell_stuck(director: Director, evidence: Evidence) -> list[str]:
    """Explain every job that has not ended, with all that Redis knows of it."""
    lines = [f"not ended: {each}" for each in director.find_unfinished()]
    for facts in evidence.graphs:
        for job in facts.jobs.values():
            if not job.outcome and job.status not in ("finished", "failed", "canceled"):
                lines += _tell_job(job.job_id, director)
    return lines


def _tell_job(job_id: str, director: Director) -> Iterator[str]:
    connection: Any = director.connection
    try:
        yield str(explain(job_id, connection))
    except FlowqError as error:
        yield f"{job_id}: {error}"
    for key in (keys.job(job_id), keys.future(job_id), keys.edges(job_id)):
        raw = connection.hgetall(key)
        if raw:
            yield f"    {key} {_texts(raw)}"


def _texts(raw: dict[bytes, bytes]) -> dict[str, str]:
    return {as_text(k): as_text(v) for k, v in raw.items() if k != b"data"}
