"""The children of one supervisor: their jobs, their results, and their deaths.

This module does not access Redis. `Pool.ends` collects the ends to report.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from flowq.errors import UsageError, describe_exit
from flowq.render.lines import spelled
from flowq.runtime.tracing import find_provider
from flowq.workers.child_messages import MAX_BYTES, BadMessage, read_kept, read_message
from flowq.workers.claims import Claim
from flowq.workers.estimates import BATCH_S
from flowq.workers.messages import End, Settings
from flowq.workers.output import Scratch, Secrets
from flowq.workers.processes import (
    START_METHODS,
    Mode,
    Process,
    await_end,
    end_rest,
    is_kill,
    kill_group,
    start_process,
)
from flowq.workers.restarts import Restarts
from flowq.workers.shared_state import SharedState

MAX_UNREAD_BYTES = 32_000
"""How much may be unread in the channel of a busy child. A full channel would block both sides."""

FULL_S = BATCH_S * 1.001
"""A child with at most this much estimated work can take another batch (sums are not exact)."""

AMPLE_S = BATCH_S * 1.5
"""The same if a turn is sent anyway: one turn for two children costs less than two turns."""

IDLE_S = 0.1
"""How long an idle child is kept if the pool may rest and nothing is left to do."""

LONG_S = 0.5
"""After this time, the output of a running job is stored before its end."""

log = logging.getLogger("rq.worker")


class Child:
    """One child and the jobs that it has.

    Attributes:
        claims: its jobs by number, in the order in which they were handed over.
        load_s: the estimated time for these jobs; 0 for a long one, or if unknown.
        open_turns: the number of unanswered turns that may bring jobs for it.
        has_enough: it gets no more jobs before it has finished one.
        concluding: the execution that it ends by RQ's own code, if any.
        chore_since: since when it does a chore or concludes.
        jobs_left: after so many jobs it is replaced; None for no limit.
        is_leaving: it ends as soon as it has finished its jobs.
        is_replacement: it replaces a child that has ended.
        idle_since: since when it has been idle, in a pool that rests.
    """

    def __init__(
        self, process: Process, channel: Connection, lifeline: Connection, shared: SharedState
    ):
        self.process = process
        self.channel = channel
        self.lifeline = lifeline
        self.shared = shared
        self.claims: dict[int, Claim] = {}
        self.started_at = time.monotonic()
        self.idle_since: float | None = None
        self.concluding: Claim | None = None
        self.chore_since: float | None = None
        self.load_s = 0.0
        self.open_turns = 0
        self.jobs_left: int | None = None
        self.has_enough = False
        self.is_leaving = False
        self.is_replacement = False
        # Set by its message, which keeps its order among the others; the shared state does not.
        self.is_ready = False
        self.killed_because, self.is_late = "", False
        self.secrets = Secrets()

    def count_turn(self, by: int) -> None:
        """Note that a turn that may bring jobs for it was sent (1) or answered (-1)."""
        self.open_turns += by

    def forget_load(self) -> None:
        """Request no more short jobs for it until it is idle: there are none at the moment."""
        self.load_s = 0.0

    def end_late_chore(self, limit_s: float, now: float) -> None:
        """Kill the process if a chore, or RQ's code that ends a job, takes longer than that."""
        if self.chore_since is not None and now - self.chore_since > limit_s:
            self.chore_since = now  # so that it is not killed again in the next round
            self.process.kill()

    @property
    def is_idle(self) -> bool:
        """Whether it can take any job."""
        is_busy = self.claims or self.concluding is not None or self.chore_since is not None
        return not is_busy and not self.is_leaving

    @property
    def executing(self) -> Claim | None:
        """The job that it is executing."""
        return self.claims.get(self.shared.begun)

    @property
    def waiting(self) -> list[Claim]:
        """The jobs that were handed over and have not begun."""
        begun = self.shared.begun
        return [claim for number, claim in self.claims.items() if number > begun]

    @property
    def unread_bytes(self) -> int:
        """The most that can be unread in its channel."""
        return sum(claim.size_bytes for claim in self.waiting)


class Pool:
    """Up to `size` children of one start method.

    A pool that `can_rest` has children only while there is work, so that they import the code as it
    is at that time.

    Attributes:
        ends: claims that have ended and that Redis has not confirmed.
        unassigned: claims that no child has.
        restarts: when the next child may be started.
        chores: what children should do between jobs: (name of a method of `RQWork`, arguments).
    """

    def __init__(
        self,
        size: int,
        mode: Mode,
        settings: Settings,
        jobs_per_child: int | None,
        *,
        can_rest: bool = False,
    ) -> None:
        self.size = size
        self.can_rest, self.is_resting = can_rest, False
        self.method = START_METHODS[mode]
        self.settings = settings
        self.scratch = Scratch(settings.scratch_folder)
        self.children: list[Child] = []
        self.ends: deque[Claim] = deque()
        self.unassigned: deque[Claim] = deque()
        self.chores: deque[tuple[str, tuple[Any, ...]]] = deque()
        self.is_closing = False
        self._jobs_per_child = jobs_per_child
        self._number = 0
        self._started = 0
        self.restarts = Restarts()

    # Starting ------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start the missing children, unless the last ones ended too early. Errors: FlowqError."""
        while self.lacks_children and (now := time.monotonic()) >= self.restarts.next_at:
            is_any_ready = any(child.shared.is_ready for child in self.children)
            preloads = bool(self.settings.preload)
            self.restarts.check(self.size, now, is_any_ready=is_any_ready, preloads=preloads)
            others = [each for child in self.children for each in (child.channel, child.lifeline)]
            child = Child(*start_process(self.method, self.settings, others))
            child.jobs_left = self._jobs_per_child
            child.is_replacement = self._started >= self.size
            self._started += 1
            self.children.append(child)

    @property
    def lacks_children(self) -> bool:
        """Whether children are missing."""
        return len(self.children) < self.size and not self.is_closing and not self.is_resting

    # Handing over --------------------------------------------------------------------------------

    @property
    def idle(self) -> list[Child]:
        """The children that can take any job."""
        return [child for child in self.children if child.is_idle]

    @property
    def has_chores(self) -> bool:
        """Whether a chore waits or is being done."""
        return bool(self.chores) or any(child.chore_since is not None for child in self.children)

    @property
    def is_busy(self) -> bool:
        """Whether there are claims that have not ended."""
        return bool(self.unassigned) or any(
            child.claims or child.concluding for child in self.children
        )

    @property
    def held(self) -> list[Claim]:
        """The claims that have not ended: unassigned ones first, then child by child."""
        held = list(self.unassigned)
        for child in self.children:
            held += child.claims.values()
            if child.concluding is not None:
                held.append(child.concluding)
        return held

    def find_underfilled(self, load_s: float = FULL_S) -> list[Child]:
        """Return the children that can queue short jobs behind those that they have, or will soon
        have: at most `load_s` of estimated work."""
        if self.method.has_process_per_job:
            return []
        return [
            child
            for child in self.children
            if (child.open_turns == 1 and child.is_idle and child.jobs_left is None)
            or (not child.open_turns and _can_take_more(child, load_s))
        ]

    def hand_over(
        self,
        claims: Iterable[Claim],
        cost_by_kind: Mapping[str, float],
        soon_idle: Sequence[Child] = (),
        *,
        are_last: bool = False,
    ) -> None:
        """Distribute claims: a long or unknown job alone, short ones to the least busy children.

        Claims for which there is no child go to `unassigned`.

        Args:
            claims: in the order of the queues.
            cost_by_kind: the estimated duration of each kind of short jobs.
            soon_idle: busy children that will soon need their next job.
            are_last: whether the queues are empty now.
        """
        idle = [*self.idle, *(child for child in soon_idle if child.claims)]
        shares: dict[int, list[Claim]] = {}
        short: list[Claim] = []
        for claim in claims:
            if claim.kind in cost_by_kind and not self.method.has_process_per_job:
                short.append(claim)
            elif idle:
                self._give(idle.pop(0), [claim], 0.0, are_last)
            else:
                self.unassigned.append(claim)
        takers = idle
        if not self.method.has_process_per_job:
            # More than a batch, because they also get what was requested while they had less.
            takers += [child for child in self.children if _can_take_more(child, 2 * BATCH_S)]
        loads = [child.load_s for child in takers]
        for claim in short:
            if not takers:
                self.unassigned.append(claim)
                continue
            index = loads.index(min(loads))
            shares.setdefault(index, []).append(claim)
            loads[index] += cost_by_kind[claim.kind]
        for index, share in shares.items():
            self._give(takers[index], share, loads[index], are_last)

    def _give(self, child: Child, claims: list[Claim], load_s: float, are_last: bool) -> None:
        if child.claims:
            size = child.unread_bytes + sum(claim.size_bytes for claim in claims)
            if size > MAX_UNREAD_BYTES:
                child.has_enough = True  # else the same jobs would be claimed for it again
                self.unassigned.extend(claims)
                return
        now = time.monotonic()
        for claim in claims:
            self._number += 1
            claim.hand_over(self._number, now)
            child.claims[claim.number] = claim
        child.load_s = load_s
        child.has_enough = False
        child.shared.allow(next(iter(child.claims)), self._number + 1)
        self._send(child, ("run", [claim.message for claim in claims], are_last))

    def conclude(self, claim: Claim) -> bool:
        """Have an idle child end an execution by RQ's own code; False if none is idle."""
        idle = self.idle
        if not idle:
            return False
        child = idle[0]
        claim.count_try(1)
        child.shared.forget_conclusion()
        child.concluding, child.chore_since = claim, time.monotonic()
        self._send(child, ("conclude", claim.message, claim.end))
        return True

    def do_chores(self) -> None:
        """Give chores to idle children: the work of RQ's workers between jobs."""
        for child in self.idle[: len(self.chores)]:
            child.chore_since = time.monotonic()
            self._send(child, ("chore", *self.chores.popleft()))

    def _send(self, child: Child, message: tuple[Any, ...]) -> None:
        try:
            child.channel.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:  # it has died; `receive` will notice
            log.debug("child %d is gone", child.process.pid)

    def recall(self, child: Child) -> list[Claim]:
        """Take back the jobs that a child has not begun, and return them."""
        begun = child.shared.take_back()
        if begun is None:
            return []
        taken = [claim for number, claim in child.claims.items() if number > begun]
        for claim in taken:
            del child.claims[claim.number]
        child.has_enough = True
        child.load_s = 0.0
        return taken

    def reassign(self, child: Child) -> None:
        """Take back the jobs that a child has not begun, for other children or workers."""
        self.unassigned.extend(self.recall(child))

    def withdraw(self, child: Child, claim: Claim) -> bool:
        """Take back this claim; False if the child has begun it.

        The other claims that the child has not begun become unassigned.
        """
        taken = self.recall(child)
        self.unassigned.extend(each for each in taken if each is not claim)
        return claim in taken

    def take_unassigned(self) -> list[Claim]:
        """Remove and return the claims that no child has."""
        unassigned = list(self.unassigned)
        self.unassigned.clear()
        return unassigned

    def add_chore(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Queue a chore, unless the same one is queued already."""
        if (name, arguments) not in self.chores:
            self.chores.append((name, arguments))

    # Resting -------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Dismiss idle children and start no others, until `wake`."""
        now = time.monotonic()
        self.is_resting = True
        limit_s = self.method.linger_s if self.is_busy else IDLE_S
        leaving = []
        for child in self.children:
            if not child.is_idle or child.open_turns:
                child.idle_since = None
            elif child.idle_since is None:
                child.idle_since = now
            elif now - child.idle_since >= limit_s:
                leaving.append(child)
        for child in leaving:  # first all, so that they end at the same time
            child.channel.close()
        for child in leaving:
            self.dismiss(child)

    def wake(self) -> None:
        """End the rest: start the missing children."""
        self.is_resting = False
        for child in self.children:
            child.idle_since = None
        self.fill()

    # Receiving -----------------------------------------------------------------------------------

    def receive(self, child: Child) -> None:
        """Handle one message of a child, or its death."""
        try:
            kind, content = read_message(child.channel.recv_bytes(MAX_BYTES))
        except (EOFError, ConnectionError):  # a reset: it closed its end with unread messages
            self._remove_dead(child)
        except (OSError, BadMessage) as error:  # what follows cannot be trusted either
            self.kill(child, f"it sent something that is not a message of flowq's: {error}")
            child.process.kill()
            self._remove_dead(child)
        else:
            self._take(child, kind, content)

    def _take(self, child: Child, kind: str, content: Any) -> None:
        if isinstance(content, str):  # it goes into a log, and perhaps to a terminal
            content = spelled(content)
        if kind == "ends":
            self._take_ends(child, content)
        elif kind == "died":  # the process of the job, not the fork server that reports it
            self._fail_executing(child, content)
            self._release(child)
        elif kind == "outdated":
            log.info("child %d ends: %s has changed", child.process.pid, content)
            self.dismiss(child)
        elif kind == "unfit":
            # Jobs can write to the channel too, so only a message before them may end the worker.
            if not child.is_replacement and not child.is_ready:
                raise UsageError(content)
            # A later child goes on: the module may be in the middle of an edit.
            log.error("%s; the errors of its jobs will say more", content)
        elif kind == "ready":
            child.is_ready = True
        elif kind == "secrets":
            if not child.secrets.add(content) and not child.is_leaving:
                pid = child.process.pid
                log.warning("child %d has more secrets than can be kept; it ends", pid)
                self.dismiss(child)
        else:
            child.chore_since = None

    def _take_ends(self, child: Child, ends: Iterable[End]) -> None:
        for end in ends:
            if child.concluding is not None:
                claim, child.concluding, child.chore_since = child.concluding, None, None
                self.note_end(claim, end)
            elif (ended := child.claims.pop(end.number, None)) is not None:
                left = len(child.claims)
                child.load_s *= left / (left + 1)
                self.note_end(ended, end)
                if child.jobs_left is not None:
                    child.jobs_left -= 1
            is_used_up = end.is_spent or child.jobs_left == 0
            if is_used_up and not self.method.has_process_per_job:
                self.dismiss(child)

    def note_end(self, claim: Claim, end: End) -> None:
        """Note how a claim has ended, to be reported to Redis."""
        claim.finish(end)
        self.ends.append(claim)

    def pop_end(self) -> Claim | None:
        """Remove and return the oldest end to report; None if there is none."""
        return self.ends.popleft() if self.ends else None

    def put_back(self, ends: Sequence[Claim]) -> None:
        """Report these ends again, before the others: Redis has not confirmed them."""
        self.ends.extendleft(reversed(ends))

    def collect(self, child: Child) -> None:
        """Take the ends that a child has stored and not sent: it runs a long job, or is dead."""
        try:
            ends = read_kept(child.shared.read_kept())
        except BadMessage as error:
            log.warning(
                "child %d has stored something that is not a report: %s", child.process.pid, error
            )
            return
        self._take_ends(child, [end for end in ends if end.number in child.claims])

    def dismiss(self, child: Child) -> None:
        """Let a child end as soon as it has finished the job that it executes."""
        if child not in self.children:  # it has ended; its last messages are being handled
            return
        child.is_leaving = True
        self.reassign(child)
        if not child.claims:
            child.channel.close()
            self._remove_dead(child)

    def _remove_dead(self, child: Child) -> None:
        child.channel.close()
        code = await_end(child.process)
        child.lifeline.close()  # not before, because it kills the process
        self.children.remove(child)
        was_ready = child.shared.is_ready
        self.restarts.note_end(was_ready=was_ready)
        if not child.is_leaving:
            log.warning("child %d ended: %s", child.process.pid, describe_exit(code))
            was_killed = is_kill(code) and not child.killed_because  # not by us, for what it sent
            self.restarts.note_death(
                *(self.size, child.started_at, time.monotonic()),
                was_ready=was_ready,
                was_killed=was_killed,
            )
        self._fail_executing(child, code)
        self._release(child)
        self.scratch.drop(child.process.pid)

    def _release(self, child: Child) -> None:
        """Reassign the child's unfinished jobs."""
        if child.concluding is not None:
            claim, child.concluding = child.concluding, None
            if not child.shared.has_begun_to_conclude:
                claim.count_try(-1)  # the claim did not cause the death
            self.ends.append(claim)  # its end is as it was before the child was asked
        self.unassigned.extend(child.claims.values())
        child.claims.clear()
        child.chore_since = None
        child.load_s = 0.0

    def _fail_executing(self, child: Child, code: int) -> None:
        """Fail the job that was being executed; its other jobs did not cause the death."""
        child.shared.free()
        self.collect(child)
        claim = child.executing
        if claim is None:
            return
        del child.claims[claim.number]
        end_rest(child.shared.pid)
        seconds = time.monotonic() - child.shared.begun_at
        tail = self.scratch.take_rest(child.process.pid, child.shared, claim, child.secrets)
        how = child.killed_because or describe_exit(code)
        end = claim.describe_death(how, tail, seconds, code, is_late=child.is_late)
        self.note_end(claim, end._replace(progress=child.shared.find_report(claim.number)))
        if find_provider() is not None:
            self.add_chore("trace_death", (claim.message, tuple(end)))
        child.killed_because, child.is_late = "", False

    # Output --------------------------------------------------------------------------------------

    def look_at_output(self, child: Child) -> None:
        """Take the output so far of a long job, and cut its scratch file if that is too large."""
        claim, child_of = child.executing, (child.process.pid, child.shared)
        if self.scratch.is_too_large(child.process.pid):
            self.scratch.trim(*child_of, claim, child.secrets)
        elif claim is not None and time.monotonic() - child.shared.begun_at > LONG_S:
            self.scratch.take_so_far(*child_of, claim, child.secrets)

    def list_news(self) -> list[Claim]:
        """Return the claims of jobs that run and have printed what Redis does not have yet."""
        executing = [child.executing for child in self.children]
        return [claim for claim in executing if claim is not None and claim.has_news]

    # Ending --------------------------------------------------------------------------------------

    def kill(self, child: Child, because: str, *, is_late: bool = False) -> None:
        """Kill the job that a child executes; `because` becomes part of the job's error.

        `is_late`: the job has exceeded its timeout.
        """
        child.killed_because, child.is_late = because, is_late
        is_apart = self.method.has_process_per_job and child.executing is not None
        if is_apart and child.shared.pid:
            kill_group(child.shared.pid)
        else:
            child.process.kill()

    def close(self) -> tuple[list[Claim], set[str]]:
        """End all children. Returns their claims, and the ids of executions that had begun."""
        self.is_closing = True
        left = self.held
        begun: set[str] = set()
        self.unassigned.clear()
        for child in self.children:
            if child.claims or child.chore_since is not None:
                self.kill(child, "the worker stops")
                child.process.kill()
            child.channel.close()
            if not child.shared.is_ready:  # it may be importing for long
                child.lifeline.close()
        for child in self.children:
            await_end(child.process)  # before reading `begun`: until then it may begin a job
            child.lifeline.close()
            if (claim := child.executing) is not None:
                self.scratch.take_rest(child.process.pid, child.shared, claim, child.secrets)
            self.scratch.drop(child.process.pid)
            last = child.shared.begun
            begun |= {c.execution_id for number, c in child.claims.items() if number <= last}
            if child.concluding is not None:
                begun.add(child.concluding.execution_id)
        self.children.clear()
        return left, begun


def _can_take_more(child: Child, load_s: float) -> bool:
    """Whether it has only short jobs, of at most `load_s` together, and may get more of them."""
    if child.is_leaving or child.has_enough or child.concluding or child.jobs_left is not None:
        return False
    return bool(child.claims) and 0 < child.load_s <= load_s
