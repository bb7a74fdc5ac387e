"""Scheduled workflows: submit a run at each due time of a workflow's `schedule`.

A `Scheduler` looks at the clock of the server about once a second, and submits what has fallen due
since `served_at`, the instant up to which the server knows that this was done. Any number of
processes may do so for one workflow:

- One of them holds the *lease*, a key that expires, and works; the others wait. If it dies, another
  one continues at `served_at` after `LEASE_S`.
- The *claim* of a due time, its workflow and instant, makes the rest harmless: a run is committed
  only if no other run has its claim (lua/runs.lua). `backfill` uses the same claims.

The clock of the server may be put back: due times that were served are not served again.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rq import get_current_job
from rq.utils import as_text

from flowq.client import submit
from flowq.compiling import compile_plan, make_run_id
from flowq.cron import find_instant, find_next
from flowq.errors import FlowqError, RunNotFound, UsageError, WrongState
from flowq.expressions import evaluate
from flowq.expressions.places import find_schedules
from flowq.plan import Plan
from flowq.planner.filling import fill_in
from flowq.runtime import keys
from flowq.runtime.connections import (
    JOB_MAX_WAIT_S,
    is_passing,
    read_clock,
    read_each,
    retry_while_unavailable,
)
from flowq.runtime.runs import get_record, remove
from flowq.runtime.schedules import list_schedule, read_holder, record_schedule
from flowq.runtime.wire import from_wire
from flowq.spec import Path, Schedule, Workflow
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis

RUN_ID_LENGTH = 12
LEASE_S = 5.0
TICK_S = 1.0
"""How often a scheduler looks at the clock; it renews its lease each time."""

GRACE_S = 60.0
"""What fell due so shortly before another process took over was not missed."""

STOOD_STILL_S = 3_600.0
"""How far back due times are made up for in any case, if a process or its machine stood still."""

CLOCK_WAS_WRONG_S = 86_400.0
"""If the clock of the server is put back by more than this, what is due is counted from then on."""

BY_SCHEDULE = "schedule"
"""Who submits the runs of a schedule; those of a backfill have the name of its user."""

RECORD_S = 3_600.0
"""How often a scheduler records what it serves (flowq/runtime/schedules.py)."""

PER_TICK = 50
"""How many runs are submitted at a time, before the lease is renewed."""


@dataclass(frozen=True)
class Due:
    """A due time of one schedule of a workflow. Units: `at` is in the schedule's time zone."""

    at: datetime
    schedule: Schedule
    path: Path = ("schedule",)


def find_due(workflow: Workflow, since: datetime, until: datetime) -> Iterator[Due]:
    """Yield the due times of all schedules after `since`, up to `until`, the earliest first.

    Errors: UsageError for a workflow without a schedule, and for an invalid cron expression.
    """
    if not workflow.schedules:
        raise UsageError(
            f"the workflow {workflow.name} has no schedule; add one, as in "
            '`schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}`'
        )
    each = [_of_one(Due(since, *pair[::-1]), until) for pair in find_schedules(workflow)]
    return _in_order(each)


def _in_order(each: Iterable[Iterator[Due]]) -> Iterator[Due]:
    """Merge due times by instant: in one zone, datetimes compare by the clock on the wall, on which
    an hour may come twice."""
    return heapq.merge(*each, key=lambda due: due.at.timestamp())


def _of_one(due: Due, until: datetime) -> Iterator[Due]:
    zone = ZoneInfo(due.schedule.timezone)
    while True:
        try:
            at = find_next(due.schedule.cron, zone, due.at)
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"the schedule {due.schedule.cron!r} is not a cron expression: {error}"
            ) from None
        if at > until:
            return
        due = replace(due, at=at.astimezone(zone))
        yield due


def find_next_due(workflow: Workflow, after: datetime) -> Due:
    """Return the first due time after an instant. Errors: as `find_due`."""
    return next(find_due(workflow, after, datetime.max.replace(tzinfo=UTC) - timedelta(days=2)))


NO_INPUTS: Mapping[str, Any] = {}


def plan_due(
    workflow: Workflow,
    due: Due,
    inputs: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = NO_INPUTS,
    imports: bool = False,
) -> Plan:
    """Return the plan of the run of a due time.

    `inputs` replace those of its schedule, which replace the `defaults`.
    Errors: those of `compile_plan`, also for expressions in the inputs of the schedule.
    """
    run_id, due_at = make_run_id(), due.at.isoformat()
    run = {"id": run_id, "workflow": workflow.name, "due_at": due_at}
    path = (*due.path, "inputs")
    own = evaluate(fill_in(workflow, path, due.schedule.inputs, inputs={}, scope={"run": run}))
    given = {**defaults, **own, **inputs}
    plan = compile_plan(workflow, given, run_id=run_id, imports=imports, due_at=due_at)
    return replace(plan, claim=find_claim(workflow, due))


def find_claim(workflow: Workflow, due: Due) -> str:
    """Return the identity of a due time: schedules of one instant differ if their inputs do."""
    instant = due.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not due.schedule.inputs:
        return f"{workflow.name}:{instant}"
    text = json.dumps(due.schedule.inputs, sort_keys=True, default=repr)
    return f"{workflow.name}:{instant}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def submit_due(
    workflow: Workflow,
    due: Due,
    inputs: Mapping[str, Any],
    connection: Redis,
    defaults: Mapping[str, Any] = NO_INPUTS,
    by: str | None = None,
) -> str | None:
    """Submit the run of a due time, and return its id; None if there is one already. Atomic.

    Errors: those of `plan_due` and `submit`.
    """
    if connection.exists(keys.due(find_claim(workflow, due))):
        return None
    plan = plan_due(workflow, due, inputs, defaults=defaults)
    try:
        submit(plan, connection, by=by)
    except WrongState:  # another process was faster
        return None
    return plan.run_id


# The scheduler -------------------------------------------------------------------------------


class Scheduler:
    """Submits the runs of one workflow when they are due, while it holds the lease."""

    def __init__(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any],
        connection: Redis,
        tell: Callable[[str], object] = lambda text: None,
        defaults: Mapping[str, Any] = NO_INPUTS,
    ) -> None:
        self.workflow, self.inputs, self.connection, self.tell = workflow, inputs, connection, tell
        self.defaults = defaults
        self.token = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self.looked_at_s: float | None = None
        """When this process looked last, as the one that works."""
        self._recorded_s: float | None = None
        self._is_leading: bool | None = None
        self._is_paused = False

    def change(self, workflow: Workflow, defaults: Mapping[str, Any]) -> None:
        """Go on with another version of the workflow, which has the same name."""
        self.workflow, self.defaults, self._recorded_s = workflow, defaults, None

    def tick(self) -> None:
        """Submit what is due, if this process holds the lease. Errors: redis-py's."""
        now_s = read_clock(self.connection)
        if not self._lead():
            self.looked_at_s = self._recorded_s = None
            return
        if self._recorded_s is None or abs(now_s - self._recorded_s) > RECORD_S:
            record_schedule(self.workflow.name, self.workflow.schedules, self.connection, now_s)
            self._recorded_s = now_s
        raw: list[bytes | None] = self.connection.hmget(  # type: ignore[assignment]  # not awaited
            keys.schedule(self.workflow.name), "served_at", "paused", "resumed_at"
        )
        served, paused, resumed = raw
        self._tell_paused(is_paused=paused is not None)
        if paused is not None:
            self.looked_at_s = None
            return
        served_s = float(served) if served is not None else now_s
        if served_s > now_s + CLOCK_WAS_WRONG_S:
            served_s = now_s
        # What `catch_up: none` makes up for: this process stood still, or has just taken over.
        least_s = now_s - GRACE_S
        if self.looked_at_s is not None:
            least_s = max(self.looked_at_s, now_s - STOOD_STILL_S)
        least_s = max(served_s, float(resumed or 0), least_s)
        found = self._find_missed(
            *(datetime.fromtimestamp(s, UTC) for s in (served_s, least_s, now_s))
        )
        dues = list(islice(found, PER_TICK + 1))
        done = list(takewhile(self._submit, dues[:PER_TICK]))
        self.looked_at_s = now_s
        if len(done) < len(dues):  # the next tick goes on there
            now_s, self.looked_at_s = dues[len(done)].at.timestamp() - 1, least_s
        self.connection.hset(keys.schedule(self.workflow.name), "served_at", max(now_s, served_s))

    def _lead(self) -> bool:
        """Take the lease, or renew it; return whether this process has it."""
        key, lease_ms = keys.scheduler(self.workflow.name), int(LEASE_S * 1_000)
        is_leading = bool(self.connection.set(key, self.token, nx=True, px=lease_ms))
        if not is_leading:
            holder = as_text(self.connection.get(key) or b"")
            is_leading = holder == self.token
            if is_leading:
                self.connection.pexpire(key, lease_ms)
            elif self._is_leading is not False:
                host, pid = read_holder(holder)
                other = f"process {pid} on {host}" if pid else "another process"
                self.tell(f"{self.workflow.name} is scheduled by {other}; waiting")
        if is_leading and self._is_leading is False:
            self.tell(f"this process schedules {self.workflow.name} now")
        self._is_leading = is_leading
        return is_leading

    def _tell_paused(self, *, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            verb = "is paused" if is_paused else "goes on"
            self.tell(f"the schedule of {self.workflow.name} {verb}")
        self._is_paused = is_paused

    def _find_missed(self, served: datetime, least: datetime, now: datetime) -> Iterator[Due]:
        """Yield what fell due after `served`, as the `catch_up` of each schedule says.

        `least` is the instant after which it is made up for in any case.
        """
        each: list[Iterator[Due]] = []
        for path, schedule in find_schedules(self.workflow):
            begin = Due(served, schedule, path)
            if schedule.catch_up == "last" and (now - served).total_seconds() > GRACE_S:
                each.append(_find_newest(begin, now))
            else:
                begin = begin if schedule.catch_up == "all" else replace(begin, at=least)
                each.append(_of_one(begin, now))
        return _in_order(each)

    def _submit(self, due: Due) -> bool:
        """Submit the run of a due time; return whether that need not be tried again."""
        name, at = self.workflow.name, f"{due.at:%Y-%m-%d %H:%M %Z}"
        try:
            run_id = submit_due(
                self.workflow, due, self.inputs, self.connection, self.defaults, by=BY_SCHEDULE
            )
        except RunNotFound:  # it took so long that the run was removed meanwhile
            return False
        except FlowqError as error:  # its inputs have no value, for example: other runs may
            self.tell(f"the run of {name} that was due at {at} is not submitted: {error}")
        else:
            if run_id:
                self.tell(f"run {run_id} of {name} is submitted, due at {at}")
        return True

    def leave(self) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        key = keys.scheduler(self.workflow.name)
        if as_text(self.connection.get(key) or b"") == self.token:
            self.connection.delete(key)


def _find_newest(begin: Due, until: datetime) -> Iterator[Due]:
    """Yield the last due time after `begin`, up to `until`, if there is one."""
    back = timedelta(hours=1)
    while True:  # look back further each time: a schedule may be due each minute, or once a year
        since = max(begin.at, until - back)
        newest = deque(_of_one(replace(begin, at=since), until), maxlen=1)
        if newest or since == begin.at:
            yield from newest
            return
        back *= 8


def serve(
    schedulers: Sequence[Scheduler],
    wait: Callable[[float], bool],
    while_away: Callable[[], object] = lambda: None,
    refresh: Callable[[], object] = lambda: None,
) -> None:
    """Submit runs when they are due, until `wait`, which gets seconds, returns True.

    `refresh` is called before each look at the clock, and may change the list of `schedulers`.
    Goes on after an outage of the server, however long; `while_away` is called meanwhile.
    Errors: redis-py's that do not pass.
    """
    is_away = is_over = False
    while not is_over:
        refresh()
        for each in schedulers:
            try:
                each.tick()
                is_away = False
            except Exception as error:
                if not is_passing(error):
                    raise
                if not is_away:
                    each.tell(f"the server cannot be used, and is asked again: {error}")
                is_away = True
                while_away()
        is_over = wait(TICK_S)
    for each in schedulers:
        if not is_away:
            each.leave()


def pause(workflow: str, connection: Redis) -> bool:
    """Submit no run of this schedule before `resume`; return whether it was not paused."""
    now_s = read_clock(connection)
    with connection.pipeline() as pipeline:
        pipeline.hsetnx(keys.schedule(workflow), "paused", now_s)
        list_schedule(workflow, now_s, pipeline)
        was_not_paused, *_ = pipeline.execute()
    return bool(was_not_paused)


def resume(workflow: str, connection: Redis) -> bool:
    """Let a schedule go on; return whether it was paused. `catch_up` says what is made up for."""
    key = keys.schedule(workflow)
    with connection.pipeline() as pipeline:
        pipeline.hdel(key, "paused")
        pipeline.hset(key, "resumed_at", read_clock(connection))
        was_paused, _ = pipeline.execute()
    return bool(was_paused)


def is_paused(workflow: str, connection: Redis) -> bool:
    """Return whether a schedule is paused."""
    return bool(connection.hexists(keys.schedule(workflow), "paused"))


# Backfills -----------------------------------------------------------------------------------

MAX_BACKFILL = 10_000
"""How many due times one backfill has."""

_ENDED_POLL_S = 0.5


def find_range(workflow: Workflow, begin: str, end: str, now: datetime) -> list[Due]:
    """Return the due times from `begin` to `end`, both included, and not after `now`.

    Each is a date or an instant in ISO 8601, without an offset in the time zone of each schedule. A
    date is the whole day, and of a time that occurs twice both are included. Errors: UsageError.
    """
    each = []
    for path, schedule in find_schedules(workflow):
        zone = ZoneInfo(schedule.timezone)
        first, last = _read_bound(begin, zone), _read_bound(end, zone, is_end=True)
        if last < first:
            raise UsageError(f"it ends before it begins: {end!r} is before {begin!r}")
        since = first - timedelta(seconds=1)
        each.append(_of_one(Due(since, schedule, path), min(last, now)))
    if not each:
        find_due(workflow, now, now)  # raises the error
    found = list(islice(_in_order(each), MAX_BACKFILL + 1))
    if len(found) > MAX_BACKFILL:
        raise UsageError(f"there are more than {MAX_BACKFILL:,} due times: backfill in parts")
    return found


def _read_bound(text: str, zone: ZoneInfo, *, is_end: bool = False) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        hint = "write a date or an instant: 2026-11-29, 2026-11-29T06:00"
        raise UsageError(f"{text!r:.100} is not a date; {hint}") from None
    if at.tzinfo is None:
        if is_end and len(text) <= len("2026-11-29"):
            at += timedelta(days=1, seconds=-1)
        return find_instant(at, zone, is_last=is_end)
    return at.astimezone(UTC)


def backfill(
    workflow: Workflow,
    dues: Sequence[Due],
    inputs: Mapping[str, Any],
    connection: Redis,
    *,
    defaults: Mapping[str, Any] = NO_INPUTS,
    max_parallel: int | None = None,
    wait: Callable[[float], bool],
) -> Iterator[tuple[Due, str | None]]:
    """Submit the run of each due time that has none; yield it with the run's id, or with None.

    Blocks while `max_parallel` runs of these due times have not ended, in `wait`, which gets
    seconds; ends once that returns True. Idempotent: after a crash, a second call goes on.
    Errors: those of `plan_due` and `submit`.
    """
    claims = [keys.due(find_claim(workflow, due)) for due in dues]
    answers = read_each(claims, connection, lambda pipe, claim: pipe.get(claim))
    active = {as_text(run_id) for _, (run_id,) in answers if run_id}
    for due in dues:
        while max_parallel is not None and len(active) >= max_parallel:
            states = read_each(
                active, connection, lambda pipe, run: pipe.hget(keys.run(run), "state")
            )
            active = {run for run, (raw,) in states if raw and as_text(raw) not in RUN_ENDED}
            if len(active) >= max_parallel and wait(_ENDED_POLL_S):
                return
        if wait(0):
            return
        run_id = submit_due(workflow, due, inputs, connection, defaults)
        active |= {run_id} if run_id else set()
        yield due, run_id


# Jobs of older versions ----------------------------------------------------------------------


def submit_scheduled(workflow: Mapping[str, Any] | Workflow, inputs: Mapping[str, Any]) -> str:
    """Submit a run, and return its id. Runs in a job; idempotent if the job is executed again.

    Schedulers of versions up to 0.1 enqueued this job.

    Shape: the workflow as `to_wire` writes it; older versions passed the `Workflow`.
    Errors: NewerFormat; those of `compile_plan` and `submit`.
    """
    job = get_current_job()
    if job is None:
        raise UsageError("submit_scheduled() runs only inside a job")
    run_id = hashlib.sha256(str(job.id).encode()).hexdigest()[:RUN_ID_LENGTH]
    plan = compile_plan(from_wire(Workflow, workflow), inputs, run_id=run_id, imports=False)
    retry_while_unavailable(
        lambda: _submit(plan, job.connection), JOB_MAX_WAIT_S, connection=job.connection
    )
    return run_id


def _submit(plan: Plan, connection: Redis) -> None:
    try:
        is_submitted = get_record(plan.run_id, connection).state != "staged"
    except RunNotFound:
        is_submitted = False
    if not is_submitted:
        remove(plan.run_id, connection)  # the rest of an attempt that failed half-way
        submit(plan, connection, by=BY_SCHEDULE)
