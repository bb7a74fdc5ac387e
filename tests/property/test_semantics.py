"""Random orders of everything that can happen to future jobs, on the real server and in the model.

`FLOWQ_LONG=1` makes it a proof of minutes instead of seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowq.errors import FlowqError
from tests.property.model import FIRSTS, Future, Job, Refused
from tests.property.model_runs import ModelWithRuns, Run
from tests.property.playing import FOR_GOOD, Server

IS_LONG = bool(os.environ.get("FLOWQ_LONG"))
SETTINGS = settings(
    max_examples=3_000 if IS_LONG else 50,
    stateful_step_count=60 if IS_LONG else 40,
    deadline=None,
    derandomize=not IS_LONG,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
BAD_RUNS = ("failed", "canceled")
LIMIT = 14  # jobs, so that they have to do with each other

POLICIES = st.sampled_from(["wait", "skip", "run", "one_success", "one_failed"])
NUMBER = st.integers(0, 999)
WORK = ("finished", "finished", "finished", "failed", FOR_GOOD)
ENDS = ("finished", "failed", "stopped", "canceled")
T = TypeVar("T")


def is_alive(job: Job) -> bool:
    return job.status not in ("canceled", "gone")


def is_there(job: Job) -> bool:
    return job.status != "gone"


def test_the_server_keeps_the_promises_of_the_model(connection: redis.Redis) -> None:
    Semantics.connection = connection
    run_state_machine_as_test(Semantics, settings=SETTINGS)


class Semantics(RuleBasedStateMachine):
    """One rule for each thing that a caller, a worker or time does; numbers pick the job."""

    connection: redis.Redis

    @initialize()
    def begin(self) -> None:
        self.connection.flushall()
        self.server = Server(self.connection)
        self.model = ModelWithRuns()
        self.made = 0

    # Picking -------------------------------------------------------------------------------------

    def ids(self, is_wanted: Callable[[Job], bool]) -> list[str]:
        return [job.id for job in self.model.jobs.values() if is_wanted(job)]

    def futures(self) -> list[str]:
        return self.ids(lambda job: job.future is not None)

    @property
    def is_rare(self) -> bool:
        """Now and then: so that not everything is called off before anything has happened."""
        return self.made % 3 == 0

    def with_state(self, state: str) -> list[str]:
        return self.ids(lambda job: job.future is not None and job.future.state == state)

    def ended_blockers(self) -> list[str]:
        """What may be heard of twice; RQ queues a dependent that ended in any way but canceled."""
        is_ours = self.ids(lambda job: bool(job.blocks or job.future) and not job.depends_on)
        return [job_id for job_id in is_ours if self.model.jobs[job_id].status in ENDS]

    def requeueable(self) -> list[str]:
        """What RQ's own requeue accepts: what is in its registry, and not running elsewhere."""
        jobs = self.model.jobs
        failed = [job_id for job_id in self.server.failed() if job_id in jobs]
        return [job_id for job_id in failed if not self.model.is_canceling(jobs[job_id])]

    def jobs_to_add_again(self) -> list[str]:
        ids = self.ids(lambda job: bool(job.blocks) and not job.run)
        return [job_id for job_id in ids if job_id not in self.server.executions]

    def mortal(self) -> list[str]:
        return [job_id for job_id in self.model.queue if self.server.is_mortal(job_id)]

    def active_runs(self) -> list[str]:
        return [run for run, record in self.model.runs.items() if record.state == "running"]

    def retryable(self) -> list[str]:
        def is_ready(job: Job) -> bool:
            return job.status != "gone" and job.id not in self.server.executions

        ended = [run for run, record in self.model.runs.items() if record.state in BAD_RUNS]
        return [run for run in ended if all(map(is_ready, self.model.in_run(run)))]

    def targets(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Future jobs to block; mostly those that can be blocked still, of one run at most.

        (When one of two runs is retried, the gate of a blocker that both share is lifted twice.)
        """
        still = self.ids(lambda job: job.future is not None and job.future.is_undecided)
        picked = [pick(n // 8, still if n % 8 else self.futures()) for n in numbers]
        chosen = tuple(dict.fromkeys(filter(None, picked)))
        runs = [run for job_id in chosen if (run := self.model.jobs[job_id].run)]
        return tuple(i for i in chosen if self.model.jobs[i].run in ("", *runs[:1]))

    def both(self, model: Callable[[], T], server: Callable[[], T]) -> None:
        """Do it in both; an error in one must be the same error in the other."""
        try:
            expected: Any = model()
        except Refused as error:
            with pytest.raises(FlowqError) as caught:
                server()
            assert type(caught.value).__name__ == str(error)  # noqa: PT017 - not about `error`
        else:
            answer = server()
            if isinstance(expected, bool):
                assert answer is expected

    # Adding --------------------------------------------------------------------------------------

    def add(self, job: Job, ignored: int) -> None:
        loose = frozenset(target for i, target in enumerate(job.blocks) if ignored >> i & 1)
        self.both(lambda: self.model.add(job, loose), lambda: self.server.add(job, loose))

    def new_id(self, letter: str) -> str:
        self.made += 1
        return f"{letter}{self.made}"

    @precondition(lambda self: len(self.model.jobs) < LIMIT)
    @rule(
        policy=POLICIES,
        if_empty=st.sampled_from(["run", "run", "skip"]),
        blocked=st.lists(NUMBER, max_size=2),
        ignored=st.integers(0, 3),
    )
    def add_future(self, policy: str, if_empty: str, blocked: list[int], ignored: int) -> None:
        cancels = policy in FIRSTS and if_empty == "skip"
        future = Future(policy, if_empty, cancels=cancels)
        self.add(Job(self.new_id("f"), self.targets(blocked), future), ignored)

    @precondition(lambda self: len(self.model.jobs) < LIMIT - 3)
    @rule(policy=POLICIES, size=st.integers(1, 3), blocked=st.lists(NUMBER, max_size=1))
    def declare(self, policy: str, size: int, blocked: list[int]) -> None:
        """A future job and its blockers, released."""
        future = self.new_id("f")
        cancels = policy in FIRSTS and size == 3
        self.add(Job(future, self.targets(blocked), Future(policy, cancels=cancels)), 0)
        if future in self.model.jobs:
            for _ in range(size):
                self.add(Job(self.new_id("b"), (future,)), 0)
            self.release(self.futures().index(future), False)

    @precondition(lambda self: len(self.model.jobs) < LIMIT and self.futures())
    @rule(
        blocked=st.lists(NUMBER, min_size=1, max_size=3),
        ignored=st.sampled_from([0, 0, 0, 1, 2, 7]),
        at_front=st.sampled_from([False, False, False, True]),
        retries=st.sampled_from([0, 0, 0, 1]),
    )
    def add_blocker(self, blocked: list[int], ignored: int, at_front: bool, retries: int) -> None:
        blocks = self.targets(blocked)
        if blocks:
            job = Job(self.new_id("b"), blocks, at_front=at_front, retries=retries)
            self.add(job, ignored)

    @precondition(lambda self: 0 < len(self.model.jobs) < LIMIT - 2)
    @rule(is_future=st.booleans(), blocked=st.lists(NUMBER, min_size=1, max_size=2))
    def add_with_a_dependency(self, is_future: bool, blocked: list[int]) -> None:
        blocks = self.targets(blocked)
        dependency = Job(self.new_id("d"), status="queued")
        self.model.jobs[dependency.id] = dependency
        self.model.queue.append(dependency.id)
        self.server.add_plain(dependency)
        if blocks or is_future:
            future = Future() if is_future else None
            self.add(Job(self.new_id("j"), blocks, future, depends_on=dependency.id), 0)

    @precondition(lambda self: self.jobs_to_add_again())
    @rule(number=NUMBER, blocked=st.lists(NUMBER, max_size=2))
    def add_again(self, number: int, blocked: list[int]) -> None:
        """An adder that is executed again; of a job that is gone perhaps in front of others."""
        old = self.model.jobs[pick(number, self.jobs_to_add_again())]
        blocks = old.blocks
        if old.status == "gone" and not old.future:
            blocks = self.targets(blocked) or old.blocks
        future = Future() if old.future else None
        self.add(Job(old.id, blocks, future, depends_on=old.depends_on), 0)

    # Releasing -----------------------------------------------------------------------------------

    @precondition(lambda self: self.futures())
    @rule(number=NUMBER, cascade=st.sampled_from([False, False, True]))
    def release(self, number: int, cascade: bool) -> None:
        chosen = pick(number, self.futures())

        def by_model() -> bool:
            is_first = self.model.release(chosen, cascade)
            self.model.finish_releases(chosen)
            return is_first

        self.both(by_model, lambda: self.server.release(chosen, cascade))

    @precondition(lambda self: self.with_state("open"))
    @rule(number=NUMBER)
    def begin_a_release_and_die(self, number: int) -> None:
        chosen = pick(number, self.with_state("open"))
        self.model.release(chosen)
        self.server.begin_release(chosen)

    @precondition(lambda self: self.with_state("releasing"))
    @rule(number=NUMBER)
    def go_on_with_a_release(self, number: int) -> None:
        chosen = pick(number, self.with_state("releasing"))
        self.model.free(chosen, 2)
        self.server.go_on(chosen, 2)

    # Executing -----------------------------------------------------------------------------------

    @precondition(lambda self: self.model.queue)
    @rule(by_rq=st.booleans())
    def start(self, by_rq: bool) -> None:
        chosen = self.model.queue[0]
        if chosen not in self.server.executions:
            self.model.start(chosen)
            self.server.start(chosen, by_rq)

    @precondition(lambda self: self.model.queue and not self.server.executions)
    @rule(by_rq=st.booleans(), outcomes=st.lists(st.sampled_from(WORK), min_size=1, max_size=4))
    def work(self, by_rq: bool, outcomes: list[str]) -> None:
        for outcome in outcomes:
            if self.model.queue:
                self.start(by_rq)
                self.they_agree()
                self.end(0, outcome)
                self.they_agree()

    @precondition(lambda self: self.model.queue and not self.server.executions)
    @rule(count=st.integers(1, 4), by_rq=st.booleans())
    def work_well(self, count: int, by_rq: bool) -> None:
        self.work(by_rq, ["finished"] * count)

    @precondition(lambda self: self.requeueable() and not self.server.executions)
    @rule(number=NUMBER, by_rq=st.booleans(), outcome=st.sampled_from(WORK))
    def run_again(self, number: int, by_rq: bool, outcome: str) -> None:
        """A requeue whose job is started at once; what was skipped because of it waits again."""
        chosen = pick(number, self.requeueable())
        self.requeue(number)
        while chosen in self.model.queue:
            self.work(by_rq, [outcome])

    @precondition(lambda self: self.server.executions)
    @rule(number=NUMBER, outcome=st.sampled_from(["finished", "finished", *WORK, "stopped"]))
    def end(self, number: int, outcome: str) -> None:
        chosen = pick(number, sorted(self.server.executions))
        job = self.model.jobs[chosen]
        if job.status == "gone":  # RQ would retry it, or write its hash anew
            self.server.end(chosen, "stopped")
            self.server.forget(chosen)
        elif not self.server.end(chosen, outcome):
            assert job.status in ENDS
        elif (
            outcome == "failed"
            and job.retries
            and not job.is_needless
            and not self.model.is_canceling(job)
        ):
            self.model.retry_attempt(chosen)
        else:
            self.model.end(chosen, "failed" if outcome == FOR_GOOD else outcome)

    @precondition(lambda self: self.ended_blockers())
    @rule(number=NUMBER, outcome=st.sampled_from(ENDS))
    def hear_of_another_end(self, number: int, outcome: str) -> None:
        """A lost reply, a stop that comes too late, a cancel that crosses a success."""
        chosen = pick(number, self.ended_blockers())
        self.model.end(chosen, outcome)
        self.server.set_status(chosen, outcome)

    @precondition(lambda self: self.requeueable())
    @rule(number=NUMBER)
    def requeue(self, number: int) -> None:
        chosen = pick(number, self.requeueable())
        self.model.requeue(chosen)
        self.server.requeue(chosen)

    # Calling off ---------------------------------------------------------------------------------

    @precondition(lambda self: self.is_rare and self.ids(is_alive))
    @rule(number=NUMBER, blockers=st.sampled_from([False, False, True]))
    def cancel(self, number: int, blockers: bool) -> None:
        chosen = pick(number, self.ids(is_alive))
        self.model.cancel(chosen, blockers)
        self.server.cancel(chosen, blockers)

    @precondition(lambda self: self.is_rare and self.ids(is_there))
    @rule(number=NUMBER)
    def delete(self, number: int) -> None:
        chosen = pick(number, self.ids(is_there))
        self.model.end(chosen, "deleted")
        self.server.delete(chosen)

    @precondition(lambda self: self.mortal())
    @rule(number=NUMBER)
    def expire(self, number: int) -> None:
        """Its time to live is over in the queue, and a worker pops it."""
        chosen = pick(number, self.mortal())
        self.server.expire(chosen)
        self.model.end(chosen, "expired")

    @precondition(lambda self: self.is_rare)
    @rule()
    def lose_all_scripts(self) -> None:
        self.connection.script_flush()

    # Runs ----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.jobs) < LIMIT - 4 and len(self.model.runs) < 2)
    @rule(size=st.integers(1, 4), edges=NUMBER, policies=st.lists(POLICIES, min_size=4, max_size=4))
    def submit(self, size: int, edges: int, policies: list[str]) -> None:
        """Job k of the run blocks some of those before it, which are the later ones."""
        run = self.new_id("run")
        jobs: list[Job] = []
        for k in range(size):
            blocks = [jobs[i].id for i in range(k) if edges >> (k * (k - 1) // 2 + i) & 1]
            jobs.append(Job(f"{run}-n{k}", tuple(blocks), run=run))
        for job, policy in zip(jobs, policies, strict=False):
            is_future = not job.blocks or any(job.id in other.blocks for other in jobs)
            needs_success = policy == "skip"
            cancels = policy in FIRSTS and bool(edges & 1)
            future = Future(policy, needs_success=needs_success, cancels=cancels)
            job.future = future if is_future else None
        self.model.runs[run] = Run(releases=[job.id for job in reversed(jobs) if job.future])
        for job in jobs:
            self.model.add(job)
        self.server.submit(run, jobs)
        self.model.release_run(run)

    @precondition(lambda self: self.active_runs())
    @rule(number=NUMBER)
    def cancel_run(self, number: int) -> None:
        run = pick(number, self.active_runs())
        self.model.cancel_run(run)
        self.server.cancel_run(run)

    @precondition(lambda self: self.retryable())
    @rule(number=NUMBER)
    def retry_run(self, number: int) -> None:
        run = pick(number, self.retryable())
        self.both(lambda: self.model.retry_run(run), lambda: self.server.retry_run(run))

    # Comparing -----------------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        self.server.tidy()
        self.server.compare(self.model)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            try:
                self.server.remove_everything(self.model)
            finally:
                self.server.redis_side.disconnect()  # a pool has a hundred connections


def pick(number: int, choices: Sequence[str]) -> str:
    return choices[number % len(choices)] if choices else ""
