"""The values exchanged between Redis, the supervisor and a child: claims of jobs, and their ends.

A claim becomes a message to a child (`Claim.message`), and the child answers with an `End`; both
are plain tuples of plain values, cheap to pickle and the same in every mode.
"""

from __future__ import annotations

import time
import zlib
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from rq.defaults import DEFAULT_RESULT_TTL

from flowq.allowed import Allowed
from flowq.runtime.attempts import TIMED_OUT, Failure, as_exit_code
from flowq.runtime.job import Job
from flowq.runtime.maintenance import Lease
from flowq.runtime.queue import Queue
from flowq.runtime.views import Shown
from flowq.texts import show
from flowq.workers.address import Address

MAX_ERROR_BYTES = 10_000_000
"""What is read of one error; packed it may be little that becomes much."""


class Task(NamedTuple):
    """One job as a child gets it. Shape: `raw` is the job's hash before it was started, flat."""

    number: int
    job_id: str
    execution_id: str
    queue: str
    raw: list[bytes]


class End(NamedTuple):
    """How one execution ended, as a child (or, for a dead child, the supervisor) reports it.

    `status` is finished, failed or stopped; `how` says who writes it: "turn" our script,
    "conclude" RQ's own code in a child, "later" the same when the server answers again, "done" it
    has been written already, "lost" somebody else ended it, "died" the supervisor says so.
    Units: instants in epoch seconds; `ttl` as the script takes it. `field` and `value` are what the
    result entry holds, `view` what is shown of the job. `is_spent`: the child must not get another
    job. `code`: what a job of a run was made of, as `flowq.workers.child.code_digest` describes it.
    `failure`: how it failed, as `flowq.runtime.attempts` writes it; empty where nobody knows.
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

    @property
    def error(self) -> str:
        """The text that the result of a job keeps that did not succeed; else empty. Of what is
        very long this is the beginning; of what is no such text (a child runs the code of users),
        a remark."""
        if self.field != "exc_string":
            return ""
        try:
            packed = b64decode(self.value)
            text = zlib.decompressobj().decompress(packed, MAX_ERROR_BYTES)
        except (ValueError, zlib.error):
            return "its error cannot be read"
        return text.decode(errors="replace")


NOT_ENDED = End(0, "")


@dataclass(slots=True)
class Claim:
    """A job that this worker has claimed, and in `end` how it has ended, once it has.

    Numbers rise in the order of handing over. `timeout_s` is None for no limit, `handed_at` on the
    monotonic clock. `is_light`: Redis has no records of the execution yet. `is_plain`: its end has
    to look at little (lua/turn_claims.lua). `tries` counts the children that were asked to
    conclude it.
    """

    number: int
    job_id: str
    execution_id: str
    queue: str
    raw: list[bytes]
    kind: str
    timeout_s: float | None
    is_light: bool = False
    is_plain: bool = False
    claimed_at: float = 0.0
    handed_at: float = 0.0
    end: End = NOT_ENDED
    stop_asked: bool = False
    tries: int = 0

    def hand_over(self, number: int, at: float) -> None:
        """A child gets it, as its job with this number."""
        self.number, self.handed_at = number, at

    def make_heavy(self) -> bool:
        """Let Redis hear of the execution with the next heartbeat; False when it has already."""
        was_light, self.is_light = self.is_light, False
        return was_light

    def ask_to_stop(self) -> None:
        """However it ends from now on, it was stopped by a user."""
        self.stop_asked = True

    def finish(self, end: End) -> None:
        """It has ended like this."""
        self.end = end

    def change_end(self, **changes: Any) -> None:
        """Change some fields of its end."""
        self.end = self.end._replace(**changes)

    def count_try(self, by: int) -> None:
        """A child is asked to conclude it (1), or was not able to begin that (-1)."""
        self.tries += by

    def forget_tries(self) -> None:
        """Let as many children try to conclude it as if none had been asked."""
        self.tries = 0

    @property
    def message(self) -> tuple[int, str, str, str, list[bytes]]:
        """The fields of its `Task`; a plain tuple is pickled in a third of the time."""
        return self.number, self.job_id, self.execution_id, self.queue, self.raw

    def find(self, name: str) -> str:
        """Return a field of the job's hash as it was claimed; empty when it is not there."""
        for index in range(0, len(self.raw), 2):
            if self.raw[index] == name.encode():
                return self.raw[index + 1].decode(errors="replace")
        return ""

    @property
    def marks(self) -> str:
        """What `make_claim` was given, as it is now."""
        return ("l" if self.is_light else "") + ("p" if self.is_plain else "") or "-"

    @property
    def size_bytes(self) -> int:
        """About how long the message is."""
        return sum(map(len, self.raw))


@dataclass(slots=True)
class Turn:
    """What one turn brought. Shape: `answers` in the order of the ends given. `has_left`: there
    are more jobs than were asked for."""

    answers: list[str]
    claims: list[Claim] = field(default_factory=list)
    held: int = 0
    is_suspended: bool = False
    has_left: bool = False


DEFAULT_TIMEOUT_S = 180


def make_claim(
    number: int,
    job_id: str,
    execution_id: str,
    queue: str,
    flat: list[bytes],
    *,
    marks: bytes,
    claimed_at: float,
) -> Claim:
    """Return the claim for what the script answered, with the `marks` of lua/turn_claims.lua."""
    names = flat[::2]
    kind = _kind_of(_find(flat, names, b"description"), queue)
    timeout_s = _timeout_of(_find(flat, names, b"timeout"))
    is_light, is_plain = b"l" in marks, b"p" in marks
    # By position: names take as long as all the rest.
    return Claim(
        number, job_id, execution_id, queue, flat, kind, timeout_s, is_light, is_plain, claimed_at
    )


def _find(flat: list[bytes], names: list[bytes], name: bytes) -> bytes:
    return flat[2 * names.index(name) + 1] if name in names else b""


@lru_cache(maxsize=256)
def _kind_of(description: bytes, queue: str) -> str:
    # The same in lua/turn_claims.lua: the function, as RQ's default description shows it.
    name, parenthesis, _ = description.partition(b"(")
    return name.decode(errors="replace") if name and parenthesis else queue


def _timeout_of(text: bytes) -> float | None:
    timeout_s = float(text or DEFAULT_TIMEOUT_S)
    return timeout_s if timeout_s > 0 else None


@dataclass(frozen=True)
class Settings:
    """What a child has to know. Plain values and importable names, because spawn pickles it."""

    worker: str
    address: Address
    job_class: type[Job] = Job
    queue_class: type[Queue] = Queue
    serializer: Any = None
    result_ttl: int = DEFAULT_RESULT_TTL
    exception_handlers: tuple[Callable[..., Any], ...] = ()
    keeps_failures: bool = True
    paths: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    allowed: Allowed | None = None
    scratch_folder: str | None = None
    log_folder: str | None = None
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
    """Return the end of a job that did not succeed, with the text that its result keeps."""
    value = b2a_base64(zlib.compress(show(text).encode()), newline=False).decode()
    return End(number, status, how, started_at, ended_at, ttl, "exc_string", value, generation)


def died(claim: Claim, how: str, tail: str, seconds: float, code: int | None = None) -> End:
    """Return the end of a job whose process was ended: by itself, by us, or by the system.

    `code` is what `Process.find_end` returned, None where no process of the job has ended.
    """
    now = time.time()
    is_late = how.startswith("rq.")
    text = (
        how if claim.stop_asked or is_late else f"The process of the job ended unexpectedly: {how}"
    )
    if tail:
        text += f"\n\nThe last that it wrote:\n{tail}"
    end = failed(claim.number, text, now - seconds, now, how="died")
    if claim.stop_asked:
        return end._replace(status="stopped")
    if code is None:
        return end
    failure = TIMED_OUT if is_late else Failure(exit_code=as_exit_code(code))
    shown = Shown(exit_code=failure.exit_code, failure=failure.write())
    view = shown.at_end("failed") if claim.find("flowq_run") else ""
    return end._replace(failure=shown.failure, view=view)


def needs_conclusion(claim: Claim) -> bool:
    """Whether RQ's own code has to end a job whose process died."""
    if claim.end.status == "stopped" or int(claim.find("retries_left") or 0) > 0:
        return True
    failure_ttl = claim.find("failure_ttl")
    is_short_lived = failure_ttl != "" and int(failure_ttl) <= 0
    return is_short_lived or bool(claim.find("rate_limit_key") or claim.find("webhooks"))


def complete(claim: Claim) -> End:
    """Return an end that no child has reported, as our script takes it."""
    generation = int(claim.find("flowq_gen") or 0)
    return claim.end._replace(ttl=claim.find("failure_ttl"), generation=generation, how="turn")
