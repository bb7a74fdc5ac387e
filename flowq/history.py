"""The attempts of a run's jobs, from its events: each execution that began, with its times and end.

`--json`, `flowq show`, reports and pictures read it. A live display does not: `flowq.status.fold`
keeps what it needs. Pure, like that. Executions that only judged an `if`, and those after which the
job pauses, are no attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from flowq.pauses import find_sleep
from flowq.status import (
    ENDED,
    PROGRESSED,
    REMOVED,
    Event,
    RunRecord,
    has_begun_for_nothing,
)

AttemptState = Literal[
    "started", "finished", "failed", "timed_out", "stopped", "lost", "canceled", "deleted"
]

MAX_ATTEMPTS = 20
"""How many attempts of a job are kept: the newest ones."""

WORKER_LOST = "its worker was lost"
WORKER_STOPPED = "its worker stopped"
"""The reasons of jobs that are queued again because of their worker (`lua/executions.lua`)."""

TIMEOUT = "JobTimeoutException"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a job that began.

    From `held_at` until `queued_at` it was held, by its blockers, an approval or a limit; until
    `handed_at` it waited in its queue, then until `started_at` behind other jobs of its child.
    `state` is `started` while it runs; `is_retried`: another attempt followed by itself. `error` is
    one line, with the name of the exception's class in front. Units: instants are aware UTC; older
    versions did not say all of them.
    """

    number: int
    state: AttemptState = "started"
    worker: str = ""
    queued_at: datetime | None = None
    handed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_retried: bool = False
    reason: str = ""
    error: str = ""
    exit_code: int | None = None
    held_at: datetime | None = None

    @property
    def duration_s(self) -> float | None:
        """Seconds from its start to its end; None before."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def waited_s(self) -> float | None:
        """Seconds from its queueing to its start; None where one of them is not known."""
        if self.queued_at is None or self.started_at is None:
            return None
        return max(0.0, (self.started_at - self.queued_at).total_seconds())

    @property
    def error_type(self) -> str | None:
        """The name of the exception's class; None where no exception is known."""
        name = self.error.partition(":")[0]
        return name if name.isidentifier() else None

    @property
    def error_message(self) -> str:
        """The first line of what the exception says, or of what is known instead."""
        if self.error_type is None:
            return self.error
        return self.error.partition(":")[2].strip()


@dataclass(frozen=True, slots=True)
class CodeChange:
    """A file that was another one for later jobs of a run. Units: aware UTC.

    `before` is the name of the first job that had the earlier text, `job` that of the first one
    with the later text, which ended `at` that instant.
    """

    file: str
    before: str
    job: str
    at: datetime


def read_attempts(events: Iterable[Event]) -> dict[str, tuple[Attempt, ...]]:
    """Return the attempts of each job that has some, by its name, the oldest first.

    `events` are those of a run from its beginning, in their order.
    """
    histories: dict[str, _History] = {}
    for event in events:
        if event.state == REMOVED:
            histories.pop(event.name, None)
        elif event.name:
            if (history := histories.get(event.name)) is None:
                history = histories[event.name] = _History()
            history.add(event)
    return {name: tuple(each.attempts) for name, each in histories.items() if each.attempts}


def find_run_duration(record: RunRecord, now: datetime | None = None) -> float | None:
    """Return the seconds from a run's commit to its end, or to `now`; None before.

    A retry does not change when the run began.
    """
    until = record.ended_at or (now if record.committed_at else None)
    if until is None:
        return None
    return (until - (record.committed_at or record.created_at)).total_seconds()


class _History:
    """The attempts of one job; `_pending` is the one that a worker has, or had last."""

    __slots__ = (
        *("_count", "_handed_at", "_held_at", "_is_open", "_queued_at", "_slept_at", "_worker"),
        "attempts",
    )

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._count = 0
        self._is_open = False  # the last one has begun, and not ended
        self._held_at: datetime | None = None
        self._queued_at: datetime | None = None
        self._handed_at: datetime | None = None
        self._slept_at: datetime | None = None
        self._worker = ""

    def add(self, event: Event) -> None:
        if event.state == "deferred" and self._held_at is None:
            self._held_at = event.at  # the first of several, one for each new reason
        if event.state == "handed":
            self._handed_at, self._worker = event.at, event.worker
        elif event.state in ("started", PROGRESSED):
            self._start(event)
        elif self._is_open and has_begun_for_nothing(event):
            self._forget()
        elif event.began_at is not None or self._is_open:
            self._end(event)
        if event.state in ("queued", "returned"):
            self._queued_at, self._handed_at, self._worker = event.at, None, ""
        self._slept_at = find_sleep(event.state, event.reason, event.at, self._slept_at)

    def _start(self, event: Event) -> None:
        if self._is_open:  # told again, for example because its record had run out
            return
        self._worker = event.worker or self._worker
        self._open(event.at)

    def _open(self, started_at: datetime) -> None:
        self._count += 1
        handed_at = self._handed_at or started_at
        self.attempts.append(
            Attempt(
                self._count,
                worker=self._worker,
                held_at=self._held_at,
                queued_at=self._queued_at,
                handed_at=min(handed_at, started_at),
                started_at=started_at,
            )
        )
        del self.attempts[:-MAX_ATTEMPTS]
        self._is_open = True

    def _forget(self) -> None:
        del self.attempts[-1]
        self._count -= 1
        self._is_open = False

    def _end(self, event: Event) -> None:
        if not self._is_open:  # of what was handed over with others only the end is told
            self._open(event.began_at or event.at)
        attempt = self.attempts[-1]
        started_at, ended_at = event.began_at or attempt.started_at, event.at
        if event.began_at is not None and event.took_ms is not None:
            ended_at = event.began_at + timedelta(milliseconds=event.took_ms)
        if self._slept_at is not None:  # that is what it did: what came later is not told
            attempt = replace(attempt, handed_at=self._slept_at, queued_at=None)
            started_at = self._slept_at
        self.attempts[-1] = replace(
            attempt,
            state=_state_of(event),
            started_at=started_at,
            ended_at=ended_at,
            is_retried=event.state not in ENDED,
            reason=event.reason,
            error=event.error,
            exit_code=event.exit_code,
        )
        self._is_open = False
        self._held_at = self._queued_at = self._handed_at = None


_STATE_BY_REASON: Mapping[str, AttemptState] = {WORKER_LOST: "lost", WORKER_STOPPED: "stopped"}


def _state_of(event: Event) -> AttemptState:
    if event.error.partition(":")[0] == TIMEOUT:
        return "timed_out"
    if event.state in ENDED:
        known: dict[str, AttemptState] = {
            "finished": "finished",
            "stopped": "stopped",
            "canceled": "canceled",
            "deleted": "deleted",
        }
        return known.get(event.state, "failed")
    if event.reason in _STATE_BY_REASON:
        return _STATE_BY_REASON[event.reason]
    # What returns a Retry has not failed.
    return "failed" if event.error or event.reason.startswith("attempt ") else "finished"
