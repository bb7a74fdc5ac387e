"""Explains why a job has not run: each remaining hold, and what to do about it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from rq.utils import as_text, str_to_date
from rq.worker import Worker as RQWorker

from flowq.durations import local_time
from flowq.errors import JobNotFound
from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.limits import find_wait, is_across_runs, one_line
from flowq.runtime.listening import advise, find_alive, find_living, find_unattended, run_of
from flowq.runtime.queue import Queue
from flowq.runtime.runs import read_job_records
from flowq.runtime.wip import WIPRegistry
from flowq.status import (
    ENDED,
    OUTCOMES,
    SUCCESSES,
    JobStatus,
    declared_name,
    public_name,
    say_state,
)

if TYPE_CHECKING:
    from redis import Redis

NAMED = 5
"""How many jobs a sentence names before it counts the rest."""

_WITHOUT_A_CALL = {"canceled", "finished"}
"""RQ's statuses of jobs whose function was not called ("finished" if the `if` was false)."""

_OPEN_STATES = {"open", "releasing"}

_ENDED = {"finished", "failed", "stopped", "canceled"}
"""RQ's statuses of jobs that have ended."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a job does not run now.

    `kind` is one of held, turn, open, gate, blockers, approval, slot, dependencies, time, queue,
    started, items, ended. `job_ids` are all jobs that hold this one.
    """

    kind: str
    text: str
    job_ids: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of a job. `reasons` are in the order in which they must be resolved; often one.

    `name` is its name in its run; empty for a job of no run.
    """

    job_id: str
    state: str
    reasons: tuple[Reason, ...]
    name: str = ""

    @property
    def subject(self) -> str:
        """The job's name and id, for a reader."""
        return f"{self.name} ({self.job_id})" if self.name else self.job_id

    def __str__(self) -> str:
        lines = [f"{self.subject} {say_state(self.state)}"]
        for reason in self.reasons:
            lines.append(f"  - {reason.text}")
            if reason.hint:
                lines.append(f"    {reason.hint}")
        return "\n".join(lines)


class Commands(Protocol):
    """Writes the commands in hints, with the options for the right server."""

    def hint(self, words: str, *names: str) -> str:
        """Return a command of flowq: `words` unchanged, `names` quoted for a shell."""

    def rq_hint(self, words: str, *names: str) -> str:
        """Return a command of RQ; "" if RQ's commands cannot connect to that server."""


class _PlainCommands:
    def hint(self, words: str, *names: str) -> str:
        return " ".join(["flowq", words, *map(shlex.quote, names)])

    def rq_hint(self, words: str, *names: str) -> str:
        return " ".join(["rq", words, *map(shlex.quote, names)])


PLAIN: Commands = _PlainCommands()
"""Commands for the server that the environment names, or for the private one."""


class PythonCalls(_PlainCommands):
    """Writes calls of `run`, the run of a program, where there are such calls."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def hint(self, words: str, *names: str) -> str:
        """Return `run.approve('go')`, or a command where Python has no call."""
        if words == "release" and names[0] != self._run_id:
            return f"flowq.release_job({names[0]!r}, connection=…)"
        if words not in _CALLS:
            return super().hint(words, *names)
        run = "run" if names[0] == self._run_id else f"flowq.get_run({names[0]!r})"
        arguments = ", ".join(map(repr, names[1:]))
        return f"{run}.{words}({arguments})"


_CALLS = ("approve", "cancel", "explain", "release", "retry")


@dataclass(frozen=True, slots=True)
class _Place:
    """The server, the run of the job ("" for none), and the writer of commands."""

    connection: Redis
    run_id: str
    commands: Commands

    def hint(self, words: str, *names: str) -> str:
        return self.commands.hint(words, *names)

    def hint_job(self, verb: str, job_id: str) -> str:
        """Return a command about a job, by its name in its run."""
        [name] = self.names([job_id])
        return self.hint(verb, *([job_id] if name == job_id else [self.run_id, name]))

    def names(self, job_ids: Sequence[str]) -> list[str]:
        """Return the names of the run's jobs; for other and for deleted jobs, their ids."""
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(keys.job(job_id), "flowq_run", "flowq_name")
            answers = pipeline.execute()
        return [
            as_text(name) if name and run and as_text(run) == self.run_id else job_id
            for job_id, (run, name) in zip(job_ids, answers, strict=True)
        ]

    def name(self, job_ids: Sequence[str]) -> str:
        """Name the first jobs, and count the rest."""
        more = [""] * (len(job_ids) - NAMED)
        return _name([*map(public_name, self.names(job_ids[:NAMED])), *more])


def explain(
    job_id: str, connection: Redis, run_id: str = "", commands: Commands = PLAIN
) -> Explanation:
    """Explain why a job has not run, or how it ended. Changes nothing.

    Args:
        run_id: the run of a job that may have been deleted; otherwise its id tells.
        commands: writes the commands in hints.

    Errors: JobNotFound.
    """
    job = _read(keys.job(job_id), connection)
    if not job:
        run_id = run_id or job_id.partition("-")[0]
        return _explain_deleted(job_id, _Place(connection, run_id, commands))
    place = _Place(connection, job.get("flowq_run", ""), commands)
    status = job.get("status", "")
    outcome = job.get("flowq_outcome", "")
    has_own_word = status in _WITHOUT_A_CALL or "flowq_ends_as" in job
    state = OUTCOMES[outcome].shown if has_own_word and outcome in OUTCOMES else status
    if status == "deferred":
        reasons = tuple(dict.fromkeys(_holds(job_id, job, place)))
    else:
        reasons = (*_beyond_holds(job_id, status, job, place), *_starter(job_id, job, place))
    return Explanation(job_id, state, reasons, job.get("flowq_name", ""))


def explain_group(
    run_id: str,
    name: str,
    state: str,
    items: Sequence[JobStatus],
    forgiven: Collection[str],
    *,
    ends: str,
    commands: Commands = PLAIN,
) -> Explanation:
    """Explain the state of a group that has items: which have not ended, or did not succeed.

    `forgiven` are the names of items whose failure is tolerated; `ends` describes how all ended.
    """
    left = [job for job in items if job.state not in ENDED]
    ended_badly = (job for job in items if job.state in ENDED - _WELL)
    bad = [job for job in ended_badly if job.name not in forgiven]
    total, reasons = len(items), []
    for jobs, what in ((left, "have not ended"), (bad, "did not succeed")):
        if jobs:
            shown = _name([f"{job.name} ({job.state})" for job in jobs])
            text = f"{len(jobs)} of its {total} items {what}: {shown}"
            look = commands.hint("explain", run_id, jobs[0].name)
            ids, hint = tuple(job.job_id for job in jobs), f"look at the first one: {look}"
            reasons.append(Reason("items", text, ids, hint))
    if not reasons:
        reasons.append(Reason("ended", f"all of its {total} items have ended: {ends}"))
    return Explanation(f"{run_id}-{name}", state, tuple(reasons), name)


_WELL = frozenset({"finished", "skipped"})


def _explain_deleted(job_id: str, place: _Place) -> Explanation:
    run_id, connection = place.run_id, place.connection
    if connection.lpos(keys.run_jobs(run_id), job_id) is None:
        raise JobNotFound(job_id)
    text = "somebody deleted it, or it expired: `rq empty`, a dashboard, a worker of RQ's own"
    retry = place.hint("retry", run_id)
    hint = f"it cannot run again; {retry} runs the jobs that do not need it"
    if connection.hexists(keys.unended(run_id), job_id):
        text, hint = f"{text}; its run has not noticed yet", _notice(place)
    return Explanation(job_id, "deleted", (Reason("ended", text, hint=hint),))


def _notice(place: _Place) -> str:
    at_once = f"{place.hint('doctor')} and {place.hint('cancel', place.run_id)}"
    return f"workers of flowq notice it within a minute, {at_once} at once"


def _read(key: str, connection: Redis) -> dict[str, str]:
    wanted = ("status", "origin", "dependency_ids", "allow_dependency_failures", "worker_name")
    raw: Mapping[Any, Any] = connection.hgetall(key)
    fields = {as_text(name): value for name, value in raw.items()}
    return {
        name: as_text(value)
        for name, value in fields.items()
        if name in wanted or name.startswith("flowq_") or not key.startswith(keys.job(""))
    }


# Held ----------------------------------------------------------------------------------------


def _holds(job_id: str, job: Mapping[str, str], place: _Place) -> Iterator[Reason]:
    connection = place.connection
    held = find_hold(place.run_id, connection, "its run", place.commands)
    if held:  # all other holds follow from this one
        yield held
        return
    if "flowq_round" in job and (again_at := connection.zscore(keys.ROUNDS, job_id)) is not None:
        at = local_time(datetime.fromtimestamp(float(again_at), UTC))
        text = f"attempt {job['flowq_round']} failed: its jobs run again at {at}"
        yield Reason("time", text, hint="a worker or flowq doctor starts them")
        return
    future = _read(keys.future(job_id), connection) if "flowq_future" in job else {}
    if future.get("state") == "open":
        hint = f"{_release(job_id, job, place)} closes the declaration"
        yield Reason("open", "it has not been released", hint=hint)
    if future:
        yield from _blockers(job_id, future, place, is_nested="flowq_nested" in job)
    yield from _gates(job, place)
    yield from _of_a_run(job_id, job, place)
    yield from _dependencies(job, place)


def _blockers(
    job_id: str, future: Mapping[str, str], place: _Place, *, is_nested: bool
) -> Iterator[Reason]:
    if "decided" in future:  # it does not wait for those that have not ended
        return
    edges = place.connection.hscan_iter(keys.edges(job_id), count=1_000)
    outcome_by_id = {as_text(blocker): as_text(outcome) for blocker, outcome in edges}
    pending, ended_badly = [], []
    for blocker in _in_order(outcome_by_id):
        outcome = outcome_by_id[blocker]
        if outcome.startswith("pending"):
            pending.append(blocker)
        elif not outcome.endswith("!") and outcome not in SUCCESSES:
            ended_badly.append((blocker, outcome))
    start = f"{job_id}--0"
    if is_nested and start in pending:  # to users, the two are one job
        pending.remove(start)
        yield from _of_start(start, place)
    if pending:
        hint = f"look at the first one: {place.hint_job('explain', pending[0])}"
        text = f"it waits for {place.name(pending)}"
        if word := _WORD_BY_START.get(future.get("policy", "")):
            text = f"it starts at the first {word}; {len(pending)} undecided: {place.name(pending)}"
        yield Reason("blockers", text, tuple(pending), hint)
    if ended_badly and future.get("policy") == "wait":
        ids = tuple(blocker for blocker, _ in ended_badly)
        how = ", ".join(sorted({outcome for _, outcome in ended_badly}))
        again, end = _requeue(ended_badly, place), "cancel this job"
        if place.run_id:
            cancel, retry = (place.hint(verb, place.run_id) for verb in ("cancel", "retry"))
            end = f"{cancel}, then {retry}"
        text = f"{place.name(ids)} did not succeed ({how})"
        yield Reason("blockers", text, ids, f"{again}{end}")


def _of_start(start_id: str, place: _Place) -> Iterator[Reason]:
    """Yield why a nested workflow has not begun."""
    job = _read(keys.job(start_id), place.connection)
    if job.get("status") == "deferred":
        yield from _holds(start_id, job, place)
    elif job:
        yield from _beyond_holds(start_id, job.get("status", ""), job, place)


def _starter(job_id: str, job: Mapping[str, str], place: _Place) -> Iterator[Reason]:
    """Yield which blocker has started a job that has not waited for all of them."""
    if "flowq_first" not in job:
        return
    future = place.connection.hmget(keys.future(job_id), "policy", "decided")
    policy, decided = (as_text(field or b"") for field in future)
    if decided and policy in _WORD_BY_START:
        blocker, how = decided.split(" ")
        text = f"the first {_WORD_BY_START[policy]} has started it: {place.name([blocker])} {how}"
        yield Reason("blockers", text, (blocker,))


_WORD_BY_START = {"one_success": "success", "one_failed": "failure"}


def _in_order(job_ids: Iterable[str]) -> list[str]:
    """Return ids by name and number, but first one of each declaration, because few are named."""
    ordered = sorted(job_ids, key=_split_numbers)
    first: dict[str, str] = {}
    for job_id in ordered:
        first.setdefault(job_id.partition("--")[0], job_id)
    return [*dict.fromkeys((*first.values(), *ordered))]


def _split_numbers(job_id: str) -> list[str | int]:
    parts = re.split("([0-9]+)", job_id)  # texts and numbers in turn
    return [int(part) if part.isdecimal() else part for part in parts]


def _requeue(ended_badly: Sequence[tuple[str, str]], place: _Place) -> str:
    """Return the beginning of a hint: how to requeue the first blocker that RQ can requeue."""
    again = [blocker for blocker, outcome in ended_badly if outcome in ("failed", "stopped")]
    if not again:
        return ""
    queue = _read(keys.job(again[0]), place.connection).get("origin", "")
    requeue = place.commands.rq_hint("requeue --queue", queue, again[0])
    return f"{requeue} runs it again; or delete it; or " if requeue else "delete it; or "


def _release(future_id: str, job: Mapping[str, str], place: _Place) -> str:
    """Return what releases a future job: a call for a job of a run, else a command."""
    if job.get("flowq_run"):
        return f'flowq.release_job("{future_id}", connection=…)'
    return place.commands.hint("release", future_id)


def _gates(job: Mapping[str, str], place: _Place) -> Iterator[Reason]:
    futures = [part.rstrip("!") for part in job.get("flowq_blocks", "").split()]
    shut = tuple(
        future
        for future in futures
        if _read(keys.future(future), place.connection).get("state") in _OPEN_STATES
    )
    if shut:
        hint = f"{_release(shut[0], job, place)} frees its blockers"
        yield Reason("gate", f"it blocks {place.name(shut)}, not released yet", shut, hint)


def find_hold(
    run_id: str, connection: Redis, subject: str = "the run", commands: Commands = PLAIN
) -> Reason | None:
    """Return why no job of a run can start yet: it is held, or waits for its turn. Else None.

    The reason's `kind` is "held" or "turn".
    """
    fields = connection.hmget(keys.run(run_id), "held", "concurrency", "concurrency_limit")
    held, group, limit = (as_text(raw) if raw else "" for raw in fields)
    if held == "turn":
        line = [as_text(raw) for raw in connection.lrange(keys.concurrency(group), 0, -1)]
        before = tuple(line[: line.index(run_id)] if run_id in line else line)
        where = f"in the `concurrency` group {one_line(group)}"
        where += f" (limit {limit})" if limit not in ("", "1") else ""
        if not before:
            return Reason("turn", f"{subject} is the next one {where}", (), "it starts now")
        text = f"{subject} waits for its turn {where}, after {_name(before)}"
        cancel = commands.hint("cancel", before[0])
        these = "these have ended" if limit in ("", "1") else "enough of these have ended"
        hint = f"it starts when {these}; {cancel} ends the first one"
        return Reason("turn", text, (), hint)
    if held:
        return Reason("held", f"{subject} is held", (), commands.hint("release", run_id))
    return None


def _of_a_run(job_id: str, job: Mapping[str, str], place: _Place) -> Iterator[Reason]:
    connection, name = place.connection, job.get("flowq_name", "")
    if "flowq_asked" in job and "flowq_approved" not in job:
        message = f": {job['flowq_message']}" if job.get("flowq_message") else ""
        text, asked_as = f"it waits for an approval{message}", declared_name(name)
        given = read_job_records([job_id], connection)[job_id].options
        approve = place.hint("approve", place.run_id, asked_as)
        yield Reason("approval", text, (), f"{approve}{given}")
    for slot in job.get("flowq_slots", "").split():
        limit, _, join_id = slot.partition("=")
        if is_across_runs(limit):
            yield from _across_runs(limit, join_id or job_id, job, place)
        elif connection.zscore(keys.waiting(limit), join_id or job_id) is not None:
            holders = tuple(_in_order(map(as_text, connection.sscan_iter(keys.slots(limit)))))
            text = f"its max_parallel is used up by {place.name(holders)}"
            yield Reason("slot", text, holders, "it starts when one of them ends")


def _across_runs(
    limit: str, holder_id: str, job: Mapping[str, str], place: _Place
) -> Iterator[Reason]:
    wait = find_wait(limit, holder_id, job.get("flowq_most", ""), place.connection)
    if wait is None:
        return
    hint = "it starts when its turn comes"
    if wait.holders and (first := wait.holders[0]).run_id:
        look = place.hint("explain", first.run_id, first.name)
        hint = f"look at the first one: {look}"
    yield Reason("slot", wait.text, tuple(each.job_id for each in wait.holders), hint)


def _dependencies(job: Mapping[str, str], place: _Place) -> Iterator[Reason]:
    ids = json.loads(job.get("dependency_ids") or "[]")
    allowed = (
        {"finished", "failed"} if job.get("allow_dependency_failures") == "1" else {"finished"}
    )
    unmet = []
    for dependency in ids:
        status = as_text(place.connection.hget(keys.job(dependency), "status") or b"")
        if status and status not in allowed:
            unmet.append(f"{dependency} ({status})")
    if unmet:
        hint = "RQ queues it when they are finished"
        yield Reason("dependencies", f"it depends_on {_name(unmet)}", tuple(unmet), hint)


# Not held ------------------------------------------------------------------------------------


def _beyond_holds(
    job_id: str, status: str, job: Mapping[str, str], place: _Place
) -> Iterator[Reason]:
    queue = job.get("origin", "")
    if status == "queued":
        yield _queued(job_id, job, place)
    elif status == "scheduled":
        score = place.connection.zscore(keys.scheduled(queue), job_id)
        at = datetime.fromtimestamp(float(score), UTC) if score else None
        until = local_time(at) if at else "an unknown time"
        hint = "a worker with a scheduler has to be running"
        yield Reason("time", f"it {_why_scheduled(job)} {until}", hint=hint)
    elif status == "started":
        yield _started(job_id, job, place)
    elif status == "finished" and job.get("flowq_outcome") == "passed":
        yield Reason("ended", job.get("flowq_pass", ""))
    elif job.get("flowq_reason") and status not in ("failed", "stopped"):
        tolerated = "tolerated: " if job.get("flowq_outcome") == "tolerated" else ""
        yield Reason("ended", tolerated + job["flowq_reason"], *_culprits(job_id, job, place))
    elif status in _ENDED and "flowq_outcome" not in job and "flowq_run" in job:
        text = f"it was {status} by a worker or a tool of RQ's own, and its run has not noticed yet"
        yield Reason("ended", text, hint=_notice(place))
    elif status in ("failed", "stopped"):
        why = f"; {job['flowq_reason']}" if job.get("flowq_reason") else ""
        failed = f"it was executed, and failed{why}"
        text = failed if status == "failed" else _tell_stop(job, place)
        hint = place.hint_job("show", job_id) if place.run_id else ""
        yield Reason("ended", text, hint=hint)


def _why_scheduled(job: Mapping[str, str]) -> str:
    if "flowq_due" in job:
        return "sleeps until"
    return "polls again at" if "flowq_polls" in job else "waits until"


def _tell_stop(job: Mapping[str, str], place: _Place) -> str:
    if needless := job.get("flowq_ends_as"):
        return f"it was stopped while it ran: {needless.partition(' ')[2]}"
    if why := job.get("flowq_reason"):
        return f"it was stopped while it ran, because {why}"
    if place.run_id and place.connection.hexists(keys.run(place.run_id), "canceling"):
        return "it was stopped while it ran, because the run was canceled"
    return "it was stopped while it ran, by RQ's stop command"


def _started(job_id: str, job: Mapping[str, str], place: _Place) -> Reason:
    connection = place.connection
    worker = job.get("worker_name") or "?"
    now_s = read_clock(connection)
    is_ours = connection.zscore(keys.WORKERS, worker) is not None
    if is_ours:
        is_there = bool(find_alive([worker], connection))
    else:
        is_there = (_lease_of_rq(job_id, job, connection) or 0) > now_s
    if is_there:
        return Reason("started", f"worker {worker} is executing it")
    heard = connection.hget(keys.worker(worker), "last_heartbeat")
    heard_at = str_to_date(heard) if heard else None
    since = "lately"
    if heard_at is not None:
        silence_s = max(0, round(now_s - heard_at.timestamp()))
        since = f"for {silence_s} s, since {local_time(heard_at)}"
    text = f"worker {worker} was executing it, and has sent no heartbeat {since}"
    if not is_ours:
        return Reason("started", text, hint="RQ's clean-up fails or retries it within some minutes")
    return Reason("started", text, hint=_what_follows(job, place))


def _lease_of_rq(job_id: str, job: Mapping[str, str], connection: Redis) -> float | None:
    """Return until when RQ's worker that executes the job counts as alive, in epoch seconds."""
    entries: Any = connection.zrange(keys.executions(job_id), 0, -1)
    wip = WIPRegistry(job.get("origin", ""), connection=connection)
    members = [f"{job_id}:{as_text(execution)}" for execution in entries]
    scores = [connection.zscore(wip.key, member) for member in members]
    return max((float(score) for score in scores if score is not None), default=None)


def _what_follows(job: Mapping[str, str], place: _Place) -> str:
    """Return what happens to a job whose flowq worker is silent."""
    then = "fails it" if job.get("flowq_on_crash") == "fail" else "queues it again"
    times = int(job.get("flowq_crashes", "0"))
    more = f"; it was lost {'once' if times == 1 else f'{times} times'} before" if times else ""
    if find_living(place.connection):
        return f"unless its heartbeats return, another worker {then} within 10 s{more}"
    return f"no other worker is alive that {then}; start one: {_start(job, place)}{more}"


def _queued(job_id: str, job: Mapping[str, str], place: _Place) -> Reason:
    origin, connection = job.get("origin", ""), place.connection
    queue = job.get("flowq_queue") or origin
    rq_queue = Queue(origin, connection=connection)
    before = rq_queue.get_job_position(job_id)
    if before is None:
        text = (
            f"it is queued on {queue}, but not in the queue's list: a worker is taking it "
            "right now, or died"
        )
        return Reason("queue", text, hint=f"{place.hint('doctor')} puts lost jobs back")
    if find_unattended([origin], connection):
        hint = f"start one: {_start(job, place)}"
        if isinstance(place.commands, PythonCalls) and not run_of(origin):
            hint = advise([origin], connection)
        return Reason("queue", f"no worker listens on the queue {queue}", hint=hint)
    if origin != queue:
        text = f"{_are_before(before)} before it in its run, whose workers execute it"
        return Reason("queue", text)
    workers = RQWorker.count(queue=rq_queue)
    listen = "1 worker listens" if workers == 1 else f"{workers} workers listen"
    return Reason("queue", f"{_are_before(before)} before it on {queue}; {listen}")


def _are_before(before: int) -> str:
    if not before:
        return "no job is"
    return "1 job is" if before == 1 else f"{before:,} jobs are"


def _start(job: Mapping[str, str], place: _Place) -> str:
    """Return the command that starts workers for the job."""
    is_apart = job.get("origin", "").startswith(keys.OWN_QUEUE) and place.run_id
    return place.hint("release", place.run_id) if is_apart else place.hint("worker", job["origin"])


def _culprits(job_id: str, job: Mapping[str, str], place: _Place) -> tuple[tuple[str, ...], str]:
    """Return the blockers that made a job end without being executed, and a hint about them."""
    if job.get("flowq_outcome") == "canceled":  # its blockers are not the reason
        return (), ""
    outcomes = {
        as_text(blocker): as_text(outcome)
        for blocker, outcome in place.connection.hscan_iter(keys.edges(job_id), count=1_000)
        if as_text(outcome) not in SUCCESSES and not as_text(outcome).endswith("!")
    }
    # The cause is rather a job that was not skipped: a skipped one only passes a failure on.
    bad = tuple(sorted(_in_order(outcomes), key=lambda blocker: outcomes[blocker] == "skipped"))
    if not bad:
        return bad, ""
    look = place.hint_job("explain", bad[0])
    if len(bad) == 1:
        return bad, f"look at it: {look}"
    return bad, f"because of {place.name(bad)}; look at the first one: {look}"


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
