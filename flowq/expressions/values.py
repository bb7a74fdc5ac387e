"""What an expression can see: the inputs of the run, and the results of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowq.expressions.references import Reference
from flowq.expressions.refusals import Missing
from flowq.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Values:
    """Inputs and results by name."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    def get(self, reference: Reference) -> Any:
        """Return what a reference stands for. Errors: Missing."""
        values = self.inputs if reference.root == "inputs" else self.results
        if reference.name in values:
            return values[reference.name]
        if reference.root == "inputs":
            raise Missing(f"there is no {reference}", did_you_mean(reference.name, values))
        raise Missing(f"the result of job {reference.name} is not known here")
