"""Reads how jobs ended: results, views and errors, and the end of a single job as data.

Commands and programs use results, views and failures; expressions (`lookups.py`) and jobs under
`finally` use ends. Only `get_result` and `get_results` load pickles.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rq.results import Result
from rq.timeouts import JobTimeoutException
from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.blockers import last_message
from flowq.runtime.connections import read_each
from flowq.runtime.job import Job, get_job
from flowq.runtime.views import NOT_KEPT, is_marked
from flowq.status import BAD_OUTCOMES, OUTCOMES, public_name

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


_FIELDS_OF_FAILURE = (
    *("description", "worker_name", "origin", "flowq_reason", "flowq_outcome", "started_at"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed.

    `traceback` is the whole text that RQ stored; if there is none, the run's reason, or empty.
    """

    job_id: str
    description: str
    traceback: str
    worker: str = ""


def get_result(job_id: str, connection: Redis) -> Any:
    """Return the result of a job; None if it has none. Errors: JobNotFound."""
    return get_job(job_id, connection).return_value()


@dataclass(frozen=True, slots=True)
class JobView:
    """The views (flowq.runtime.views) of a job that has ended; `arguments` by name."""

    result: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_views(job_ids: Iterable[str], connection: Redis) -> dict[str, JobView]:
    """Return the views of jobs, by job id. Loads and executes nothing.

    A missing view is replaced by a note. Deleted jobs are left out.
    """
    found: dict[str, JobView] = {}
    for job_id, ((written, status),) in read_each(
        job_ids,
        connection,
        lambda pipe, job_id: pipe.hmget(keys.job(job_id), keys.VIEW_FIELD, "status"),
    ):
        if written is not None:
            view = json.loads(written or b"{}")
            arguments = view.get("arguments")
            if is_marked(arguments):  # all of them, too large to be shown by name
                arguments = {"…": arguments}
            found[job_id] = JobView(view.get("result"), arguments or {})
        elif status is not None:
            found[job_id] = JobView(NOT_KEPT)
    return found


@dataclass(frozen=True, slots=True)
class Unloadable:
    """A placeholder for a result that cannot be loaded here, mostly because its code is missing."""

    reason: str

    def __repr__(self) -> str:
        return f"<cannot be loaded here: {self.reason}>"

    @classmethod
    def of(cls, error: Exception) -> Unloadable:
        """Return the placeholder for a result whose loading raised `error`."""
        return cls(f"{type(error).__name__}: {error}")


def get_results(
    job_ids: Iterable[str],
    connection: Redis,
    *,
    instead: Callable[[Exception], Any] | None = None,
) -> dict[str, Any]:
    """Return results by job id, without jobs that have not ended with a result.

    RQ's stream also has the results of earlier attempts. The newest entry counts only if the job
    has ended with it: after a retry, it may have been skipped, rejected or canceled.
    Errors: any error of loading a result, for example if its class cannot be imported. With
    `instead`, its return value for the error is used as the result.
    """
    results: dict[str, Any] = {}
    ask = partial(_ask_with_result, fields=("flowq_outcome", "status"))
    for job_id, ((outcome, status), entries) in read_each(job_ids, connection, ask):
        if not entries or (outcome or status) != b"finished":
            continue
        try:
            entry_id, payload = entries[0]
            serializer = Job(job_id, connection=connection).serializer
            result = Result.restore(job_id, as_text(entry_id), payload, connection, serializer)
        except Exception as error:
            if instead is None:
                raise
            results[job_id] = instead(error)
            continue
        if result.type is Result.Type.SUCCESSFUL:
            results[job_id] = result.return_value
    return results


def _ask_with_result(pipe: Pipeline, job_id: str, *, fields: Sequence[str]) -> None:
    """Request fields of a job, and the newest entry of its results."""
    pipe.hmget(keys.job(job_id), *fields)
    pipe.xrevrange(keys.results(job_id), count=1)


def get_errors(job_ids: Iterable[str], connection: Redis) -> dict[str, str]:
    """Return the messages at the end of jobs' tracebacks, by job id, without other jobs."""
    failures = get_failures(job_ids, connection).items()
    return {job_id: last_message(each.traceback) for job_id, each in failures if each.traceback}


def get_failures(job_ids: Iterable[str], connection: Redis) -> dict[str, Failure]:
    """Return why these jobs failed, by job id, without deleted jobs.

    Reads only texts: RQ's own functions for jobs and results would load pickles.
    """
    failures: dict[str, Failure] = {}
    ask = partial(_ask_with_result, fields=_FIELDS_OF_FAILURE)
    for job_id, (fields, entries) in read_each(job_ids, connection, ask):
        description, worker, origin, why, outcome, started_at = (
            as_text(each or b"") for each in fields
        )
        if origin:
            # Where it was not started the text is of an earlier attempt.
            text = read_traceback(entries) if started_at else ""
            if not text or (outcome == "stopped" and why):  # RQ has a fixed text for that
                text = why
            failures[job_id] = Failure(job_id, description, text, worker)
    return failures


def read_traceback(entries: Sequence[tuple[Any, Mapping[bytes, bytes]]]) -> str:
    """Return the error text in the newest entry of a job's results; it may be empty."""
    packed = entries[0][1].get(b"exc_string") if entries else None
    # Source: `rq.results.Result.serialize`.
    return zlib.decompress(b64decode(packed)).decode(errors="replace") if packed else ""


# The end of a job, as expressions see it -------------------------------------------------------


MAX_MESSAGE = 1_000
"""The most characters of an error's message."""

MAX_FAILURES = 100
"""The most failures of a run that its jobs under `finally` get."""

_FIELDS = ("flowq_outcome", "flowq_reason", "flowq_attempts", keys.VIEW_FIELD, "started_at")
_ENDS_OF_OVERDUE = frozenset({"canceled", "failed", "tolerated"})
_HEAD = "Traceback (most recent call last):"
_LAST_LINE = re.compile(r"([A-Za-z_][\w.]*)(?:: ?(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended.

    Attributes:
        outcome: empty for a job that has not ended, or was deleted.
        error_type: the name of the exception's class; None if there was no exception (a worker was
            lost, an approval expired).
        message: None for a job that has not failed.
        exit_code: of a command.
    """

    outcome: str = ""
    error_type: str | None = None
    message: str | None = None
    exit_code: int | None = None
    attempts: int = 0

    @property
    def error(self) -> dict[str, str | None] | None:
        """The error as expressions see it."""
        if self.message is None:
            return None
        return {"type": self.error_type, "message": self.message}


def read_end(job_id: str, connection: Redis) -> JobEnd:
    """Return how one job ended."""
    return next(read_ends([job_id], connection))


def read_ends(job_ids: Sequence[str], connection: Redis) -> Iterator[JobEnd]:
    """Yield how jobs ended, in the given order; a deleted job is like one that has not begun."""
    for job_id, (fields, entries, late) in read_each(job_ids, connection, _ask_for_end):
        yield _read_end(job_id, fields, late, entries, connection)


def _ask_for_end(pipe: Pipeline, job_id: str) -> None:
    _ask_with_result(pipe, job_id, fields=_FIELDS)
    pipe.hget(keys.future(job_id), "late")


def _read_end(
    job_id: str, fields: Sequence[bytes | None], late: Any, entries: Any, connection: Redis
) -> JobEnd:
    outcome, reason, attempts, view, started_at = (as_text(each or b"") for each in fields)
    # Older versions did not count.
    count = int(attempts) if attempts else int(bool(started_at))
    if outcome == "passed":  # the last start only evaluated its `if`, which is no attempt
        count -= bool(started_at)
    code = json.loads(view).get("exit_code") if view else None
    if outcome in _ENDS_OF_OVERDUE and _is_overdue(late):
        return JobEnd(outcome, JobTimeoutException.__name__, _cut(reason), code, count)
    if not (outcome in OUTCOMES and OUTCOMES[outcome].has_error):
        return JobEnd(outcome, exit_code=code, attempts=count)
    is_explained = outcome == "stopped" and reason  # better than RQ's fixed text
    # Where it was not started the text is of an earlier attempt.
    if started_at and not is_explained and (text := read_traceback(entries)):
        return JobEnd(outcome, *_read_error(text), code, count)
    return JobEnd(outcome, *_read_inside(job_id, reason, connection), code, count)


def _read_error(text: str) -> tuple[str | None, str]:
    """Return the name of the exception's class, and the message, at the end of a traceback."""
    lines = text.splitlines()
    heads = [at for at, line in enumerate(lines) if line == _HEAD]
    last = lines[heads[-1] + 1 :] if heads else lines
    while heads and len(last) > 1 and last[0].startswith(" "):
        del last[0]
    found = _LAST_LINE.fullmatch("\n".join(last)) if heads else None
    if found is None:
        return None, _cut("\n".join(last))
    return found[1].rpartition(".")[2], _cut(found[2] or "")


def _read_inside(job_id: str, reason: str, connection: Redis) -> tuple[str | None, str]:
    """Return the error of a job without an exception; a nested workflow has one inside."""
    culprit = connection.hget(keys.future(job_id), "culprit")
    inside = read_end(as_text(culprit).split()[0], connection) if culprit else JobEnd()
    reason = reason.removeprefix("tolerated").removeprefix(": ")
    return inside.error_type, _cut(": ".join(filter(None, (reason, inside.message))))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def read_run_end(final_id: str, run_id: str, connection: Redis) -> dict[str, Any]:
    """Return how the jobs ended for which a job under `finally` waits: all others of its workflow.

    The mapping has `status`, as of a run with only these jobs; `canceled`, whether any of them was
    canceled; `has_failed`, whether any has failed; and `failures`, with the name, `error` and
    `exit_code` of each failed job, in the order in which they ended, `MAX_FAILURES` at most. These
    include rejected jobs, and workflows that took too long.
    """
    ended = {
        as_text(blocker): as_text(outcome).rstrip("!")
        for blocker, outcome in connection.hgetall(keys.edges(final_id)).items()
    }
    own = {job_id: outcome for job_id, outcome in ended.items() if not _is_inside(job_id, ended)}
    for job_id in _find_starts([each for each in own if own[each] in BAD_OUTCOMES], connection):
        del own[job_id]
    is_canceled = is_called_off(final_id, run_id, connection)
    bad = [job_id for job_id, outcome in own.items() if outcome in BAD_OUTCOMES]
    state = ("canceled" if is_canceled else "failed") if bad else "succeeded"
    told = _find_told([each for each in bad if own[each] == "canceled"], connection)
    failed = [each for each in bad if own[each] != "canceled"]
    told = sorted([*failed, *told])[:MAX_FAILURES]
    return {
        "status": state,
        "canceled": is_canceled or "canceled" in own.values(),
        "has_failed": bool(failed),
        "failures": _read_failures(told, connection),
    }


def _find_told(job_ids: Sequence[str], connection: Redis) -> list[str]:
    """Return those of these canceled jobs that count as failures: rejected, overdue workflows."""

    def ask(pipe: Pipeline, job_id: str) -> None:
        pipe.hmget(keys.job(job_id), "flowq_rejected", "flowq_nested")
        pipe.hexists(keys.job(f"{job_id}--0"), "flowq_rejected")  # the start, or an item
        pipe.hget(keys.future(job_id), "late")

    return [
        job_id
        for job_id, ((word, is_join), is_start_rejected, late) in read_each(
            job_ids, connection, ask
        )
        if word or (is_join and is_start_rejected) or _is_overdue(late)
    ]


def _is_overdue(late: Any) -> bool:
    """Whether `late` is of a workflow that took too long itself; one inside of it has "the …"."""
    return late is not None and as_text(late).startswith("timed out after")


def is_called_off(job_id: str, run_id: str, connection: Redis) -> bool:
    """Whether the run is being canceled, or the workflow around the job took too long."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.hexists(keys.run(run_id), "canceling")
        pipeline.hget(keys.job(job_id), "flowq_inside")
        is_canceled, inside = pipeline.execute()
    if is_canceled or not inside:
        return bool(is_canceled)
    return bool(connection.hexists(keys.future(as_text(inside)), "late"))


def _is_inside(job_id: str, others: Mapping[str, str]) -> bool:
    """Whether the job belongs to a nested workflow among these, whose own end counts instead."""
    places = (found.start() for found in re.finditer("--", job_id))
    return any(job_id[:at] in others and not job_id[at + 2 :][:1].isdigit() for at in places)


def _find_starts(job_ids: Sequence[str], connection: Redis) -> list[str]:
    """Return those of these jobs that start a nested workflow, whose own end counts instead."""
    answers = read_each(
        job_ids, connection, lambda pipe, job_id: pipe.hget(keys.job(job_id), "flowq_inside")
    )
    return [job for job, (inside,) in answers if inside and job == f"{as_text(inside)}--0"]


def _read_failures(job_ids: Sequence[str], connection: Redis) -> list[dict[str, Any]]:
    names = read_each(
        job_ids,
        connection,
        lambda pipe, job: pipe.hmget(keys.job(job), "flowq_name", "ended_at", "flowq_reason"),
    )
    named = [[as_text(each or b"") for each in fields] for _, (fields,) in names]
    rows = zip(job_ids, named, read_ends(job_ids, connection), strict=True)
    ordered = sorted(rows, key=lambda row: row[1][1])
    return [
        {
            "job": public_name(name) or job_id,
            "error": end.error or ({"type": None, "message": _cut(reason)} if reason else None),
            "exit_code": end.exit_code,
        }
        for job_id, (name, _, reason), end in ordered
    ]
