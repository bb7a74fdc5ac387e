"""How far a run is, in numbers: its jobs by declaration and state, nested workflows as trees.

The table of a run (`flowq.render.progress`) is drawn from a tally. A live display keeps one and
tells it what has changed, so that a frame costs as much as that, however many items a group has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flowq.status import (
    BAD,
    DONE,
    ENDED,
    LIST,
    TOLERATED,
    JobStatus,
    RunStatus,
    group_state,
    is_helper,
    outermost_name,
)

if TYPE_CHECKING:
    from flowq.runtime.counts import Counted, GroupCounts

MAX_FAILED = 100
"""How many failures, the newest, are remembered with their reason."""

TALLIED_ENDS = ENDED | {TOLERATED}
TALLIED_DONE = DONE | {TOLERATED}
_EXECUTED = ("finished", *BAD, TOLERATED)
_PART = re.compile(r"(?P<name>[^\[(.]+)(?:\[.*?\](?=\.|$))?(?:\.|$)")
_NEVER = datetime.max.replace(tzinfo=UTC)


class Part:
    """The jobs of one declaration: one job, the items of a group, or a nested workflow.

    Those of workflows that the items of a group run are counted together: the part `cut` inside of
    `thumb` has the jobs `thumb[0].cut`, `thumb[1].cut`, and so on.

    Shape: `states` counts its jobs by state, a tolerated failure as `TOLERATED`; `helpers` those
    that begin workflows or make lists. `parts` are those inside of it, by name, and `outer` is what
    it is inside of; `job` is the only
    job, if it has one, and `list_job` makes the list of a group. `failed` has its newest failures,
    `due` when jobs go on, both by the names of the jobs; `pausing` has the names of those of them
    that sleep or poll.
    """

    def __init__(self, name: str, outer: Part | None = None) -> None:
        self.name = name
        self.outer = outer
        self.is_group = False
        self.states = Counter[str]()
        self.helpers = Counter[str]()
        self.parts: dict[str, Part] = {}
        self.job: JobStatus | None = None
        self.list_job: JobStatus | None = None
        self.failed: dict[str, JobStatus] = {}
        self.due: dict[str, datetime] = {}
        self.pausing: set[str] = set()
        self.has_grown = False
        self._ended_before = 0
        self._first_at: datetime | None = None
        self._again_at: datetime | None = None
        self._last_at: datetime | None = None

    def note_times(self, job: JobStatus, since: datetime | None) -> None:
        """Note when a job began and ended; `since` is when the run was started or retried."""
        at = job.started_at
        if at is not None and (since is None or at >= since):
            self._again_at = min(at, self._again_at or at)
        elif at is not None:
            self._first_at = min(at, self._first_at or at)
            self._ended_before += job.state in ENDED
        if job.ended_at is not None:
            self._last_at = max(job.ended_at, self._last_at or job.ended_at)

    def note_counted(self, group: GroupCounts) -> None:
        """Note the times and the newest failures of a group whose items are counted."""
        self._again_at = min(filter(None, (self._again_at, group.began_at)), default=None)
        self._last_at = max(filter(None, (self._last_at, group.ended_at)), default=None)
        if group.is_retried:  # how many ran before is not known, so there is no rate
            self._ended_before = self.states.total()
        self.failed = {job.name: job for job in group.failed}

    @property
    def is_one_job(self) -> bool:
        """Whether it is told as the one job that it has."""
        return self.job is not None and not (self.is_group or self.parts or self.helpers.total())

    @property
    def counted(self) -> Counter[str]:
        """The states of what is counted: items, or the jobs of a nested workflow."""
        is_nested = not self.is_group and self.states.total() <= 1
        return self._inside(with_helpers=False) if is_nested else +self.states

    def _inside(self, *, with_helpers: bool) -> Counter[str]:
        found = Counter[str]()
        for part in self.parts.values():
            found += part.states
            found += part._inside(with_helpers=with_helpers)
            if with_helpers:
                found += part.helpers
        return found

    @property
    def is_growing(self) -> bool:
        """Whether jobs may come that are not counted yet."""
        made = self.list_job
        if self.is_group:
            return self.has_grown or (made is not None and made.state not in ENDED)
        is_begun = not any(state not in ENDED for state in +self.helpers)
        return not is_begun or any(part.is_growing for part in self.parts.values())

    @property
    def state(self) -> str:
        """Its one state: of a group what its items say, of a nested workflow its own."""
        around = (+self.helpers) + self._inside(with_helpers=True)
        states = [*(+self.states), *(each for each in around if each not in TALLIED_ENDS)]
        if self.is_group or self.states.total() > 1:
            return group_state(states, self.list_job.state if self.list_job else "finished")
        if self.job is not None and self.job.state in ENDED:
            return self.job.state
        return group_state(states)

    @property
    def started_at(self) -> datetime | None:
        """When the first of its jobs began; in a retried run, of those that ran again."""
        parts = self._all()
        again = min((each._again_at for each in parts if each._again_at), default=None)
        return again or min((each._first_at for each in parts if each._first_at), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When the last of its jobs ended."""
        return max((each._last_at for each in self._all() if each._last_at), default=None)

    @property
    def path(self) -> str:
        """Its name with those of what it is inside of: `thumb.cut`."""
        return f"{self.outer.path}.{self.name}" if self.outer else self.name

    def count_own(self) -> Counter[str]:
        """Return what it adds to the counts of its run, without the parts inside of it.

        A tolerated failure is counted as `TOLERATED`.
        """
        found, made = +self.states, self.list_job
        if made is not None and made.state != "finished" and not self.states.total():
            found[made.state] += 1  # it stands for the items that it has not made
        return found

    def _all(self) -> list[Part]:
        return [self, *walk(self.parts)]

    def rate(self, now: datetime) -> float | None:
        """Return how many of its items a second were executed so far, since the run was started or
        retried; None as long as these are too few to tell."""
        executed = sum(self.states[state] for state in _EXECUTED) - self._ended_before
        elapsed_s = (now - self._again_at).total_seconds() if self._again_at else 0.0
        if not self.is_group or executed < LEAST_ITEMS or elapsed_s < LEAST_S:
            return None
        return executed / elapsed_s


LEAST_ITEMS, LEAST_S = 10, 2.0
"""A rate is told after so many items and seconds."""


class Tally:
    """The parts of a run by name, in the order of declaration.

    `running` and `failed` are its jobs in these states by name, the oldest first; of the latter,
    the newest.
    """

    def __init__(self, status: RunStatus, order: Iterable[str] = ()) -> None:
        """Count the jobs of a status. `order` has the names of its groups and jobs as declared."""
        self.since = status.since
        self.parts: dict[str, Part] = {}
        self.running: dict[str, JobStatus] = {}
        self.failed: dict[str, JobStatus] = {}
        self._groups = status.groups
        self._is_complete = False
        self._seen: dict[str, tuple[Part, bool, str]] = {}
        for name in (*order, *status.jobs):
            self._find(name)
        for name in sorted(status.groups):  # an empty matrix has no job at all
            self._part(self.parts, name).is_group = True
        self.update(status, [job.name for job in sorted(status.jobs.values(), key=_ended_first)])
        self._is_complete = True

    def update(self, status: RunStatus, names: Iterable[str]) -> set[Part]:
        """Count those jobs again that have these names; return the parts that they belong to.

        Of the status, only these jobs are read, so that it may have no others.
        """
        touched = set[Part]()
        # Lists come last: what a list adds before it ends does not make its group grow later.
        find_job = status.jobs.get
        for name in sorted(names, key=is_helper):
            job = find_job(name)
            known = self._seen.pop(name, None)
            part, helps, before = known or (*self._find(name), "")
            touched.add(part)
            counts = part.helpers if helps else part.states
            if before:
                counts[before] -= 1
                self._forget(name, part, before)
            if job is None:
                continue
            state = TOLERATED if job.state == "failed" and job.is_tolerated else job.state
            counts[state] += 1
            self._seen[name] = part, helps, state
            self._note(job, part, helps=helps, is_new=not before)
        return touched

    @classmethod
    def of_counted(cls, counted: Counted) -> Tally | None:
        """Return the tally of a run whose items are counted only.

        None where a status has more to say: items that run workflows, or wait for a retry.
        """
        if any(
            kind != "item" or state == "scheduled"
            for group in counted.groups
            for kind, state in group.counts
        ):
            return None
        tally = cls(counted.status, counted.order)
        for group in counted.groups:
            part, _ = tally._find(f"{group.name}[0]")
            part.states.update(group.states)
            part.note_counted(group)
        return tally

    def _forget(self, name: str, part: Part, before: str) -> None:
        if before == "started":
            self.running.pop(name, None)
        elif before == "scheduled":
            part.due.pop(name, None)
            part.pausing.discard(name)
        elif before in BAD or before == TOLERATED:
            part.failed.pop(name, None)
            self.failed.pop(name, None)

    def _note(self, job: JobStatus, part: Part, *, helps: bool, is_new: bool) -> None:
        name, state, made = job.name, job.state, part.list_job
        part.note_times(job, self.since)
        if helps and (name.endswith(LIST) or part.is_group):
            part.list_job = job
        elif not helps:
            part.job = job
            is_late = made is not None and made.state in ENDED and self._is_complete
            part.has_grown |= part.is_group and is_new and is_late
        if state == "started" and not helps:
            self.running[name] = job
        elif state == "scheduled" and job.due_at is not None:
            part.due[name] = job.due_at
            if job.is_pausing:
                part.pausing.add(name)
        elif state in BAD:
            for failed in (part.failed, self.failed):
                failed[name] = job
                if len(failed) > MAX_FAILED:
                    del failed[next(iter(failed))]

    def _find(self, name: str) -> tuple[Part, bool]:
        """Return the part that a job belongs to, and whether it only helps there."""
        outer, _, index = name.partition("[")
        if (known := self.parts.get(outer)) and known.is_group and index[:-1].isdecimal():
            return known, False  # an item of a large group, without a look at its name's parts
        helps = is_helper(name)
        path = name.rpartition("(")[0] if helps else name
        parts, at, part = self.parts, 0, None
        while found := _PART.match(path, at):
            part = self._part(parts, found["name"], part)
            parts, at = part.parts, found.end()
        if part is None or at < len(path):  # a name that no declaration can have
            part = self._part(self.parts, outermost_name(name) or name)
        is_item = path.endswith("]") and at == len(path)
        part.is_group = part.is_group or is_item or name.endswith(LIST)
        # An older version gave the job that makes the list the name of its group.
        return part, helps or name in self._groups

    def _part(self, parts: dict[str, Part], name: str, outer: Part | None = None) -> Part:
        if name not in parts:
            parts[name] = Part(name, outer)
        return parts[name]

    def count_by_state(self) -> Counter[str]:
        """Return how many of what was declared are in each state, as `RunStatus` counts them."""
        found = Counter[str]()
        for part in walk(self.parts):
            found += part.count_own()
        found["failed"] += found.pop(TOLERATED, 0)
        return +found


def walk(parts: Mapping[str, Part]) -> Iterator[Part]:
    """Yield parts, and after each those inside of it."""
    for part in parts.values():
        yield part
        yield from walk(part.parts)


def _ended_first(job: JobStatus) -> tuple[bool, datetime]:
    return job.ended_at is None, job.ended_at or job.started_at or _NEVER
