"""Values as JSON, for `--json`, `--json-lines` and golden files.

One vocabulary for all commands, published as JSON Schema (`flowq schema output`, in the file
`output.schema.json` beside this module). A key means the same in each document. Instants (`…_at`)
are ISO 8601 in UTC, durations (`…_s`) are seconds. Keys may be added while `v` stays.

Results and arguments are views that children have made: nothing is unpickled. A value without a
JSON form becomes `{"repr": …, "type": …}`, with `"truncated": true` if the text is incomplete
(`flowq.runtime.views`).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from flowq.errors import FlowqError, Problem, WorkflowInvalid
from flowq.event import Event
from flowq.history import Attempt, find_run_duration
from flowq.plan import FLAT_FIELDS, Commit, Enqueue, Nested, Operation, Plan, Release, flatten
from flowq.render.groups import Declared, by_declaration, find_declared, jobs_inside, with_span
from flowq.runtime.views import make_view, to_document
from flowq.spec import Input
from flowq.status import (
    BAD,
    ENDED,
    UNAPPROVED,
    JobRecord,
    JobStatus,
    RunRecord,
    RunStatus,
    public_name,
)

if TYPE_CHECKING:
    from flowq.runtime.schedules import ScheduleRecord

VERSION = 1
"""Of the documents: it changes when a key goes, or means something else."""

MAX_RESULTS = 100
"""How many results, and how many items, of a group are in a document unless all are asked for."""


_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_json(document: Mapping[str, Any] | Sequence[Any], indent: int | None = 2) -> str:
    """Return a document as text, in the order it is in; it ends with a newline.

    Letters of all scripts are written as they are. What could change a terminal, or is no text
    (the half of a pair), is escaped.
    """
    text = json.dumps(document, indent=indent, allow_nan=False, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def make_document(kind: str, **parts: Any) -> dict[str, Any]:
    """Return a document of a kind that the schema knows."""
    return {"v": VERSION, "kind": kind, **parts}


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of all documents."""
    text = files("flowq.render").joinpath("output.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_instant(at: datetime | None) -> str | None:
    """Return an instant in UTC: `2026-11-29T12:00:00.000000Z`."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _seconds(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(duration_s, 6)


# Runs and jobs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run. By the names of jobs, unless another key is named.

    Shape: results and outputs are views (`flowq.runtime.views`); `outputs` is None before the end,
    and for a workflow that declares none. `error_by_name` has documents of errors, `edges` those of
    the run's picture.
    """

    status: RunStatus
    result_by_name: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] | None = None
    output_errors: Mapping[str, str] = field(default_factory=dict)
    record_by_name: Mapping[str, JobRecord] = field(default_factory=dict)
    record: RunRecord | None = None
    attempts_by_name: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    host_by_worker: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    error_by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edges: Sequence[Mapping[str, Any]] = ()
    has_all_results: bool = False
    has_nested: bool = False
    listed: Collection[str] | None = None
    """The names of the items that are listed of a group, instead of `MAX_RESULTS`."""


def run_document(facts: RunFacts) -> dict[str, Any]:
    """Return what `run`, `status`, `show`, `watch` and `retry` print of a run.

    Jobs as they were declared, by name: `ids` is a list, also for a single job. A group has one
    status, and lists of its `items` and their `results`; a nested workflow has its `jobs` if they
    were asked for.
    """
    status, record = facts.status, facts.record
    outputs = {**(facts.outputs or {}), **dict.fromkeys(facts.output_errors)}
    times = _times(record) if record else _NO_TIMES
    return make_document(
        "run",
        run=status.run_id,
        workflow=status.workflow,
        status=status.state,
        **({"reason": status.reason} if status.is_ended and status.reason else {}),
        **times,
        inputs=_to_json_by_name(record.inputs) if record else {},
        labels=dict(record.labels) if record else {},
        counts=status.count_by_state(),
        jobs=_jobs(facts, status, ""),
        edges=list(facts.edges),
        **({"outputs": _documents(outputs)} if outputs else {}),
        **({"output_errors": dict(facts.output_errors)} if facts.output_errors else {}),
    )


def job_document(
    facts: RunFacts,
    name: str,
    arguments: Mapping[str, Any],
    traceback: Sequence[str],
    output: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what `show` and `status` print of one job, item or group of a run."""
    status = facts.status
    declared = find_declared(status, name)
    job = status.jobs.get(name)
    if declared is not None and (declared.is_group or job is None):
        told = _declared(facts, declared, "", with_span(status))
    else:
        assert job is not None
        told = {"ids": [job.job_id], **_one(facts, job, "", with_span(status))}
    record = facts.record_by_name.get(name)
    more = {
        "description": record.description if record else None,
        "queue": record.queue if record else None,
        "code": (record.code or None) if record else None,
        "arguments": _documents(arguments),
        "traceback": list(traceback),
        "output": list(output),
    }
    parts = {"run": status.run_id, "workflow": status.workflow}
    return make_document("job", **parts, job={"name": name, **told, **more})


def _jobs(facts: RunFacts, status: RunStatus, prefix: str) -> dict[str, Any]:
    spans = with_span(status)
    return {
        name: _declared(facts, declared, prefix, spans)
        for name, declared in by_declaration(status).items()
    }


def _declared(
    facts: RunFacts, declared: Declared, prefix: str, spans: Mapping[str, JobStatus]
) -> dict[str, Any]:
    ids = [_find_id(facts, job, prefix) for job in declared.items]
    told: dict[str, Any] = {"status": declared.state, "ids": ids}
    if declared.is_group:
        told |= _group(facts, declared, prefix, spans)
    else:
        for job in declared.items:  # there is one
            told |= _one(facts, job, prefix, spans) | {"status": declared.state}
        told.setdefault("result", None)
        if facts.has_nested and declared.inside:
            told["jobs"] = _inside(facts, declared, prefix).get(declared.name, {})
    return told | _approval_of(declared, facts.record_by_name, prefix)


def _group(
    facts: RunFacts, declared: Declared, prefix: str, spans: Mapping[str, JobStatus]
) -> dict[str, Any]:
    started = [job.started_at for job in declared.jobs if job.started_at]
    ended = [job.ended_at for job in declared.jobs if job.ended_at]
    ended_at = max(ended, default=None) if declared.state in ENDED else None
    started_at = min(started, default=None)
    duration_s = (ended_at - started_at).total_seconds() if started_at and ended_at else None
    bad = [job for job in declared.items if job.state in BAD]
    shown = declared.items if facts.has_all_results else declared.items[:MAX_RESULTS]
    nested = _inside(facts, declared, prefix) if facts.has_nested and declared.inside else {}
    listed = declared.items if facts.has_all_results else _choose_items(declared)
    is_page = facts.listed is not None and not prefix  # and not of groups inside of its items
    if is_page:
        listed = [job for job in declared.items if job.name in (facts.listed or ())]
        shown = tuple(listed)
    items = []
    for job in listed:
        job_id = _find_id(facts, job, prefix)
        item = {"name": prefix + job.name, "job_id": job_id, **_one(facts, job, prefix, spans)}
        del item["result"]
        items.append({**item, "jobs": nested[job.name]} if job.name in nested else item)
    left, unlisted = len(declared.items) - len(shown), len(declared.items) - len(listed)
    return {
        **({"ids": [_find_id(facts, job, prefix) for job in shown]} if is_page else {}),
        "reason": None,
        "tolerated": bool(bad) and all(job.name in declared.forgiven for job in bad),
        "started_at": write_instant(started_at),
        "ended_at": write_instant(ended_at),
        "duration_s": _seconds(duration_s),
        "counts": dict(Counter(job.state for job in declared.items)),
        "items": items,
        **({"items_omitted": unlisted} if unlisted else {}),
        "results": [to_document(facts.result_by_name.get(prefix + job.name)) for job in shown],
        **({"results_omitted": left} if left else {}),
    }


def _find_id(facts: RunFacts, job: JobStatus, prefix: str) -> str:
    """Return what RQ calls a job; in `jobs_inside` it has the id of a run of its own."""
    return facts.status.jobs.get(prefix + job.name, job).job_id


def _choose_items(declared: Declared) -> list[JobStatus]:
    """Return the items that are listed, in their order: failed ones are left out last."""
    found = sorted(
        declared.items, key=lambda job: (job.state not in BAD, job.name in declared.forgiven)
    )
    chosen = {job.job_id for job in found[:MAX_RESULTS]}
    return [job for job in declared.items if job.job_id in chosen]


def _one(
    facts: RunFacts, job: JobStatus, prefix: str, spans: Mapping[str, JobStatus]
) -> dict[str, Any]:
    """Return what a job has that is no group. Its `attempts` are the newest ones.

    What a nested workflow itself executes is the step that evaluates its outputs, and no attempt.
    """
    name, timed = prefix + job.name, spans.get(job.name, job)
    attempts = () if job.name in spans else facts.attempts_by_name.get(name, ())
    error = facts.error_by_name.get(name)
    return {
        "status": job.state,
        "reason": job.reason or None,
        "tolerated": facts.status.is_tolerated(replace(job, name=name)),
        "queued_at": write_instant(job.queued_at or (attempts[-1].queued_at if attempts else None)),
        "started_at": write_instant(timed.started_at),
        "ended_at": write_instant(timed.ended_at),
        "duration_s": _seconds(timed.duration_s),
        **({"progress": asdict(job.progress)} if job.progress else {}),
        **_polls_of(facts.record_by_name.get(name)),
        "attempts": [_attempt(each, facts.host_by_worker) for each in attempts],
        "error": dict(error) if error else None,
        "result": to_document(facts.result_by_name.get(name)),
    }


def _inside(facts: RunFacts, declared: Declared, prefix: str) -> dict[str, dict[str, Any]]:
    return {
        outer: _jobs(facts, RunStatus("", outer, jobs=jobs), f"{prefix}{outer}.")
        for outer, jobs in jobs_inside(declared).items()
    }


def _polls_of(record: JobRecord | None) -> dict[str, Any]:
    """Return what a job has found that polls; {} for others."""
    if record is None or record.polls is None:
        return {}
    polls = record.polls
    last = [{"at": write_instant(at), "result": to_document(view)} for at, view in polls.last]
    return {"polls": {"count": polls.count, "since": write_instant(polls.since), "last": last}}


def _attempt(attempt: Attempt, host_by_worker: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    host, pid = host_by_worker.get(attempt.worker, (None, None))
    return {
        "attempt": attempt.number,
        "status": attempt.state,
        "retried": attempt.is_retried,
        "reason": attempt.reason or None,
        "worker": attempt.worker or None,
        "host": host,
        "worker_pid": pid,
        "queued_at": write_instant(attempt.queued_at),
        "handed_at": write_instant(attempt.handed_at),
        "started_at": write_instant(attempt.started_at),
        "ended_at": write_instant(attempt.ended_at),
        "waited_s": _seconds(attempt.waited_s),
        "duration_s": _seconds(attempt.duration_s),
        "error": _error_of(attempt.error_type, attempt.error_message, attempt.exit_code),
    }


def _error_of(kind: str | None, message: str, exit_code: int | None) -> dict[str, Any] | None:
    if not message and kind is None and exit_code is None:
        return None
    return {"type": kind, "message": message, "exit_code": exit_code}


def event_document(event: Event) -> dict[str, Any]:
    """Return one line of `--json-lines`: a transition of a job, or of the run itself.

    `event` says what happened, `status` what the job, or the run, is since then.
    """
    optional = {
        "name": event.name,
        "job_id": event.job_id,
        "reason": event.reason,
        "worker": event.worker,
        "started_at": write_instant(event.started_at),
        "duration_s": _seconds(event.duration_s),
        "error": asdict(event.error) if event.error else None,
        "progress": asdict(event.progress) if event.progress else None,
        "act": event.act,
        "by": event.by,
        "target": event.target,
    }
    return make_document(
        "event",
        id=event.id,
        at=write_instant(event.at),
        run=event.run,
        event=event.event,
        status=event.status,
        **{key: value for key, value in optional.items() if value not in (None, "")},
    )


def runs_document(records: Iterable[RunRecord]) -> dict[str, Any]:
    """Return what `flowq runs` prints; a run's keys are those of `run_document`."""
    return make_document("runs", runs=[_record(each) for each in records])


def _record(record: RunRecord) -> dict[str, Any]:
    return {
        "run": record.run_id,
        "workflow": record.workflow,
        "status": record.state,
        **({"reason": record.reason} if record.reason else {}),
        "labels": dict(record.labels),
        **_times(record),
    }


_NO_TIMES = dict.fromkeys(("submitted_at", "started_at", "ended_at", "duration_s"))


def _times(record: RunRecord) -> dict[str, Any]:
    """Return the times of a run, also those before a retry, and the run that it continues."""
    return {
        **({"continues": record.continues} if record.continues else {}),
        **({"due_at": write_instant(record.due_at)} if record.due_at else {}),
        **({"submitted_by": record.submitted_by} if record.submitted_by else {}),
        "submitted_at": write_instant(record.created_at),
        "started_at": write_instant(record.committed_at),
        "ended_at": write_instant(record.ended_at),
        "duration_s": _seconds(find_run_duration(record)),
    }


def schedules_document(records: Iterable[ScheduleRecord]) -> dict[str, Any]:
    """Return what `flowq schedule --list` prints."""
    return make_document("schedules", schedules=[_schedule(each) for each in records])


def _schedule(record: ScheduleRecord) -> dict[str, Any]:
    return {
        "workflow": record.workflow,
        "schedules": [
            {"cron": each.cron, "timezone": each.timezone, "catch_up": each.catch_up}
            for each in record.schedules
        ],
        "next_due_at": write_instant(record.next_due_at),
        "paused": record.is_paused,
        "served_at": write_instant(record.served_at),
        "host": record.host or None,
        "pid": record.pid,
        "runs": [_record(each) for each in record.runs],
    }


def error_document(error: FlowqError) -> dict[str, Any]:
    """Return what a command with `--json` prints in the place of its document when it fails."""
    told = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    if not isinstance(error, WorkflowInvalid):
        return make_document("error", error=told)
    return make_document("error", error=told, problems=[_problem(each) for each in error.problems])


def _approval_of(
    declared: Declared, record_by_name: Mapping[str, JobRecord], prefix: str
) -> dict[str, Any]:
    """Return what is known of the approvals that jobs ask for; {} for jobs that ask for none."""
    # Of a workflow it is the start that asks; what is inside of it is not this declaration.
    own = {declared.name, *(job.name for job in declared.items)}
    asking = (job for job in declared.jobs if public_name(job.name) in own)
    found = [
        _approval_document(job, record_by_name[prefix + job.name])
        for job in asking
        if prefix + job.name in record_by_name and record_by_name[prefix + job.name].needs_approval
    ]
    if not found:
        return {}
    return {"approval": found if declared.is_group else found[0]}


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
        "asks": [input_document(each) for each in record.asks],
    }
    if decision is None:
        return said
    return {
        **said,
        "by": decision.by,
        "at": write_instant(decision.at),
        "note": decision.note,
        "inputs": _to_json_by_name(decision.inputs),
    }


def input_document(declared: Input) -> dict[str, Any]:
    """Return an input of a workflow or of an approval."""
    said = {"name": declared.name, "type": declared.type, "required": declared.required}
    if not declared.required:
        said["default"] = to_json(declared.default)
    told = {
        "choices": list(declared.choices),
        "description": declared.description,
        "pattern": declared.pattern,
    }
    return said | {name: value for name, value in told.items() if value}


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
        **({"input": problem.input} if problem.input else {}),
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan, operation by operation."""
    return {
        "v": VERSION,
        "kind": "plan",
        "run": plan.run_id,
        "workflow": plan.workflow,
        "inputs": to_json(plan.inputs),
        **({"labels": dict(plan.labels)} if plan.labels else {}),
        **({"outputs": to_json(plan.outputs.template)} if plan.outputs else {}),
        **({"timeout_s": plan.timeout_s} if plan.timeout_s is not None else {}),
        **_continued(plan),
        "operations": [_operation(operation) for operation in plan],
    }


def _continued(plan: Plan) -> dict[str, Any]:
    if plan.continued is None:
        return {}
    return {"continues": plan.continued.run_id, "kept": list(plan.continued.kept)}


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


def _to_json_by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_json(value) for name, value in values.items()}


def to_json(value: Any) -> Any:
    """Return the value as JSON has it: tuples become lists, strangers `{"repr", "type"}`."""
    return to_document(make_view(value, math.inf))
