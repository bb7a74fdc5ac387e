"""Whether a new job would wait for itself.

A new edge can close a cycle only in two ways: through the new job's own `depends_on`, or through
an id that is used again. Only then the graph is walked, and only so far. In a CycleError the arrow
reads "waits for".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.errors import CycleError
from flowq.runtime import keys

if TYPE_CHECKING:
    from redis import Redis

    from flowq.runtime.job import Job

WALK_LIMIT = 1_000
"""How many jobs a walk looks at; a cycle that is longer is not found here."""


def refuse(jobs: Sequence[Job]) -> None:
    """Raise CycleError when what a new job depends on waits for a future job that it blocks.

    The jobs are enqueued together, so that they may wait for each other already.
    """
    depending = [job for job in jobs if job.given_dependency_ids and job.hold.edges]
    new = {job.id: job for job in jobs} if depending else {}
    for job in depending:
        wanted = {edge.future_id for edge in job.hold.edges}
        for dependency in job.given_dependency_ids:
            path = _find_path(job.connection, as_text(dependency), wanted, new)
            if path:
                raise CycleError([job.id, *path, job.id])


def instead_of_taken(jobs: Sequence[Job], job_id: str) -> CycleError | None:
    """Return the better error when the taken id is one that its own new edges lead back to."""
    job = next(job for job in jobs if job.id == job_id)
    for edge in job.hold.edges:
        path = _find_path(job.connection, job_id, {edge.future_id}, {})
        if path:
            return CycleError([*path, job_id])
    return None


def _find_path(
    connection: Redis, start: str, wanted: set[str], new: Mapping[str, Job]
) -> list[str] | None:
    """Breadth first along "waits for"; the path from start to one of `wanted`, or None."""
    came_from: dict[str, str] = {start: ""}
    level = [start]
    while level and len(came_from) <= WALK_LIMIT:
        for job_id in level:
            if job_id in wanted:
                return _path(came_from, job_id)
        following: list[str] = []
        for job_id, before in zip(level, _waits_for(connection, level, new), strict=True):
            for other in before:
                if other not in came_from:
                    came_from[other] = job_id
                    following.append(other)
        level = following
    return None


def _path(came_from: dict[str, str], job_id: str) -> list[str]:
    path = [job_id]
    while came_from[path[-1]]:
        path.append(came_from[path[-1]])
    return path[::-1]


def _waits_for(
    connection: Redis, job_ids: Sequence[str], new: Mapping[str, Job]
) -> list[list[str]]:
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hget(keys.job(job_id), "dependency_ids")
            pipeline.lrange(keys.blockers(job_id), 0, WALK_LIMIT)
        answers = pipeline.execute(raise_on_error=False)
    following = []
    for job_id, ids, listed in zip(job_ids, answers[::2], answers[1::2], strict=True):
        blockers = [] if isinstance(listed, Exception) else listed  # a queue of that name
        following.append([*json.loads(ids or "[]"), *map(as_text, blockers)])
        following[-1] += [job.id for job in new.values() if job_id in job.future_ids]
        if job_id in new:
            following[-1] += map(as_text, new[job_id].given_dependency_ids)
    return following
