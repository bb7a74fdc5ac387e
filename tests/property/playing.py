"""The real server as the state machine plays on it: one call for each thing that can happen.

Jobs are started and ended by the code of RQ's worker and by the scripts of ours, without running
any function: a step takes a millisecond or two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import redis
from rq import SimpleWorker
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus, Retry
from rq.utils import as_text, now

from flowq.errors import DoNotRetry
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import job as runtime_job
from flowq.runtime import keys, retry, runs, scripts, steps
from flowq.runtime.holds import Edge
from flowq.runtime.queue import Queue
from flowq.spec import Block
from flowq.workers.claims import Claim
from flowq.workers.messages import End
from flowq.workers.redis_side import Capacity, RedisSide, Turn
from tests.property.model import FIRSTS, Future, Job
from tests.property.model_runs import ModelWithRuns

TTL_S = 5_000
FOR_GOOD = "failed for good"
"""A failure that is no reason to try the job again, though retries are left."""


class Server:
    """What callers and workers do, and what can be seen afterwards."""

    def __init__(self, connection: redis.Redis) -> None:
        self.connection = connection
        self.queue = Queue(connection=connection)
        options = {"connection": connection, "job_class": runtime_job.Job, "queue_class": Queue}
        self.worker = SimpleWorker([self.queue], **options)
        self.worker.procline = lambda message: None  # type: ignore[method-assign]
        self.redis_side = RedisSide(connection, "ours", ["default"], 30)
        self.executions: dict[str, tuple[runtime_job.Job, Execution] | Claim] = {}

    def get(self, job_id: str) -> runtime_job.Job:
        return runtime_job.get_job(job_id, self.connection)

    # Adding and releasing ------------------------------------------------------------------------

    def add(self, job: Job, ignored: frozenset[str]) -> None:
        edges = [Edge(t, "ignore" if t in ignored else None) for t in job.blocks]
        options: dict[str, Any] = {"job_id": job.id, "blocks": edges or None}
        if job.future:
            options["deferred"] = True
            if job.future.policy in FIRSTS:
                options["start_when"] = job.future.policy
                options["cancel_rest"] = job.future.cancels
            else:
                options["on_blocker_failure"] = job.future.policy
                options["if_empty"] = job.future.if_empty
        if job.retries:
            options["retry"] = Retry(max=job.retries)
        if job.depends_on:
            options["depends_on"] = RQJob(job.depends_on, connection=self.connection)
        if job.id[-1] in "02468":
            options["ttl"] = TTL_S
        self.queue.enqueue("operator.add", 1, 1, at_front=job.at_front, **options)

    def add_plain(self, job: Job) -> None:
        self.queue.enqueue("operator.add", 1, 1, job_id=job.id)

    def release(self, job_id: str, cascade: bool) -> bool:
        job = runtime_job.Job(job_id, connection=self.connection)
        return job.release(cascade=cascade)

    def begin_release(self, job_id: str) -> None:
        answer = scripts.RELEASE.call(self.connection, keys.job(job_id), job_id, 0)
        assert answer == [1]

    def go_on(self, job_id: str, count: int) -> None:
        scripts.STEP.call(self.connection, keys.TODO, f"free:{job_id}", count)

    # Executing -----------------------------------------------------------------------------------

    def start(self, job_id: str, by_rq: bool) -> None:
        if by_rq:
            assert self.queue.pop_job_id() == job_id
            job = self.get(job_id)
            execution = self.worker.prepare_execution(job)
            self.worker.prepare_job_execution(job)
            self.executions[job_id] = (job, execution)
        else:
            (claim,) = self._turn([], 1).claims
            assert claim.job_id == job_id
            self.executions[job_id] = claim

    def _turn(self, ends: list[Claim], slots: int) -> Turn:
        return self.redis_side.turn(ends, Capacity(slots, slots, slots))

    def end(self, job_id: str, outcome: str) -> bool:
        """Return False when the execution was taken away: by RQ's cancel, for our own worker."""
        running = self.executions.pop(job_id)
        is_final, outcome = outcome == FOR_GOOD, "failed" if outcome == FOR_GOOD else outcome
        if isinstance(running, Claim):
            answer = self._end_as_ours(running, outcome)
            if answer != "conclude":
                return answer == "ok"
            running = (self.get(job_id), Execution(running.execution_id, job_id, self.connection))
            running[1].created_at = now()
        if is_final:
            running[0].note_failure(DoNotRetry())
        self._end_as_rq(*running, outcome)
        return True

    def _end_as_ours(self, claim: Claim, outcome: str) -> str:
        keeps = claim.find("flowq_blocks") or claim.find("flowq_run")
        ttl = ("-1" if keeps else "500") if outcome == "finished" else ""
        at = time.time()
        generation = int(claim.find("flowq_gen") or 0)
        claim.end = End(claim.number, outcome, "turn", at, at, ttl, generation=generation)
        if outcome == "failed" and claim.find("retries_left") not in ("", "0"):
            is_there = self.connection.exists(f"rq:execution:{claim.job_id}:{claim.execution_id}")
            return "conclude" if is_there else "lost"
        (answer,) = self._turn([claim], 0).answers
        return answer

    def _end_as_rq(self, job: runtime_job.Job, execution: Execution, outcome: str) -> None:
        job.started_at = job.started_at or now()
        job.ended_at = now()
        if outcome == "finished":
            job._status = JobStatus.FINISHED
            registry = self.queue.started_job_registry
            self.worker.handle_job_success(job, self.queue, registry, execution)
            return
        if outcome == "stopped":
            self.worker._stopped_job_id = job.id
        self.worker.handle_job_failure(job, self.queue, exc_string="boom", execution=execution)

    def forget(self, job_id: str) -> None:
        self.connection.delete(keys.job(job_id), keys.results(job_id))

    def set_status(self, job_id: str, outcome: str) -> None:
        self.get(job_id).set_status(JobStatus(outcome))

    def failed(self) -> list[str]:
        """What a requeue by RQ's own tools finds, and RQ would not refuse."""
        ids = [as_text(i) for i in self.connection.zrange("rq:failed:default", 0, -1)]
        return sorted(i for i in ids if self._status(i) == "failed" and i not in self.executions)

    def _status(self, job_id: str) -> str:
        return as_text(self.connection.hget(keys.job(job_id), "status") or b"gone")

    def requeue(self, job_id: str) -> None:
        self.get(job_id).requeue()

    # Calling off ---------------------------------------------------------------------------------

    def cancel(self, job_id: str, blockers: bool) -> None:
        self.get(job_id).cancel(blockers=blockers)

    def delete(self, job_id: str) -> None:
        self.get(job_id).delete()

    def is_mortal(self, job_id: str) -> bool:
        """Whether it has a time to live of its own, which may be over before it is started."""
        return bool(self.connection.exists(f"rq:flowq:1:mortal:{job_id}"))

    def expire(self, job_id: str) -> None:
        self.connection.delete(keys.job(job_id))
        self.connection.lrem(self.queue.key, 1, job_id)
        Queue._fetch_dequeued_job(self.connection, self.queue.key, job_id)

    # Runs ----------------------------------------------------------------------------------------

    def submit(self, run: str, jobs: Iterable[Job]) -> None:
        enqueues = [self._enqueue(run, job) for job in jobs]
        releases = [Release(each.job_id) for each in reversed(enqueues) if each.deferred]
        runs.submit(Plan(run, "random", {}, (*enqueues, Commit(run), *releases)), self.connection)

    def _enqueue(self, run: str, job: Job) -> Enqueue:
        future = job.future or Future()
        return Enqueue(
            job_id=job.id,
            name=job.id.removeprefix(f"{run}-"),
            does=Call("operator:add"),
            deferred=job.future is not None,
            is_open=job.future is not None,
            blocks=tuple(Block(target) for target in job.blocks),
            on_blocker_failure="run" if future.policy in FIRSTS else future.policy,  # type: ignore[arg-type]
            start_when=future.policy if future.policy in FIRSTS else None,  # type: ignore[arg-type]
            cancel_rest=future.cancels,
        )

    def cancel_run(self, run: str) -> None:
        self.connection.hset(keys.run(run), "canceling", 1)
        steps.finish(self.connection, f"cancel:{run}")

    def retry_run(self, run: str) -> None:
        retry.retry(run, self.connection)

    # Looking -------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Make all steps that are left, but those of releases, which have rules of their own."""
        while operations := [o for o in self.todo() if not o.startswith("free:")]:
            steps.finish(self.connection, *operations)

    def todo(self) -> list[str]:
        return [as_text(operation) for operation in self.connection.zrange(keys.TODO, 0, -1)]

    def compare(self, model: ModelWithRuns) -> None:
        """Fail where the server differs from the model."""
        jobs, pipe = list(model.jobs.values()), self.connection.pipeline(transaction=False)
        for job in jobs:
            pipe.hmget(keys.job(job.id), "status", "flowq_outcome", "flowq_gates", "flowq_gen")
        fields = pipe.execute()
        queue = [as_text(i) for i in self.connection.lrange(self.queue.key, 0, -1)]
        deferred = {as_text(i) for i in self.connection.zrange("rq:deferred:default", 0, -1)}
        assert queue == model.queue, f"server {queue}, model {model.queue}"
        assert deferred == {job.id for job in jobs if job.status == "deferred"}
        for job, (status, outcome, gates, generation) in zip(jobs, fields, strict=True):
            if job.status == "gone":
                self._compare_gone(job)
                continue
            seen = as_text(status or b"gone"), as_text(outcome or b"")
            assert seen == (job.status, job.outcome if job.blocks or job.future else ""), job.id
            assert int(generation or 0) == job.generation, job.id
            if job.status == "deferred":
                assert int(gates or 0) == len(job.gates), job.id
            if job.future:
                self._compare_future(job, job.future)
        for run in model.runs:
            self._compare_run(run, model)

    def _compare_gone(self, job: Job) -> None:
        if not job.future:
            return
        left = (keys.future(job.id), keys.edges(job.id), keys.blockers(job.id))
        if not job.run:
            assert self.connection.exists(*left) == 0, job.id

    def _compare_future(self, job: Job, future: Future) -> None:
        raw = {
            as_text(k): as_text(v) for k, v in self.connection.hgetall(keys.future(job.id)).items()
        }
        state = raw["state"]
        if state == "met" and job.status != "deferred":
            state = "queued"  # by RQ, which does not tell us before it is started
        assert ("ended" if state not in STATES else state) == future.state, job.id
        listed = [as_text(i) for i in self.connection.lrange(keys.blockers(job.id), 0, -1)]
        assert listed == list(future.edges), job.id
        edges = {
            as_text(k): as_text(v) for k, v in self.connection.hgetall(keys.edges(job.id)).items()
        }
        expected = {
            blocker: (outcome or "pending") + ("!" if blocker in future.ignored else "")
            for blocker, outcome in future.edges.items()
        }
        assert edges == expected, job.id
        assert ("decided" in raw) == future.decided, job.id
        self._compare_wrongs(job, future, raw)
        if future.is_undecided:
            pending = sum(outcome == "" for outcome in future.edges.values())
            is_first = future.policy in FIRSTS
            assert int(raw.get("pending", 0)) == pending + is_first, job.id
            counts = [int(raw.get(name, 0)) for name in ("bad", "lost")]
            if is_first:
                assert int(raw.get("won", 0)) == future.starts(), job.id
            if future.policy == "one_failed":
                assert counts == [list(future.outcomes()).count("canceled"), 0], job.id
                return
            holding = [o for o in future.outcomes() if o not in ("", "finished", "passed")]
            lost = holding.count("expired")
            dropped = holding.count("deleted") if future.policy == "wait" else 0
            assert counts == [len(holding) - lost - dropped, lost], job.id

    def _compare_wrongs(self, job: Job, future: Future, raw: dict[str, str]) -> None:
        for kind in ("failed", "canceled"):
            count = sum(kind in wrong for wrong in future.wrongs())
            assert int(raw.get(kind, 0)) == count, f"{job.id}: {kind}"
        expected = {
            blocker: " ".join(sorted(above, reverse=True))
            for blocker, above in future.above.items()
            if above and blocker not in future.ignored
        }
        assert self._read(keys.above(job.id)) == expected, job.id

    def _read(self, key: str) -> dict[str, str]:
        return {as_text(k): as_text(v) for k, v in self.connection.hgetall(key).items()}

    def _compare_run(self, run: str, model: ModelWithRuns) -> None:
        state, left, bad = self.connection.hmget(keys.run(run), "state", "left", "bad")
        assert (int(left), int(bad)) == model.counts(run), run
        assert as_text(state) == model.runs[run].state, run

    # The end -------------------------------------------------------------------------------------

    def remove_everything(self, model: ModelWithRuns) -> None:
        """Work off the todo, delete all jobs and runs, and fail when anything of ours is left."""
        while steps.run_steps(self.connection):
            pass
        for run in model.runs:
            runs.remove(run, self.connection)
        for job_id in model.jobs:
            if self.connection.exists(keys.job(job_id)):
                self.get(job_id).delete()
        while steps.run_steps(self.connection):
            pass
        lists = {f"rq:deferred:{job_id}" for job_id in model.jobs}
        names = {as_text(key) for key in self.connection.keys("*")}
        left = {name for name in names if name.startswith(("rq:flowq:", "rq:job:"))}
        left = (left | names & lists) - {keys.WORKERS, keys.FORGOTTEN, keys.METRICS}
        assert not left, left


STATES = {"open", "releasing", "released", "met", "queued"}
