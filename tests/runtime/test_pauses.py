"""`sleep` and `poll`: jobs that wait without a worker between two of their executions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq.registry import FailedJobRegistry

import flowq
from flowq.durations import parse_pause, write_pause
from flowq.errors import PollFailed, WorkflowInvalid
from flowq.graph import build_graph
from flowq.history import read_attempts
from flowq.pauses import POLLED, SLEEPING, read_polls
from flowq.planner import make_plan
from flowq.render.json import RunFacts, run_document
from flowq.runtime import keys, maintenance, retry, runs, scripts
from flowq.runtime.explain import explain
from flowq.runtime.job import Job
from flowq.spec import ALL_TOLERATED, Defaults, JobSpec, Poll, Retry, Shell, Workflow
from flowq.status import fold
from flowq.testing import run_inline
from flowq.testing.worker import InProcessWorker
from tests.reading import parse_workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
HOUR = "1h"
AFTER = job("after", "give", needs=("nap",), with_={"value": 1})


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def hurry(connection: Redis) -> Callable[[], int]:
    """`hurry()`: execute everything, without waiting for what is scheduled."""
    return lambda: InProcessWorker(connection).drain(with_scheduled=True)


def nap(time: str = HOUR, **more: Any) -> JobSpec:
    return JobSpec("nap", sleep=time, **more)


def polling(until: str, every_s: float = 60, within_s: float | None = None, **more: Any) -> JobSpec:
    poll = Poll(until, every_s, within_s)
    return job("ready", "count_up", poll=poll, **more)


def seconds_left(run: Runs, name: str) -> float:
    score = run.connection.zscore(keys.scheduled("default"), f"{RUN}-{name}")
    assert score is not None
    return float(score) - time.time()


# Sleeping ----------------------------------------------------------------------------------------


def test_a_job_sleeps_on_rqs_schedule_and_then_what_needs_it_runs(
    run: Runs, work: Work, hurry: Callable[[], int]
) -> None:
    run.submit(nap(), AFTER)
    work()
    assert run.states == {"nap": "scheduled", "after": "deferred"}
    assert 3590 < seconds_left(run, "nap") <= 3600
    nap_status = run.status.jobs["nap"]
    assert nap_status.reason.startswith(SLEEPING)
    assert nap_status.attempts == 0
    assert nap_status.due_at is not None
    assert abs((nap_status.due_at - datetime.now(UTC)).total_seconds() - 3600) < 10
    assert str(explain(f"{RUN}-nap", run.connection).reasons[0].text).startswith("it sleeps until")
    hurry()
    assert run.states == {"nap": "finished", "after": "finished"}
    assert run.status.jobs["nap"].attempts == 1
    assert run.result("nap") is None


def test_what_has_slept_counts_as_started_when_it_began_to_sleep(
    run: Runs, work: Work, hurry: Callable[[], int]
) -> None:
    run.submit(nap("${{ inputs.settle }}"), inputs={"settle": "90m"})
    record = runs.read_job_records([f"{RUN}-nap"], run.connection)[f"{RUN}-nap"]
    assert record.description == "sleep 90m"
    work()
    asleep = run.status.jobs["nap"]
    assert asleep.slept_at is not None
    assert asleep.started_at is None
    hurry()
    awake = run.status.jobs["nap"]
    (attempt,) = read_attempts(runs.read_events(RUN, run.connection))["nap"]
    assert awake.started_at == attempt.started_at == asleep.slept_at
    assert awake.ended_at == attempt.ended_at
    assert awake.ended_at is not None
    assert awake.ended_at > asleep.slept_at


@pytest.mark.parametrize(
    "pause", ["0", "2020-01-01T00:00:00Z", "2020-01-01 00:00:00+01:00"], ids=["0", "past", "zone"]
)
def test_what_is_over_already_is_no_pause(run: Runs, work: Work, pause: str) -> None:
    run.submit(nap(pause), AFTER)
    work()
    assert run.state == "succeeded"


def test_an_instant_is_that_of_the_server_s_clock_whatever_the_zone(run: Runs, work: Work) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    run.submit(nap(at.astimezone().isoformat()))
    work()
    assert 7190 < seconds_left(run, "nap") <= 7200


@pytest.mark.parametrize("given", [3600, "60m", timedelta(hours=1), 3600.5])
def test_how_long_may_be_the_result_of_a_job(run: Runs, work: Work, given: Any) -> None:
    run.submit(
        job("find", "give", with_={"value": given}), nap("${{ jobs.find.result }}", needs=("find",))
    )
    work()
    assert 3590 < seconds_left(run, "nap") <= 3601


@pytest.mark.parametrize("given", ["soon", -5, None, "2026-12-24T08:00:00", [1], "9999999d", True])
def test_what_is_no_time_fails_the_job_and_says_what_is_one(
    run: Runs, work: Work, given: Any
) -> None:
    run.submit(
        job("find", "give", with_={"value": given}), nap("${{ jobs.find.result }}", needs=("find",))
    )
    work()
    assert run.states["nap"] == "failed"
    assert "ValueError" in run.error("nap")


def test_what_is_known_before_the_run_is_refused_before_the_run() -> None:
    text = "inputs:\n  pause: soon\njobs:\n  nap: {sleep: '${{ inputs.pause }}'}\n"
    with pytest.raises(WorkflowInvalid) as refused:
        make_plan(build_graph(parse_workflow(text, "w.yaml")), {"pause": "soon"}, RUN)
    (problem,) = refused.value.problems
    assert problem.code == "FQ110"
    assert problem.where is not None
    assert problem.where.line == 4


def test_a_job_that_is_queued_too_early_sleeps_for_the_rest(run: Runs, work: Work) -> None:
    run.submit(nap())
    work()
    before_s = seconds_left(run, "nap")
    run.connection.zrem(keys.scheduled("default"), f"{RUN}-nap")
    run.connection.hset(keys.job(f"{RUN}-nap"), "status", "queued")
    run.connection.lpush(keys.queue("default"), f"{RUN}-nap")
    work()
    assert run.states == {"nap": "scheduled"}
    assert seconds_left(run, "nap") <= before_s


def test_one_that_has_slept_goes_before_what_is_queued(run: Runs, work: Work) -> None:
    run.submit(nap("1h"))
    work()
    run.connection.rpush(keys.queue("default"), "other")
    run.connection.zadd(keys.scheduled("default"), {f"{RUN}-nap": 1})
    scripts.DUE.call(run.connection, keys.queue("default"), 10, "default")
    assert run.connection.lrange(keys.queue("default"), 0, -1) == [f"{RUN}-nap".encode(), b"other"]


def test_a_retry_of_a_sleep_sleeps_as_long_as_the_first_attempt_would_have(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its back-off is on the same schedule: what is due there has not slept enough."""
    run.submit(nap(), defaults=Defaults(retries=Retry(3, 1)))
    with monkeypatch.context() as broken:
        broken.setattr("flowq.runtime.work.Pause", None)  # as an outage in the middle
        work()
    assert run.states == {"nap": "scheduled"}
    assert seconds_left(run, "nap") <= 1
    run.connection.zadd(keys.scheduled("default"), {f"{RUN}-nap": 1})
    scripts.DUE.call(run.connection, keys.queue("default"), 10, "default")
    work()
    assert run.states == {"nap": "scheduled"}
    assert seconds_left(run, "nap") > 3500


def test_an_attempt_whose_worker_died_does_not_begin_the_sleep_anew(
    run: Runs, work: Work, connection: Redis
) -> None:
    """The end is known since the first execution, whether or not that came to its own end."""
    run.submit(nap())
    connection.hset(keys.job(f"{RUN}-nap"), "flowq_due", f"{time.time() - 1:.6f}")
    work()
    assert run.state == "succeeded"


# Polling -----------------------------------------------------------------------------------------


def test_a_job_polls_until_the_expression_is_true(
    run: Runs, work: Work, hurry: Callable[[], int]
) -> None:
    run.submit(polling("result == inputs.wanted"), inputs={"wanted": 4})
    work()
    assert run.states == {"ready": "scheduled"}
    assert run.reason("ready") == f"{POLLED} once; again in 1m"
    assert 50 < seconds_left(run, "ready") <= 60
    assert explain(f"{RUN}-ready", run.connection).reasons[0].text.startswith("it polls again at")
    hurry()
    status = run.status.jobs["ready"]
    assert (status.state, status.attempts, run.result("ready")) == ("finished", 1, 4)
    record = runs.read_job_records([f"{RUN}-ready"], run.connection)[f"{RUN}-ready"]
    assert record.polls is not None
    assert (record.polls.count, [view for _, view in record.polls.last]) == (3, [1, 2, 3])


def test_many_polls_leave_ten_results_and_no_more_events_than_few(
    run: Runs, hurry: Callable[[], int]
) -> None:
    run.submit(polling("result == 40"))
    hurry()
    record = runs.read_job_records([f"{RUN}-ready"], run.connection)[f"{RUN}-ready"]
    assert record.polls is not None
    assert record.polls.count == 39
    assert [view for _, view in record.polls.last] == [*range(30, 40)]
    events = [*runs.read_events(RUN, run.connection)]
    assert len(events) <= 10
    (attempt,) = read_attempts(events)["ready"]
    assert (attempt.number, attempt.state) == (1, "finished")
    assert attempt.queued_at is not None


def test_polls_that_wait_for_slots_leave_no_more_events_than_few(
    run: Runs, connection: Redis
) -> None:
    ready = job("ready", "give", with_={"value": "${{ item }}"}, for_each=each([1, 2, 3]))
    run.submit(replace(ready, poll=Poll("false", 60), max_parallel=1))
    worker, counts = InProcessWorker(connection), []
    for _ in range(6):
        worker.drain()
        for index in range(3):
            connection.zadd(keys.scheduled("default"), {f"{RUN}-ready--{index}": 1}, xx=True)
        scripts.DUE.call(connection, keys.queue("default"), 10, "default")
        counts.append(connection.xlen(keys.run_events(RUN)))
    assert counts[-1] == counts[2]


def test_what_is_requeued_by_rqs_tools_polls_and_sleeps_anew(run: Runs, work: Work) -> None:
    run.submit(polling("false", every_s=60, within_s=59))
    work()
    assert run.states == {"ready": "failed"}
    FailedJobRegistry("default", run.connection, job_class=Job).requeue(f"{RUN}-ready")
    work()
    assert "polled once" in run.error("ready")


def test_one_who_watches_from_the_beginning_counts_one_attempt(
    run: Runs, connection: Redis
) -> None:
    run.submit(polling("result == 3"))
    status = run.status
    worker = InProcessWorker(connection)
    for _ in range(3):
        worker.drain()
        status = fold(status, runs.read_events(RUN, connection, after=status.last_event_id))
        connection.zadd(keys.scheduled("default"), {f"{RUN}-ready": 1}, xx=True)
    worker.drain()
    status = fold(status, runs.read_events(RUN, connection, after=status.last_event_id))
    assert (status.jobs["ready"].state, status.jobs["ready"].attempts) == ("finished", 1)


def test_without_time_for_another_poll_the_job_fails_and_is_not_retried(
    run: Runs, work: Work
) -> None:
    run.submit(polling("false", every_s=60, within_s=59, retries=Retry(5)))
    work()
    assert run.states == {"ready": "failed"}
    assert str(PollFailed(1, "59s")) in run.error("ready")
    assert "not true within 59s: polled once" in run.error("ready")
    assert run.status.jobs["ready"].attempts == 1


def test_a_poll_that_fails_is_a_failure_and_its_retries_count_for_all_polls(
    run: Runs, hurry: Callable[[], int]
) -> None:
    run.submit(
        job(
            "ready",
            "fail_if",
            with_={"value": "${{ attempt }}", "bad": 1},
            poll=Poll("result == 2", 5),
            retries=Retry(1),
        )
    )
    hurry()
    assert run.state == "succeeded"
    assert run.status.jobs["ready"].attempts == 2


def test_an_expression_that_has_no_value_fails_the_job(run: Runs, work: Work) -> None:
    run.submit(polling("result.nothing > 3"))
    work()
    assert run.states == {"ready": "failed"}
    assert "result" in run.error("ready")


def test_commands_poll_too_and_secrets_in_what_they_found_are_hidden(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "swordfish-9")
    run.submit(
        JobSpec(
            "ready",
            run=Shell('echo "not yet $P"', "sh"),
            env={"P": "${{ secrets.PASSWORD }}"},
            poll=Poll("result == 'yes'", 5),
        )
    )
    work()
    record = runs.read_job_records([f"{RUN}-ready"], run.connection)[f"{RUN}-ready"]
    assert record.polls is not None
    assert [view for _, view in record.polls.last] == ["not yet ***"]


def test_items_of_a_group_pause_each_for_itself_and_hold_no_slot(
    run: Runs, work: Work, hurry: Callable[[], int]
) -> None:
    run.submit(
        JobSpec(
            "nap",
            sleep="${{ item }}",
            for_each=each(["1h", "2h", "0"]),
            max_parallel=1,
        ),
        job("ready", "give", with_={"value": "${{ item }}"}, for_each=each([1, 2]),
            poll=Poll("result > 1", 7200, 8000)),
    )  # fmt: skip
    work()
    states = run.states
    assert [states[f"nap[{index}]"] for index in range(3)] == ["scheduled", "scheduled", "finished"]
    assert (states["ready[0]"], states["ready[1]"]) == ("scheduled", "finished")
    hurry()
    assert (run.states["nap[1]"], run.states["ready[0]"]) == ("finished", "failed")


def test_in_a_nested_workflow_jobs_pause_too(run: Runs, hurry: Callable[[], int]) -> None:
    inner = Workflow("inner", (nap(), polling("result == 2")))
    run.submit(JobSpec("sub", workflow="inner"), workflows={"inner": inner})
    hurry()
    assert run.state == "succeeded"


# What happens to those that pause ----------------------------------------------------------------


@pytest.mark.parametrize("pauses", [nap(), polling("false")], ids=["sleep", "poll"])
def test_a_cancel_ends_a_pause_and_a_retry_begins_it_anew(
    run: Runs, work: Work, pauses: JobSpec, hurry: Callable[[], int]
) -> None:
    run.submit(pauses, job("other", "fail"))
    work()
    runs.cancel(RUN, run.connection)
    assert run.states[pauses.name] == "canceled"
    assert run.state == "canceled"
    assert run.connection.zcard(keys.scheduled("default")) == 0
    retry.retry(RUN, run.connection)
    assert not run.connection.hexists(keys.job(f"{RUN}-{pauses.name}"), "flowq_due")
    assert not run.connection.hexists(keys.job(f"{RUN}-{pauses.name}"), "flowq_polls")
    work()
    assert run.states[pauses.name] == "scheduled"


def test_the_timeout_of_a_run_ends_a_pause(run: Runs, work: Work) -> None:
    run.submit(nap(), timeout_s=1)
    work()
    run.connection.zadd(keys.DEADLINES, {RUN: 1})
    maintenance.tidy(run.connection)
    assert run.states == {"nap": "canceled"}
    assert run.state == "canceled"


def test_a_job_that_is_lost_from_the_schedule_is_found(run: Runs, work: Work) -> None:
    run.submit(nap())
    work()
    run.connection.zrem(keys.scheduled("default"), f"{RUN}-nap")
    run.connection.hset(keys.job(f"{RUN}-nap"), "flowq_missing", 1)  # since long
    run.connection.zadd(keys.WATCHED, {RUN: 1})
    found = maintenance.tidy(run.connection)
    assert [finding.what for finding in found] == ["lost"]


def test_a_tolerated_poll_lets_the_next_one_run(run: Runs, work: Work) -> None:
    run.submit(
        polling("false", every_s=60, within_s=1, continue_on_error=ALL_TOLERATED),
        job("after", "give", needs=("ready",), with_={"value": 1}),
    )
    work()
    assert run.state == "succeeded"


@pytest.mark.parametrize("written", ["", "[]", "1", '{"count": "x"}', '{"last": 1}', "{" * 9999])
def test_what_user_code_has_written_over_the_polls_is_no_error(written: str) -> None:
    assert read_polls(written) is None


def test_user_code_that_breaks_the_fields_of_a_pause_loses_nothing(
    run: Runs, work: Work, hurry: Callable[[], int]
) -> None:
    run.submit(polling("result == 3"))
    work()
    broken: dict[Any, Any] = {"flowq_polls": '{"last": 7}', "flowq_pause_events": "1-1 x y-z 0-0"}
    run.connection.hset(keys.job(f"{RUN}-ready"), mapping=broken)
    hurry()
    assert run.state == "succeeded"


# Both forms --------------------------------------------------------------------------------------


def test_the_python_form_takes_times_as_python_has_them() -> None:
    at = datetime(2026, 12, 24, 8, tzinfo=UTC)
    flow = flowq.Workflow("demo")
    flow.sleep("a", timedelta(minutes=10))
    flow.sleep("b", at)
    flow.sleep("c", 1.5)
    flow.sleep("d", "10m", needs="c")
    assert [each.sleep for each in flow.spec()] == ["600", at.isoformat(), "1.5", "10m"]
    flow.sleep("e", datetime(2026, 12, 24))  # noqa: DTZ001 - no zone is what is refused
    with pytest.raises(WorkflowInvalid, match="time zone"):
        flow.spec()


@pytest.mark.parametrize("value", ["90s", "1.5", "2026-12-24T08:00:00+01:00", 3, 0])
def test_a_pause_reads_as_it_was_written(value: object) -> None:
    assert parse_pause(write_pause(value)) == parse_pause(value)


def test_run_inline_gives_up_on_what_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowq.testing.worker.MAX_HURRIED", 8)
    text = (
        "jobs:\n"
        "  ready: {call: 'language_jobs:count_up', poll: {until: 'false', within: 2m}}\n"
        "  never: {call: 'language_jobs:count_up', poll: {until: 'false'}}\n"
    )
    ended = run_inline(parse_workflow(text, "w.yaml"))
    assert (ended.states["ready"], ended.states["never"]) == ("failed", "scheduled")
    assert isinstance(ended.errors["ready"], PollFailed)
    assert ended.errors["ready"].count == 5


def test_run_inline_does_not_wait() -> None:
    text = (
        "jobs:\n"
        "  nap: {sleep: 1d}\n"
        "  ready: {needs: nap, call: 'language_jobs:count_up', "
        "poll: {until: result == 3, every: 1h}}\n"
    )
    ended = run_inline(parse_workflow(text, "w.yaml"))
    assert (ended.state, ended.results["ready"]) == ("succeeded", 3)
    assert ended.order == ("nap", "ready")


def test_the_documents_of_a_run_have_its_polls(run: Runs, work: Work) -> None:
    run.submit(polling("result == 2"))
    work()
    records = runs.read_job_records([f"{RUN}-ready"], run.connection)
    facts = RunFacts(run.status, record_by_name={"ready": records[f"{RUN}-ready"]})
    ready = run_document(facts)["jobs"]["ready"]
    assert (ready["status"], ready["attempts"], ready["polls"]["count"]) == ("scheduled", [], 1)
    assert ready["polls"]["last"][0]["result"] == 1


def test_a_worker_without_flowq_s_classes_sleeps_by_rqs_own_retries(
    run: Runs, work_plainly: Work
) -> None:
    run.submit(nap())
    work_plainly()
    score = run.connection.zscore(keys.scheduled("default"), f"{RUN}-nap")
    assert score is not None
    assert score > time.time() + 3000
