"""Retry policies in YAML and Python: the bounds of their numbers, and the names of failures.

`job_shapes` and `values` read with it, `flowq.checks` finds contradictions, and
`flowq.runtime.policies` writes the policy of a job.
"""

from __future__ import annotations

import builtins
import re
from typing import Any

from flowq.callables import CALL, name_exception
from flowq.nearest import find_nearest
from flowq.spec import Retry

MAX_RETRIES = 1_000
MAX_FACTOR = 100
MAX_EXIT_CODE = 255

_CODES = re.compile(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", re.ASCII)
_DOTTED = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\.([^\W\d]\w*)")
_PERCENTAGE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*", re.ASCII)
_BUILTIN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}

CAUSE_HINT = (
    "write the name of a builtin exception (ConnectionError), package.module:Class, or exit codes "
    "(137, 1-3)"
)


class UnknownCause(ValueError):
    """A value that `on` and `never_on` do not accept. Shape: `hint` says what to write."""

    def __init__(self, message: str, hint: str = CAUSE_HINT) -> None:
        super().__init__(message)
        self.hint = hint


def read_cause(value: object) -> str:
    """Read one failure: an exception, by its name or itself, or exit codes. Errors: UnknownCause.

    The message goes on after the name of the key.
    """
    if isinstance(value, type) and issubclass(value, BaseException):
        name = name_exception(value)
        if "<" in name:
            reason = f"names {name}, which is defined inside a function"
            raise UnknownCause(reason, "define the class at the top level of its module")
        return name
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UnknownCause(f"must name exception classes and exit codes, not {value!r:.60}")
    text = str(value).strip()
    if found := _CODES.fullmatch(text):
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last <= MAX_EXIT_CODE:
            hint = (
                f"exit codes go from 1 to {MAX_EXIT_CODE}; of a range the lower one comes first: "
                "1-3"
            )
            raise UnknownCause(f"names an exit code {text}, and there is none", hint)
        return str(first) if first == last else f"{first}-{last}"
    if text in _BUILTIN or CALL.fullmatch(text):
        return text.removeprefix("builtins:")
    raise UnknownCause(
        f"must name exception classes and exit codes, not {text!r:.60}", _advise(text)
    )


def _advise(text: str) -> str:
    if found := _DOTTED.fullmatch(text):
        return f"did you mean {found[1]}:{found[2]}?"
    nearest = find_nearest(text, sorted(_BUILTIN))
    return f"did you mean {nearest!r}?" if nearest else CAUSE_HINT


def is_exit_code(cause: str) -> bool:
    """Whether a cause, as `read_cause` returns it, is an exit code or a range of them."""
    return cause[:1].isdigit()


def read_share(value: object) -> float:
    """Read a share, from 0 to 1 or as a percentage. Errors: ValueError."""
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else value
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"must be a share of the wait, from 0 to 1 or as 20%, not {value!r:.60}")
    return share


def read_factor(value: object) -> float:
    """Read the factor between one wait and the next. Errors: ValueError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 1 <= value <= MAX_FACTOR
    ):
        raise ValueError(f"must be a number from 1 to {MAX_FACTOR}, not {value!r:.60}")
    return value


def explain_contradiction(retries: Retry) -> tuple[str, str] | None:
    """Return an inconsistency of a policy, with a hint; None if it is consistent.

    Shape: the message continues "the retries of job x".
    """
    backoff_s, most_s = retries.backoff_s, retries.max_backoff_s
    if not backoff_s and (retries.factor != 1 or most_s is not None or retries.jitter):
        return "say how waits grow, but there is no `backoff`", "add one, as in backoff: 2s"
    if most_s is not None and most_s < backoff_s:
        return "have a `max_backoff` that is shorter than `backoff`", "make it the longer one"
    if retries.within_s is not None and retries.within_s <= backoff_s:
        hint = "give `within` more time than the first `backoff`"
        return "never happen: `within` is over before the first `backoff` is", hint
    if both := [each for each in retries.on if each in retries.never_on]:
        return f"name {both[0]} under `on` and `never_on`", "`never_on` wins; leave one of them out"
    return None


def say_policy(retries: Retry) -> dict[str, Any]:
    """Return the settings of a policy except `max` and `backoff`, by key, without defaults.

    Units: seconds.
    """
    said = {
        "factor": retries.factor if retries.factor != 1 else None,
        "max_backoff": retries.max_backoff_s,
        "jitter": retries.jitter or None,
        "within": retries.within_s,
        "on": list(retries.on) or None,
        "never_on": list(retries.never_on) or None,
    }
    return {name: value for name, value in said.items() if value is not None}
