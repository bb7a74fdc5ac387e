"""Follow a run's events, or wait for its end: the loops behind `Run.observe` and `Run.wait`.

Both block in one read of the run's events, so that the server wakes them up, and continue after
the server has been away. Every read that returns nothing also does the steps that other processes
left unfinished, so no run has to wait for maintenance.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flowq import runtime
from flowq.durations import parse_duration
from flowq.errors import FlowqError, RunFailed, RunNotEnded, UsageError
from flowq.runtime import runs
from flowq.runtime.connections import Attempts, Outage, is_refusal, pause, shorten_wait
from flowq.runtime.listening import advise, find_unattended
from flowq.runtime.maintenance import tidy
from flowq.status import BAD, ENDED, Event, RunStatus, declared_name, fold, public_name

if TYPE_CHECKING:
    from redis import Redis

POLL_S = 0.5
LONGEST_POLL_S = 2.0
"""The longest read of `wait`."""

QUIET_S = 3.0
"""After so long without an event, `wait` looks whether any worker listens."""

NAMED = 3
_RANKS = {"started": 0, "queued": 1, "scheduled": 2, "deferred": 3}
"""States, the liveliest first; last those that only a newer flowq knows."""

log = logging.getLogger("flowq")


def observe(
    run_id: str,
    connection: Redis,
    poll_s: float,
    while_away: Callable[[], object] | None,
    outage: Outage | None,
) -> Iterator[tuple[RunStatus, list[Event]]]:
    """Do what `Run.observe` says."""
    outage = outage or Outage(_say_nothing, _say_nothing)
    status, wait_s = runs.get_declared(run_id, connection), 0.0
    while True:
        events = _next_events(
            run_id, connection, status.last_event_id, wait_s, outage, while_away=while_away
        )
        status, wait_s = fold(status, events), poll_s
        yield status, events
        if status.is_ended:
            return


def wait(run_id: str, connection: Redis, timeout: float | str | None) -> RunStatus:
    """Do what `Run.wait` says.

    Warns (logger `flowq`) if nothing happens because no worker listens, and when the server cannot
    be used. Errors: those of `Run.wait`; FlowqError if the workers of `flowq.local` keep ending.
    """
    timeout_s = None if timeout is None else _read_seconds(timeout)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    outage = Outage(log.warning, log.warning)
    status, wait_s, quiet_since = runs.get_declared(run_id, connection), 0.0, time.monotonic()
    has_looked = False
    while True:
        events = _next_events(run_id, connection, status.last_event_id, wait_s, outage)
        status, now = fold(status, events), time.monotonic()
        if status.is_ended:
            refuse_failure(status, connection)
            return status
        if timeout_s is not None and deadline is not None and now >= deadline:
            raise RunNotEnded(run_id, timeout_s, describe_wait(status, connection))
        if events:
            wait_s, quiet_since = POLL_S, now
        else:
            wait_s = min(max(2 * wait_s, POLL_S), LONGEST_POLL_S)
        if now - quiet_since > QUIET_S:
            quiet_since = now
            if not has_looked and (advice := _advise(status, connection)):
                log.warning("run %s: %s", run_id, advice)
            has_looked = True
            advise((), connection)  # raises if the workers of `flowq.local` keep ending
        if deadline is not None:
            wait_s = min(wait_s, deadline - now)


def _read_seconds(timeout: float | str) -> float:
    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f"timeout {error}") from None


def refuse_failure(status: RunStatus, connection: Redis) -> None:
    """Raise RunFailed for a run that did not succeed, which a run in a test may do unfinished."""
    if status.state == "succeeded":
        return
    culprits = status.find_culprits()
    named = {job.job_id: public_name(job.name) for job in culprits}
    errors = runtime.results.get_errors([*named][:NAMED], connection)
    # That of a job which has not failed may be an error of an earlier attempt.
    told = {
        job.job_id: job.reason for job in culprits[:NAMED] if job.reason and job.state not in BAD
    }
    error_by_name = {named[job_id]: error for job_id, error in {**errors, **told}.items()}
    reason = status.reason if status.is_ended else say_left(status)
    raise RunFailed(status.run_id, list(named.values()), error_by_name, status.state, reason)


def describe_wait(status: RunStatus, connection: Redis) -> str:
    """Say in one line what an unfinished run waits for, and what to do if nothing will happen."""
    calls = runtime.explain.PythonCalls(status.run_id)
    hold = runtime.explain.find_hold(status.run_id, connection, "the run", calls)
    if hold is not None:
        return f"{hold.text}; {hold.hint}" if hold.hint else hold.text
    try:
        advice = _advise(status, connection)
    except FlowqError as error:
        advice = str(error)
    return say_left(status) + (f"; {advice}" if advice else "")


def say_left(status: RunStatus) -> str:
    """Say in one line which jobs have not ended, and how they wait."""
    left = [job for job in status.declared() if job.state not in ENDED]
    left.sort(key=lambda job: (not job.is_asking, _RANKS.get(job.state, len(_RANKS))))
    said = [
        f"{declared_name(job.name)} {job.reason if job.is_asking else f'is {job.state}'}"
        for job in left[:NAMED]
    ]
    more = [f"{len(left) - NAMED} more jobs have not ended"] if len(left) > NAMED else []
    return ", ".join([*said, *more])


def find_unattended_queues(status: RunStatus, connection: Redis) -> list[str]:
    """Return the queues that a run's unfinished jobs use and no worker listens on."""
    left = [job.job_id for job in status.jobs.values() if job.state not in ENDED]
    queues = [job.origin for job in runs.read_job_records(left, connection).values()]
    return find_unattended(sorted(set(queues)), connection)


def _advise(status: RunStatus, connection: Redis) -> str:
    queues = find_unattended_queues(status, connection)
    if not queues:
        return ""
    return f"no worker listens on {', '.join(queues)}; {advise(queues, connection)}"


def _next_events(
    run_id: str,
    connection: Redis,
    after: str,
    wait_s: float,
    outage: Outage,
    *,
    while_away: Callable[[], object] | None = None,
) -> list[Event]:
    """Return the events after this one; tolerates a server that is temporarily unavailable."""
    wait_s = shorten_wait(wait_s, connection)
    attempts = Attempts(connection=connection, outage=outage)
    while True:
        try:
            events = list(runs.read_events(run_id, connection, after, wait_s))
            if wait_s and not events:
                tidy(connection)
                runs.get_record(run_id, connection)  # raises when it was removed
        except Exception as error:  # noqa: BLE001 - which raises what does not pass
            attempts.fail(error)
            if while_away is not None and not is_refusal(error):
                while_away()
            pause(wait_s or POLL_S, connection)
        else:
            outage.check()
            return events


def _say_nothing(text: str) -> None: ...
