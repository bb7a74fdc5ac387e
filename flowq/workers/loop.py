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
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flowq.workers.claims import Claim, End
from flowq.workers.crew import Child, Crew
from flowq.workers.doorbell import Doorbell
from flowq.workers.ledger import Ledger
from flowq.workers.pace import BATCH_S, Pace

BATCH_LIMIT = 64
TICK_S = 0.1
RECALL_S = 0.005
"""How old a child's job may get while others wait behind it."""

POLL_S = 0.01
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
MAX_CONCLUSIONS = 3

UNREACHABLE = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError)

log = logging.getLogger("rq.worker")


@dataclass
class Limits:
    """When to stop by oneself, and how patient to be. Units: seconds."""

    burst: bool = False
    max_jobs: int | None = None
    max_idle_s: float | None = None
    grace_s: float = 5.0
    until: Callable[[], bool] | None = None


@dataclass
class Duty:
    """Something to do now and then, between jobs."""

    every_s: float
    do: Callable[[], None]
    due_at: float = 0.0


class Supervisor:
    """Runs the jobs of one worker until it is told to stop."""

    def __init__(
        self, ledger: Ledger, crew: Crew, doorbell: Doorbell, pace: Pace, limits: Limits
    ) -> None:
        self.ledger = ledger
        self.crew = crew
        self.doorbell = doorbell
        self.pace = pace
        self.limits = limits
        self.duties: list[Duty] = []
        self.done = 0
        self.claimed = 0
        self.is_stopping = False
        self.is_forced = False
        self.is_suspended = False
        self.on_reconnect: Callable[[], None] = lambda: None
        self._is_dry = False
        self._held: int | None = None
        self._rare: list[tuple[Claim, End]] = []
        self._idle_since = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._offline_until = 0.0
        self._is_offline = False
        self._looked_at = 0.0
        self._bell, self._wake = socket.socketpair()
        for each in (self._bell, self._wake):
            each.setblocking(False)

    # From signal handlers ------------------------------------------------------------------------

    @property
    def wake_descriptor(self) -> int:
        """Where signals write to end the wait (`signal.set_wakeup_fd`)."""
        return self._wake.fileno()

    def stop(self) -> None:
        """Finish what runs, then end; the second call puts back what runs, and ends now."""
        if self.is_stopping:
            self.is_forced = True
        self.is_stopping = True

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
        if self.is_forced:
            return True
        is_quiet = not self._known() and not self._rare and not self.crew.ends
        if self.is_stopping:
            return is_quiet
        if not is_quiet:
            self._idle_since = time.monotonic()
            return False
        limits = self.limits
        if limits.max_jobs is not None and self.done >= limits.max_jobs:
            return True
        if limits.burst and (self._is_dry or self.is_suspended):
            return True
        idle_s = time.monotonic() - self._idle_since
        if limits.max_idle_s is not None and idle_s >= limits.max_idle_s:
            return True
        return limits.until is not None and limits.until()

    def _round(self) -> None:
        self._listen(self._wait_s())
        self._look_after_children()
        if time.monotonic() < self._offline_until:
            return
        try:
            if self._is_offline:
                self._come_back()
            self._do_duties()
            self._turn_if_needed()
            self._pause_s = FIRST_PAUSE_S
        except UNREACHABLE as error:
            self._go_offline(error)

    def _wait_s(self) -> float:
        now = time.monotonic()
        if now < self._offline_until:
            return self._offline_until - now
        if self.crew.ends or self.crew.orphans:
            return 0.0
        if self._wants_claims() and (not self._is_dry or self.doorbell.has_rung):
            return 0.0
        if any(len(child.claims) > 1 for child in self.crew.children):
            return RECALL_S
        if self._wants_claims() and not self.doorbell.can_ring:
            return POLL_S
        due_at = min((duty.due_at for duty in self.duties), default=now + TICK_S)
        return min(max(due_at - now, 0.0), TICK_S if self._known() else 1.0)

    def _listen(self, wait_s: float) -> None:
        child_by_channel: dict[Any, Child] = {child.channel: child for child in self.crew.children}
        sources: list[Any] = [*child_by_channel, self._bell]
        if self.doorbell.socket is not None:
            sources.append(self.doorbell.socket)
        for ready in wait(sources, wait_s):
            if ready in child_by_channel:
                self.crew.receive(child_by_channel[ready])
            elif ready is self._bell:
                self._bell.recv(4096)
            else:
                self._hear()

    def _hear(self) -> None:
        try:
            for command in self.doorbell.listen():
                self.obey(command)
        except UNREACHABLE as error:
            self.doorbell.close()
            self._go_offline(error)

    # Children ------------------------------------------------------------------------------------

    def _look_after_children(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < RECALL_S:
            return
        self._looked_at = now
        for child in list(self.crew.children):
            claim = child.executing
            if claim is None:
                continue
            seconds = now - child.cell.begun_at
            if seconds > RECALL_S and len(child.claims) > 1:
                self.pace.forget(claim.kind)
                self.crew.orphans.extend(self.crew.recall(child))
            if claim.timeout_s is not None and seconds > claim.timeout_s + self.limits.grace_s:
                self._kill_late(child, claim)
        self.crew.fill()

    def _kill_late(self, child: Child, claim: Claim) -> None:
        if not child.killed_because:
            timeout_s = f"{claim.timeout_s:g}"
            self.crew.kill(
                child,
                "rq.timeouts.JobTimeoutException: Task exceeded maximum timeout value "
                f"({timeout_s} seconds), and did not end when it was told so; it was killed",
            )

    def obey(self, command: dict[str, Any]) -> None:
        """Do what RQ's `send_…_command` functions ask for; others are ignored."""
        name = command.get("command")
        if name == "shutdown":
            self.stop()
            return
        for child in list(self.crew.children):
            claim = child.executing
            if claim is None:
                continue
            if name == "kill-horse":
                self.crew.kill(child, "it was killed by a command")
            elif (name == "stop-job" and claim.job_id == command.get("job_id")) or (
                name == "stop-execution" and claim.execution_id == command.get("execution_id")
            ):
                claim.stop_asked = True
                self.crew.kill(child, "the job was stopped by a command")

    def _known(self) -> list[Claim]:
        crew = self.crew
        known = list(crew.orphans)
        for child in crew.children:
            known += child.claims.values()
            if child.concluding:
                known.append(child.concluding)
        return known

    # Redis ---------------------------------------------------------------------------------------

    def _do_duties(self) -> None:
        now = time.monotonic()
        for duty in self.duties:
            if now >= duty.due_at:
                duty.due_at = now + duty.every_s
                duty.do()

    def _wants_claims(self) -> bool:
        if self.is_stopping or self.is_suspended or self._rare:
            return False
        if self.limits.max_jobs is not None and self.claimed >= self.limits.max_jobs:
            return False
        return any(child.is_idle for child in self.crew.children)

    def _turn_if_needed(self) -> None:
        self._conclude_rare()
        self._place_orphans()
        ends = self._take_ends()
        # An end may queue what it held back, so with ends there is always a look.
        may_find = bool(ends) or not self._is_dry or self.doorbell.has_rung
        wants = self._wants_claims() and may_find
        if ends or wants:
            self._turn(ends, wants)
        if self._is_dry and self._wants_claims() and not self.doorbell.is_armed:
            self.doorbell.open()
            if self.doorbell.arm():
                return
            self._is_dry = False

    def _take_ends(self) -> list[tuple[Claim, End]]:
        ends = []
        while self.crew.ends:
            claim, end = self.crew.ends.popleft()
            if end.how in ("done", "lost"):
                self._count(claim, end)
            elif end.how == "long":
                self._rare.append((claim, end))
            elif end.how == "died" and _needs_long_way(claim, end):
                self._rare.append((claim, end._replace(how="long")))
            elif end.how == "died":
                ends.append((claim, _complete(claim, end)))
            else:
                ends.append((claim, end))
        self._conclude_rare()
        return ends

    def _turn(self, ends: list[tuple[Claim, End]], wants: bool) -> None:
        idle = len(self.crew.idle) if wants else 0
        hungry = len(self.crew.find_hungry(BATCH_S)) if not self.is_stopping else 0
        slots = idle + hungry
        limit = min(BATCH_LIMIT * slots, self._jobs_left())
        costs = self.pace.cost_by_kind() if self.crew.mode != "fork" else {}
        try:
            turn = self.ledger.turn(
                ends, slots=slots, idle=idle, limit=limit, budget_s=BATCH_S, cost_by_kind=costs
            )
        except BaseException:
            self.crew.ends.extendleft(reversed(ends))
            raise
        for (claim, end), answer in zip(ends, turn.answers, strict=True):
            if answer == "long":
                self._rare.append((claim, end))
            else:
                self._count(claim, end)
        self.claimed += len(turn.claims)
        self.is_suspended = turn.is_suspended
        if slots:
            self._is_dry = len(turn.claims) < slots
            self.doorbell.has_rung = self.doorbell.has_rung and not self._is_dry
        self.crew.hand_over(turn.claims, costs, BATCH_S)
        if turn.held != len(self._known()) + len(self._rare):
            self._reconcile()

    def beat(self, lease_s: float, ttl_s: int) -> None:
        """Say that we are alive; what was taken from us meanwhile is ended here too."""
        executing = []
        for child in self.crew.children:
            begun = child.cell.begun
            executing += [(claim, number > begun) for number, claim in child.claims.items()]
            if child.concluding:
                executing.append((child.concluding, False))
        lost = self.ledger.beat(lease_s, ttl_s, executing)
        for child in list(self.crew.children):
            claim = child.executing
            if claim is not None and claim.execution_id in lost:
                self.crew.kill(child, "somebody else has ended it")

    def _jobs_left(self) -> int:
        if self.limits.max_jobs is None:
            return BATCH_LIMIT * self.crew.size
        return max(0, self.limits.max_jobs - self.claimed)

    def _count(self, claim: Claim, end: End) -> None:
        self.done += 1
        if end.how == "turn":
            self.pace.learn(claim.kind, end.ended_at - end.started_at)

    def _reconcile(self) -> None:
        known = [*self._known(), *(claim for claim, _ in self._rare)]
        known += [claim for claim, _ in self.crew.ends]
        unknown = self.ledger.find_unknown(known)
        if unknown:
            log.info("putting back %d jobs of a claim whose answer was lost", len(unknown))
            self.ledger.return_unknown(unknown)

    def _conclude_rare(self) -> None:
        waiting, self._rare = self._rare, []
        for claim, end in waiting:
            claim.end = end
            if claim.tries >= MAX_CONCLUSIONS:
                self.crew.ends.append((claim, _complete(claim, end)._replace(how="turn")))
            elif not self.crew.conclude(claim, end):
                self._rare.append((claim, end))

    def _place_orphans(self) -> None:
        if not self.crew.orphans:
            return
        orphans = list(self.crew.orphans)
        self.crew.orphans.clear()
        if not self.is_stopping:
            self.crew.hand_over(orphans, {}, BATCH_S)
            orphans = list(self.crew.orphans)
            self.crew.orphans.clear()
        if orphans:
            try:
                self.ledger.put_back(orphans)
                self._is_dry = False
            except BaseException:
                self.crew.orphans.extend(orphans)
                raise
            self.claimed -= len(orphans)

    # Trouble -------------------------------------------------------------------------------------

    def _go_offline(self, error: Exception) -> None:
        if not self._is_offline:
            log.error("cannot reach Redis (%s); trying again", error)
        self._is_offline = True
        self._offline_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.doorbell.close()

    def _come_back(self) -> None:
        self.on_reconnect()
        self.doorbell.open()
        self._is_offline, self._is_dry = False, False
        log.info("Redis is back")

    def _end(self) -> None:
        left = self.crew.close()
        left += [claim for claim, _ in [*self._rare, *self.crew.ends]]
        try:
            if left:
                self.ledger.put_back(left)
            self.ledger.leave()
        except RedisError as error:
            log.error("could not put %d jobs back (%s); they will be found", len(left), error)
        self.doorbell.close()
        self._bell.close()
        self._wake.close()


def _needs_long_way(claim: Claim, end: End) -> bool:
    if end.status == "stopped" or int(claim.find("retries_left") or 0) > 0:
        return True
    failure_ttl = claim.find("failure_ttl")
    is_short_lived = failure_ttl != "" and int(failure_ttl) <= 0
    return is_short_lived or bool(claim.find("rate_limit_key") or claim.find("webhooks"))


def _complete(claim: Claim, end: End) -> End:
    return end._replace(
        ttl=claim.find("failure_ttl"), generation=int(claim.find("flowq_gen") or 0), how="turn"
    )
