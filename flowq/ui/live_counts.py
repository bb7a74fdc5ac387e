"""What an open page has to know of a run, kept from its events: counts by declaration, no items.

An event costs as much in a run of 100,000 items as in one of 10: of a batch of events, the newest
of each job is counted (`flowq.render.tally`). Each declaration keeps the position of the events
that last changed it, so the difference to what a page shows is found from the position of the page,
however old that is; nothing is kept for each page.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from flowq.render.tally import Part, Tally, walk
from flowq.runtime import keys, runs
from flowq.status import (
    BUSY,
    REMOVED,
    STATE_BY_EVENT,
    TOLERATED,
    Event,
    JobStatus,
    RunStatus,
    fold,
    public_name,
)

if TYPE_CHECKING:
    from redis import Redis

MAX_FAILURES = 20
"""How many failures, the newest, a frame names."""

MAX_TEXT = 300
"""How many characters of an error or a reason are in a frame."""

_POSITION = re.compile(r"([0-9]{1,19})-([0-9]{1,20})")

Entry = Sequence[Any]
"""An event as the server tells it: its id, and a list of names and values of its fields in turn."""


class Position(NamedTuple):
    """A place in the events of a run, behind one of them."""

    ms: int
    number: int

    @classmethod
    def find(cls, text: str | None) -> Position | None:
        """Return the position that the id of an event is; None for any other text."""
        found = _POSITION.fullmatch(text or "")
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


BEGINNING = Position(0, 0)


def as_text(raw: bytes | str) -> str:
    """Return what redis-py has read as a text."""
    return raw.decode() if isinstance(raw, bytes) else raw


def read_declared(run_id: str, connection: Redis) -> RunStatus:
    """Return a run's status before its events, with the jobs that it was submitted with.

    All others have events, so those that groups add are not read. Errors: RunNotFound.
    """
    record = runs.get_record(run_id, connection)
    ids = [as_text(job_id) for job_id in connection.lrange(keys.run_order(run_id), 0, -1)]
    if not ids:  # of an older version
        return runs.get_declared(run_id, connection)
    names = runs.read_names(run_id, ids, connection)
    return RunStatus(
        run_id,
        record.workflow,
        jobs={names[job_id]: JobStatus(names[job_id], job_id) for job_id in ids},
        groups=frozenset(runs.read_groups(run_id, connection)),
    )


class LiveCounts:
    """The counts of one run. `position` is behind the last event that is counted."""

    def __init__(self, declared: RunStatus) -> None:
        self.position = BEGINNING
        self._run = replace(declared, jobs={})
        self._tally = Tally(declared)
        self._changed_at = dict[Part, Position]()  # that of the last change is the last
        self._failures_at = BEGINNING
        self._held_up = set[str]()  # the names of jobs that only somebody can set going
        self._busy = Counter[Part]()
        self._own = dict[Part, Counter[str]]()
        self._counts = Counter[str]()
        for part in walk(self._tally.parts):
            self._count_again(part)
            self._changed_at[part] = BEGINNING

    @property
    def status(self) -> str:
        """The state of the run."""
        if self._run.state not in ("running", "waiting"):
            return self._run.state
        is_held_up = self._held_up or self._run.state == "waiting"
        return "waiting" if is_held_up and not self._busy else "running"

    @property
    def is_ended(self) -> bool:
        """Whether the run has reached its end."""
        return self._run.is_ended

    def add(self, entries: Sequence[Entry]) -> None:
        """Count events that follow those counted before; there must be some."""
        self.position = Position.find(as_text(entries[-1][0])) or self.position
        newest, begun, of_run = dict[Any, Entry](), set[Any](), list[Event]()
        for entry in entries:
            fields = entry[1]
            at = _find_name(fields)
            name = fields[at]
            if not name:
                of_run.append(_read_event(entry))
                continue
            newest[name] = entry
            if fields[at + 2] in (b"started", "started"):  # its state, in the scripts' order
                begun.add(name)
        self._run = fold(self._run, of_run)
        jobs, running = dict[str, JobStatus](), self._tally.running
        failed_before = [*islice(reversed(self._tally.failed), MAX_FAILURES)]
        for name, entry in newest.items():
            event = _read_event(entry)
            is_begun = name in begun or event.name in running
            job = None if event.state == REMOVED else _read_job(event, is_begun=is_begun)
            if job is not None:
                jobs[event.name] = job
            if job is not None and (job.is_asking or job.is_stuck):
                self._held_up.add(event.name)
            else:
                self._held_up.discard(event.name)
        for part in self._tally.update(replace(self._run, jobs=jobs), map(as_text, newest)):
            self._count_again(part)
            changed: Part | None = part
            while changed is not None:
                self._changed_at.pop(changed, None)
                self._changed_at[changed] = self.position
                changed = changed.outer
        if failed_before != [*islice(reversed(self._tally.failed), MAX_FAILURES)]:
            self._failures_at = self.position

    def _count_again(self, part: Part) -> None:
        if busy := sum(part.states[state] + part.helpers[state] for state in BUSY):
            self._busy[part] = busy
        else:
            self._busy.pop(part, None)
        self._counts.subtract(self._own.get(part, ()))
        self._own[part] = part.count_own()
        self._counts.update(self._own[part])

    def write_frame(self, since: Position | None, viewers: int = 1) -> str:
        """Return as JSON what has changed since a position; None for all there is.

        `viewers` is how many get it, so that they can share what they ask for themselves. Its size
        is bounded by how many declarations have changed, whatever happened to items.
        """
        jobs = {}
        for part, at in reversed(self._changed_at.items()):
            if since is not None and at <= since:
                break
            jobs[part.path] = _describe(part)
        frame: dict[str, Any] = {
            "v": 1,
            "run": self._run.run_id,
            "status": self.status,
            "reason": self._run.reason[:MAX_TEXT],
            "counts": +self._counts,
            "jobs": jobs,
            "viewers": viewers,
        }
        if since is None or self._failures_at > since:
            frame["failures"] = self._list_failures()
        return json.dumps(frame, separators=(",", ":"))

    def _list_failures(self) -> list[dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for job in reversed(self._tally.failed.values()):
            name = public_name(job.name)
            if not (job.has_failed_inside or job.is_tolerated or name in found):
                text = job.error or job.reason
                found[name] = {"name": name, "error": text[:MAX_TEXT]}
            if len(found) == MAX_FAILURES:
                break
        return [*found.values()]


def _find_name(fields: Sequence[Any]) -> int:
    """Return where the name of the job is among the fields; scripts write it second."""
    if fields[2] in (b"name", "name"):
        return 3
    return next(at + 1 for at in range(0, len(fields), 2) if fields[at] in (b"name", "name"))


def _read_event(entry: Entry) -> Event:
    fields = entry[1]
    return runs.read_entry(entry[0], dict(zip(fields[::2], fields[1::2], strict=True)))


def _read_job(event: Event, *, is_begun: bool) -> JobStatus:
    """Return what is counted and shown of a job after an event."""
    return JobStatus(
        event.name,
        event.job_id,
        STATE_BY_EVENT.get(event.state, event.state),
        event.reason,
        started_at=event.began_at or (event.at if is_begun else None),
        error=event.error,
        progress=event.progress,
    )


def _describe(part: Part) -> dict[str, Any]:
    job = part.job
    if part.is_one_job and job is not None:
        found: dict[str, Any] = {"status": TOLERATED if job.is_tolerated else job.state}
        if job.reason:
            found["reason"] = job.reason[:MAX_TEXT]
        if job.progress:
            found["progress"] = asdict(job.progress)
        return found
    return {"status": part.state, "counts": part.counted}
