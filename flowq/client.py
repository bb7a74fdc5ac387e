"""Runs, for programs: submit a plan, observe the run, approve, cancel, retry and explain it.

The command line is a thin layer over this module and `flowq.compiling`: a program can do all that
it does.

    plan = compile_plan(load("workflows/sandwich.yaml"), {"slices": 4})
    run = submit(plan, connection)
    status = run.wait()
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.utils import as_text

from flowq.errors import NotFound, RunFailed, RunNotFound, ServerUnavailable
from flowq.plan import Plan
from flowq.render.groups import by_declaration, count_ends
from flowq.runtime import approvals, keys, outputs, results, retry, runs
from flowq.runtime.connections import Attempts, Outage, is_refusal
from flowq.runtime.explain import (
    PLAIN,
    Commands,
    Explanation,
    Reason,
    explain,
    explain_group,
    find_hold,
)
from flowq.runtime.maintenance import Finding, tidy
from flowq.runtime.outputs import KeptOutputs
from flowq.runtime.results import Failure, JobView
from flowq.runtime.runs import read_changes
from flowq.runtime.uninstalling import check_uninstall, uninstall
from flowq.runtime.wip import count_left_alone, find_unattended, list_executing, list_queues
from flowq.server.connection import explain as explain_trouble
from flowq.server.url import hide_password
from flowq.status import (
    ENDED,
    CodeChange,
    Event,
    Executing,
    JobRecord,
    RunRecord,
    RunStatus,
    fold,
    public_name,
)

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "ABANDONED",
    "CodeChange",
    "Executing",
    "Explanation",
    "Failure",
    "Finding",
    "JobRecord",
    "JobView",
    "KeptOutputs",
    "Run",
    "RunRecord",
    "Unloadable",
    "check_uninstall",
    "count_left_alone",
    "explain",
    "find_run",
    "find_unattended",
    "get_run",
    "heal",
    "list_executing",
    "list_queues",
    "list_runs",
    "submit",
    "uninstall",
]

ABANDONED = runs.ABANDONED
POLL_S = 0.5
OUTPUTS_POLL_S = 0.02
NAMED = 5
_LAST = re.compile(r"last(?::([1-9][0-9]{0,5}))?")


def submit(
    plan: Plan,
    connection: Redis,
    *,
    retention_s: float = runs.RETENTION_S,
    is_held: bool = False,
    is_apart: bool = False,
) -> Run:
    """Submit a plan; once this returns the run reaches its end without this process.

    Atomic: an error, or a crash, before the commit leaves nothing that runs. With `is_held` nothing
    is released before `Run.release`. With `is_apart` all its jobs go to a queue of its own, which
    only workers that are started for this run serve (`flowq.workers.serving`).
    """
    runs.submit(plan, connection, retention_s=retention_s, is_held=is_held, is_apart=is_apart)
    return Run(plan.run_id, connection)


def get_run(run_id: str, connection: Redis) -> Run:
    """Return a run by its id. Errors: RunNotFound, which says so when a job has that id."""
    try:
        runs.get_record(run_id, connection)
    except RunNotFound:
        job = find_job(run_id, connection)
        if job is None:
            raise
        of = f"job {job.name} of run {job.run_id}" if job.run_id else "a job of no run"
        hint = f"{run_id} is {of}, which flowq explain looks at"
        raise RunNotFound(run_id, hint) from None
    return Run(run_id, connection)


def find_job(job_id: str, connection: Redis) -> FoundJob | None:
    """Return a job by its id, if there is one."""
    fields = ("origin", "flowq_run", "flowq_name")
    raw = connection.hmget(keys.job(job_id), *fields)
    origin, run_id, name = (as_text(each) if each else "" for each in raw)
    return FoundJob(job_id, origin, run_id, name) if origin else None


@dataclass(frozen=True, slots=True)
class FoundJob:
    """Where a job is: RQ's queue, and in a run, or nowhere else."""

    job_id: str
    queue: str
    run_id: str = ""
    name: str = ""


def list_runs(
    connection: Redis,
    limit: int = 50,
    *,
    state: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
) -> list[RunRecord]:
    """Return the records of the newest runs, newest first.

    Only those in a `state`, of a `workflow` by its name, or submitted `since` an instant, if given.
    Reads the records of the newer runs that do not fit, too.
    """
    newer = takewhile(
        lambda record: since is None or record.created_at >= since, runs.iterate_runs(connection)
    )
    fitting = (
        record
        for record in newer
        if state in (None, record.state) and workflow in (None, record.workflow)
    )
    return list(islice(fitting, limit))


def find_run(word: str, connection: Redis) -> Run:
    """Return the run that a word names: its id, the beginning of it, or `last`, the newest.

    `last:2` is the one before the newest, and so on.
    Errors: RunNotFound; NotFound for a beginning that several ids have.
    """
    if match := _LAST.fullmatch(word):
        number = int(match[1] or 1)
        for record in islice(runs.iterate_runs(connection), number - 1, number):
            return Run(record.run_id, connection)
        raise NotFound("there are no runs" if number == 1 else f"there are no {number} runs")
    try:
        return get_run(word, connection)
    except RunNotFound:
        found = runs.find_run_ids(word, connection) if word else []
        if not found:
            raise
    if len(found) > 1:
        some = ", ".join(sorted(found)[:NAMED]) + (" …" if len(found) > NAMED else "")
        raise NotFound(f"{len(found)} runs begin with {word}: {some}; write more of the id")
    return get_run(found[0], connection)


def heal(connection: Redis) -> list[Finding]:
    """Put right what ended unnoticed, and what lost workers had; return what it was.

    Blocks: up to 13 s where a worker may be lost.
    """
    from flowq.workers.worker import heal as put_right  # noqa: PLC0415 - other calls need no workers

    return put_right(connection)


@dataclass(frozen=True)
class Run:
    """A handle to one run; everything about it is in Redis."""

    run_id: str
    connection: Redis

    def record(self) -> RunRecord:
        """Return what is kept about the run beside its jobs. Errors: RunNotFound."""
        return runs.get_current_record(self.run_id, self.connection)

    def status(self) -> RunStatus:
        """Return where the run is. Errors: RunNotFound."""
        return runs.get_status(self.run_id, self.connection)

    def follow(self, poll_s: float = POLL_S) -> Iterator[RunStatus]:
        """Yield the status now, and again whenever something happened or `poll_s` has passed.

        Ends after the status in which the run has ended. Blocks. While it follows it goes on with
        steps that others left, so that a run never waits for a maintenance pass.
        """
        return (status for status, _ in self.observe(poll_s))

    def observe(
        self,
        poll_s: float = POLL_S,
        while_away: Callable[[], object] | None = None,
        outage: Outage | None = None,
    ) -> Iterator[tuple[RunStatus, list[Event]]]:
        """Yield what `follow` does, each time with the events that led there since the last.

        The first time these are all events of the run so far. `while_away` is called whenever the
        server was not reached, and may bring it back; `outage` is told that it cannot be used.
        Errors: RunNotFound, also when the run is removed meanwhile; those of the redis client when
        the server cannot be used for longer than `MAX_WAIT_S`; those of `while_away`.
        """
        outage = outage or Outage(_say_nothing, _say_nothing)
        status, wait_s = runs.get_declared(self.run_id, self.connection), 0.0
        while True:
            events = self._next_events(status.last_event_id, wait_s, while_away, outage)
            status, wait_s = fold(status, events), poll_s
            yield status, events
            if status.is_ended:
                return

    def _next_events(
        self,
        after: str,
        wait_s: float,
        while_away: Callable[[], object] | None,
        outage: Outage,
    ) -> list[Event]:
        """Return the events after that one; the server may be away, or refuse, for a while."""
        attempts = Attempts(connection=self.connection, outage=outage)
        while True:
            try:
                events = list(runs.read_events(self.run_id, self.connection, after, wait_s))
                if wait_s and not events:
                    tidy(self.connection)
                    runs.get_record(self.run_id, self.connection)  # raises when it was removed
            except Exception as error:  # noqa: BLE001 - which raises what does not pass
                attempts.fail(error)
                if while_away is not None and not is_refusal(error):
                    while_away()
                time.sleep(wait_s or POLL_S)
            else:
                outage.check()
                return events

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """Block until the run has ended, and return its status.

        Errors: TimeoutError; RunFailed when it did not succeed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.follow():
            if status.is_ended:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.run_id} has not ended within {timeout_s} s")
        if status.state != "succeeded":
            failed = status.find_failed()
            raise RunFailed(self.run_id, [public_name(job.name) for job in failed])
        return status

    def results(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the results of the jobs that have one, by name, or of those that are named.

        Without those of what was not declared: the jobs that make lists and begin workflows.

        A result that cannot be loaded here, because its code is elsewhere, is an `Unloadable`.
        """
        name_by_id = {job.job_id: job.name for job in self.status().declared()}
        wanted = None if names is None else set(names)
        ids = [i for i in name_by_id if wanted is None or name_by_id[i] in wanted]
        values = results.get_results(ids, self.connection, instead=Unloadable.of)
        return {name_by_id[job_id]: value for job_id, value in values.items()}

    def views(
        self, names: Iterable[str] | None = None, status: RunStatus | None = None
    ) -> dict[str, JobView]:
        """Return what commands show of the jobs that have ended, by name; loads no values.

        A view is JSON, and marks what is cut or cannot be JSON (`flowq.runtime.views`).
        """
        wanted = None if names is None else set(names)
        job_by_id = {
            job.job_id: job
            for job in (status or self.status()).jobs.values()
            if job.state in ENDED and (wanted is None or job.name in wanted)
        }
        views: dict[str, JobView] = {}
        for job_id, view in results.read_views(job_by_id, self.connection).items():
            job = job_by_id[job_id]
            views[job.name] = view if job.state == "finished" else replace(view, result=None)
        return views

    def kept_outputs(self, within_s: float = 0) -> KeptOutputs:
        """Return what commands show of the outputs; loads no values.

        Blocks: up to `within_s` while a job of a worker that listens is to evaluate them.
        """
        deadline = time.monotonic() + within_s
        while True:
            kept = outputs.read_kept_outputs(self.run_id, self.connection)
            is_late = time.monotonic() > deadline
            if not kept.is_pending or is_late or find_unattended([kept.queue], self.connection):
                return kept
            time.sleep(OUTPUTS_POLL_S)

    def outputs(self, instead: Callable[[str, Exception], Any] | None = None) -> dict[str, Any]:
        """Return what the workflow declares as its `outputs`, by name, once the run has ended.

        Shape: empty for a workflow that declares none. A job without a result gives None.
        Errors: RunNotFound; WrongState before the run has ended; WorkflowInvalid for an expression
        that these results give no value, and whatever loading a result raises; with `instead` what
        that makes of the output's name and the error takes its place.
        """
        return outputs.read_outputs(self.run_id, self.connection, instead)

    def job_records(self, status: RunStatus | None = None) -> dict[str, JobRecord]:
        """Return what does not change about the jobs, by name."""
        jobs = (status or self.status()).jobs.values()
        found = runs.read_job_records((job.job_id for job in jobs), self.connection)
        return {job.name: found[job.job_id] for job in jobs if job.job_id in found}

    def unattended_queues(self, status: RunStatus | None = None) -> list[str]:
        """Return the queues on which jobs of the run wait, or will wait, and no worker listens."""
        status = status or self.status()
        left = [job.job_id for job in status.jobs.values() if job.state not in ENDED]
        queues = [job.origin for job in runs.read_job_records(left, self.connection).values()]
        return find_unattended(sorted(set(queues)), self.connection)

    def is_served(self) -> bool:
        """Whether somebody executes the jobs of the run: its own workers, or those of its queues.

        Its own also count while they wait until there is something to do.
        """
        queue = self.record().queue
        return not (
            find_unattended([queue], self.connection) if queue else self.unattended_queues()
        )

    def failures(self, names: Iterable[str] | None = None) -> dict[str, Failure]:
        """Return why jobs failed, by name; of all of them, or of those that are named."""
        wanted = None if names is None else set(names)
        failed = [
            job
            for job in self.status().jobs.values()
            if job.state in ("failed", "stopped")
            and not job.has_failed_inside
            and (wanted is None or job.name in wanted)
        ]
        failures = results.get_failures((job.job_id for job in failed), self.connection)
        return {job.name: failures[job.job_id] for job in failed if job.job_id in failures}

    def code_changes(self) -> list[CodeChange]:
        """Return which files of the code changed between jobs of the run, oldest change first."""
        return read_changes(self.run_id, self.connection)

    def explain(self, name: str, commands: Commands = PLAIN) -> Explanation:
        """Return why a job of the run has not run, or how a group stands. Errors: JobNotFound.

        `commands` writes those that the hints name.
        """
        status = self.status()
        job = status.jobs.get(name)
        group = None if job else by_declaration(status).get(name)
        if group is not None and group.items:
            left_or_bad = (group.name, group.state, group.items, group.forgiven)
            ends = count_ends(group.items)
            return explain_group(self.run_id, *left_or_bad, ends=ends, commands=commands)
        job_id = job.job_id if job else f"{self.run_id}-{name}"
        return explain(job_id, self.connection, self.run_id, commands)

    def find_hold(self, commands: Commands = PLAIN) -> Reason | None:
        """Return why none of its jobs can start yet, if that is so: it is held, or not its turn."""
        return find_hold(self.run_id, self.connection, commands=commands)

    def retry(self, name: str | None = None) -> tuple[str, ...]:
        """Run again what did not succeed and everything downstream; return those jobs' names.

        With a `name` that job runs again, and everything downstream of it: also one that has
        succeeded, one item (`thumb[3]`), all of a group, or a whole nested workflow.
        Errors: RunNotFound; NotFound for no such job; WrongState while the run is active, when it
        has succeeded and no job is named, and for a job that one before it keeps from running.
        """
        again = retry.retry(self.run_id, self.connection, name)
        return tuple(runs.read_names(self.run_id, again, self.connection).values())

    def release(self, name: str | None = None) -> bool:
        """Let a run go that was held. Returns True for the call that did it.

        With a `name` it is `approve`, until 1.0. Errors: NotFound; WrongState.
        """
        if name is not None:
            return self.approve(name)
        return approvals.release_run(self.run_id, self.connection)

    def approve(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        note: str = "",
        by: str | None = None,
    ) -> bool:
        """Approve a job that asks for it, or all items of a group, also those still to come.

        `inputs` are what the approval asks for; `by` says who, as `user@host` if it is not given.
        Returns True for the call that did it, False when it was approved before.
        Errors: NotFound; UsageError for inputs that do not fit; WrongState.
        """
        by = approvals.say_who() if by is None else by
        return approvals.approve(
            self.run_id, name, self.connection, inputs=inputs, note=note, by=by
        )

    def has_asked(self, name: str) -> bool:
        """Whether a job, or an item of a group, has asked for its approval. Errors: NotFound."""
        return approvals.has_asked(self.run_id, name, self.connection)

    def reject(self, name: str, reason: str = "", *, by: str | None = None) -> bool:
        """Reject a job that asks for an approval, or all items of a group: it is canceled.

        Returns True for the call that did it, False when it was rejected before.
        Errors: NotFound; WrongState, also for a job that has not asked yet.
        """
        by = approvals.say_who() if by is None else by
        return approvals.reject(self.run_id, name, self.connection, reason=reason, by=by)

    def cancel(self, *, now: bool = False, may_wait: bool = True) -> list[str]:
        """End the run: what has not started is called off, what runs gets RQ's stop command.

        What runs on a worker that does not live any more ends at once. Then jobs run whose `if`
        asks `always()` or `canceled()`; `now` ends these too. They wait for a worker if need be;
        without `may_wait` those end whose queue no worker listens on, and these queues are
        returned. All jobs end of a run that has not begun, because it is held or waits for its
        turn.
        Errors: RunNotFound; WrongState when it has ended.
        """
        return runs.cancel(self.run_id, self.connection, is_now=now, may_wait=may_wait)

    def remove(self) -> None:
        """Remove the run with everything that belongs to it."""
        runs.remove(self.run_id, self.connection)


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Stands for a result that cannot be loaded here, usually because its code is elsewhere."""

    reason: str

    def __repr__(self) -> str:
        return f"<cannot be loaded here: {self.reason}>"

    @classmethod
    def of(cls, error: Exception) -> Unloadable:
        """Return what stands for the result whose loading raised `error`."""
        return cls(f"{type(error).__name__}: {error}")


def _say_nothing(text: str) -> None: ...


@contextmanager
def server_errors(url: str) -> Iterator[None]:
    """Turn the errors of the redis client into ours. Errors: ServerUnavailable."""
    try:
        yield
    except RedisError as error:
        raise ServerUnavailable(hide_password(url), explain_trouble(error)) from error
