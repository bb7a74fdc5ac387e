"""RQ's own commands, as the processes that they are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from rq import Retry
from rq.command import send_stop_job_command

from flowq.runtime import keys
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

CLASSES = ("--job-class", "flowq.runtime.job.Job", "--queue-class", "flowq.runtime.queue.Queue")

Start = Callable[..., subprocess.Popen[str]]
WaitUntil = Callable[..., None]
Work = Callable[..., None]


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def test_rqs_own_worker_with_our_classes_runs_success_failure_retry_death_and_stop(
    queue: Queue,
    connection: redis.Redis,
    rq_command: Start,
    wait_until: WaitUntil,
    tmp_path: Path,
    edge: Callable[[Job, Job], str],
) -> None:
    """One start of the command for all of them: success, failure, retry, death, stop, additions."""
    log, started = tmp_path / "log", tmp_path / "started"
    future = queue.enqueue(
        "runtime_jobs.note", str(log), "last", deferred=True, on_blocker_failure="run"
    )
    good = queue.enqueue("runtime_jobs.note", str(log), "good", blocked_by=future)
    gone = queue.enqueue("runtime_jobs.note", str(log), "gone", blocked_by=future, result_ttl=0)
    bad = queue.enqueue("runtime_jobs.fail", blocked_by=future)
    again = queue.enqueue("runtime_jobs.fail", blocked_by=future, retry=Retry(max=1))
    dead = queue.enqueue("runtime_jobs.die", blocked_by=future)
    adder = queue.enqueue(
        "runtime_jobs.add_blocker", future.id, "runtime_jobs.note", str(log), "added",
        blocked_by=future,
    )  # fmt: skip
    watched = queue.enqueue("runtime_jobs.depend_on_me", "dependent", blocked_by=future)
    stopped = queue.enqueue("runtime_jobs.hang", str(started), blocked_by=future)
    worker = rq_command("worker", *CLASSES, "--burst")
    try:
        assert future.release() is True
        wait_until(started.exists, within_s=30)
        assert future.get_status() == "deferred"
        send_stop_job_command(connection, stopped.id)
        output = finish(worker)
    finally:
        worker.kill()
    outcomes = {job.id: edge(job, future) for job in (good, gone, bad, again, dead, adder, watched)}
    assert outcomes == {
        good.id: "finished",
        gone.id: "finished",
        bad.id: "failed",
        again.id: "failed",
        dead.id: "failed",
        adder.id: "finished",
        watched.id: "finished",
    }, output
    assert edge(stopped, future) == "stopped"
    assert stopped.get_status() == "stopped"
    assert "signal 9" in future.blockers[4].error
    assert future.get_status() == "finished"
    assert get_job("dependent", connection).get_status() == "finished"
    assert log.read_text().split() == ["good", "gone", "added", "last"]


def test_a_plain_rq_worker_that_ends_a_dependency_leaves_the_held_job_alone(
    queue: Queue, connection: redis.Redis, rq_command: Start, work: Work
) -> None:
    dependency = queue.enqueue("operator.add", 0, 0)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    held = queue.enqueue("operator.add", 1, 1, blocked_by=future, depends_on=dependency)
    finish(rq_command("worker", "--burst"))
    assert dependency.get_status() == "finished"
    assert (held.get_status(), future.get_status()) == ("deferred", "deferred")
    future.release()
    work()
    assert (held.get_status(), future.get_status()) == ("finished", "finished")


def test_rq_requeue_lets_things_go_on_and_rq_info_counts_our_jobs(
    queue: Queue, connection: redis.Redis, rq_command: Start, work: Work, tmp_path: Path
) -> None:
    flag, log = tmp_path / "flag", tmp_path / "log"
    future = queue.enqueue("runtime_jobs.note", str(log), "ran", deferred=True)
    queue.enqueue("runtime_jobs.fail_unless", str(flag), blocked_by=future)
    skipped = queue.enqueue(
        "runtime_jobs.note", str(log), "revived", deferred=True, on_blocker_failure="skip"
    )
    queue.enqueue("runtime_jobs.fail_unless", str(flag), blocked_by=skipped)
    future.release()
    skipped.release()
    work()
    assert (future.get_status(), skipped.get_status()) == ("deferred", "canceled")
    flag.touch()
    assert "queue default 0, 0 executing, 0 finished, 2 failed" in finish(rq_command("info", "-r"))
    finish(rq_command("requeue", "--queue", "default", "--all"))
    work()
    assert (future.get_status(), skipped.get_status()) == ("finished", "finished")
    assert sorted(log.read_text().split()) == ["ran", "revived"]


def test_a_dead_worker_is_found_by_rq_info_with_our_queue_class(
    queue: Queue, connection: redis.Redis, rq_command: Start, edge: Callable[[Job, Job], str]
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    queue.pop_job_id()
    with connection.pipeline() as pipeline:
        blocker.prepare_for_execution("a worker that died", pipeline)
        pipeline.zadd("rq:wip:default", {f"{blocker.id}:execution": 1})
        pipeline.execute()
    finish(rq_command("info", "--raw", "--queue-class", "flowq.runtime.queue.Queue"))
    assert edge(blocker, future) == "failed"
    assert connection.hget(keys.future(future.id), "state") == b"queued"


def test_the_worker_command_with_several_queues(
    queue: Queue, connection: redis.Redis, rq_command: Start, tmp_path: Path
) -> None:
    log: Any = tmp_path / "log"
    other = Queue("other", connection=connection)
    future = other.enqueue("runtime_jobs.note", str(log), "last", deferred=True)
    queue.enqueue("runtime_jobs.note", str(log), "first", blocked_by=future)
    future.release()
    finish(rq_command("worker", "default", "other", *CLASSES, "--burst"))
    assert log.read_text().split() == ["first", "last"]
