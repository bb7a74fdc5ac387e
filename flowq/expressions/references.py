"""What an expression refers to, and where its value is looked up.

The short way for an expression that is one reference and nothing else is here too: it must not need
Jinja, whose import takes a child longer than its own start.
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
_BRACKETS = re.compile(rf"\[\s*(['\"])({_JOB_NAME})\1\s*\]")
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
    dotted = _BRACKETS.sub(r".\2", source)
    bare = _STRING.sub("''", dotted)
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


Scope = Mapping[str, Any]
"""Shape: any of `item`, `index`, `result` (values), `matrix`, `env`, `secrets`, `approval`, `run`
(by name). A secret that is not there raises Missing in `secrets`, which knows where it was looked
for."""

_BUILT_IN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


@dataclass(frozen=True, slots=True)
class Values:
    """Inputs by name, values by job and attribute, the scope, and how the jobs before ended.

    Shape: `budget` is that of all expressions which see these values. `made` is told each
    expression, without its braces, and the value that it has.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scope: Scope = field(default_factory=dict)
    statuses: Mapping[str, bool] = field(default_factory=dict)
    budget: Budget = field(default_factory=current_budget)
    made: Callable[[str, Any], None] | None = None

    def knows(self, reference: Reference) -> bool:
        """Whether a reference can be looked up here, or has to wait until more is known."""
        return reference.root == "inputs" or reference.root in self.scope

    def get(self, reference: Reference) -> Any:
        """Return what a reference stands for. Errors: Missing."""
        value = self._get(reference)
        if type(value) in _BUILT_IN:
            return value
        # Not at the top: most values are plain, and what the others need takes a child some time.
        from flowq.expressions.plain import enter  # noqa: PLC0415

        return enter(value)

    def _get(self, reference: Reference) -> Any:
        if reference.root == "inputs":
            return _get_named(reference, self.inputs)
        if reference.root == "jobs":
            return self._get_of_job(reference)
        if reference.root == "status":
            return self._get_status(reference)
        if reference.root not in self.scope:
            raise Missing(f"{reference} is not known here")
        value = self.scope[reference.root]
        return _get_named(reference, value) if reference.name else value

    def _get_of_job(self, reference: Reference) -> Any:
        name, attribute = reference.name, reference.attribute
        if name in self.jobs and attribute in self.jobs[name]:
            return self.jobs[name][attribute]
        if attribute == "result" and name in self.results:
            return self.results[name]
        raise Missing(f"the {attribute} of job {name} is not known here")

    def _get_status(self, reference: Reference) -> bool:
        if reference.name == "always":
            return True
        if reference.name not in self.statuses:
            raise Missing(f"{reference} is not known here")
        return self.statuses[reference.name]


def _get_named(reference: Reference, values: Mapping[str, Any]) -> Any:
    if reference.root == "secrets" or reference.name in values:
        return values[reference.name]
    if reference.root == "env":
        raise Missing(f"the environment variable {reference.name} is not set where the job runs")
    raise Missing(f"there is no {reference}", did_you_mean(reference.name, values))
