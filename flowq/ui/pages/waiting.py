"""What needs somebody's attention in a run: failures, approvals, what waits, what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, starmap
from typing import TYPE_CHECKING

from flowq import client, job_output
from flowq.client import Explanation
from flowq.errors import NotFound
from flowq.pictures.folding import without_items
from flowq.pictures.picture import Picture
from flowq.pictures.report import (
    ToldFailure,
    find_failed,
    say_place,
    tell_failure,
    without_beginning,
)
from flowq.render.events import progress_text
from flowq.runtime import counts, keys
from flowq.runtime.connections import read_each
from flowq.runtime.listening import find_unattended, run_of
from flowq.runtime.runs import read_entry, read_job_records
from flowq.spec import Input
from flowq.status import (
    BAD,
    TOLERATED,
    ApprovalDecision,
    JobStatus,
    declared_name,
    outermost_name,
)
from flowq.ui.pages.parts import COMMANDS
from flowq.ui.reading import Seen

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

MAX_FAILURES, MAX_NAMED = 10, 50
"""How many failures are shown with their traceback, and how many others are named."""

MAX_TRACEBACK = 4_000
LAST_LINES = 8
MAX_LINE = 300

MAX_RUNNING = 20
MAX_EXPLAINED = 5
MAX_APPROVALS = 20
MAX_LOOKED_AT = 200
"""Of how many waiting jobs the queues are looked up."""


# Failures --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure. `on` is where it was executed, `after` what comes after it, `lines` its output."""

    told: ToldFailure
    text: str
    on: str
    after: Sequence[str]
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures of a run: the first with all that is known, others by name, and the rest.

    `total` counts those that were not tolerated, `rejected` the rejections among them;
    `tolerated` has the first of the others by name.
    """

    shown: Sequence[Failure]
    named: Sequence[ToldFailure]
    total: int
    rejected: int
    tolerated: Sequence[ToldFailure]
    tolerated_total: int


def read_failures(seen: Seen) -> Failures:
    """Read why jobs of a run failed."""
    status, run = seen.failed_status, seen.run
    found = find_failed(status)
    bad = [job for job in found if not status.is_tolerated(job)]
    tolerated = [job for job in found if status.is_tolerated(job)]
    first = bad[:MAX_FAILURES]
    kept = run.failures([job.name for job in first], status) if first else {}
    report = replace(seen.report(), status=status, failures=kept)
    hosts = run.find_hosts(job.worker for job in first)
    printed = job_output.read_last_lines(run, [job.job_id for job in first], LAST_LINES)
    futures = _find_futures(seen)
    shown = []
    for job in first:
        told = tell_failure(job, report)
        shown.append(
            Failure(
                told,
                without_beginning(told.text, MAX_TRACEBACK),
                say_place(job.worker, hosts) if job.worker else "",
                futures.get(without_items(job.name), ()),
                [line[:MAX_LINE] for line in printed.get(job.job_id, ())],
            )
        )
    named = [tell_failure(job, report) for job in bad[MAX_FAILURES : MAX_FAILURES + MAX_NAMED]]
    let_go = [tell_failure(job, report) for job in tolerated[:MAX_NAMED]]
    counted = _count_failed(seen)
    total, tolerated_total = max(len(bad), counted[False]), max(len(tolerated), counted[True])
    rejected = sum(job.is_rejected for job in bad)
    return Failures(shown, named, total, rejected, let_go, tolerated_total)


def _count_failed(seen: Seen) -> Counter[bool]:
    """Count failures by whether they were tolerated, where only the newest items are known."""
    found = Counter[bool]()
    for group in seen.counted.groups if seen.counted else ():
        for (kind, state), number in group.counts.items():
            if kind == "item" and (state in BAD or state == TOLERATED):
                found[state == TOLERATED] += number
    if seen.counted is not None:
        found.update(map(seen.status.is_tolerated, find_failed(seen.status)))
    return found


def _find_futures(seen: Seen) -> Mapping[str, Sequence[str]]:
    futures: dict[str, list[str]] = {}
    for outer, picture in _walk(seen):
        for arrow in picture.arrows:
            futures.setdefault(outer + arrow.blocker, []).append(outer + arrow.future)
    return futures


def _walk(seen: Seen) -> Iterator[tuple[str, Picture]]:
    waiting = [("", seen.picture)]
    for outer, picture in waiting:
        yield outer, picture
        waiting += [(f"{outer}{box.name}.", box.inside) for box in picture.boxes if box.inside]


# Approvals -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asking:
    """A job that asks for an approval, or a group whose items do; `number` is how many.

    `decision` is None until somebody has decided.
    """

    name: str
    job: JobStatus
    message: str
    asks: Sequence[Input]
    number: int
    since: datetime | None
    decision: ApprovalDecision | None = None


def find_asking(seen: Seen) -> list[Asking]:
    """Return what asks for an approval, the items of one group together."""
    jobs_by_name: dict[str, list[JobStatus]] = {}
    for job in seen.status.jobs.values():
        if job.is_asking:
            jobs_by_name.setdefault(_approve_as(job), []).append(job)
    number_by_name = {name: len(jobs) for name, jobs in jobs_by_name.items()}
    for group in seen.counted.groups if seen.counted else ():
        if number := group.counts.get(("item", "asking"), 0):
            jobs_by_name[group.name] = read_items(seen, group.name, "asking", limit=1)
            number_by_name[group.name] = number
    firsts = {name: jobs[0] for name, jobs in jobs_by_name.items() if jobs}
    some = dict(islice(firsts.items(), MAX_APPROVALS))
    records = read_job_records([job.job_id for job in some.values()], seen.run.connection)
    return [
        ask(job, name, records.get(job.job_id), number_by_name[name]) for name, job in some.items()
    ]


MAX_EVENTS = 300
"""Of how many events of a run the approvals are counted for the list of runs."""


def count_asking(run_ids: Iterable[str], connection: Redis) -> dict[str, int]:
    """Return how many approvals runs wait for, as far as their newest events say."""

    def look(pipe: Pipeline, run_id: str) -> None:
        pipe.xrevrange(keys.run_events(run_id), count=MAX_EVENTS)

    found = {}
    for run_id, (entries,) in read_each(run_ids, connection, look):
        newest: dict[str, JobStatus] = {}
        for event in starmap(read_entry, entries):
            if event.name:
                job = JobStatus(event.name, event.job_id, event.state, event.reason)
                newest.setdefault(event.name, job)
        found[run_id] = len({_approve_as(job) for job in newest.values() if job.is_asking})
    return found


def find_decided(seen: Seen) -> list[Asking]:
    """Return what was approved or rejected, the newest first."""
    acts = [event.acted_on for event in seen.acts if event.act in ("approve", "reject")]
    jobs_by_name: dict[str, list[JobStatus]] = {}
    for job in seen.status.jobs.values():
        for name in {job.name, _approve_as(job)}:
            jobs_by_name.setdefault(name, []).append(job)
    jobs = [job for name in acts for job in jobs_by_name.get(name, ())]
    asking = {_approve_as(job) for job in seen.status.jobs.values() if job.is_asking}
    firsts: dict[str, JobStatus] = {}
    for job in jobs:
        if (name := _approve_as(job)) not in asking:
            firsts.setdefault(name, job)
    some = dict(islice(firsts.items(), MAX_APPROVALS))
    records = read_job_records([job.job_id for job in some.values()], seen.run.connection)
    found = [ask(job, name, records.get(job.job_id)) for name, job in some.items()]
    return [each for each in found if each.decision]


def ask(job: JobStatus, name: str, record: client.JobRecord | None, number: int = 1) -> Asking:
    """Return what a job asks, and what was decided."""
    message, asks = (record.message, record.asks) if record else ("", ())
    decision = record.decision if record and not job.is_asking else None
    return Asking(name, job, message, asks, number, job.deferred_at, decision)


def _approve_as(job: JobStatus) -> str:
    """Return the name to approve: of an item of a group, that of the group."""
    name = declared_name(job.name)
    return outermost_name(name) if job.is_item else name


# What waits, and what runs ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in a run.

    Shape: `unattended` are queues on which no worker listens; `is_abandoned` if the run has a queue
    of its own, and the workers that served that are gone;
    `oldest` is the job that was queued first; `explained` are the first reasons, `others` the
    number of jobs that wait beside them.
    """

    unattended: Sequence[str]
    is_abandoned: bool
    oldest: JobStatus | None
    explained: Sequence[tuple[JobStatus, Explanation]]
    others: int


_ORDER = ("scheduled", "queued", "deferred")


def find_waiting(seen: Seen) -> Waiting:
    """Explain the first jobs that wait: those first that wait for somebody, or for a worker."""
    connection, run_id = seen.run.connection, seen.run.run_id
    waiting = (job for job in seen.status.jobs.values() if job.state in _ORDER)
    jobs = [job for job in waiting if not job.is_asking]
    total = len(jobs)
    for group in seen.counted.groups if seen.counted else ():
        total += sum(number for state, number in group.states.items() if state in _ORDER)
        total -= group.counts.get(("item", "asking"), 0)
        for state in ("stuck", "queued", "deferred"):
            if ("item", state) in group.counts:
                jobs += read_items(seen, group.name, state, limit=1)
    queued = [job for job in jobs if job.state in ("queued", "scheduled")]
    queued.sort(key=lambda job: (job.state != "queued", job.queued_at or seen.now))
    records = read_job_records([job.job_id for job in queued[:MAX_LOOKED_AT]], connection)
    origins = sorted({record.origin for record in records.values()})
    first = sorted(jobs, key=lambda job: (not job.is_stuck, _ORDER.index(job.state)))
    explained = []
    for job in first[:MAX_EXPLAINED]:
        try:
            told = client.explain(job.job_id, connection, run_id, COMMANDS)
        except NotFound:  # deleted meanwhile
            continue
        explained.append((job, told))
    unattended = find_unattended(origins, connection)
    return Waiting(
        [queue for queue in unattended if not run_of(queue)],
        any(map(run_of, unattended)),
        next((job for job in queued if job.state == "queued" and job.queued_at), None),
        explained,
        total - len(explained),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A job that is executed now, and where."""

    job: JobStatus
    on: str
    progress: str = ""


def find_running(seen: Seen) -> list[Running]:
    """Return the first jobs that are executed now, those first that began first."""
    jobs = [job for job in seen.status.jobs.values() if job.state == "started" and not job.helps]
    for group in seen.counted.groups if seen.counted else ():
        if ("item", "started") in group.counts:
            jobs += read_items(seen, group.name, "started", limit=MAX_RUNNING)
    jobs = sorted(jobs, key=lambda job: job.started_at or seen.now)[:MAX_RUNNING]
    hosts = seen.run.find_hosts(job.worker for job in jobs)
    return [
        Running(
            job,
            say_place(job.worker, hosts) if job.worker else "",
            progress_text(job.progress) if job.progress else "",
        )
        for job in jobs
    ]


def read_items(seen: Seen, group: str, state: str, limit: int, after: str = "") -> list[JobStatus]:
    """Return the first items in a state of a group that is counted."""
    assert seen.counted is not None
    connection = seen.run.connection
    kinds = ("asking", "stuck", "deferred") if state == "deferred" else (state,)
    found: list[JobStatus] = []
    for kind in kinds:
        found += counts.read_items(seen.counted, group, kind, connection, after=after, limit=limit)
    return sorted(found, key=lambda job: int(job.job_id.rpartition("--")[2]))[:limit]
