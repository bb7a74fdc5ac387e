"""What cannot be meant is refused with one sentence, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from rq import RateLimit
from rq.exceptions import DuplicateJobError
from rq.group import Group

from flowq.errors import (
    CycleError,
    FlowqError,
    FutureAlreadyStarted,
    FutureEnded,
    JobIdTaken,
    JobNotFound,
    NotAFutureJob,
    Unsupported,
    UsageError,
)
from flowq.runtime.holds import Edge
from flowq.runtime.job import Job, get_job, release_job
from flowq.runtime.queue import Queue
from flowq.workers import Worker

Work = Callable[..., None]
Refuses = Callable[..., Any]


@pytest.fixture
def refuses(dump: Callable[[], dict[bytes, Any]]) -> Refuses:
    """`with refuses(Error, match):` the error comes, and the keyspace stays as it was."""

    @contextmanager
    def check(error: type[Exception], match: str | None = None) -> Iterator[None]:
        before = dump()
        with pytest.raises(error, match=match) as caught:
            yield
        assert dump() == before
        assert "\n" not in str(caught.value)

    return check


def test_blocking_what_is_not_a_future_job(queue: Queue, refuses: Refuses) -> None:
    plain = queue.enqueue("operator.add", 1, 2)
    with refuses(NotAFutureJob, "deferred=True"):
        queue.enqueue("operator.add", 1, 2, blocked_by=plain)


def test_blocking_what_is_not_there(queue: Queue, refuses: Refuses) -> None:
    with refuses(JobNotFound, "no job nothing"):
        queue.enqueue("operator.add", 1, 2, blocked_by="nothing")


def test_one_bad_edge_among_good_ones(queue: Queue, refuses: Refuses) -> None:
    good = queue.enqueue("operator.add", 1, 2, deferred=True)
    with refuses(JobNotFound):
        queue.enqueue("operator.add", 1, 2, blocked_by=[good, "nothing"])


def test_a_future_job_that_has_been_queued_or_runs_or_has_ended(
    queue: Queue, connection: redis.Redis, work: Work, refuses: Refuses
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    future.release()
    with refuses(FutureAlreadyStarted, "already been queued"):
        queue.enqueue("operator.add", 1, 2, blocked_by=future)
    with connection.pipeline() as pipeline:
        future.prepare_for_execution("worker", pipeline)
        pipeline.execute()
    with refuses(FutureAlreadyStarted):
        queue.enqueue("operator.add", 1, 2, blocked_by=future)
    work()
    with refuses(FutureEnded, "has finished"):
        queue.enqueue("operator.add", 1, 2, blocked_by=future)
    failing = queue.enqueue("runtime_jobs.fail", deferred=True)
    failing.release()
    work()
    with refuses(FutureEnded, "has failed"):
        queue.enqueue("operator.add", 1, 2, blocked_by=failing)


def test_a_future_job_that_was_canceled_or_skipped(
    queue: Queue, work: Work, refuses: Refuses
) -> None:
    canceled = queue.enqueue("operator.add", 1, 2, deferred=True)
    canceled.cancel()
    with refuses(FutureEnded, "is canceled"):
        queue.enqueue("operator.add", 1, 2, blocked_by=canceled)
    with refuses(FutureEnded, "is canceled"):
        canceled.release()
    skipped = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="skip")
    queue.enqueue("runtime_jobs.fail", blocks=skipped)
    skipped.release()
    work()
    with refuses(FutureEnded, "is skipped"):
        queue.enqueue("operator.add", 1, 2, blocked_by=skipped)


def test_a_future_job_that_a_dashboard_deleted(
    queue: Queue, connection: redis.Redis, refuses: Refuses
) -> None:
    from rq.job import Job as RQJob

    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    RQJob.fetch(future.id, connection=connection).delete()
    with refuses(JobNotFound):
        queue.enqueue("operator.add", 1, 2, blocked_by=future)
    with refuses(JobNotFound):
        future.release()


def test_a_job_that_would_block_itself(queue: Queue, refuses: Refuses) -> None:
    with refuses(CycleError, "me → me"):
        queue.enqueue("operator.add", 1, 2, job_id="me", deferred=True, blocked_by="me")


def test_a_cycle_through_depends_on(queue: Queue, refuses: Refuses) -> None:
    future = queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True)
    with refuses(CycleError, "new → future → new"):
        queue.enqueue("operator.add", 1, 2, job_id="new", depends_on=future, blocked_by=future)
    after = queue.enqueue("operator.add", 1, 2, job_id="after", depends_on=future)
    with refuses(CycleError, "new → after → future → new"):
        queue.enqueue("operator.add", 1, 2, job_id="new", depends_on=after, blocked_by=future)
    outer = queue.enqueue("operator.add", 1, 2, job_id="outer", deferred=True)
    queue.enqueue("operator.add", 1, 2, job_id="inner", depends_on="after", blocks=outer)
    with refuses(CycleError, "new → outer → inner → after → future → new"):
        queue.enqueue("operator.add", 1, 2, job_id="new", depends_on="outer", blocked_by=future)


def test_a_cycle_within_one_call_of_enqueue_many(queue: Queue, refuses: Refuses) -> None:
    data = Queue.prepare_data
    with refuses(CycleError, "x → y → f → x"):
        queue.enqueue_many(
            [
                data("operator.add", job_id="f", deferred=True),
                data("operator.add", job_id="y", depends_on="f"),
                data("operator.add", job_id="x", depends_on="y", blocks="f"),
            ]
        )


def test_an_id_whose_job_has_not_ended(queue: Queue, refuses: Refuses) -> None:
    future = queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True)
    queue.enqueue("operator.add", 1, 2, job_id="plain")
    other = queue.enqueue("operator.add", 1, 2, deferred=True)
    with refuses(JobIdTaken, "plain is taken by a job that is queued"):
        queue.enqueue("operator.add", 1, 2, job_id="plain", blocked_by=future)
    with refuses(JobIdTaken, "future is taken by a job that is deferred"):
        queue.enqueue("operator.add", 1, 2, job_id="future", blocked_by=other)
    with refuses(JobIdTaken):
        queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True)


def test_an_ordinary_job_with_the_id_of_a_held_one(queue: Queue, refuses: Refuses) -> None:
    future = queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True)
    queue.enqueue("operator.add", 1, 2, job_id="held", blocked_by=future)
    for job_id in ("future", "held"):
        with refuses(JobIdTaken, "a job that is deferred"):
            queue.enqueue("operator.add", 3, 4, job_id=job_id)
        with refuses(JobIdTaken, "a job that is deferred"):
            queue.enqueue_many([Queue.prepare_data("operator.add", (3, 4), job_id=job_id)])


def test_a_used_id_that_leads_back_to_itself(queue: Queue, refuses: Refuses) -> None:
    outer = queue.enqueue("operator.add", 1, 2, job_id="outer", deferred=True)
    queue.enqueue("operator.add", 1, 2, job_id="inner", deferred=True, blocked_by=outer)
    with refuses(CycleError, "outer → inner → outer"):
        queue.enqueue("operator.add", 1, 2, job_id="outer", blocked_by="inner")


def test_the_id_of_a_failed_job_that_others_still_wait_for(
    queue: Queue, work: Work, refuses: Refuses
) -> None:
    future, other = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    queue.enqueue("runtime_jobs.fail", job_id="failed", blocked_by=future)
    future.release()
    work()
    with refuses(JobIdTaken, "a blocker of"):
        queue.enqueue("operator.add", 1, 2, job_id="failed", blocked_by=other)
    with refuses(JobIdTaken, "a blocker of"):
        queue.enqueue("operator.add", 1, 2, job_id="failed", blocked_by=[future, other])


def test_an_id_that_is_the_name_of_a_queue(
    queue: Queue, connection: redis.Redis, refuses: Refuses
) -> None:
    with refuses(JobIdTaken, "default is taken by a queue of that name"):
        queue.enqueue("operator.add", 1, 2, job_id="default", deferred=True)
    Queue("known", connection=connection).enqueue("operator.add", 1, 2)
    with refuses(JobIdTaken, "a queue of that name"):
        queue.enqueue("operator.add", 1, 2, job_id="known", deferred=True)
    with refuses(JobIdTaken, "a queue of that name"):
        queue.enqueue_many(
            [
                Queue.prepare_data("operator.add", job_id="fine", deferred=True),
                Queue.prepare_data("operator.add", job_id="known", deferred=True),
            ]
        )
    connection.zadd("rq:deferred:emptied", {"somebody": 1})
    with refuses(JobIdTaken, "a queue of that name"):
        queue.enqueue("operator.add", 1, 2, job_id="emptied", deferred=True)
    with refuses(JobNotFound):
        queue.enqueue("operator.add", 1, 2, blocked_by="unknown")


def test_a_queue_with_the_name_of_a_future_job(
    queue: Queue, connection: redis.Redis, refuses: Refuses
) -> None:
    future = queue.enqueue("operator.add", 1, 2, job_id="report", deferred=True)
    namesake = Queue("report", connection=connection)
    with refuses(UsageError, "the queue report has the name of a future job"):
        namesake.enqueue("operator.add", 1, 2, blocked_by=future)
    with refuses(UsageError, "the name of a future job"):
        namesake.enqueue("operator.add", 1, 2)
    with refuses(UsageError, "the name of a future job"):
        namesake.enqueue_many([Queue.prepare_data("operator.add", (1, 2))])
    with refuses(UsageError, "the name of a future job"):
        namesake.enqueue_at(datetime(2100, 1, 1, tzinfo=UTC), "operator.add", 1, 2)


def test_ids_twice_in_one_call(queue: Queue, refuses: Refuses) -> None:
    with refuses(JobIdTaken, "twice is taken by another job of this call"):
        queue.enqueue_many(
            [
                Queue.prepare_data("operator.add", job_id="twice", deferred=True),
                Queue.prepare_data("operator.add", job_id="twice"),
            ]
        )


def test_many_jobs_are_enqueued_all_or_none(queue: Queue, refuses: Refuses) -> None:
    good = queue.enqueue("operator.add", 1, 2, deferred=True)
    with refuses(JobNotFound):
        queue.enqueue_many(
            [
                Queue.prepare_data("operator.add", (1, 2)),
                Queue.prepare_data("operator.add", (1, 2), blocked_by=good),
                Queue.prepare_data("operator.add", (1, 2), blocked_by="nothing"),
            ]
        )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"deferred": 1}, "deferred must be True or False, not 1"),
        ({"deferred": "yes"}, "deferred must be True or False"),
        ({"blocked_by": 7}, "takes a future job, its id"),
        ({"blocked_by": {"future": "ignore"}}, "takes a future job, its id"),
        ({"blocks": [None, 3.5]}, "takes a future job, its id"),
        ({"blocks": b"future"}, "takes a future job, its id"),
        ({"blocks": "has spaces"}, "not a job id"),
        ({"blocks": ""}, "not a job id"),
        ({"deferred": True, "on_blocker_failure": "ignore"}, "one of wait, skip, run"),
        ({"deferred": True, "on_blocker_failure": []}, "one of wait, skip, run"),
        ({"deferred": True, "if_empty": "fail"}, "one of run, skip"),
        ({"on_blocker_failure": "run"}, "pass deferred=True"),
        ({"if_empty": "skip"}, "pass deferred=True"),
        ({"blocked_by": [Edge("f"), Edge("f", "ignore")]}, "two policies"),
    ],
)
def test_options_that_cannot_be_meant(
    queue: Queue, refuses: Refuses, options: dict[str, Any], match: str
) -> None:
    for enqueue in (
        lambda: queue.enqueue("operator.add", 1, 2, **options),
        lambda: queue.enqueue_call("operator.add", (1, 2), **options),
        lambda: queue.enqueue_at(datetime.now(UTC), "operator.add", 1, 2, **options),
        lambda: queue.create_job("operator.add", (1, 2), **options),
        lambda: Queue.prepare_data("operator.add", (1, 2), **options),
    ):
        with refuses(UsageError, match):
            enqueue()


def test_edges_that_cannot_be_meant(refuses: Refuses) -> None:
    with refuses(UsageError, "takes a job or a job id"):
        Edge(7)  # type: ignore[arg-type]
    with refuses(UsageError, "None or 'ignore'"):
        Edge("future", "skip")  # type: ignore[arg-type]


def test_options_of_rq_that_do_not_go_together_with_ours(
    queue: Queue, connection: redis.Redis, refuses: Refuses
) -> None:
    with refuses(Unsupported, "rate_limit"):
        queue.enqueue("operator.add", 1, 2, deferred=True, rate_limit=RateLimit("key", 1))
    with connection.pipeline() as pipeline:
        with refuses(Unsupported, "pipeline"):
            queue.enqueue("operator.add", 1, 2, deferred=True, pipeline=pipeline)
        with refuses(Unsupported, "pipeline"):
            queue.enqueue_many(
                [Queue.prepare_data("operator.add", (1, 2), deferred=True)], pipeline=pipeline
            )
        pipeline.set("something", "else")
        with refuses(Unsupported, "pipeline"):
            Group.create(connection).enqueue_many(
                queue, [Queue.prepare_data("operator.add", deferred=True)], pipeline=pipeline
            )
    with refuses(UsageError, "unique=True needs a job_id"):
        queue.enqueue("operator.add", 1, 2, deferred=True, unique=True)


def test_a_unique_id_that_exists(queue: Queue, work: Work, refuses: Refuses) -> None:
    queue.enqueue("operator.add", 1, 2, job_id="once")
    future = queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True, unique=True)
    with refuses(DuplicateJobError, "once"):
        queue.enqueue("operator.add", 1, 2, job_id="once", blocked_by=future, unique=True)
    with refuses(DuplicateJobError, "future"):
        queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True, unique=True)


def test_releasing_what_is_no_future_job(
    queue: Queue, connection: redis.Redis, refuses: Refuses
) -> None:
    plain = queue.enqueue("operator.add", 1, 2)
    with refuses(NotAFutureJob):
        plain.release()
    with refuses(JobNotFound):
        release_job("nothing", connection=connection)
    with refuses(JobNotFound):
        get_job("nothing", connection)
    with refuses(JobNotFound):
        Job("nothing", connection=connection).release()


def test_a_queue_that_makes_other_jobs(connection: redis.Redis, refuses: Refuses) -> None:
    from rq.job import Job as RQJob

    queue = Queue(connection=connection, job_class=RQJob)
    with refuses(UsageError, "flowq.Job"):
        queue.enqueue("operator.add", 1, 2, deferred=True)


def test_a_connection_that_decodes_responses(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        with pytest.raises(UsageError, match="decode_responses=True cannot be used"):
            Queue(connection=connection)
        with pytest.raises(UsageError, match="decode_responses=True cannot be used"):
            get_job("any", connection)


def test_a_function_that_takes_any_keyword_called_through_the_decorator(
    connection: redis.Redis, refuses: Refuses
) -> None:
    import runtime_jobs
    from rq.decorators import job

    decorated = job("default", connection=connection, queue_class=Queue)(runtime_jobs.any_keyword)
    with refuses(UsageError, "any_keyword takes any keyword"):
        decorated.delay(deferred=True)


def test_every_refusal_is_an_error_of_ours_and_tells_what_it_is_about(queue: Queue) -> None:
    with pytest.raises(FlowqError) as caught:
        queue.enqueue("operator.add", 1, 2, blocked_by="nothing")
    assert caught.value.exit_code == 5


# What cannot be meant ----------------------------------------------------------------------------


class PrefixedJob(Job):
    """Keeps its jobs elsewhere than RQ."""

    redis_job_namespace_prefix = "my:job:"


class QueueOfPrefixed(Queue):
    """Makes such jobs."""

    job_class = PrefixedJob


class PrefixedQueue(Queue):
    """Is itself elsewhere."""

    redis_queue_namespace_prefix = "my:queue:"


@pytest.mark.parametrize("queue_class", [QueueOfPrefixed, PrefixedQueue])
def test_a_hold_on_keys_that_are_not_rqs_is_refused_and_nothing_is_written(
    connection: redis.Redis, queue_class: type[Queue]
) -> None:
    future = Queue(connection=connection).enqueue("operator.add", 1, 2, deferred=True)
    before = sorted(connection.keys())
    queue = queue_class("s", connection=connection)
    data = Queue.prepare_data("operator.add", (1, 2), blocked_by=future)
    for enqueue in (
        lambda: queue.enqueue("operator.add", 1, 2, deferred=True),
        lambda: queue.enqueue("operator.add", 1, 2, blocked_by=future),
        lambda: queue.enqueue_many([data]),
    ):
        with pytest.raises(Unsupported, match="RQ_KEY_PREFIX"):
            enqueue()
    assert sorted(connection.keys()) == before


@pytest.mark.parametrize("options", [{"job_class": PrefixedJob}, {"queue_class": PrefixedQueue}])
def test_a_worker_for_keys_that_are_not_rqs_is_refused(
    connection: redis.Redis, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="namespace_prefix is 'my:"):
        Worker(["s"], connection=connection, **options)
    assert not connection.keys()


@pytest.mark.parametrize("name", ["", " ", None, 5])
def test_a_queue_has_a_name(connection: redis.Redis, name: Any) -> None:
    with pytest.raises(UsageError, match="name of a queue"):
        Queue(name, connection=connection)
    with pytest.raises(UsageError, match="name of a queue"):
        Worker([""], connection=connection)
    assert not connection.keys()


NO_FUNCTIONS = [None, 5, 1.5, [1], {"a": 1}, b"x", "", "Hi there", int, object()]


@pytest.mark.parametrize("given", NO_FUNCTIONS)
@pytest.mark.parametrize("options", [{}, {"deferred": True}])
def test_what_is_no_function_is_named_when_it_is_enqueued(
    connection: redis.Redis, given: Any, options: dict[str, Any]
) -> None:
    queue = Queue(connection=connection)
    for enqueue in (
        lambda: queue.enqueue(given, **options),
        lambda: queue.enqueue_call(given, **options),
        lambda: queue.enqueue_in(timedelta(1), given, **options),
        lambda: queue.create_job(given, **options),
        lambda: Queue.prepare_data(given, **options),
    ):
        with pytest.raises(UsageError, match=f"of type {type(given).__name__}") as raised:
            enqueue()
        assert "enqueue(f, …)" in str(raised.value)
    assert not connection.keys()
