"""What an expression refers to, and the short way for one that is a reference and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from flowq.expressions.refusals import Refused

JOB_ATTRIBUTES = ("result",)
LATER_JOB_ATTRIBUTES = ("results", "outcomes", "by_key", "status")

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_JOB_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_INPUT = re.compile(rf"inputs\.({_NAME})")
_JOB = re.compile(rf"jobs(?:\.({_JOB_NAME})|\[(?:'({_JOB_NAME})'|\"({_JOB_NAME})\")\])\.({_NAME})")


@dataclass(frozen=True, slots=True)
class Reference:
    """One value from outside. Shape: `attribute` is empty for inputs."""

    root: Literal["inputs", "jobs"]
    name: str
    attribute: str = ""

    def __str__(self) -> str:
        if self.root == "inputs":
            return f"inputs.{self.name}"
        return f"jobs.{self.name}.{self.attribute}"

    def find_refusal(self) -> Refused | None:
        """Return why jobs have no such attribute, or None."""
        if self.root == "inputs" or self.attribute in JOB_ATTRIBUTES:
            return None
        hint = f"write jobs.{self.name}.result"
        if self.attribute in LATER_JOB_ATTRIBUTES:
            return Refused("FQ304", f"{self} is not supported yet in this version", hint)
        return Refused("FQ303", f"a job has no {self.attribute!r}", hint)


def find_whole_reference(source: str) -> Reference | None:
    """Return the reference that an expression consists of, or None when there is more to it.

    Most expressions are one, and they do not need the engine, whose import takes a child longer
    than its own start.
    """
    if found := _INPUT.fullmatch(source):
        return Reference("inputs", found.group(1))
    if found := _JOB.fullmatch(source):
        *names, attribute = found.groups()
        return Reference("jobs", next(name for name in names if name), attribute)
    return None
