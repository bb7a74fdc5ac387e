"""How the jobs of a run ended: their results, and the errors of those that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.results import Result
from rq.utils import as_text

from flowq.errors import JobNotFound
from flowq.runtime.blockers import last_message
from flowq.runtime.job import Job, get_job

if TYPE_CHECKING:
    from redis import Redis

JOBS_PER_READ = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed. `traceback` is what RQ kept, whole; empty when nothing was kept."""

    job_id: str
    description: str
    traceback: str
    worker: str = ""


def get_result(job_id: str, connection: Redis) -> Any:
    """Return the result of a job; None when it has none. Errors: JobNotFound."""
    return get_job(job_id, connection).return_value()


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
    errors: dict[str, str] = {}
    for job_id in job_ids:
        result = Job(job_id, connection=connection).latest_result()
        if result is not None and result.exc_string:
            errors[job_id] = last_message(result.exc_string)
    return errors


def get_failures(job_ids: Iterable[str], connection: Redis) -> dict[str, Failure]:
    """Return why these jobs failed, by job id; jobs that are gone are left out."""
    failures: dict[str, Failure] = {}
    for job_id in job_ids:
        try:
            job = get_job(job_id, connection)
        except JobNotFound:
            continue
        result = job.latest_result()
        text = (result.exc_string or "") if result else ""
        failures[job_id] = Failure(job_id, job.description or "", text, job.worker_name or "")
    return failures


def _restore(job_id: str, entry: tuple[Any, dict[Any, Any]], connection: Redis) -> Result:
    entry_id, payload = entry
    serializer = Job(job_id, connection=connection).serializer
    return Result.restore(job_id, as_text(entry_id), payload, connection, serializer=serializer)
