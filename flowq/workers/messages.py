"""What passes between Redis, the supervisor and a child: claims of jobs, and their ends.

A claim becomes a message to a child (`Claim.message`), and the child answers with an `End`; both
are plain tuples of plain values, cheap to pickle and the same in every mode.
"""

from __future__ import annotations

import zlib
from base64 import b64decode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

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
