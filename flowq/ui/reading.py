"""Reads what the pages of a run show, bounded: large groups are counts, without their items."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from statistics import median
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, TypeVar

from flowq.client import Run
from flowq.history import Attempt, AttemptState, find_run_duration, read_attempts
from flowq.pictures.of_run import draw_counted
from flowq.pictures.picture import Picture
from flowq.pictures.report import RunReport
from flowq.pictures.timeline import Row, find_rows
from flowq.render.tally import Part, Tally
from flowq.runtime import keys
from flowq.runtime.counts import Counted, read_newest_events
from flowq.runtime.run_lists import RunFilter, read_run_page
from flowq.runtime.runs import get_declared, get_record, read_events
from flowq.status import Event, JobStatus, RunRecord, RunStatus, fold

COMPARED, MOST_LOOKED_AT = 5, 100
"""How many earlier runs say how long a workflow usually takes, and how many are looked at."""

Found = TypeVar("Found")

_ALL = "[…]"
"""Stands behind the name of a group instead of that of an item."""


@dataclass(frozen=True)
class Seen:
    """A run when its page was asked for.

    Shape: `status` and `attempts` (by name) have all jobs, but of a run that is `counted` only its
    single jobs; `tally` has the numbers of both. `acts` are what somebody has done, newest first.
    """

    run: Run
    record: RunRecord
    status: RunStatus
    picture: Picture
    tally: Tally
    attempts: Mapping[str, Sequence[Attempt]]
    acts: Sequence[Event] = ()
    counted: Counted | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def failed_status(self) -> RunStatus:
        """The status with the newest failures of groups that are counted."""
        groups = self.counted.groups if self.counted else ()
        failed = {job.name: job for group in groups for job in group.failed}
        return replace(self.status, jobs={**self.status.jobs, **failed}) if failed else self.status

    @cached_property
    def rows(self) -> list[Row]:
        """What the timeline and the table have: a row for each declaration."""
        if self.counted is None:
            return find_rows(self.picture, self.status, self.attempts)
        jobs, attempts = dict(self.status.jobs), dict(self.attempts)
        for group in self.counted.groups:
            if (part := self.find_part(group.name)) is not None:
                job = JobStatus(
                    group.name + _ALL,
                    "",
                    part.state,
                    started_at=part.started_at,
                    ended_at=part.ended_at,
                )
                jobs[job.name], attempts[job.name] = job, tuple(_attempts_of(job))
        return find_rows(self.picture, replace(self.status, jobs=jobs), attempts)

    def report(self) -> RunReport:
        """Return it in the form in which reports are told, without failures."""
        return RunReport(self.record, self.status, self.picture, self.attempts, {}, self.now)

    def find_part(self, name: str) -> Part | None:
        """Return the numbers of a declaration, `deploy.build`, or None."""
        parts, found = self.tally.parts, None
        for each in name.split("."):
            found = parts.get(each)
            if found is None:
                return None
            parts = found.parts
        return found


MANY_EVENTS = 20_000
PATIENCE_S = 0.4
"""A run with so many events is read in a thread of its own, for which a page waits so long."""

MAX_KEPT, MAX_KEPT_EVENTS = 4, 100_000
"""How many runs are kept as they were read last, for those who look at the same one, and how many
events these have; one of any size is."""

MAX_READING = 2
"""How many runs are folded at a time. More threads are not faster."""


@dataclass(frozen=True, slots=True)
class _Folded:
    """A run as it was read: all events up to the `newest`. Units: seconds of the monotonic clock"""

    seen: Seen
    newest: Sequence[Event]
    events: int
    began_at: float
    ended_at: float

    def is_current(self, newest: Sequence[Event], asked_at: float) -> bool:
        """Whether it may be shown to somebody who has asked then.

        A run that takes long to read is not read again before that long, or nobody would see it.
        """
        took_s = self.ended_at - self.began_at
        rests = took_s > PATIENCE_S and time.monotonic() < self.ended_at + took_s
        return self.newest == newest or self.began_at >= asked_at or rests


class Reader:
    """Reads the runs that a page shows, each of them once for all who look at it meanwhile."""

    def __init__(self) -> None:
        self.folds = 0
        self._lock = Lock()
        self._turns = BoundedSemaphore(MAX_READING)
        self._kept: dict[str, _Folded] = {}
        self._at_work: dict[tuple[str, str], Future[Any]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being read."""
        return not self._at_work

    def read_run(self, run: Run) -> Seen:
        """Read a run. Costs as much as its events, or the new ones where these are counted.

        Errors: RunNotFound; StillCounting.
        """
        record, events = get_record(run.run_id, run.connection), _count_events(run)
        if events > MANY_EVENTS:
            counted = self._wait(run, events, "count", run.counted)
        else:
            counted = run.counted()
        tally = Tally.of_counted(counted) if counted else None
        if counted is None or tally is None:
            return self._find_folded(run, record, events)
        status = counted.status
        told = {job.name: tuple(_attempts_of(job)) for job in status.jobs.values()}
        picture = draw_counted(run.picture(status), tally.parts)
        acts = find_acts(read_newest_events(run.run_id, run.connection, NEWEST_EVENTS))
        return Seen(run, record, status, picture, tally, told, acts, counted)

    def _find_folded(self, run: Run, record: RunRecord, events: int) -> Seen:
        """Return a run with all its jobs; one without new events as it was read before."""
        asked_at = time.monotonic()
        newest = read_newest_events(run.run_id, run.connection, 1)
        with self._lock:
            found = self._kept.get(run.run_id)
        while found is None or not found.is_current(newest, asked_at):
            # The first one may have begun before.
            found = self._wait(run, events, "fold", lambda: self._fold(run, record))
        return replace(found.seen, record=record, now=datetime.now(UTC))

    def _fold(self, run: Run, record: RunRecord) -> _Folded:
        with self._turns:
            began_at = time.monotonic()
            events = list(read_events(run.run_id, run.connection))
            status = fold(get_declared(run.run_id, run.connection), events)
            picture, attempts = run.picture(status), read_attempts(events)
            acts = find_acts(events)
            seen = Seen(run, record, status, picture, Tally(status), attempts, acts)
            found = _Folded(seen, events[-1:], len(events), began_at, time.monotonic())
        with self._lock:
            self.folds += 1
            self._kept.pop(run.run_id, None)
            self._kept[run.run_id] = found
            while len(self._kept) > 1 and (
                len(self._kept) > MAX_KEPT
                or sum(each.events for each in self._kept.values()) > MAX_KEPT_EVENTS
            ):
                del self._kept[next(iter(self._kept))]
        return found

    def _wait(self, run: Run, events: int, kind: str, read: Callable[[], Found]) -> Found:
        """Wait for what somebody reads already, or else begin to. Errors: StillCounting; its own"""
        key = kind, run.run_id
        with self._lock:
            future: Future[Found] | None = self._at_work.get(key)
            if future is None:
                future = self._at_work[key] = Future()
                Thread(target=self._read_into, args=(future, key, read), daemon=True).start()
        try:
            return future.result(PATIENCE_S if events > MANY_EVENTS else None)
        except TimeoutError:
            if future.done():  # just now
                return future.result()
            raise StillCounting(get_record(run.run_id, run.connection), events) from None

    def _read_into(
        self, future: Future[Any], key: tuple[str, str], read: Callable[[], object]
    ) -> None:
        found, error = None, None
        try:
            found = read()
        except BaseException as raised:  # noqa: BLE001 - who waits for it gets it
            error = raised
        with self._lock:
            del self._at_work[key]
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)


def _count_events(run: Run) -> int:
    return int(run.connection.xlen(keys.run_events(run.run_id)))


NEWEST_EVENTS = 1_000
"""Of a run that is counted, so many events are searched for what somebody has done."""

MAX_ACTS = 20


def find_acts(events: Sequence[Event]) -> list[Event]:
    """Return the newest events of what somebody has done, the newest first."""
    return [*islice((event for event in reversed(events) if event.act), MAX_ACTS)]


class StillCounting(Exception):
    """The events of a run are counted for the first time, which takes a while. `events`: of them"""

    def __init__(self, record: RunRecord, events: int) -> None:
        super().__init__(record.run_id)
        self.record = record
        self.events = events


_STATES: Mapping[str, AttemptState] = {
    "started": "started",
    "finished": "finished",
    "stopped": "stopped",
    "canceled": "canceled",
    "deleted": "deleted",
}


def _attempts_of(job: JobStatus) -> list[Attempt]:
    """Return the last attempt of a job as its status has it; [] before the first one."""
    if job.started_at is None:
        return []
    return [
        Attempt(
            max(job.attempts, 1),
            _STATES.get(job.state, "failed"),
            job.worker,
            queued_at=job.queued_at,
            started_at=job.started_at,
            ended_at=job.ended_at,
            error=job.error,
        )
    ]


def find_usual_s(record: RunRecord, run: Run) -> tuple[float, int] | None:
    """Return the median duration of earlier runs of the workflow that succeeded, and their number.

    None if no such run is known.
    """
    wanted = RunFilter("succeeded", record.workflow)
    earlier = read_run_page(run.connection, COMPARED, wanted, most=MOST_LOOKED_AT).runs
    took = [seconds for each in earlier if (seconds := find_run_duration(each)) is not None]
    return (median(took), len(took)) if took else None
