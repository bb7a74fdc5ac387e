"""The API for programs: submit a plan, then observe, approve, cancel, retry or explain the run.

The command line is a thin layer over this module and `flowq.compiling`, so programs can do
everything that it can.

    plan = compile_plan(load("workflows/sandwich.yaml"), {"slices": 4})
    run = submit(plan, connection)
    status = run.wait()
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from rq.utils import as_text

from flowq import observing, runtime
from flowq.errors import NotFound, RunNotFound, WrongState
from flowq.event import Event as RunEvent
from flowq.history import CodeChange
from flowq.nearest import did_you_mean
from flowq.render.groups import add_groups, count_ends, find_declared
from flowq.runtime import event_log, keys, run_lists, runs
from flowq.runtime.connections import Outage, pause
from flowq.runtime.listening import count_left_alone, find_hosts, find_unattended, list_queues
from flowq.runtime.maintenance import Finding
from flowq.status import (
    ENDED,
    RUN_ENDED,
    Event,
    JobRecord,
    RunRecord,
    RunState,
    RunStatus,
    fold,
)

if TYPE_CHECKING:  # what `__getattr__` resolves, and the modules of `runtime` that methods use
    from redis import Redis

    from flowq.history import Attempt
    from flowq.pictures.picture import Picture
    from flowq.plan import Plan, Source
    from flowq.runtime.counts import Counted
    from flowq.runtime.explain import Commands, Explanation, Reason, explain
    from flowq.runtime.kept_outputs import KeptOutputs
    from flowq.runtime.over_time import (
        JobOverTime,
        RunOverTime,
        WorkflowHistory,
        read_workflow_history,
    )
    from flowq.runtime.results import Failure, JobEnd, JobView, Unloadable
    from flowq.runtime.run_lists import RunFilter, RunPage, list_runs, read_run_page
    from flowq.runtime.schedules import ScheduleRecord, list_schedules
    from flowq.runtime.uninstalling import check_uninstall, uninstall
    from flowq.runtime.wip import (
        Executing,
        InProgress,
        WorkerRecord,
        list_executing,
        list_workers,
        read_wip,
    )

__all__ = [
    "ABANDONED",
    "RUN_STATES",
    "CodeChange",
    "Executing",
    "Explanation",
    "Failure",
    "Finding",
    "InProgress",
    "JobOverTime",
    "JobRecord",
    "JobView",
    "KeptOutputs",
    "Run",
    "RunFilter",
    "RunOverTime",
    "RunPage",
    "RunRecord",
    "ScheduleRecord",
    "Unloadable",
    "WorkerRecord",
    "WorkflowHistory",
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
    "list_schedules",
    "list_workers",
    "missing_job",
    "read_run_page",
    "read_wip",
    "read_workflow_history",
    "submit",
    "uninstall",
]

_NAMES_BY_MODULE = {
    "explain": ("Explanation", "explain"),
    "kept_outputs": ("KeptOutputs",),
    "over_time": ("JobOverTime", "RunOverTime", "WorkflowHistory", "read_workflow_history"),
    "results": ("Failure", "JobView", "Unloadable"),
    "run_lists": ("RunFilter", "RunPage", "list_runs", "read_run_page"),
    "schedules": ("ScheduleRecord", "list_schedules"),
    "uninstalling": ("check_uninstall", "uninstall"),
    "wip": (
        "Executing",
        "InProgress",
        "WorkerRecord",
        "list_executing",
        "list_workers",
        "read_wip",
    ),
}
"""What is loaded when it is first used, by the module of `flowq.runtime` that has it."""
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(getattr(runtime, _MODULE_BY_NAME[name]), name)


ABANDONED = runs.ABANDONED
RUN_STATES: tuple[str, ...] = get_args(RunState)
OUTPUTS_POLL_S = 0.02
NAMED = 5
FEWEST_LETTERS = 3
_LAST = re.compile(r"last(?::([1-9][0-9]{0,5}))?")


def submit(
    plan: Plan,
    connection: Redis,
    *,
    retention_s: float = runs.RETENTION_S,
    is_held: bool = False,
    is_apart: bool = False,
    by: str | None = None,
) -> Run:
    """Submit a plan. After this returns, the run no longer needs this process.

    Atomic: after an error or a crash before the commit, nothing runs. If the server refuses or is
    lost meanwhile, redis-py's error has a note that names the run. With `is_held`, nothing
    starts before `Run.release`. With `is_apart`, all jobs go to a queue of the run's own, which
    only workers started for this run serve (`flowq.workers.serving`). `by` is as for `approve`.
    """
    by = runtime.approvals.say_who(by)
    runs.submit(
        plan, connection, retention_s=retention_s, is_held=is_held, is_apart=is_apart, by=by
    )
    return Run(plan.run_id, connection)


def get_run(run_id: str, connection: Redis) -> Run:
    """Return a run by its id. Errors: RunNotFound, which notes if the id is that of a job."""
    try:
        runs.get_record(run_id, connection)
    except RunNotFound:
        job = find_job(run_id, connection)
        if job is None:
            raise
        of = f"job {job.name} of run {job.run_id}" if job.run_id else "a job outside of runs"
        hint = f"{run_id} is {of}; look at it with flowq explain"
        raise RunNotFound(run_id, hint) from None
    return Run(run_id, connection)


def find_job(job_id: str, connection: Redis) -> FoundJob | None:
    """Return a job by its id, or None."""
    fields = ("origin", "flowq_run", "flowq_name")
    raw = connection.hmget(keys.job(job_id), *fields)
    origin, run_id, name = (as_text(each) if each else "" for each in raw)
    return FoundJob(job_id, origin, run_id, name) if origin else None


@dataclass(frozen=True, slots=True)
class FoundJob:
    """The location of a job: its queue and, if any, its run."""

    job_id: str
    queue: str
    run_id: str = ""
    name: str = ""


def find_run(word: str, connection: Redis) -> Run:
    """Return the run with this id, or with an id that begins so; `last` is the newest run.

    `last:2` is the run before the newest, and so on. A prefix has at least three letters, so that a
    typing mistake names no run, and an exact job id takes precedence over it.
    Errors: RunNotFound; NotFound if several ids begin so.
    """
    if match := _LAST.fullmatch(word):
        number = int(match[1] or 1)
        for record in islice(run_lists.iterate_runs(connection), number - 1, number):
            return Run(record.run_id, connection)
        raise NotFound("there are no runs" if number == 1 else f"there are no {number} runs")
    try:
        return get_run(word, connection)
    except RunNotFound as error:
        if len(word) < FEWEST_LETTERS:
            hint = error.hint or f"write {FEWEST_LETTERS} letters of its id, or more"
            raise RunNotFound(word, hint) from None
        is_beginning = find_job(word, connection) is None
        found = run_lists.find_run_ids(word, connection) if is_beginning else []
        if not found:
            raise
    if len(found) > 1:
        some = ", ".join(sorted(found)[:NAMED]) + (" …" if len(found) > NAMED else "")
        raise NotFound(f"{len(found)} runs begin with {word}: {some}; write more of the id")
    return get_run(found[0], connection)


def heal(connection: Redis) -> list[Finding]:
    """Repair jobs whose ends were missed, and recover those of lost workers; return the findings.

    Blocks: up to 13 s with the default lease, if a worker may be lost.
    """
    from flowq.workers.worker import heal as put_right  # noqa: PLC0415 - other calls need no workers

    findings = put_right(connection)
    run_lists.index_runs(connection)
    return findings


@dataclass(frozen=True)
class Run:
    """A handle to one run. All of its state is in Redis.

    Programs use what docs/api.md lists. The other methods are for flowq's commands, and may change.
    """

    run_id: str
    connection: Redis = field(repr=False)

    @property
    def id(self) -> str:
        """The id of the run, the same as `run_id`."""
        return self.run_id

    def record(self) -> RunRecord:
        """Return the run's record, without its jobs. Errors: RunNotFound."""
        return runs.get_current_record(self.run_id, self.connection)

    def status(self) -> RunStatus:
        """Return the status of the run and its jobs. Errors: RunNotFound."""
        return runs.get_status(self.run_id, self.connection)

    def counted(self) -> Counted | None:
        """Return how many items of each group are in which state (`flowq.runtime.counts`).

        None for a run whose events are read as quickly. Errors: RunNotFound.
        """
        return runtime.counts.read_if_large(self.run_id, self.connection)

    def history(self) -> tuple[RunStatus, dict[str, tuple[Attempt, ...]]]:
        """Return the status, and the attempts of each job that has some, by name.

        Errors: RunNotFound.
        """
        from flowq.history import read_attempts  # noqa: PLC0415 - a status needs no attempts

        declared = runs.get_declared(self.run_id, self.connection)
        events = list(runs.read_events(self.run_id, self.connection))
        return fold(declared, events), read_attempts(events)

    def find_hosts(self, workers: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return the host and the process id of workers, by name, as far as they are known."""
        return find_hosts(workers, self.connection)

    def follow(self, poll_s: float = observing.POLL_S) -> Iterator[RunStatus]:
        """Yield the status now, and again after each event or after `poll_s`.

        Stops after yielding the status of the ended run. Blocks. Meanwhile it also executes steps
        that other processes left unfinished, so a run never has to wait for maintenance.
        """
        return (status for status, _ in self.observe(poll_s))

    def observe(
        self,
        poll_s: float = observing.POLL_S,
        while_away: Callable[[], object] | None = None,
        outage: Outage | None = None,
    ) -> Iterator[tuple[RunStatus, list[Event]]]:
        """Like `follow`, but yield each status with the events since the previous one.

        The first status comes with all events of the run so far. `while_away` is called whenever
        the server cannot be reached, and may restart it; `outage` is notified of refusals.
        Errors: RunNotFound, also if the run is removed meanwhile; errors of the redis client if the
        server is unavailable for longer than `MAX_WAIT_S`; errors of `while_away`.
        """
        return observing.observe(self.run_id, self.connection, poll_s, while_away, outage)

    def events(
        self, *, after: RunEvent | str | None = None, follow: bool = False
    ) -> Iterator[RunEvent]:
        """Yield the run's events, as `flowq.events` does, the oldest first.

        Errors: UsageError for a position, at once; RunNotFound, also if the run is removed
        meanwhile; errors of the redis client.
        """
        return event_log.read(self.run_id, self.connection, after=after, is_following=follow)

    def wait(self, timeout: float | str | None = None) -> RunStatus:
        """Block until the run has ended, and return its status.

        `timeout` is in seconds, or a duration ("10m"). Listens to the run's events, and goes on
        after an outage of the server. Any number of threads and processes may wait.
        Errors: RunFailed if the run did not succeed; RunNotEnded, a TimeoutError, which says what
        the run waits for; RunNotFound; errors of the redis client as in `observe`.
        """
        return observing.wait(self.run_id, self.connection, timeout)

    def result(self, job: str) -> Any:
        """Return the result of one job that has ended, as later jobs get it.

        That of a group is the list of its items' results, that of a nested workflow a mapping of
        its outputs; `thumb[3]` and `pack.cut` name an item, and a job inside. As in expressions, it
        is None if the job was skipped, or its failure is tolerated. It is the value itself: secrets
        in it are not masked, as they are in `views`. Unpickles it, as RQ does.
        Errors: RunNotFound; NotFound if there is no such job, or its result has expired; WrongState
        if it has not ended, or did not succeed; any error of loading it.
        """
        job_id = f"{self.run_id}-{job}"
        if not runtime.lookups.is_there(job_id, self.connection):
            status = self.status()
            found = status.jobs.get(job)
            if found is None:
                raise missing_job(self.run_id, job, status.names())
            job_id = found.job_id
        return runtime.lookups.get_value(job_id, job, self.connection)

    def results(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the results of all jobs and items that have one, or of those in `names`, by name.

        A group of the workflow itself has a list, as `result` returns, with None for an item
        without a result; it stands before its items. One that cannot be loaded here, for example
        because its code is missing, is an `Unloadable`.
        """
        status, wanted = self.status(), None if names is None else set(names)
        name_by_id = {
            job.job_id: job.name
            for job in status.declared()
            if wanted is None or not wanted.isdisjoint((job.name, job.declared_as))
        }
        unloadable = runtime.results.Unloadable.of
        found = runtime.results.get_results(name_by_id, self.connection, instead=unloadable)
        values = add_groups({name_by_id[job_id]: found[job_id] for job_id in found}, status)
        return {name: values[name] for name in values if wanted is None or name in wanted}

    def views(
        self, names: Iterable[str] | None = None, status: RunStatus | None = None
    ) -> dict[str, JobView]:
        """Return views of the ended jobs, by name, as commands show them. Loads no pickles.

        A view is JSON, and marks values that are truncated or have no JSON form
        (`flowq.runtime.views`).
        """
        wanted = None if names is None else set(names)
        job_by_id = {
            job.job_id: job
            for job in (status or self.status()).jobs.values()
            if job.state in ENDED and (wanted is None or job.name in wanted)
        }
        views: dict[str, JobView] = {}
        for job_id, view in runtime.results.read_views(job_by_id, self.connection).items():
            job = job_by_id[job_id]
            views[job.name] = view if job.state == "finished" else replace(view, result=None)
        return views

    def kept_outputs(self, within_s: float = 0) -> KeptOutputs:
        """Return views of the run's outputs, as commands show them. Loads no pickles.

        Blocks: up to `within_s` if a worker is expected to evaluate them.
        """
        deadline = time.monotonic() + within_s
        while True:
            kept = runtime.kept_outputs.read_kept_outputs(self.run_id, self.connection)
            is_late = time.monotonic() > deadline
            if not kept.is_pending or is_late or find_unattended([kept.queue], self.connection):
                return kept
            pause(OUTPUTS_POLL_S, self.connection)

    def outputs(self, instead: Callable[[str, Exception], Any] | None = None) -> dict[str, Any]:
        """Return the workflow's `outputs`, by name, once the run has ended.

        Shape: empty if the workflow declares no outputs. A job without a result gives None.
        Errors: RunNotFound; WrongState before the run has ended; WorkflowInvalid for an expression
        that cannot be evaluated with these results; any error from loading a result. With
        `instead`, the value of `instead(name, error)` replaces an output that raises.
        """
        return runtime.outputs.read_outputs(self.run_id, self.connection, instead)

    def job_records(self, status: RunStatus | None = None) -> dict[str, JobRecord]:
        """Return the constant properties of the jobs, by name."""
        jobs = (status or self.status()).jobs.values()
        found = runs.read_job_records((job.job_id for job in jobs), self.connection)
        return {job.name: found[job.job_id] for job in jobs if job.job_id in found}

    def unattended_queues(self, status: RunStatus | None = None) -> list[str]:
        """Return the queues that the run's unfinished jobs use and no worker listens on."""
        return observing.find_unattended_queues(status or self.status(), self.connection)

    def is_served(self, *, or_soon: bool = False) -> bool:
        """Whether workers execute the run's jobs: its own workers, or workers on its queues.

        Its own workers also count while they are idle and, with `or_soon`, while they are starting.
        """
        if queue := self.record().queue:
            return not find_unattended([queue], self.connection, or_soon=or_soon)
        return not self.unattended_queues()

    def picture(self, status: RunStatus | None = None) -> Picture:
        """Return the run's picture: its jobs and edges, and their states. Needs no files.

        In a run that an older version submitted, the kinds of jobs and their conditions are not
        known, and nested workflows are single jobs. Errors: RunNotFound.
        """
        from flowq.pictures.of_run import draw_run, find_added  # noqa: PLC0415 - others draw nothing
        from flowq.pictures.stored import read_picture  # noqa: PLC0415

        status = status or self.status()
        stored = read_picture(self.source())
        added = {job.job_id: job.name for job in find_added(status, stored)}
        records = runs.read_job_records(added, self.connection)
        return draw_run(status, stored, {added[job_id]: each for job_id, each in records.items()})

    def source(self) -> Source:
        """Return what the run keeps of its workflow: of an older version's run, nothing."""
        return runs.read_source(self.run_id, self.connection)

    def report(self) -> str:
        """Return a report of the run, one HTML page: what `flowq report` writes.

        Errors: RunNotFound.
        """
        from flowq.pictures import report  # noqa: PLC0415 - others draw nothing

        record, (status, attempts) = self.record(), self.history()
        failed = [job.name for job in report.find_shown(status)]
        hosts = self.find_hosts(report.find_workers(attempts))
        failures = self.failures(failed, status) if failed else {}
        now = datetime.now(UTC)
        picture = self.picture(status)
        kept = report.RunReport(record, status, picture, attempts, failures, now, hosts)
        return report.render_report(kept)

    def failures(
        self, names: Iterable[str] | None = None, status: RunStatus | None = None
    ) -> dict[str, Failure]:
        """Return why jobs failed or were rejected, by name: all of them, or those in `names`."""
        wanted = None if names is None else set(names)
        states = ("failed", "stopped", "canceled")
        ended = (status or self.status()).find_failed(states, with_tolerated=True)
        ended = [job for job in ended if job.state != "canceled" or job.is_rejected]
        failed = [job for job in ended if wanted is None or job.name in wanted]
        failures = runtime.results.get_failures((job.job_id for job in failed), self.connection)
        return {job.name: failures[job.job_id] for job in failed if job.job_id in failures}

    def ends(self, job_ids: Sequence[str]) -> list[JobEnd]:
        """Return how jobs ended, by their ids and in their order, as expressions see it."""
        return list(runtime.results.read_ends(job_ids, self.connection))

    def code_changes(self) -> list[CodeChange]:
        """Return the code files that changed between jobs of the run, oldest change first."""
        return runs.read_changes(self.run_id, self.connection)

    def explain(
        self, job: str, commands: Commands | None = None, *, status: RunStatus | None = None
    ) -> Explanation:
        """Return why a job of the run has not run, or the state of a group. Errors: NotFound.

        `commands` formats the hints; the default is calls of this class. `status` spares a read.
        """
        commands = commands or runtime.explain.PythonCalls(self.run_id)
        status = status or self.status()
        group = None if (one := status.jobs.get(job)) else find_declared(status, job)
        if group is not None and group.items:
            left_or_bad = (group.name, group.state, group.items, group.forgiven)
            explain_group, ends = runtime.explain.explain_group, count_ends(group.items)
            return explain_group(self.run_id, *left_or_bad, ends=ends, commands=commands)
        job_id = one.job_id if one else f"{self.run_id}-{job}"
        if one is None and not runtime.lookups.is_there(job_id, self.connection):
            raise missing_job(self.run_id, job, status.names())
        return runtime.explain.explain(job_id, self.connection, self.run_id, commands)

    def find_hold(self, commands: Commands | None = None) -> Reason | None:
        """Return why the run cannot start any job yet (it is held, or not its turn), or None."""
        commands = commands or runtime.explain.PythonCalls(self.run_id)
        return runtime.explain.find_hold(self.run_id, self.connection, commands=commands)

    def retry(self, job: str | None = None, *, by: str | None = None) -> tuple[str, ...]:
        """Rerun the jobs that did not succeed and everything downstream; return their names.

        With a `job`, rerun that one, even if it succeeded, and everything downstream of it. The
        job may be one item (`thumb[3]`), a group, or a nested workflow. `by` is as for `approve`.
        Errors: RunNotFound; NotFound for an unknown job; WrongState if the run is active, if it
        succeeded and no job is named, or if an earlier job prevents the named job from running.
        """
        by = runtime.approvals.say_who(by)
        again = runtime.retry.retry(self.run_id, self.connection, job, by=by)
        return tuple(runs.read_names(self.run_id, again, self.connection).values())

    def release(self, name: str | None = None, *, by: str | None = None) -> bool:
        """Release a held run. Returns True for the call that did it. `by` is as for `approve`.

        With a `name`, the same as `approve` (deprecated, until 1.0). Errors: NotFound; WrongState.
        """
        if name is not None:
            message = "Run.release(job) ends with flowq 1.0; write Run.approve(job)"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return self.approve(name, by=by)
        by = runtime.approvals.say_who(by)
        return runtime.approvals.release_run(self.run_id, self.connection, by=by)

    def approve(
        self,
        job: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        note: str = "",
        by: str | None = None,
    ) -> bool:
        """Approve a job that waits for approval, or all items of a group, even future ones.

        `inputs` are the approval's inputs; `by` names the approver (default `user@host`), at most
        200 bytes. Returns True for the call that did it, False if the job was already approved.
        Errors: NotFound; UsageError for invalid inputs; WrongState.
        """
        by = runtime.approvals.say_who(by)
        return runtime.approvals.approve(
            self.run_id, job, self.connection, inputs=inputs, note=note, by=by
        )

    def has_asked(self, job: str) -> bool:
        """Whether a job, or an item of a group, has requested approval. Errors: NotFound."""
        return runtime.approvals.has_asked(self.run_id, job, self.connection)

    def reject(self, job: str, reason: str = "", *, by: str | None = None) -> bool:
        """Reject a job that waits for approval, or all items of a group; it is canceled.

        Returns True for the call that did it, False if the job was already rejected. Errors:
        NotFound; WrongState, also for a job that has not requested approval yet.
        """
        by = runtime.approvals.say_who(by)
        return runtime.approvals.reject(self.run_id, job, self.connection, reason=reason, by=by)

    def cancel(
        self, *, now: bool = False, may_wait: bool = True, by: str | None = None
    ) -> list[str]:
        """Cancel the run: jobs that have not started are canceled, running jobs are stopped.

        Running jobs get RQ's stop command; those of dead workers end immediately. Then jobs with
        `always()` or `canceled()` in their `if` still run, unless `now` is set. They wait for a
        worker if necessary; without `may_wait`, such jobs are canceled if no worker listens on
        their queue, and these queues are returned. If the run has not begun, because it is held or
        waits for its turn, all of its jobs are canceled. `by` is as for `approve`.
        Errors: RunNotFound; WrongState if the run has ended.
        """
        by = runtime.approvals.say_who(by)
        return runs.cancel(self.run_id, self.connection, is_now=now, may_wait=may_wait, by=by)

    def remove(self) -> None:
        """Remove the run, its jobs and all of its data. A backfill may submit its due time again.

        Errors: RunNotFound; WrongState if it has not ended: its jobs would go on, with no record.
        """
        state = runs.get_record(self.run_id, self.connection).state
        if state not in RUN_ENDED and state != "staged":
            raise WrongState(
                f"run {self.run_id} has not ended: it is {state}; cancel it first, then remove it"
            )
        runs.remove(self.run_id, self.connection)


def missing_job(run_id: str, name: str, known: Iterable[str]) -> NotFound:
    """Return the error for a name that no job of the run has, with the nearest of those it has."""
    hint = did_you_mean(name, known)
    return NotFound(f"there is no job {name} in run {run_id}{f'; {hint}' if hint else ''}")
