"""Removes all data of flowq from a server; RQ's data stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.errors import WrongState
from flowq.runtime import keys
from flowq.runtime.job import Job
from flowq.runtime.listening import find_living
from flowq.runtime.maintenance import delete_functions, list_functions
from flowq.runtime.runs import remove
from flowq.runtime.steps import run_steps
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis

_PER_CALL = 500
_UNDECIDED = (b"open", b"releasing", b"released", b"met", b"queued")


@dataclass(frozen=True, slots=True)
class Removed:
    """The numbers of removed runs (with their jobs), functions and keys, and of changed jobs."""

    runs: int
    functions: int
    keys: int
    jobs: int


def uninstall(connection: Redis, *, is_forced: bool = False) -> Removed:
    """Remove all data of flowq: runs with their jobs, functions, keys, and fields of RQ's jobs.

    RQ's data stays: queues, and jobs of no run with their results. With `is_forced`, unfinished
    runs are removed too, and waiting future jobs are canceled with their blockers.
    Errors: WrongState while workers of flowq are alive, which would write data again; and, unless
    `is_forced`, while runs are unfinished or future jobs wait.
    """
    run_ids, futures = check_uninstall(connection, is_forced=is_forced)
    for run_id in run_ids:
        remove(run_id, connection)
    for future_id in futures:
        if connection.exists(keys.job(future_id)):
            Job.fetch(future_id, connection).cancel(blockers=True)
    while run_steps(connection):  # ended jobs get their own time to live
        pass
    jobs = _remove_fields(connection)
    count = _remove_keys(connection)
    functions = list_functions(connection)
    delete_functions(connection, functions)
    return Removed(len(run_ids), len(functions), count, jobs)


def check_uninstall(connection: Redis, *, is_forced: bool) -> tuple[list[str], list[str]]:
    """Return the runs that `uninstall` would remove, and the future jobs that it would cancel.

    Errors: as `uninstall`.
    """
    if names := find_living(connection):
        raise WrongState(f"workers of flowq are alive ({', '.join(names[:5])}): stop them first")
    run_ids = [as_text(raw) for raw in connection.zrange(keys.RUNS, 0, -1)]  # type: ignore[arg-type]
    futures = list(_find_waiting(connection))
    if not is_forced:
        _refuse_unfinished(run_ids, futures, connection)
    return run_ids, futures


def _refuse_unfinished(run_ids: list[str], futures: list[str], connection: Redis) -> None:
    states = {
        run_id: as_text(connection.hget(keys.run(run_id), "state") or b"") for run_id in run_ids
    }
    unfinished = [run_id for run_id, state in states.items() if state and state not in RUN_ENDED]
    if unfinished:
        raise WrongState(
            f"not all runs have ended ({', '.join(unfinished[:5])}): wait for them, end them with "
            "flowq cancel, or remove them as they are with --force"
        )
    if futures:
        raise WrongState(
            f"future jobs still wait ({', '.join(futures[:5])}): release or cancel them, or let "
            "--force cancel them"
        )


def _find_waiting(connection: Redis) -> Iterator[str]:
    """Yield the future jobs outside of runs that have not ended."""
    prefix = keys.future("")
    for raw in connection.scan_iter(f"{prefix}*", count=_PER_CALL):
        future_id = as_text(raw).removeprefix(prefix)
        state = connection.hget(as_text(raw), "state")
        run_id = connection.hget(keys.job(future_id), "flowq_run")
        if state in _UNDECIDED and not run_id:
            yield future_id


def _remove_fields(connection: Redis) -> int:
    """Remove flowq's fields from the hashes of RQ's jobs and executions."""
    changed = 0
    for kind in ("job", "execution"):
        for raw in connection.scan_iter(f"{keys.PREFIX}:{kind}:*", count=_PER_CALL, _type="hash"):
            names: Any = connection.hkeys(as_text(raw))
            ours = [name for name in names if as_text(name).startswith("flowq_")]
            if ours:
                connection.hdel(as_text(raw), *(as_text(name) for name in ours))
                changed += 1
    return changed


def _remove_keys(connection: Redis) -> int:
    """Remove flowq's keys: those under its name, lists of blockers, and locks of schedules."""
    found = [
        as_text(raw) for raw in connection.scan_iter(f"{keys.PREFIX}:flowq:*", count=_PER_CALL)
    ]
    # RQ's registries of deferred jobs are sorted sets.
    lists = connection.scan_iter(f"{keys.PREFIX}:deferred:*", count=_PER_CALL, _type="list")
    found += [as_text(raw) for raw in lists]
    for raw in connection.scan_iter(f"{keys.PREFIX}:scheduler-lock:*", count=_PER_CALL):
        if connection.get(as_text(raw)) == b"flowq":
            found.append(as_text(raw))
    for first in range(0, len(found), _PER_CALL):
        connection.delete(*found[first : first + _PER_CALL])
    return len(found)
