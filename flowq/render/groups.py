"""The jobs of a run as they were declared: all that a group made is one row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flowq.status import ENDED, JobStatus, RunStatus

_WORST_FIRST = (
    *("failed", "stopped", "expired", "deleted", "canceled"),
    *("started", "scheduled", "queued", "deferred", "skipped", "finished"),
)


@dataclass(frozen=True, slots=True)
class Declared:
    """One declaration with all of its jobs.

    Shape: `items` are those of a group in the order of its items, else the one job that stands for
    the declaration; `others` helped: they expand the group, or are inside a nested workflow.
    `forgiven` are the names of those whose failure, or what followed from one, is tolerated.
    """

    name: str
    is_group: bool
    items: tuple[JobStatus, ...]
    others: tuple[JobStatus, ...] = ()
    forgiven: frozenset[str] = frozenset()

    @property
    def jobs(self) -> tuple[JobStatus, ...]:
        """All of its jobs."""
        return (*self.others, *self.items)

    @property
    def worst_state(self) -> str:
        """The state that a reader has to know: of a group the worst; a tolerated failure is none.

        A nested workflow has ended as the job that stands for it.
        """
        if not self.is_group and self.items and self.items[0].state in ENDED:
            return self.items[0].state
        states = {"finished" if job.name in self.forgiven else job.state for job in self.jobs}
        return next((state for state in _WORST_FIRST if state in states), "finished")


def by_declaration(status: RunStatus) -> dict[str, Declared]:
    """Return the declarations of a run by name, in their order."""
    jobs_by_name: dict[str, list[JobStatus]] = {}
    for job in status.jobs.values():
        jobs_by_name.setdefault(job.declared_as, []).append(job)
    return {name: _declared(name, status, jobs) for name, jobs in jobs_by_name.items()}


def _declared(name: str, status: RunStatus, jobs: Iterable[JobStatus]) -> Declared:
    all_jobs, is_group = list(jobs), name in status.groups
    is_group = is_group or any(job.is_item for job in all_jobs)
    parts: dict[bool, list[JobStatus]] = {True: [], False: []}
    for job in all_jobs:
        parts[job.is_item if is_group else job.name == name].append(job)
    items, others = parts[True], parts[False]
    ended_badly = (job for job in all_jobs if job.state in ENDED and job.state != "finished")
    forgiven = frozenset(job.name for job in ended_badly if status.is_tolerated(job))
    return Declared(name, is_group, tuple(sorted(items, key=_index)), tuple(others), forgiven)


def _index(job: JobStatus) -> int:
    index = job.job_id.rpartition("--")[2]
    return int(index) if index.isdecimal() else 0


def collapse(status: RunStatus) -> dict[str, JobStatus]:
    """Return one status for each declaration: what a group is doing, and how far it is.

    Shape: the name of a group is `thumb 12/50`; a group that has not ended is as its liveliest job.
    """
    return {name: _as_one(each) for name, each in by_declaration(status).items()}


def _as_one(declared: Declared) -> JobStatus:
    if len(declared.jobs) == 1 and not declared.is_group:
        return declared.jobs[0]
    counted = declared.items if declared.is_group else declared.jobs
    ended = sum(job.state in ENDED for job in counted)
    state, jobs = _state_of(declared), declared.jobs
    return replace(
        JobStatus(f"{declared.name} {ended}/{len(counted)}", jobs[0].job_id, state),
        reason=_reason_of(declared),
        attempts=1,
        started_at=min((job.started_at for job in jobs if job.started_at), default=None),
        ended_at=max((job.ended_at for job in jobs if job.ended_at), default=None)
        if state in ENDED
        else None,
    )


def _state_of(declared: Declared) -> str:
    states = {job.state for job in declared.jobs}
    if states <= ENDED:
        return declared.worst_state
    live = ("started", "queued", "scheduled", "deferred")
    return next((state for state in live if state in states), "deferred")


def _reason_of(declared: Declared) -> str:
    """Return what became of a group; of a single nested workflow why it failed, if it did."""
    if declared.is_group:
        return _reason(declared.items)
    only = next((job for job in declared.items if job.state == "failed"), None)
    return only.reason if only else _reason(declared.jobs)


def _reason(jobs: Iterable[JobStatus]) -> str:
    counts: dict[str, int] = {}
    for job in jobs:
        if job.state in ENDED and job.state != "finished":
            word = "tolerated" if job.is_tolerated else job.state
            counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in counts.items())
