"""How an attempt of a job failed, and whether another one follows (`lua/retries.lua` decides).

Children and the supervisor describe each failed attempt by a `Failure`, which the script compares
with the policy of the job. `RetriedJob`, the base of `flowq.Job`, calls the script and passes its
decision to RQ. `policies.py` writes the policy.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rq.timeouts import JobTimeoutException
from rq.utils import as_text, utcformat

from flowq.callables import names_of_exception
from flowq.durations import write_wait
from flowq.errors import DoNotRetry, RetryLater, ShellFailed, describe_exit
from flowq.runtime import scripts
from flowq.runtime.rq import JobBase
from flowq.runtime.views import Shown
from flowq.texts import show

if TYPE_CHECKING:
    from redis.client import Pipeline


log = logging.getLogger("rq.worker")

MAX_NAMES = 40

MAX_ERROR = 200
"""The maximum length of `Failure.error`. Units: characters."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, as `lua/retries.lua` compares it with a policy.

    Attributes:
        names: the names of the exception's class and its bases; empty if a process died.
        exit_code: of a command, or of the job's process, as a shell has it.
        later_s: after how many seconds the code requests another attempt.
        is_final: the code forbids another attempt.
        error: one line for readers: the exception's class, and the first line of its message.
    """

    names: tuple[str, ...] = ()
    exit_code: int | None = None
    later_s: float | None = None
    is_final: bool = False
    error: str = ""

    @classmethod
    def of(cls, error: BaseException | None) -> Failure:
        """Return the failure for an exception."""
        if error is None:
            return cls()
        bases = (kind for kind in type(error).__mro__ if issubclass(kind, BaseException))
        names = [show(name) for kind in bases for name in names_of_exception(kind)]
        return cls(
            tuple(dict.fromkeys(names))[:MAX_NAMES],
            as_exit_code(error.exit_code_of_command) if isinstance(error, ShellFailed) else None,
            error.seconds if isinstance(error, RetryLater) else None,
            isinstance(error, DoNotRetry),
            _first_line(error),
        )

    @property
    def asks(self) -> bool:
        """Whether the code itself requests or forbids another attempt."""
        return self.is_final or self.later_s is not None

    @property
    def brief(self) -> str:
        """The failure in a few words: `ConnectionError`, `exit code 137 (killed by SIGKILL)`."""
        if self.exit_code is not None:
            return describe_exit(self.exit_code)
        return self.names[0].rpartition(":")[2] if self.names else "it failed"

    def write_cause(self) -> str:
        """Return as JSON what the decision about another attempt needs."""
        return replace(self, error="").write()

    def write(self) -> str:
        """Return it as JSON, which Lua reads: all texts in it are UTF-8."""
        parts: dict[str, object] = {"names": self.names}
        if self.exit_code is not None:
            parts["exit_code"] = self.exit_code
        if self.later_s is not None:
            parts["later"] = self.later_s
        if self.is_final:
            parts["final"] = True
        if self.error:
            parts["error"] = self.error
        return json.dumps(parts)

    @classmethod
    def read(cls, text: str) -> Failure | None:
        """Return a failure from JSON; None for an empty or invalid text."""
        try:
            parts = json.loads(text) if text else {}
            names = tuple(show(str(name)) for name in parts["names"])[:MAX_NAMES]
            code, later = parts.get("exit_code"), parts.get("later")
            later_s = None if later is None else RetryLater(later).seconds
            exit_code = None if code is None else int(code)
            error = shorten(str(parts.get("error", "")))
            return cls(names, exit_code, later_s, bool(parts.get("final")), error)
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None


def _first_line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - code of users
        said = ""
    line = next((each.strip() for each in said[:10_000].splitlines() if each.strip()), "")
    return shorten(f"{name}: {line}" if line else name)


def shorten(line: str) -> str:
    r"""Return the part of an error's line that is stored, with `\xe9` for a byte that is no text.

    A half of a surrogate pair would make the JSON of a failure unreadable for Lua.
    """
    line = show(line)
    return line if len(line) <= MAX_ERROR else f"{line[: MAX_ERROR - 1]}…"


TIMED_OUT = Failure.of(JobTimeoutException())
"""A job that went on beyond its timeout, and was killed."""


def as_exit_code(code: int) -> int:
    """Return an exit code as a shell has it: 137 for a program that signal 9 has ended."""
    return code if code >= 0 else 128 - code


# A job that may be tried again ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _NextTry:
    """The decision about another attempt of a job.

    Attributes:
        is_due: whether there is one.
        wait_s: the pause before it; None for RQ's.
        since: the instant, on the server's clock, from which `within` counts.
        why_not: why there is none; empty if that needs no explanation.
    """

    is_due: bool = True
    wait_s: float | None = None
    since: str = ""
    why_not: str = ""


class RetriedJob(JobBase):
    """A job that may be tried again when it has failed.

    When RQ ends a failed attempt, in any worker, it reads `should_retry` and then calls
    `get_retry_interval`. The failure was noted before, where the exception was caught or the death
    of the process was noticed.
    """

    run_id: str = ""
    attempt: int = 1
    """Which of the job's starts this is, in its run; 1 outside of runs."""
    failure: Failure | None = None
    """How this attempt has failed; None if it has not, or if it is unknown."""
    _has_ended_attempt: bool = False
    _next_try: _NextTry | None = None
    _wait_s: float = 0
    _shown: Shown | None

    @property
    def shown(self) -> Shown:
        """What commands show of this execution, to be stored at its end."""
        if self._shown is None:
            self._shown = Shown()
        return self._shown

    def describe_next_try(self) -> str:
        """Return when the next attempt starts, and why; empty if there is none."""
        if self._next_try is None:
            return ""
        again = f"again in {write_wait(self._wait_s)}" if self._wait_s else "again"
        failed = f"attempt {self.attempt} failed"
        return f"{failed}: {self.failure.brief}; {again}" if self.failure else f"{failed}; {again}"

    def note_failure(self, error: BaseException | None) -> None:
        """Note the error of this attempt; the first one counts."""
        self._has_ended_attempt = True
        if self.failure is None:
            failure = Failure.of(error)
            self.failure = replace(failure, error=self.shown.hide(failure.error))
            self.shown.failure = self.failure.write()

    def note_end_of_attempt(self, failure: Failure | None, text: str) -> None:
        """Note that an execution in another process has ended, and its failure, if any.

        `text` is the error text that RQ stores; its first line is used if no exception is known.
        """
        self._has_ended_attempt, self.failure = True, failure
        self.shown.error = shorten(text.partition("\n")[0])

    @property
    def took_ms(self) -> str:
        """The duration of the execution that has just ended; "" if unknown."""
        if self.started_at is None or self.ended_at is None or self.ended_at < self.started_at:
            return ""  # there may be the end of an earlier one
        return f"{(self.ended_at - self.started_at).total_seconds() * 1000:.3f}"

    def describe_attempt(self) -> dict[str, str]:
        """Return the fields of the run's event about an attempt that another one follows."""
        if not self._has_ended_attempt or not self.took_ms or self.started_at is None:
            return {}
        told = {"began_at": utcformat(self.started_at), "took_ms": self.took_ms}
        failure = self.failure or Failure()
        if error := failure.error or self.shown.error:
            code = "" if failure.exit_code is None else str(failure.exit_code)
            told |= {"error": error, "exit_code": code}
        return told

    def explain_last_attempt(self, error: BaseException | None) -> None:
        """Add a note to an error that requests another attempt, if there is none."""
        if isinstance(error, RetryLater) and not self.retries_left:
            has_some = "left" if self.retry_intervals else "declared"
            error.add_note(f"it is not tried again: no `retries` are {has_some}")

    @property
    def should_retry(self) -> bool:
        """Whether a retry follows the failure; not in a run that is being canceled.

        `lua/retries.lua` decides, unless the job only has a number of retries. Source: RQ reads
        this whenever a job has failed. `note_retry` handles a cancel between this and the end.
        """
        if not super().should_retry:
            return False
        asks = self.failure is not None and self.failure.asks
        if self.run_id or self.retry_policy or asks:
            self._next_try = self._find_next_try()
            return self._next_try.is_due
        return True

    def _find_next_try(self) -> _NextTry:
        policy, failure, left = self.retry_policy, self.failure, self.retries_left or 0
        used = max(0, json.loads(policy)["max"] - left) if policy else 0
        began_at = self.started_at or datetime.now(UTC)
        age_s = max(0.0, (datetime.now(UTC) - began_at).total_seconds())
        answer = scripts.MAY_RETRY.call(
            *(self.connection, self.key, self.id),
            *(policy, failure.write_cause() if failure else "", used, f"{age_s:.6f}"),
        )
        is_due, *rest = map(as_text, answer)
        if is_due == "0":
            return _NextTry(is_due=False, why_not=rest[0])
        return _NextTry(wait_s=float(rest[0]) if rest[0] else None, since=rest[1])

    def get_retry_interval(self) -> float:  # type: ignore[override]  # RQ counts with any number
        """Return the seconds before the next attempt."""
        next_try = self._next_try
        if next_try is None or next_try.wait_s is None:
            self._wait_s = super().get_retry_interval()
        else:
            self._wait_s = next_try.wait_s
        return self._wait_s

    @property
    def why_final(self) -> str:
        """Why a failed job with retries left is not tried again; otherwise empty."""
        return self._next_try.why_not if self._next_try is not None else ""

    def keep_since(self, pipeline: Pipeline) -> None:
        """Store the instant from which `within` counts."""
        if self.retry_policy and self._next_try is not None:
            pipeline.hset(self.key, "flowq_since", self._next_try.since)
