"""`flowq worker` with the options that RQ's users know, and with its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq import Repeat, Retry

from flowq.runtime.queue import Queue
from tests.cli.commands import Flowq, Said

OWN_CLASS = """
from flowq.runtime.job import Job
from rq import get_current_job

class Own(Job):
    pass

def tell():
    return type(get_current_job()).__name__
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--allow", "shop.py", "billing.py"), "that is a file here"),
        (("--allow", "*"), "without --allow a worker executes everything"),
        (("--allow", "shop"), "it takes 'shop.*'"),
        (("--job-class", "nowhere.Job"), "nowhere"),
    ],
)
def test_what_a_worker_cannot_be_started_with_is_said_alone(
    call: Callable[..., Said], folder: Path, redis_url: str, words: tuple[str, ...], told: str
) -> None:
    (folder / "shop.py").touch()
    said = call("worker", *words, "--burst", "--redis-url", redis_url)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert told in said.err


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def test_max_jobs_ends_the_worker_and_leaves_the_rest(
    flowq: Flowq, queue: Queue, redis_url: str
) -> None:
    for _ in range(5):
        queue.enqueue("os.getpid")
    worker = flowq("worker", "--max-jobs", "2", "--redis-url", redis_url)
    assert (worker.returncode, queue.count) == (0, 3), worker.stderr


def test_max_idle_time_ends_the_worker_when_there_was_nothing_to_do(
    flowq: Flowq, queue: Queue, redis_url: str
) -> None:
    job = queue.enqueue("os.getpid")
    worker = flowq("worker", "--max-idle-time", "1", "--redis-url", redis_url)
    assert (worker.returncode, bool(job.return_value())) == (0, True), worker.stderr


@pytest.mark.parametrize(
    ("words", "processes"),
    [
        (["--mode", "fork"], 4),
        (["--mode", "warm"], 1),
        (["--mode", "warm", "--max-jobs-per-child", "2"], 2),
        (["--multiprocessing", "--max-jobs-per-child", "2"], 2),
    ],
)
def test_the_mode_decides_how_many_processes_there_are(
    flowq: Flowq, queue: Queue, redis_url: str, words: list[str], processes: int
) -> None:
    jobs = [queue.enqueue("os.getpid") for _ in range(4)]
    worker = flowq("worker", "--burst", *words, "--redis-url", redis_url)
    assert len({job.return_value() for job in jobs}) == processes, worker.stderr


@pytest.mark.parametrize("mode", ["fork", "warm", "multiprocessing"])
def test_each_end_is_logged_once(flowq: Flowq, queue: Queue, redis_url: str, mode: str) -> None:
    first = queue.enqueue("os.getpid", job_id="first")
    queue.enqueue("os.getpid", job_id="after", depends_on=first)
    queue.enqueue("os.getpid", job_id="again", repeat=Repeat(times=1))
    queue.enqueue("os.kill", job_id="bad", retry=Retry(max=1))
    worker = flowq("worker", "--burst", "--mode", mode, "--redis-url", redis_url)
    log = worker.stdout + worker.stderr
    assert (log.count(" first "), log.count(" after ")) == (1, 1), log
    assert (log.count(": again finished"), log.count("bad failed")) == (2, 2)
    assert "Successfully completed" not in log
    # Children of that mode have no log of their own.
    assert mode == "multiprocessing" or "again scheduled to repeat (1 left)" in log


def test_the_options_that_rq_has_too_do_here_what_they_do_there(
    flowq: Flowq, queue: Queue, redis_url: str, folder: Path
) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "own_class.py").write_text(OWN_CLASS, encoding="utf-8")
    job = queue.enqueue("own_class.tell")
    words = "worker -b -P elsewhere --job-class own_class.Own --results-ttl 77 -n w -s"
    worker = flowq(*words.split(), "--logging-level", "error", "--redis-url", redis_url)
    assert job.return_value() == "Own", worker.stderr
    assert 60 < queue.connection.ttl(f"rq:results:{job.id}") <= 77
    assert "listening on" not in worker.stderr + worker.stdout


def test_without_batches_jobs_are_executed_all_the_same(
    flowq: Flowq, queue: Queue, redis_url: str
) -> None:
    jobs = [queue.enqueue("os.getpid") for _ in range(20)]
    words = ["worker", "--burst", "--mode", "warm", "--no-batches", "--dequeue-strategy", "random"]
    worker = flowq(*words, "--redis-url", redis_url)
    assert all(job.return_value() for job in jobs), worker.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--multiprocessing", "--mode", "fork"], "give one of them"),
        (["--job-class", "nowhere.Own"], "there is no nowhere.Own to import"),
        (["--job-class", "os.getpid"], "getpid is not a subclass of flowq.Job"),
        (["--max-jobs", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    call: Callable[..., Said], redis_url: str, words: list[str], said: str
) -> None:
    answer = call("worker", *words, "--redis-url", redis_url)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_the_module_takes_the_same_options(queue: Queue, redis_url: str) -> None:
    jobs = [queue.enqueue("os.getpid") for _ in range(5)]
    words = ["--url", redis_url, "--mode", "warm", "--max-jobs", "4", "--max-jobs-per-child", "2"]
    words += ["--no-batches", "--results-ttl", "77", "--logging-level", "ERROR"]
    command = [sys.executable, "-m", "flowq.workers", *words]
    worker = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (worker.returncode, worker.stderr, queue.count) == (0, "", 1)
    assert len({job.return_value() for job in jobs[:4]}) == 2
    assert queue.connection.ttl(f"rq:results:{jobs[0].id}") <= 77
