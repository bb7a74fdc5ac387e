"""Retries ended runs: runs their jobs again that did not succeed, and those downstream."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.errors import WrongState
from flowq.graph import LEFT_OUT
from flowq.runtime import keys, scripts
from flowq.runtime.approvals import find_jobs
from flowq.runtime.connections import do_or_leave_to_others, read_clock, read_each
from flowq.runtime.runs import get_declared, get_record, go, read_names
from flowq.runtime.steps import finish
from flowq.status import RUN_ENDED, SUCCESSES, declared_name, public_name, say_state

if TYPE_CHECKING:
    from redis import Redis


PREPARATION_S = 600
ROUND_S = 30
"""After so long another process begins the round, if this one has died."""

_FIELDS = (
    "flowq_outcome",
    "flowq_blocks",
    "flowq_inside",
    "flowq_expands",
    "flowq_run",
    "flowq_first",
)
JOBS_PER_READ = 1_000
NAMED = 5


@dataclass(frozen=True, slots=True)
class _Ended:
    """How one job of the run ended, and what it blocks.

    Attributes:
        outcome: empty if it has not ended.
        future_ids: the future jobs that it blocks.
        ignoring_ids: those among them that ignore how it ended.
        inside: the join of the nested workflow to which it belongs.
        expands: it adds the jobs of a group, or of a nested workflow.
        is_there: False if it was deleted.
        is_decided: it has started at the first success or failure before it, and has succeeded, so
            nothing before it makes it run again.
    """

    outcome: str
    future_ids: tuple[str, ...]
    ignoring_ids: frozenset[str]
    inside: str
    expands: bool
    is_there: bool
    is_decided: bool = False


def retry(
    run_id: str, connection: Redis, name: str | None = None, *, by: str = ""
) -> tuple[str, ...]:
    """Run the jobs again that did not succeed, and all downstream jobs; return their ids.

    With a `name`, that job, item, group or nested workflow runs again, however it ended, and all
    jobs downstream of it.

    If a group's list or a nested workflow's start runs again, its jobs are removed and added anew.
    All other jobs keep their results, and all ids stay. The generation of each job that runs again
    is incremented, so that late messages of earlier attempts have no effect. A deleted job cannot
    run again; jobs that wait for it are skipped again. The work is done in steps that any process
    can continue. A run with `concurrency` queues in its group again. The run is told that it was
    `by` somebody.

    Errors: RunNotFound; NotFound for an unknown job; WrongState while the run is active, if it has
    succeeded (unless a job is named), and if no job can run again.
    """
    record = get_record(run_id, connection)
    if record.state not in (RUN_ENDED if name else RUN_ENDED - {"succeeded"}):
        raise WrongState(_refusal(run_id, record.state, connection))
    job_ids = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    ended = _read_jobs(job_ids, connection)
    start = {job for job in ended if not _is_settled(job, ended)}
    if name:
        start = _find_start(name, run_id, ended, connection)
    again, anew, roots = _choose(start, ended)
    if name:
        _refuse_vain(name, start, again | anew, ended, connection)
    if not again:
        reason = "its jobs have succeeded since; there is nothing to retry"
        raise WrongState(f"run {run_id} {say_state(record.state)}, but {reason}")
    deleted = {job for job in again if not ended[job].is_there}
    again -= deleted
    if deleted and not _can_anything_run(again, deleted, ended, connection):
        names = _name_some(read_names(run_id, [*deleted], connection).values())
        raise WrongState(
            f"run {run_id} cannot be retried: {names} deleted, and nothing else can run; "
            "start a new run"
        )
    entries = [*_removals(ended, anew), *_entries(ended, again, roots)]
    draft = _draft(run_id, entries, connection)
    may_have_succeeded = "1" if name else ""
    told = (run_id, draft, may_have_succeeded, by, declared_name(name or ""))
    answer = scripts.RETRY.call(connection, keys.run(run_id), *told)
    if answer[0] != 1:
        raise WrongState(_refusal(run_id, as_text(answer[1]), connection))

    def begin() -> None:
        finish(connection, f"again:{run_id}")
        go(run_id, connection)

    do_or_leave_to_others(begin, connection)
    return tuple(job for job in ended if job in again)


def _find_start(name: str, run_id: str, jobs: Mapping[str, _Ended], connection: Redis) -> set[str]:
    """Return the jobs with a name. Errors: NotFound; WrongState if deleted, or left out."""
    found = {job for job in find_jobs(name, get_declared(run_id, connection)) if job in jobs}
    if not any(jobs[job].is_there for job in found):
        raise WrongState(
            f"job {name} of run {run_id} was deleted, and cannot run again; start a new run"
        )
    if any(_is_left_out(job_id, connection) for job_id in found):
        raise WrongState(f"job {name} was {LEFT_OUT} ({run_id}); start a new run that has it")
    return found


def _is_left_out(job_id: str, connection: Redis) -> bool:
    judging = connection.hget(keys.job(job_id), "flowq_judging") or b""
    return as_text(judging) == f"skip {LEFT_OUT}"


def _refuse_vain(
    name: str, start: set[str], again: set[str], jobs: Mapping[str, _Ended], connection: Redis
) -> None:
    """Raise WrongState if an upstream job that does not run again keeps one of these from running.

    `again` are all jobs that run again, or are added anew.
    """
    before: dict[str, list[str]] = {}
    for job_id, job in jobs.items():
        for future_id in job.future_ids:
            if future_id in start and job_id not in again:
                before.setdefault(future_id, []).append(job_id)
    for job_id, blockers in before.items():
        if culprit := _find_culprit(job_id, blockers, again, jobs, connection):
            run_id = connection.hget(keys.job(job_id), "flowq_run") or b""
            names = read_names(as_text(run_id), [culprit], connection)
            first = public_name(names[culprit])
            raise WrongState(
                f"job {name} of run {as_text(run_id)} cannot run: {first} before it did not "
                f"succeed; retry {first}, and {name} runs again after it, or the whole run"
            )


def _find_culprit(
    job_id: str,
    blockers: Sequence[str],
    again: set[str],
    jobs: Mapping[str, _Ended],
    connection: Redis,
) -> str | None:
    fields = ("policy", "failed", "canceled", "above", "decided")
    policy, *counts, above, decided = connection.hmget(keys.future(job_id), fields)
    if policy == b"one_success" and decided is None:  # it needs one that has succeeded, or may
        can_start = any(jobs[blocker].outcome == "finished" for blocker in blockers)
        has_others = connection.hlen(keys.edges(job_id)) > len(blockers)
        return None if can_start or has_others else blockers[0]
    if policy in (b"skip", b"wait"):
        for blocker in blockers:
            if not (jobs[blocker].outcome in SUCCESSES or job_id in jobs[blocker].ignoring_ids):
                return blocker
    if any(int(count or 0) for count in counts) and above:
        culprit = as_text(above).split(" ")[0]
        asks = connection.hexists(keys.job(job_id), "flowq_success")
        return culprit if asks and culprit not in again else None
    return None


def _choose(start: set[str], jobs: Mapping[str, _Ended]) -> tuple[set[str], set[str], set[str]]:
    """Return the jobs that run again, those to be added anew, and the groups and joins of these.

    `start` are the jobs from which to run again.
    """
    again = _downstream(start, jobs)
    roots = set(_find_roots(again, jobs))
    anew = {job for job in jobs if roots and not roots.isdisjoint(_outer(job, jobs))}
    return again - anew, anew, roots


def _draft(owner_id: str, entries: Sequence[str], connection: Redis) -> str:
    """Write a list of operations for a script, for a run or a join; return its key."""
    draft = f"{keys.run_again(owner_id)}:{secrets.token_hex(4)}"
    with connection.pipeline() as pipeline:
        for first in range(0, len(entries), JOBS_PER_READ):
            pipeline.rpush(draft, *entries[first : first + JOBS_PER_READ])
        pipeline.expire(draft, PREPARATION_S)  # in case this process dies
        pipeline.execute()
    return draft


def begin_round(join_id: str, connection: Redis) -> None:
    """Run the jobs of a workflow with `retries` again that did not succeed, and those downstream.

    Idempotent: a second process finds that the round has begun. It is due again if this one dies.
    """
    connection.zadd(keys.ROUNDS, {join_id: read_clock(connection) + ROUND_S}, xx=True)
    ended = _read_jobs(_find_inside(join_id, connection), connection)
    start = {job for job in ended if not _is_settled(job, ended)}
    again, anew, roots = _choose(start, ended)
    again -= {job for job in again if not ended[job].is_there}
    if not again:
        finish(connection, f"unround:{join_id}")
        return
    entries = [*_removals(ended, anew), *_entries(ended, again, roots)]
    draft = _draft(join_id, entries, connection)
    if scripts.ROUND.call(connection, keys.job(join_id), join_id, draft):
        finish(connection, f"round:{join_id}")


def _find_inside(join_id: str, connection: Redis) -> list[str]:
    """Return the jobs of a nested workflow and of those nested in it, the last ones first."""
    found: dict[str, None] = {}
    joins = [join_id]
    while joins:
        inside = [as_text(raw) for raw in connection.lrange(keys.blockers(joins.pop()), 0, -1)]
        found.update(dict.fromkeys(inside))
        answers = read_each(
            inside, connection, lambda pipe, job: pipe.hexists(keys.job(job), "flowq_nested")
        )
        joins += [job_id for job_id, (is_join,) in answers if is_join]
    return list(found)


def _refusal(run_id: str, state: str, connection: Redis) -> str:
    if state == "succeeded":
        return (
            f"run {run_id} has succeeded; there is nothing to retry. "
            "A retry that names a job runs it again, and what follows it"
        )
    job_ids = [as_text(raw) for raw in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    statuses = read_each(job_ids, connection, lambda pipe, job: pipe.hget(keys.job(job), "status"))
    running = [job_id for job_id, (status,) in statuses if status == b"started"][:NAMED]
    names = map(public_name, read_names(run_id, running, connection).values())
    what = f"; {', '.join(names)} still running" if running else ""
    return f"run {run_id} is {state}{what}; cancel it first, or wait"


def _read_jobs(job_ids: Sequence[str], connection: Redis) -> dict[str, _Ended]:
    """Return jobs by id, in the given order, in which they were enqueued."""
    jobs: dict[str, _Ended] = {}
    for job_id, (answer,) in read_each(
        job_ids, connection, lambda pipe, job: pipe.hmget(keys.job(job), *_FIELDS)
    ):
        outcome, blocks, inside, expands, run, first = (as_text(v) if v else "" for v in answer)
        future_ids = tuple(block.rstrip("!") for block in blocks.split())
        ignoring = frozenset(b.rstrip("!") for b in blocks.split() if b.endswith("!"))
        is_decided = (
            bool(first)
            and outcome in SUCCESSES
            and bool(connection.hexists(keys.future(job_id), "decided"))
        )
        jobs[job_id] = _Ended(
            *(outcome, future_ids, ignoring, inside, bool(expands), bool(run), is_decided)
        )
    return jobs


def _can_anything_run(
    again: set[str], deleted: set[str], jobs: Mapping[str, _Ended], connection: Redis
) -> bool:
    """Whether some of these jobs do not wait for a deleted one, directly or indirectly."""
    stuck = {job for job in again if _waits_for(job, deleted, connection)}
    return bool(again - _downstream(stuck, jobs))


def _waits_for(job_id: str, deleted: set[str], connection: Redis) -> bool:
    if connection.hget(keys.future(job_id), "policy") != b"skip":
        return False
    edges = connection.hscan_iter(keys.edges(job_id), count=JOBS_PER_READ)
    return any(
        as_text(blocker) in deleted
        and not as_text(outcome).endswith("!")
        and as_text(outcome) not in SUCCESSES
        for blocker, outcome in edges
    )


def _name_some(job_names: Iterable[str]) -> str:
    names = sorted(set(map(public_name, job_names)))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more + (" was" if len(names) == 1 else " were")


def _is_settled(job_id: str, jobs: Mapping[str, _Ended]) -> bool:
    """Whether a job has succeeded, or a workflow around it whose failure is tolerated has ended."""
    if jobs[job_id].outcome in SUCCESSES:
        return True
    return any(jobs[join].outcome == "tolerated" for join in _outer_joins(job_id, jobs))


def _outer_joins(job_id: str, jobs: Mapping[str, _Ended]) -> Iterator[str]:
    """Yield the joins of the nested workflows around a job, the nearest one first."""
    while (job_id := jobs[job_id].inside) in jobs:
        yield job_id


def _is_start(job_id: str, jobs: Mapping[str, _Ended]) -> bool:
    """Whether a job is the start of a nested workflow, which adds its jobs."""
    return job_id == f"{jobs[job_id].inside}--0"


def _find_roots(again: set[str], jobs: Mapping[str, _Ended]) -> Iterator[str]:
    """Yield what is made anew: joins whose starts run again, and groups whose lists do."""
    for job_id in again:
        if _is_start(job_id, jobs):
            yield jobs[job_id].inside
        elif jobs[job_id].expands and jobs[job_id].outcome in SUCCESSES:
            yield job_id


def _outer(job_id: str, jobs: Mapping[str, _Ended]) -> set[str]:
    """Return the joins and groups for which a job was added. Most follow from its id."""
    found = set(_outer_joins(job_id, jobs))
    if _is_start(job_id, jobs):
        found.discard(jobs[job_id].inside)
        job_id = jobs[job_id].inside
    while "--" in job_id:
        job_id = job_id.rpartition("--")[0]
        found.add(job_id)
    return found


def _downstream(start: set[str], jobs: Mapping[str, _Ended]) -> set[str]:
    found, work = set(start), list(start)
    while work:
        for future_id in jobs[work.pop()].future_ids:
            is_known = future_id not in jobs or future_id in found
            if not is_known and not jobs[future_id].is_decided:
                found.add(future_id)
                work.append(future_id)
    return found


def _removals(jobs: Mapping[str, _Ended], anew: set[str]) -> Iterator[str]:
    """Return the first operations of `again:`: remove the jobs to be added anew, newest first."""
    return (f"-{job_id}" for job_id in reversed(list(jobs)) if job_id in anew)


def _entries(jobs: Mapping[str, _Ended], again: set[str], roots: set[str]) -> Iterator[str]:
    """Yield the other operations of `again:`: future jobs before their blockers."""
    for job_id, job in jobs.items():
        if job_id in again:
            yield from [f"*{job_id}"] if job.expands and job_id in roots else []
            yield f"+{job_id}"
        elif not again.isdisjoint(job.future_ids):
            yield f"={job_id}"
