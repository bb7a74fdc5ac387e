"""What happened: the states of jobs and runs, and the fold of events into a run's status.

Workers and scripts write events, one line per transition; `fold` turns them into a `RunStatus`,
which is what every display and `--json` is made from. Pure: instants come in with the events.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from flowq.job_table import JobTable
from flowq.pauses import PAUSES, Polls, find_due, find_sleep
from flowq.reports import Progress

if TYPE_CHECKING:
    from flowq.spec import Input

JobState = Literal[
    "deferred",  # held: open, blocked, gated …
    "scheduled",  # waits for its time, or for the back-off of a retry
    "queued",
    "started",
    "finished",
    "failed",
    "stopped",
    "canceled",
    "skipped",
    "expired",
    "deleted",
]
RunState = Literal["staged", "running", "waiting", "succeeded", "failed", "canceled"]

ENDED: frozenset[str] = frozenset(
    {"finished", "failed", "stopped", "canceled", "skipped", "expired", "deleted"}
)
"""The states of a job that nothing but a retry or a requeue leaves."""

DONE = ENDED - {"canceled", "deleted"}
"""Those that displays count as done: `12/50`. A canceled job has ended, but nothing was done."""

BAD = ("failed", "stopped", "expired")
"""Those that count as failures, in the order in which displays count them."""


def say_state(state: str, *, of_many: bool = False) -> str:
    """Return the state of a job or a run as a sentence has it: `has failed`, `are queued`."""
    if state in ("finished", "failed", "expired", "started", "succeeded"):
        return f"{'have' if of_many else 'has'} {state}"
    return f"{'are' if of_many else 'is'} {state}"


@dataclass(frozen=True, slots=True)
class OutcomeTraits:
    """What one outcome means. `shown`: the state that readers see.

    `is_success`: for what comes after. `is_bad`: it makes a run fail, and the item of a group has
    no result. `has_error`: the job has failed, so expressions find an error.
    """

    shown: str
    is_success: bool = False
    is_bad: bool = False
    has_error: bool = False


OUTCOMES: Mapping[str, OutcomeTraits] = {
    "finished": OutcomeTraits("finished", is_success=True),
    "passed": OutcomeTraits("skipped", is_success=True),  # its own `if` was false
    "tolerated": OutcomeTraits("failed", is_success=True, has_error=True),
    "skipped": OutcomeTraits("skipped"),
    "failed": OutcomeTraits("failed", is_bad=True, has_error=True),
    "stopped": OutcomeTraits("stopped", is_bad=True, has_error=True),
    "expired": OutcomeTraits("expired", is_bad=True, has_error=True),
    "canceled": OutcomeTraits("canceled", is_bad=True),
    "deleted": OutcomeTraits("deleted", is_bad=True),
}
"""Every outcome that the end of a job can have. `lua/outcomes.lua` and `lua/runs.lua` make the same
distinctions; a test compares them."""

SUCCESSES = frozenset(name for name, outcome in OUTCOMES.items() if outcome.is_success)
BAD_OUTCOMES = frozenset(name for name, outcome in OUTCOMES.items() if outcome.is_bad)

_LIVELIEST_FIRST = ("started", "queued", "scheduled", "deferred")
_WORST_FIRST = ("failed", "stopped", "expired", "deleted", "canceled")

RUN_ENDED: frozenset[str] = frozenset({"succeeded", "failed", "canceled"})

TOLERATED = "tolerated"
"""What the reason of a failure begins with that counts as a success."""

REMOVED = "removed"
"""The event of a job that a retry takes away, because what it is a part of begins anew."""

BUSY = ("queued", "scheduled", "started")

PROGRESSED = "progressed"
"""The event of a job that has reported its progress. In the log it is a `started` that is told
again, which readers of older versions ignore."""

STATE_BY_EVENT = {"handed": "queued", "returned": "queued", PROGRESSED: "started"}
"""The states of jobs after events that are no states themselves."""

_BEGUN_FOR_NOTHING = ("skipped", "deferred", "returned")


def has_begun_for_nothing(event: Event) -> bool:
    """Whether a started job has judged its `if`, and done nothing else, or pauses: no attempt."""
    pauses = event.state == "scheduled" and event.reason.startswith(PAUSES)
    return pauses or event.state in _BEGUN_FOR_NOTHING


LIST = "(list)"
"""What stands behind the name of a group in the name of the job that makes its list."""

START = "(start)"
"""What stands behind the name of a nested workflow in the name of the job that begins it."""

_HELPERS = (LIST, START)


def public_name(name: str) -> str:
    """Return how users know a job: the one that begins a nested workflow by the workflow's job.

    Events and displays list both; a sentence, an error, or data about the workflow names what was
    declared. `nested.public_name` in `lua/nested.lua` is the same.
    """
    return name.removesuffix(START)


def declared_name(name: str) -> str:
    """Return the name of the declaration that a job belongs to: `page` for `page(list)` as well."""
    return public_name(name).removesuffix(LIST)


def outermost_name(name: str) -> str:
    """Return the name of the declaration in the run's own workflow: `thumb` for `thumb[3].cut`."""
    found = _BEHIND.search(name)
    return name[: found.start()] if found else name


_BEHIND = re.compile(r"[\[(.]")  # what may stand behind the name of a declaration


def is_helper(name: str) -> bool:
    """Whether a job of this name only makes the list of a group, or begins a nested workflow."""
    return name.endswith(_HELPERS)


_ATTEMPT = re.compile(r"^attempt ([0-9]+) failed|, attempt ([0-9]+)$")
"""The number of the attempt in the reason of a nested workflow that has not succeeded."""

_INSIDE = re.compile(r"[.(]")  # what stands behind the name of a job in `inner.job`, `inner(start)`


def outer_names(name: str) -> Iterator[str]:
    """Yield the names of the nested workflows that a job is inside of, the outermost first."""
    return (name[: found.start()] for found in _INSIDE.finditer(name))


ASKING = "waits for approval"
"""The reason of a job that only an approval holds."""

UNAPPROVED = "it expired before it was approved"
"""What the reason of a job ends with that failed because nobody approved it in time."""

REJECTED = "rejected"
"""What the reason of a job begins with whose approval was refused."""

STUCK = "waits for a blocker to succeed"
"""What the reason of a job begins with that waits until a blocker has succeeded after all."""


@dataclass(frozen=True, slots=True)
class Event:
    """One transition of one job, or of the run itself (`name` is empty then).

    Units: `at` is aware UTC, when the run was told. `id` is the position in the run's log. `state`
    is a `JobState` or `RunState`, or `handed` (a worker has the job, and has not begun it),
    `returned` (it was `handed`, and is queued again), or `progressed`, with its `progress`. The end
    of an execution, and a retry, has `began_at`, `took_ms` as the child has measured it, and where
    it failed `error` (one line) and `exit_code`. `act` is what somebody has done, such as `cancel`,
    and `by` who; `target` names what they did it to, if that is neither the job of the event nor
    the run. Events of older versions have none of them.
    """

    id: str
    at: datetime
    job_id: str
    name: str
    state: str
    reason: str = ""
    worker: str = ""
    began_at: datetime | None = None
    took_ms: float | None = None
    error: str = ""
    exit_code: int | None = None
    progress: Progress | None = None
    act: str = ""
    by: str = ""
    target: str = ""

    @property
    def acted_on(self) -> str:
        """The job or group that somebody has done something to; empty for the run."""
        return self.target or (public_name(self.name) if self.act else "")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job of a run, as far as the events tell.

    `attempts` counts the executions that began, without those that only judged its `if`;
    `deferred_at` is when the run was last told why it is held, `due_at` when it tries again.
    `error` is its last error, one line, also while it tries again. `progress` is what its last
    attempt has reported, `slept_at` when it began to sleep: its `started_at` once it has ended.
    """

    name: str
    job_id: str
    state: str = "deferred"
    reason: str = ""
    worker: str = ""
    attempts: int = 0
    deferred_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""
    due_at: datetime | None = None
    progress: Progress | None = None
    slept_at: datetime | None = None

    @property
    def declared_as(self) -> str:
        """The name of the declaration: `thumb` for `thumb[3]`, and for what is inside of it."""
        return outermost_name(self.name)

    @property
    def is_item(self) -> bool:
        """Whether it is an item of a group of its workflow, and not of a group inside of that."""
        outer, _, index = self.job_id.rpartition("--")
        return self.name.endswith("]") and index.isdecimal() and "--" not in outer

    @property
    def helps(self) -> str:
        """What it makes the list of, or begins: `each` for `each(list)`; "" for others."""
        return self.name.rpartition("(")[0] if is_helper(self.name) else ""

    @property
    def asked_as(self) -> str:
        """What its approval is given to by name: a declaration, also where a helper asks."""
        return declared_name(self.name)

    @property
    def is_asking(self) -> bool:
        """Whether only an approval holds it."""
        return self.state == "deferred" and self.reason == ASKING

    @property
    def is_rejected(self) -> bool:
        """Whether its approval was refused."""
        return self.state == "canceled" and self.reason.partition(":")[0] == REJECTED

    @property
    def is_stuck(self) -> bool:
        """Whether all of its blockers have ended, and it waits until the others succeed too."""
        return self.state == "deferred" and self.reason.partition(":")[0] == STUCK

    @property
    def is_pausing(self) -> bool:
        """Whether it sleeps, or waits for its next poll."""
        return self.state == "scheduled" and self.reason.startswith(PAUSES)

    @property
    def is_tolerated(self) -> bool:
        """Whether it failed, and that counts as a success."""
        return self.state == "failed" and self.reason.partition(":")[0] == TOLERATED

    @property
    def has_failed_inside(self) -> bool:
        """Whether it stands for a nested workflow, and has failed because of another job."""
        is_unapproved = self.reason.endswith(UNAPPROVED)
        return self.state == "failed" and self.started_at is None and not is_unapproved

    @property
    def duration_s(self) -> float | None:
        """Seconds from its last start to its end; None unless it has both."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run, folded from its events.

    Shape: `jobs` by name, in the order of declaration; `groups` are the names of those declarations
    that make any number of jobs, an empty one included; `reason` is why it was canceled, or waits;
    `started_at` is the commit, and `since` the same, or the last retry.
    """

    run_id: str
    workflow: str
    state: str = "staged"
    jobs: Mapping[str, JobStatus] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    last_event_id: str = "0"
    groups: frozenset[str] = frozenset()
    reason: str = ""
    since: datetime | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the run has reached its end."""
        return self.state in RUN_ENDED

    @property
    def is_held_up(self) -> bool:
        """Whether some job is asking or stuck; known without a look at each."""
        return _table_of(self).counts["held up"] > 0

    @property
    def duration_s(self) -> float | None:
        """Seconds from the commit to the end, also of a retry; None before."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()

    def find_failed(
        self, states: Collection[str] = ("failed",), *, with_tolerated: bool = False
    ) -> list[JobStatus]:
        """Return the jobs that failed by themselves, one for each failure.

        Shape: without workflows that failed because of another job: one inside of it, or the one
        that begins it; and unless `with_tolerated`, without what does not make the run fail.
        """
        ended = [job for job in self.jobs.values() if job.state in states]
        begun_by = {public_name(job.name) for job in ended if job.name.endswith(START)}
        return [
            job
            for job in ended
            if job.name not in begun_by
            and not job.has_failed_inside
            and (with_tolerated or not self.is_tolerated(job))
        ]

    def find_culprits(self) -> list[JobStatus]:
        """Return the jobs that made the run fail: failed or rejected, or else canceled or deleted.

        Of a canceled run, only those that had failed or were rejected.
        """
        if self.state == "canceled":
            found = self.find_failed(("failed", "canceled"))
            return [job for job in found if job.state == "failed" or job.is_rejected]
        found = self.find_failed((*BAD, "canceled", "deleted"))
        return [job for job in found if job.state in BAD or job.is_rejected] or found

    def is_tolerated(self, job: JobStatus) -> bool:
        """Whether how a job ended counts as a success: on its own, or as a part of another."""
        outer = map(self.jobs.get, outer_names(job.name))
        return job.is_tolerated or any(each is not None and each.is_tolerated for each in outer)

    def names(self) -> list[str]:
        """Return the names of the jobs, groups and items, each once; not of what helps."""
        known = ((job.declared_as, declared_name(job.name)) for job in self.declared())
        return [*dict.fromkeys(chain.from_iterable(known))]

    def declared(self) -> Iterator[JobStatus]:
        """Yield what counts: each job that was declared, and each item of a group.

        What helps does not: the job that begins a nested workflow, and the one that makes a group's
        list. The latter stands for its group while that has no items, unless the list is empty.
        """
        jobs = list(self.jobs.values())
        expanded = {job.job_id.rpartition("--")[0] for job in jobs}
        for job in jobs:
            if not (job.helps or job.name in self.groups) or (
                not job.name.endswith(START)
                and not (job.state == "finished" or job.job_id in expanded)
            ):
                yield job

    def count_by_state(self) -> Counter[str]:
        """Return how many of what was declared are in each state; others are left out."""
        return Counter(job.state for job in self.declared())


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What Redis keeps about a run beside its jobs. Units: instants are aware UTC.

    `queue`: its own one, or empty. `reason`: why it is canceled, if that was no user's wish.
    `file`: the path of its workflow, if that was read from a file; those with the same declarations
    have the same `digest`. `due_at`: when its schedule made it due. `continues`: the run before.
    `submitted_by` is a claim, `user@host`; empty in runs of older versions.
    """

    run_id: str
    workflow: str
    state: str
    inputs: Mapping[str, Any]
    created_at: datetime
    committed_at: datetime | None = None
    ended_at: datetime | None = None
    folders: tuple[str, ...] = ()
    queue: str = ""
    reason: str = ""
    file: str = ""
    digest: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    due_at: datetime | None = None
    continues: str = ""
    submitted_by: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """What somebody said to a job that asks for an approval. `by` is a claim, `user@host`.

    Shape: `inputs` by name, as JSON has them. Units: `at` is aware UTC.
    """

    is_approved: bool
    by: str = ""
    at: datetime | None = None
    note: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it was enqueued. `is_last`: nothing in its run comes after it.

    `message` is what whoever approves it should read, `asks` the inputs that an approval gives, and
    `decision` what was said. `queue` was declared, `origin` is where RQ has it. `code` is a digest
    of what it last executed. `blocks` has the ids of future jobs, with `!` behind those for which
    its failure does not count; to one that `is_open` running jobs may add blockers.
    """

    job_id: str
    queue: str
    description: str
    is_last: bool
    message: str = ""
    origin: str = ""
    code: str = ""
    needs_approval: bool = False
    asks: tuple[Input, ...] = ()
    decision: ApprovalDecision | None = None
    blocks: tuple[str, ...] = ()
    is_open: bool = False
    polls: Polls | None = None

    @property
    def options(self) -> str:
        """What a command has to give to approve it, to be filled in: ` -i version=…`."""
        return "".join(f" -i {each.name}=…" for each in self.asks if each.required)


def group_state(items: Iterable[str], list_state: str = "finished") -> str:
    """Return the one state of a group, for expressions, `--json` and displays alike.

    `items` are the states of its items, or `TOLERATED`; `list_state` is that of the job that makes
    its list, if it has one. docs/language/groups.md has a table of it.
    """
    states = set(items)
    for state in _LIVELIEST_FIRST:
        if state in states or state == list_state:
            return state
    if list_state != "finished":
        return list_state
    worst = next((state for state in _WORST_FIRST if state in states), None)
    return worst or ("skipped" if states == {"skipped"} else "finished")


def fold(status: RunStatus, events: Iterable[Event]) -> RunStatus:
    """Return the status after `events`, which must follow those already folded in.

    Costs as much as the events, however many jobs there are (`flowq.job_table`). The caller reads
    on from `status.last_event_id`. A job that is not declared (added while it ran) is appended.
    """
    jobs = _table_of(status)
    changes, last_event_id = list[tuple[str, JobStatus | None]](), status.last_event_id
    latest: dict[str, JobStatus | None] = {}
    for event in events:
        if event.name:
            job = None
            if event.state != REMOVED:
                before = latest[event.name] if event.name in latest else jobs.get(event.name)
                job = _after(before or JobStatus(event.name, event.job_id), event)
            latest[event.name] = job
            changes.append((event.name, job))
        else:
            status = _run_after(status, event)
        last_event_id = event.id
    jobs = jobs.changed(changes)
    state = _waiting_or_running(status.state, jobs.counts)
    return replace(status, jobs=jobs, state=state, last_event_id=last_event_id)


def is_waiting(newest_first: Iterable[Event]) -> bool:
    """Whether folding a run's events gives `waiting`. Reads no further than it has to.

    Of a run in which a job is executed, or could be, that is a few events; else all.
    """
    seen: set[str] = set()
    run_state = ""
    is_held_up = False
    for event in newest_first:
        if not event.name:
            run_state = run_state or event.state
        elif event.name not in seen:
            seen.add(event.name)
            if STATE_BY_EVENT.get(event.state, event.state) in BUSY:
                return False
            job = JobStatus(event.name, event.job_id, event.state, event.reason)
            is_held_up = is_held_up or job.is_asking or job.is_stuck
    return run_state in ("running", "waiting") and (is_held_up or run_state == "waiting")


def _table_of(status: RunStatus) -> JobTable[JobStatus]:
    if isinstance(status.jobs, JobTable):
        return status.jobs
    return JobTable(dict(status.jobs), _pace_of)


def _pace_of(job: JobStatus) -> str:
    """Return what a job says about whether its run goes on."""
    if job.state in BUSY:
        return "busy"
    return "held up" if job.state == "deferred" and (job.is_asking or job.is_stuck) else ""


def _waiting_or_running(state: str, counts: Mapping[str, int]) -> str:
    """Return `waiting` for a running run in which nothing can happen unless somebody acts."""
    if state not in ("running", "waiting"):
        return state
    is_held_up = counts.get("held up") or state == "waiting"
    return "waiting" if is_held_up and not counts.get("busy") else "running"


def _after(job: JobStatus, event: Event) -> JobStatus:
    # One object for each event: several `replace` would take three times as long.
    had_begun, state = job.state == "started", STATE_BY_EVENT.get(event.state, event.state)
    attempts, worker = job.attempts, event.worker or job.worker
    deferred_at, queued_at, due_at = job.deferred_at, job.queued_at, job.due_at
    started_at, ended_at, progress = job.started_at, job.ended_at, job.progress
    if had_begun and has_begun_for_nothing(event):
        attempts, started_at, worker = attempts - 1, None, event.worker
    if event.reason and (counted := _ATTEMPT.search(event.reason)):
        attempts = int(counted[1] or counted[2])
    if event.state in ENDED:
        ended_at = event.at
        if event.began_at is not None:
            started_at = event.began_at
            attempts += not had_begun  # of what was handed over, only its end tells that it began
            if event.took_ms is not None:
                ended_at = started_at + timedelta(milliseconds=event.took_ms)
            if job.slept_at is not None:  # as in `flowq.history`
                started_at, queued_at = job.slept_at, None
    elif state == "started":
        if not had_begun:  # else told again, for example because its record had run out
            attempts, started_at, ended_at, progress = attempts + 1, event.at, None, event.progress
        elif event.progress is not None:
            progress = event.progress
    else:
        # It waits, again: what an earlier attempt left behind is not true of the next one.
        worker, due_at = event.worker, None
        if state == "scheduled":
            due_at = find_due(event.reason, event.at)
        started_at = ended_at = progress = None
        deferred_at = event.at if event.state == "deferred" else deferred_at
        queued_at = event.at if event.state == "queued" else queued_at
    told = (job.name, job.job_id, state, event.reason, worker, attempts)
    instants = (deferred_at, queued_at, started_at, ended_at)
    slept_at = find_sleep(event.state, event.reason, event.at, job.slept_at)
    return JobStatus(*told, *instants, event.error, due_at, progress, slept_at)


_CHANGES_NOTHING = frozenset({"approve", "reject", "cancel"})
"""Acts of which a run is told in the state that it has: what follows from them is told of jobs."""


def _run_after(status: RunStatus, event: Event) -> RunStatus:
    if event.act in _CHANGES_NOTHING and not status.is_ended:
        return status
    told = replace(status, state=event.state, ended_at=None, reason=event.reason)
    if event.state in RUN_ENDED:
        return replace(told, ended_at=event.at)
    if event.state == "running" and (status.since is None or status.is_ended):
        return replace(told, started_at=status.started_at or event.at, since=event.at)
    return told
