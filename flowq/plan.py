"""What to do: a checked graph and its inputs, compiled to the operations that make a run.

A plan is a value: `flowq plan` prints it, `--dry-run` stops at it, tests compare it, and
`flowq.runtime.runs.submit` executes it. Its order is what makes a crash half-way harmless:

1. `Enqueue` for every job, the last ones first, because a blocker can only be added to a future
   job that exists. Every job is held: those that something must precede, and those without any
   edge, are future jobs themselves; all others have a future job behind them that is not released.
2. `Commit`, one write. Before it nothing can run, and an abandoned plan is removed as a whole.
3. `Release` for every future job, each repeatable: after the commit any worker can finish them.

What a plan cannot know is left to jobs of its own: an *expansion* adds the items of a `for_each`
when the list is known, a *start* the jobs of a nested workflow when its inputs are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flowq.spec import (
    OPTIONS,
    Approval,
    Block,
    BlockerPolicy,
    Concurrency,
    ForEach,
    Options,
    Retry,
    Shell,
    Tolerance,
    Workflow,
    reads_older_pickles,
    set_state,
)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function. `kwargs` are its arguments, or a template for them where it `is_live`."""

    function: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """Give the outputs of a nested workflow, which may run again as a whole (`retries`)."""

    outputs: Mapping[str, Any]
    retries: Retry | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Expansion:
    """Add the items of a group.

    Shape: `each` as declared, with its inputs filled in; `templates` are the jobs of one item, the
    last ones first: their ids start with the id of the group, in whose place that of the item goes.
    """

    each: ForEach
    templates: tuple[Enqueue, ...]


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Nested:
    """How a job adds the jobs of a nested workflow: in front of the job `join_id`.

    Shape: `prefix` is what the names of its jobs start with, `env` what they all get; `finals` are
    the jobs under `finally` around it, which wait for each of its jobs; `secrets` are the names of
    those that its inputs may have in them.
    Units: `timeout_s` in seconds from its beginning, None for no limit.
    """

    workflow: Workflow
    join_id: str
    prefix: str
    slots: tuple[Slot, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    finals: tuple[str, ...] = ()
    timeout_s: float | None = None
    secrets: tuple[str, ...] = ()


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Slot:
    """A place that a job takes in a `max_parallel`.

    Shape: `limit` is `group:ID`, or `future:ID` for the join of a nested workflow that has a
    `max_parallel` of its own. `holder` is the join that has the place for all jobs of its workflow,
    from the first that is queued to its own end; "" when the job itself has it.
    """

    limit: str
    holder: str = ""

    def __str__(self) -> str:
        return f"{self.limit}={self.holder}" if self.holder else self.limit


@dataclass(frozen=True, slots=True)
class Start:
    """Add the jobs of a nested workflow. `kwargs` are its inputs, as in a `Call`."""

    nested: Nested
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_live: bool = False


Does = Call | Shell | Join | Expansion | Start
"""What a job does: call a function, run a command, give the outputs of a nested workflow, add the
items of a group, or add the jobs of a nested workflow."""


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Enqueue(Options):
    """One job. What `${{ … }}` could be filled in is; what is left is known where the job runs.

    Shape: `blocks` are future jobs by *job id*, all of them enqueued earlier in the plan. `if_`,
    `env`, `cwd`, `stop_when` and a command are templates, as the arguments of a call may be, to be
    evaluated once where the job runs: `result_of` maps the names of the jobs that they name to job
    ids, `groups` are those among them that are groups, `inputs` has the inputs that they need
    beside them, `scope` the item, its index or its matrix, and the run.
    `group` is the id of the group that it is an item of, `group_name` what that is called; one that
    `grows` may add items to it. `slots` are the places that it takes in a `max_parallel`;
    `condition` is what `if_` was made from, as declared, to be told when it is false; one that
    is known to be false is False;
    running jobs may add blockers to one that `is_open`;
    `inputs_from` is the job whose result has the inputs, `inside` the join of the nested workflow
    that it is a job of; `ended_of` is set for what is declared under `finally`: the id of a job
    there all of whose blockers are the other jobs. `secrets` are the names of those that may stand
    in results which it reads; one that `refuses_secrets` may return none.
    Units: `timeout_s` in seconds, None for RQ's own default.
    """

    job_id: str
    name: str
    does: Does
    result_of: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    deferred: bool = False
    blocks: tuple[Block, ...] = ()
    on_blocker_failure: BlockerPolicy = "skip"
    queue: str = "default"
    timeout_s: float | None = None
    retries: Retry | None = None
    description: str = ""
    if_: str | bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    scope: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    inputs_from: str = ""
    inside: str = ""
    group: str = ""
    group_name: str = ""
    grows: bool = False
    slots: tuple[Slot, ...] = ()
    stop_when: str | None = None
    is_tolerated: bool = False
    approval: Approval | None = None
    condition: str = ""
    ended_of: str = ""
    is_open: bool = False
    secrets: tuple[str, ...] = ()
    refuses_secrets: bool = False


FLAT_FIELDS = (
    *("job_id", "name", "call", "kwargs", "result_of", "inputs", "deferred", "blocks"),
    *("on_blocker_failure", "queue", "timeout_s", "retries", "description", "is_live", "run"),
    *("outputs", "expansion", "nested", "if_", "env", "cwd", "scope", "groups", "inputs_from"),
    *("inside", "group", "group_name", "grows", "slots", "stop_when", "is_tolerated", "approval"),
    *OPTIONS[:4],  # those that 0.1 had
    *("condition", "ended_of", "is_open"),
    *("workflow_retries", "secrets", "refuses_secrets"),
)
"""The fields of a job with what it does as flat ones, in the order of pickles up to 0.1."""


def _set_state(self: Enqueue, state: dict[str, Any] | list[Any]) -> None:
    """Read a pickle of a job: by name, or one up to 0.1, which had a field for each of the things
    that a job may do, by position."""
    if isinstance(state, list):
        flat = dict(zip(FLAT_FIELDS, state, strict=False))
        state = {**flat, "does": gather(flat)}
    set_state(self, state)


Enqueue.__setstate__ = _set_state  # type: ignore[attr-defined]


def flatten(does: Does) -> dict[str, Any]:
    """Return what a job does as flat fields, the form that Redis and `flowq plan --json` have."""
    if isinstance(does, Call):
        return {"call": does.function, "kwargs": does.kwargs, "is_live": does.is_live}
    common: dict[str, Any] = {"call": "", "kwargs": {}}
    if isinstance(does, Start):
        return {"call": "", "kwargs": does.kwargs, "is_live": does.is_live, "nested": does.nested}
    if isinstance(does, Join):  # the outputs are a template always
        return {
            **common,
            "is_live": True,
            "outputs": does.outputs,
            "workflow_retries": does.retries,
        }
    return {**common, "run" if isinstance(does, Shell) else "expansion": does}


def gather(flat: Mapping[str, Any]) -> Does:
    """Return what a job does from such fields; those that are missing have their default."""
    kwargs, is_live = flat.get("kwargs", {}), flat.get("is_live", False)
    if (nested := flat.get("nested")) is not None:
        return Start(nested, kwargs, is_live)
    if (expansion := flat.get("expansion")) is not None:
        return cast(Expansion, expansion)
    if (outputs := flat.get("outputs")) is not None:
        return Join(outputs, flat.get("workflow_retries"))
    if (command := flat.get("run")) is not None:
        return cast(Shell, command)
    return Call(flat["call"], kwargs, is_live)


@dataclass(frozen=True, slots=True)
class Group:
    """Declare a group, of whose items nothing is known, or all that there will be.

    Shape: `keys` of the items by index, and `items` themselves; both empty where an expansion adds
    them (`is_open`). `approval` is what each item asks for.
    """

    job_id: str
    name: str
    is_open: bool = True
    keys: tuple[str, ...] = ()
    items: tuple[Any, ...] = ()
    max_items: int | None = None
    max_parallel: int | None = None
    tolerance: Tolerance | None = None
    fail_fast: bool = False
    approval: Approval | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Outputs:
    """What the run results in, to be evaluated when it has ended.

    Shape: `template` by name; `result_of` maps the names of the jobs in it to job ids; `inputs` and
    `run` are what it needs beside them, `secrets` the names of those that it may have in it.
    """

    template: Mapping[str, Any]
    result_of: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What a run keeps of the workflow that it was made of (`flowq.pictures.stored`).

    Shape: `picture` and `workflow` are compressed documents, empty if there is none; `file` is an
    absolute path, or empty; workflows with the same declarations have the same `digest`.
    """

    picture: str = ""
    workflow: str = ""
    file: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """From here on the run is real."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Close the declaration of one future job."""

    job_id: str


Operation = Group | Enqueue | Commit | Release


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered operations that make one run of a workflow.

    Shape: `order` has the job ids as displays show them, in topological order; it may be empty.
    `folders` are those of the files it was read from: importable while it runs.
    """

    run_id: str
    workflow: str
    inputs: Mapping[str, Any]
    operations: tuple[Operation, ...]
    folders: tuple[str, ...] = ()
    max_parallel: int | None = None
    concurrency: Concurrency | None = None
    order: tuple[str, ...] = ()
    outputs: Outputs | None = None
    timeout_s: float | None = None
    source: Source = Source()

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that are known before the run."""
        return tuple(op for op in self.operations if isinstance(op, Group))

    @property
    def enqueues(self) -> tuple[Enqueue, ...]:
        """The jobs, the last ones first."""
        return tuple(op for op in self.operations if isinstance(op, Enqueue))
