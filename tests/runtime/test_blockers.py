"""`job.blockers`: how the blockers have ended, in order, page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from flowq.runtime.blockers import BLOCKERS_PER_READ, Outcome
from flowq.runtime.holds import Edge
from flowq.runtime.job import get_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]


def read_outcomes() -> list[Any]:
    """What a future job does that wants to know what its blockers have brought."""
    from rq import get_current_job

    me = get_job(get_current_job().id, get_current_job().connection)
    return [(outcome.status, outcome.result, outcome.error) for outcome in me.blockers]


def test_a_running_future_job_reads_the_outcomes_in_the_order_of_addition(
    queue: Queue, work: Work
) -> None:
    future = queue.enqueue(read_outcomes, deferred=True, on_blocker_failure="run")
    queue.enqueue("operator.add", 1, 1, blocked_by=future, result_ttl=1)
    queue.enqueue("runtime_jobs.fail", "oh", blocked_by=Edge(future, "ignore"))
    queue.enqueue("operator.add", 2, 2, blocked_by=future).cancel()
    queue.enqueue("operator.add", 3, 3, blocked_by=future).delete()
    future.release()
    queue.enqueue("operator.add", 4, 4, blocked_by=future)
    work()
    assert future.return_value() == [
        ("finished", 2, ""),
        ("failed", None, "ValueError: oh"),
        ("canceled", None, ""),
        ("deleted", None, ""),
        ("finished", 8, ""),
    ]
    assert "in fail" in future.blockers[1].traceback


def test_before_their_end_it_shows_where_they_are(queue: Queue) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    assert list(future.blockers) == [Outcome(blocker.id, blocker.id, "deferred")]
    future.release()
    assert future.blockers[0].status == "queued"


def test_it_is_a_sequence(queue: Queue) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    assert list(future.blockers) == []
    ids = [queue.enqueue("operator.add", 1, 1, blocked_by=future).id for _ in range(3)]
    assert len(future.blockers) == 3
    assert [outcome.job_id for outcome in future.blockers[1:]] == ids[1:]
    assert future.blockers[-1].job_id == ids[2]
    for index in (3, -4):
        with pytest.raises(IndexError):
            future.blockers[index]


def test_many_results_are_read_in_pages(queue: Queue, connection: redis.Redis, work: Work) -> None:
    count = 2 * BLOCKERS_PER_READ + 1
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    data = [Queue.prepare_data("operator.add", (n, 0), blocked_by=future) for n in range(count)]
    queue.enqueue_many(data)
    blockers = future.blockers
    connection.config_resetstat()
    outcomes = iter(blockers)
    next(outcomes)
    assert connection.info("commandstats")["cmdstat_lrange"]["calls"] == 1
    assert connection.info("commandstats")["cmdstat_xrevrange"]["calls"] == BLOCKERS_PER_READ
    assert sum(1 for _ in outcomes) == count - 1
    assert connection.info("commandstats")["cmdstat_lrange"]["calls"] == 3
    connection.config_resetstat()
    assert [blockers[n].job_id for n in range(count)] == [o.job_id for o in blockers[:]]
    assert connection.info("commandstats")["cmdstat_lrange"]["calls"] <= 6
