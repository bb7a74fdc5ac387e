"""In the child: jobs from their hashes, without reading the same fields again and again.

Most jobs of a queue are the last one with other data. Where all fields but a few are the same, the
job is a copy of that one, as it was before it ran; RQ's own way takes five times as long.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import as_text

from flowq.runtime.job import Job

if TYPE_CHECKING:
    from redis import Redis

    from flowq.workers.claims import Task

_INSTANTS = (b"created_at", b"enqueued_at")
_OWN = (*_INSTANTS, b"data", b"description", b"flowq_name")
"""The fields in which jobs of a kind differ."""


class Restorer:
    """Makes started jobs of one class on one connection."""

    def __init__(
        self, job_class: type[Job], connection: Redis, serializer: Any, worker: str
    ) -> None:
        self._class = job_class
        self._connection = connection
        self._serializer = serializer
        self._worker = worker
        self._shared: dict[bytes, bytes] = {}
        self._attributes: dict[str, Any] = {}
        self._lists: list[str] = []
        self._can_copy = (
            job_class.restore is Job.restore
            and job_class.__init__ is Job.__init__
            and job_class.data is RQJob.data
        )

    def restore(self, task: Task) -> Job:
        """Return the job of a task, started now. Errors: whatever an unreadable hash leads to."""
        raw = dict(zip(task.raw[::2], task.raw[1::2], strict=True))
        own = [raw.pop(name, b"") for name in _OWN]
        if self._attributes and own[2] and raw == self._shared:
            job = self._copy(task.job_id, own)
        else:
            job = self._read(task.job_id, raw, own)
        job.created_at = _instant(own[0]) or job.created_at
        job.enqueued_at = _instant(own[1])
        job.started_at = job.last_heartbeat = datetime.now(UTC)
        return job

    def _read(self, job_id: str, shared: dict[bytes, bytes], own: list[bytes]) -> Job:
        job = self._class(job_id, connection=self._connection, serializer=self._serializer)
        # RQ reads each instant with strptime, which takes longer than all the rest.
        others = {name: value for name, value in zip(_OWN[2:], own[2:], strict=True) if value}
        job.restore({**shared, **others})
        job.worker_name = self._worker
        job._status = JobStatus.STARTED
        job.ended_at = None
        self._remember(job, shared)
        return job

    def _remember(self, job: Job, shared: dict[bytes, bytes]) -> None:
        # What a job may change in depth is not shared: meta, webhooks, an earlier result.
        is_plain = not (job.meta or job.webhooks or job._result or job._exc_info)
        self._attributes = dict(vars(job)) if self._can_copy and is_plain else {}
        self._lists = [name for name, value in self._attributes.items() if isinstance(value, list)]
        for name in self._lists:
            self._attributes[name] = list(self._attributes[name])
        self._shared = shared

    def _copy(self, job_id: str, own: list[bytes]) -> Job:
        job = self._class.__new__(self._class)
        job.__dict__ = attributes = self._attributes.copy()
        for name in self._lists:
            attributes[name] = list(attributes[name])
        job.meta = {}
        job._id = job_id
        job.data = _unpack(own[2])
        job.description = as_text(own[3]) if own[3] else None
        job.name = as_text(own[4])
        return job


def _unpack(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:  # as RQ: it was not compressed
        return data


def _instant(text: bytes) -> datetime | None:
    return datetime.fromisoformat(text.decode()) if text else None
