"""Graph → Plan: the operations that make one run of a checked workflow. Pure."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import evaluate, fill, find_references
from flowq.graph import Graph
from flowq.plan import Commit, Enqueue, Operation, Plan, Release
from flowq.spec import Block


def make_plan(graph: Graph, inputs: Mapping[str, Any], run_id: str) -> Plan:
    """Compile a checked graph and its resolved inputs to the operations of one run.

    Shape: deterministic; the jobs in reverse topological order, the releases in topological order.
    Errors: WorkflowInvalid with all expressions that these inputs give no value; CycleError for a
    graph that has not been checked.
    """
    order = graph.topological_order
    kwargs_by_name = _fill_all(graph, inputs)
    operations: list[Operation] = []
    for name in reversed(order):
        operations.append(_enqueue(graph, name, kwargs_by_name[name], inputs, run_id))
    operations.append(Commit(run_id))
    for name in order:
        if graph.is_future(name):
            operations.append(Release(make_job_id(run_id, name)))
    workflow = graph.workflow
    return Plan(run_id, workflow.name, dict(inputs), tuple(operations), workflow.folder)


def make_job_id(run_id: str, name: str) -> str:
    """Return the id of the job that a run makes from the declaration `name`."""
    return f"{run_id}-{name}"


def _fill_all(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of every job, as templates in which only results are missing."""
    filled: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for job in graph:
        filled[job.name] = {}
        for key, value in job.with_.items():
            where = graph.workflow.places.find("jobs", job.name, "with", key)
            try:
                filled[job.name][key] = fill(value, inputs=inputs, where=where)
            except WorkflowInvalid as invalid:
                problems += invalid.problems
    if problems:
        raise WorkflowInvalid(problems)
    return filled


def _enqueue(
    graph: Graph, name: str, filled: Mapping[str, Any], inputs: Mapping[str, Any], run_id: str
) -> Enqueue:
    job, defaults = graph.job_by_name[name], graph.workflow.defaults
    left = find_references(filled)
    edges = graph.outgoing(name)
    return Enqueue(
        job_id=make_job_id(run_id, name),
        name=name,
        call=job.call,
        kwargs=filled if left.jobs else evaluate(filled),
        result_of={blocker: make_job_id(run_id, blocker) for blocker, _ in left.jobs},
        inputs={key: value for key, value in inputs.items() if key in left.inputs},
        deferred=graph.is_future(name),
        blocks=tuple(Block(make_job_id(run_id, edge.future), edge.on_failure) for edge in edges),
        on_blocker_failure=job.on_blocker_failure or "skip",
        queue=job.queue or defaults.queue,
        timeout_s=defaults.timeout_s if job.timeout_s is None else job.timeout_s,
        retries=job.retries or defaults.retries,
        description=job.description or _describe(job.call, filled),
    )


def _describe(call: str, filled: Mapping[str, Any]) -> str:
    """Return a call as a reader wants to see it: short, with `…` for what is not known yet."""
    return f"{call}({', '.join(f'{key}={_shortened(value)}' for key, value in filled.items())})"


def _shortened(template: Any) -> str:
    return "…" if find_references(template).jobs else _brief.repr(evaluate(template))


_brief = reprlib.Repr()  # its settings are arguments from Python 3.12 on only
_brief.maxstring = _brief.maxother = 40
_brief.maxlist = _brief.maxdict = 4
_brief.maxlevel = 2
