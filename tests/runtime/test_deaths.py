"""Processes that die between two of their calls, and replies that never arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq import Retry
from rq.job import JobStatus

from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import retry, runs, scripts
from flowq.runtime.maintenance import tidy
from flowq.runtime.queue import Queue

PLAN = Plan(
    "r1",
    "demo",
    {},
    (
        Enqueue("r1-only", "only", Call("operator:neg"), deferred=True),
        Commit("r1"),
        Release("r1-only"),
    ),
)


class Unheard(redis.Redis):
    """A connection on which the reply to one script is lost."""

    lost = ""
    """The digest of a script, or the name of a function."""

    sends_again = True

    def evalsha(self, sha: str, *arguments: Any) -> Any:
        """Call a script."""
        return self._call(super().evalsha, sha, *arguments)

    def fcall(self, function: str, *arguments: Any) -> Any:
        """Call a function."""
        return self._call(super().fcall, function, *arguments)

    def _call(self, call: Callable[..., Any], name: str, *arguments: Any) -> Any:
        """When its reply is to be lost, do what redis-py does then."""
        answer = call(name, *arguments)
        if name != self.lost:
            return answer
        self.lost = ""
        if self.sends_again:
            return call(name, *arguments)
        raise redis.ConnectionError("the server has hung up")


@pytest.fixture
def unheard(connection: redis.Redis) -> Unheard:
    """A connection that can lose a reply; the scripts are loaded."""
    for script in (scripts.COMMIT, scripts.RETRY):
        connection.script_load(script.source)
    connection.function_load(scripts.ADD.library, replace=True)
    return Unheard(connection_pool=connection.connection_pool)


def test_a_death_before_the_transaction_of_a_retry_leaves_the_job_started(
    queue: Queue, work: Callable[..., None]
) -> None:
    job = queue.enqueue("runtime_jobs.fail", retry=Retry(max=2, interval=60), deferred=True)
    job.release()
    job.set_status(JobStatus.STARTED)
    with queue.connection.pipeline() as pipeline:
        job.retry(queue, pipeline)  # and the process dies here
        assert job.get_status() is JobStatus.STARTED
        pipeline.execute()
    assert job.get_status() is JobStatus.SCHEDULED
    assert queue.scheduled_job_registry.get_job_ids() == [job.id]


def test_a_retry_after_a_back_off_is_one_line_in_the_log_of_its_run(
    connection: redis.Redis, work: Callable[..., None]
) -> None:
    enqueue = Enqueue("r1-only", "only", Call("runtime_jobs:fail"), deferred=True)
    runs.submit(Plan("r1", "demo", {}, (enqueue, Commit("r1"), Release("r1-only"))), connection)
    job = Queue(connection=connection).fetch_job("r1-only")
    job.retries_left, job.retry_intervals = 1, [60]
    job.save()
    work()
    states = [event.state for event in runs.read_events("r1", connection) if event.name]
    assert states == ["queued", "started", "scheduled"]


def test_an_addition_that_is_sent_again_is_made_once(unheard: Unheard) -> None:
    unheard.lost = scripts.ADD.function
    queue = Queue(connection=unheard)
    future = queue.enqueue("operator.neg", 1, job_id="f", deferred=True)
    unheard.lost = scripts.ADD.function
    blocker = queue.enqueue("operator.neg", 1, blocked_by=future)
    assert unheard.lrange("rq:deferred:f", 0, -1) == [blocker.id.encode()]
    assert unheard.hget("rq:flowq:1:future:f", "pending") == b"1"


def test_a_run_whose_commit_was_not_heard_of_goes_on(unheard: Unheard) -> None:
    unheard.lost, unheard.sends_again = scripts.COMMIT.digest, False
    with pytest.raises(redis.ConnectionError):
        runs.submit(PLAN, unheard)
    tidy(unheard)
    assert runs.get_record("r1", unheard).state == "running"
    assert Queue(connection=unheard).job_ids == ["r1-only"]


def test_a_commit_that_is_sent_again_is_made_once(unheard: Unheard) -> None:
    unheard.lost = scripts.COMMIT.digest
    runs.submit(PLAN, unheard)
    assert Queue(connection=unheard).job_ids == ["r1-only"]


def test_a_retry_of_a_run_that_is_sent_again_is_made_once(
    unheard: Unheard, work: Callable[..., None]
) -> None:
    enqueue = Enqueue("r1-only", "only", Call("runtime_jobs:fail"), deferred=True)
    runs.submit(Plan("r1", "demo", {}, (enqueue, Commit("r1"), Release("r1-only"))), unheard)
    work()
    unheard.lost = scripts.RETRY.digest
    assert retry.retry("r1", unheard) == ("r1-only",)
    assert Queue(connection=unheard).job_ids == ["r1-only"]
    assert unheard.hget("rq:job:r1-only", "flowq_gen") == b"1"
