"""The events of a run as lines, for logs, pipes and plain terminals: what happened, in its order.

Small runs get a line for each transition; of large groups lines tell counts, and each failure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo

from flowq.pauses import find_sleep
from flowq.render.lines import STYLE_BY_STATE, Line, Span, count, format_duration, printable
from flowq.render.progress import STATES
from flowq.render.tally import TALLIED_DONE, TALLIED_ENDS
from flowq.status import (
    BAD,
    ENDED,
    LIST,
    PROGRESSED,
    REMOVED,
    START,
    TOLERATED,
    Event,
    JobStatus,
    group_state,
    has_begun_for_nothing,
    is_helper,
    outermost_name,
    public_name,
)

_FAILED_ATTEMPT = re.compile(r"attempt ([0-9]+) failed")
_KEPT = re.compile(r"(^|: |; )kept from run [\w-]+$")

# With three or four lines a job, ten a group, and the failures: fewer than 500 lines for any run.
JOBS_IN_FULL = 60
"""How many jobs the narrator tells one by one, without those of groups and nested workflows."""

ITEMS_IN_FULL = 40
"""How many jobs of groups and nested workflows it tells one by one; fewer than a group gets at
once, or the first of a large group would be told so."""

GROUPS = 6
"""How many large groups are told each for itself."""

STEPS = 10
"""How often a large group tells its counts from its start to its end."""

FAILURES = 100
"""How many failures in large groups get a line each."""


class _Part:
    """The jobs of one declaration, or of several, as numbers.

    `size` and `ended`, by state, leave out what helps: jobs that begin workflows or make lists.
    """

    __slots__ = (
        "began_at",
        "ended",
        "is_counted",
        "jobs",
        "lists",
        "live",
        "name",
        "next",
        "retries",
        "size",
        "told",
    )

    def __init__(self, name: str, *, is_counted: bool = False) -> None:
        self.name = name
        self.is_counted = is_counted
        self.jobs = self.live = self.size = self.retries = 0
        self.lists = 0  # how many jobs are still making lists of items
        self.told = 0  # how many of its jobs are told one by one
        self.next = 0  # how many jobs must have ended for the next line
        self.ended = Counter[str]()
        self.began_at: datetime | None = None

    def change(self, name: str, before: str | None, after: str | None) -> None:
        """Count that a job has left one state for another; None is for a job that is none."""
        for state, change in ((before, -1), (after, 1)):
            if state is None:
                continue
            self.jobs += change
            self.live += change * (state not in TALLIED_ENDS)
            self.lists += change * (state not in TALLIED_ENDS and name.endswith(LIST))
            if not is_helper(name):
                self.size += change
                if state in TALLIED_ENDS:
                    self.ended[state] += change

    def absorb(self, part: _Part) -> None:
        """Count the jobs of another one as well."""
        self.jobs, self.live = self.jobs + part.jobs, self.live + part.live
        self.size, self.ended = self.size + part.size, self.ended + part.ended
        self.lists += part.lists

    def expect_next(self) -> None:
        """Set when the next line is due: after a part of the jobs, or twice as many if these are
        not all known yet."""
        ended = self.ended.total()
        self.next = ended + max(-(-self.size // STEPS), ended if self.lists else 0)

    @property
    def so_far(self) -> str:
        """What to add to the number of its jobs while there will be more."""
        return " so far" if self.lists else ""

    def counts(self) -> str:
        """Return how many have ended how: `9,988 finished, 12 failed, 3 retries`."""
        order = dict.fromkeys(("finished", *STATES, TOLERATED))
        counts = [f"{self.ended[state]:,} {state}" for state in order if self.ended[state]]
        if self.retries:
            counts.append(f"{self.retries:,} {'retry' if self.retries == 1 else 'retries'}")
        return ", ".join(counts)


class Narrator:
    """Tells the transitions of one run, in the order in which they happened.

    A run of any size takes a bounded number of lines, unless it `is_verbose`: what is too large for
    a line each is told by counts, with a line for each of its first failures. It remembers the last
    state and start of each job. `zone` is the time zone that instants are shown in; None for the
    local one.
    """

    def __init__(self, zone: tzinfo | None = None, *, is_verbose: bool = False) -> None:
        self.zone = zone
        self._is_verbose = is_verbose
        self._started_at: dict[str, datetime] = {}
        self._begun_at: dict[str, datetime] = {}  # of nested workflows
        self._attempts: dict[str, int] = {}
        self._states: dict[str, str] = {}
        self._parts: dict[str, _Part] = {}
        self._others = _Part("other jobs", is_counted=True)
        self._in_full = Counter[bool]()  # how many jobs: of groups, and others
        self._groups = self._failures = 0

    def tell(self, events: Iterable[Event], jobs: Iterable[JobStatus] = ()) -> list[Line]:
        """Return lines like `12:03:04 slice started` for what people want to know of the events.

        `jobs` are those of the run after these events; only the first call looks at them.
        """
        events = list(events)
        if not self._is_verbose:
            self._expect(events, jobs)
        return [line for event in events for line in self._lines(event)]

    def _expect(self, events: Iterable[Event], jobs: Iterable[JobStatus]) -> None:
        """Count jobs that are new: how large a group is must be known before it is told."""
        happened = dict.fromkeys(
            each.name for each in events if each.name and each.state != REMOVED
        )
        state_by_name = dict.fromkeys(name for name in happened if name not in self._states)
        if not self._parts:
            known = {job.name: TOLERATED if job.is_tolerated else job.state for job in jobs}
            state_by_name = {**known, **state_by_name}
        parts = [self._change(name, state or "") for name, state in state_by_name.items()]
        for part in dict.fromkeys(parts):
            self._decide(part)

    def _decide(self, part: _Part) -> None:
        """Tell the jobs of a part one by one as long as there is room, else by counts."""
        if part.is_counted or part.jobs <= part.told:
            return
        self._in_full[part.told > 1] -= part.told
        is_group = part.jobs > 1
        if self._in_full[is_group] + part.jobs <= (ITEMS_IN_FULL if is_group else JOBS_IN_FULL):
            self._in_full[is_group] += part.jobs
            part.told = part.jobs
        elif is_group and self._groups < GROUPS:
            self._groups += 1
            part.is_counted = True
        else:
            self._others.absorb(part)
            self._parts[part.name] = self._others

    def _lines(self, event: Event) -> Iterator[Line]:
        if event.state == "returned":
            if self._started_at.pop(event.name, None) is not None:
                self._attempts[event.name] -= 1
            return
        if event.state in ("handed", PROGRESSED):
            return
        if event.act == "cancel":  # its end is told
            return
        if event.state == "started" and event.name in self._started_at:
            return
        detail = self._detail(event)
        if self._is_verbose or not event.name:
            yield self._line(event, detail)
            return
        is_tolerated = event.state == "failed" and event.reason.startswith(TOLERATED)
        state = None if event.state == REMOVED else TOLERATED if is_tolerated else event.state
        part = self._change(event.name, state)
        if part.is_counted:
            yield from self._counts(part, event, detail)
        elif not (is_helper(event.name) and _is_kept(event)):
            yield self._line(event, detail)

    def _change(self, name: str, state: str | None) -> _Part:
        declared = outermost_name(name)
        part = self._parts.get(declared)
        if part is None:
            part = self._parts[declared] = _Part(declared)
        part.change(name, self._states.pop(name, None), state)
        if state is not None:
            self._states[name] = state
        return part

    def _counts(self, part: _Part, event: Event, detail: str) -> Iterator[Line]:
        """Yield the lines that are due after an event of a job that is told by counts."""
        is_executed = event.state in ("finished", *BAD)
        has_begun = event.state == "started" or event.began_at is not None
        if part.began_at is None and has_begun and not is_helper(event.name):
            part.began_at = event.began_at or event.at
            part.expect_next()
            before = part.ended.total() - (event.state in ENDED)
            ended = f", {before:,} of them have ended before" if before else ""
            says = f": {count(part.size, 'job')}{part.so_far}{ended}"
            yield self._part_line(part, event, "started", says)
        if event.state not in ENDED:
            part.retries += _FAILED_ATTEMPT.match(event.reason) is not None
            return
        if event.state in BAD:
            self._failures += 1
            if self._failures <= FAILURES:
                yield self._line(event, detail)
            elif self._failures == FAILURES + 1:
                says = f": more than {FAILURES} jobs, now only counted; --verbose prints each"
                yield self._part_line(part, event, "failed", says)
        if not part.live:
            took_s = (event.at - (part.began_at or event.at)).total_seconds()
            took = f" ({format_duration(took_s)})" if part.began_at else ""
            yield self._part_line(part, event, group_state(+part.ended), f"{took}: {part.counts()}")
        elif is_executed and 0 < part.next <= part.ended.total():
            part.expect_next()
            done = sum(number for state, number in part.ended.items() if state in TALLIED_DONE)
            how_far = f" {done:,}/{part.size:,}{part.so_far}: {part.counts()}"
            yield self._part_line(part, event, "running", how_far)

    def _part_line(self, part: _Part, event: Event, state: str, says: str) -> Line:
        return (self._instant(event), (f"{part.name} ", ""), _styled(state), (says, ""))

    def _line(self, event: Event, detail: str) -> Line:
        name = (f"{event.name or 'run'} ", "" if event.name else "bold")
        return (self._instant(event), name, _styled(event.state), (detail, ""))

    def _instant(self, event: Event) -> Span:
        return (f"{event.at.astimezone(self.zone).strftime('%H:%M:%S')} ", "dim")

    def _detail(self, event: Event) -> str:
        said = [event.reason] if event.reason else []
        if event.state in BAD and event.error and event.error not in event.reason:
            said.append(event.error)
        reason = f": {printable(': '.join(said))}" if said else ""
        if event.state == "started":
            self._started_at[event.name] = event.at
            attempt = self._attempts[event.name] = self._attempts.get(event.name, 0) + 1
            return f" (attempt {attempt})" if attempt > 1 else ""
        if _is_kept(event):  # nothing of it took any time here
            return reason
        started_at = self._started_at.pop(event.name, None)
        if started_at is not None and has_begun_for_nothing(event):
            self._attempts[event.name] -= 1
        elif counted := _FAILED_ATTEMPT.match(event.reason or ""):
            self._attempts[event.name] = int(counted[1])  # who began to watch later saw fewer
        if event.state not in ENDED:
            if find_sleep(event.state, event.reason, event.at):
                self._begun_at.setdefault(event.name, event.at)
            return reason
        if event.name.endswith(START):
            self._begun_at.setdefault(public_name(event.name), event.began_at or event.at)
        begun_at = self._begun_at.pop(event.name, None)
        if begun_at is not None:
            return f" ({format_duration((event.at - begun_at).total_seconds())}){reason}"
        if event.took_ms is not None:
            return f" ({format_duration(event.took_ms / 1000)}){reason}"
        if started_at is None:
            return reason
        return f" ({format_duration((event.at - started_at).total_seconds())}){reason}"


def _is_kept(event: Event) -> bool:
    return event.state in ENDED and _KEPT.search(event.reason) is not None


def _styled(state: str) -> Span:
    return (state, STYLE_BY_STATE.get(state, ""))
