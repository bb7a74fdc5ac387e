"""Values as JSON, for `--json` and golden files.

A value without a JSON form becomes `{"repr": …, "type": …}`, with `"truncated": true` if the text
is incomplete (`flowq.runtime.views`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from flowq.errors import Problem
from flowq.plan import FLAT_FIELDS, Commit, Enqueue, Nested, Operation, Plan, Release, flatten
from flowq.render.groups import Declared, by_declaration
from flowq.runtime.views import make_view, to_document
from flowq.spec import Input
from flowq.status import UNAPPROVED, JobRecord, JobStatus, RunRecord, RunStatus, public_name


def write_json(document: Mapping[str, Any] | Sequence[Any], indent: int | None = 2) -> str:
    """Return a document as ASCII text, in the order it is in; it ends with a newline."""
    return json.dumps(document, indent=indent, allow_nan=False) + "\n"


def run_document(
    status: RunStatus,
    result_by_name: Mapping[str, Any],
    outputs: Mapping[str, Any] | None = None,
    record_by_name: Mapping[str, JobRecord] | None = None,
) -> dict[str, Any]:
    """Return what `flowq run --json` prints: a contract, with these keys and no other.

    Shape: results and outputs are given as views (`flowq.runtime.views`). `outputs` is there for an
    ended run whose workflow declares some, `reason` for one that timed out. Jobs as they were
    declared. `ids` is a list, also for a single job; a job without a `result` has null. A group has
    one status, and lists of the `ids` and `results` of its items. Jobs that ask for an approval
    have `approval`, a group a list.
    """
    return {
        "run": status.run_id,
        "workflow": status.workflow,
        "status": status.state,
        **({"reason": status.reason} if status.is_ended and status.reason else {}),
        "duration_s": status.duration_s,
        "jobs": {
            name: {
                "status": declared.state,
                "ids": [job.job_id for job in declared.items],
                **_results_of(declared, result_by_name),
                **_approval_of(declared, record_by_name or {}),
            }
            for name, declared in by_declaration(status).items()
        },
        **({"outputs": _documents(outputs)} if outputs else {}),
    }


def _results_of(declared: Declared, result_by_name: Mapping[str, Any]) -> dict[str, Any]:
    results = [to_document(result_by_name.get(job.name)) for job in declared.items]
    return {"results": results} if declared.is_group else {"result": next(iter(results), None)}


def _approval_of(declared: Declared, record_by_name: Mapping[str, JobRecord]) -> dict[str, Any]:
    """Return what is known of the approvals that jobs ask for; {} for jobs that ask for none."""
    # Of a workflow it is the start that asks; what is inside of it is not this declaration.
    own = {declared.name, *(job.name for job in declared.items)}
    asking = (job for job in declared.jobs if public_name(job.name) in own)
    found = [
        _approval_document(job, record_by_name[job.name])
        for job in asking
        if job.name in record_by_name and record_by_name[job.name].needs_approval
    ]
    if not found:
        return {}
    return {"approval": found if declared.is_group else found[0]}


def record_document(record: RunRecord) -> dict[str, Any]:
    """Return one item of `flowq runs --json`: `duration_s` is null until the run has ended."""
    begun_at, ended_at = record.committed_at or record.created_at, record.ended_at
    return {
        "run": record.run_id,
        "workflow": record.workflow,
        "status": record.state,
        "submitted_at": record.created_at.isoformat(),
        "duration_s": round((ended_at - begun_at).total_seconds(), 3) if ended_at else None,
    }


def _approval_document(job: JobStatus, record: JobRecord) -> dict[str, Any]:
    decision = record.decision
    if decision is not None:
        status = "approved" if decision.is_approved else "rejected"
    elif job.is_asking:
        status = "waiting"
    else:
        status = "expired" if job.reason.endswith(UNAPPROVED) else "not asked"
    said = {
        "status": status,
        "message": record.message,
        "asks": [_input(each) for each in record.asks],
    }
    if decision is None:
        return said
    at = decision.at.isoformat() if decision.at else None
    return {
        **said,
        "by": decision.by,
        "at": at,
        "note": decision.note,
        "inputs": dict(decision.inputs),
    }


def _input(declared: Input) -> dict[str, Any]:
    said = {"name": declared.name, "type": declared.type, "required": declared.required}
    if not declared.required:
        said["default"] = to_json(declared.default)
    return said | ({"choices": list(declared.choices)} if declared.choices else {})


def _documents(views: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_document(view) for name, view in views.items()}


def problems_document(target: str, problems: Iterable[Problem]) -> dict[str, Any]:
    """Return what is wrong with a workflow, in the order in which it was found."""
    return {"target": target, "problems": [_problem(problem) for problem in problems]}


def _problem(problem: Problem) -> dict[str, Any]:
    where = problem.where
    return {
        "code": problem.code,
        "severity": problem.severity,
        "message": problem.message,
        "hint": problem.hint,
        "file": where.file if where else None,
        "line": where.line if where else None,
        "column": where.column if where else None,
        **({"merged_in": list(where.merged_in)} if where and where.merged_in else {}),
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan, operation by operation."""
    return {
        "run": plan.run_id,
        "workflow": plan.workflow,
        "inputs": to_json(plan.inputs),
        **({"outputs": to_json(plan.outputs.template)} if plan.outputs else {}),
        **({"timeout_s": plan.timeout_s} if plan.timeout_s is not None else {}),
        "operations": [_operation(operation) for operation in plan],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    verb = type(operation).__name__.lower()
    if isinstance(operation, Commit):
        return {"do": verb, "run": operation.run_id}
    if isinstance(operation, Release):
        return {"do": verb, "job_id": operation.job_id}
    return {"do": verb, **_said(operation)}


def _said(value: Any) -> Any:
    """Return a part of a plan as JSON; of what most jobs do not have, only what is there."""
    if isinstance(value, Nested):
        limit = {} if value.timeout_s is None else {"timeout_s": value.timeout_s}
        return {"workflow": value.workflow.name, "join_id": value.join_id, **limit}
    if isinstance(value, list | tuple):
        return [_said(item) for item in value]
    if not is_dataclass(value):
        return to_json(value)
    found = {each.name: getattr(value, each.name) for each in fields(value)}
    defaults = {each.name: each.default for each in fields(value)}
    if isinstance(value, Enqueue):
        does = found.pop("does")
        flat = {**found, **flatten(does)}
        found = {name: flat[name] for name in (*FLAT_FIELDS, *flat) if name in flat}
    return {
        name: _said(said)
        for name, said in found.items()
        if name in _ALWAYS_SAID
        or said not in (None, "", False, (), {}, defaults.get(name))
        or (name == "if_" and said is False)
    }


_ALWAYS_SAID = (
    *("job_id", "name", "call", "kwargs", "result_of", "inputs", "deferred", "blocks"),
    *("on_blocker_failure", "on_failure", "queue", "timeout_s", "retries", "description"),
    *("max", "backoff_s"),
)


def to_json(value: Any) -> Any:
    """Return the value as JSON has it: tuples become lists, strangers `{"repr", "type"}`."""
    return to_document(make_view(value, math.inf))
