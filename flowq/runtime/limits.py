"""Explains limits across runs: who has a slot, who waits longer, when a rate allows the next start.

The scripts in `lua/slots.lua` keep them; `runtime.planned` names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from rq.utils import as_text, str_to_date

from flowq.durations import local_time, write_duration
from flowq.runtime import keys
from flowq.runtime.connections import read_each
from flowq.status import public_name

if TYPE_CHECKING:
    from redis import Redis

SHARED = "shared:"
"""The beginning of the name of a limit that `concurrency` makes."""

RATE = "rate:"
"""The beginning of the name of a limit that `rate` makes."""

NAMED = 5
"""How many holders a sentence names before it counts the rest."""


def one_line(name: str) -> str:
    """Return the name of a group as a sentence contains it: as `flowq plan` shows it."""
    return " ".join(name.split())


def is_across_runs(limit: str) -> bool:
    """Whether a limit counts jobs of all runs."""
    return limit.startswith((SHARED, RATE))


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that has a slot; the job that begins a nested workflow has it under that job's name."""

    job_id: str
    run_id: str = ""
    name: str = ""
    since: datetime | None = None
    worker: str = ""

    def __str__(self) -> str:
        who = f"{self.name} of run {self.run_id}" if self.run_id else self.job_id
        since = f" since {local_time(self.since)}" if self.since else ""
        return f"{who}{since}{f' on worker {self.worker}' if self.worker else ''}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits for a limit across runs.

    Shape: `holders` have its slots, the oldest first; of a rate, those that have not started.
    `before` is the number of those that wait longer. `next_at` is when the next start is allowed.
    """

    limit: str
    most: str
    holders: tuple[Holder, ...]
    before: int
    next_at: datetime | None = None

    @property
    def text(self) -> str:
        """Return a sentence about it."""
        name = one_line(unquote(self.limit.partition(":")[2]))
        line = f"; {self.before} before it" if self.before else ""
        held = ", ".join(map(str, self.holders[:NAMED])) + self._more
        if self.limit.startswith(SHARED):
            have = f": {held}" if held else ""
            return f"the `concurrency` group {name} (limit {self.most}) is used up{have}{line}"
        count, _, seconds = self.most.partition("/")
        period = str(write_duration(float(seconds or 1)))
        rate = f"{count}/{period[1:] if period in ('1s', '1m', '1h', '1d') else period}"
        next_at = (
            f": the next start is allowed at {local_time(self.next_at)}" if self.next_at else ""
        )
        have = f"; not started yet: {held}" if held else ""
        return f"the rate {name} ({rate}) is used up{next_at}{have}{line}"

    @property
    def _more(self) -> str:
        more = len(self.holders) - NAMED
        return f" and {more} more" if more > 0 else ""


def find_wait(limit: str, holder_id: str, most: str, connection: Redis) -> Wait | None:
    """Return why a job, or the join that it waits with, waits for a limit; None if it does not.

    `most` is what the job says about its limits, as in its hash.
    """
    before: Any = connection.zrank(keys.waiting(limit), holder_id)
    if before is None:
        return None
    most_by_limit = dict(each.partition("=")[::2] for each in most.split())
    members = [as_text(raw) for raw in connection.sscan_iter(keys.slots(limit))]
    held = [*_read_holders([each for each in members if " " not in each], connection)]
    held.sort(key=lambda each: (each.since or datetime.max.replace(tzinfo=UTC), each.job_id))
    next_at = None
    if limit.startswith(RATE):
        first: Any = connection.zrange(keys.spent(limit), 0, 0, withscores=True)
        next_at = datetime.fromtimestamp(first[0][1], UTC) if first else None
    return Wait(limit, most_by_limit.get(limit, "1"), tuple(held), before, next_at)


_FIELDS = ("flowq_run", "flowq_name", "started_at", "enqueued_at", "worker_name")


def _read_holders(job_ids: list[str], connection: Redis) -> Iterator[Holder]:
    def read(pipe: Any, job_id: str) -> None:
        pipe.hmget(keys.job(job_id), *_FIELDS)
        pipe.hmget(keys.job(f"{job_id}--0"), "flowq_inside", "started_at", "enqueued_at")

    for job_id, (found, start) in read_each(job_ids, connection, read):
        run_id, name, started_at, enqueued_at, worker = (as_text(each or b"") for each in found)
        if start[0] is not None and as_text(start[0]) == job_id:  # it begins the workflow
            started_at, enqueued_at = (as_text(each or b"") for each in start[1:])
        since = started_at or enqueued_at
        at = str_to_date(since) if since else None
        yield Holder(job_id, run_id, public_name(name), at, worker)
