"""What an attempt of a job has printed: its head, its tail and its size, as the server keeps it.

Workers make a `Printed` from the job's scratch file (`flowq/workers/output.py`) and send it with
the end of the attempt, or twice a second while it runs; commands read it. The text is masked
before.

The hash `rq:flowq:1:printed:RUN` has one record for each attempt that has printed, in the field
`JOB:ATTEMPT`: a JSON object in one line, then the text, compressed if that has "z". Only
`lua/printed.lua` writes it, and replaces records for which the run has no memory left. A job can
write anything into its own records, so readers believe nothing of them.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import ResponseError

from flowq.errors import UsageError
from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_each
from flowq.runtime.views import LARGE_BYTES

if TYPE_CHECKING:
    from redis import Redis

HEAD_BYTES = 16_384
TAIL_BYTES = 49_152
"""How much of an attempt's output is kept: 64 kB, most of it from the end, where errors are."""

PACKED_BYTES = 256
"""A longer text is compressed."""

MAX_RECORD_BYTES = HEAD_BYTES + TAIL_BYTES + 2_000
MAX_HEADER_BYTES = 1_000
MAX_SIZE_BYTES = 1 << 50

MAX_ATTEMPTS = 20
"""Of how many attempts of a job the output is read: the newest ones."""

FIELDS_PER_READ = 100

BUDGET_VARIABLE = "FLOWQ_RUN_BUDGET_MB"
MAX_BUDGET_MB = 100_000

Reason = Literal["", "budget", "refused", "unreadable"]


_UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError),
    zlib.error,
)
"""What reading a record may raise: a child may have sent anything."""


class Printed:
    """The output of one attempt: `head`, then `left_out` bytes, then `tail`.

    `size` counts all bytes, after masking. `dropped` says why nothing of them is kept: the run's
    memory `budget` is used up, the server has refused them, or the record cannot be read.
    """

    def __init__(
        self,
        head: bytes = b"",
        tail: bytes = b"",
        size: int = 0,
        dropped: Reason = "",
        budget: int = 0,
    ) -> None:
        self.head = head
        self.tail = tail
        self.size = size
        self.dropped = dropped
        self.budget = budget

    @property
    def left_out(self) -> int:
        """How many bytes between head and tail are not kept."""
        return self.size - len(self.head) - len(self.tail)

    def add(self, text: bytes) -> None:
        """Append text."""
        room = HEAD_BYTES - len(self.head) if self.size == len(self.head) else 0
        self.head += text[:room]
        self.tail = (self.tail + text[room:])[-TAIL_BYTES:]
        self.size += len(text)

    def skip(self, count: int) -> None:
        """Append so many bytes that are not kept."""
        if count > 0:
            self.size += count
            self.tail = b""

    def join(self, later: Printed) -> None:
        """Append the output that follows."""
        self.add(later.head)
        self.skip(later.left_out)
        self.add(later.tail)

    def read_from(self, position: int) -> tuple[bytes, int, bytes]:
        """Return what follows a position: text, how many bytes are not kept, and further text."""
        start, begin = max(position, len(self.head)), self.size - len(self.tail)
        text = self.tail[max(0, start - begin) :]
        return self.head[position:], max(0, begin - start), text

    # As a record --------------------------------------------------------------------------------

    def write(self) -> bytes:
        """Return the record for the server."""
        header: dict[str, Any] = {"bytes": self.size}
        if self.dropped:
            header["dropped"] = self.dropped
            return json.dumps(header, separators=(",", ":")).encode() + b"\n"
        text = self.head + self.tail
        if len(self.head) < self.size:
            header["head"] = len(self.head)
        if len(text) > PACKED_BYTES:
            header["z"] = 1
            text = zlib.compress(text, 1)
        return json.dumps(header, separators=(",", ":")).encode() + b"\n" + text

    @classmethod
    def read(cls, record: bytes) -> Printed:
        """Return what a record says; `dropped` if it is none."""
        line, _, text = record.partition(b"\n")
        try:
            header = json.loads(line[:MAX_HEADER_BYTES])
            size = int(header["bytes"])
            if header.get("z"):
                text = zlib.decompressobj().decompress(text, HEAD_BYTES + TAIL_BYTES)
            text = text[: HEAD_BYTES + TAIL_BYTES]
            at = int(header.get("head", min(len(text), HEAD_BYTES)))
            dropped, budget = str(header.get("dropped", "")), int(header.get("budget", 0))
        except _UNREADABLE:
            return cls(dropped="unreadable")
        if dropped:
            known: dict[str, Reason] = {"budget": "budget", "refused": "refused"}
            return cls(size=max(0, size), dropped=known.get(dropped, "unreadable"), budget=budget)
        if not 0 <= at <= len(text) <= size <= MAX_SIZE_BYTES:
            return cls(dropped="unreadable")
        return cls(text[:at], text[at:], size)

    # As a text in a message -----------------------------------------------------------------------

    def write_text(self) -> str:
        """Return the record as ASCII text; empty if nothing was printed."""
        return b2a_base64(self.write(), newline=False).decode() if self.size else ""


def read_text(text: str) -> bytes:
    """Return the record in a text by `Printed.write_text`; empty if it is none, or too long."""
    try:
        record = b64decode(text, validate=True)
    except ValueError:
        return b""
    return record if len(record) <= MAX_RECORD_BYTES else b""


def read_budget(environment: Mapping[str, str]) -> int | None:
    """Return the memory budget in bytes that `FLOWQ_RUN_BUDGET_MB` sets. Raises UsageError."""
    text = environment.get(BUDGET_VARIABLE, "").strip()
    if not text:
        return None
    with suppress(ValueError):
        if 0 <= float(text) <= MAX_BUDGET_MB:
            return int(float(text) * 1_000_000)
    raise UsageError(
        f"{BUDGET_VARIABLE} must be a number of megabytes from 0 to {MAX_BUDGET_MB:,}, not {text!r}"
    )


def has_memory_for(view: str, run_id: str, connection: Redis) -> bool:
    """Whether a run has memory left for a view that no turn writes; then it is counted."""
    if len(view) <= LARGE_BYTES:
        return True
    try:
        return bool(scripts.CHARGE_VIEW.call(connection, keys.run(run_id), run_id, len(view)))
    except ResponseError:  # the server refuses to write: the end of the job matters more
        return False


PrintedByJob = dict[str, dict[int, Printed]]
"""Outputs by the id of the job and the number of the attempt."""

# Reading ---------------------------------------------------------------------------------------


Places = list[tuple[str, int]]
"""Ids of jobs, and numbers of attempts."""


def read_printed(
    run_id: str,
    job_ids: Iterable[str],
    connection: Redis,
    only_last: bool = False,
    choose: Callable[[Mapping[tuple[str, int], int]], Places] | None = None,
) -> PrintedByJob:
    """Return the output of jobs of a run, by job id and by the number of the attempt.

    Jobs that have printed nothing are left out. With `only_last`, the output of earlier attempts is
    too. With `choose`, only those records are transferred that it chooses by the lengths of all.
    """
    answers = read_each(
        job_ids, connection, lambda pipe, job_id: pipe.hget(keys.job(job_id), "flowq_attempts")
    )
    places = [
        (job_id, number)
        for job_id, (raw,) in answers
        for number in range(_first(int(raw or 0), only_last=only_last), int(raw or 0) + 1)
    ]
    key, found = keys.printed(run_id), PrintedByJob()
    if choose is not None:
        by_field = {_field_of(place): place for place in places}
        lengths = read_each(by_field, connection, lambda pipe, field: pipe.hstrlen(key, field))
        places = choose({by_field[field]: length for field, (length,) in lengths if length})
    for first in range(0, len(places), FIELDS_PER_READ):
        page = places[first : first + FIELDS_PER_READ]
        records: Any = connection.hmget(key, list(map(_field_of, page)))
        for (job_id, number), record in zip(page, records, strict=True):
            if record is not None:
                found.setdefault(job_id, {})[number] = Printed.read(record)
    return found


def _field_of(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _first(last: int, *, only_last: bool) -> int:
    return max(1, last if only_last else last - MAX_ATTEMPTS + 1)


def read_old_keepers(workers: Iterable[str], connection: Redis) -> Mapping[str, str]:
    """Return the kind of those of these workers that keep no output: "older" ones, or "RQ's".

    Of a worker that has ended nothing is known after a minute, so it is left out.
    """
    found: dict[str, str] = {}
    fields = ("birth", "flowq_mode", keys.KEEPS_OUTPUT_FIELD)
    names = sorted({name for name in workers if name})
    for name, ((birth, mode, keeps),) in read_each(
        names, connection, lambda pipe, name: pipe.hmget(keys.worker(name), *fields)
    ):
        if birth is not None and keeps is None:
            found[name] = "RQ's" if mode is None else "older"
    return found
