"""What an expression can see: inputs, what jobs left, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowq.expressions.limits import Budget, current_budget
from flowq.expressions.references import Reference
from flowq.expressions.refusals import Missing
from flowq.nearest import did_you_mean

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
