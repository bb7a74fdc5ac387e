"""How single jobs ended, as data: what expressions, and jobs under `finally`, see of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.outcomes import read_traceback

if TYPE_CHECKING:
    from redis import Redis

ENDS_PER_READ = 500
MAX_MESSAGE = 1_000
"""How much is kept of an error's message. Units: characters."""

MAX_FAILURES = 100
"""How many failures of a run are kept for its jobs under `finally`."""

_FAILED = frozenset({"failed", "stopped", "expired", "tolerated"})
_BAD = frozenset({"failed", "stopped", "expired", "deleted", "canceled"})
_FIELDS = ("flowq_outcome", "flowq_reason", "flowq_attempts", keys.VIEW_FIELD, "started_at")
_HEAD = "Traceback (most recent call last):"
_LAST_LINE = re.compile(r"([A-Za-z_][\w.]*)(?:: ?(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended.

    Shape: `outcome` is empty for one that has not ended, or is gone. `error_type` is the name of
    the exception's class, None where there was no exception (a worker was lost, an approval
    expired); `message` is None for a job that has not failed. `exit_code` is that of a command.
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
    """Yield how jobs ended, in that order; a job that is gone is as one that has not begun."""
    for first in range(0, len(job_ids), ENDS_PER_READ):
        some = job_ids[first : first + ENDS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hmget(keys.job(job_id), _FIELDS)
                pipeline.xrevrange(keys.results(job_id), count=1)
            answers = pipeline.execute()
        for job_id, fields, entries in zip(some, answers[::2], answers[1::2], strict=True):
            yield _read_end(job_id, fields, entries, connection)


def _read_end(
    job_id: str, fields: Sequence[bytes | None], entries: Any, connection: Redis
) -> JobEnd:
    outcome, reason, attempts, view, started_at = (as_text(each or b"") for each in fields)
    # Older versions did not count.
    count = int(attempts) if attempts else int(bool(started_at))
    if outcome == "passed":  # its `if` was asked, which is no attempt
        count = 0
    code = json.loads(view).get("exit_code") if view else None
    if outcome not in _FAILED:
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
    """Return the error of a job that raised none: a nested workflow has one inside."""
    culprit = connection.hget(keys.future(job_id), "culprit")
    inside = read_end(as_text(culprit).split()[0], connection) if culprit else JobEnd()
    reason = reason.removeprefix("tolerated").removeprefix(": ")
    return inside.error_type, _cut(": ".join(filter(None, (reason, inside.message))))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def read_run_end(final_id: str, run_id: str, connection: Redis) -> dict[str, Any]:
    """Return how the jobs ended that a job under `finally` waits for: all others of its workflow.

    Shape: `status` as that of a run, were these all its jobs; `canceled` says whether one of them
    was, or all were, and `has_failed` whether one has failed; `failures` with the job's name, its
    `error` and `exit_code`, in the order in which they ended, `MAX_FAILURES` at most. A job that
    was rejected is among them.
    """
    ended = {
        as_text(blocker): as_text(outcome).rstrip("!")
        for blocker, outcome in connection.hgetall(keys.edges(final_id)).items()
    }
    own = {job_id: outcome for job_id, outcome in ended.items() if not _is_inside(job_id, ended)}
    is_canceled = is_called_off(final_id, run_id, connection)
    bad = [job_id for job_id, outcome in own.items() if outcome in _BAD]
    state = ("canceled" if is_canceled else "failed") if bad else "succeeded"
    rejected = _find_rejected([each for each in bad if own[each] == "canceled"], connection)
    failed = [each for each in bad if own[each] != "canceled"]
    told = sorted([*failed, *rejected])[:MAX_FAILURES]
    return {
        "status": state,
        "canceled": is_canceled or "canceled" in own.values(),
        "has_failed": bool(failed),
        "failures": _read_failures(told, connection),
    }


def _find_rejected(job_ids: Sequence[str], connection: Redis) -> frozenset[str]:
    """Return those of some canceled jobs that somebody has rejected."""
    found: set[str] = set()
    for first in range(0, len(job_ids), ENDS_PER_READ):
        some = job_ids[first : first + ENDS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hexists(keys.job(job_id), "flowq_rejected")
            answers = pipeline.execute()
        found.update(job_id for job_id, is_there in zip(some, answers, strict=True) if is_there)
    return frozenset(found)


def is_called_off(job_id: str, run_id: str, connection: Redis) -> bool:
    """Whether the run is being canceled, or the workflow that the job is inside of is late."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.hexists(keys.run(run_id), "canceling")
        pipeline.hget(keys.job(job_id), "flowq_inside")
        is_canceled, inside = pipeline.execute()
    if is_canceled or not inside:
        return bool(is_canceled)
    return bool(connection.hexists(keys.future(as_text(inside)), "late"))


def _is_inside(job_id: str, others: Mapping[str, str]) -> bool:
    """Whether it is a job of a nested workflow among these, which counts as the workflow ended."""
    places = (found.start() for found in re.finditer("--", job_id))
    return any(job_id[:at] in others and not job_id[at + 2 :][:1].isdigit() for at in places)


def _read_failures(job_ids: Sequence[str], connection: Redis) -> list[dict[str, Any]]:
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hmget(keys.job(job_id), "flowq_name", "ended_at", "flowq_reason")
        named = [[as_text(each or b"") for each in fields] for fields in pipeline.execute()]
    rows = zip(job_ids, named, read_ends(job_ids, connection), strict=True)
    ordered = sorted(rows, key=lambda row: row[1][1])
    return [
        {
            "job": name or job_id,
            "error": end.error or ({"type": None, "message": _cut(reason)} if reason else None),
            "exit_code": end.exit_code,
        }
        for job_id, (name, _, reason), end in ordered
    ]
