"""The references of expressions, and looking up their values.

`find_whole_reference` reads an expression that is a single reference without Jinja, because a child
needs more time to import Jinja than to start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from flowq.expressions.limits import Budget, current_budget
from flowq.expressions.refusals import Missing, Refused
from flowq.nearest import did_you_mean, find_nearest
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
RUN_ATTRIBUTES = ("id", "workflow", "due_at")
ENDED_ATTRIBUTES = ("status", "failures")
"""What `run` has in addition for jobs under `finally`: their root is `ended`."""
BARE_ROOTS: tuple[Root, ...] = ("item", "index", "matrix", "result", "attempt")
"""Roots that have a value without a further name."""

NAMED_ROOTS: tuple[Root, ...] = ("inputs", "matrix", "env", "secrets", "run", "approval")
STATUS_BY_FUNCTION = {
    "success": "success",
    "failure": "failure",
    "always": "always",
    "canceled": "canceled",
    "cancelled": "canceled",
}
"""The status functions of an `if`, with the second spelling of `canceled`."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_JOB_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_STRING = re.compile(r"""'[^']*'|"[^"]*\"""", re.DOTALL)
_NAMED = re.compile(rf"(?<![\w.])({'|'.join(NAMED_ROOTS)})\.({_NAME})")
_JOB = re.compile(
    rf"(?<![\w.])jobs(?:\.({_JOB_NAME})|\[(?:'({_JOB_NAME})'|\"({_JOB_NAME})\")\])\.({_NAME})"
)
_BRACKETS = re.compile(rf"\[\s*(['\"])({_JOB_NAME})\1\s*\]")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FUNCTION = re.compile(r"([a-z]+)\(\)")


@dataclass(frozen=True, slots=True)
class Reference:
    """One value from outside the expression.

    Shape: `name` is empty for `item`, `index`, `result` and the whole `matrix`, and the name of the
    function for `status`. Only jobs have an `attribute`. `part` is the first key that is looked up
    in the value, if it is fixed text.
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
        """Its names, as written in a text."""
        if self.root == "status":
            return (self.name,)
        root = "run" if self.root == "ended" else self.root
        return tuple(filter(None, (root, self.name, self.attribute, self.part)))

    def find_refusal(self) -> Refused | None:
        """Return why no such value can exist, or None."""
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
    """Return the references that are certain in an expression that cannot be parsed."""
    dotted = _BRACKETS.sub(r".\2", source)
    bare = _STRING.sub("''", dotted)
    named = (name_reference(each[1], each[2]) for each in _NAMED.finditer(bare))  # type: ignore[arg-type]  # by the pattern
    of_jobs = (Reference("jobs", each[1], each[4]) for each in _JOB.finditer(bare) if each[1])
    return tuple(dict.fromkeys((*named, *of_jobs)))


@lru_cache(maxsize=4_096)  # many texts have the same few references, and are read repeatedly
def find_whole_reference(source: str) -> Reference | None:
    """Return the reference that an expression consists of, or None if it is more than that."""
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


Scope = Mapping[str, Any]
"""Shape: any of `item`, `index`, `result` (values), `matrix`, `env`, `secrets`, `approval`, `run`
(by name). For a missing secret, `secrets` raises Missing itself, with the places it has tried."""

_BUILT_IN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


@dataclass(frozen=True, slots=True)
class Values:
    """Inputs by name, values by job and attribute, the scope, and the statuses of earlier jobs.

    Shape: all expressions that see these values share the `budget`. `made` is called with each
    expression, without its braces, and its value.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scope: Scope = field(default_factory=dict)
    statuses: Mapping[str, bool] = field(default_factory=dict)
    budget: Budget = field(default_factory=current_budget)
    made: Callable[[str, Any], None] | None = None

    def knows(self, reference: Reference) -> bool:
        """Whether the value of a reference is known already."""
        return reference.root == "inputs" or reference.root in self.scope

    def get(self, reference: Reference) -> Any:
        """Return the value of a reference. Errors: Missing."""
        root, name = reference.root, reference.name
        if root == "inputs":
            value = _get_named(reference, self.inputs)
        elif root == "jobs":
            value = self._get_of_job(name, reference.attribute)
        elif root == "status":
            value = name == "always" or self.statuses.get(name)
            if value is None:
                raise Missing(f"{reference} is not known here")
        elif root in self.scope:
            value = self.scope[root]
            value = _get_named(reference, value) if name else value
        else:
            raise Missing(f"{reference} is not known here")
        if type(value) in _BUILT_IN:
            return value
        # Not at the top: most values are plain, and importing this takes a child some time.
        from flowq.expressions.plain import enter  # noqa: PLC0415

        return enter(value)

    def _get_of_job(self, name: str, attribute: str) -> Any:
        if name in self.jobs and attribute in self.jobs[name]:
            return self.jobs[name][attribute]
        if attribute == "result" and name in self.results:
            return self.results[name]
        raise Missing(f"the {attribute} of job {name} is not known here")


def _get_named(reference: Reference, values: Mapping[str, Any]) -> Any:
    if reference.root == "secrets" or reference.name in values:
        return values[reference.name]
    if reference.root == "run":  # `due_at` of a run that no schedule submitted
        return None
    if reference.root == "env":
        raise Missing(f"the environment variable {reference.name} is not set where the job runs")
    raise Missing(f"there is no {reference}", did_you_mean(reference.name, values))
