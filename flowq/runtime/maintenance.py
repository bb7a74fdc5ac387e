"""Maintenance that every flowq worker does between jobs, so that nothing waits forever.

It completes operations that a process left unfinished, cancels future jobs that were not released
in time, finds ends of jobs that flowq missed (deleted from a dashboard, expired, run by a worker
without flowq's classes, lost between a queue and a worker), and removes runs that are no longer
needed. Each step is one script, so any number of processes may do this concurrently; a pass is
bounded, and the next one continues where it stopped. Workers also find lost workers here
(`find_lost`), and remove server functions of flowq that no worker has used for a day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError, WatchError
from rq.utils import as_text

from flowq.errors import UsageError
from flowq.runtime import keys, scripts
from flowq.runtime.connections import is_refusal, read_clock
from flowq.runtime.listening import find_alive
from flowq.runtime.steps import finish, run_steps, step, stop, try_all

if TYPE_CHECKING:
    from redis import Redis


LEASE_VARIABLE = "FLOWQ_LEASE"
DEFAULT_LEASE_S, LONGEST_LEASE_S = 5.0, 60.0

PER_PASS = 50
"""How many runs, future jobs and so on a pass handles."""

SWEEP_S = 86_400.0
"""How often a pass looks whether a run whose jobs have printed is still there."""

LOOKS_PER_PASS = 10
"""Steps in which a pass looks for what ended unnoticed: 2,500 jobs a second, as many as all workers
together may look at (lua/watching.lua)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A repaired job.

    `what` is deleted, expired, finished, failed, stopped or canceled, if its end had not been
    noticed; or lost, if it was queued but in no queue, scheduled but in no schedule, or started but
    in no worker, and was queued again. `owner_id` is its run, or else the future job that it
    blocks.
    """

    job_id: str
    what: str
    owner_id: str


class Pass(NamedTuple):
    """What a pass of maintenance did: the number of steps of operations, and the repaired jobs.

    `failures`: of operations that this version cannot execute; they stay in the todo.
    """

    steps: int
    findings: list[Finding]
    failures: list[ResponseError]


def tidy(connection: Redis) -> list[Finding]:
    """Make one bounded pass; return the repaired jobs. Idempotent.

    Errors: redis-py's ResponseError if an operation failed, after everything else was done.
    """
    made = make_pass(connection)
    for failure in made.failures:
        raise failure
    return made.findings


def make_pass(connection: Redis) -> Pass:
    """Make one bounded pass. What fails in the todo does not keep it from the rest. Idempotent."""
    steps, failures = try_all(connection)
    for failure in filter(is_refusal, failures):
        raise failure  # the server refuses the rest too
    now_s = read_clock(connection)
    for future_id in _due(connection, keys.EXPIRING, now_s):
        finish(connection, f"lapse:{future_id}")
    for run_or_join in _due(connection, keys.DEADLINES, now_s):
        running = finish(connection, f"overdue:{run_or_join}")
        stop(running, connection)
        if not running:  # else it is due again soon, until nothing runs any more
            connection.zrem(keys.DEADLINES, run_or_join)
    for join_id in _due(connection, keys.ROUNDS, now_s):
        # Here, because every child imports this module, and retries need a third of flowq.
        from flowq.runtime.retry import begin_round  # noqa: PLC0415

        begin_round(join_id, connection)
    findings = _look(connection, "look:due", LOOKS_PER_PASS)
    for index in (keys.STAGED, keys.ENDED):
        for run_id in _due(connection, index, now_s):
            finish(connection, f"purge:{run_id}")
    _forget_canceled(connection, now_s)
    _sweep_printed(connection, now_s)
    for entry in _due(connection, keys.LABELED, now_s):
        from flowq.runtime.run_labels import look_at_labeled  # noqa: PLC0415 - few runs have labels

        look_at_labeled(entry, now_s, connection)
    return Pass(steps, findings, failures)


def give_up(run_id: str, connection: Redis) -> None:
    """Remove a run that is not submitted completely, and that its submitter gives up.

    A commit that arrives meanwhile, on a connection that was left, wins or finds no run.
    """
    key = keys.run(run_id)
    with connection.pipeline() as pipeline:
        pipeline.watch(key)  # type: ignore[no-untyped-call]
        if pipeline.hget(key, "state") != b"staged":
            return
        pipeline.multi()
        pipeline.hset(key, "state", "purging")
        try:
            pipeline.execute()
        except WatchError:
            return
    finish(connection, f"purge:{run_id}")


class Due(NamedTuple):
    """What the next pass will continue or begin: operations in the todo, and the first others.

    The todo is only counted, because an operation that fails moves to its end.
    """

    operations: int
    others: list[str]


def read_due(connection: Redis) -> Due:
    """Return what is due. A pass without a step that does not change it can do nothing about it."""
    now_s = read_clock(connection)
    indexes = (keys.EXPIRING, keys.DEADLINES, keys.ROUNDS)
    others = [each for index in indexes for each in _due(connection, index, now_s)]
    return Due(connection.zcard(keys.TODO), sorted(others))


def _forget_canceled(connection: Redis, now_s: float) -> None:
    """Remove flowq's expired jobs from RQ's registries of canceled jobs, which RQ never trims."""
    for entry in _due(connection, keys.FORGOTTEN, now_s):
        job_id, queue = entry.split(" ", 1)
        with connection.pipeline() as pipeline:
            if not connection.exists(keys.job(job_id)):
                pipeline.zrem(keys.canceled(queue), job_id)
            pipeline.zrem(keys.FORGOTTEN, entry)
            pipeline.execute()


def _sweep_printed(connection: Redis, now_s: float) -> None:
    """Remove what jobs have printed of runs that a worker of an older version has removed."""
    for run_id in _due(connection, keys.PRINTING, now_s):
        if connection.exists(keys.run(run_id)):
            connection.zadd(keys.PRINTING, {run_id: now_s + SWEEP_S}, xx=True)
        else:  # no run gets its id again
            connection.delete(keys.printed(run_id))
            connection.zrem(keys.PRINTING, run_id)


def examine(connection: Redis) -> list[Finding]:
    """Check every unended job of every run, and every blocker, now; return the repaired jobs."""
    findings = tidy(connection)
    for raw in connection.zrange(keys.WATCHED, 0, -1):
        findings += _look(connection, f"watch:{as_text(raw)}")  # type: ignore[arg-type]
    run_steps(connection)
    return findings


def _look(connection: Redis, operation: str, max_steps: float = inf) -> list[Finding]:
    findings: list[Finding] = []
    steps, more = 0, True
    while more and steps < max_steps:
        made = step(connection, operation)
        findings += [Finding(*found) for found in made.found]
        steps, more = steps + 1, made.more
    return findings


def _due(connection: Redis, index: str, now_s: float) -> list[str]:
    ids: Any = connection.zrangebyscore(index, 0, now_s, start=0, num=PER_PASS)
    return [as_text(each) for each in ids]


# Lost workers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a heartbeat of a worker counts, and the times that follow from it.

    A worker that is late with one heartbeat is still alive, and `gap_s`, after which the search
    starts again, has time for several looks.

    Workers with different leases may use one server, if none is shorter than `DEFAULT_LEASE_S`:
    each worker stores until when its own heartbeat counts; a gap that a search ignores is too short
    for a worker to get lost in it; and after a longer gap, each worker has `silence_s` for a
    heartbeat. The worker with the shortest lease finds the lost ones, and its shorter gap makes the
    others wait again too. A lease below the default would leave the others too little time, so only
    tests use one.
    """

    lease_s: float = DEFAULT_LEASE_S

    @property
    def beat_s(self) -> float:
        """How often a worker sends a heartbeat."""
        return 0.3 * self.lease_s

    @property
    def silence_s(self) -> float:
        """A worker is lost after so much silence, while the server accepted writes."""
        return 1.4 * self.lease_s

    @property
    def gap_s(self) -> float:
        """A longer gap between two marks is an outage, in which no heartbeat could arrive.

        For a long lease it is a smaller part of it. Otherwise a worker with the default lease could
        get lost in the gap: it is silent for `gap_s` and its own `beat_s`, and may be silent for
        its lease and 0.4 of ours.
        """
        return min(0.6 * self.lease_s, 0.4 * self.lease_s + 1.0)

    @property
    def look_s(self) -> float:
        """The interval of searches for lost workers."""
        return 0.1 * self.lease_s


def read_lease(environment: Mapping[str, str]) -> Lease:
    """Return the lease that `FLOWQ_LEASE` sets, or the default. Raises UsageError."""
    text = environment.get(LEASE_VARIABLE, "").strip()
    if not text:
        return Lease()
    with suppress(ValueError):
        if DEFAULT_LEASE_S <= float(text) <= LONGEST_LEASE_S:
            return Lease(float(text))
    raise UsageError(
        f"{LEASE_VARIABLE} must be a number of seconds from {DEFAULT_LEASE_S:g} (the default) to "
        f"{LONGEST_LEASE_S:g}, not {text!r}"
    )


def find_suspects(connection: Redis, but: str = "") -> dict[str, list[str]]:
    """Return the workers of flowq that may be lost, with the ids of their jobs.

    They are not alive by `find_alive`, but may come back.
    """
    known: Any = connection.zrange(keys.WORKERS, 0, -1)
    names = [name for name in map(as_text, known) if name != but]
    there, found = find_alive(names, connection), dict[str, list[str]]()
    for name in names:
        if name in there:
            continue
        members: Any = connection.smembers(keys.held(name))
        if members:
            found[name] = [as_text(member).rpartition(":")[0] for member in members]
    return found


class Lost(NamedTuple):
    """The lost workers. `is_sure`: every worker has had enough time for a heartbeat.

    `clock_s` is the server's clock in epoch seconds.
    """

    is_sure: bool
    clock_s: float
    workers: list[str]


def find_lost(connection: Redis, lease: Lease, *, was_refused: bool = False) -> Lost:
    """Return the workers that were silent while the server accepted writes (`lua/workers.lua`).

    Call it every `lease.look_s` until `is_sure`: a single call is sure only if others have called
    it before. `was_refused`: the server has refused the caller a command since the last call.
    """
    times = (lease.silence_s, lease.lease_s, lease.gap_s)
    answer = scripts.FIND_LOST.call(connection, keys.MARKS, *times, "1" if was_refused else "")
    return Lost(bool(answer[0]), float(answer[1]), [as_text(name) for name in answer[2:]])


# Our functions on the server ------------------------------------------------------------------


UNUSED_S = 86_400.0
"""A function that no worker has used for so long is removed. If a worker calls it after all, it is
loaded again (`flowq.runtime.scripts.HotScript`)."""


def remove_unused_functions(connection: Redis, unused_s: float = UNUSED_S) -> list[str]:
    """Note that this version's functions are in use; remove others that no worker uses any more.

    Every worker calls this periodically. Returns the names of the removed functions; none on a
    server without functions, or on which we may not list them.
    """
    now = read_clock(connection)
    loaded = list_functions(connection)
    if not loaded:
        return []
    own = {script.function for script in scripts.HOT}
    with connection.pipeline() as pipeline:
        # A function without an entry may be in use by workers of another version.
        pipeline.zadd(keys.FUNCTIONS, dict.fromkeys(loaded, now), nx=True)
        if own & loaded:
            pipeline.zadd(keys.FUNCTIONS, dict.fromkeys(own & loaded, now))
        pipeline.expire(keys.FUNCTIONS, int(2 * UNUSED_S))
        pipeline.execute()
    unused: Any = connection.zrangebyscore(keys.FUNCTIONS, 0, now - unused_s)
    names = [as_text(name) for name in unused]
    delete_functions(connection, set(names) & loaded)
    if names:
        connection.zrem(keys.FUNCTIONS, *names)
    return sorted(set(names) & loaded)


def list_functions(connection: Redis) -> set[str]:
    """Return the names of flowq's functions on the server, of all versions."""
    try:
        answer: Any = connection.function_list("flowq_*")
    except ResponseError as error:
        if is_refusal(error):
            raise
        return set()  # the server has none, or we may not ask
    libraries = [
        each if isinstance(each, dict) else dict(zip(each[::2], each[1::2], strict=True))
        for each in answer
    ]
    return {
        as_text(value)
        for library in libraries
        for name, value in library.items()
        if as_text(name) == "library_name"
    }


def delete_functions(connection: Redis, names: Iterable[str]) -> None:
    """Remove functions from the server. Idempotent."""
    for name in names:
        with suppress(ResponseError):  # another process has removed it
            connection.function_delete(name)
