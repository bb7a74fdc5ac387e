"""What flowq promises about future jobs and their blockers, as plainly as it can be said.

No Redis, no time, no processes. A job is *held* while one of these is left, and queued the moment
the last one is lifted: it is an open future job; one of its edges is not met; one of the future
jobs that it blocks has not been released (a *gate*); a dependency of RQ's has not been met.
Everything that follows from one call follows before the next one: ends are told in the order in
which they happen. `test_semantics.py` compares this with what the server does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

MET = {"finished", "passed"}
CALLED_OFF = {"canceled", "skipped", "passed", "deleted", "expired"}
ENDED = {"finished", "failed", "stopped", "canceled"}
PENDING = ""
KINDS = {
    **dict.fromkeys(("failed", "stopped", "expired", "deleted"), frozenset({"failed"})),
    "canceled": frozenset({"canceled"}),
}
"""What went wrong at a job that ended like that, for `failure()` and `canceled()`."""

FIRSTS = ("one_success", "one_failed")
FAILED = {"failed", "stopped", "expired", "deleted", "skipped"}


class Refused(Exception):
    """The call is an error, and changes nothing. Its text is the name of the error."""


@dataclass
class Future:
    """The join in front of a future job. `edges`: the outcome of each blocker, in order.

    `above`: what went wrong above each blocker, as it was when that ended. One that `needs_success`
    is skipped for that too. With a policy of `FIRSTS` it is `decided` once it has started, and then
    nothing of its edges changes; one that `cancels` ends what has not ended then.
    """

    policy: str = "wait"
    if_empty: str = "run"
    state: str = "open"  # → releasing → released → met (RQ holds it) → queued → ended
    edges: dict[str, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    freed: int = 0
    cascades: bool = False
    needs_success: bool = False
    cancels: bool = False
    decided: bool = False
    above: dict[str, frozenset[str]] = field(default_factory=dict)
    queued: int = 0
    """How often it was queued in this generation by its join: at most once."""

    @property
    def is_undecided(self) -> bool:
        """Whether what its blockers do still matters."""
        return self.state in ("open", "releasing", "released", "met") and not self.decided

    def outcomes(self) -> Iterator[str]:
        """The outcomes that count: those of ignored edges only say whether they have ended."""
        for blocker, outcome in self.edges.items():
            yield "finished" if outcome and blocker in self.ignored else outcome

    def mark(self, blocker: str, outcome: str, above: frozenset[str]) -> None:
        """A blocker has ended, or runs again."""
        if self.policy in FIRSTS and outcome == "skipped" and above and "failed" not in above:
            outcome = "canceled"  # it is skipped after a cancel, so nothing has failed
        self.edges[blocker] = outcome
        self.above[blocker] = above if outcome else frozenset()

    def wrongs(self) -> list[frozenset[str]]:
        """What went wrong at each blocker, or above it; an ignored edge passes nothing on."""
        if self.decided and self.policy == "one_success":
            return []
        return [
            KINDS.get(outcome, frozenset()) | self.above.get(blocker, frozenset())
            for blocker, outcome in self.edges.items()
            if outcome and blocker not in self.ignored
        ]

    def starts(self) -> int:
        """How many blockers have ended in the way that starts a job of `FIRSTS`."""
        if self.policy == "one_success":
            return sum(outcome == "finished" for outcome in self.edges.values())
        return sum(outcome in FAILED for outcome in self.outcomes())

    def verdict(self) -> str:
        """What its edges say: "hold", "run" or "skip" ("pass" when it has none)."""
        outcomes = [o for o in self.outcomes() if o not in MET]
        if self.policy in FIRSTS and (self.decided or self.starts()):
            return "run"
        if PENDING in outcomes:
            return "hold"
        if self.policy == "one_failed" or (self.policy == "one_success" and not outcomes):
            return "pass"
        if self.policy == "one_success":
            return "skip"
        if not self.edges and self.if_empty == "skip":
            return "pass"
        if self.needs_success and any(self.wrongs()):
            return "skip"
        if self.policy == "run" or not outcomes:
            return "run"
        if self.policy == "skip" or "expired" in outcomes:
            return "skip"
        return "run" if set(outcomes) == {"deleted"} else "hold"


@dataclass
class Job:
    """A job of RQ. `outcome`: how its last attempt ended; `gates`: unreleased future jobs."""

    id: str
    blocks: tuple[str, ...] = ()
    future: Future | None = None
    gates: set[str] = field(default_factory=set)
    depends_on: str = ""
    at_front: bool = False
    retries: int = 0
    run: str = ""
    status: str = "deferred"
    outcome: str = PENDING
    generation: int = 0
    is_needless: bool = False
    """Nothing needs it any more: in a run it ends neutrally, unless it finishes."""


class Model:
    """All jobs, and what is queued, in order."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.queue: list[str] = []
        self._ends: deque[tuple[str, str]] = deque()
        self._abandoned: deque[str] = deque()
        self._started: deque[str] = deque()
        self._closing: deque[str] = deque()

    # Adding and releasing ------------------------------------------------------------------------

    def add(self, job: Job, ignored: frozenset[str] = frozenset()) -> None:
        """Enqueue a job with its holds; an id that is a blocker of the same jobs already is it."""
        known = self.jobs.get(job.id)
        if known and known.status != "gone":
            if all(self._is_known_edge(known, target) for target in job.blocks):
                return
            if known.status not in ENDED or any(self._holds(known, t) for t in known.blocks):
                raise Refused("JobIdTaken")
        for target in job.blocks:
            self._refuse(target)
        job.run = job.run or next((run for t in job.blocks if (run := self.jobs[t].run)), "")
        self.jobs.pop(job.id, None)  # one that is gone: the new one is the last
        self.jobs[job.id] = job
        for target in job.blocks:
            future = self._future(target)
            if future.decided:
                continue
            # In its old place, when the id was a deleted blocker's.
            future.mark(job.id, PENDING, frozenset())
            future.ignored.discard(job.id)
            future.ignored |= {job.id} if target in ignored else set()
            if self._is_gated(job, target):
                job.gates.add(target)
            if future.state == "met":
                future.state = "released"
        self._lift(job)

    def _is_gated(self, job: Job, target: str) -> bool:
        future = self._future(target)
        is_open = future.state == "open" and job.id in future.edges
        return is_open or (
            future.state == "releasing" and job.id in list(future.edges)[future.freed :]
        )

    def _is_known_edge(self, job: Job, target: str) -> bool:
        if self._is_edge(job.id, target):
            return True
        is_there = self.jobs[target].status != "gone"
        return is_there and self._future(target).decided and target in job.blocks

    def _is_edge(self, job_id: str, target: str) -> bool:
        return self.jobs[target].status != "gone" and job_id in self._future(target).edges

    def _holds(self, job: Job, target: str) -> bool:
        return self._is_edge(job.id, target) and self._future(target).is_undecided

    def _refuse(self, target: str) -> None:
        job = self.jobs[target]
        if job.status == "gone":
            raise Refused("JobNotFound")
        assert job.future is not None
        if job.future.decided and job.outcome not in CALLED_OFF:
            return
        if job.future.state == "ended":
            raise Refused("FutureEnded")
        if job.future.state == "queued" or job.status != "deferred":
            raise Refused("FutureAlreadyStarted")

    def release(self, job_id: str, cascade: bool = False) -> bool:
        """Begin a release; `free` goes on with it. With `cascade` it goes on to its blockers."""
        job, future = self.jobs[job_id], self._future(job_id)
        if job.status == "gone":
            raise Refused("JobNotFound")
        if future.state == "ended" and job.outcome in CALLED_OFF:
            raise Refused("FutureEnded")
        if future.state != "open":
            return False
        future.state, future.cascades = "releasing", cascade
        return True

    def free(self, job_id: str, count: int) -> None:
        """One step: lift the gate of the next blockers; after the last one the join is decided."""
        future = self._future(job_id)
        if future.state != "releasing":
            return
        blockers = list(future.edges)
        for blocker in blockers[future.freed : future.freed + count]:
            future.freed += 1
            inner = self.jobs[blocker].future
            if future.cascades and inner and inner.state == "open":
                self.release(blocker, cascade=True)
                self._closing.append(blocker)
            if job_id in self.jobs[blocker].gates:
                self.jobs[blocker].gates.remove(job_id)
                self._lift(self.jobs[blocker])
        if future.freed == len(blockers):
            future.state = "released"
            self._decide(job_id)
        self._settle_all()

    def finish_releases(self, *job_ids: str) -> None:
        """Go on with these releases, and those that they lead to, to their end."""
        self._closing.extend(job_ids)
        while self._closing:
            self.free(self._closing.popleft(), len(self.jobs))

    # Executing -----------------------------------------------------------------------------------

    def start(self, job_id: str) -> None:
        """A worker takes it from the queue; what it held before it holds again."""
        job = self.jobs[job_id]
        self.queue.remove(job_id)
        if job.outcome:
            self._rearm(job)
        job.status = "started"
        if job.future:
            job.future.state = "queued"

    def _rearm(self, job: Job) -> None:
        job.outcome = PENDING
        job.is_needless = False
        self._count(job.run)
        for target in job.blocks:
            future = self._future(target)
            if job.id not in future.edges:
                continue
            was_skipped = self.jobs[target].outcome == "skipped" and not future.decided
            if not future.is_undecided and not was_skipped:
                continue
            future.mark(job.id, PENDING, frozenset())
            if future.state == "met" or was_skipped:
                future.state = "released"
            if was_skipped:
                self.jobs[target].status = "deferred"
                self._rearm(self.jobs[target])

    def retry_attempt(self, job_id: str) -> None:
        """It failed, and RQ puts it back since a retry is left: that is not an end."""
        self.jobs[job_id].retries -= 1
        self.requeue(job_id)

    def requeue(self, job_id: str) -> None:
        """RQ's own requeue of a failed job; what it blocks hears of it when it starts."""
        self.jobs[job_id].status = "queued"
        self.queue.append(job_id)

    # Ending --------------------------------------------------------------------------------------

    def end(self, job_id: str, outcome: str) -> None:
        """An attempt has ended; it may be the second word about the same attempt."""
        job = self.jobs[job_id]
        if job_id in self.queue:
            self.queue.remove(job_id)
        if job.status == "gone":
            return
        job.status = "gone" if outcome in ("deleted", "expired") else outcome
        self._ends.append((job_id, outcome))
        self._settle_all()
        if job.status == "finished":
            self._tell_dependents(job)

    def cancel(self, job_id: str, blockers: bool = False) -> None:
        """Call a job off; with `blockers` also what has not started and blocks nothing else."""
        self.end(job_id, "canceled")
        work = [job_id] if blockers and self.jobs[job_id].future else []
        for each in work:
            for blocker in self._future(each).edges:
                job = self.jobs[blocker]
                if job.status in ("deferred", "queued") and not self._blocks_something(job):
                    self._call_off(blocker, "canceled")
                    work += [blocker] if job.future else []
            self._settle_all()

    def _call_off(self, job_id: str, outcome: str) -> None:
        job = self.jobs[job_id]
        if job.status in ("canceled", "gone"):
            return
        if job_id in self.queue:
            self.queue.remove(job_id)
        job.status = "canceled"
        self._ends.append((job_id, outcome))

    def _settle_all(self) -> None:
        while self._ends or self._abandoned or self._started:
            while self._ends:
                self._settle(*self._ends.popleft())
            if self._abandoned:
                self._abandon(self._abandoned.popleft())
            elif self._started:
                self._end_rest(self._started.popleft())

    def _settle(self, job_id: str, outcome: str) -> None:
        job = self.jobs[job_id]
        if outcome == "deleted" and job.outcome in MET:
            outcome = job.outcome
        if job.run and job.is_needless and outcome != "finished":
            outcome = "passed"
        job.outcome = outcome
        self._count(job.run)
        if job.future:
            is_held = job.future.state in ("open", "releasing")
            job.future.state = "ended"
            if is_held and outcome in CALLED_OFF:
                self._abandoned.append(job_id)
        for target in job.blocks:
            future = self._future(target)
            if future.is_undecided and job_id in future.edges:
                future.mark(job_id, outcome, self._above(job))
                if future.state == "met" and future.verdict() != "run":
                    future.state = "released"
                self._decide(target)
            elif self._is_noted_as_gone(job_id, outcome, self.jobs[target]):
                future.mark(job_id, outcome, self._above(job))

    def _is_noted_as_gone(self, blocker: str, outcome: str, job: Job) -> bool:
        """Whether a job of a run that was called off hears at once that a blocker is gone.

        Of other ends it hears when it is to run again, from the blockers themselves.
        """
        is_pending = job.future is not None and job.future.edges.get(blocker) == ""
        is_gone = outcome in ("deleted", "expired")
        return is_pending and is_gone and bool(job.run) and job.outcome in CALLED_OFF

    def _abandon(self, job_id: str) -> None:
        """It was called off before its release: its held blockers go, or lose this gate."""
        future = self._future(job_id)
        for blocker in list(future.edges)[future.freed :]:
            job = self.jobs[blocker]
            if job_id not in job.gates:
                continue
            job.gates.remove(job_id)
            if self._blocks_something(job):
                self._lift(job)
            elif job.status == "deferred":
                self._call_off(blocker, "canceled")

    def _blocks_something(self, job: Job) -> bool:
        """Whether one of the future jobs that it blocks has not been called off."""
        targets = [self.jobs[target] for target in job.blocks]
        return any(t.status != "gone" and t.outcome not in CALLED_OFF for t in targets)

    # Deciding ------------------------------------------------------------------------------------

    def _decide(self, job_id: str) -> None:
        job, future = self.jobs[job_id], self._future(job_id)
        if future.state != "released":
            return
        verdict = future.verdict()
        if verdict in ("skip", "pass"):
            self._call_off(job_id, {"skip": "skipped", "pass": "passed"}[verdict])
        elif verdict == "run" and not job.gates and job.status == "deferred":
            future.state = "met"
            self._enqueue(job)
            if future.policy in FIRSTS and not future.decided:
                self._note_decision(job_id, future)

    def _note_decision(self, job_id: str, future: Future) -> None:
        future.decided = True
        if future.policy == "one_success":
            future.above.clear()
        if future.cancels:
            self._end_rest(job_id)
            self._started.append(job_id)  # once more, when all else has followed

    def _end_rest(self, job_id: str) -> None:
        """It has started before all of its blockers have ended: nobody needs the others."""
        for blocker in self._future(job_id).edges:
            job = self.jobs[blocker]
            others = (t for t in job.blocks if t != job_id and self._is_awaited(t))
            if job.outcome or next(others, None):
                continue
            job.is_needless |= job.status in ("deferred", "queued", "started")
            if job.status in ("deferred", "queued"):
                self._call_off(blocker, "passed")

    def _is_awaited(self, target: str) -> bool:
        """Whether it still waits, also where a failure is ignored: it reads the result."""
        future = self.jobs[target].future
        return future is not None and future.is_undecided

    def _lift(self, job: Job) -> None:
        if job.status != "deferred" or job.gates:
            return
        if job.future:
            self._decide(job.id)
        else:
            self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """None of our holds is left; RQ's own comes last."""
        if job.depends_on and self.jobs[job.depends_on].status not in ("finished", "gone"):
            return
        job.status = "queued"
        self.queue.insert(0 if job.at_front else len(self.queue), job.id)
        if job.future:
            job.future.state = "queued"
            job.future.queued += 1
            assert job.future.queued == 1, f"{job.id} is queued twice"

    def _tell_dependents(self, ended: Job) -> None:
        """RQ's: what depends on it, and is held by nothing else, is queued when it has finished."""
        for job in self.jobs.values():
            is_held = bool(job.gates) or (job.future is not None and job.future.state != "met")
            if job.depends_on == ended.id and job.status == "deferred" and not is_held:
                self._enqueue(job)

    def _above(self, job: Job) -> frozenset[str]:
        """What went wrong above a job, as far as it has ended."""
        return frozenset().union(*job.future.wrongs()) if job.future else frozenset()

    def _count(self, run: str) -> None:
        """Something that its run counts has changed; `model_runs.py` says what that means."""

    def _future(self, job_id: str) -> Future:
        future = self.jobs[job_id].future
        assert future is not None
        return future
