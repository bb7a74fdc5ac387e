"""How one attempt of a job failed, as far as `retries` asks: by which exception, or exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rq.timeouts import JobTimeoutException

from flowq.callables import names_of_exception
from flowq.errors import DoNotRetry, RetryLater, ShellFailed

MAX_NAMES = 40


@dataclass(frozen=True, slots=True)
class Failure:
    """What `lua/retries.lua` holds a policy against.

    Shape: `names` are those of the exception's class and of its bases, the nearest first; empty
    where a process died. `exit_code` is that of a command, or of the process of the job, as a shell
    has it. `later_s` is set where the code asks for another attempt. Units: seconds.
    """

    names: tuple[str, ...] = ()
    exit_code: int | None = None
    later_s: float | None = None
    is_final: bool = False

    @classmethod
    def of(cls, error: BaseException | None) -> Failure:
        """Return what an exception stands for."""
        if error is None:
            return cls()
        bases = (kind for kind in type(error).__mro__ if issubclass(kind, BaseException))
        names = [name for kind in bases for name in names_of_exception(kind)]
        return cls(
            tuple(dict.fromkeys(names))[:MAX_NAMES],
            as_exit_code(error.exit_code_of_command) if isinstance(error, ShellFailed) else None,
            error.seconds if isinstance(error, RetryLater) else None,
            isinstance(error, DoNotRetry),
        )

    @property
    def asks(self) -> bool:
        """Whether the code itself has decided about another attempt."""
        return self.is_final or self.later_s is not None

    @property
    def brief(self) -> str:
        """The failure in a word or two: `ConnectionError`, `exit code 3`."""
        if self.exit_code is not None:
            return f"exit code {self.exit_code}"
        return self.names[0].rpartition(":")[2] if self.names else "it failed"

    def write(self) -> str:
        """Return it as JSON."""
        parts: dict[str, object] = {"names": self.names}
        if self.exit_code is not None:
            parts["exit_code"] = self.exit_code
        if self.later_s is not None:
            parts["later"] = self.later_s
        if self.is_final:
            parts["final"] = True
        return json.dumps(parts)

    @classmethod
    def read(cls, text: str) -> Failure | None:
        """Return what was written; None where nothing was, or what makes no sense."""
        try:
            parts = json.loads(text) if text else {}
            names = tuple(str(name) for name in parts["names"])[:MAX_NAMES]
            code, later = parts.get("exit_code"), parts.get("later")
            later_s = None if later is None else RetryLater(later).seconds
            return cls(
                names, None if code is None else int(code), later_s, bool(parts.get("final"))
            )
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None


TIMED_OUT = Failure.of(JobTimeoutException())
"""A job that went on beyond its timeout, and was killed."""


def as_exit_code(code: int) -> int:
    """Return an exit code as a shell has it: 137 for a program that signal 9 has ended."""
    return code if code >= 0 else 128 - code
