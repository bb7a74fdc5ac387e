"""What an expression refers to, and the short way for one that is a reference and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from flowq.expressions.refusals import Refused
from flowq.nearest import find_nearest
from flowq.problems import INCOMPLETE_NAME

Root = Literal[
    "inputs",
    "jobs",
    "item",
    "index",
    "matrix",
    "result",
    "env",
    "secrets",
    "run",
    "approval",
    "status",
    "ended",
    "attempt",
]

JOB_ATTRIBUTES = (
    *("result", "results", "outcomes", "by_key", "status"),
    *("error", "exit_code", "attempts", "approval"),
)
ERROR_PARTS = ("type", "message")
FAILURE_PARTS = ("job", "error", "exit_code")
OUTCOME_PARTS = (
    *("item", "key", "status", "result", "error", "error_type", "exit_code", "attempts"),
)
_ATTRIBUTE_BY_FOREIGN = {"outputs": "result", "output": "result", "conclusion": "status"}
RUN_ATTRIBUTES = ("id", "workflow")
ENDED_ATTRIBUTES = ("status", "failures")
"""What `run` has in addition for jobs under `finally`: their root is `ended`."""
BARE_ROOTS: tuple[Root, ...] = ("item", "index", "matrix", "result", "attempt")
"""Those that have a value without a name behind a dot."""

NAMED_ROOTS: tuple[Root, ...] = ("inputs", "matrix", "env", "secrets", "run", "approval")
STATUS_BY_FUNCTION = {
    "success": "success",
    "failure": "failure",
    "always": "always",
    "canceled": "canceled",
    "cancelled": "canceled",
}
"""What an `if` may ask about the jobs before it, with the other spelling of one of them."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_JOB_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_STRING = re.compile(r"""'[^']*'|"[^"]*\"""", re.DOTALL)
_NAMED = re.compile(rf"(?<![\w.])({'|'.join(NAMED_ROOTS)})\.({_NAME})")
_JOB = re.compile(
    rf"(?<![\w.])jobs(?:\.({_JOB_NAME})|\[(?:'({_JOB_NAME})'|\"({_JOB_NAME})\")\])\.({_NAME})"
)
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FUNCTION = re.compile(r"([a-z]+)\(\)")


@dataclass(frozen=True, slots=True)
class Reference:
    """One value from outside.

    Shape: `name` is empty for `item`, `index`, `result` and the whole `matrix`, and a function's
    for `status`; only jobs have an `attribute`; `part` is the first key that is looked up in it,
    when that is fixed text.
    """

    root: Root
    name: str = ""
    attribute: str = ""
    part: str = ""

    def __str__(self) -> str:
        if self.root == "jobs":
            return f"jobs.{self.name}.{self.attribute}"
        if self.root == "status":
            return f"{self.name}()"
        if self.root == "ended":
            return f"run.{self.name}"
        return f"{self.root}.{self.name}" if self.name else self.root

    @property
    def names(self) -> tuple[str, ...]:
        """The names that lead to it, as they stand in a text."""
        if self.root == "status":
            return (self.name,)
        root = "run" if self.root == "ended" else self.root
        return tuple(filter(None, (root, self.name, self.attribute, self.part)))

    def find_refusal(self) -> Refused | None:
        """Return why there can be no such value, or None."""
        if self.root == "jobs" and self.attribute not in JOB_ATTRIBUTES:
            foreign = _ATTRIBUTE_BY_FOREIGN.get(self.attribute)
            nearest = foreign or find_nearest(self.attribute, JOB_ATTRIBUTES) or "result"
            hint = f"write jobs.{self.name}.{nearest}"
            return Refused(INCOMPLETE_NAME, f"a job has no {self.attribute!r}", hint).about(
                *self.names
            )
        if self.root == "run" and self.name not in RUN_ATTRIBUTES:
            hint = " or ".join(f"run.{name}" for name in RUN_ATTRIBUTES)
            hint += ", and under `finally` run.status or run.failures"
            message = f"a run has no {self.name!r}"
            return Refused(INCOMPLETE_NAME, message, f"write {hint}").about(*self.names)
        if self.root == "secrets" and not _SECRET.fullmatch(self.name):
            message = f"{self.name!r:.60} cannot be the name of a secret"
            hint = "letters, digits, _, - and . only, no digit first"
            return Refused(INCOMPLETE_NAME, message, hint).about(*self.names)
        return None


def name_reference(root: Root, name: str) -> Reference:
    """Return the reference of `root.name`."""
    is_ended = root == "run" and name in ENDED_ATTRIBUTES
    return Reference("ended" if is_ended else root, name)


def guess_references(source: str) -> tuple[Reference, ...]:
    """Return what an expression surely refers to that cannot be read as a whole."""
    bare = _STRING.sub("''", source)
    named = (name_reference(each[1], each[2]) for each in _NAMED.finditer(bare))  # type: ignore[arg-type]  # by the pattern
    of_jobs = (Reference("jobs", each[1], each[4]) for each in _JOB.finditer(bare) if each[1])
    return tuple(dict.fromkeys((*named, *of_jobs)))


@lru_cache(maxsize=4_096)  # many texts hold the same few, and each is asked for more than once
def find_whole_reference(source: str) -> Reference | None:
    """Return the reference that an expression consists of, or None when there is more to it.

    Most expressions are one, and they do not need the engine, whose import takes a child longer
    than its own start.
    """
    if found := _NAMED.fullmatch(source):
        return name_reference(found[1], found[2])  # type: ignore[arg-type]  # by the pattern
    if found := _JOB.fullmatch(source):
        return Reference("jobs", found[1] or found[2] or found[3], found[4])
    for root in BARE_ROOTS:
        if source == root:
            return Reference(root)
    if (found := _FUNCTION.fullmatch(source)) and found.group(1) in STATUS_BY_FUNCTION:
        return Reference("status", STATUS_BY_FUNCTION[found.group(1)])
    return None
