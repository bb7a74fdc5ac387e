"""Follow a run to its end: show its events, run its workers, react to signals, report the end.

`run`, `watch`, `retry`, `approve`, `reject` and `release` follow; `show` and `status` only report.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import wraps
from typing import IO, Any, Protocol

from redis.exceptions import RedisError

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.display import Display
from flowq.cli.own_workers import OwnWorkers, Tail, read_last
from flowq.cli.place import Place, opened
from flowq.cli.terminal import Interrupted, Interrupts, OutputLost, Stream
from flowq.client import KeptOutputs, Run
from flowq.errors import FlowqError, JobNotFound, ServerUnavailable, WrongState
from flowq.render.groups import by_declaration
from flowq.render.json import run_document, write_json
from flowq.render.summary import MAX_FAILURES, MAX_OUTPUT_LINES, FailedJob, Report, summary
from flowq.runtime.connections import Trouble, is_passing, patiently
from flowq.status import ENDED, Event, JobFacts, JobStatus, RunStatus

POLL_S = 0.25
"""How soon Ctrl-C is seen to, at the latest."""

OUTPUTS_S = 10.0
"""How long the outputs of a run that has ended are waited for."""

REMIND_S = 30.0
START_S = 2.0
"""How long workers may take to start that a run has for itself."""

MAX_STUCK = 5
"""How many jobs that wait, and how many of their blockers, are told of one by one."""


class Attendant(Protocol):
    """Somebody who looks at the run from time to time while it is followed."""

    def look(self, status: RunStatus, display: Display) -> None:
        """See to what it is there for; what it has to say it says through the display."""


def follow(
    run: Run,
    place: Place,
    display: Display,
    attendants: Sequence[Attendant],
    interrupts: Interrupts,
    since: str = "0",
    *,
    has_own: bool = False,
) -> RunStatus:
    """Show the run until it has ended, and return its last status.

    What happened up to the event `since` is not told. `has_own`: one of the attendants sees to it
    that workers live.
    The first interrupt cancels the run, which is then followed to its end; a second one raises.
    While the server cannot be used it is waited for; at last the user reads how to go on later.
    Errors: those of `Run.observe`; Interrupted.
    """
    is_canceling = False
    trouble = Trouble(display.note, display.note)
    try:
        with place.without_waiting():  # `observe` does, and sees to Ctrl-C meanwhile
            for status, events in run.observe(POLL_S, place.revive, trouble):
                display.show(status, [event for event in events if is_after(event, since)])
                for attendant in attendants:
                    _let_look(attendant, status, display)
                if interrupts.first is not None and not is_canceling:
                    is_canceling = True
                    _cancel(run, status, display, interrupts.first, may_wait=has_own)
            patiently(lambda: run.kept_outputs(OUTPUTS_S))
    except (RedisError, ServerUnavailable) as error:
        if is_passing(error) or isinstance(error, ServerUnavailable):
            command = place.hint("watch", run.run_id)
            display.note(
                f"run {run.run_id} goes on when the server does; follow it with: {command}"
            )
        raise
    return status


def _let_look(attendant: Attendant, status: RunStatus, display: Display) -> None:
    try:
        attendant.look(status, display)
    except RedisError as error:
        if not is_passing(error):  # else `observe` will meet it too, and wait
            raise


def is_after(event: Event, since: str) -> bool:
    """Whether an event comes after the one with that id."""
    return _order(event.id) > _order(since)


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("-"))


def _cancel(run: Run, status: RunStatus, display: Display, signum: int, *, may_wait: bool) -> None:
    if status.is_ended:
        return
    again = "Ctrl-C" if signum == signal.SIGINT else "the signal"
    display.note(f"canceling run {run.run_id}; {again} once more leaves at once")
    try:
        patiently(lambda: run.cancel(may_wait=may_wait), connection=run.connection)
    except WrongState:  # it has ended meanwhile
        return


class UnattendedQueues:
    """Says which queues of the run nobody listens on: at once, and every 30 s again."""

    def __init__(self, run: Run, place: Place, *, at_once: bool = True) -> None:
        self._run = run
        self._place = place
        self._due_at = 0.0 if at_once else time.monotonic() + REMIND_S
        self._has_waited = False

    def look(self, status: RunStatus, display: Display) -> None:
        """Look, when it is time to."""
        if status.is_ended or time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + REMIND_S
        queues = self._run.unattended_queues(status)
        if queues and self._run.record().queue in queues:
            self._look_for_own(display)
        elif queues:
            display.note(self._sentence(queues))

    def _look_for_own(self, display: Display) -> None:
        """The run has no workers of its own: nobody has started them, they are gone, or begin."""
        if not self._has_waited:
            self._has_waited, self._due_at = True, time.monotonic() + START_S
            return
        hold = self._run.find_hold()
        if hold is None or hold.kind != "held":
            command = self._place.hint("release", self._run.run_id)
            display.note(f"nobody executes the jobs of this run; go on with it: {command}")

    def _sentence(self, queues: Sequence[str]) -> str:
        names = ", ".join(queues)
        jobs = f"jobs wait on the queue{'s' if len(queues) > 1 else ''} {names}"
        start = self._place.hint("worker", *queues)
        return f"no worker listens: {jobs}; start one with: {start}"


class Held:
    """Says why no job of the run can start yet: it is held, or it is not its turn."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._was_waiting = False

    def look(self, status: RunStatus, display: Display) -> None:
        """Look when the run begins to wait."""
        is_waiting = status.state == "waiting"
        hold = self._run.find_hold(self._place) if is_waiting and not self._was_waiting else None
        self._was_waiting = is_waiting
        if hold is not None:
            release = f"let it go with: {self._place.hint('release', self._run.run_id)}"
            display.note(f"{hold.text}; {release if hold.kind == 'held' else hold.hint}")


class Asked:
    """Says once which jobs wait for an approval, and how to give it."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._told: set[str] = set()

    def look(self, status: RunStatus, display: Display) -> None:
        """Look for jobs that ask, and have not been told of."""
        asking = {job.name for job in status.jobs.values() if job.is_asking}
        facts = self._run.facts(status) if asking - self._told else {}
        for name in sorted(asking - self._told):
            display.note(self._sentence(status.jobs[name].asked_as, facts.get(name)))
        self._told = asking

    def _sentence(self, name: str, facts: JobFacts | None) -> str:
        message = f" ({facts.message})" if facts and facts.message else ""
        given = facts.options if facts else ""
        command = self._place.hint("approve", self._run.run_id, name) + given
        return f"{name} waits for an approval{message}; give it with: {command}"


class Stuck:
    """Says once which jobs wait for blockers that did not succeed, and what can be done."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._told: dict[str, datetime | None] = {}

    def look(self, status: RunStatus, display: Display) -> None:
        """Look for jobs that wait like that, or do so again, and have not been told of."""
        stuck = {job.name: job.deferred_at for job in status.jobs.values() if job.is_stuck}
        new = [status.jobs[name] for name in stuck if stuck[name] != self._told.get(name)]
        for job in new[:MAX_STUCK]:
            if blockers := self._find_blockers(job, status):  # else one runs again by now
                display.note(self._sentence(job, blockers, status))
        if len(new) > MAX_STUCK:
            command = self._place.hint("explain", self._run.run_id)
            display.note(f"{len(new) - MAX_STUCK} more jobs wait like that; see: {command}")
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
        facts = self._run.facts(replace(status, jobs={job.name: job for job in blockers}))
        queues = {each.origin for each in facts.values()}
        if len(queues) != 1:
            return ""
        ids = (each.job_id for each in facts.values())
        return self._place.rq_hint("requeue --queue", *queues, *ids)


def make_attendants(run: Run, place: Place, *, at_once: bool = True) -> list[Attendant]:
    """Return those that tell a user what holds the run up; queues without workers `at_once`."""
    unattended = UnattendedQueues(run, place, at_once=at_once)
    return [unattended, Held(run, place), Asked(run, place), Stuck(run, place)]


def exit_code(status: RunStatus) -> int:
    """Return the exit code that a run's end stands for."""
    return 0 if status.state == "succeeded" else 1


@dataclass(frozen=True)
class Wishes:
    """How a run is to be shown, and by whom its jobs are to be executed."""

    concurrency: int | None
    is_json: bool
    is_verbose: bool
    is_quiet: bool


def see_to_the_end(
    run: Run,
    place: Place,
    wishes: Wishes,
    out: IO[str],
    interrupts: Interrupts,
    since: str = "0",
) -> int:
    """Follow a run that goes on, with workers of its own where it needs them; say how it ended.

    What happened up to the event `since` is not told again. Returns the exit code.
    Errors: Interrupted, when a second signal says to leave at once.
    """
    stream = terminal.Lenient(sys.stderr if wishes.is_json else out)
    try:
        workers = start_workers(run, place, wishes.concurrency)
        status = _follow(run, workers, place, wishes, stream, interrupts, since)
    except Interrupted:
        terminal.note(f"flowq: leaving; see {place.hint('status', run.run_id)}")
        raise
    code = _finish(run, status, place, wishes, out, stream)
    if place.is_embedded and not wishes.is_quiet:
        _note_left_alone(place)
    if workers is not None:
        workers.end()
    return Interrupted(interrupts.first).exit_code if interrupts.first else code


def start_workers(run: Run, place: Place, concurrency: int | None) -> OwnWorkers | None:
    """Start workers for a run where it needs its own: on the private server, or with `-c`.

    Errors: FlowqError, with the run canceled.
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
    wishes: Wishes,
    stream: Stream,
    interrupts: Interrupts,
    since: str,
) -> RunStatus:
    attendants = make_attendants(run, place, at_once=workers is None)
    attendants += [workers] if workers else []
    if wishes.is_verbose:
        attendants.append(Tail())
    with display.choose(stream, is_quiet=wishes.is_quiet) as shown:
        return follow(run, place, shown, attendants, interrupts, since, has_own=bool(workers))


def _note_left_alone(place: Place) -> None:
    """Say which jobs wait on the private server that no run's workers will execute.

    Jobs of runs have enqueued them without `blocks`, so they belong to no run.
    """
    for queue, count in client.count_left_alone(place.connection).items():
        jobs = "1 job of no run waits" if count == 1 else f"{count} jobs of no run wait"
        start = place.hint("worker --burst", queue)
        terminal.note(f"flowq: {jobs} on the queue {queue}; to execute them: {start}")


def _finish(
    run: Run, status: RunStatus, place: Place, wishes: Wishes, out: IO[str], stream: Stream
) -> int:
    """Say how it ended, and return the exit code.

    That nobody reads it any more does not change how it ended. JSON that cannot be written is asked
    for by a program, which must not take it for there.
    """
    code = exit_code(status)
    try:
        if wishes.is_json:
            document = patiently(lambda: run_json(run, status, run.kept_outputs()))
            terminal.write(document, out)
    except BrokenPipeError:
        terminal.discard(out)
    except OutputLost as lost:
        again = place.hint("status", run.run_id, "--json")
        terminal.note(f"flowq: {lost}; the run {status.state}, see {again}")
        code = code or lost.exit_code
    if not (wishes.is_quiet and status.state == "succeeded"):
        report = patiently(lambda: make_report(run, status, place))
        write_summary(report, stream)
    return code


def make_report(run: Run, status: RunStatus, place: Place) -> Report:
    """Return what there is to say about a run that has ended."""
    kept = run.kept_outputs()
    return Report(
        status=status,
        results={} if kept.views or kept.errors else _last_results(run, status),
        outputs=kept.views,
        unknown=kept.errors,
        failed=_failed(run, status),
        show_command=lambda name: place.hint("show", run.run_id, name),
    )


def _last_results(run: Run, status: RunStatus) -> Mapping[str, Any]:
    """Return views of the results of what nothing comes after; a group's as a list."""
    last = {name for name, facts in run.facts(status).items() if facts.is_last}
    declared = by_declaration(status).values()
    shown = [each for each in declared if last.issuperset(job.name for job in each.own)]
    views = run.views([job.name for each in shown for job in each.items], status)
    results = {name: view.result for name, view in views.items()}
    return {
        each.name: [results.get(job.name) for job in each.items]
        if each.is_group
        else results[each.name]
        for each in shown
        if (each.items or each.state == "finished" if each.is_group else each.name in results)
    }


def _failed(run: Run, status: RunStatus) -> list[FailedJob]:
    # What a cancel stopped has not failed: nobody asks why.
    bad = ("failed",) if status.state == "canceled" else ("failed", "stopped")
    jobs = (job for job in status.jobs.values() if job.state in bad)
    names = [job.name for job in jobs if not (status.is_tolerated(job) or job.has_failed_inside)]
    tracebacks = run.failures(names[:MAX_FAILURES])
    return [
        FailedJob(
            name,
            tracebacks[name].traceback if name in tracebacks else "",
            read_last(status.jobs[name].job_id, MAX_OUTPUT_LINES),
            status.jobs[name].reason,
        )
        for name in names
    ]


def write_summary(report: Report, stream: Stream) -> None:
    """Write the end of a run for eyes."""
    lines = summary(report, display.width_of(stream), unicode=terminal.can_show(stream))
    display.tell(lines, stream)


def run_json(run: Run, status: RunStatus, kept: KeptOutputs) -> str:
    """Return the one JSON object of a run; an output that has no value is null there."""
    results = {name: view.result for name, view in run.views(status=status).items()}
    outputs = {**kept.views, **dict.fromkeys(kept.errors)}
    return write_json(run_document(status, results, outputs, run.facts(status)))


def with_wishes(command: Callable[..., int]) -> Any:
    """Add the options of a command that may follow a run, which gets `redis_url` and `wishes`."""

    @options.redis_url
    @options.concurrency
    @options.quiet
    @options.verbose
    @wraps(command)
    def wished(*, concurrency: int | None, quiet: bool, verbose: bool, **given: Any) -> int:
        return command(wishes=Wishes(concurrency, False, verbose, quiet), **given)

    return wished


def answer(run_id: str, redis_url: str | None, wishes: Wishes, tell: Callable[[Run], str]) -> int:
    """Do what `tell` does to a run, and say what it returns; return the exit code.

    On the private server of the current folder follow the run then, where nobody executes it.
    """
    with terminal.result_stream(False) as out, opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        return answer_run(run, place, wishes, out, tell)


def answer_run(
    run: Run, place: Place, wishes: Wishes, out: IO[str], tell: Callable[[Run], str]
) -> int:
    """The same for a run that was found."""
    with Interrupts(deferring=True) as interrupts:
        since = run.status().last_event_id
        told = tell(run)
        if not wishes.is_quiet:
            terminal.note(f"flowq: {told}")
        hold = run.find_hold()
        if hold is not None and hold.kind == "held":
            start = place.hint("release", run.run_id)
            terminal.note(f"flowq: {hold.text}; start it with: {start}")
            return 0
        if not _is_alone(run, place, wishes):
            return 0
        return see_to_the_end(run, place, wishes, out, interrupts, since)


def _is_alone(run: Run, place: Place, wishes: Wishes) -> bool:
    """Whether nobody executes the run unless we do."""
    if run.status().is_ended:
        return False
    return wishes.concurrency is not None or (place.is_embedded and not run.is_served())
