"""Jobs that start at the first success or failure of a blocker, forced step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import redis
from rq.job import JobStatus

from flowq.errors import UsageError
from flowq.runtime import keys, steps
from flowq.runtime.explain import explain
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue
from tests.runtime.test_interleavings import (
    add_blockers,
    begin_release,
    end,
    make_future,
    settled,
    step,
)

FINISHED, FAILED, CANCELED = JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED


def make_race(queue: Queue, rule: str, count: int = 2, **options: Any) -> list[Job]:
    make_future(queue, start_when=rule, **options)
    return add_blockers(queue, count)


def status_of(job_id: str, connection: redis.Redis) -> str:
    return str(get_job(job_id, connection).get_status().value)


def outcomes_of(connection: redis.Redis) -> dict[str, str]:
    found: Any = connection.hgetall(keys.edges("future"))
    return {blocker.decode(): outcome.decode() for blocker, outcome in found.items()}


@pytest.mark.parametrize(
    ("rule", "ends", "expected"),
    [
        ("one_success", [], "deferred"),
        ("one_success", [FINISHED], "queued"),
        ("one_success", [FAILED], "deferred"),
        ("one_success", [FAILED, FINISHED], "queued"),
        ("one_success", [FAILED, FAILED], "canceled"),
        ("one_success", [FAILED, CANCELED], "canceled"),
        ("one_failed", [FINISHED], "deferred"),
        ("one_failed", [FAILED], "queued"),
        ("one_failed", [CANCELED], "deferred"),
        ("one_failed", [FINISHED, FAILED], "queued"),
        ("one_failed", [FINISHED, FINISHED], "canceled"),
        ("one_failed", [CANCELED, CANCELED], "canceled"),
    ],
)
@pytest.mark.parametrize("is_early", [False, True])
def test_the_first_end_of_its_kind_decides(
    queue: Queue,
    connection: redis.Redis,
    rule: str,
    ends: list[JobStatus],
    expected: str,
    is_early: bool,
) -> None:
    """Also if the blockers have ended before the release, in whatever way."""
    make_race(queue, rule)
    if not is_early:
        begin_release(connection)
        step(connection, 10)
    for number, status in enumerate(ends):
        end(connection, f"b{number}", status)
    if is_early:
        begin_release(connection)
        step(connection, 10)
    assert settled(connection) == expected


WORDS = ("release", "step", "step", "end 0", "end 1")


@pytest.mark.parametrize("rule", ["one_success", "one_failed"])
@pytest.mark.parametrize("order", sorted(set(permutations(WORDS))))
def test_blockers_end_before_between_and_after_the_steps_of_a_release(
    queue: Queue, connection: redis.Redis, order: tuple[str, ...], rule: str
) -> None:
    make_race(queue, rule)
    acts: dict[str, Callable[[], Any]] = {
        "release": lambda: begin_release(connection),
        "step": lambda: step(connection),
        "end 0": lambda: end(connection, "b0", FAILED),
        "end 1": lambda: end(connection, "b1", FINISHED),
    }
    for name in order:
        acts[name]()
    assert settled(connection) == "queued"


def test_what_is_decided_stays_decided(queue: Queue, connection: redis.Redis) -> None:
    make_race(queue, "one_success", 3)
    begin_release(connection)
    step(connection, 10)
    end(connection, "b1")
    before = outcomes_of(connection)
    assert before == {"b0": "pending", "b1": "finished", "b2": "pending"}
    end(connection, "b0", FAILED)
    end(connection, "b1", FAILED)  # a tool runs it again
    assert outcomes_of(connection) == before
    assert settled(connection) == "queued"
    later = queue.enqueue("operator.add", 1, 1, job_id="later", blocked_by="future")
    assert later.get_status() is JobStatus.QUEUED
    assert outcomes_of(connection) == before
    queue.enqueue("operator.add", 1, 1, job_id="later", blocked_by="future")  # sent again
    assert connection.lrange(keys.queue("default"), 0, -1).count(b"later") == 1


def test_it_may_wait_for_a_dependency_after_the_decision(
    queue: Queue, connection: redis.Redis
) -> None:
    slow = queue.enqueue("operator.add", 1, 1, job_id="slow")
    make_race(queue, "one_success", depends_on=slow)
    begin_release(connection)
    step(connection, 10)
    end(connection, "b0")
    end(connection, "b0", FAILED)  # which would take it back if it were not decided
    assert connection.hget(keys.future("future"), "state") == b"met"
    assert "undecided" not in str(explain("future", connection))
    assert connection.sismember(f"{keys.job('slow')}:dependents", "future")


def test_what_was_undecided_stays_running_for_whoever_reads_it(
    queue: Queue, connection: redis.Redis
) -> None:
    make_race(queue, "one_success", 3)
    begin_release(connection)
    step(connection, 10)
    assert [each.status for each in get_job("future", connection).blockers] == ["queued"] * 3
    end(connection, "b1")
    end(connection, "b0", FAILED)
    statuses = [each.status for each in get_job("future", connection).blockers]
    assert statuses == ["running", "finished", "running"]


def test_jobs_that_come_too_late_get_their_own_time_to_live(
    queue: Queue, connection: redis.Redis
) -> None:
    make_race(queue, "one_success", 2)
    begin_release(connection)
    step(connection, 10)
    end(connection, "b0")
    queue.enqueue("operator.add", 1, 1, job_id="later", blocked_by="future", result_ttl=77)
    for job_id, has_ttl in (("later", True), ("b1", False)):
        end(connection, job_id)
        settled_steps(connection)
        assert (connection.ttl(keys.job(job_id)) > 0) == has_ttl
    end(connection, "future")  # which may ask about b1 until then
    settled_steps(connection)
    assert connection.ttl(keys.job("b1")) > 0


def settled_steps(connection: redis.Redis) -> None:
    while steps.run_steps(connection):
        pass


@pytest.mark.parametrize("rule", ["one_success", "one_failed"])
def test_the_rest_is_canceled(queue: Queue, connection: redis.Redis, rule: str) -> None:
    make_race(queue, rule, 4, cancel_rest=True)
    queue.enqueue("operator.add", 1, 2, job_id="other", deferred=True)
    queue.enqueue("operator.add", 1, 1, job_id="shared", blocks=["future", "other"])
    begin_release(connection)
    step(connection, 10)
    end(connection, "b2", FINISHED if rule == "one_success" else FAILED)
    assert status_of("b0", connection) == "canceled"
    assert settled(connection) == "queued"
    assert [status_of(f"b{n}", connection) for n in (0, 1, 3)] == ["canceled"] * 3
    assert status_of("shared", connection) == "deferred"  # another job waits for it
    reason = connection.hget(keys.job("b0"), "flowq_reason")
    assert reason == b"not needed: future has started"


@pytest.mark.parametrize(
    "options",
    [
        {"start_when": "one_done"},
        {"start_when": "one_success", "on_blocker_failure": "run"},
        {"start_when": "one_success", "if_empty": "run"},
        {"cancel_rest": True},
        {"start_when": "one_success", "cancel_rest": "yes"},
    ],
)
def test_options_that_make_no_sense_are_refused(queue: Queue, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"start_when|cancel_rest"):
        queue.enqueue("operator.add", 1, 1, deferred=True, **options)


def test_the_words_are_arguments_of_the_function_in_other_jobs(queue: Queue) -> None:
    job = queue.enqueue("operator.add", 1, start_when=2, cancel_rest=3)
    assert job.kwargs == {"start_when": 2, "cancel_rest": 3}
