"""What to do: a checked graph and its inputs, compiled to the operations that make a run.

A plan is a value: `flowq plan` prints it, `--dry-run` stops at it, tests compare it, and
`flowq.runtime.runs.submit` executes it. Its order is what makes a crash half-way harmless:

1. `Enqueue` for every job, the last ones first, because a blocker can only be added to a future
   job that exists. Every job is held: those that something must precede, and those without any
   edge, are future jobs themselves; all others have a future job behind them that is not released.
2. `Commit`, one write. Before it nothing can run, and an abandoned plan is removed as a whole.
3. `Release` for every future job, each repeatable: after the commit any worker can finish them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowq.spec import Block, BlockerPolicy, Retry


@dataclass(frozen=True, slots=True)
class Enqueue:
    """One job. What `${{ … }}` could be filled in is; what is left in `kwargs` names jobs.

    Shape: `blocks` are future jobs by *job id*, all of them enqueued earlier in the plan. With an
    empty `result_of`, `kwargs` are the arguments themselves. Otherwise they are a template, to be
    evaluated once where the job runs: `result_of` maps the names of the jobs whose results it needs
    to their job ids, `inputs` has the inputs that it needs beside them.
    Units: `timeout_s` in seconds, None for RQ's own default.
    """

    job_id: str
    name: str
    call: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    result_of: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    deferred: bool = False
    blocks: tuple[Block, ...] = ()
    on_blocker_failure: BlockerPolicy = "skip"
    queue: str = "default"
    timeout_s: float | None = None
    retries: Retry | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """From here on the run is real."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Close the declaration of one future job."""

    job_id: str


Operation = Enqueue | Commit | Release


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered operations that make one run of a workflow."""

    run_id: str
    workflow: str
    inputs: Mapping[str, Any]
    operations: tuple[Operation, ...]
    folder: str | None = None

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    @property
    def enqueues(self) -> tuple[Enqueue, ...]:
        """The jobs, the last ones first."""
        return tuple(op for op in self.operations if isinstance(op, Enqueue))
