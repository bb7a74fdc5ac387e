"""A new run that goes on from an ended one, with an edited workflow: `flowq retry RUN --file FILE`.

draft = plan_continuation(run, load("report.yaml"), {"month": "2026-12"})
draft.choice.kept, draft.choice.reasons     # what is kept, and why the others run
submit(draft.plan, connection)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowq.client import Run
from flowq.compiling import compile_plan, make_run_id
from flowq.errors import NewerFormat, Problem, WrongState
from flowq.keeping import Before, Choice, choose
from flowq.labels import check_labels
from flowq.pictures.stored import read_workflow
from flowq.plan import Continued, Plan, Source
from flowq.runtime.keeping import NOT_NEEDED, read_end, read_failings
from flowq.spec import Workflow
from flowq.status import RUN_ENDED, say_state

if TYPE_CHECKING:
    from flowq.graph import Graph

SHORTEST_ID = 8
"""A shorter id could stand in a stored call by chance, where it would be replaced."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A run that can be submitted, and what it keeps of the one before, with `sizes` of groups.

    `others` are inputs that are as in that run although their default was edited: name, value, and
    the default now.
    """

    plan: Plan
    choice: Choice
    sizes: Mapping[str, int]
    others: tuple[tuple[str, Any, Any], ...] = ()


def plan_continuation(
    run: Run,
    workflow: Workflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    again: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    imports: bool = True,
    warn: Callable[[Problem], object] | None = None,
) -> Continuation:
    """Plan a run that keeps the jobs of an ended run that are unchanged; nothing is enqueued.

    The run has the inputs of the other one, except `inputs`, and the labels that it was given, with
    `labels`. Jobs in `again` run even if they are unchanged.
    Errors: RunNotFound; WrongState if the run has not ended, or does not know its workflow;
    UsageError if no job would run; those of `compile_plan`.
    """
    before = _read_before(run)
    found: list[Choice] = []

    def keep(graph: Graph, source: Source, values: Mapping[str, Any]) -> Continued:
        plain = read_workflow(source)
        if plain is None:
            raise WrongState(f"workflow {workflow.name} is too large to be compared with another")
        found.append(choose(graph, plain, values, before, again))
        return Continued(before.run_id, before.ended_at, found[0].kept)

    declared = {each.name for each in workflow.inputs}
    given = {name: value for name, value in before.inputs.items() if name in declared}
    plan = compile_plan(
        workflow,
        {**given, **(inputs or {})},
        run_id=make_run_id(len(before.run_id)),
        imports=imports,
        warn=warn,
        labels={**before.labels, **check_labels(labels)},
        due_at=before.due_at,
        keeping=keep,
    )
    others = tuple(_find_others(before, workflow, inputs or {}))
    return Continuation(plan, found[0], before.sizes, others)


def _find_others(
    before: Before, workflow: Workflow, inputs: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the inputs that are as before although their default was edited."""
    defaults = {each.name: each.default for each in before.workflow.inputs}
    for each in workflow.inputs:
        if each.required or each.name in inputs or each.name not in before.inputs:
            continue
        value = before.inputs[each.name]
        if each.default not in (value, defaults.get(each.name)):
            yield each.name, value, each.default


def _read_before(run: Run) -> Before:
    record, run_id = run.record(), run.run_id
    _, ended_at = read_end(run_id, run.connection)
    if record.state not in RUN_ENDED:
        what = say_state(record.state)
        raise WrongState(f"run {run_id} {what}; cancel it first, or wait for its end")
    workflow = _read_workflow(run)
    asleep = (job.name for job in workflow.jobs if job.sleep is not None)
    failings, sizes, others = read_failings(run_id, asleep, run.connection)
    needless = frozenset(name for name, why in failings.items() if why == NOT_NEEDED)
    own = {name: value for name, value in record.labels.items() if name not in workflow.labels}
    return Before(
        run_id,
        workflow,
        ended_at,
        inputs=record.inputs,
        failings={**failings, **dict.fromkeys(needless, "")},
        needless=needless,
        sizes=sizes,
        labels=own,
        due_at=record.due_at.isoformat() if record.due_at else "",
        has_added=bool(others),
    )


def _read_workflow(run: Run) -> Workflow:
    if len(run.run_id) < SHORTEST_ID:
        raise WrongState(
            f"run {run.run_id} cannot be continued, because its id has less than {SHORTEST_ID} "
            "characters; start a new run"
        )
    try:
        workflow = read_workflow(run.source())
    except NewerFormat as error:
        raise WrongState(f"run {run.run_id} cannot be continued here: {error}") from None
    if workflow is None:
        raise WrongState(
            f"run {run.run_id} does not keep its workflow, because an older version of flowq has "
            "submitted it or the workflow is too large; start a new run"
        )
    return workflow
