"""What `lua/add.lua` is told of the jobs to add, and copies: jobs made like one that exists.

`Queue` makes an `Entry` of each job, and `as_arguments` the call of the script of these; what
neighbours have in common the script is told once. Most jobs that are enqueued together differ from
the first of their kind only in arguments, id and the future jobs that they block: a `Copier` copies
that one, in a fifth of the time of RQ's own way. The children of workers copy jobs as well
(`workers/child/restore.py`).

Also here: whether a new job would wait for itself (`refuse_cycles`), and what a synchronous queue
runs at a release (`run_released`).
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
"""The fields of RQ's in which jobs of one shape differ."""

IdUse = Literal["new", "unique", ""]
"""A new id was never used before; a unique one must not be; any other may be an ended job's."""


Shape = tuple[Any, ...]
"""What several jobs have in common, as the script takes it."""

Own = tuple[str, str, str, str, bytes, str | None]
"""The rest of a job: id, blocks, name, created_at, data, description."""


class Entry(NamedTuple):
    """A job to be added."""

    job: Job
    shape: Shape
    own: Own


def make_entry(job: Job, id_use: IdUse) -> Entry:
    """Describe a job that is ready to be added."""
    hold = job.hold
    fields = {**job.to_dict(), **hold.fields}
    serializer = job.serializer
    if isinstance(serializer, type) and serializer is not PickleSerializer:
        fields["flowq_serializer"] = f"{serializer.__module__}.{serializer.__qualname__}"
    own = (job.id, job.blocks, hold.name, *(fields.pop(name, "") for name in OWN_FIELDS))
    # What is empty means the same to RQ when it is not there.
    pairs = [part for pair in fields.items() if pair[1] != "" for part in pair]
    at = "" if hold.at_s is None else f"{hold.at_s:.3f}"
    shape = (job.origin, hold.future, at, hold.run_id, id_use, len(pairs) // 2, *pairs)
    return Entry(job, shape, own)


def as_arguments(described: Sequence[tuple[Shape, Own]]) -> list[Any]:
    """Return jobs as the script takes them, in their order."""
    arguments: list[Any] = [len(described)]
    for _, neighbours in groupby(described, key=lambda each: id(each[0])):
        alike = list(neighbours)
        own = chain.from_iterable(each for _, each in alike)
        arguments += (*alike[0][0], len(alike), *own)
    return arguments


# Copies -------------------------------------------------------------------------------------


class JobTemplate(NamedTuple):
    """The attributes of a job, for copies of it. Shape: `attributes` has the lists of `lists` too.

    Nothing else that can change in depth may be among them: the copies would share it.
    """

    job_class: type[Job]
    attributes: dict[str, Any]
    lists: list[tuple[str, list[Any]]]

    @classmethod
    def of(cls, job: Job) -> JobTemplate:
        """Make a template of a job, which later changes of the job do not touch."""
        attributes = dict(vars(job))
        lists = [(name, list(it)) for name, it in attributes.items() if isinstance(it, list)]
        return cls(type(job), attributes, lists)

    def copy(self) -> Job:
        """Return a job with the same attributes, and lists and a meta of its own."""
        job = self.job_class.__new__(self.job_class)
        job.__dict__ = attributes = self.attributes.copy()
        for name, items in self.lists:
            attributes[name] = items.copy()
        attributes["meta"] = {}
        return job


class _Kind(NamedTuple):
    """The first of its kind, as it was before it was added."""

    data: EnqueueData  # here so that nothing else gets the identities in its key
    shape: tuple[Any, ...]
    template: JobTemplate


class Copier:
    """Makes jobs from descriptions that it has been shown the like of.

    It is for one call: the kinds are told apart by which objects the descriptions name, not by how
    these look, so they have to stay as they are.
    """

    def __init__(self) -> None:
        self._kind_by_key: dict[tuple[Any, ...], _Kind] = {}
        self._data = self._compressed = b""
        self._bare_by_kind: dict[int, tuple[bytes, bytes, str | None]] = {}

    def learn(self, data: EnqueueData, job_id: str | None, entry: Entry) -> None:
        """Remember a job that was made the whole way, if others can be copies of it."""
        job = entry.job
        # What a job may change in depth is not shared, and what may warn or be read once is not
        # passed over.
        callbacks = data.on_success or data.on_failure or data.on_stopped
        is_deep = job.meta or job.webhooks or job.given_dependency_ids
        if type(job) is Job and not (callbacks or is_deep):
            kind = _Kind(data, entry.shape, JobTemplate.of(job))
            self._kind_by_key[_key(data, job_id, job.hold)] = kind

    def copy(self, data: EnqueueData, job_id: str | None, hold: Hold) -> Entry | None:
        """Return the job that is asked for, or None where it has to be made the whole way.

        Errors: as RQ's for an id, and those of the arguments' own `repr` and pickling.
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
        now_s = time.time_ns() // 1000 / 1e6  # whole microseconds, so that both mean the same
        job.created_at = datetime.fromtimestamp(now_s, UTC)
        fields = format_instant(now_s), compressed, job.description
        return Entry(job, kind.shape, (job.id, job.blocks, hold.name, *fields))

    def _write(self, job: Job, kind: _Kind, has_arguments: bool) -> tuple[bytes, str | None]:
        """Return the call as bytes, compressed, and in words; without arguments it is the same."""
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
        # It takes as long as all the rest of a copy, and many calls have no arguments.
        if data != self._data:
            self._data, self._compressed = data, zlib.compress(data)
        return self._compressed


_ARGS = (tuple, list, type(None))
_KWARGS = (dict, type(None))


def _key(data: EnqueueData, job_id: str | None, hold: Hold) -> tuple[Any, ...]:
    """Return all that copies have in common: not arguments, description, id, edges and name."""
    asked = (hold.future, hold.at_s, hold.run_id, *hold.fields.items(), job_id is None)
    function = data.func if type(data.func) is str else id(data.func)
    return (*asked, function, *map(id, data[3:7] + data[8:9] + data[10:]))


# Cycles -------------------------------------------------------------------------------------
#
# A new edge can close a cycle only in two ways: through the new job's own `depends_on`, or through
# an id that is used again. Only then the graph is walked, and only so far. In a CycleError the
# arrow reads "waits for".


WALK_LIMIT = 1_000
"""How many jobs a walk looks at; a cycle that is longer is not found here."""


def refuse_cycles(jobs: Sequence[Job]) -> None:
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

    And then what had waited for these. A blocker that is not released itself, or that failed,
    leaves the future job waiting, as with workers.
    """
    blocker_ids = map(as_text, queue.connection.lrange(keys.blockers(future.id), 0, -1))
    waiting = [*(find_job(queue, job_id) for job_id in blocker_ids), future]
    while ran := next((job for job in waiting if job and run_if_queued(queue, job)), None):
        waiting.remove(ran)
        waiting += [find_job(queue, future_id) for future_id in ran.future_ids]


def find_job(queue: Queue, job_id: str) -> Job | None:
    """Return the job, or None when it has been deleted."""
    try:
        return get_job(job_id, queue.connection, queue.serializer)
    except JobNotFound:
        return None


def run_if_queued(queue: Queue, job: Job) -> bool:
    """Run the job here if it is on its queue; return whether it was."""
    if not queue.connection.lrem(keys.queue(job.origin), 1, job.id):
        return False
    queue.run_sync(job)
    return True
