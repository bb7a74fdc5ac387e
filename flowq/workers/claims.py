"""A job that this worker has claimed, from the claim until Redis has confirmed its end.

Only the methods of `Claim` change a claim. The supervisor (turns.py, children.py, monitor.py) calls
them; children get `Claim.message`, and send an `End` back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rq.timeouts import JobTimeoutException

from flowq.runtime.attempts import TIMED_OUT, Failure, as_exit_code, shorten
from flowq.runtime.printed import Printed, read_text
from flowq.runtime.views import Shown
from flowq.workers.messages import End, failed

NOT_ENDED = End(0, "")
DEFAULT_TIMEOUT_S = 180


@dataclass(slots=True)
class Claim:
    """A claimed job, and in `end` how it ended, once it has.

    Attributes:
        number: rises in the order in which jobs are handed to children.
        raw: the job's hash as it was claimed, flat.
        kind: what durations are estimated by, usually the name of the function.
        timeout_s: None for no limit.
        is_light: Redis has no records of the execution yet.
        is_plain: the end needs few checks (lua/turn_claims.lua).
        claimed_at: in epoch seconds.
        handed_at: on the monotonic clock.
        stop_asked: a user has stopped the job, so "stopped" is its end, whatever happens to it.
        tries: how many children were asked to conclude it.
        began_at: when it began, in epoch seconds; 0 if it has not, or that was not reported yet.
        pid: the process that began it; 0 likewise.
        progress: what the job has reported of its progress.
        is_known_to_wait: whether Redis has recorded that it has not begun; else it takes that to
            have happened, but for light ones.
        printed: what its job has printed so far, if it was looked at while it ran.
        has_news: there is more of that than Redis has.
        is_in_redis: Redis has some of it.
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
    began_at: float = 0.0
    pid: int = 0
    is_known_to_wait: bool = False
    progress: str = ""
    printed: Printed | None = None
    has_news: bool = False
    is_in_redis: bool = False

    # What its hash says ------------------------------------------------------------------------

    def find(self, name: str) -> str:
        """Return a field of the job's hash as it was claimed; empty when it is missing."""
        return _find(self.raw, self.raw[::2], name.encode()).decode(errors="replace")

    @property
    def log_fields(self) -> dict[str, Any]:
        """What a log record about it has beside its message (`flowq.workers.logs`)."""
        run_id, attempts = self.find("flowq_run"), self.find("flowq_attempts")
        return {
            "queue": self.queue,
            "job_id": self.job_id,
            "run": run_id or None,
            "job": self.find("flowq_name") or None,
            "attempt": int(attempts or 0) + 1 if run_id else None,
        }

    @property
    def message(self) -> tuple[int, str, str, str, list[bytes]]:
        """The fields of its `Task`; pickling a plain tuple takes a third of the time."""
        return self.number, self.job_id, self.execution_id, self.queue, self.raw

    @property
    def size_bytes(self) -> int:
        """The approximate size of the message."""
        return sum(map(len, self.raw))

    @property
    def marks(self) -> str:
        """The current marks, in the form in which `make_claim` gets them."""
        return ("l" if self.is_light else "") + ("p" if self.is_plain else "") or "-"

    # Before its end ----------------------------------------------------------------------------

    def hand_over(self, number: int, at: float) -> None:
        """Note that a child gets it, under this number."""
        self.number, self.handed_at = number, at

    def make_heavy(self) -> bool:
        """Have the next heartbeat record the execution in Redis; False if that was done."""
        was_light, self.is_light = self.is_light, False
        return was_light

    def note_begun(self, at: float, pid: int) -> None:
        """Note that a process has begun it. Units: `at` in epoch seconds."""
        if not self.began_at:  # or the instant would move with the two clocks
            self.began_at, self.pid = at, pid

    def note_recorded(self, *, is_waiting: bool) -> None:
        """Note that Redis has recorded whether it has yet to begin."""
        self.is_known_to_wait = is_waiting

    def note_progress(self, text: str) -> bool:
        """Note what the job has reported of its progress; False if that was noted before."""
        is_new, self.progress = text != self.progress, text
        return is_new

    def ask_to_stop(self) -> None:
        """Note that a user has stopped it."""
        self.stop_asked = True

    # What it prints -----------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run that it belongs to; empty if none."""
        return self.find("flowq_run")

    def print_more(self, part: Printed) -> None:
        """Note what its job has printed since the last call."""
        self.printed = self.printed or Printed()
        self.printed.join(part)
        self.has_news = self.has_news or part.size > 0

    def print_rest(self, part: Printed) -> None:
        """Note what its process has left behind; only jobs of runs have a place for it."""
        if self.run_id:
            self.print_more(part)

    @property
    def record(self) -> bytes:
        """What `lua/printed.lua` takes: the number of the attempt, and a record of its output.

        Empty if nothing was printed. A child may send anything as output: that is not read here,
        but becomes the text of this attempt alone.
        """
        if self.printed is not None:
            own = self.printed.write() if self.printed.size else b""
        else:
            own = read_text(self.end.printed)
        number = int(self.find("flowq_attempts") or 0) + 1
        return b"%d\n%s" % (number, own) if own else b""

    def note_kept(self) -> None:
        """Note that Redis has what was printed so far."""
        self.has_news, self.is_in_redis = False, True

    def forget_printed(self) -> None:
        """Forget what it printed: Redis has all of it that it will get."""
        self.printed, self.has_news = None, False
        self.change_end(printed="")

    def drop_printed(self) -> None:
        """Keep nothing but the size of what it printed: the server has refused it."""
        own = Printed.read(read_text(self.end.printed)) if self.end.printed else Printed()
        size = own.size + (self.printed.size if self.printed else 0)
        self.printed = Printed(size=size, dropped="refused") if size else None
        self.change_end(printed="")

    # Its end -----------------------------------------------------------------------------------

    def finish(self, end: End) -> None:
        """Note how it ended."""
        if self.printed is not None and end.printed:
            self.printed.join(Printed.read(read_text(end.printed)))
            end = end._replace(printed="")
        self.end = end

    def change_end(self, **changes: Any) -> None:
        """Change some fields of its end."""
        self.end = self.end._replace(**changes)

    def describe_death(
        self,
        how: str,
        tail: str,
        seconds: float,
        code: int | None = None,
        *,
        is_late: bool = False,
    ) -> End:
        """Return its end after its process has ended: by itself, or killed by us or the system.

        Args:
            how: a sentence.
            tail: the end of the job's output.
            seconds: how long it had run.
            code: what `Process.find_end` returned; None if the job had no process.
            is_late: it was killed because it had exceeded its timeout.
        """
        now = time.time()
        if is_late:
            line = f"{JobTimeoutException.__name__}: {how}"
            text = f"{JobTimeoutException.__module__}.{line}"
        else:
            line = text = (
                how if self.stop_asked else f"The process of the job ended unexpectedly: {how}"
            )
        if tail:
            text += f"\n\nIts last output:\n{tail}"
        end = failed(self.number, text, now - seconds, now, how="died")
        if self.stop_asked:
            return end._replace(status="stopped")
        if code is None:
            return end
        failure = TIMED_OUT if is_late else Failure(exit_code=as_exit_code(code))
        failure = replace(failure, error=shorten(line.partition("\n")[0]))
        shown = Shown(exit_code=failure.exit_code, failure=failure.write())
        view = shown.at_end("failed") if self.find("flowq_run") else ""
        return end._replace(failure=shown.failure, view=view)

    def complete_end(self) -> None:
        """Add what a child would have reported to an end that the supervisor has described."""
        generation = int(self.find("flowq_gen") or 0)
        self.change_end(ttl=self.find("failure_ttl"), generation=generation, how="turn")

    @property
    def needs_rq(self) -> bool:
        """Whether only RQ's own code can write its end, if its process died.

        `child/execute.py` decides this for the ends that children report.
        """
        if self.end.status == "stopped" or int(self.find("retries_left") or 0) > 0:
            return True
        failure_ttl = self.find("failure_ttl")
        is_short_lived = failure_ttl != "" and int(failure_ttl) <= 0
        return is_short_lived or bool(self.find("rate_limit_key") or self.find("webhooks"))

    def count_try(self, by: int) -> None:
        """Note that a child was asked to conclude it (1), or died before it began that (-1)."""
        self.tries += by

    def forget_tries(self) -> None:
        """Reset the number of children that were asked to conclude it."""
        self.tries = 0


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
    """Return the claim for what the script answered; lua/turn_claims.lua explains the `marks`."""
    names = flat[::2]
    timeout_s = float(_find(flat, names, b"timeout") or DEFAULT_TIMEOUT_S)
    # Positional arguments: keywords would take as long as everything else here together.
    return Claim(
        number,
        job_id,
        execution_id,
        queue,
        flat,
        _kind_of(_find(flat, names, b"description"), queue),
        timeout_s if timeout_s > 0 else None,
        b"l" in marks,
        b"p" in marks,
        claimed_at,
    )


def _find(flat: list[bytes], names: list[bytes], name: bytes) -> bytes:
    return flat[2 * names.index(name) + 1] if name in names else b""


@lru_cache(maxsize=256)
def _kind_of(description: bytes, queue: str) -> str:
    # Must agree with lua/turn_claims.lua: the function, as RQ's default description shows it.
    name, parenthesis, _ = description.partition(b"(")
    return name.decode(errors="replace") if name and parenthesis else queue
