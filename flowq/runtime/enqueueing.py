"""What `lua/add.lua` is told of the jobs to add, and copies: jobs made like one that exists.

`Queue` makes an `Entry` of each job, and `as_arguments` the call of the script of these; what
neighbours have in common the script is told once. Most jobs that are enqueued together differ from
the first of their kind only in arguments, id and the future jobs that they block: a `Copier` copies
that one, in a fifth of the time of RQ's own way. The children of workers restore jobs from moulds
as well (`workers/child/restore.py`).
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rq.serializers import PickleSerializer

from flowq.runtime.job import Job
from flowq.runtime.scripts import format_instant

if TYPE_CHECKING:
    from rq.queue import EnqueueData

    from flowq.runtime.holds import Hold


OWN_FIELDS = ("created_at", "data", "description")
"""The fields of RQ's in which jobs of one shape differ."""

IdUse = Literal["new", "unique", ""]
"""A new id was never used before; a unique one must not be; any other may be an ended job's."""


class Entry(NamedTuple):
    """A job to be added. Shape: `shape` and `own` as the script takes them."""

    job: Job
    shape: tuple[Any, ...]
    own: tuple[Any, ...]


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


def as_arguments(entries: Sequence[Entry]) -> list[Any]:
    """Return them as the script takes them, in their order."""
    arguments: list[Any] = [len(entries)]
    for _, neighbours in groupby(entries, key=lambda entry: id(entry.shape)):
        alike = list(neighbours)
        own = chain.from_iterable(entry.own for entry in alike)
        arguments += (*alike[0].shape, len(alike), *own)
    return arguments


# Copies -------------------------------------------------------------------------------------


class Mould(NamedTuple):
    """What a job had when the mould was taken. Shape: `attributes` has the lists of `lists` too.

    Whoever takes one sees to it that the job has nothing else that can change in depth.
    """

    job_class: type[Job]
    attributes: dict[str, Any]
    lists: list[tuple[str, list[Any]]]

    @classmethod
    def of(cls, job: Job) -> Mould:
        """Take the mould of a job; what becomes of that later does not matter."""
        attributes = dict(vars(job))
        lists = [(name, list(it)) for name, it in attributes.items() if isinstance(it, list)]
        return cls(type(job), attributes, lists)

    def cast(self) -> Job:
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
    mould: Mould


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
            kind = _Kind(data, entry.shape, Mould.of(job))
            self._kind_by_key[_key(data, job_id, job.hold)] = kind

    def copy(self, data: EnqueueData, job_id: str | None, hold: Hold) -> Entry | None:
        """Return the job that is asked for, or None where it has to be made the whole way.

        Errors: as RQ's for an id, and those of the arguments' own `repr` and pickling.
        """
        kind = self._kind_by_key.get(_key(data, job_id, hold))
        if kind is None or type(data.args) not in _ARGS or type(data.kwargs) not in _KWARGS:
            return None
        job = kind.mould.cast()
        if hold is not job.hold:
            job.adopt(hold)
        if job_id is None:
            job.identify(new_id())
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


def new_id() -> str:
    """Return what `str(uuid4())` does, in half the time."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
