"""Reads what the pages of a run show, bounded: large groups are counts, without their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from statistics import median
from threading import Lock, Thread

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


def read_run(run: Run) -> Seen:
    """Read a run. Costs as much as its events, or the new ones where these are counted.

    Errors: RunNotFound; StillCounting.
    """
    record, counted = get_record(run.run_id, run.connection), _count(run)
    tally = Tally.of_counted(counted) if counted else None
    if counted is None or tally is None:
        return _fold(run, record)
    status = counted.status
    told = {job.name: tuple(_attempts_of(job)) for job in status.jobs.values()}
    picture = draw_counted(run.picture(status), tally.parts)
    events = read_newest_events(run.run_id, run.connection, NEWEST_EVENTS)
    acts = find_acts(events)
    return Seen(run, record, status, picture, tally, told, acts, counted)


MAX_KEPT = 4
"""How many runs are kept as they were read last, for those who look at the same one."""

_kept: dict[tuple[int, str], tuple[list[Event], Seen]] = {}


def _fold(run: Run, record: RunRecord) -> Seen:
    """Read all jobs of a run; one without new events as it was read before."""
    key, newest = (
        (id(run.connection), run.run_id),
        read_newest_events(run.run_id, run.connection, 1),
    )
    with _lock:
        before = _kept.get(key)
    if before is not None and before[0] == newest and before[1].run.connection is run.connection:
        return replace(before[1], record=record, now=datetime.now(UTC))
    events = list(read_events(run.run_id, run.connection))
    status = fold(get_declared(run.run_id, run.connection), events)
    picture, attempts = run.picture(status), read_attempts(events)
    acts = find_acts(events)
    seen = Seen(run, record, status, picture, Tally(status), attempts, acts)
    with _lock:
        _kept.pop(key, None)
        _kept[key] = events[-1:], seen
        for oldest in list(_kept)[:-MAX_KEPT]:
            del _kept[oldest]
    return seen


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


MANY_EVENTS = 20_000
PATIENCE_S = 0.4
"""So many are counted in a thread of their own, for which a page waits so long."""

_counting: dict[tuple[int, str], Future[Counted | None]] = {}
_lock = Lock()


def _count(run: Run) -> Counted | None:
    """Return `run.counted()`. Errors: RunNotFound; StillCounting."""
    events = run.connection.xlen(keys.run_events(run.run_id))
    if events <= MANY_EVENTS:
        return run.counted()
    key = id(run.connection), run.run_id
    with _lock:
        future = _counting.get(key)
        if future is None:
            future = _counting[key] = Future()
            Thread(target=_count_into, args=(future, key, run), daemon=True).start()
    try:
        return future.result(PATIENCE_S)
    except TimeoutError:
        raise StillCounting(get_record(run.run_id, run.connection), events) from None


def _count_into(future: Future[Counted | None], key: tuple[int, str], run: Run) -> None:
    try:
        future.set_result(run.counted())
    except BaseException as error:  # noqa: BLE001 - who waits for it gets it
        future.set_exception(error)
    finally:
        with _lock:
            del _counting[key]


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
