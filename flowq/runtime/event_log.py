"""Reads the events of one run, or of all runs, from any position on.

`flowq.events`, `Run.events`, programs on asyncio and `flowq events` read here. Reading changes
nothing, and a run's log has all of its events as long as there is the run.

How to read is decided once, by generators of steps, which perform none of them. `read` performs
them on a connection, `read_async` on one of redis.asyncio, without threads.

All runs: each run has a log of its own, and no event is written twice. So a look merges the logs of
all runs, in the order (instant, number, run), up to an instant that has passed: nothing can be
added before that any more, so one position stands for all logs. How often it looks depends on how
long a look takes: of 10,000 runs 0.2 s.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
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
)
from flowq.runtime.runs import read_entry, read_streams
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

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

STREAMS_PER_READ = 500
"""How many logs are read by one command."""

FIRST_PAGE = 50
"""How many events of each of them; a log that has more is read further when it is its turn."""

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


# What to do next: ask the server, wait, or give events to the caller --------------------------


@dataclass(frozen=True, slots=True)
class _Ask:
    """A command, as redis-py names it; the next step gets its answer."""

    command: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


_Steps = Generator["_Ask | _Pause | list[Event]", Any, None]
_Answering = Generator["_Ask", Any, Any]


def _ask(command: str, *arguments: Any, **options: Any) -> _Answering:
    return (yield _Ask(command, arguments, options))


def _find_steps(run_id: str | None, after: Event | str | None, is_following: bool) -> _Steps:
    text = after.id if isinstance(after, Event) else after
    position = None if text == NOW else Position.read(BEGINNING if text is None else text)
    if run_id is None:
        return _read_all(position, is_following)
    return _read_run(run_id, position, is_following)


# One run --------------------------------------------------------------------------------------


def _read_run(run_id: str, position: Position | None, is_following: bool) -> _Steps:
    """Give the events of a run; a follower goes on until the run has ended."""
    yield from _get_state(run_id, "")
    key, is_last_look, wait_ms = keys.run_events(run_id), False, None
    after = (yield from _find_end(key)) if position is None else position.within(run_id)
    while True:
        answer = yield from _ask("xread", {key: after}, count=PAGE, block=wait_ms)
        entries = [read_entry(*each) for _, some in read_streams(answer) for each in some]
        if entries:
            after, is_last_look = entries[-1].id, False
            states = [each.state for each in entries if not each.name]
            # At its end there is nothing to wait for, unless it was retried meanwhile.
            has_ended = not is_following or (states and states[-1] in RUN_ENDED)
            wait_ms = None if has_ended else int(POLL_S * 1000)
            yield [event.read_entry(run_id, each) for each in entries]
            continue
        state = yield from _get_state(run_id, "it was removed while its events were read")
        if is_last_look or not is_following:
            return
        is_last_look = state in RUN_ENDED  # and its last event is there, or was given
        wait_ms = None if is_last_look else int(POLL_S * 1000)


def _get_state(run_id: str, hint: str) -> _Answering:
    state = yield from _ask("hget", keys.run(run_id), "state")
    if not state or as_text(state) == "purging":
        raise RunNotFound(run_id, hint)
    return as_text(state)


def _find_end(key: str) -> _Answering:
    newest = yield from _ask("xrevrange", key, count=1)
    return as_text(newest[0][0]) if newest else BEGINNING


# All runs -------------------------------------------------------------------------------------


def _read_all(position: Position | None, is_following: bool) -> _Steps:
    """Give the events of all runs; a follower goes on until it is closed."""
    position = position or Position((yield from _read_clock()), _LAST)
    if not is_following:  # so that what is there now has settled
        yield _Pause(SETTLED_MS / 1000)
    while True:
        began_at = time.monotonic()
        until_ms = (yield from _read_clock()) - SETTLED_MS
        runs = yield from _ask("zrange", keys.RUNS, 0, -1, withscores=True)
        submitted_ms = {as_text(run_id): float(score) * 1000 for run_id, score in runs}
        yield from _merge(submitted_ms, position, until_ms)
        if not is_following:
            return
        position = max(position, Position(until_ms, _LAST))
        yield _Pause(max(POLL_S, REST * (time.monotonic() - began_at)))


def _read_clock() -> _Answering:
    seconds, microseconds = yield from _ask("time")
    return int(seconds) * 1000 + int(microseconds) // 1000


def _merge(submitted_ms: Mapping[str, float], position: Position, until_ms: int) -> _Steps:
    """Give the events of these runs behind the position, up to that instant, in their order.

    A run's log is opened when the first event that it can have is next, so the number of events in
    memory does not grow with those of all runs.
    """
    unopened = deque(sorted(submitted_ms, key=submitted_ms.__getitem__))
    logs: dict[str, _Log] = {}
    heads: list[Position] = []
    page: list[Event] = []

    def fill(after_by_run: Mapping[str, str], count: int) -> _Answering:
        run_by_key = {keys.run_events(run_id): run_id for run_id in after_by_run}
        after_by_key = {key: after_by_run[run_id] for key, run_id in run_by_key.items()}
        answer = yield from _ask("xread", after_by_key, count=count)
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
            yield from fill({run_id: position.within(run_id) for run_id in some}, FIRST_PAGE)
        if not heads:
            continue
        run_id = heappop(heads).run_id
        log = logs.pop(run_id)
        entry = log.entries.popleft()
        page.append(event.read_entry(run_id, entry, f"{entry.id}@{run_id}"))
        if log.entries:
            logs[run_id] = log
            heappush(heads, _position_of(log.entries[0], run_id))
        elif log.has_more:
            count = max(FIRST_PAGE, PAGE // (len(logs) + 1))
            yield from fill({run_id: entry.id}, count)
        if len(page) >= PAGE:
            yield page
            page = []
    if page:
        yield page


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


# Taking the steps -----------------------------------------------------------------------------


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
    on behind the last event. `while_away` is called meanwhile, and may restart the server; `outage`
    is told of it. Blocks.

    Errors: UsageError for a position, at once; RunNotFound, also if the run is removed meanwhile;
    redis-py's if the server is away for longer.
    """
    return _take(_find_steps(run_id, after, is_following), connection, while_away, outage)


def _take(
    steps: _Steps,
    connection: Redis,
    while_away: Callable[[], object] | None,
    outage: Outage | None,
) -> Iterator[Event]:
    answer = None
    while (step := _next(steps, answer)) is not None:
        answer = None
        if isinstance(step, list):
            yield from step
        elif isinstance(step, _Pause):
            time.sleep(step.seconds)
        else:
            answer = _do(step, connection, while_away, outage)


def _next(steps: _Steps, answer: Any) -> _Ask | _Pause | list[Event] | None:
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def _do(
    step: _Ask,
    connection: Redis,
    while_away: Callable[[], object] | None,
    outage: Outage | None,
) -> Any:
    attempts, pause_s = Attempts(connection=connection, outage=outage), PAUSE_S
    while True:
        try:
            answer = getattr(connection, step.command)(*step.arguments, **step.options)
        except Exception as error:  # noqa: BLE001 - which raises what does not pass
            attempts.fail(error)
            if while_away is not None and not is_refusal(error):
                while_away()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if outage is not None:
                outage.check()
            return answer


def read_async(
    run_id: str | None,
    connection: AsyncRedis,
    *,
    after: Event | str | None = None,
    is_following: bool = False,
) -> AsyncIterator[Event]:
    """Do what `read` does on a connection of redis.asyncio, without threads."""
    return _take_async(_find_steps(run_id, after, is_following), connection)


async def _take_async(steps: _Steps, connection: AsyncRedis) -> AsyncIterator[Event]:
    answer = None
    while (step := _next(steps, answer)) is not None:
        answer = None
        if isinstance(step, list):
            for each in step:
                yield each
        elif isinstance(step, _Pause):
            await asyncio.sleep(step.seconds)
        else:
            answer = await _do_async(step, connection)


async def _do_async(step: _Ask, connection: AsyncRedis) -> Any:
    attempts, pause_s = Attempts(), PAUSE_S
    while True:
        try:
            return await getattr(connection, step.command)(*step.arguments, **step.options)
        except Exception as error:  # noqa: BLE001 - which raises what does not pass
            attempts.fail(error)
            await connection.connection_pool.disconnect(inuse_connections=False)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
