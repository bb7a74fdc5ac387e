"""Branches: what a job's `else` means for other jobs, as conditions on how jobs ended.

A job with `else` passes its skip on: a job that needs only skipped jobs is skipped as well, if one
of these belongs to a branch, and then belongs to it too. The jobs that `else` names run instead:
only if that job was skipped by its own `if`. Each of this is an expression that the planner joins
with the job's own `if`, so scripts and workers know nothing of branches.

A job that `else` names stands where the other one stands. So what comes before the one comes before
the other, and neither counts as a reason to run what comes after both of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flowq.expressions import as_template, find_references
from flowq.spec import PASS_ON, JobSpec


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a branch. Shape: `source` is an expression, `otherwise` says why it is false.

    `names` are the jobs that it asks about.
    """

    source: str
    otherwise: str
    names: tuple[str, ...]


Conditions = tuple[Condition, ...]


def find_branches(
    order: Iterable[str],
    job_by_name: Mapping[str, JobSpec],
    blockers: Mapping[str, Sequence[str]],
) -> Mapping[str, Conditions]:
    """Return the conditions of the jobs that belong to branches.

    `order` is topological; `blockers` has the declared blockers of each job, without edges to jobs
    that an `else` names. Jobs in a cycle are not in `order`.
    """
    if not any(job.else_ for job in job_by_name.values()):
        return {}
    instead_of = {
        name: job.name for job in job_by_name.values() for name in job.else_ if name != PASS_ON
    }
    branches = _Branches(job_by_name, instead_of)
    for name in order:
        branches.enter(job_by_name[name], blockers[name])
    return branches.found


class _Branches:
    def __init__(self, job_by_name: Mapping[str, JobSpec], instead_of: Mapping[str, str]) -> None:
        self.job_by_name = job_by_name
        self.instead_of = instead_of
        self.found: dict[str, Conditions] = {}
        self._bit = {name: 1 << index for index, name in enumerate(job_by_name)}
        self._before: dict[str, int] = {}  # all jobs before each job, a bit for each

    def enter(self, job: JobSpec, blockers: Sequence[str]) -> None:
        other = self.instead_of.get(job.name)
        direct = [
            name
            for name in blockers
            if name in self._before
            and name != other
            and self.job_by_name[name].is_final == job.is_final
        ]
        before = 0
        for name in direct:
            before |= self._bit[name] | self._before[name]
        conditions: list[Condition] = []
        if other is not None and other in self._before:
            before |= self._before[other]
            conditions += self.found.get(other, ())
            source = f'jobs.{other}.status == "skipped"'
            conditions.append(Condition(source, f"{other} was not skipped", (other,)))
        self._before[job.name] = before
        last = [name for name in direct if not self._comes_before_others(name, direct)]
        if self._is_in_branch(job, last):
            source = " or ".join(f'jobs.{name}.status != "skipped"' for name in last)
            were = "was" if len(last) == 1 else "were"
            conditions.append(
                Condition(source, f"{' and '.join(last)} {were} skipped", tuple(last))
            )
        if conditions:
            self.found[job.name] = tuple(dict.fromkeys(conditions))

    def _comes_before_others(self, name: str, direct: Sequence[str]) -> bool:
        """Whether a blocker comes before another one, so that the job does not wait for it."""
        return any(self._before[each] & self._bit[name] for each in direct)

    def _is_in_branch(self, job: JobSpec, last: Sequence[str]) -> bool:
        """Whether a job is skipped if all jobs that it needs are.

        Not if it asks itself how they ended, or if code may add blockers to it.
        """
        asks = job.if_ is not None and find_references(as_template(job.if_)).statuses
        if job.deferred or asks:
            return False
        return any(self.job_by_name[name].else_ or name in self.found for name in last)
