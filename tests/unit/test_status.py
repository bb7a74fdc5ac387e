"""The fold of a run's events into its status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from flowq.status import (
    ASKING,
    BAD_OUTCOMES,
    REMOVED,
    STUCK,
    SUCCESSES,
    Event,
    JobStatus,
    RunStatus,
    fold,
    is_waiting,
)

_START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def _event(second: int, name: str, state: str, *, reason: str = "", worker: str = "") -> Event:
    job_id = f"r-{name}" if name else ""
    at = _START + timedelta(seconds=second)
    return Event(f"{second}-0", at, job_id, name, state, reason, worker)


def _status(*names: str) -> RunStatus:
    return RunStatus("r", "flow", jobs={name: JobStatus(name, f"r-{name}") for name in names})


def test_a_job_goes_from_held_to_finished_and_knows_its_times() -> None:
    events = [
        _event(1, "a", "queued"),
        _event(2, "a", "started", worker="w1"),
        _event(5, "a", "finished"),
    ]

    job = fold(_status("a"), events).jobs["a"]

    assert (job.state, job.attempts, job.worker, job.duration_s) == ("finished", 1, "w1", 3.0)
    assert job.queued_at == _START + timedelta(seconds=1)


def test_a_job_without_events_stays_held_and_has_no_duration() -> None:
    job = fold(_status("a"), []).jobs["a"]

    assert (job.state, job.attempts, job.duration_s) == ("deferred", 0, None)


def test_a_retry_counts_an_attempt_and_measures_the_last_one() -> None:
    events = [
        _event(1, "a", "started", worker="w1"),
        _event(2, "a", "failed", reason="ValueError"),
        _event(3, "a", "scheduled"),
        _event(9, "a", "queued"),
        _event(10, "a", "started", worker="w2"),
        _event(14, "a", "finished"),
    ]

    job = fold(_status("a"), events).jobs["a"]

    assert (job.attempts, job.duration_s, job.worker, job.reason) == (2, 4.0, "w2", "")


def _told_end(second: int, name: str, began: float, took_ms: float | None = None) -> Event:
    event = _event(second, name, "finished")
    return replace(event, began_at=_START + timedelta(seconds=began), took_ms=took_ms)


def test_what_was_handed_over_with_others_begins_when_its_end_says_so() -> None:
    events = [
        _event(1, "a", "queued"),
        _event(2, "a", "handed", worker="w1"),
        _told_end(9, "a", 3, took_ms=0.25),
    ]
    handed = fold(_status("a"), events[:2]).jobs["a"]
    assert (handed.state, handed.worker, handed.attempts) == ("queued", "w1", 0)

    job = fold(_status("a"), events).jobs["a"]
    assert (job.state, job.attempts, job.worker) == ("finished", 1, "w1")
    assert (job.started_at, job.duration_s) == (_START + timedelta(seconds=3), 0.00025)


def test_an_end_without_its_duration_is_when_the_run_was_told() -> None:
    job = fold(_status("a"), [_event(1, "a", "started"), _told_end(9, "a", 3)]).jobs["a"]
    assert (job.attempts, job.duration_s) == (1, 6.0)


def test_what_is_returned_was_no_attempt_whether_it_was_said_to_begin_or_not() -> None:
    for before in ("handed", "started"):
        events = [
            _event(1, "a", before, worker="w1"),
            _event(2, "a", "returned", reason="its worker was lost"),
        ]
        job = fold(_status("a"), events).jobs["a"]
        assert (job.state, job.attempts, job.started_at) == ("queued", 0, None)
        job = fold(_status("a"), [*events, _event(3, "a", "started")]).jobs["a"]
        assert (job.state, job.attempts, job.reason) == ("started", 1, "")


def test_a_start_that_is_told_twice_is_one() -> None:
    events = [_event(1, "a", "started"), _event(2, "a", "started"), _event(5, "a", "finished")]
    job = fold(_status("a"), events).jobs["a"]
    assert (job.attempts, job.duration_s) == (1, 4.0)


def test_a_run_whose_jobs_are_handed_over_does_not_wait() -> None:
    asks = _event(1, "a", "deferred", reason=ASKING)
    assert is_waiting([asks, _event(0, "", "running")])
    for word in ("handed", "returned"):
        assert not is_waiting([_event(2, "b", word), asks, _event(0, "", "running")])


def test_a_job_that_waits_for_its_retry_has_no_worker_and_no_end() -> None:
    events = [
        _event(1, "a", "started", worker="w1"),
        _event(2, "a", "failed", reason="ValueError"),
        _event(3, "a", "scheduled"),
    ]

    job = fold(_status("a"), events).jobs["a"]

    assert (job.state, job.worker, job.ended_at, job.duration_s) == ("scheduled", "", None, None)


def test_a_job_skipped_in_a_second_round_has_no_duration_of_the_first() -> None:
    events = [
        _event(1, "a", "started"),
        _event(2, "a", "finished"),
        _event(60, "a", "deferred"),
        _event(61, "a", "skipped", reason="b failed"),
    ]

    job = fold(_status("a"), events).jobs["a"]

    assert (job.state, job.reason, job.duration_s) == ("skipped", "b failed", None)


def test_jobs_keep_the_order_of_declaration_and_late_ones_come_last() -> None:
    events = [_event(1, "late", "queued"), _event(2, "b", "queued"), _event(3, "a", "queued")]

    status = fold(_status("a", "b"), events)

    assert list(status.jobs) == ["a", "b", "late"]
    assert status.jobs["late"].job_id == "r-late"


def test_the_run_starts_once_and_ends() -> None:
    events = [_event(1, "", "running"), _event(4, "", "running"), _event(6, "", "succeeded")]

    status = fold(_status(), events)

    assert (status.state, status.is_ended, status.duration_s) == ("succeeded", True, 5.0)


def test_a_retried_run_is_not_ended_any_more_and_began_when_it_did() -> None:
    events = [_event(1, "", "running"), _event(2, "", "failed"), _event(3, "", "running")]

    status = fold(_status(), events)

    assert (status.state, status.is_ended, status.ended_at) == ("running", False, None)
    assert status.started_at == _START + timedelta(seconds=1)
    assert status.since == _START + timedelta(seconds=3)
    assert fold(status, [_event(9, "", "succeeded")]).duration_s == 8.0


def test_a_run_that_waits_for_approvals_has_not_ended() -> None:
    status = fold(_status(), [_event(1, "", "running"), _event(2, "", "waiting")])

    assert (status.state, status.ended_at) == ("waiting", None)


def test_folding_in_two_parts_gives_the_same_as_folding_at_once() -> None:
    events = [
        _event(1, "", "running"),
        _event(2, "a", "queued"),
        _event(3, "a", "started"),
        _event(4, "a", "finished"),
        _event(5, "", "succeeded"),
    ]
    at_once = fold(_status("a"), events)

    for cut in range(len(events) + 1):
        assert fold(fold(_status("a"), events[:cut]), events[cut:]) == at_once


def test_the_status_remembers_where_to_read_on() -> None:
    assert fold(_status("a"), []).last_event_id == "0"
    assert fold(_status("a"), [_event(7, "a", "queued")]).last_event_id == "7-0"


def test_folding_leaves_the_status_before_as_it_was() -> None:
    before = _status("a")

    fold(before, [_event(1, "a", "queued"), _event(2, "", "running")])

    assert before == _status("a")


def test_states_are_counted_and_empty_ones_left_out() -> None:
    status = fold(_status("a", "b", "c"), [_event(1, "a", "started"), _event(2, "b", "failed")])

    assert status.count_by_state() == {"started": 1, "failed": 1, "deferred": 1}


HAPPENINGS = st.one_of(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(
            [
                *("queued", "handed", "returned", "started", "finished", "failed", "deferred"),
                REMOVED,
            ]
        ),
        st.sampled_from(["", ASKING, f"{STUCK}: c"]),
    ),
    st.tuples(st.just(""), st.sampled_from(["running", "waiting", "failed"]), st.just("")),
)


@given(st.lists(HAPPENINGS, max_size=8))
def test_looking_back_from_the_newest_event_finds_the_same_waiting_as_folding(
    happened: list[tuple[str, str, str]],
) -> None:
    happened = [("", "running", ""), *happened]
    events = [
        Event(f"{number}-0", datetime.now(UTC), name and f"run-{name}", name, state, reason)
        for number, (name, state, reason) in enumerate(happened, 1)
    ]
    folded = fold(RunStatus("run", "demo"), events)
    assert is_waiting(reversed(events)) == (folded.state == "waiting")


def test_looking_back_stops_at_the_first_job_that_is_busy() -> None:
    begun = Event("2-0", datetime.now(UTC), "run-a", "a", "started")

    def newest_first() -> Iterator[Event]:
        yield begun
        raise AssertionError("it reads on")

    assert not is_waiting(newest_first())


def test_the_scripts_make_the_same_distinctions_between_outcomes() -> None:
    def lua(name: str) -> str:
        return files("flowq.runtime").joinpath("lua", f"{name}.lua").read_text("utf-8")

    table = re.search(r"COUNTS_AGAINST = \{(.*?)\}", lua("runs"), re.DOTALL)
    assert table is not None
    assert set(re.findall(r"(\w+) = 1", table[1])) == BAD_OUTCOMES
    rule = re.search(r"  if (outcome == 'finished'.*?) then return nil end", lua("outcomes"))
    assert rule is not None
    assert set(re.findall(r"'(\w+)'", rule[1])) == SUCCESSES
