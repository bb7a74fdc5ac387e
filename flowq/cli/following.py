"""Following a run to its end, for `run` and `watch`."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from redis.exceptions import RedisError

from flowq import client
from flowq.cli.display import Display
from flowq.cli.interrupts import Interrupts
from flowq.cli.place import Place
from flowq.client import Run
from flowq.errors import JobNotFound, ServerUnavailable, WrongState
from flowq.runtime.patience import Trouble, is_passing, patiently
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
