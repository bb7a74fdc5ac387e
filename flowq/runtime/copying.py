"""Jobs of `enqueue_many`: most of them are another one of it with other arguments.

Where all that is asked for is the same, but for the arguments, the id and the future jobs to block,
a job is a copy of the first of its kind; RQ's own way takes five times as long.
"""

from __future__ import annotations

import os
import time
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flowq.runtime.entries import Entry
from flowq.runtime.job import Job
from flowq.runtime.moulds import Mould
from flowq.runtime.scripts import format_instant

if TYPE_CHECKING:
    from rq.queue import EnqueueData

    from flowq.runtime.holds import Hold


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
