"""A plan: the operations that make a run, compiled from a checked graph and its inputs.

A plan is a value: `flowq plan` prints it, `--dry-run` stops at it, tests compare it, and
`flowq.runtime.runs.submit` executes it. Because of its order, a crash half-way is harmless:

1. `Enqueue` for every job, the last jobs first, because a blocker can only be added to a future
   job that exists. Every job is held: jobs with predecessors, and jobs without any edge, are future
   jobs themselves; all others block a future job that is not released.
2. `Commit`, one write. Before it nothing can run, and an abandoned plan is removed as a whole.
3. `Release` for every future job, each idempotent: after the commit any worker can finish them.

Some jobs are added during the run, by internal jobs: an *expansion* adds the items of a `for_each`
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
    Poll,
    Rate,
    Retry,
    Shell,
    Tolerance,
    Workflow,
    reads_older_pickles,
    set_state,
)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function. `kwargs` are its arguments, or a template for them if it `is_live`."""

    function: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """Return the outputs of a nested workflow, which may be retried as a whole (`retries`)."""

    outputs: Mapping[str, Any]
    retries: Retry | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Expansion:
    """Add the items of a group.

    Shape: `each` as declared, with its inputs filled in; `templates` are the jobs of one item, the
    last ones first. Their ids begin with the group's id, which the item's id replaces. For a
    matrix, `each.items` has its `axes`, `include` and `exclude`, and the items are combinations.
    """

    each: ForEach
    templates: tuple[Enqueue, ...]
    is_matrix: bool = False


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Nested:
    """How a job adds the jobs of a nested workflow, which block the job `join_id`.

    Shape: the names of its jobs begin with `prefix`, and they all get `env`. `finals` are the jobs
    under `finally` of outer workflows, which wait for each of its jobs. `secrets` has the names of
    the secrets that its inputs may contain.
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
    """A slot that a job takes of a `max_parallel`.

    Shape: `limit` is `group:ID`, or `future:ID` for the join of a nested workflow with its own
    `max_parallel`, or a limit across runs: `shared:NAME` or `rate:NAME`, the name quoted as in a
    URL. `holder` is the join that has the slot for all jobs of its workflow, from the
    first queued job to the join's own end; "" if the job itself has it. `most` is the maximum of a
    limit across runs: `3`, or the starts and the seconds of a rate, `10/60`.
    """

    limit: str
    holder: str = ""
    most: str = ""

    def __str__(self) -> str:
        return f"{self.limit}={self.holder}" if self.holder else self.limit


@dataclass(frozen=True, slots=True)
class Start:
    """Add the jobs of a nested workflow. `kwargs` are its inputs, as in a `Call`."""

    nested: Nested
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait without a worker. `time` is a template for a duration or an instant, or one as text."""

    time: str


Does = Call | Shell | Join | Expansion | Start | Sleep
"""What a job does: call a function, run a command, return the outputs of a nested workflow, add the
items of a group, add the jobs of a nested workflow, or wait."""


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Enqueue(Options):
    """One job. Expressions that are known at planning are filled in; the others remain.

    Shape: `blocks` has future jobs by *job id*, all enqueued earlier in the plan.

    `if_`, `env`, `cwd`, `stop_when`, a command and live arguments are templates, which are
    evaluated once, where the job runs. For these, `result_of` maps the names of jobs to job ids,
    `groups` has the names among them that are groups, `inputs` the inputs, `scope` the item, its
    index or its matrix, and the run. `inputs_from` is the job whose result has the inputs. An `if_`
    that is known to be false is False; `condition` is the `if` as declared, for messages.

    `group` is the id of the group of an item, `group_name` its name; an item that `grows` may add
    further items. `slots` are the slots that the job takes of a `max_parallel`. `inside` is the
    join of the nested workflow that contains the job. Running jobs may add blockers to a job that
    `is_open`. For a job under `finally`, `ended_of` is the id of a job under `finally` whose
    blockers are all other jobs. `secrets` has the names of the secrets that may be in results which
    the job reads; a job that `refuses_secrets` must not return any.
    `branch` has the conditions of a branch, which are part of `if_`, and why each is false.
    In a template of items, `settings` has the settings that the item decides (`flowq.settings`).
    `concurrency` and `rate` are limits across runs; of a workflow that is a job, the job that
    starts it and its join have them.
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
    settings: Mapping[str, str] = field(default_factory=dict)
    branch: Mapping[str, str] = field(default_factory=dict)
    poll: Poll | None = None
    concurrency: Concurrency | None = None
    rate: Rate | None = None


FLAT_FIELDS = (
    *("job_id", "name", "call", "kwargs", "result_of", "inputs", "deferred", "blocks"),
    *("on_blocker_failure", "queue", "timeout_s", "retries", "description", "is_live", "run"),
    *("outputs", "expansion", "nested", "if_", "env", "cwd", "scope", "groups", "inputs_from"),
    *("inside", "group", "group_name", "grows", "slots", "stop_when", "is_tolerated", "approval"),
    *OPTIONS[:4],  # those that 0.1 had
    *("condition", "ended_of", "is_open"),
    *("workflow_retries", "secrets", "refuses_secrets", "poll", "sleep"),
)
"""The fields of a job and of what it does, flat, in the order of pickles up to 0.1."""


def _set_state(self: Enqueue, state: dict[str, Any] | list[Any]) -> None:
    """Read a pickle of a job: fields by name, or, up to 0.1, flat fields by position."""
    if isinstance(state, list):
        flat = dict(zip(FLAT_FIELDS, state, strict=False))
        state = {**flat, "does": gather(flat)}
    set_state(self, state)


Enqueue.__setstate__ = _set_state  # type: ignore[attr-defined]


def flatten(does: Does) -> dict[str, Any]:
    """Return what a job does as flat fields, as in Redis and in `flowq plan --json`."""
    if isinstance(does, Call):
        return {"call": does.function, "kwargs": does.kwargs, "is_live": does.is_live}
    common: dict[str, Any] = {"call": "", "kwargs": {}}
    if isinstance(does, Start):
        return {"call": "", "kwargs": does.kwargs, "is_live": does.is_live, "nested": does.nested}
    if isinstance(does, Join):  # the outputs are always a template
        return {
            **common,
            "is_live": True,
            "outputs": does.outputs,
            "workflow_retries": does.retries,
        }
    if isinstance(does, Sleep):
        return {**common, "sleep": does.time}
    return {**common, "run" if isinstance(does, Shell) else "expansion": does}


def gather(flat: Mapping[str, Any]) -> Does:
    """Return what a job does from flat fields; missing fields have their default."""
    kwargs, is_live = flat.get("kwargs", {}), flat.get("is_live", False)
    if (nested := flat.get("nested")) is not None:
        return Start(nested, kwargs, is_live)
    if (expansion := flat.get("expansion")) is not None:
        return cast(Expansion, expansion)
    if (outputs := flat.get("outputs")) is not None:
        return Join(outputs, flat.get("workflow_retries"))
    if (command := flat.get("run")) is not None:
        return cast(Shell, command)
    if (time := flat.get("sleep")) is not None:
        return Sleep(time)
    return Call(flat["call"], kwargs, is_live)


@dataclass(frozen=True, slots=True)
class Group:
    """Declare a group whose items are all known, or all unknown.

    Shape: `keys` of the items by index, and `items` themselves; both are empty if an expansion adds
    the items (`is_open`). `approval` is the approval of each item.
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
    """The outputs of the run, which are evaluated when it has ended.

    Shape: `template` by name; `result_of` maps the names of its jobs to job ids; `inputs` and `run`
    have the other values that it needs, `secrets` the names of secrets that it may contain.
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
class Continued:
    """The run that this one continues, and the names of the jobs whose ends it takes over.

    Shape: `ended_at` tells this end of that run from one after a retry.
    """

    run_id: str
    ended_at: str
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Make the run real: from here on, it continues without the submitter."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Close the declaration of one future job."""

    job_id: str


Operation = Group | Enqueue | Commit | Release


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered operations that make one run of a workflow.

    Shape: `order` has the job ids in topological order, for displays; it may be empty. `folders`
    are the folders of the workflow's files, which are importable during the run. `due_at` is the
    instant at which a schedule made the run due, in ISO 8601 in the schedule's time zone; of the
    plans with the same `claim` only one can be committed. `continued` is the run from which jobs
    are kept, which are ended before the commit.
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
    labels: Mapping[str, str] = field(default_factory=dict)
    due_at: str = ""
    claim: str = ""
    continued: Continued | None = None

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
