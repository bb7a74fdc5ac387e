"""Turns: script calls by which a supervisor reports ended jobs and claims new ones.

A turn reports the ended jobs and claims as many jobs as the children can take. It is sent when a
child needs jobs, and its answer is read when it arrives. Meanwhile the supervisor attends to its
children; if one of them runs out of jobs, it sends a second turn before the first answer, so that
the server does not idle. Ends that Redis has not confirmed are kept, and resent after an outage.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from redis.exceptions import ResponseError

from flowq.render.lines import spelled
from flowq.runtime.connections import is_refusal
from flowq.workers.children import AMPLE_S, FULL_S, Child, Pool
from flowq.workers.claims import Claim
from flowq.workers.estimates import AHEAD_S, BATCH_S
from flowq.workers.monitor import Monitor
from flowq.workers.redis_side import NO_CAPACITY, Capacity, RedisSide, Turn
from flowq.workers.wakeup import Wakeup

BATCH_LIMIT = 64
HOLD_S = 0.008
"""Maximum time to hold a finished job's result while all children are busy (batching)."""

ENDS_LIMIT = 64
SUSPENDED_S = 0.5
CHORES_S = 5.0

_LOG_LEVELS = {"finished": logging.INFO, "failed": logging.ERROR}

log = logging.getLogger("rq.worker")


@dataclass(frozen=True)
class Sent:
    """A turn that has not been answered yet.

    It requested jobs for `free` children, which can take any job (`soon_idle` are those among them
    that are still busy), and short jobs for `underfilled` ones.
    """

    ends: list[Claim]
    capacity: Capacity
    free: list[Child]
    soon_idle: list[Child]
    underfilled: list[Child]

    def promise(self, by: int) -> None:
        """Note with the children that it may bring them jobs (1), or was answered (-1)."""
        for child in self.free + self.underfilled:
            child.count_turn(by)


class Turns:
    """The turns of one worker. If `go_on` or `receive` raises an error of redis-py, call `forget`.

    Attributes:
        done: the number of executions that have ended.
        are_queues_empty: the last answer left no jobs in the queues.
        is_answered: the next answer has arrived.
    """

    def __init__(
        self,
        redis_side: RedisSide,
        pool: Pool,
        monitor: Monitor,
        wakeup: Wakeup,
        max_jobs: int | None,
    ) -> None:
        self.redis_side = redis_side
        self.pool = pool
        self.monitor = monitor
        self.wakeup = wakeup
        self.max_jobs = max_jobs
        self.conclusions = Conclusions(redis_side, pool)
        self.done = 0
        self.are_queues_empty = False
        self.is_closing = False
        self._claimed = 0
        self._suspended_until = 0.0
        self._ends_since: float | None = None
        self._chores_since: float | None = None
        self._sent: deque[Sent] = deque()
        self._is_unsure = False
        self.is_answered = False

    # Looking -------------------------------------------------------------------------------------

    @property
    def is_under_way(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._sent)

    @property
    def is_suspended(self) -> bool:
        """Whether RQ's workers are suspended, by the last answer."""
        return bool(self._suspended_until)

    @property
    def has_unconfirmed_ends(self) -> bool:
        """Whether there are ends that Redis has not confirmed."""
        waiting = self.conclusions.waiting
        return bool(self._sent or waiting or self.pool.ends)

    def list_pending(self) -> list[Claim]:
        """Return the claims whose ends Redis has not confirmed."""
        sent = [claim for sent in self._sent for claim in sent.ends]
        return [*self.conclusions.waiting, *self.pool.ends, *sent]

    def wants_claims(self) -> bool:
        """Whether there is an idle child for a job, or one can be started."""
        return self._can_claim() and bool(self.pool.idle or self.pool.is_resting)

    def may_find_jobs(self) -> bool:
        """Whether there may be jobs in the queues."""
        return not self.are_queues_empty or self.wakeup.is_set

    def needs_children(self) -> bool:
        """Whether there is, or may be, work for children."""
        waits = self.pool.unassigned or self.pool.chores or self.conclusions.waiting
        return self.may_find_jobs() or bool(waits or self.pool.ends)

    def due_in_s(self) -> float:
        """Return in how many seconds to send a turn if nothing happens until then.

        Zero means now, because a child needs jobs; infinity means that there is no reason for a
        turn. Call this only while none is under way.
        """
        if not self.pool.ends:
            self._ends_since = None
        elif self._ends_since is None:
            self._ends_since = time.monotonic()
        can_claim = self.may_find_jobs() and self._can_claim()
        if not can_claim and self._ends_since is None:
            return inf
        if self.pool.idle or len(self.pool.ends) >= ENDS_LIMIT or self._find_underfilled():
            return 0.0
        can_predict = can_claim and not self.are_queues_empty and not self._are_chores_late()
        predicted_s = self.monitor.predict_s() if can_predict else inf
        hold_s = inf if self._ends_since is None else self._ends_since + HOLD_S - time.monotonic()
        return max(0.0, min(predicted_s, hold_s))

    def _should_follow(self) -> bool:
        """Whether to send another turn before the answer, because a child has nothing to do."""
        if len(self._sent) > 1 or not self.pool.ends or self.redis_side.strategy != "default":
            return False
        if self._is_unsure or self.pool.unassigned or not self._can_claim():
            return False
        return bool(self._find_free() or self._find_underfilled())

    def _find_free(self) -> list[Child]:
        """Return the children that can take any job and expect none from a turn under way."""
        return [child for child in self.pool.idle if not child.open_turns or self._is_passed(child)]

    def _is_passed(self, child: Child) -> bool:
        # The queues were empty, so short jobs for it will hardly come with the turn under way; but
        # the end of its own job may have queued another one.
        return self.are_queues_empty and all(child not in sent.free for sent in self._sent)

    def _can_claim(self) -> bool:
        if self.is_closing or self.conclusions.waiting:
            return False
        if self._suspended_until and time.monotonic() < self._suspended_until:
            return False
        return self._jobs_left() > 0

    def _jobs_left(self) -> int:
        if self.max_jobs is None:
            return BATCH_LIMIT * self.pool.size
        asked = sum(sent.capacity.limit for sent in self._sent)
        return max(0, self.max_jobs - self._claimed - asked)

    def expect_jobs(self) -> None:
        """Note that something may have been queued, so that the next turn requests jobs."""
        self.are_queues_empty = False

    def close(self) -> None:
        """Claim nothing more. May be called from a signal handler."""
        self.is_closing = True

    # Going on ------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Send a turn if one is due, and do what else needs Redis. Does not wait for answers."""
        if not self._sent:
            self._begin()
        else:
            self.redis_side.check_overdue()
            if self._should_follow():
                self._send(self._sort_ends())
        if not self._sent:
            self._settle_down()

    def _begin(self) -> None:
        if self._is_unsure:
            self._reconcile()
        self._place_orphans()
        self._conclude()
        if self._are_chores_late():
            self.pool.do_chores()
        if not self.due_in_s():
            ends = self._sort_ends()
            self._conclude()
            # An end may queue the jobs that waited for it, so a turn with ends requests jobs too.
            if ends or self.may_find_jobs():
                self._send(ends)

    def _settle_down(self) -> None:
        """While no turn is under way: do chores, rebalance, and ask the server to wake us."""
        if self.are_queues_empty or not self._can_claim():
            self.pool.do_chores()
        if self.are_queues_empty and self.pool.idle and len(self.pool.children) > 1:
            self.monitor.rebalance()
        if self.are_queues_empty and self.wants_claims() and not self.wakeup.is_armed:
            self.are_queues_empty = self.wakeup.arm()

    def _are_chores_late(self) -> bool:
        """Whether chores have waited too long, so that busy children get no more jobs.

        Until then chores wait for a pause, because the end of a last blocker must not wait for
        them.
        """
        if not self.pool.chores:
            self._chores_since = None
        elif self._chores_since is None:
            self._chores_since = time.monotonic()
        return bool(self._chores_since and time.monotonic() - self._chores_since > CHORES_S)

    def _find_underfilled(self, load_s: float = FULL_S) -> list[Child]:
        return [] if self._are_chores_late() else self.pool.find_underfilled(load_s)

    def _sort_ends(self) -> list[Claim]:
        """Return the ends that flowq's script writes; pass on or count the others."""
        ends = []
        while (claim := self.pool.pop_end()) is not None:
            end = claim.end
            if end.code:
                self.redis_side.note_code(claim)
            if end.progress:
                self.redis_side.note_progress(claim, end.progress)
            if end.how in ("done", "lost"):
                self._count(claim)
                self.are_queues_empty = False  # RQ's code may have queued something
            elif end.how == "later":
                self.conclusions.put_off(claim)
            elif end.how == "conclude" or (end.how == "died" and claim.needs_rq):
                self.conclusions.add(claim)
            else:
                if end.how == "died":
                    claim.complete_end()
                ends.append(claim)
        return ends

    def _conclude(self) -> None:
        if self.conclusions.waiting:  # RQ's code will end them
            self.redis_side.store_progress()
        for claim in self.conclusions.go_on():
            self._count(claim)

    def _place_orphans(self) -> None:
        """Give unassigned jobs to idle children, or else put them back into their queues."""
        if self.pool.unassigned and not self.is_closing:
            self.pool.hand_over(self.pool.take_unassigned(), {})
        if self.pool.unassigned:
            self.redis_side.put_back(self.pool.unassigned)
            self._claimed -= len(self.pool.take_unassigned())
            self.are_queues_empty = False

    # One turn ------------------------------------------------------------------------------------

    def _send(self, ends: list[Claim]) -> None:
        self._ends_since = None
        free, soon_idle, underfilled = self._find_takers()
        slots, idle = len(free) + len(underfilled), len(free)
        costs = (
            self.monitor.estimates.cost_by_kind()
            if not self.pool.method.has_process_per_job
            else {}
        )
        limit = min(BATCH_LIMIT * slots, self._jobs_left())
        if self.redis_side.strategy != "default":
            limit = min(limit, 1)  # the next job comes from another queue
        capacity = Capacity(slots, idle, limit, BATCH_S, costs)
        self._sent.append(Sent(ends, capacity, free, soon_idle, underfilled))
        self._sent[-1].promise(1)
        if slots:
            self.wakeup.clear()  # before sending: what is queued later may miss this turn
        self.redis_side.send(ends, capacity)
        if not self.pool.is_busy:
            self.receive()
            if not self._sent:
                self._conclude()  # the next round may be half a second away

    def report_ends(self) -> None:
        """Report what ended while the server could not be used. Blocks until the answer.

        No turn may be under way. Errors: redis-py's.
        """
        ends = self._sort_ends()
        if ends:
            self._sent.append(Sent(ends, NO_CAPACITY, [], [], []))
            self.redis_side.send(ends, NO_CAPACITY)
            self.receive()

    def _find_takers(self) -> tuple[list[Child], list[Child], list[Child]]:
        """Return the children that can take any job, soon idle ones too, and underfilled ones."""
        if not self._can_claim():
            return [], [], []
        foreseen = [] if self._are_chores_late() else self.monitor.find_soon_idle(AHEAD_S)
        soon_idle = [child for child in foreseen if not child.open_turns]
        free = self._find_free() + soon_idle
        return (
            free,
            soon_idle,
            [child for child in self._find_underfilled(AMPLE_S) if child not in free],
        )

    def receive_next(self) -> None:
        """Handle an answer that has arrived; if needed, send the next turn before that."""
        if self.is_answered and self._should_follow():
            self._send(self._sort_ends())
        if self.is_answered:
            self.receive()

    def receive(self) -> None:
        """Handle the answer to the oldest turn. Blocks until it arrives.

        Then sets `is_answered`: the next answer may have been read from the socket with this one,
        so waiting for the socket would not notice it.
        """
        if not self._sent:  # the server has closed the connection
            self.redis_side.disconnect()
            return
        try:
            turn = self.redis_side.receive()
        except ResponseError as error:
            if is_refusal(error):  # the ends are sent again; what was printed must not hold them up
                for claim in self._sent[0].ends:
                    claim.drop_printed()
            else:
                # The script fails on one of these ends, so RQ's code writes each of them.
                for claim in self._sent[0].ends:
                    claim.change_end(how="conclude")
            raise
        sent = self._sent.popleft()
        sent.promise(-1)
        self._take(turn, sent)  # before `has_answer`, which raises if the connection is lost
        self.is_answered = bool(self._sent) and self.redis_side.has_answer()

    def _take(self, turn: Turn, sent: Sent) -> None:
        for claim, answer in zip(sent.ends, turn.answers, strict=True):
            if answer == "ok":
                self.redis_side.credit(claim.end)
            if answer == "conclude":
                self.conclusions.add(claim)
            else:
                self._count(claim)
        if sent.capacity.slots:
            self.are_queues_empty = not turn.has_left
            self._suspended_until = time.monotonic() + SUSPENDED_S if turn.is_suspended else 0.0
        self._claimed += len(turn.claims)
        if turn.has_left and not turn.claims:  # the next job in the queue is not short
            for child in sent.underfilled:
                child.forget_load()  # else the same request would be repeated at once
        self.pool.hand_over(
            turn.claims, sent.capacity.cost_by_kind, sent.soon_idle, are_last=not turn.has_left
        )
        # If the numbers differ, the answer to some turn was lost.
        self._is_unsure = turn.held != len(self.pool.held) + len(self.list_pending())

    def _count(self, claim: Claim) -> None:
        self.done, end = self.done + 1, claim.end
        seconds = end.ended_at - end.started_at
        if end.how == "turn":
            self.monitor.estimates.learn(claim.kind, seconds)
        if end.status != "failed" and claim.is_light:
            return
        level = _LOG_LEVELS.get(end.status, logging.WARNING)
        if not log.isEnabledFor(level):
            return
        text = f"\n{spelled(end.error)}" if end.status == "failed" else ""
        what = (spelled(claim.kind), spelled(claim.job_id), end.status, seconds, text)
        log.log(level, "%s: %s %s in %.3f s%s", *what, extra=claim.log_fields)

    def _reconcile(self) -> None:
        unknown = self.redis_side.find_unknown([*self.pool.held, *self.list_pending()])
        if unknown:
            log.info("putting back %d jobs of a claim whose answer was lost", len(unknown))
            self.redis_side.return_unknown(unknown)
            self.are_queues_empty = False
        self._is_unsure = False

    def forget(self) -> None:
        """Give up on all answers: the server is gone, or refused a turn. Idempotent."""
        self.is_answered = False
        self.redis_side.disconnect()
        self.wakeup.set()
        while self._sent:
            sent = self._sent.pop()
            sent.promise(-1)
            self.pool.put_back(sent.ends)


# Ends that RQ's own code writes ------------------------------------------------------------------
# A child executes RQ's code for jobs with dependents, retries or webhooks. flowq's script ends the
# others; `End.how` says which.

MAX_TRIES = 3
"""How many children may fail to conclude one execution."""

LATER_S = 0.5


class Conclusions:
    """Executions that RQ's code must end. While any of them is `waiting`, nothing is claimed."""

    def __init__(self, redis_side: RedisSide, pool: Pool) -> None:
        self.redis_side = redis_side
        self.pool = pool
        self.waiting: list[Claim] = []
        self._not_before = 0.0

    def add(self, claim: Claim) -> None:
        """Conclude it as soon as a child is idle."""
        claim.change_end(how="conclude")
        self.waiting.append(claim)

    def put_off(self, claim: Claim) -> None:
        """Conclude it after a pause: the server did not answer the child."""
        claim.forget_tries()
        self._not_before = time.monotonic() + LATER_S
        self.add(claim)

    def go_on(self) -> Iterator[Claim]:
        """Give them to idle children. Yields those that were given up and ended by flowq's script.

        Errors: redis-py's.
        """
        if not self.waiting or time.monotonic() < self._not_before:
            return
        for claim in list(self.waiting):
            if claim.end.printed or claim.printed is not None:
                self._keep_printed(claim)
            is_given_up = claim.tries >= MAX_TRIES
            if is_given_up:
                self._give_up(claim)
            elif not self.pool.conclude(claim):
                continue
            self.waiting.remove(claim)
            if is_given_up:
                yield claim

    def _keep_printed(self, claim: Claim) -> None:
        """Store what the job has printed; RQ's code knows nothing of it.

        This comes before the end is stored, so a reader who sees the end finds the output. If the
        server refuses the output, it gets the end, and later a note that the output was dropped.
        """
        try:
            self.redis_side.keep_printed([claim])
        except ResponseError:
            claim.drop_printed()
            raise
        claim.forget_printed()

    def _give_up(self, claim: Claim) -> None:
        try:
            self.redis_side.force_end(claim)
        except ResponseError as error:
            if is_refusal(error):  # it is tried again when the server takes commands
                raise
            # Otherwise it stays in the WIP registry, until RQ's maintenance finds it abandoned.
        text = "job %s cannot be ended by RQ's code; it is ended without it"
        log.error(text, claim.job_id, extra=claim.log_fields)
