"""What a supervisor and a child tell each other: the settings once, then a task and an end per job.

`Task` and `End` are plain tuples of plain values, cheap to pickle and the same in every mode.
"""

from __future__ import annotations

import zlib
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rq.defaults import DEFAULT_RESULT_TTL

from flowq.allowed import Allowed
from flowq.runtime.job import Job
from flowq.runtime.maintenance import Lease
from flowq.runtime.queue import Queue
from flowq.texts import show
from flowq.workers.address import Address

MAX_ERROR_BYTES = 10_000_000
"""The most that is read of one error: a small compressed text may expand to gigabytes."""


class Task(NamedTuple):
    """One job as a child gets it. `raw` is the job's hash before it was started, flat."""

    number: int
    job_id: str
    execution_id: str
    queue: str
    raw: list[bytes]


class End(NamedTuple):
    """How one execution ended, as a child (or, for a dead child, the supervisor) reports it.

    Attributes:
        status: finished, failed or stopped.
        how: who writes the end: "turn" flowq's script, "conclude" RQ's own code in a child, "later"
            the same after a pause, because the server did not answer. Or "done": RQ's code has
            written it; "lost": another process has ended the execution; "died": its process died.
        started_at, ended_at: in epoch seconds.
        ttl: as lua/turn_ends.lua takes it.
        field, value: the field of RQ's result entry, and its value.
        is_spent: the child must not get another job.
        view: what commands show of the job (`flowq.runtime.views`).
        code: the code of a job of a run (`flowq.workers.child.code_digest`).
        failure: how it failed (`flowq.runtime.attempts.Failure`); empty if unknown.
        progress: the last report of the job (`flowq.runtime.progress`); empty if there was none.
        printed: what it printed since the supervisor looked (`Printed.write_text`), in a run.
    """

    number: int
    status: str
    how: str = "turn"
    started_at: float = 0.0
    ended_at: float = 0.0
    ttl: str = ""
    field: str = ""
    value: str = ""
    generation: int = 0
    is_spent: bool = False
    view: str = ""
    code: str = ""
    failure: str = ""
    progress: str = ""
    printed: str = ""

    @property
    def error(self) -> str:
        """The error text of a job that did not succeed; else empty.

        A very long text is cut. A note replaces what is not an error text: a child runs user code.
        """
        if self.field != "exc_string":
            return ""
        try:
            packed = b64decode(self.value)
            text = zlib.decompressobj().decompress(packed, MAX_ERROR_BYTES)
        except (ValueError, zlib.error):
            return "its error cannot be read"
        return text.decode(errors="replace")


@dataclass(frozen=True)
class Settings:
    """The settings of a child. Plain values and importable names, because spawn pickles them."""

    worker: str
    address: Address
    job_class: type[Job] = Job
    queue_class: type[Queue] = Queue
    serializer: Any = None
    result_ttl: int = DEFAULT_RESULT_TTL
    exception_handlers: tuple[Callable[..., Any] | str, ...] = ()
    """Handlers, or their names, which are imported when a job has failed."""
    keeps_failures: bool = True
    paths: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    allowed: Allowed | None = None
    scratch_folder: str | None = None
    echoes: bool = True
    json_log_level: str = ""
    """The level of the logs that a child writes as JSON; empty for none."""
    lease: Lease = field(default_factory=Lease)


def failed(
    number: int,
    text: str,
    started_at: float,
    ended_at: float,
    *,
    how: str = "turn",
    ttl: str = "",
    generation: int = 0,
    status: str = "failed",
) -> End:
    """Return the end of a job that did not succeed, with its error text."""
    value = b2a_base64(zlib.compress(show(text).encode()), newline=False).decode()
    return End(number, status, how, started_at, ended_at, ttl, "exc_string", value, generation)
