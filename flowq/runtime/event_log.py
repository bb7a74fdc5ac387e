"""Reads the events of one run, or of all runs, from any position on.

`flowq.events`, `Run.events`, programs on asyncio and `flowq events` read here. Reading changes
nothing, and a run's log has all of its events as long as there is the run.

All runs: each run has a log of its own, and no event is written twice. So a look merges the logs of
all runs, in the order (instant, number, run), up to an instant that has passed: nothing can be
added before that any more, so one position stands for all logs. How often it looks depends on how
long a look takes: of 10,000 runs 0.2 s.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq import event, status
from flowq.errors import RunNotFound, UsageError
from flowq.event import Event
from flowq.runtime import keys
from flowq.runtime.connections import (
    LONGEST_PAUSE_S,
    PAUSE_S,
    Attempts,
    Outage,
    is_refusal,
    pause,
    shorten_wait,
)
from flowq.runtime.runs import read_entry, read_streams
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis

BEGINNING = "0"
NOW = "now"
"""As a position: only what happens from now on."""

PAGE = 1_000
"""How many events are read at a time, of one run."""

POLL_S = 0.5
"""How long a reader waits for events before it looks whether the run is still there."""

SETTLED_MS = 100
"""How old an event is before a reader of all runs gets it. Later ones have later instants, also
after a fail-over to a server whose clock is up to so much behind."""

REST = 20
"""A reader of all runs pauses so many times as long as its last look took."""

LONGEST_REST_S = 5.0

STREAMS_PER_READ = 500
"""How many logs are read by one command."""

FIRST_PAGE = 50
"""How many events of each of them at most; more are read when it is the turn of the last one."""

MOST_KEPT = 50_000
"""About how many events of all runs are in memory at most. The logs share that."""

_CLOCK_MS = 60_000
"""How much a server's clock may have been set back between the submission of a run and its
events."""

_LAST = 2**64 - 1
_AFTER_ALL_RUNS = "\U0010ffff"

_POSITION = re.compile(r"(\d{1,19})(?:-(\d{1,20}))?(?:@([A-Za-z0-9_-]+))?")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the events of all runs, behind one of them. Without a run, it is behind those of
    all runs that have this id."""

    ms: int
    number: int
    run_id: str = _AFTER_ALL_RUNS

    @classmethod
    def read(cls, text: str) -> Position:
        """Return the position that an event's id is. Errors: UsageError."""
        found = _POSITION.fullmatch(text)
        if found is None or int(found[2] or 0) > _LAST:
            raise UsageError(
                f"{text!r} is no position: give the id of an event as it was read, such as "
                f"1764424800000-0, or {BEGINNING} for the beginning, or {NOW}"
            )
        return cls(int(found[1]), int(found[2] or 0), found[3] or _AFTER_ALL_RUNS)

    def within(self, run_id: str) -> str:
        """Return the id in a run's log behind which its events come after this position."""
        if run_id <= self.run_id:
            return f"{self.ms}-{self.number}"
        if self.number:
            return f"{self.ms}-{self.number - 1}"
        return f"{self.ms - 1}-{_LAST}" if self.ms else "0"


# Asking the server ----------------------------------------------------------------------------


class _Server:
    """Answers commands that only read, and is waited for while it cannot be used."""

    def __init__(
        self,
        connection: Redis,
        while_away: Callable[[], object] | None,
        outage: Outage | None,
    ) -> None:
        self._connection = connection
        self._while_away = while_away
        self._outage = outage

    def ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        """Return the answer to a command, which redis-py has a method for."""
        attempts, pause_s = Attempts(connection=self._connection, outage=self._outage), PAUSE_S
        while True:
            try:
                answer = getattr(self._connection, command)(*arguments, **options)
            except Exception as error:  # noqa: BLE001 - which raises what does not pass
                attempts.fail(error)
                if self._while_away is not None and not is_refusal(error):
                    self._while_away()
                self.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                if self._outage is not None:
                    self._outage.check()
                return answer

    def wait(self, seconds: float) -> None:
        """Do nothing for so long."""
        pause(seconds, self._connection)

    def read_poll_ms(self) -> int:
        """Return how long a read may wait for events."""
        return max(1, int(shorten_wait(POLL_S, self._connection) * 1000))

    def read_clock_ms(self) -> int:
        """Return the server's clock."""
        seconds, microseconds = self.ask("time")
        return int(seconds) * 1000 + int(microseconds) // 1000


# One run --------------------------------------------------------------------------------------


def _read_run(
    server: _Server, run_id: str, position: Position | None, is_following: bool
) -> Iterator[Event]:
    """Give the events of a run; a follower goes on until the run has ended."""
    _get_state(server, run_id, "")
    key, is_last_look, wait_ms = keys.run_events(run_id), False, None
    after = _find_end(server, key) if position is None else position.within(run_id)
    while True:
        answer = server.ask("xread", {key: after}, count=PAGE, block=wait_ms)
        entries = [read_entry(*each) for _, some in read_streams(answer) for each in some]
        if entries:
            after, is_last_look = entries[-1].id, False
            states = [each.state for each in entries if not each.name]
            # At its end there is nothing to wait for, unless it was retried meanwhile.
            has_ended = not is_following or (states and states[-1] in RUN_ENDED)
            wait_ms = None if has_ended else server.read_poll_ms()
            yield from (event.read_entry(run_id, each) for each in entries)
            continue
        state = _get_state(server, run_id, "it was removed while its events were read")
        if is_last_look or not is_following:
            return
        is_last_look = state in RUN_ENDED  # and its last event is there, or was given
        wait_ms = None if is_last_look else server.read_poll_ms()


def _get_state(server: _Server, run_id: str, hint: str) -> str:
    state = server.ask("hget", keys.run(run_id), "state")
    if not state or as_text(state) == "purging":
        raise RunNotFound(run_id, hint)
    return as_text(state)


def _find_end(server: _Server, key: str) -> str:
    newest = server.ask("xrevrange", key, count=1)
    return as_text(newest[0][0]) if newest else BEGINNING


# All runs -------------------------------------------------------------------------------------


def _read_all(server: _Server, position: Position | None, is_following: bool) -> Iterator[Event]:
    """Give the events of all runs; a follower goes on until it is closed."""
    position = position or Position(server.read_clock_ms(), _LAST)
    if not is_following:  # so that what is there now has settled
        server.wait(SETTLED_MS / 1000)
    while True:
        began_at = time.monotonic()
        until_ms = server.read_clock_ms() - SETTLED_MS
        runs = server.ask("zrange", keys.RUNS, 0, -1, withscores=True)
        submitted_ms = {as_text(run_id): float(score) * 1000 for run_id, score in runs}
        yield from _merge(server, submitted_ms, position, until_ms)
        if not is_following:
            return
        position = max(position, Position(until_ms, _LAST))
        look_s = time.monotonic() - began_at  # and what the caller did with the events
        server.wait(min(max(POLL_S, REST * look_s), LONGEST_REST_S))


def _merge(
    server: _Server, submitted_ms: Mapping[str, float], position: Position, until_ms: int
) -> Iterator[Event]:
    """Give the events of these runs behind the position, up to that instant, in their order.

    A run's log is opened when the first event that it can have is next, and the more runs there are
    the fewer events of each are read at a time, so memory does not grow with the number of events,
    and above `MOST_KEPT` by one event for each run at most.
    """
    share = max(1, min(FIRST_PAGE, MOST_KEPT // max(1, len(submitted_ms))))
    unopened = deque(sorted(submitted_ms, key=submitted_ms.__getitem__))
    logs: dict[str, _Log] = {}
    heads: list[Position] = []

    def fill(after_by_run: Mapping[str, str], count: int) -> None:
        run_by_key = {keys.run_events(run_id): run_id for run_id in after_by_run}
        after_by_key = {key: after_by_run[run_id] for key, run_id in run_by_key.items()}
        answer = server.ask("xread", after_by_key, count=count)
        for key, raw in read_streams(answer):
            entries = [read_entry(*each) for each in raw]
            settled = deque(each for each in entries if _find_ms(each) <= until_ms)
            has_more = len(settled) == count
            if settled:
                run_id = run_by_key[key]
                logs[run_id] = _Log(settled, has_more)
                heappush(heads, _position_of(settled[0], run_id))

    while unopened or heads:
        while unopened and (not heads or submitted_ms[unopened[0]] - _CLOCK_MS <= heads[0].ms):
            some = [unopened.popleft() for _ in range(min(len(unopened), STREAMS_PER_READ))]
            fill({run_id: position.within(run_id) for run_id in some}, share)
        if not heads:
            continue
        run_id = heappop(heads).run_id
        log = logs.pop(run_id)
        entry = log.entries.popleft()
        yield event.read_entry(run_id, entry, f"{entry.id}@{run_id}")
        if log.entries:
            logs[run_id] = log
            heappush(heads, _position_of(log.entries[0], run_id))
        elif log.has_more:
            count = max(share, min(PAGE, MOST_KEPT) // (len(logs) + 1))
            fill({run_id: entry.id}, count)


@dataclass(frozen=True, slots=True)
class _Log:
    """What was read of a run's log and not given yet; `has_more`: the log goes on behind it."""

    entries: deque[status.Event]
    has_more: bool


def _find_ms(entry: status.Event) -> int:
    return int(entry.id.partition("-")[0])


def _position_of(entry: status.Event, run_id: str) -> Position:
    ms, _, number = entry.id.partition("-")
    return Position(int(ms), int(number), run_id)


# Both -----------------------------------------------------------------------------------------


def read(
    run_id: str | None,
    connection: Redis,
    *,
    after: Event | str | None = None,
    is_following: bool = False,
    while_away: Callable[[], object] | None = None,
    outage: Outage | None = None,
) -> Iterator[Event]:
    """Yield the events of a run, or of all runs, behind a position, the oldest first.

    Each event is given once. A follower of a run ends after the run's last event, one of all runs
    does not end. While the server cannot be used, this waits for it, up to `MAX_WAIT_S`, and goes
    on behind the last event. Meanwhile it calls `while_away`, which may restart the server, and
    reports to `outage`. Blocks.

    Errors: UsageError for a position, at once; RunNotFound, also if the run is removed meanwhile;
    redis-py's if the server is away for longer.
    """
    text = after.id if isinstance(after, Event) else after
    position = None if text == NOW else Position.read(BEGINNING if text is None else text)
    server = _Server(connection, while_away, outage)
    if run_id is None:
        return _read_all(server, position, is_following)
    return _read_run(server, run_id, position, is_following)
