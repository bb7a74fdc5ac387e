"""From a graph to a plan: the operations that make one run of a checked workflow.

`flowq.compiling` plans runs with it, `flowq.runtime.groups` nested workflows. It has no clock,
makes no ids, and reads only its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import evaluate, find_references, write
from flowq.graph import Graph, build_graph, sort_by_edges
from flowq.labels import add_labels, explain_value
from flowq.plan import Commit, Enqueue, Group, Nested, Operation, Outputs, Plan, Release, Slot
from flowq.planner.compile import Frame
from flowq.planner.filling import fill_in
from flowq.problems import BAD_LABEL
from flowq.settings import settle_workflow
from flowq.spec import Concurrency, Workflow
from flowq.texts import show

__all__ = ["make_job_id", "make_plan", "plan_nested"]


def make_plan(graph: Graph, inputs: Mapping[str, Any], run_id: str, due_at: str = "") -> Plan:
    """Compile a checked graph and its resolved inputs to the operations of one run.

    Shape: deterministic; groups as declared, each job after those that it blocks, releases in
    topological order. Errors: WorkflowInvalid with all expressions that have no value with these
    inputs; CycleError for a graph that has not been checked.
    """
    workflow = graph.workflow
    assert not workflow.unread, "it has problems"
    run = {"id": run_id, "workflow": workflow.name, **({"due_at": due_at} if due_at else {})}
    graph, problems = _settled(graph, inputs)
    workflow = graph.workflow
    base = make_job_id(run_id, "")
    frame = Frame(graph, inputs, run, base=base, env=workflow.env, _problems=problems)
    groups, enqueues = frame.compile()
    releases = (Release(enqueue.job_id) for enqueue in enqueues if enqueue.deferred)
    operations: list[Operation] = [
        *groups,
        *futures_first(enqueues),
        Commit(run_id),
        *releases,
    ]
    return Plan(
        run_id,
        workflow.name,
        dict(inputs),
        tuple(operations),
        tuple(dict.fromkeys(_folders(workflow))),
        workflow.max_parallel,
        _concurrency(workflow, inputs),
        order=tuple(enqueue.job_id for enqueue in enqueues),
        outputs=_outputs(frame),
        timeout_s=workflow.timeout_s,
        labels=add_labels(_labels(workflow, inputs, run), {}),
        due_at=due_at,
    )


def _settled(graph: Graph, inputs: Mapping[str, Any]) -> tuple[Graph, list[Problem]]:
    """Return the graph with the settings that need only inputs, and what is wrong with them."""
    workflow, problems = settle_workflow(graph.workflow, inputs)
    if workflow is graph.workflow:
        return graph, problems
    return build_graph(workflow, graph.left_out), problems


def _folders(workflow: Workflow) -> Iterator[str]:
    """Yield the folders of a workflow and of those inside of it, outermost first."""
    if workflow.folder:
        yield workflow.folder
    for nested in workflow.workflows.values():
        yield from _folders(nested)


def plan_nested(
    nested: Nested, inputs: Mapping[str, Any], run: Mapping[str, str]
) -> tuple[list[Group], list[Enqueue]]:
    """Compile a nested workflow, whose inputs are known, to the jobs before its join.

    Shape and errors as `make_plan`. The caller releases the future jobs among them.
    """
    workflow, problems = settle_workflow(nested.workflow, inputs)
    graph = build_graph(workflow)
    limited = nested.workflow.max_parallel is not None
    own_slots = (Slot(f"future:{nested.join_id}"),) if limited else ()
    frame = Frame(
        graph,
        inputs,
        run,
        base=f"{nested.join_id}--",
        prefix=nested.prefix,
        join_id=nested.join_id,
        slots=(*nested.slots, *own_slots),
        env={**nested.env, **nested.workflow.env},
        outer_finals=nested.finals,
        inherited=nested.secrets,
        _problems=problems,
    )
    groups, enqueues = frame.compile()
    return groups, futures_first(enqueues)


def make_job_id(run_id: str, name: str) -> str:
    """Return the id of the job that a run makes from the declaration `name`."""
    return f"{run_id}-{name}"


def _outputs(frame: Frame) -> Outputs | None:
    """Return the outputs of the run, with the inputs filled in. Errors: WorkflowInvalid."""
    workflow, inputs, run = frame.graph.workflow, frame.inputs, frame.run
    if not workflow.outputs:
        return None
    template = {
        name: fill_in(workflow, ("outputs", name), value, inputs=inputs, scope={"run": run})
        for name, value in workflow.outputs.items()
    }
    left = find_references(template)
    names = dict.fromkeys(name for name, _ in left.jobs)
    return Outputs(
        template,
        result_of={name: make_job_id(run["id"], name) for name in names},
        inputs={name: inputs[name] for name in sorted(left.inputs)},
        run=run if "run" in left.roots else {},
        secrets=frame.secrets.all_of(*names),
    )


def _concurrency(workflow: Workflow, inputs: Mapping[str, Any]) -> Concurrency | None:
    """Return the `concurrency` of a run, with the inputs filled in. Errors: WorkflowInvalid."""
    if workflow.concurrency is None:
        return None
    path, text = ("concurrency", "group"), workflow.concurrency.group
    group = evaluate(fill_in(workflow, path, text, inputs=inputs, scope={}))
    return replace(workflow.concurrency, group=show(str(group)))


def _labels(
    workflow: Workflow, inputs: Mapping[str, Any], run: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels that a workflow declares, with the inputs filled in. A value that is None
    is empty. Errors: WorkflowInvalid."""
    labels, problems = {}, []
    for name, text in workflow.labels.items():
        filled = fill_in(workflow, ("labels", name), text, inputs=inputs, scope={"run": run})
        value = evaluate(filled)
        labels[name] = "" if value is None else write(value, f"labels.{name}")
        if reason := explain_value(labels[name]):
            where = workflow.places.find("labels", name)
            message = f"the value of the label {name} cannot be used"
            problems.append(Problem(BAD_LABEL, message, where, reason))
    if problems:
        raise WorkflowInvalid(problems)
    return labels


def futures_first(enqueues: Sequence[Enqueue]) -> list[Enqueue]:
    """Reorder jobs so that each comes after the future jobs that it blocks.

    A blocker can only be added to a future job that exists. The blockers of one future job are
    freed in the order of their addition, so they keep the order of declaration. `enqueues` is in
    topological order, otherwise as declared.
    """
    index_by_id = {enqueue.job_id: index for index, enqueue in enumerate(enqueues)}
    blockers: list[list[int]] = [[] for _ in enqueues]
    for index, enqueue in enumerate(enqueues):
        for block in enqueue.blocks:
            future = index_by_id.get(block.name)
            if future is not None:
                blockers[future].append(index)
    return [enqueues[index] for index in sort_by_edges(blockers)]
