"""The attempts of jobs are read from the events of a run, those of older versions included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flowq.history import MAX_ATTEMPTS, Attempt, read_attempts
from flowq.status import Event

ZERO = datetime(2026, 11, 29, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def event(seconds: float, state: str, **fields: Any) -> Event:
    return Event(str(seconds), at(seconds), "r-a", fields.pop("name", "a"), state, **fields)


def read(*events: Event) -> tuple[Attempt, ...]:
    return read_attempts(events).get("a", ())


def test_an_attempt_that_was_handed_over_with_others_begins_where_its_end_says() -> None:
    [attempt] = read(
        event(1, "queued"),
        event(3, "handed", worker="w"),
        event(9, "finished", began_at=at(5), took_ms=500),
    )
    assert attempt == Attempt(1, "finished", "w", at(1), at(3), at(5), at(5.5))
    assert (attempt.waited_s, attempt.duration_s) == (4, 0.5)


def test_a_job_is_held_from_its_first_reason_until_it_is_queued() -> None:
    first, second = read(
        event(1, "deferred", reason="waits for approval"),
        event(5, "deferred", reason="approved by ada"),
        event(6, "queued"),
        event(7, "started", worker="w"),
        event(8, "queued", reason="attempt 1 failed: ValueError"),
        event(9, "started", worker="w"),
    )
    assert (first.held_at, first.queued_at) == (at(1), at(6))
    assert (second.held_at, second.queued_at) == (None, at(8))


def test_what_was_handed_over_and_returned_is_no_attempt() -> None:
    assert read(event(1, "queued"), event(2, "handed", worker="w"), event(3, "returned")) == ()


def test_what_only_judged_its_condition_is_no_attempt() -> None:
    judged = read(event(1, "queued"), event(2, "started", worker="w"), event(3, "skipped"))
    asked = read(event(2, "started"), event(3, "deferred", reason="waits for approval"))
    assert judged == asked == ()


def test_events_of_older_versions_give_attempts_without_what_they_lack() -> None:
    first, second = read(
        event(1, "started", worker="w"),
        event(2, "scheduled", reason="attempt 1 failed: ConnectionError; again in 5s"),
        event(7, "queued"),
        event(8, "started", worker="w"),
        event(9, "failed"),
    )
    assert (first.state, first.is_retried, first.ended_at) == ("failed", True, at(2))
    assert (first.queued_at, first.error) == (None, "")
    assert (second.state, second.is_retried, second.queued_at) == ("failed", False, at(7))


def test_a_job_that_returns_a_retry_has_finished_an_attempt() -> None:
    [attempt] = read(event(1, "started"), event(2, "queued"))
    assert (attempt.state, attempt.is_retried) == ("finished", True)


def test_of_many_attempts_the_newest_are_kept_with_their_numbers() -> None:
    events = [
        event(i, state, reason="attempt x failed" if state == "queued" else "")
        for i in range(50)
        for state in ("started", "queued")
    ]
    attempts = read(*events)
    assert [each.number for each in attempts] == list(range(51 - MAX_ATTEMPTS, 51))


def test_what_a_retry_of_the_run_removes_has_no_attempts() -> None:
    assert read(event(1, "started"), event(2, "finished"), event(3, "removed")) == ()


def test_an_error_without_a_class_is_a_message_only() -> None:
    told = Attempt(1, error="The process of the job ended unexpectedly: killed by signal 9")
    assert told.error_type is None
    assert told.error_message == told.error
    raised = Attempt(1, error="KeyError: 'a: b'")
    assert (raised.error_type, raised.error_message) == ("KeyError", "'a: b'")
    assert (Attempt(1, error="StopIteration").error_type) == "StopIteration"


def test_a_timeout_is_told_from_other_failures() -> None:
    end = event(2, "failed", began_at=at(1), took_ms=1000, error="JobTimeoutException: too long")
    assert read(event(1, "started"), end)[0].state == "timed_out"
