"""`job.blockers`: how the blockers of a future job have ended, read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from rq.results import Result
from rq.utils import as_text

from flowq.runtime import keys

if TYPE_CHECKING:
    from redis import Redis

BLOCKERS_PER_READ = 250

RUNNING = "running"
"""The status of a blocker that had not ended when the job has started that asks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one blocker has ended, or its current status.

    `status` is its outcome (finished, failed, stopped, canceled, skipped, expired, deleted), or
    RQ's status until it has ended; `running` if it had not when a job with `start_when` started.
    `error` is the message at the end of `traceback`; both are empty unless it failed.
    """

    job_id: str
    name: str
    status: str
    result: Any = None
    error: str = ""
    traceback: str = ""


class Blockers(Sequence[Outcome]):
    """The outcomes of a future job's blockers, in the order in which they were added.

    Reads `BLOCKERS_PER_READ` at a time and keeps only these, so that a loop over 10,000 results
    does not hold all of them. Includes blockers that were deleted.
    """

    def __init__(self, future_id: str, connection: Redis, serializer: Any) -> None:
        self._future_id = future_id
        self._connection = connection
        self._serializer = serializer
        self._page: tuple[int, list[Outcome]] = (0, [])

    def __len__(self) -> int:
        return int(self._connection.llen(keys.blockers(self._future_id)))

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        first = index - index % BLOCKERS_PER_READ
        at, page = self._page
        if at != first or not 0 <= index - at < len(page):
            page = self._read(first) if index >= 0 else []
            self._page = (first, page)
        if not 0 <= index - first < len(page):
            raise IndexError(f"{self._future_id} has no blocker {index}")
        return page[index - first]

    def __iter__(self) -> Iterator[Outcome]:
        first, page = 0, self._read(0)
        while page:
            yield from page
            first += BLOCKERS_PER_READ
            page = self._read(first) if len(page) == BLOCKERS_PER_READ else []

    def _read(self, first: int) -> list[Outcome]:
        last = first + BLOCKERS_PER_READ - 1
        listed: Any = self._connection.lrange(keys.blockers(self._future_id), first, last)
        ids = [as_text(job_id) for job_id in listed]
        if not ids:
            return []
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(keys.edges(self._future_id), ids)
            for job_id in ids:
                pipeline.hmget(keys.job(job_id), "status", "flowq_name", "flowq_serializer")
                pipeline.xrevrange(keys.results(job_id), count=1)
            edges, *answers = pipeline.execute()
        rows = zip(ids, edges, answers[::2], answers[1::2], strict=True)
        outcomes = [self._outcome(*row) for row in rows]
        is_undecided = [as_text(edge or b"").startswith("pending") for edge in edges]
        future = keys.future(self._future_id)
        if any(is_undecided) and self._connection.hexists(future, "decided"):
            return [
                Outcome(each.job_id, each.name, RUNNING) if is_open else each
                for each, is_open in zip(outcomes, is_undecided, strict=True)
            ]
        return outcomes

    def _outcome(
        self,
        job_id: str,
        edge: bytes | None,
        fields: Sequence[bytes | None],
        entries: Sequence[tuple[Any, dict[Any, Any]]],
    ) -> Outcome:
        outcome = as_text(edge or b"deleted").rstrip("!")
        status, name, serializer = (as_text(field or b"") for field in fields)
        if outcome == "pending":
            return Outcome(job_id, name or job_id, status or "deleted")
        done = Outcome(job_id, name or job_id, outcome)
        if not entries or outcome not in ("finished", "failed", "stopped"):
            return done
        loads = serializer or self._serializer
        entry_id, payload = entries[0]
        kept = Result.restore(job_id, as_text(entry_id), payload, self._connection, loads)
        if outcome == "finished":
            return Outcome(job_id, done.name, outcome, result=kept.return_value)
        text = (kept.exc_string or "").strip()
        return Outcome(job_id, done.name, outcome, None, last_message(text), text)


def last_message(traceback: str) -> str:
    """Return the message at the end of a traceback: its last line with the indented ones below."""
    lines = traceback.strip().splitlines() or [""]
    first = len(lines) - 1
    while first and lines[first].startswith(" "):
        first -= 1
    return "; ".join(line.strip() for line in lines[first:])
