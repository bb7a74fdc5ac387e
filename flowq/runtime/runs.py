"""Runs: submit a plan to RQ, read a run's record and events, and cancel or remove it.

A run is staged job by job, committed once, and released in steps that any process can continue. If
the submitter dies before the commit, the staged run's lease expires and `maintenance` removes it;
if it dies later, other processes finish the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.utils import as_text, str_to_date

from flowq.errors import NotFound, RunNotFound, WrongState
from flowq.history import CodeChange
from flowq.importing import refuse_while_importing
from flowq.pauses import read_polls
from flowq.reports import read_progress
from flowq.runtime import keys, scripts
from flowq.runtime.connections import (
    MAX_WAIT_S,
    do_or_leave_to_others,
    is_passing,
    is_refusal,
    read_clock,
    read_each,
)
from flowq.runtime.listening import find_unattended
from flowq.runtime.printed import read_budget
from flowq.runtime.scripts import format_instant
from flowq.runtime.steps import finish, stop
from flowq.runtime.tracing import as_span, write_context
from flowq.status import (
    LIST,
    PROGRESSED,
    START,
    ApprovalDecision,
    Event,
    JobRecord,
    JobStatus,
    RunRecord,
    RunStatus,
    fold,
    is_waiting,
)

if TYPE_CHECKING:
    from redis import Redis

    from flowq.plan import Plan, Source


ABANDONED = "the run was canceled, and no worker listens on its queue"
"""Why a job ended that would still have run (lua/lifecycle.lua)."""

LEASE_S = 30 + MAX_WAIT_S
"""How long a submitter may be silent before its uncommitted run is removed: longer than it waits
for a server that refuses."""

_CLAIMED = -3
"""What lua/runs.lua says of a run whose claim another one has."""

RETENTION_S = 7 * 86_400
"""How long an ended run is kept, unless told otherwise."""


# Submitting ----------------------------------------------------------------------------------


@as_span
def submit(
    plan: Plan,
    connection: Redis,
    *,
    retention_s: float = RETENTION_S,
    is_held: bool = False,
    is_apart: bool = False,
    budget_bytes: int | None = None,
    by: str = "",
) -> None:
    """Execute a plan. Nothing runs before its commit; afterwards the run no longer needs this
    process.

    With `is_held`, nothing is released before `flowq.runtime.approvals.release_run`. With
    `is_apart`, the run has its own queue: every job of the run goes there (lua/add.lua), and the
    job's hash records its declared queue. `by` is who submits it.

    `budget_bytes` limits what the server keeps of the run's output and large views (decision 013);
    the default is FLOWQ_RUN_BUDGET_MB, else 8 MB.

    Errors: those of `Queue.enqueue`, after removing the staged run; RunNotFound if this process was
    suspended for longer than its lease, so the run was abandoned; WrongState if another run has the
    plan's claim, or the run that it continues has changed; redis-py's if the server refuses or the
    connection is lost, with a note that names the run and says what has become of it.
    """
    from flowq.runtime.keeping import keep  # noqa: PLC0415 - readers add no jobs
    from flowq.runtime.planned import add_planned, batches  # noqa: PLC0415

    refuse_while_importing()
    run_id = plan.run_id
    is_committing = False
    if budget_bytes is None:
        budget_bytes = read_budget(os.environ)
    try:
        _stage(plan, connection, retention_s, is_apart=is_apart, budget_bytes=budget_bytes, by=by)
        for enqueues in batches(plan.enqueues):
            _renew_lease(run_id, connection)
            add_planned(enqueues, run_id, connection)
        if plan.continued is not None:
            keep(plan, connection, lambda: _renew_lease(run_id, connection))
        is_committing, mode = True, "hold" if is_held else ""
        answer = scripts.COMMIT.call(connection, keys.run(run_id), run_id, mode)
        if answer == _CLAIMED:
            finish(connection, f"purge:{run_id}")
            what = f"the run of {plan.workflow} that was due at {plan.due_at}"
            raise WrongState(f"{what} was submitted before")
        if answer < 0:
            raise RunNotFound(run_id)
    except NotFound:
        is_staged = connection.hget(keys.run(run_id), "state") == b"staged"
        finish(connection, f"purge:{run_id}")
        if is_staged:
            raise
        hint = "it was removed, because submitting it took too long; submit it again"
        raise RunNotFound(run_id, hint) from None
    except Exception as error:  # if it is interrupted, its lease ends as well
        if is_committing and is_passing(error) and not is_refusal(error):
            error.add_note(f"whether run {run_id} is submitted is not known: look at its status")
        elif is_passing(error):  # its lease ends, and maintenance removes it
            error.add_note(f"run {run_id} is not submitted, and nothing starts: submit it again")
        elif not is_committing:
            finish(connection, f"purge:{run_id}")
        raise
    if not is_held:
        do_or_leave_to_others(lambda: go(run_id, connection), connection)


def _renew_lease(run_id: str, connection: Redis) -> None:
    """Renew it before each batch: maintenance removes the run if its submitter is silent."""
    connection.zadd(keys.STAGED, {run_id: read_clock(connection) + LEASE_S}, xx=True)


def go(run_id: str, connection: Redis) -> None:
    """Complete the release of a run that is no longer held.

    If the run waits in its `concurrency` group and its workflow says so, cancel the runs before it.
    """
    key = keys.run(run_id)
    fields = ("concurrency", "cancel_in_progress", "held", "concurrency_limit")
    group, cancels, held, limit = connection.hmget(key, *fields)
    if group and cancels and held:
        _cancel_before(run_id, as_text(group), int(limit or 1), connection)
    finish(connection, f"run:{run_id}")


def _stage(
    plan: Plan,
    connection: Redis,
    retention_s: float,
    *,
    is_apart: bool,
    budget_bytes: int | None,
    by: str,
) -> None:
    from flowq.plan import Release  # noqa: PLC0415 - readers write no record
    from flowq.runtime.outputs import fields_of_record  # noqa: PLC0415
    from flowq.runtime.planned import declare_groups, write_timeout  # noqa: PLC0415
    from flowq.runtime.run_labels import inherit_labels, list_labeled  # noqa: PLC0415

    now_s = read_clock(connection)
    record: dict[Any, Any] = {
        "workflow": plan.workflow,
        "state": "staged",
        "inputs": json.dumps(plan.inputs, default=repr),
        "created_at": format_instant(now_s),
        "retention_s": retention_s,
        "folders": json.dumps(plan.folders),
        "left": 0,
        "bad": 0,
        keys.DECLARES_OPEN_FIELD: 1,
    }
    kept = (plan.source.picture, plan.source.workflow, plan.source.file, plan.source.digest)
    record |= {name: value for name, value in zip(_FIELDS_OF_SOURCE, kept, strict=True) if value}
    if budget_bytes is not None:
        record[keys.BUDGET_FIELD] = budget_bytes
    if context := write_context():
        record[keys.TRACE_FIELD] = context
    if is_apart:
        record["queue"] = keys.own_queue(plan.run_id)
    if plan.max_parallel is not None:
        record["max_parallel"] = plan.max_parallel
    if plan.timeout_s is not None:
        record["timeout"] = write_timeout(plan.timeout_s)
    if plan.concurrency is not None:
        record["concurrency"] = plan.concurrency.group
        record["cancel_in_progress"] = "1" if plan.concurrency.cancel_in_progress else ""
        record["concurrency_limit"] = plan.concurrency.limit
    continues = plan.continued.run_id if plan.continued else ""
    some = {"due_at": plan.due_at, "claim": plan.claim, "continues": continues, "submitted_by": by}
    record |= {name: value for name, value in some.items() if value}
    record |= fields_of_record(plan)
    labels = inherit_labels(plan.labels, connection)
    releases = [op.job_id for op in plan if isinstance(op, Release)]
    with connection.pipeline() as pipeline:
        pipeline.hset(keys.run(plan.run_id), mapping=record)
        pipeline.zadd(keys.RUNS, {plan.run_id: now_s})
        pipeline.zadd(keys.runs_of(plan.workflow), {plan.run_id: now_s})
        pipeline.zadd(keys.runs_in("staged"), {plan.run_id: now_s})
        list_labeled(plan.run_id, labels, now_s, now_s + retention_s, pipeline)
        pipeline.zadd(keys.STAGED, {plan.run_id: now_s + LEASE_S})
        for first in range(0, len(releases), 1_000):
            pipeline.rpush(keys.run_futures(plan.run_id), *releases[first : first + 1_000])
        for first in range(0, len(plan.order), 1_000):
            pipeline.rpush(keys.run_order(plan.run_id), *plan.order[first : first + 1_000])
        declare_groups(plan.groups, plan.run_id, pipeline)
        pipeline.execute()


def _cancel_before(run_id: str, group: str, limit: int, connection: Redis) -> None:
    """Cancel the oldest runs of a group, as many as there is no room for beside this one."""
    line = [as_text(raw) for raw in connection.lrange(keys.concurrency(group), 0, -1)]
    count = max(0, line.index(run_id) - limit + 1) if run_id in line else 0
    for other in line[:count]:
        try:  # a run's own queue may have no workers, so `cancel` must not wait for its jobs
            is_apart = bool(get_record(other, connection).queue)
            cancel(other, connection, may_wait=not is_apart, by=f"run {run_id}")
        except (RunNotFound, WrongState):  # it has just ended
            continue


# Looking -------------------------------------------------------------------------------------


def get_record(run_id: str, connection: Redis) -> RunRecord:
    """Return the record of a run. Errors: RunNotFound."""
    record = _make_record(run_id, connection.hmget(keys.run(run_id), *_FIELDS_OF_RUN))
    if record is None:
        raise RunNotFound(run_id)
    return record


def read_records(run_ids: Iterable[str], connection: Redis) -> Iterator[tuple[str, RunRecord]]:
    """Yield the records of runs as `get_current_record` returns them, but for those removed."""
    found = read_each(
        run_ids, connection, lambda pipe, run: pipe.hmget(keys.run(run), *_FIELDS_OF_RUN)
    )
    for run_id, (values,) in found:
        if record := _make_record(run_id, values):
            yield run_id, _with_current_state(record, connection)


def _make_record(run_id: str, values: Any) -> RunRecord | None:
    raw = {
        name: as_text(value)
        for name, value in zip(_FIELDS_OF_RUN, values, strict=True)
        if value is not None
    }
    if not raw.get("workflow") or raw.get("state") == "purging":
        return None
    return RunRecord(
        run_id=run_id,
        workflow=raw["workflow"],
        state="waiting" if raw["state"] == "running" and "held" in raw else raw["state"],
        inputs=json.loads(raw["inputs"]),
        created_at=_instant(raw["created_at"]) or datetime.now(UTC),
        committed_at=_instant(raw.get("committed_at")),
        ended_at=_instant(raw.get("ended_at")),
        folders=tuple(json.loads(raw.get("folders", "[]"))),
        queue=raw.get("queue", ""),
        reason=raw.get("late", ""),
        file=raw.get("file", ""),
        digest=raw.get("digest", ""),
        labels=json.loads(raw.get("labels", "{}")),
        due_at=datetime.fromisoformat(raw["due_at"]) if "due_at" in raw else None,
        continues=raw.get("continues", ""),
        submitted_by=raw.get("submitted_by", ""),
    )


_FIELDS_OF_RUN = (
    *("workflow", "state", "held", "inputs", "created_at", "committed_at", "ended_at"),
    *("folders", "queue", "late", "file", "digest", "labels", "due_at"),
    *("continues", "submitted_by"),
)


_FIELDS_OF_SOURCE = ("picture", "spec", "file", "digest")


def read_source(run_id: str, connection: Redis) -> Source:
    """Return what a run keeps of its workflow; of a run of an older version that is nothing."""
    from flowq.plan import Source  # noqa: PLC0415 - most readers need no source

    values: Any = connection.hmget(keys.run(run_id), *_FIELDS_OF_SOURCE)
    return Source(*(as_text(value) if value else "" for value in values))


def _instant(text: str | None) -> datetime | None:
    # As RQ's `str_to_date` reads it, in a twentieth of the time.
    return datetime.fromisoformat(text) if text else None


def get_status(run_id: str, connection: Redis) -> RunStatus:
    """Return a run's status, folded from all of its events. Errors: RunNotFound."""
    return fold(get_declared(run_id, connection), read_events(run_id, connection))


def get_declared(run_id: str, connection: Redis) -> RunStatus:
    """Return a run's status before any of its events. Errors: RunNotFound."""
    record = get_record(run_id, connection)
    job_ids = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    name_by_id = read_names(run_id, job_ids, connection)
    shown = [as_text(job_id) for job_id in connection.lrange(keys.run_order(run_id), 0, -1)]
    # As declared; then as added, because `run_jobs` begins with the newest.
    known = dict.fromkeys([*shown, *reversed(job_ids)])
    jobs = {name_by_id[job_id]: job_id for job_id in known if job_id in name_by_id}
    return RunStatus(
        run_id,
        record.workflow,
        jobs={name: JobStatus(name, job_id) for name, job_id in jobs.items()},
        groups=frozenset(read_groups(run_id, connection)),
    )


def _name_of_gone(run_id: str, job_id: str, connection: Redis) -> str:
    """Return the name of a job whose hash is gone, as in its last event (lua/watching.lua)."""
    if name := connection.hget(keys.group(job_id), "name"):
        return f"{as_text(name)}{LIST}"
    group_id, _, index = job_id.rpartition("--")
    if name := connection.hget(keys.group(group_id), "name"):
        return f"{as_text(name)}[{index}]"
    outer_id, _, rest = job_id.rpartition("--")
    while outer_id:
        if connection.hexists(keys.job(outer_id), "flowq_nested"):
            name = as_text(connection.hget(keys.job(outer_id), "flowq_name") or b"")
            return name + START if rest == "0" else f"{name}.{rest}"
        outer_id, _, more = outer_id.rpartition("--")
        rest = f"{more}--{rest}"
    return job_id.removeprefix(f"{run_id}-")


def read_groups(run_id: str, connection: Redis) -> Iterator[str]:
    """Yield the names of the groups of the run's own workflow."""
    for raw in connection.sscan_iter(keys.run_groups(run_id)):
        name = as_text(raw).removeprefix(f"{run_id}-")
        if "--" not in name:
            yield name


def read_names(run_id: str, job_ids: Sequence[str], connection: Redis) -> dict[str, str]:
    """Return the names of a run's jobs by id; all but those of plain jobs are looked up."""
    names = {job_id: job_id.removeprefix(f"{run_id}-") for job_id in job_ids}
    groups = {as_text(raw) for raw in connection.sscan_iter(keys.run_groups(run_id))}
    looked_up = [job_id for job_id in job_ids if "--" in job_id or job_id in groups]
    for job_id, (name,) in read_each(
        looked_up, connection, lambda pipe, job: pipe.hget(keys.job(job), "flowq_name")
    ):
        names[job_id] = as_text(name) if name else _name_of_gone(run_id, job_id, connection)
    return names


def read_events(
    run_id: str, connection: Redis, after: str = "0", wait_s: float = 0
) -> Iterator[Event]:
    """Yield the events after the one with this id, oldest first.

    Blocks: up to `wait_s` when there is nothing yet.
    """
    key = keys.run_events(run_id)
    block_ms = max(1, int(wait_s * 1000)) if wait_s else None
    while answer := connection.xread({key: after}, count=1_000, block=block_ms):
        for event_id, raw in read_streams(answer)[0][1]:
            after = as_text(event_id)
            yield read_entry(event_id, raw)
        block_ms = None


def read_streams(answer: Any) -> list[tuple[str, list[tuple[Any, Mapping[Any, Any]]]]]:
    """Return what XREAD has answered: keys of streams, and their entries."""
    if isinstance(answer, dict):  # RESP3
        return [(as_text(key), list(parts[0])) for key, parts in answer.items()]
    return [(as_text(key), list(entries)) for key, entries in answer or ()]


def read_entry(event_id: Any, raw: Mapping[Any, Any]) -> Event:
    """Return an entry of a run's log, of this version or an older one."""
    event_id = as_text(event_id)
    fields = {  # readers read 40,000 of them: nothing is called for each field
        (name.decode() if isinstance(name, bytes) else name): (
            value.decode() if isinstance(value, bytes) else value
        )
        for name, value in raw.items()
    }
    get = fields.get
    progress = read_progress(fields["progress"]) if "progress" in fields else None
    began_at, took_ms, exit_code = get("began_at"), get("took_ms"), get("exit_code")
    return Event(
        id=event_id,
        at=datetime.fromtimestamp(int(event_id.partition("-")[0]) / 1000, UTC),
        job_id=fields["job"],
        name=fields["name"],
        state=PROGRESSED if progress else fields["state"],
        reason=get("reason", ""),
        worker=get("worker", ""),
        began_at=_instant(began_at),
        took_ms=float(took_ms) if took_ms else None,
        error=get("error", ""),
        exit_code=int(exit_code) if exit_code else None,
        progress=progress,
        act=get("act", ""),
        by=get("by", ""),
        target=get("target", ""),
    )


def get_current_record(run_id: str, connection: Redis) -> RunRecord:
    """Return the record of a run with its current state, including `waiting`, which is not stored.

    Errors: RunNotFound.
    """
    return _with_current_state(get_record(run_id, connection), connection)


def _with_current_state(record: RunRecord, connection: Redis) -> RunRecord:
    if record.state != "running":
        return record
    waits = is_waiting(_newest_events(record.run_id, connection))
    return replace(record, state="waiting") if waits else record


def _newest_events(run_id: str, connection: Redis) -> Iterator[Event]:
    """Yield what has happened so far, newest first."""
    before, count = "+", 20  # which is all that most readers need
    while before:
        page: Any = connection.xrevrange(keys.run_events(run_id), before, "-", count=count)
        count = 1_000
        for event_id, raw in page:
            yield read_entry(event_id, raw)
        before = f"({as_text(page[-1][0])}" if page else ""


_RECORD_FIELDS = (
    *("origin", "flowq_queue", "description", "flowq_blocks", "flowq_message"),
    *("flowq_code", "flowq_approval", "flowq_asks", "flowq_approved", "flowq_rejected"),
    *("flowq_open", "flowq_polls"),
)


def read_job_records(job_ids: Iterable[str], connection: Redis) -> dict[str, JobRecord]:
    """Return the records by job id; jobs that are gone are left out."""
    from flowq.runtime.wire import read_inputs  # noqa: PLC0415 - a status needs no plans

    records: dict[str, JobRecord] = {}
    answers = read_each(
        job_ids, connection, lambda pipe, job: pipe.hmget(keys.job(job), *_RECORD_FIELDS)
    )
    for job_id, (fields,) in answers:
        origin, queue, *others = (as_text(each) if each else "" for each in fields)
        if origin:
            text, blocks, message, code, approval, asks, approved, rejected, is_open, polls = others
            records[job_id] = JobRecord(
                *(job_id, queue or origin, text, not blocks, message, origin, code),
                needs_approval=bool(approval),
                asks=read_inputs(asks),
                decision=read_decision(approved, rejected),
                blocks=tuple(blocks.split()),
                is_open=bool(is_open),
                polls=read_polls(polls),
            )
    return records


def will_grow(run_id: str, connection: Redis) -> bool:
    """Whether a run has a group, a nested workflow, or a job that code adds others to."""
    if connection.exists(keys.run_groups(run_id)):
        return True
    ids = map(as_text, connection.lrange(keys.run_jobs(run_id), 0, -1))
    answers = read_each(
        ids, connection, lambda pipe, job: pipe.hmget(keys.job(job), "flowq_open", "flowq_nested")
    )
    return any(any(fields) for _, (fields,) in answers)


def read_decision(approved: str, rejected: str) -> ApprovalDecision | None:
    """Return the decision on a job's approval; older versions stored only the decision itself."""
    said = json.loads(rejected or approved or "null")
    if said is None:
        return None
    if not isinstance(said, dict):
        return ApprovalDecision(is_approved=True)
    at = str_to_date(said["at"]) if said.get("at") else None
    return ApprovalDecision(
        not rejected, said.get("by", ""), at, said.get("note", ""), said.get("inputs", {})
    )


def read_changes(run_id: str, connection: Redis) -> list[CodeChange]:
    """Return the changes of a run's code, oldest first.

    A change and its reversal count as two. Files that only one job used cannot have changed.
    """
    raw: Any = connection.hvals(keys.run_code(run_id))
    versions = sorted((json.loads(each) for each in raw), key=lambda told: told["at"])
    known: dict[str, tuple[str, str]] = {}
    changes = []
    for told in versions:
        for file, digest in told["files"].items():
            before, job = known.get(file, (digest, ""))
            if before != digest:
                at = datetime.fromtimestamp(told["at"], UTC)
                changes.append(CodeChange(file, job, told["job"], at))
            if before != digest or file not in known:
                known[file] = digest, told["job"]
    return changes


# Ending --------------------------------------------------------------------------------------


def cancel(
    run_id: str, connection: Redis, *, is_now: bool = False, may_wait: bool = True, by: str = ""
) -> list[str]:
    """Cancel jobs that have not started, and stop running jobs. Idempotent.

    Jobs with `always()` or `canceled()` in their `if` still run, unless `is_now` is set or the run
    has not begun, because it is held or waits for its turn. Without `may_wait`, such jobs are also
    canceled if no worker listens on their queue; returns these queues. Running jobs of a dead
    worker end immediately. The run is told that it was `by` somebody.
    Errors: RunNotFound; WrongState for a run that has ended.
    """
    record = get_record(run_id, connection)
    if record.state == "retrying":  # complete the retry, or its later jobs would be started
        finish(connection, f"again:{run_id}")
    # Before any job is called off: scripts that begin or add a job look whether this was done.
    how = "now" if is_now else ""
    state = scripts.CANCEL.call(connection, keys.run(run_id), run_id, how, by)
    if state != 1:
        raise WrongState(f"run {run_id} has ended: {as_text(state)}")
    _call_off(run_id, connection)
    queues: list[str] = []
    if not may_wait:
        unended = [as_text(raw) for raw in connection.hkeys(keys.unended(run_id))]
        records = read_job_records(unended, connection).values()
        origins = sorted({job.origin for job in records})
        queues = find_unattended(origins, connection, or_soon=False)
    if queues:
        with connection.pipeline() as pipeline:
            pipeline.hset(keys.run(run_id), "unattended", json.dumps(queues))
            pipeline.hdel(keys.run(run_id), "canceled")
            pipeline.execute()
        _call_off(run_id, connection)
    return queues


def _call_off(run_id: str, connection: Redis) -> None:
    stop(finish(connection, f"cancel:{run_id}"), connection)


def remove(run_id: str, connection: Redis) -> None:
    """Remove a run with all its jobs, in any state. Idempotent.

    Its due time can have another run then, which it cannot when maintenance removes an old run.
    """
    key = keys.run(run_id)
    if connection.hexists(key, "claim"):
        connection.hset(key, "unclaims", "1")  # lifecycle.purge gives the claim up with the record
    finish(connection, f"purge:{run_id}")


# A queue of its own -------------------------------------------------------------------------


JOBS_PER_MOVE = 100
SHARED = "shared"
"""Field of a run's record: it had no queue of its own at first."""


def set_apart(run_id: str, connection: Redis) -> str:
    """Return the run's own queue; if necessary, create it and move the run's jobs there.

    A job that is being executed is not moved until a later call. Idempotent.
    Errors: RunNotFound.
    """
    key, queue = keys.run(run_id), keys.own_queue(run_id)
    record = get_record(run_id, connection)
    if record.queue and not connection.hexists(key, SHARED):
        return record.queue
    # Before the jobs are listed: those that are added from now on go to this queue by themselves.
    connection.hset(key, mapping={"queue": queue, SHARED: "1"})
    ids = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    ids.reverse()  # the list has the last ones first
    for first in range(0, len(ids), JOBS_PER_MOVE):
        scripts.SET_APART.call(connection, key, queue, *ids[first : first + JOBS_PER_MOVE])
    return queue
