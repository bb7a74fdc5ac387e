"""In the child: create job objects from their hashes, without parsing the same fields repeatedly.

Most jobs of a queue differ from an earlier one only in their data. If all but a few fields are
equal, the job is created as a copy of the earlier one, as it was before it ran; RQ's own way takes
five times as long.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from rq.job import JobStatus

from flowq.runtime.enqueueing import JobTemplate
from flowq.runtime.job import Job

if TYPE_CHECKING:
    from redis import Redis

    from flowq.workers.messages import Task

_Getter = Callable[[list[bytes]], tuple[bytes, ...]]

_OWN = (b"created_at", b"enqueued_at", b"data", b"description", b"flowq_name")
"""The fields in which jobs of one kind differ."""

MAX_FORMS = MAX_KINDS = 16
"""How many forms of hashes are remembered, and how many kinds of jobs for each."""


class Restorer:
    """Creates job objects of one class, in the state of a started job."""

    def __init__(
        self, job_class: type[Job], connection: Redis, serializer: Any, worker: str
    ) -> None:
        self._class = job_class
        self._connection = connection
        self._serializer = serializer
        self._worker = worker
        self._forms: dict[tuple[bytes, ...], _Form] = {}
        self._can_copy = (
            job_class.restore is Job.restore
            and job_class.__init__ is Job.__init__
            and job_class.data is Job.data
        )

    def restore(self, task: Task) -> Job:
        """Return the job of a task, started now. Raises any error for an unreadable hash."""
        names, values = tuple(task.raw[::2]), [*task.raw[1::2], b""]
        form = self._forms.get(names)
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            form = self._forms[names] = _Form.of(names)
        own, shared = form.get_own(values), form.get_shared(values)
        template = form.kinds.get(shared)
        if template is None or not own[2]:
            job = self._read(task.job_id, dict(zip(names, values, strict=False)))
            self._remember(form, shared, job)
        else:
            job = self._copy(template, task.job_id, own)
        job.created_at = _instant(own[0]) or job.created_at
        job.enqueued_at = _instant(own[1])
        job.started_at = job.last_heartbeat = datetime.now(UTC)
        return job

    def _read(self, job_id: str, raw: dict[bytes, bytes]) -> Job:
        job = self._class(job_id, connection=self._connection, serializer=self._serializer)
        # `restore` sets these: RQ parses them with strptime, which is slower than everything else.
        raw.pop(_OWN[0], None)
        raw.pop(_OWN[1], None)
        job.restore(raw)
        job.worker_name = self._worker
        job.mark(JobStatus.STARTED)
        job.ended_at = None
        return job

    def _remember(self, form: _Form, shared: tuple[bytes, ...], job: Job) -> None:
        # Copies would share mutable objects: meta, webhooks, an earlier result.
        if not self._can_copy or job.meta or job.webhooks or job.has_outcome:
            return
        if len(form.kinds) >= MAX_KINDS:
            form.kinds.clear()
        form.kinds[shared] = JobTemplate.of(job)

    def _copy(self, template: JobTemplate, job_id: str, own: tuple[bytes, ...]) -> Job:
        job = template.copy()
        job.impersonate(job_id, _unpack(own[2]))  # a template has no call
        job.description = own[3].decode() if own[3] else None
        job.name = own[4].decode()
        return job


class _Form(NamedTuple):
    """Hashes with the same fields in the same order.

    Attributes:
        get_own: takes the values of the fields in `_OWN` from a hash's values. An empty value after
            these stands for missing fields.
        get_shared: takes all other values.
        kinds: a template for each kind of jobs, by its shared values, made before the job ran.
    """

    get_own: _Getter
    get_shared: _Getter
    kinds: dict[tuple[bytes, ...], JobTemplate]

    @classmethod
    def of(cls, names: tuple[bytes, ...]) -> _Form:
        """Return the form of hashes with these fields."""
        missing = len(names)
        own = [names.index(name) if name in names else missing for name in _OWN]
        shared = [place for place in range(missing) if place not in own]
        return cls(itemgetter(*own), itemgetter(missing, missing, *shared), {})


def _unpack(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:  # as in RQ: it was not compressed
        return data


def _instant(text: bytes) -> datetime | None:
    return datetime.fromisoformat(text.decode()) if text else None
