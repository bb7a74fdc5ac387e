"""The outputs of a run are evaluated once, by a child, and kept as views."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.runtime import keys, runs
from flowq.runtime.job import Job
from flowq.spec import Shell
from tests.runtime.language import RUN, Runs, job

Work = Callable[..., None]
OUTPUTS_JOB = f"flowq-outputs-{RUN}-1"


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def handle(connection: Redis) -> Run:
    return Run(RUN, connection)


def test_a_job_that_counts_nowhere_evaluates_them_next_and_is_gone(
    run: Runs, handle: Run, work: Work, connection: Redis
) -> None:
    run.submit(
        job("one", "give", with_={"value": {1, 2}}),
        outputs={
            "set": "${{ jobs.one.result }}",
            "bad": "${{ 1 / (jobs.one.result | length - 2) }}",
        },
    )
    assert handle.kept_outputs().errors == {}
    work(max_jobs=1)
    assert run.state == "succeeded"
    kept = handle.kept_outputs()
    assert (kept.views, kept.is_pending, kept.queue) == ({}, True, "default")
    assert kept.errors["set"] == (
        "it is evaluated after the run, and waits for a worker on queue default"
    )
    assert connection.lrange("rq:queue:default", 0, -1) == [OUTPUTS_JOB.encode()]
    work(max_jobs=1)
    kept = handle.kept_outputs()
    assert kept.views == {"set": {"$view": {"repr": "{1, 2}", "type": "builtins.set"}}}
    assert list(kept.errors) == ["bad"]
    assert not kept.is_pending
    assert list(run.status.jobs) == ["one"]
    assert not connection.exists(keys.job(OUTPUTS_JOB))


def test_nothing_is_evaluated_for_a_run_without_outputs(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("one", "my_id"))
    work(max_jobs=1)
    assert run.state == "succeeded"
    assert not connection.exists("rq:queue:default")


def test_what_is_kept_stays_however_often_the_job_is_executed(
    run: Runs, handle: Run, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.result }}"})
    work(max_jobs=1)
    again = connection.dump(keys.job(OUTPUTS_JOB))
    work()
    connection.hset(keys.run(RUN), "outputs", json.dumps({"template": {"one": "other"}}))
    connection.restore(keys.job(OUTPUTS_JOB), 0, again)
    connection.rpush("rq:queue:default", OUTPUTS_JOB)
    work()
    assert handle.kept_outputs().views == {"one": 1}


def test_a_retried_run_is_evaluated_anew_and_the_job_of_its_first_end_keeps_nothing(
    run: Runs, handle: Run, work: Work, connection: Redis, tmp_path: Path
) -> None:
    gate = f"{tmp_path}/gate"
    run.submit(
        job("one", "fail_unless", with_={"path": gate, "value": 1}),
        outputs={"one": "${{ jobs.one.result }}"},
    )
    work(max_jobs=1)
    first = connection.dump(keys.job(OUTPUTS_JOB))
    connection.lrem("rq:queue:default", 1, OUTPUTS_JOB)  # a worker has just taken it
    Path(gate).touch()
    handle.retry()
    assert handle.kept_outputs().errors == {}
    work(max_jobs=1)
    connection.restore(keys.job(OUTPUTS_JOB), 0, first)
    connection.lpush("rq:queue:default", OUTPUTS_JOB)
    work(max_jobs=1)
    assert handle.kept_outputs().is_pending
    work()
    assert handle.kept_outputs().views == {"one": 1}


def test_the_job_of_an_earlier_end_goes_when_nobody_has_begun_it(
    run: Runs, handle: Run, work: Work, connection: Redis, tmp_path: Path
) -> None:
    outputs = {"one": "${{ jobs.one.result }}"}
    run.submit(job("one", "fail_unless", with_={"path": f"{tmp_path}/gate"}), outputs=outputs)
    for end in range(1, 4):
        if end > 1:
            handle.retry()
            connection.rpoplpush("rq:queue:default", "rq:queue:default")  # the job goes first
        work(max_jobs=1)
        last = f"flowq-outputs-{RUN}-{end}".encode()
        assert connection.lrange("rq:queue:default", 0, -1) == [last]
        assert connection.keys("rq:job:flowq-outputs-*") == [b"rq:job:" + last]
    handle.remove()
    assert connection.keys("rq:job:*") == []


def test_a_run_that_is_removed_takes_the_job_with_it(
    run: Runs, handle: Run, work: Work, connection: Redis
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.result }}"})
    work(max_jobs=1)
    handle.remove()
    assert connection.keys("rq:job:*") == []
    assert connection.lrange("rq:queue:default", 0, -1) == []


def test_a_run_with_a_queue_for_itself_has_the_job_there_whatever_was_deleted(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.status }}"})
    own = runs.set_apart(RUN, connection)
    connection.delete(keys.job(f"{RUN}-one"))
    Run(RUN, connection).cancel()
    assert run.state == "canceled"
    assert connection.lrange(keys.queue(own), 0, 0) == [OUTPUTS_JOB.encode()]


@pytest.mark.parametrize("status", ["failed", ""])
def test_outputs_that_nobody_will_evaluate_say_so(
    run: Runs, handle: Run, work: Work, connection: Redis, status: str
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.result }}"})
    work(max_jobs=1)
    if status:
        connection.hset(keys.job(OUTPUTS_JOB), "status", status)
    else:
        Job(OUTPUTS_JOB, connection=connection).delete()
    kept = handle.kept_outputs(within_s=60)
    how = "has failed" if status else "is gone"
    assert kept.errors == {"one": f"job {OUTPUTS_JOB}, which was to evaluate it, {how}"}
    assert not kept.is_pending


def test_a_run_that_an_older_version_has_ended_says_so(
    run: Runs, handle: Run, work: Work, connection: Redis
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.result }}"})
    connection.hdel(keys.run(RUN), "outputs_call")
    work()
    assert "older version" in handle.kept_outputs().errors["one"]
    assert handle.outputs() == {"one": 1}


def test_a_canceled_run_has_outputs_too_and_nobody_waits_for_them_in_vain(
    run: Runs, handle: Run, work: Work
) -> None:
    run.submit(job("one", "give", with_={"value": 1}), outputs={"one": "${{ jobs.one.status }}"})
    handle.cancel()
    assert handle.kept_outputs(within_s=60).is_pending  # no worker listens
    work()
    assert handle.kept_outputs().views == {"one": "canceled"}


def test_the_view_of_a_job_is_written_with_its_end_by_rqs_worker_too(
    run: Runs, handle: Run, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        job("good", "give", with_={"value": [1]}),
        job("bad", "fail", with_={"message": "no"}),
        job("nothing", "give", with_={"value": None}),
    )
    work()
    views = handle.views()
    assert (views["good"].result, views["good"].arguments) == ([1], {"value": [1]})
    assert (views["bad"].result, views["bad"].arguments) == (None, {"message": "no"})
    assert views["nothing"].result is None


def test_a_result_without_a_view_says_so(
    run: Runs, handle: Run, work: Work, connection: Redis
) -> None:
    run.submit(job("one", "give", with_={"value": 1}))
    work()
    connection.hdel(keys.job(f"{RUN}-one"), keys.VIEW_FIELD)
    result: Any = handle.views()["one"].result
    assert "not shown" in result["$view"]["repr"]
    assert handle.results() == {"one": 1}


def test_a_job_of_no_run_has_no_view(queue: Any, work: Work, connection: Redis) -> None:
    future = queue.enqueue("language_jobs.my_id", deferred=True)
    blocker = queue.enqueue("language_jobs.give", 1, blocked_by=future)
    future.release()
    work()
    assert not connection.hexists(blocker.key, keys.VIEW_FIELD)


def test_secrets_are_not_in_the_views_of_arguments_and_results(
    run: Runs, handle: Run, work: Work, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    run.submit(
        job("one", "give", with_={"value": "Bearer ${{ secrets.TOKEN }}"}),
        job("two", "give", with_={"value": ["${{ secrets.TOKEN }}"]}),
    )
    work()
    assert handle.views()["one"].arguments == {"value": "Bearer ***"}
    assert handle.views()["two"].arguments == {"value": ["***"]}
    assert handle.views()["two"].result == ["***"]
    assert run.result("two") == ["hunter2hunter2"]  # as the next job gets it
    assert "contains a secret" in run.reason("two")
    assert handle.results()["two"] == ["hunter2hunter2"]


def test_of_a_shell_job_the_command_is_shown_with_its_values(
    run: Runs, handle: Run, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    run.submit(
        job("one", "give", with_={"value": "a b"}),
        job("two", needs=("one",), run=Shell("echo ${{ jobs.one.result }} ${{ secrets.TOKEN }}")),
    )
    work()
    assert handle.views()["two"].arguments == {"command": "echo 'a b' ***"}
