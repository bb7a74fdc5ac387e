"""Kill -9 at random under load, then an account of every job. The long form: FLOWQ_CHAOS_S=600."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import rq
import worker_jobs
from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import runs
from flowq.runtime.queue import Queue
from flowq.spec import ForEach, JobSpec, Retry, Workflow
from tests.runtime.counting import check_counts
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
RUN = "r1"
SECONDS = float(os.environ.get("FLOWQ_CHAOS_S", "4"))


def children_of(pid: int) -> list[int]:
    with suppress(OSError), Path(f"/proc/{pid}/task/{pid}/children").open() as file:
        return [int(word) for word in file.read().split()]
    return []


def submit_group(connection: Redis) -> None:
    """A run whose events tell all that is done to its items: lost, queued again, tried again."""
    items = ForEach(list(range(200)))
    more: dict[str, Any] = {"for_each": items, "with_": {"n": "${{ item }}"}}
    page = JobSpec("page", "worker_jobs:measure_oneself", retries=Retry(50), **more)
    runs.submit(make_plan(build_graph(Workflow("w", (page,))), {}, RUN), connection)


def test_random_deaths_lose_no_job(queue: Queue, start_worker: Start, wait_until: Wait) -> None:
    dice = random.Random(7)
    futures, jobs = [], []
    for _ in range(4):
        future = queue.enqueue(worker_jobs.count_own_run, deferred=True, retry=rq.Retry(max=50))
        futures.append(future)
        jobs += [
            queue.enqueue(worker_jobs.work_a_little, blocked_by=future, retry=rq.Retry(max=50))
            for _ in range(150)
        ]
        future.release()
    submit_group(queue.connection)
    workers = [start_worker(concurrency=2), start_worker(concurrency=2)]
    wait_until(lambda: int(queue.connection.get("total") or 0) > 10, 10)
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        victim = dice.randrange(len(workers))
        children = children_of(workers[victim].pid)
        if children and dice.random() < 0.85:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(children), 9)
        else:
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = start_worker(concurrency=2)
        check_counts(runs.get_status(RUN, queue.connection), queue.connection)
        until = time.monotonic() + dice.random() / 5
        wait_until(lambda until=until: time.monotonic() > until)
    wait_until(lambda: all(future.get_status() == "finished" for future in futures), 40)
    wait_until(lambda: runs.get_record(RUN, queue.connection).state == "succeeded", 40)
    counted = check_counts(runs.get_status(RUN, queue.connection), queue.connection)
    assert counted is not None
    assert [group.counts for group in counted.groups] == [{("item", "finished"): 200}]
    everything = [*jobs, *futures]
    statuses = Counter(job.get_status().value for job in everything)
    assert statuses == {"finished": len(everything)}
    assert queue.connection.scard("ran") == len(everything)
    assert queue.count == 0
    wait_until(lambda: not queue.connection.zcard("rq:wip:default"))
    assert not queue.connection.keys("rq:execution:*")
