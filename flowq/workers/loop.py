"""The supervisor: the one process of a worker that talks to Redis, and never runs user code.

Every round of the loop waits for the children, for Redis and for signals; then one script call ends
what has ended and claims what the children can take. Whatever Redis does not answer is kept and
said again when it is back.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from flowq.workers.claims import Claim, End
from flowq.workers.crew import Crew
from flowq.workers.doorbell import Doorbell
from flowq.workers.hire import Child
from flowq.workers.ledger import Ledger
from flowq.workers.limits import Limits
from flowq.workers.oversight import LOOK_S, Oversight, complete, needs_long_way
from flowq.workers.pace import BATCH_S
from flowq.workers.upkeep import Upkeep
from flowq.workers.waiter import Waiter

BATCH_LIMIT = 64
TICK_S = 0.1
POLL_S = 0.01
HOLD_S = 0.003
"""How long an end may wait for others while every child has something to do."""

ENDS_LIMIT = 64
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
MAX_CONCLUSIONS = 3
LATER_S = 0.5

GIVE_UP_S = 60.0
"""How long a worker with an end of its own (`until`) waits for a server that is gone."""

UNREACHABLE = (RedisError, OSError)

log = logging.getLogger("rq.worker")


class Supervisor:
    """Runs the jobs of one worker until it is told to stop."""

    def __init__(
        self,
        ledger: Ledger,
        oversight: Oversight,
        doorbell: Doorbell,
        upkeep: Upkeep,
        limits: Limits,
    ) -> None:
        self.ledger = ledger
        self.oversight = oversight
        self.crew: Crew = oversight.crew
        self.doorbell = doorbell
        self.upkeep = upkeep
        self.limits = limits
        self.done = 0
        self.has_left = False
        self.on_reconnect: Callable[[], None] = lambda: None
        self._claimed = 0
        self._is_stopping = False
        self._is_forced = False
        self._told_stop = False
        self._is_dry = False
        self._suspended_until = 0.0
        self._rare: list[tuple[Claim, End]] = []
        self._rare_after = 0.0
        self._ends_since: float | None = None
        self._idle_since = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._offline_until = self._offline_since = 0.0
        self._is_offline = False
        self._waiter = Waiter()
        self._bell, self._wake = socket.socketpair()
        for each in (self._bell, self._wake):
            each.setblocking(False)

    # From signal handlers ------------------------------------------------------------------------

    @property
    def wake_descriptor(self) -> int:
        """Where signals write to end the wait (`signal.set_wakeup_fd`)."""
        return self._wake.fileno()

    def stop(self) -> None:
        """Finish what runs, then end; the second call puts back what runs, and ends now.

        Also from a signal handler: it sets two flags, and Redis is told later.
        """
        if self._is_stopping:
            self._is_forced = True
        self._is_stopping = True

    # The loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until there is a reason to end."""
        self.crew.fill()
        try:
            while not self._has_reason_to_end():
                self._round()
        finally:
            self._end()

    def _has_reason_to_end(self) -> bool:
        if self._is_forced or self._has_waited_in_vain():
            return True
        if self._is_busy() or self.crew.is_on_errands:
            self._idle_since = time.monotonic()
            return False
        if self._is_stopping:
            return True
        has_nothing_left = self._is_dry or bool(self._suspended_until)
        idle_s = time.monotonic() - self._idle_since
        if self.limits.are_reached(
            done=self.done, has_nothing_left=has_nothing_left, idle_s=idle_s
        ):
            return True
        until = self.limits.until
        return until is not None and not self._is_offline and self._is_over(until)

    def _is_over(self, until: Callable[[], bool]) -> bool:
        try:
            return until()
        except UNREACHABLE as error:
            self._go_offline(error)
            return False

    def _has_waited_in_vain(self) -> bool:
        gone_s = time.monotonic() - self._offline_since if self._is_offline else 0.0
        return gone_s > GIVE_UP_S and self.limits.until is not None

    def _round(self) -> None:
        self._listen(self._wait_s())
        if self.oversight.look():
            self.upkeep.hurry()
        if time.monotonic() < self._offline_until:
            return
        try:
            if self._is_offline:
                self._come_back()
            self.doorbell.open()
            if self._is_stopping and not self._told_stop:
                self.ledger.tell_stop()
                self._told_stop = True
            self.upkeep.do_due()
            self._turn_if_needed()
            self._pause_s = FIRST_PAUSE_S
        except UNREACHABLE as error:
            self._go_offline(error)

    def _wait_s(self) -> float:
        now = time.monotonic()
        if now < self._offline_until:
            return self._offline_until - now
        if self.crew.orphans or (self._wants_claims() and self._may_find()):
            return 0.0
        if self.crew.ends:
            return 0.0 if self._is_time_for_turn() else HOLD_S
        if any(claim.is_light for child in self.crew.children for claim in child.claims.values()):
            return LOOK_S
        if self._wants_claims() and not self.doorbell.can_ring:
            return POLL_S
        until_due_s = max(self.upkeep.due_at - now, 0.0)
        if not self._is_dry:
            expectant, lead_s = self.oversight.find_expectant()
            if expectant:
                return 0.0
            until_due_s = min(until_due_s, lead_s or until_due_s)
        return min(until_due_s, TICK_S if self.crew.is_busy or self.limits.until else 1.0)

    def _listen(self, wait_s: float) -> None:
        child_by_channel: dict[Any, Child] = {child.channel: child for child in self.crew.children}
        sources: list[Any] = [*child_by_channel, self._bell]
        if self.doorbell.socket is not None:
            sources.append(self.doorbell.socket)
        for ready in self._waiter.wait(sources, wait_s):
            if ready in child_by_channel:
                if not ready.closed:
                    self.crew.receive(child_by_channel[ready])
            elif ready is self._bell:
                self._bell.recv(4096)
            else:
                self._hear()

    def _hear(self) -> None:
        try:
            for command in self.doorbell.listen():
                if command.get("command") == "shutdown":
                    self.stop()
                else:
                    self.oversight.obey(command)
        except UNREACHABLE as error:
            self._go_offline(error)

    def _is_busy(self) -> bool:
        return bool(self.crew.is_busy or self._rare or self.crew.ends or self.upkeep.failing)

    def _known(self) -> list[Claim]:
        """Everything that we have claimed and not ended."""
        pending = [*self._rare, *self.crew.ends, *self.upkeep.failing]
        return [*self.crew.held, *(claim for claim, _ in pending)]

    # Turns ---------------------------------------------------------------------------------------

    def _can_claim(self) -> bool:
        if self._is_stopping or self._rare or time.monotonic() < self._suspended_until:
            return False
        return self._jobs_left() > 0

    def _wants_claims(self) -> bool:
        return self._can_claim() and bool(self.crew.idle)

    def _may_find(self) -> bool:
        return not self._is_dry or self.doorbell.has_rung

    def _jobs_left(self) -> int:
        if self.limits.max_jobs is None:
            return BATCH_LIMIT * self.crew.size
        return max(0, self.limits.max_jobs - self._claimed)

    def _turn_if_needed(self) -> None:
        self._place_orphans()
        self._conclude_rare()
        self.crew.do_chores()
        if self._is_time_for_turn():
            ends = self._sort_ends()
            self._conclude_rare()
            # An end may queue what it held back, so with ends there is always a look.
            if ends or self._may_find():
                self._turn(ends)
        if self._is_dry and self.crew.idle and len(self.crew.children) > 1:
            self.oversight.rebalance()
        if self._is_dry and self._wants_claims() and not self.doorbell.is_armed:
            self._is_dry = self.doorbell.arm()

    def _is_time_for_turn(self) -> bool:
        """Whether some child needs something; until then ends are collected for a moment."""
        if self.upkeep.failing or (self._wants_claims() and self._may_find()):
            return True
        if not self._is_dry and self._can_claim() and self.oversight.find_expectant()[0]:
            return True
        if not self.crew.ends:
            self._ends_since = None
            return False
        if self._ends_since is None:
            self._ends_since = time.monotonic()
        if self.crew.idle or self.crew.find_hungry() or len(self.crew.ends) >= ENDS_LIMIT:
            return True
        return time.monotonic() - self._ends_since > HOLD_S

    def _sort_ends(self) -> list[tuple[Claim, End]]:
        """Return the ends that our script writes; the others go their ways."""
        ends = []
        self._rare += self.upkeep.failing
        self.upkeep.failing.clear()
        while self.crew.ends:
            claim, end = self.crew.ends.popleft()
            if end.how in ("done", "lost"):
                self._count(claim, end)
                self._is_dry = False  # RQ's code may have queued something
            elif end.how == "later":
                claim.tries = 0
                self._rare.append((claim, end._replace(how="long")))
                self._rare_after = time.monotonic() + LATER_S
            elif end.how == "long" or (end.how == "died" and needs_long_way(claim, end)):
                self._rare.append((claim, end._replace(how="long")))
            elif end.how == "died":
                ends.append((claim, complete(claim, end)))
            else:
                ends.append((claim, end))
        return ends

    def _conclude_rare(self) -> None:
        if time.monotonic() < self._rare_after:
            return
        for claim, end in list(self._rare):
            claim.end = end
            if claim.tries >= MAX_CONCLUSIONS:
                log.error("job %s cannot be ended as RQ would; it is ended without", claim.job_id)
                with suppress(ResponseError):  # then it stays in WIP, and RQ finds it abandoned
                    self.ledger.force_end(claim)
                self._count(claim, end)
            elif not self.crew.conclude(claim, end):
                continue
            self._rare.remove((claim, end))

    def _turn(self, ends: list[tuple[Claim, End]]) -> None:
        self._ends_since = None
        expectant = self.oversight.find_expectant()[0]
        idle = len(self.crew.idle) + len(expectant)
        slots = idle + len(self.crew.find_hungry()) if self._can_claim() else 0
        costs = self.oversight.pace.cost_by_kind() if self.crew.mode != "fork" else {}
        limit = min(BATCH_LIMIT * slots, self._jobs_left())
        if self.ledger.strategy != "default":
            limit = min(limit, 1)  # the next one is another queue's turn
        try:
            turn = self.ledger.turn(
                ends, slots=slots, idle=idle, limit=limit, budget_s=BATCH_S, cost_by_kind=costs
            )
        except BaseException as error:
            if isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError):
                # The script cannot digest one of them: each is ended on its own, by RQ's code.
                ends = [(claim, end._replace(how="long")) for claim, end in ends]
            self.crew.ends.extendleft(reversed(ends))
            raise
        for (claim, end), answer in zip(ends, turn.answers, strict=True):
            if answer == "long":
                self._rare.append((claim, end))
            else:
                self._count(claim, end)
        if slots:
            self._is_dry = len(turn.claims) < min(slots, limit)
            self.doorbell.has_rung = self.doorbell.has_rung and not self._is_dry
        self._suspended_until = time.monotonic() + TICK_S * 5 if turn.is_suspended else 0.0
        self._claimed += len(turn.claims)
        self.crew.hand_over(turn.claims, costs, expectant)
        if turn.held != len(self._known()):
            self._reconcile()

    def _count(self, claim: Claim, end: End) -> None:
        self.done += 1
        seconds = end.ended_at - end.started_at
        if end.how == "turn":
            self.oversight.pace.learn(claim.kind, seconds)
        if not claim.is_light:
            level = logging.INFO if end.status == "finished" else logging.WARNING
            log.log(level, "%s: %s %s in %.3f s", claim.kind, claim.job_id, end.status, seconds)

    def _reconcile(self) -> None:
        unknown = self.ledger.find_unknown(self._known())
        if unknown:
            log.info("putting back %d jobs of a claim whose answer was lost", len(unknown))
            self.ledger.return_unknown(unknown)
            self._is_dry = False

    def _place_orphans(self) -> None:
        """Give what was taken back from children to idle ones, or else to anybody."""
        if not self.crew.orphans:
            return
        if not self._is_stopping:
            orphans = list(self.crew.orphans)
            self.crew.orphans.clear()
            self.crew.hand_over(orphans, {})
        if self.crew.orphans:
            count = len(self.crew.orphans)
            self.ledger.put_back(self.crew.orphans)
            self.crew.orphans.clear()
            self._claimed -= count
            self._is_dry = False

    # Trouble and end -----------------------------------------------------------------------------

    def _go_offline(self, error: Exception) -> None:
        if not self._is_offline:
            log.error("cannot go on with Redis (%s); trying again", error)
            self._offline_since = time.monotonic()
        self._is_offline = True
        self._offline_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.doorbell.close()

    def _come_back(self) -> None:
        self.on_reconnect()
        self.upkeep.reset()
        self._is_offline, self._is_dry = False, False
        log.info("Redis is back")

    def _end(self) -> None:
        """Put back what was not ended, and leave; what cannot be put back others will find."""
        pending = [claim for claim, _ in [*self._rare, *self.crew.ends, *self.upkeep.failing]]
        left = [*self.crew.close(), *pending]
        try:
            self.ledger.put_back(left)
            self.ledger.leave()
            self.has_left = True
        except RedisError as error:
            log.error("could not put %d jobs back (%s); they will be found", len(left), error)
        self.doorbell.close()
        self._bell.close()
        self._wake.close()
