"""The arguments of `lua/add.lua` for new jobs, and copies of jobs.

`Queue` makes an `Entry` for each job, and `as_arguments` turns entries into the arguments of the
script, which get the common fields of adjacent jobs once. Most jobs that are enqueued together
differ from the first of their kind only in arguments, id and the future jobs that they block. A
`Copier` copies that one, in a fifth of the time that RQ needs. Children also copy jobs
(`workers/child/restore.py`).

Also here: the search for cycles (`refuse_cycles`), and what a synchronous queue runs at a release
(`run_released`).
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import uuid4

from rq.serializers import PickleSerializer
from rq.utils import as_text

from flowq.errors import CycleError, JobNotFound
from flowq.runtime import keys
from flowq.runtime.job import Job, get_job
from flowq.runtime.scripts import format_instant

if TYPE_CHECKING:
    from redis import Redis
    from rq.queue import EnqueueData, Queue

    from flowq.runtime.holds import Hold


OWN_FIELDS = ("created_at", "data", "description")
"""The RQ fields in which jobs of one shape differ."""

IdUse = Literal["new", "unique", ""]
"""A "new" id was never used before; a "unique" one must not be in use; another one may belong to a
job that has ended."""


Shape = tuple[Any, ...]
"""The arguments of the script that several jobs have in common."""

Own = tuple[str, str, str, str, bytes, str | None]
"""The other arguments of a job: id, blocks, name, created_at, data, description."""


class Entry(NamedTuple):
    """A job to be added."""

    job: Job
    shape: Shape
    own: Own


def make_entry(job: Job, id_use: IdUse) -> Entry:
    """Return the entry of a job that is ready to be added."""
    hold = job.hold
    fields = {**job.to_dict(), **hold.fields}
    serializer = job.serializer
    if isinstance(serializer, type) and serializer is not PickleSerializer:
        fields["flowq_serializer"] = f"{serializer.__module__}.{serializer.__qualname__}"
    own = (job.id, job.blocks, hold.name, *(fields.pop(name, "") for name in OWN_FIELDS))
    # To RQ, an empty field means the same as a missing one.
    pairs = [part for pair in fields.items() if pair[1] != "" for part in pair]
    at = "" if hold.at_s is None else f"{hold.at_s:.3f}"
    shape = (job.origin, hold.future, at, hold.run_id, id_use, len(pairs) // 2, *pairs)
    return Entry(job, shape, own)


def as_arguments(described: Sequence[tuple[Shape, Own]]) -> list[Any]:
    """Return the arguments of the script for jobs, in their order."""
    arguments: list[Any] = [len(described)]
    for _, neighbours in groupby(described, key=lambda each: id(each[0])):
        alike = list(neighbours)
        own = chain.from_iterable(each for _, each in alike)
        arguments += (*alike[0][0], len(alike), *own)
    return arguments


# Copies -------------------------------------------------------------------------------------


class JobTemplate(NamedTuple):
    """The attributes of a job, for copies of it. `lists` are those attributes that are lists.

    No other attribute may be a mutable object, because the copies would share it.
    """

    job_class: type[Job]
    attributes: dict[str, Any]
    lists: list[tuple[str, list[Any]]]

    @classmethod
    def of(cls, job: Job) -> JobTemplate:
        """Make a template of a job, independent of later changes of the job."""
        attributes = dict(vars(job))
        lists = [(name, list(it)) for name, it in attributes.items() if isinstance(it, list)]
        return cls(type(job), attributes, lists)

    def copy(self) -> Job:
        """Return a job with the same attributes, but with its own lists and `meta`."""
        job = self.job_class.__new__(self.job_class)
        job.__dict__ = attributes = self.attributes.copy()
        for name, items in self.lists:
            attributes[name] = items.copy()
        attributes["meta"] = {}
        return job


class _Kind(NamedTuple):
    """The first job of a kind, as it was before it was added."""

    data: EnqueueData  # kept so that no other object gets an id that is in the key
    shape: tuple[Any, ...]
    template: JobTemplate


class Copier:
    """Makes jobs as copies of the first of their kind.

    A copier serves one call. It compares descriptions by the identity of their objects, not by
    value, so these objects must not change meanwhile.
    """

    def __init__(self) -> None:
        self._kind_by_key: dict[tuple[Any, ...], _Kind] = {}
        self._data = self._compressed = b""
        self._bare_by_kind: dict[int, tuple[bytes, bytes, str | None]] = {}

    def learn(self, data: EnqueueData, job_id: str | None, entry: Entry) -> None:
        """Remember a job that RQ has made, if others can be copies of it."""
        job = entry.job
        # Copies would share mutable objects; and RQ's code for these options may warn, or consume
        # an iterator.
        callbacks = data.on_success or data.on_failure or data.on_stopped
        is_deep = job.meta or job.webhooks or job.given_dependency_ids
        if type(job) is Job and not (callbacks or is_deep):
            kind = _Kind(data, entry.shape, JobTemplate.of(job))
            self._kind_by_key[_key(data, job_id, job.hold)] = kind

    def copy(self, data: EnqueueData, job_id: str | None, hold: Hold) -> Entry | None:
        """Return a copy for a description, or None if RQ has to make the job.

        Errors: RQ's for an id; those of the arguments' `repr` and pickling.
        """
        kind = self._kind_by_key.get(_key(data, job_id, hold))
        if kind is None or type(data.args) not in _ARGS or type(data.kwargs) not in _KWARGS:
            return None
        job = kind.template.copy()
        if hold is not job.hold:
            job.adopt(hold)
        if job_id is None:
            job.identify(str(uuid4()))
        else:
            job.id = job_id
        job.args = () if data.args is None else data.args
        job.kwargs = {} if data.kwargs is None else data.kwargs
        compressed, described = self._write(job, kind, bool(data.args or data.kwargs))
        job.description = data.description or described
        now_s = time.time_ns() // 1000 / 1e6  # microseconds, as both forms have them
        job.created_at = datetime.fromtimestamp(now_s, UTC)
        fields = format_instant(now_s), compressed, job.description
        return Entry(job, kind.shape, (job.id, job.blocks, hold.name, *fields))

    def _write(self, job: Job, kind: _Kind, has_arguments: bool) -> tuple[bytes, str | None]:
        """Return the compressed call and its text. Jobs of a kind without arguments share them."""
        if has_arguments:
            return self._compress(job.write_data()), job.get_call_string()
        bare = self._bare_by_kind.get(id(kind))
        if bare is None:
            data = job.write_data()
            bare = data, self._compress(data), job.get_call_string()
            self._bare_by_kind[id(kind)] = bare
        else:
            job.impersonate(job.id, bare[0])
        return bare[1:]

    def _compress(self, data: bytes) -> bytes:
        # Compressing takes as long as everything else, and many calls have no arguments.
        if data != self._data:
            self._data, self._compressed = data, zlib.compress(data)
        return self._compressed


_ARGS = (tuple, list, type(None))
_KWARGS = (dict, type(None))


def _key(data: EnqueueData, job_id: str | None, hold: Hold) -> tuple[Any, ...]:
    """Return what copies must have in common: all but arguments, description, id, edges, name."""
    asked = (hold.future, hold.at_s, hold.run_id, *hold.fields.items(), job_id is None)
    function = data.func if type(data.func) is str else id(data.func)
    return (*asked, function, *map(id, data[3:7] + data[8:9] + data[10:]))


# Cycles -------------------------------------------------------------------------------------
#
# A new edge can close a cycle only in two ways: by the new job's own `depends_on`, or by an id that
# is used again. Only then the graph is searched, up to a limit. The arrows in a CycleError mean
# "waits for".


WALK_LIMIT = 1_000
"""How many jobs a search visits; a longer cycle is not found."""


def refuse_cycles(jobs: Sequence[Job]) -> None:
    """Raise CycleError if a dependency of a new job waits for a future job that the job blocks.

    The jobs are enqueued together, so they may also wait for each other.
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
    """Return the error for a taken id if the new edges would close a cycle through it."""
    job = next(job for job in jobs if job.id == job_id)
    for edge in job.hold.edges:
        path = _find_path(job.connection, job_id, {edge.future_id}, {})
        if path:
            return CycleError([*path, job_id])
    return None


def _find_path(
    connection: Redis, start: str, wanted: set[str], new: Mapping[str, Job]
) -> list[str] | None:
    """Search breadth first along "waits for"; return the path to one of `wanted`, or None."""
    came_from: dict[str, str] = {start: ""}
    level = [start]
    while level and len(came_from) <= WALK_LIMIT:
        for job_id in level:
            if job_id in wanted:
                path = [job_id]
                while came_from[path[-1]]:
                    path.append(came_from[path[-1]])
                return path[::-1]
        following: list[str] = []
        for job_id, before in zip(level, _waits_for(connection, level, new), strict=True):
            for other in before:
                if other not in came_from:
                    came_from[other] = job_id
                    following.append(other)
        level = following
    return None


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


# Synchronous queues (`is_async=False`) ------------------------------------------------------


def run_released(queue: Queue, future: Job) -> None:
    """Run the blockers of a released future job in order, then the future job, in this process.

    Then run the jobs that waited for these. As with workers, the future job goes on waiting for a
    blocker that failed, or that was not released itself.
    """
    blocker_ids = map(as_text, queue.connection.lrange(keys.blockers(future.id), 0, -1))
    waiting = [*(find_job(queue, job_id) for job_id in blocker_ids), future]
    while ran := next((job for job in waiting if job and run_if_queued(queue, job)), None):
        waiting.remove(ran)
        waiting += [find_job(queue, future_id) for future_id in ran.future_ids]


def find_job(queue: Queue, job_id: str) -> Job | None:
    """Return the job, or None if it was deleted."""
    try:
        return get_job(job_id, queue.connection, queue.serializer)
    except JobNotFound:
        return None


def run_if_queued(queue: Queue, job: Job) -> bool:
    """Run the job in this process if it is queued; return whether it was."""
    if not queue.connection.lrem(keys.queue(job.origin), 1, job.id):
        return False
    queue.run_sync(job)
    return True
