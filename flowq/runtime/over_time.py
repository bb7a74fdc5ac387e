"""A workflow over time: how its last runs have ended, and which of its jobs are flaky or slow.

Nothing is counted where jobs run. A reader folds the events of an ended run once, and keeps what it
has found in the run's record (`history`, some 40 bytes for each declared job), until the run is
retried. A call folds a bounded number of events; runs that are left out, because they are large or
it was their turn no more, say so (`is_counted`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.utils import as_text

from flowq.history import Attempt, find_run_duration, read_attempts
from flowq.runtime import keys
from flowq.runtime.connections import read_each
from flowq.runtime.run_lists import RunFilter, read_run_page
from flowq.runtime.runs import read_events
from flowq.status import BAD, RUN_ENDED, RunRecord, declared_name, is_helper, outermost_name

if TYPE_CHECKING:
    from redis import Redis

MOST_EVENTS = 20_000
"""The most events of a run that is counted."""

EVENTS_PER_CALL = 40_000
"""The most events that one call reads, about half a second."""

MOST_JOBS = 500
"""The most declared jobs of a run that are kept: those with failures and retries first."""

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class RunOverTime:
    """A run. Units: `took_s` is from its commit to its end; None before.

    `is_counted`: its jobs are part of what is said of the jobs.
    """

    record: RunRecord
    took_s: float | None
    is_counted: bool


@dataclass(frozen=True, slots=True)
class JobOverTime:
    """A declared job, in the runs that are counted.

    Attributes:
        name: the declaration; a group, or a nested workflow, is one with all that is inside.
        runs: in how many of them it was executed.
        failed: in how many it failed, or an item did, after all attempts.
        retried: in how many it, or an item, was tried again after an attempt that had not
            succeeded; not those in which it was only run again, as a part of a retried run.
        median_s: the median, over the runs, of its median duration in a run; None if not known.
    """

    name: str
    runs: int
    failed: int
    retried: int
    median_s: float | None

    @property
    def is_flaky(self) -> bool:
        """Whether it sometimes fails: it was retried, or failed in some of the runs, not in all."""
        return self.retried > 0 or 0 < self.failed < self.runs


@dataclass(frozen=True, slots=True)
class WorkflowHistory:
    """The last runs of a workflow, newest first, and its jobs, in the order of their first end."""

    workflow: str
    runs: tuple[RunOverTime, ...]
    jobs: tuple[JobOverTime, ...]


def read_workflow_history(
    name: str, connection: Redis, limit: int = 50, *, keeps: bool = True
) -> WorkflowHistory:
    """Return the last runs of the workflows of one name, at most `limit`, and their jobs.

    Costs as much as `EVENTS_PER_CALL` events at most, and only for runs that were not counted yet.
    What is counted is kept in the server for the next call, if it `keeps`.
    """
    records = read_run_page(connection, limit, RunFilter(workflow=name)).runs
    ended = [record.run_id for record in records if record.state in RUN_ENDED]
    counted = _count_runs(ended, connection, keeps=keeps)
    runs = tuple(
        RunOverTime(record, find_run_duration(record), record.run_id in counted)
        for record in records
    )
    return WorkflowHistory(name, runs, _summarize(counted.values()))


Counted = Mapping[str, tuple[bool, bool, float | None]]
"""Of one run, by declaration: whether it failed, whether it was retried, its median duration."""


def _count_runs(run_ids: Iterable[str], connection: Redis, *, keeps: bool) -> dict[str, Counted]:
    answers = read_each(
        run_ids,
        connection,
        lambda pipe, run: (
            pipe.hmget(keys.run(run), "history", "ended_at"),
            pipe.xlen(keys.run_events(run)),
        ),
    )
    counted: dict[str, Counted] = {}
    left = EVENTS_PER_CALL
    for run_id, ((raw, ended_at), size) in answers:
        if (kept := _read_kept(raw, ended_at)) is not None:
            counted[run_id] = kept
        elif size <= min(MOST_EVENTS, left):
            left -= size
            counted[run_id] = _count(run_id, connection)
            if keeps:
                _keep(run_id, ended_at, counted[run_id], connection)
    return counted


def _count(run_id: str, connection: Redis) -> Counted:
    """Return what the events of a run say about its declared jobs."""
    found: dict[str, list[tuple[Attempt, ...]]] = {}
    for name, attempts in read_attempts(read_events(run_id, connection)).items():
        if attempts and not is_helper(name):
            found.setdefault(outermost_name(declared_name(name)), []).append(attempts)
    counted = {name: _summarize_run(items) for name, items in found.items()}
    if len(counted) <= MOST_JOBS:
        return counted
    worst = sorted(counted, key=lambda name: not any(counted[name][:2]))[:MOST_JOBS]
    return {name: counted[name] for name in counted if name in set(worst)}


def _summarize_run(items: list[tuple[Attempt, ...]]) -> tuple[bool, bool, float | None]:
    durations = [each.duration_s for attempts in items for each in attempts]
    known = [duration for duration in durations if duration is not None]
    has_failed = any(attempts[-1].state in _FAILED for attempts in items)
    was_retried = any(map(_was_retried, items))
    return has_failed, was_retried, round(median(known), 6) if known else None


def _was_retried(attempts: tuple[Attempt, ...]) -> bool:
    """Whether a job was tried again, also in a retried run, because it had not succeeded."""
    return any(each.is_retried or each.state in _FAILED for each in attempts[:-1])


_FAILED = (*BAD, "timed_out", "lost")


def _read_kept(raw: Any, ended_at: Any) -> Counted | None:
    """Return what was kept of a run at this end of it, by this version."""
    kept = json.loads(raw) if raw else {}
    if kept.get("v") != _FORMAT or kept.get("ended_at") != as_text(ended_at or b""):
        return None
    return {name: (bool(bad), bool(again), took) for name, bad, again, took in kept["jobs"]}


def _keep(run_id: str, ended_at: Any, counted: Counted, connection: Redis) -> None:
    """Keep it in the run's record, if there is still the run, and the server lets us."""
    jobs = [(name, int(bad), int(again), took) for name, (bad, again, took) in counted.items()]
    text = json.dumps({"v": _FORMAT, "ended_at": as_text(ended_at or b""), "jobs": jobs})
    pipe: Any
    try:
        with connection.pipeline() as pipe:
            pipe.watch(keys.run(run_id))  # or this could bring a run back that is removed just now
            if pipe.hexists(keys.run(run_id), "workflow"):
                pipe.multi()
                pipe.hset(keys.run(run_id), "history", text)
                pipe.execute()
    except RedisError:  # a replica, or a user who may only read: the next reader counts anew
        return


def _summarize(runs: Iterable[Counted]) -> tuple[JobOverTime, ...]:
    found: dict[str, list[tuple[bool, bool, float | None]]] = {}
    for counted in runs:
        for name, each in counted.items():
            found.setdefault(name, []).append(each)
    return tuple(
        JobOverTime(
            name,
            len(each),
            sum(bad for bad, _, _ in each),
            sum(again for _, again, _ in each),
            median(known) if (known := [took for *_, took in each if took is not None]) else None,
        )
        for name, each in found.items()
    )
