"""How the jobs of a run ended: their results, and the errors of those that failed."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rq.results import Result
from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.blockers import last_message
from flowq.runtime.job import Job, get_job
from flowq.runtime.views import NOT_KEPT, is_marked

if TYPE_CHECKING:
    from redis import Redis

JOBS_PER_READ = 500
_FIELDS_OF_FAILURE = (*("description", "worker_name", "origin", "flowq_reason", "flowq_outcome"),)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed.

    `traceback` is what RQ kept, whole; else the reason that the run was told, or empty.
    """

    job_id: str
    description: str
    traceback: str
    worker: str = ""


def get_result(job_id: str, connection: Redis) -> Any:
    """Return the result of a job; None when it has none. Errors: JobNotFound."""
    return get_job(job_id, connection).return_value()


@dataclass(frozen=True, slots=True)
class JobView:
    """What is shown of a job that has ended: views (flowq.runtime.views), `arguments` by name."""

    result: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_views(job_ids: Iterable[str], connection: Redis) -> dict[str, JobView]:
    """Return what is shown of jobs, by job id; nothing is loaded or executed.

    Where no view was kept, the one of the result says so. Jobs that are gone are left out.
    """
    wanted = list(job_ids)
    found: dict[str, JobView] = {}
    for first in range(0, len(wanted), JOBS_PER_READ):
        some = wanted[first : first + JOBS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hmget(keys.job(job_id), keys.VIEW_FIELD, "status")
            answers = pipeline.execute()
        for job_id, (written, status) in zip(some, answers, strict=True):
            if written is not None:
                found[job_id] = JobView(**_fields_of_view(json.loads(written or b"{}")))
            elif status is not None:
                found[job_id] = JobView(NOT_KEPT)
    return found


def _fields_of_view(written: Mapping[str, Any]) -> dict[str, Any]:
    arguments = written.get("arguments")
    # What is too large is a mark in the place of all of them.
    named = {"…": arguments} if is_marked(arguments) else arguments or {}
    return {"result": written.get("result"), "arguments": named}


def get_results(
    job_ids: Iterable[str],
    connection: Redis,
    *,
    instead: Callable[[Exception], Any] | None = None,
) -> dict[str, Any]:
    """Return results by job id; jobs without a result are left out.

    Reads the newest entry of each result stream, `JOBS_PER_READ` streams in one round trip.
    Errors: whatever loading a result raises, when its code is not importable here; with `instead`
    what that makes of the error takes the place of the result.
    """
    wanted = list(job_ids)
    results: dict[str, Any] = {}
    for first in range(0, len(wanted), JOBS_PER_READ):
        some = wanted[first : first + JOBS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.xrevrange(Result.get_key(job_id), count=1)  # type: ignore[no-untyped-call]
            answers = pipeline.execute()
        for job_id, entries in zip(some, answers, strict=True):
            if entries:
                try:
                    result = _restore(job_id, entries[0], connection)
                except Exception as error:
                    if instead is None:
                        raise
                    results[job_id] = instead(error)
                    continue
                if result.type is Result.Type.SUCCESSFUL:
                    results[job_id] = result.return_value
    return results


def get_errors(job_ids: Iterable[str], connection: Redis) -> dict[str, str]:
    """Return what the jobs' tracebacks say at their end, by job id; others are left out."""
    failures = get_failures(job_ids, connection).items()
    return {job_id: last_message(each.traceback) for job_id, each in failures if each.traceback}


def get_failures(job_ids: Iterable[str], connection: Redis) -> dict[str, Failure]:
    """Return why these jobs failed, by job id; jobs that are gone are left out.

    Nothing is loaded but the texts: RQ's way to a job and its results loads pickles as well.
    """
    wanted = list(job_ids)
    failures: dict[str, Failure] = {}
    for first in range(0, len(wanted), JOBS_PER_READ):
        some = wanted[first : first + JOBS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hmget(keys.job(job_id), *_FIELDS_OF_FAILURE)
                pipeline.xrevrange(keys.results(job_id), count=1)
            answers = pipeline.execute()
        for job_id, fields, entries in zip(some, answers[::2], answers[1::2], strict=True):
            description, worker, origin, why, outcome = (as_text(each or b"") for each in fields)
            if origin:
                text = read_traceback(entries)
                if not text or (outcome == "stopped" and why):  # RQ has a fixed text for that
                    text = why
                failures[job_id] = Failure(job_id, description, text, worker)
    return failures


def read_traceback(entries: Sequence[tuple[Any, Mapping[bytes, bytes]]]) -> str:
    """Return what the newest entry of a job's results says of its failure; it may be empty."""
    packed = entries[0][1].get(b"exc_string") if entries else None
    # Source: `rq.results.Result.serialize`.
    return zlib.decompress(b64decode(packed)).decode(errors="replace") if packed else ""


def _restore(job_id: str, entry: tuple[Any, dict[Any, Any]], connection: Redis) -> Result:
    entry_id, payload = entry
    serializer = Job(job_id, connection=connection).serializer
    return Result.restore(job_id, as_text(entry_id), payload, connection, serializer=serializer)
