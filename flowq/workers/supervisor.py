"""The supervisor: the one process of a worker that talks to Redis, and never runs user code.

Each iteration of the loop waits for children, Redis and signals; then one script call (turns.py)
reports the ended jobs and claims as many jobs as the children can take.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from redis.exceptions import RedisError

from flowq.runtime.connections import describe, is_refusal
from flowq.workers.children import Child
from flowq.workers.claims import Claim
from flowq.workers.monitor import LOOK_S, Monitor
from flowq.workers.periodic import PeriodicWork
from flowq.workers.redis_side import RedisSide
from flowq.workers.turns import Turns
from flowq.workers.wakeup import Wakeup

TICK_S = 0.1
POLL_S = 0.01
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0

GIVE_UP_S = 60.0
"""How long a worker with an `until` function waits for a server that is gone."""

LAST_TRY_S = 10.0
"""The same for a worker that was told to stop, once its jobs have ended."""

NAMED = 20
"""How many lost jobs the last log message names."""

LAST_ANSWER_S = 2.0
"""How long an ending worker waits for the answer to its last turn."""

STOPS = (
    "stopping when the running jobs have ended; Ctrl-C or SIGTERM again puts them back",
    "stopping now: the running jobs go back to their queues",
)
"""What the log says about the first and the second request to stop, while jobs are running."""

UNREACHABLE = (RedisError, OSError)

log = logging.getLogger("rq.worker")


@dataclass(frozen=True)
class Limits:
    """When a worker ends by itself; None and False for no limit. `until` is asked between jobs."""

    burst: bool = False
    max_jobs: int | None = None
    max_idle_s: float | None = None
    until: Callable[[], bool] | None = None

    def are_reached(
        self, *, done: int, has_nothing_left: bool, idle_s: float, is_healing: Callable[[], bool]
    ) -> bool:
        """Whether an idle worker should end now. Does not consider `until`.

        A burst worker first recovers the jobs of lost workers and does the maintenance to which
        its last jobs have led: `is_healing` tells whether there may be any.
        """
        if self.burst and (has_nothing_left or self.max_jobs == 0) and is_healing():
            return False
        if self.max_jobs is not None and done >= self.max_jobs:
            return True
        if self.burst and has_nothing_left:
            return True
        return self.max_idle_s is not None and idle_s >= self.max_idle_s


class Supervisor:
    """Runs the jobs of one worker until it is told to stop."""

    def __init__(
        self,
        redis_side: RedisSide,
        monitor: Monitor,
        wakeup: Wakeup,
        periodic: PeriodicWork,
        limits: Limits,
        *,
        on_reconnect: Callable[[], None],
    ) -> None:
        self.redis_side = redis_side
        self.pool = monitor.pool
        self.monitor = monitor
        self.wakeup = wakeup
        self.periodic = periodic
        self.limits = limits
        self.turns = Turns(redis_side, self.pool, monitor, wakeup, limits.max_jobs)
        self.has_left = False
        self.has_reached_limit = False
        self._on_reconnect = on_reconnect
        self._is_stopping = False
        self._is_forced = False
        self._has_noted_stop = False
        self._told_stops = 0
        self._idle_since = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._offline_until = self._offline_since = self._last_try_since = 0.0
        self._is_offline = False
        self._outage = wakeup.outage
        self._waiter = Waiter()
        self._woken, self._wake = socket.socketpair()
        for each in (self._woken, self._wake):
            each.setblocking(False)

    # From signal handlers ------------------------------------------------------------------------

    @property
    def wake_descriptor(self) -> int:
        """The descriptor to which signals write, so that the wait ends (`signal.set_wakeup_fd`)."""
        return self._wake.fileno()

    def stop(self) -> None:
        """Finish the running jobs, then end. A second call puts running jobs back and ends now.

        May be called from a signal handler: it only sets flags, and the loop tells Redis.
        """
        if self._is_stopping:
            self._is_forced = True
        self._is_stopping = True
        self.turns.close()

    # The loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until there is a reason to end."""
        self.pool.fill()
        try:
            while not self._has_reason_to_end():
                self._round()
                self._tell_stops()
        finally:
            self._end()

    def _tell_stops(self) -> None:
        """Log what `stop` has begun; it cannot: a signal may interrupt the writing of a record."""
        stops, is_busy = self._is_stopping + self._is_forced, self.pool.is_busy
        if stops > self._told_stops:
            log.info("%s", STOPS[stops - 1] if is_busy else "stopping")
        self._told_stops = stops

    def _has_reason_to_end(self) -> bool:
        if self._is_forced or self._has_waited_in_vain():
            return True
        if self.pool.is_busy or self.turns.has_unconfirmed_ends or self.pool.has_chores:
            self._idle_since = time.monotonic()
            return False
        if self._is_stopping:
            return True
        has_nothing_left = self.turns.are_queues_empty or self.turns.is_suspended
        idle_s = time.monotonic() - self._idle_since
        if self.limits.are_reached(
            done=self.turns.done,
            has_nothing_left=has_nothing_left,
            idle_s=idle_s,
            is_healing=self._is_healing,
        ):
            self.has_reached_limit = True
            return True
        until = self.limits.until
        return until is not None and not self._is_offline and self._is_over(until)

    def _is_over(self, until: Callable[[], bool]) -> bool:
        try:
            return until()
        except UNREACHABLE as error:
            self._go_offline(error)
            return False

    def _is_healing(self) -> bool:
        if self._is_offline:
            return False
        try:
            is_healing = self.periodic.is_healing(self.turns.done)
        except UNREACHABLE as error:
            self._go_offline(error)
            return True
        if self.periodic.take_queued():
            self.turns.expect_jobs()
            is_healing = is_healing or self.limits.max_jobs != 0
        return is_healing

    def _has_waited_in_vain(self) -> bool:
        if not self._is_offline:
            return False
        now = time.monotonic()
        if self.limits.until is not None and now - self._offline_since > GIVE_UP_S:
            return True
        if not self._is_stopping or any(child.claims for child in self.pool.children):
            self._last_try_since = now
        return now - max(self._last_try_since, self._offline_since) > LAST_TRY_S

    def _round(self) -> None:
        self._listen(self._wait_s())
        if self.monitor.look():
            self.periodic.hurry()
        if self._is_offline and time.monotonic() < self._offline_until:
            return
        try:
            if self._is_offline:
                self._come_back()
            self.wakeup.open()
            if self._is_stopping and not self._has_noted_stop:
                self.redis_side.note_stop()
                self._has_noted_stop = True
            self.periodic.do_due()
            self.turns.go_on()
            if self.pool.can_rest and self.turns.needs_children():
                self.pool.wake()
            elif self.pool.can_rest:
                self.pool.rest()
            self._pause_s = FIRST_PAUSE_S
            if not self.turns.is_under_way:
                self._outage.check()
        except UNREACHABLE as error:
            self._go_offline(error)

    def _wait_s(self) -> float:
        if self.turns.is_under_way:
            return 0.0 if self.turns.is_answered else LOOK_S
        now = time.monotonic()
        if self._is_offline and now < self._offline_until:
            return self._offline_until - now
        if self.pool.unassigned:
            return 0.0
        until_periodic_s = self.periodic.due_at - now
        return max(0.0, min(self.turns.due_in_s(), until_periodic_s, self._look_after_s()))

    def _look_after_s(self) -> float:
        """Return the longest time to wait before the next round."""
        if any(claim.is_light for child in self.pool.children for claim in child.claims.values()):
            return LOOK_S
        if self.turns.wants_claims() and not self.wakeup.can_notify:
            return POLL_S
        is_soon = self.pool.is_busy or self.pool.lacks_children or self.limits.until
        return TICK_S if is_soon else 1.0

    def _listen(self, wait_s: float) -> None:
        child_by_channel: dict[Any, Child] = {child.channel: child for child in self.pool.children}
        sources: list[Any] = [*child_by_channel, self._woken]
        answer, is_answered = self.redis_side.socket, self.turns.is_answered
        sources += [each for each in (self.wakeup.socket, answer) if each is not None]
        for ready in self._waiter.wait(sources, wait_s):
            if ready in child_by_channel:
                if not ready.closed:
                    self.pool.receive(child_by_channel[ready])
            elif ready is self._woken:
                self._woken.recv(4096)
            else:
                self._try(self.turns.receive if ready is answer else self._obey)
        if is_answered:
            self._try(self.turns.receive_next)

    def _try(self, listen: Callable[[], None]) -> None:
        try:
            listen()
        except UNREACHABLE as error:
            self._go_offline(error)

    def _obey(self) -> None:
        for command in self.wakeup.listen():
            if command.get("command") == "shutdown":
                self.stop()
            else:
                self.monitor.obey(command)

    # Outages, and the end ------------------------------------------------------------------------

    def _go_offline(self, error: Exception) -> None:
        self._outage.meet(error)
        if is_refusal(error):
            self.periodic.note_refusal()
        if not self._is_offline:
            self._offline_since = time.monotonic()
        self._is_offline = True
        self._offline_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.wakeup.close()
        self.turns.forget()

    def _come_back(self) -> None:
        self.turns.report_ends()  # first: otherwise other workers may start these jobs again
        self._on_reconnect()
        self.periodic.hurry()
        self._is_offline = False
        self.turns.expect_jobs()

    def _end(self) -> None:
        """Put unfinished jobs back and unregister. Other workers recover the jobs that stay."""
        self._tell_stops()
        while self.turns.is_under_way and (
            self.turns.is_answered or self._waiter.wait([self.redis_side.socket], LAST_ANSWER_S)
        ):
            self._try(self.turns.receive)
        if not self.turns.is_under_way:
            self._try(self.turns.report_ends)
        left, begun = self.pool.close()
        ended = self.turns.list_pending()
        left += ended
        begun |= {claim.execution_id for claim in ended}
        try:
            self.redis_side.keep_printed([claim for claim in left if claim.has_news])
            self.redis_side.put_back(left, begun)
            # A turn may have claimed jobs and its answer did not arrive in time.
            self.redis_side.return_unknown(self.redis_side.find_unknown(left))
            self.redis_side.leave()
            self.has_left = True
        except UNREACHABLE as error:
            log.error("cannot sign off from the server: %s%s", describe(error), _name_lost(left))
        self.redis_side.disconnect()
        self.wakeup.close()
        self._woken.close()
        self._wake.close()


def _name_lost(left: Sequence[Claim]) -> str:
    """Return what the log says about jobs that could be neither ended nor put back."""
    if not left:
        return ""
    names = ", ".join(claim.job_id for claim in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"; other workers will find these jobs and start them again: {names}{more}"


# Waiting -----------------------------------------------------------------------------------------


class Waiter:
    """Waits for channels and sockets, by `poll` or else (Windows) by multiprocessing's `wait`."""

    def __init__(self) -> None:
        self._sources: list[Any] = []
        self._source_by_descriptor: dict[int, Any] = {}
        self._poll: Any = None

    def wait(self, sources: Sequence[Any], wait_s: float) -> list[Any]:
        """Return the sources that can be read, or were closed. Blocks: up to `wait_s`."""
        if not hasattr(select, "poll"):
            return wait(sources, wait_s)
        if self._sources != sources:
            self._register(sources)
        # Rounded up to milliseconds: rounding down would poll without a pause at the end.
        ready = self._poll.poll(max(0, -int(-wait_s * 1000 // 1)))
        return [self._source_by_descriptor[descriptor] for descriptor, _ in ready]

    def _register(self, sources: Sequence[Any]) -> None:
        self._poll = select.poll()
        self._sources = list(sources)
        self._source_by_descriptor = {source.fileno(): source for source in sources}
        for descriptor in self._source_by_descriptor:
            self._poll.register(descriptor, select.POLLIN)
