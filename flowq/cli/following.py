"""Follow a run to its end: show its events, run its workers, react to signals, report the end.

`run`, `watch`, `retry`, `approve`, `reject` and `release` follow; `show` and `status` only report.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import wraps
from typing import IO, Any, Protocol

from redis.exceptions import RedisError

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.display import Display
from flowq.cli.own_workers import OwnWorkers
from flowq.cli.place import Place, opened, tell_abandoned, tell_unattended
from flowq.cli.terminal import LEAVING_S, Interrupted, Interrupts, OutputLost, Stream
from flowq.client import Run
from flowq.errors import FlowqError, JobNotFound, RunNotFound, ServerUnavailable, WrongState
from flowq.job_output import Tail, read_last_lines
from flowq.render.groups import by_declaration
from flowq.render.summary import (
    MAX_FAILURES,
    MAX_ITEMS,
    MAX_OUTPUT_LINES,
    FailedJob,
    Report,
    summary,
)
from flowq.runtime.connections import is_passing, retry_while_unavailable
from flowq.status import ENDED, Event, JobRecord, JobStatus, RunStatus

POLL_S = 0.25
"""The longest delay before Ctrl-C is handled."""

OUTPUTS_S = 10.0
"""How long to wait for the outputs of a run that has ended."""

REMIND_S = 30.0
START_S = 2.0
"""How long the workers of a run may take to start before a note says that there are none."""

MAX_STUCK = 5
"""How many stuck jobs, and how many blockers of each, are named one by one."""


class Monitor(Protocol):
    """Looks at the run after each change while it is followed."""

    def look(self, status: RunStatus, display: Display) -> None:
        """Check the run, and print notes through the display."""


def follow(
    run: Run,
    place: Place,
    display: Display,
    monitors: Sequence[Monitor],
    since: str = "0",
) -> RunStatus:
    """Show the run until it has ended, and return its last status.

    While the server is unavailable this waits, up to `MAX_WAIT_S`.

    Args:
        since: the id of an event; only later events are shown.

    Raises:
        FlowqError: as `Run.observe`.
    """
    # `observe` waits itself, and lets Ctrl-C through
    with place.without_waiting(), place.retry.outage.told_by(display.note):
        for status, events in run.observe(POLL_S, place.revive, place.retry.outage):
            display.show(status, drop_earlier(events, since))
            for monitor in monitors:
                _let_look(monitor, status, display)
        retry_while_unavailable(lambda: run.kept_outputs(OUTPUTS_S))
    return status


@contextmanager
def named_when_lost(run: Run, place: Place, end: str = "") -> Iterator[None]:
    """Name a submitted run, and say how to look at it, if the server becomes unavailable.

    Args:
        end: how the run has ended, if it has.
    """
    try:
        yield
    except (RedisError, ServerUnavailable) as error:
        if is_passing(error) or isinstance(error, ServerUnavailable):
            says = f"{end}; see" if end else "goes on when the server is back; follow it with"
            command = place.hint("status" if end else "watch", run.run_id)
            terminal.note(f"flowq: run {run.run_id} {says}: {command}")
        raise


def _let_look(monitor: Monitor, status: RunStatus, display: Display) -> None:
    try:
        monitor.look(status, display)
    except RedisError as error:
        if not is_passing(error):  # else `observe` meets the same error, and waits
            raise


def drop_earlier(events: Sequence[Event], since: str) -> Sequence[Event]:
    """Return the events after the one with that id. They are in the order in which they came."""
    last = _order(since)
    at = next((at for at, event in enumerate(events) if _order(event.id) > last), len(events))
    return events[at:] if at else events


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("-"))


class Canceler:
    """Cancels the run at the first signal; if a second one comes before that is done, on leaving.

    The second signal raises Interrupted wherever this process is then: while the run is submitted,
    or between two looks. `follow_to_the_end` calls `leave` for it.
    """

    def __init__(self, run: Run, interrupts: Interrupts) -> None:
        self._run = run
        self._interrupts = interrupts
        self._has_workers = False
        self._is_told = self._is_done = False

    def expect_workers(self) -> None:
        """Note that workers of this run live, so jobs that run in a canceled run are executed."""
        self._has_workers = True

    def look(self, status: RunStatus, display: Display) -> None:
        """Check whether a signal has come."""
        signum = self._interrupts.first
        if signum is None or self._is_done or status.is_ended:
            return
        if not self._is_told:
            again = "Ctrl-C" if signum == signal.SIGINT else "the signal"
            display.note(f"canceling run {self._run.run_id}; {again} again exits at once")
            self._is_told = True
        with suppress(WrongState):  # it has ended meanwhile
            retry_while_unavailable(self._cancel, connection=self._run.connection)
        self._is_done = True

    def _cancel(self) -> None:
        self._run.cancel(may_wait=self._has_workers)

    def leave(self, place: Place) -> None:
        """Cancel the run unless that is done, and say which it is. Blocks for `LEAVING_S` at most.

        In a thread: signals are ignored meanwhile, and a server may not answer at all.
        """
        run_id = self._run.run_id
        see = f"exiting; see {place.hint('status', run_id)}"
        if self._is_done:
            return terminal.note(f"flowq: {see}")
        again = place.hint("cancel", run_id)
        told = [
            (
                f"exiting; the server does not answer, so run {run_id} may go on; end it "
                f"with: {again}"
            )
        ]

        def cancel() -> None:
            # The signal may have come between a command and its answer, which others would get.
            self._run.connection.connection_pool.disconnect()
            try:
                if self._run.record().state == "staged":
                    told[:] = ["exiting; no run was submitted"]
                    with suppress(RedisError):  # else maintenance removes it
                        self._run.remove()
                    return
                self._cancel()
                told[:] = [f"canceling run {run_id}, and {see}"]
            except RunNotFound:
                told[:] = ["exiting; no run was submitted"]
            except WrongState:  # it has ended
                told[:] = [see]
            except (RedisError, FlowqError) as error:
                told[:] = [f"exiting; run {run_id} is not canceled: {error}; end it with: {again}"]

        with place.without_waiting():
            thread = threading.Thread(target=cancel, daemon=True)
            thread.start()
            thread.join(LEAVING_S)
        terminal.note(f"flowq: {told[0]}")
        return None


class UnattendedQueues:
    """Names the queues of the run that no worker listens on, at once and then every 30 s."""

    def __init__(self, run: Run, place: Place, *, at_once: bool = True) -> None:
        self._run = run
        self._place = place
        self._due_at = 0.0 if at_once else time.monotonic() + REMIND_S
        self._has_waited = False

    def look(self, status: RunStatus, display: Display) -> None:
        """Check when the next reminder is due."""
        if status.is_ended or time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + REMIND_S
        queues = self._run.unattended_queues(status)
        if queues and self._run.record().queue in queues:
            self._look_for_own(display)
        elif queues:
            display.note(tell_unattended(queues, self._place))

    def _look_for_own(self, display: Display) -> None:
        """Check a run that needs workers of its own: they are missing, gone, or just starting."""
        if not self._has_waited:
            self._has_waited, self._due_at = True, time.monotonic() + START_S
            return
        hold = self._run.find_hold()
        if hold is None or hold.kind != "held":
            display.note(tell_abandoned(self._run, self._place))


class Held:
    """Says why no job of the run can start yet: the run is held, or waits for its turn."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._was_waiting = False

    def look(self, status: RunStatus, display: Display) -> None:
        """Check when the run begins to wait."""
        is_waiting = status.state == "waiting"
        hold = self._run.find_hold(self._place) if is_waiting and not self._was_waiting else None
        self._was_waiting = is_waiting
        if hold is not None:
            release = f"release it with: {self._place.hint('release', self._run.run_id)}"
            display.note(f"{hold.text}; {release if hold.kind == 'held' else hold.hint}")


class Asked:
    """Names each job that waits for an approval once, with the command that gives it."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._told: set[str] = set()

    def look(self, status: RunStatus, display: Display) -> None:
        """Check for jobs that ask, and were not named before."""
        if not (status.is_held_up or self._told):
            return
        asking = {job.name for job in status.jobs.values() if job.is_asking}
        records = self._run.job_records(status) if asking - self._told else {}
        for name in sorted(asking - self._told):
            display.note(self._sentence(status.jobs[name].asked_as, records.get(name)))
        self._told = asking

    def _sentence(self, name: str, record: JobRecord | None) -> str:
        message = f" ({record.message})" if record and record.message else ""
        given = record.options if record else ""
        command = self._place.hint("approve", self._run.run_id, name) + given
        return f"{name} waits for an approval{message}; give it with: {command}"


class Stuck:
    """Names each job that waits for failed blockers once, with what the user can do."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._told: dict[str, datetime | None] = {}

    def look(self, status: RunStatus, display: Display) -> None:
        """Check for jobs that are stuck, or stuck again, and were not named before."""
        if not (status.is_held_up or self._told):
            return
        stuck = {job.name: job.deferred_at for job in status.jobs.values() if job.is_stuck}
        new = [status.jobs[name] for name in stuck if stuck[name] != self._told.get(name)]
        for job in new[:MAX_STUCK]:
            if blockers := self._find_blockers(job, status):  # else one runs again by now
                display.note(self._sentence(job, blockers, status))
        if len(new) > MAX_STUCK:
            command = self._place.hint("explain", self._run.run_id)
            display.note(
                f"{len(new) - MAX_STUCK} more jobs wait for failed blockers; see: {command}"
            )
        self._told = stuck

    def _sentence(self, job: JobStatus, blockers: Sequence[JobStatus], status: RunStatus) -> str:
        shown = ", ".join(f"{each.name} ({each.state})" for each in blockers[:MAX_STUCK])
        more = f" and {len(blockers) - MAX_STUCK} more" if len(blockers) > MAX_STUCK else ""
        requeue, run_id = self._requeue(blockers, status), self._run.run_id
        again = f"run it again with: {requeue}; or " if requeue else ""
        end = f"end the run with: {self._place.hint('cancel', run_id)}"
        retry = f"then go on with: {self._place.hint('retry', run_id)}"
        return f"{job.name} waits for {shown}{more} to succeed; {again}{end}, {retry}"

    def _find_blockers(self, job: JobStatus, status: RunStatus) -> list[JobStatus]:
        try:
            reasons = client.explain(job.job_id, self._run.connection).reasons
        except JobNotFound:  # deleted meanwhile
            return []
        ids = {job_id for reason in reasons for job_id in reason.job_ids}
        bad, jobs = ENDED - {"finished"}, status.jobs.values()
        return [each for each in jobs if each.job_id in ids and each.state in bad]

    def _requeue(self, blockers: Sequence[JobStatus], status: RunStatus) -> str:
        """Return RQ's command that runs the blockers again; "" when it would not do."""
        if len(blockers) > MAX_STUCK or {job.state for job in blockers} - {"failed", "stopped"}:
            return ""
        records = self._run.job_records(replace(status, jobs={job.name: job for job in blockers}))
        queues = {each.origin for each in records.values()}
        if len(queues) != 1:
            return ""
        ids = (each.job_id for each in records.values())
        return self._place.rq_hint("requeue --queue", *queues, *ids)


def make_monitors(run: Run, place: Place, *, at_once: bool = True) -> list[Monitor]:
    """Return the monitors that say what delays the run; `at_once`: also about queues, now."""
    unattended = UnattendedQueues(run, place, at_once=at_once)
    return [unattended, Held(run, place), Asked(run, place), Stuck(run, place)]


def exit_code(status: RunStatus) -> int:
    """Return the exit code that a run's end stands for."""
    return 0 if status.state == "succeeded" else 1


@dataclass(frozen=True)
class RunOptions:
    """How to show a run, and how many workers to start for it.

    With `is_json`, stdout has nothing but JSON: one object, or with `has_lines` one line for each
    event before it.
    """

    concurrency: int | None
    is_json: bool
    is_verbose: bool
    is_quiet: bool
    has_lines: bool = False
    has_all_results: bool = False


def follow_to_the_end(
    run: Run,
    place: Place,
    run_options: RunOptions,
    out: IO[str],
    interrupts: Interrupts,
    since: str = "0",
    begin: Callable[[], object] | None = None,
) -> int:
    """Follow a run to its end, with workers of its own where it needs them, and report the end.

    The first signal cancels the run, the second one leaves at once.

    Args:
        since: the id of an event; only later events are shown.
        begin: submits the run, or lets it run again, before all else.

    Returns:
        The exit code.

    Raises:
        Interrupted: at the second signal, after canceling the run or telling the user that it
            could not be canceled.
    """
    stream = terminal.Lenient(sys.stderr if run_options.is_json else out)
    canceler = Canceler(run, interrupts)
    try:
        if begin is not None:
            begin()
        with named_when_lost(run, place):
            workers = start_workers(run, place, run_options.concurrency)
            if workers is not None:
                canceler.expect_workers()
            status = _follow(run, workers, place, run_options, out, stream, canceler, since)
    except Interrupted:
        canceler.leave(place)
        raise
    with named_when_lost(run, place, end=status.state):
        code = _finish(run, status, place, run_options, out, stream)
        if place.is_embedded and not run_options.is_quiet:
            _note_left_alone(place)
    if workers is not None:
        workers.end()
    return Interrupted(interrupts.first).exit_code if interrupts.first else code


def start_workers(run: Run, place: Place, concurrency: int | None) -> OwnWorkers | None:
    """Start workers for a run that needs its own: on the private server, or with `-c`.

    Raises:
        FlowqError: if they cannot be started; the run is canceled.
    """
    if not place.is_embedded and concurrency is None:
        return None
    try:
        return OwnWorkers(run, place, concurrency)
    except OSError as error:
        run.cancel(may_wait=False)
        raise FlowqError(f"cannot start workers, so the run is canceled: {error}") from None


def _follow(
    run: Run,
    workers: OwnWorkers | None,
    place: Place,
    run_options: RunOptions,
    out: IO[str],
    stream: Stream,
    canceler: Canceler,
    since: str,
) -> RunStatus:
    monitors = make_monitors(run, place, at_once=workers is None)
    monitors += [workers] if workers else []
    if run_options.is_verbose:
        monitors.append(Tail(run))
    if run_options.has_lines:
        chosen: Display = display.JsonLines(terminal.Lenient(out), run.run_id)
    else:
        chosen = display.choose(
            stream, is_quiet=run_options.is_quiet, is_verbose=run_options.is_verbose
        )
    with chosen as shown:
        return follow(run, place, shown, [*monitors, canceler], since)


def _note_left_alone(place: Place) -> None:
    """Name the jobs on the private server that belong to no run, and that no worker executes.

    Jobs of runs have enqueued them without `blocks`.
    """
    for queue, count in client.count_left_alone(place.connection).items():
        jobs = "1 job outside of runs waits" if count == 1 else f"{count} jobs outside of runs wait"
        start = place.hint("worker --burst", queue)
        terminal.note(f"flowq: {jobs} on the queue {queue}; to execute them: {start}")


def _finish(
    run: Run, status: RunStatus, place: Place, run_options: RunOptions, out: IO[str], stream: Stream
) -> int:
    """Report how the run ended, and return the exit code.

    A reader that has closed the pipe does not change the exit code. A failed write does, unless the
    run has failed: a program or a file must not be believed to be complete.
    """
    code = exit_code(status)
    try:
        if run_options.is_json:
            from flowq.documents import run_json  # noqa: PLC0415 - a table needs none of it

            has_all, is_line = run_options.has_all_results, run_options.has_lines
            document = retry_while_unavailable(
                lambda: run_json(run, has_all_results=has_all, is_line=is_line)
            )
            terminal.write(document, out)
    except BrokenPipeError:
        terminal.discard(out)
    except OutputLost as lost:
        again = place.hint("status", run.run_id, "--json")
        terminal.note(f"flowq: {lost}; the run {status.state}, see {again}")
        code = code or lost.exit_code
    if not (run_options.is_quiet and status.state == "succeeded"):
        report = retry_while_unavailable(lambda: make_report(run, status, place))
        write_summary(report, stream)
    return code or terminal.code_of_loss(out)


def make_report(run: Run, status: RunStatus, place: Place) -> Report:
    """Return the report about a run that has ended."""
    kept = run.kept_outputs()
    return Report(
        status=status,
        results={} if kept.views or kept.errors else _last_results(run, status),
        outputs=kept.views,
        unknown=kept.errors,
        failed=_failed(run, status),
        show_command=lambda name: place.hint("show", run.run_id, name),
        retry_command=place.hint("retry", run.run_id) if status.state == "canceled" else "",
    )


def _last_results(run: Run, status: RunStatus) -> Mapping[str, Any]:
    """Return views of the results of what nothing comes after; a group's as a list.

    Of a group only as many items are read as a summary shows, however many it has.
    """
    declared = by_declaration(status).values()
    own = {each.name: each.own[: MAX_ITEMS + 1] for each in declared}
    jobs = replace(status, jobs={job.name: job for part in own.values() for job in part})
    last = {name for name, record in run.job_records(jobs).items() if record.is_last}
    shown = [each for each in declared if last.issuperset(job.name for job in own[each.name])]
    views = run.views([job.name for each in shown for job in own[each.name]], jobs)
    results = {name: view.result for name, view in views.items()}
    return {
        each.name: [results.get(job.name) for job in own[each.name] if each.items]
        if each.is_group
        else results[each.name]
        for each in shown
        if (each.items or each.state == "finished" if each.is_group else each.name in results)
    }


def _failed(run: Run, status: RunStatus) -> list[FailedJob]:
    # What a cancel has stopped needs no explanation.
    bad = ("failed",) if status.state == "canceled" else ("failed", "stopped")
    names = [job.name for job in status.find_failed(bad)]
    tracebacks = run.failures(names[:MAX_FAILURES], status) if names else {}
    ids = [status.jobs[name].job_id for name in names[:MAX_FAILURES]]
    printed = read_last_lines(run, ids, MAX_OUTPUT_LINES)
    return [
        FailedJob(
            name,
            tracebacks[name].traceback if name in tracebacks else "",
            printed.get(status.jobs[name].job_id, []),
            status.jobs[name].reason,
        )
        for name in names
    ]


def write_summary(report: Report, stream: Stream) -> None:
    """Write the summary of a run for people."""
    lines = summary(report, display.width_of(stream), unicode=terminal.can_show(stream))
    display.tell(lines, stream)


def with_run_options(command: Callable[..., int]) -> Any:
    """Add the options of a command that may follow a run: `redis_url` and `run_options`."""

    @options.redis_url
    @options.concurrency
    @options.quiet
    @options.verbose
    @wraps(command)
    def wished(*, concurrency: int | None, quiet: bool, verbose: bool, **given: Any) -> int:
        return command(run_options=RunOptions(concurrency, False, verbose, quiet), **given)

    return wished


def answer(
    run_id: str, redis_url: str | None, run_options: RunOptions, tell: Callable[[Run], str]
) -> int:
    """Call `tell` with a run, print the sentence that it returns, and return the exit code.

    On the private server of the current folder the run is then followed, if nobody executes it.
    """
    with terminal.result_stream(False) as out, opened(redis_url, is_changing=True) as place:
        run = place.find_run(run_id)
        return answer_run(run, place, run_options, out, tell)


def answer_run(
    run: Run, place: Place, run_options: RunOptions, out: IO[str], tell: Callable[[Run], str]
) -> int:
    """Do the same with a run that the caller has found."""
    with Interrupts(deferring=True) as interrupts:
        since = run.status().last_event_id
        told = tell(run)
        if not run_options.is_quiet:
            terminal.note(f"flowq: {told}")
        hold = run.find_hold()
        if hold is not None and hold.kind == "held":
            start = place.hint("release", run.run_id)
            terminal.note(f"flowq: {hold.text}; start it with: {start}")
            return 0
        if not is_alone(run, place, run_options):
            if not run_options.is_quiet and not run.status().is_ended:
                terminal.note(f"flowq: follow it with: {place.hint('watch', run.run_id)}")
            return 0
        return follow_to_the_end(run, place, run_options, out, interrupts, since)


def is_alone(run: Run, place: Place, run_options: RunOptions) -> bool:
    """Whether nobody else executes the run."""
    if run.status().is_ended:
        return False
    return run_options.concurrency is not None or (place.is_embedded and not run.is_served())
