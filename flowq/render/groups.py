"""The jobs of a run as declared: all items of a group are one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flowq.render.tally import TALLIED_DONE, Part
from flowq.status import (
    BAD,
    DONE,
    ENDED,
    LIST,
    TOLERATED,
    JobStatus,
    RunStatus,
    group_state,
    outer_names,
)


@dataclass(frozen=True, slots=True)
class Declared:
    """One declaration with all of its jobs.

    Shape: `items` are those of a group in the order of its items, else the one job that stands for
    the declaration. `inside` are the jobs of nested workflows, and `helpers` begin these or make
    lists; `list_job` is the one that makes the list of this group, where that is not known before.
    `forgiven` are the names of those whose failure, or what followed from one, is tolerated.
    """

    name: str
    is_group: bool
    items: tuple[JobStatus, ...]
    inside: tuple[JobStatus, ...] = ()
    helpers: tuple[JobStatus, ...] = ()
    list_job: JobStatus | None = None
    forgiven: frozenset[str] = frozenset()

    @property
    def jobs(self) -> tuple[JobStatus, ...]:
        """All of its jobs."""
        return (*self.helpers, *self.inside, *self.items)

    @property
    def own(self) -> tuple[JobStatus, ...]:
        """The jobs that others may wait for: its items, or what would make some."""
        return self.items or ((self.list_job,) if self.list_job else ())

    @property
    def state(self) -> str:
        """Its one state: of a group what its items say, of a nested workflow its own."""
        if self.is_group:
            return self._state_of_group()
        own = next((job.state for job in self.items), "finished")
        if own in ENDED:
            return own
        return group_state(job.state for job in self.jobs if job.state not in ENDED)

    def _state_of_group(self) -> str:
        live = [job.state for job in (*self.helpers, *self.inside) if job.state not in ENDED]
        items = [TOLERATED if job.name in self.forgiven else job.state for job in self.items]
        return group_state([*items, *live], self.list_job.state if self.list_job else "finished")


def by_declaration(status: RunStatus) -> dict[str, Declared]:
    """Return the declarations of a run by name, in their order."""
    jobs_by_name: dict[str, list[JobStatus]] = {}
    for job in status.jobs.values():
        jobs_by_name.setdefault(job.declared_as, []).append(job)
    for name in sorted(status.groups):  # an empty matrix has no job at all
        jobs_by_name.setdefault(name, [])
    return {name: _declared(name, status, jobs) for name, jobs in jobs_by_name.items()}


def add_groups(results: Mapping[str, Any], status: RunStatus) -> dict[str, Any]:
    """Return results by name, and lists of those of items for groups, each before its items.

    A list has None for an item without a result. A group that has not begun has none.
    """
    found: dict[str, Any] = {}
    for name, declared in by_declaration(status).items():
        if declared.is_group and (declared.items or declared.state in ENDED):
            found[name] = [results.get(item.name) for item in declared.items]
        own = (job.name for job in (*declared.items, *declared.inside))
        found |= {name: results[name] for name in own if name in results}
    return found


def find_declared(status: RunStatus, name: str) -> Declared | None:
    """Return one declaration with its jobs: of the run, or of a nested workflow (`pack.box`).

    The jobs have their own names and ids, as in the run.
    """
    found = by_declaration(status).get(name)
    outer, _, inner = name.rpartition(".")
    if found is not None or outer not in status.jobs:
        return found
    name_start, id_start = f"{outer}.", f"{status.jobs[outer].job_id}--"
    jobs = {
        job.name: replace(job, job_id=job.job_id.removeprefix(id_start))
        for job in _without_start(status, name_start)
    }
    groups = frozenset({inner} if f"{inner}{LIST}" in jobs else ())
    found = by_declaration(replace(status, jobs=jobs, groups=groups)).get(inner)
    if found is None:
        return None

    def restore(jobs: Iterable[JobStatus]) -> tuple[JobStatus, ...]:
        return tuple(status.jobs[name_start + job.name] for job in jobs)

    return replace(
        found,
        name=name,
        items=restore(found.items),
        inside=restore(found.inside),
        helpers=restore(found.helpers),
        list_job=next(iter(restore([found.list_job] if found.list_job else [])), None),
        forgiven=frozenset(name_start + each for each in found.forgiven),
    )


def choose_items(
    group: Declared, state: str, after: str, limit: int
) -> tuple[list[JobStatus], bool]:
    """Return a page of the items that are in a state, in their order, and whether more follow.

    `after` is the name of an item of any state, behind which the page begins, or "".
    """
    names = [job.name for job in group.items]
    behind = group.items[names.index(after) + 1 :] if after else group.items
    found = [job for job in behind if job.state == state]
    return found[:limit], len(found) > limit


def _without_start(status: RunStatus, start: str) -> Iterator[JobStatus]:
    for job in status.jobs.values():
        if job.name.startswith(start):
            yield replace(job, name=job.name.removeprefix(start))


def _declared(name: str, status: RunStatus, jobs: Iterable[JobStatus]) -> Declared:
    all_jobs, is_group = list(jobs), name in status.groups
    is_group = is_group or any(job.is_item for job in all_jobs)
    own_list = (
        (name, f"{name}{LIST}") if is_group else ()
    )  # an older version gave it the group's name
    items: list[JobStatus] = []
    inside: list[JobStatus] = []
    helpers: list[JobStatus] = []
    for job in all_jobs:
        is_own = job.is_item if is_group else job.name == name
        kind = items if is_own else helpers if job.helps or job.name in own_list else inside
        kind.append(job)
    ended_badly = (job for job in all_jobs if job.state in ENDED and job.state != "finished")
    return Declared(
        name,
        is_group,
        tuple(sorted(items, key=_index)),
        tuple(inside),
        tuple(helpers),
        next((job for job in helpers if job.name in own_list), None),
        frozenset(job.name for job in ended_badly if status.is_tolerated(job)),
    )


def _index(job: JobStatus) -> int:
    index = job.job_id.rpartition("--")[2]
    return int(index) if index.isdecimal() else 0


def with_span(status: RunStatus) -> dict[str, JobStatus]:
    """Return the jobs that stand for nested workflows, by name, with the workflows' times.

    They begin with the first job inside, and end with themselves: they evaluate the outputs.
    """
    inside: dict[str, list[JobStatus]] = {}
    for job in status.jobs.values():
        for outer in outer_names(job.name):
            if outer in status.jobs:
                inside.setdefault(outer, []).append(job)
    return {
        name: replace(
            status.jobs[name],
            started_at=_find_start([*jobs, status.jobs[name]], status.since),
        )
        for name, jobs in inside.items()
    }


def jobs_inside(declared: Declared) -> dict[str, dict[str, JobStatus]]:
    """Return the jobs of the workflows that a job or the items of a group run, by its name.

    They have the names and ids that they would have if each workflow was a run.
    """
    jobs_by_outer: dict[str, dict[str, JobStatus]] = {}
    id_by_outer = {job.name: job.job_id for job in declared.items}
    for job in declared.jobs:
        outer, dot, name = job.name.partition(".")
        if dot:
            job_id = job.job_id.removeprefix(f"{id_by_outer.get(outer)}--")
            jobs_by_outer.setdefault(outer, {})[name] = replace(job, name=name, job_id=job_id)
    return jobs_by_outer


def collapse(status: RunStatus) -> dict[str, JobStatus]:
    """Return one status for each declaration: what a group is doing, and how far it is.

    Shape: the name of a group is `thumb 12/50`; a group that has not ended is as its liveliest job.
    """
    declared = by_declaration(status).items()
    return {name: as_one(each, status.since) for name, each in declared}


def as_one(declared: Declared, since: datetime | None) -> JobStatus:
    """Return one status for a declaration, as `collapse` does."""
    if len(declared.jobs) == 1 and not declared.is_group:
        return declared.jobs[0]
    jobs, state = declared.jobs, declared.state
    counted = declared.items if declared.is_group else declared.inside
    done = sum(job.state in DONE for job in counted)
    how_far = f" {done:,}/{len(counted):,}" if counted or declared.is_group else ""
    return replace(
        JobStatus(declared.name + how_far, jobs[0].job_id if jobs else "", state),
        reason=_reason_of(declared),
        attempts=1,
        started_at=_find_start(jobs, since),
        ended_at=max((job.ended_at for job in jobs if job.ended_at), default=None)
        if state in ENDED
        else None,
    )


def counted_as_one(part: Part) -> JobStatus:
    """Return what `as_one` does for a group whose items are counted."""
    counts, state, made = part.states, part.state, part.list_job
    done = sum(counts[each] for each in TALLIED_DONE)
    name = f"{part.name} {done:,}/{counts.total():,}"
    reason = _tell(counts) or (made.reason if made else "")
    ended_at = part.ended_at if state in ENDED else None
    return JobStatus(
        name, "", state, reason, attempts=1, started_at=part.started_at, ended_at=ended_at
    )


def _find_start(jobs: Iterable[JobStatus], since: datetime | None) -> datetime | None:
    """Return when the first of some jobs began; in a retried run, of those that ran again."""
    started = [job.started_at for job in jobs if job.started_at]
    again = [each for each in started if since is None or each >= since]
    return min(again or started, default=None)


def _reason_of(declared: Declared) -> str:
    """Return what became of a group, or of its list; of a nested workflow why it failed."""
    if declared.is_group:
        made = declared.list_job
        return _reason(declared.items) or (made.reason if made else "")
    only = next((job for job in declared.items if job.state in ("failed", "canceled")), None)
    return only.reason if only else _reason(declared.inside)


def count_ends(jobs: Iterable[JobStatus]) -> str:
    """Return how many jobs ended how: `3 finished, 1 failed`."""
    return count_states(Counter(TOLERATED if job.is_tolerated else job.state for job in jobs))


def count_states(counts: Mapping[str, int]) -> str:
    """Do the same with counts by state."""
    finished = counts.get("finished")
    return ", ".join(filter(None, [f"{finished} finished" if finished else "", _tell(counts)]))


def _reason(jobs: Iterable[JobStatus]) -> str:
    return _tell(Counter(TOLERATED if job.is_tolerated else job.state for job in jobs))


def _tell(counts: Mapping[str, int]) -> str:
    """Return how many ended otherwise than well, always in one order."""
    return ", ".join(f"{counts[word]} {word}" for word in _NOT_FINISHED if counts.get(word))


_NOT_FINISHED = (*BAD, TOLERATED, "skipped", "canceled", "deleted")
