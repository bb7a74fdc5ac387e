"""What programs call: `flowq.load`, `submit`, `run`, `runs`, and the methods of a run."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import api_jobs
import pytest
import redis.asyncio
from redis import Redis

import flowq
from flowq.runtime import keys, runs
from flowq.runtime import queue as queues

Work = Callable[..., None]
EXAMPLES = Path(__file__).parents[2] / "workflows"


@pytest.fixture(autouse=True)
def default(connection: Redis) -> Iterator[None]:
    """The test server is what `flowq.connect` has connected to."""
    before = queues.remember(connection)
    yield
    queues.remember(before)


# Loading and submitting ----------------------------------------------------------------------


def test_a_file_is_loaded_and_checked(tmp_path: Path) -> None:
    assert flowq.load(EXAMPLES / "sandwich.yaml").name == "sandwich"
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: broken\njobs:\n  a:\n    call: time:tim\n  b:\n    needs: c\n")
    with pytest.raises(flowq.WorkflowInvalid) as refused:
        flowq.load(broken)
    assert {problem.where.line for problem in refused.value.problems if problem.where} == {4, 5, 6}
    with pytest.raises(flowq.WorkflowNotFound, match="no such file"):
        flowq.load(tmp_path / "nothing.yaml")


def test_functions_that_are_not_here_need_not_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "remote.yaml"
    file.write_text("name: remote\njobs:\n  a:\n    call: only_workers_have.this:function\n")
    with pytest.raises(flowq.WorkflowInvalid, match="only_workers_have"):
        flowq.load(file)
    run = flowq.submit(flowq.load(file, imports=False), imports=False)
    assert run.status().jobs["a"].state == "queued"


def test_a_warning_stands_at_its_place_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "warned.yaml"
    file.write_text("name: warned\nenv:\n  API_TOKEN: x\njobs:\n  a:\n    call: time:time\n")
    text = file.read_text().replace("x", "${{ env.HOME_TOKEN }}")
    file.write_text(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flowq.load(file)
    assert [(each.filename, each.lineno) for each in caught] == [(str(file), 3)]
    assert str(caught[0].message).startswith("FQ229 ")


@pytest.mark.parametrize(
    "given",
    [api_jobs.flow, api_jobs.flow.spec(), "api_jobs:flow"],
    ids=["declared", "loaded", "named"],
)
def test_each_form_of_a_workflow_is_submitted(given: Any, work: Work) -> None:
    run = flowq.submit(given, {"n": 3})
    work()
    assert run.wait(60).state == "succeeded"
    assert run.outputs() == {"total": 6}
    assert run.record().inputs == {"n": 3}


def test_a_declared_workflow_is_submitted_with_its_inputs_as_keywords(work: Work) -> None:
    run = api_jobs.flow.submit(n=4)
    work()
    assert run.wait().is_ended
    assert run.result("total") == 12


def test_what_is_no_workflow_is_refused_with_what_is_one() -> None:
    with pytest.raises(flowq.UsageError, match=r"a flowq\.Workflow, what flowq\.load returns"):
        flowq.submit(3)  # type: ignore[arg-type]


def test_wrong_inputs_are_refused_and_nothing_is_submitted(connection: Redis) -> None:
    with pytest.raises(flowq.WorkflowInvalid, match="has no input 'm'"):
        api_jobs.flow.submit(m=4)
    with pytest.raises(flowq.UsageError, match=r"flowq\.submit\(workflow, \{…\}, labels=…\)"):
        api_jobs.flow.submit(labels={"team": "data"})
    assert connection.keys("rq:*") == []


def test_running_waits_and_returns_the_ended_run(
    work: Work, wait_until: Callable[..., None], connection: Redis
) -> None:
    ended: list[flowq.Run] = []
    runner = threading.Thread(
        target=lambda: ended.append(flowq.run(api_jobs.flow, {"n": 3}, timeout="60s"))
    )
    runner.start()
    wait_until(lambda: connection.llen(keys.queue("default")))  # else there is nothing to work on
    work()
    runner.join()
    assert ended[0].status().is_ended
    assert ended == flowq.runs()


def test_without_a_connection_the_error_proposes_a_local_one() -> None:
    queues.remember(None)
    calls: list[Callable[[], object]] = [
        lambda: api_jobs.flow.run(n=1),
        lambda: flowq.submit(api_jobs.flow),
        lambda: flowq.get_run("abc"),
        flowq.runs,
    ]
    for call in calls:
        with pytest.raises(flowq.UsageError, match=r"with flowq\.local\(workers=2\):"):
            call()


# Waiting -----------------------------------------------------------------------------------------


def test_a_failure_names_the_jobs_and_their_errors(work: Work) -> None:
    run = api_jobs.failing.submit()
    work()
    with pytest.raises(flowq.RunFailed) as failed:
        run.wait()
    assert failed.value.jobs == ("fail", "items[1]")
    assert failed.value.errors == {"fail": "ValueError: no bread", "items[1]": "ValueError: two"}
    assert "fail (ValueError: no bread)" in str(failed.value)


def test_a_timeout_says_what_the_run_waits_for() -> None:
    run = api_jobs.flow.submit()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.2 s: count is queued") as late:
        run.wait("200ms")
    assert time.monotonic() - began < 5
    assert isinstance(late.value, flowq.RunNotEnded)
    assert "no worker listens on default; start one: flowq worker default" in late.value.waits_for
    with pytest.raises(flowq.UsageError, match="is not a duration"):
        run.wait("soon")


def test_a_timeout_names_an_approval_before_all_else(work: Work, tmp_path: Path) -> None:
    file = tmp_path / "ask.yaml"
    text = "name: ask\njobs:\n  ready: {call: 'time:time'}\n  later: {call: 'time:time', needs: go}"
    file.write_text(f"{text}\n  go: {{call: 'time:time', approval: {{}}}}\n")
    run = flowq.submit(file)
    work()
    with pytest.raises(flowq.RunNotEnded, match=r"within 0 s: go waits for approval"):
        run.wait(0)
    assert run.approve("go") is True
    work()
    assert run.wait().state == "succeeded"


def test_waiting_warns_once_if_no_worker_listens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowq.observing.QUIET_S", 0.01)
    run = api_jobs.flow.submit()
    with pytest.raises(flowq.RunNotEnded):
        run.wait(1.2)
    assert [record.message for record in caplog.records if record.name == "flowq"] == [
        f"run {run.id}: no worker listens on default; start one: flowq worker default"
    ]


def test_waiting_listens_and_does_not_poll(connection: Redis) -> None:
    run = api_jobs.flow.submit()
    connection.config_resetstat()
    with pytest.raises(flowq.RunNotEnded):
        run.wait(1.2)
    assert connection.info("commandstats")["cmdstat_xread"]["calls"] <= 4


def test_many_threads_wait_for_one_run(work: Work) -> None:
    run = api_jobs.flow.submit(n=3)
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(run.wait(60).state)) for _ in range(5)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    assert states == ["succeeded"] * 5


def test_waiting_goes_on_when_its_connections_are_cut(
    connection: Redis, work: Work, wait_until: Callable[..., None]
) -> None:
    run = api_jobs.flow.submit(n=3)
    states: list[str] = []
    waiting = threading.Thread(target=lambda: states.append(run.wait(60).state))
    waiting.start()
    wait_until(lambda: "xread" in [client["cmd"] for client in connection.client_list()])
    assert connection.client_kill_filter(_type="normal", skipme=True) > 0
    work()
    waiting.join()
    assert states == ["succeeded"]


# Results -------------------------------------------------------------------------------------


def test_results_of_jobs_items_and_groups(work: Work) -> None:
    run = api_jobs.flow.submit(n=3)
    with pytest.raises(flowq.WrongState, match="job count has not ended"):
        run.result("count")
    work()
    assert run.result("count") == [0, 1, 2]
    assert run.result("double") == [0, 2, 4]
    assert run.result("double[2]") == 4
    items = {"double[0]": 0, "double[1]": 2, "double[2]": 4}
    results = {"count": [0, 1, 2], "double": [0, 2, 4], **items, "total": 6}
    assert list(run.results().items()) == list(results.items())
    assert run.results(["double"]) == {"double": [0, 2, 4]}
    assert run.results(["double[1]", "total"]) == {"double[1]": 2, "total": 6}
    with pytest.raises(flowq.NotFound, match="did you mean 'total'"):
        run.result("totl")


def test_a_job_that_did_not_succeed_has_no_result(work: Work) -> None:
    run = api_jobs.failing.submit()
    work()
    assert run.result("fine") == "fine"
    assert run.result("passed_over") is None
    assert run.result("forgiven") is None
    with pytest.raises(flowq.WrongState, match=r"job fail failed, .*: ValueError: no bread"):
        run.result("fail")
    assert run.result("never") is None
    with pytest.raises(flowq.WrongState, match=r"jobs\.items\[1\] failed: ValueError: two"):
        run.result("items")
    assert run.result("items[0]") == 1
    assert run.results() == {"fine": "fine", "items": [1, None], "items[0]": 1}


def test_the_result_of_a_nested_workflow_has_its_outputs(work: Work) -> None:
    outer = flowq.Workflow("outer")
    outer.workflow("inner", api_jobs.flow, with_={"n": 2})
    run = flowq.submit(outer)
    work()
    assert run.wait(60).is_ended
    assert run.result("inner") == {"total": 2}
    assert run.result("inner.count") == [0, 1]


def test_a_result_whose_time_was_over_is_said_to_be_gone(connection: Redis, work: Work) -> None:
    run = api_jobs.flow.submit()
    work()
    connection.delete(f"rq:results:{run.id}-count")
    with pytest.raises(flowq.NotFound, match="the result of job count has expired"):
        run.result("count")


def test_a_retry_runs_what_failed_again(work: Work) -> None:
    run = api_jobs.failing.submit()
    work()
    assert "fail" in run.retry()
    assert run.cancel() == []
    with pytest.raises(flowq.RunFailed):
        run.wait(60)


# Finding runs --------------------------------------------------------------------------------


def test_runs_are_selected_by_state_workflow_and_time(work: Work) -> None:
    old, failed = api_jobs.flow.submit(), api_jobs.failing.submit()
    work()
    new = flowq.submit(api_jobs.flow, labels={"team": "data"})
    assert flowq.runs() == [new, failed, old]
    assert flowq.runs(limit=1) == [new]
    assert flowq.runs(state="failed") == [failed]
    assert flowq.runs(workflow="doubling", state="succeeded") == [old]
    assert flowq.runs(labels={"team": "data"}) == [new]
    assert flowq.runs(since="1h") == flowq.runs(since=timedelta(hours=1)) == [new, failed, old]
    assert flowq.runs(since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_what_selects_no_run_by_mistake_is_refused() -> None:
    with pytest.raises(flowq.UsageError, match="never 'done', but one of: staged, running"):
        flowq.runs(state="done")  # type: ignore[arg-type]
    with pytest.raises(flowq.UsageError, match="has no time zone"):
        flowq.runs(since=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(flowq.UsageError, match="since 'yesterday' is not a duration"):
        flowq.runs(since="yesterday")
    with pytest.raises(flowq.UsageError, match="labels are a mapping, such as"):
        flowq.runs(labels="team=data")  # type: ignore[arg-type]


def test_a_run_is_found_by_its_whole_id_only() -> None:
    run = api_jobs.flow.submit()
    for word in (run.id[:5], "last", "nothing"):
        with pytest.raises(flowq.RunNotFound):
            flowq.get_run(word)
    assert repr(flowq.get_run(run.id)) == f"Run(run_id='{run.id}')"


def test_a_connection_may_be_a_url_or_a_client(redis_url: str, connection: Redis) -> None:
    queues.remember(None)
    run = flowq.submit(api_jobs.flow, connection=redis_url)
    assert flowq.get_run(run.id, connection=connection).id == run.id
    with pytest.raises(flowq.ServerUnavailable, match="cannot be used: "):
        flowq.runs(connection="redis://127.0.0.1:1/0")


# Clients of redis.asyncio --------------------------------------------------------------------


def test_a_client_of_redis_asyncio_is_refused_wherever_one_is_given(redis_url: str) -> None:
    client: Any = redis.asyncio.Redis.from_url(redis_url)
    calls: list[Callable[[], object]] = [
        lambda: flowq.submit(api_jobs.flow, connection=client),
        lambda: flowq.get_run("abc", connection=client),
        lambda: flowq.runs(connection=client),
        lambda: flowq.Queue(connection=client),
        lambda: flowq.Job.fetch("abc", connection=client),
        lambda: flowq.get_future("abc", client),
        lambda: flowq.release_job("abc", client),
        lambda: flowq.Worker(["default"], connection=client),
    ]
    for call in calls:
        with pytest.raises(flowq.UsageError, match=r"redis\.asyncio.*flowq\.aio"):
            call()


def test_releasing_a_job_by_a_run_is_deprecated(work: Work, tmp_path: Path) -> None:
    file = tmp_path / "ask.yaml"
    file.write_text("name: ask\njobs:\n  go: {call: 'time:time', approval: {}}\n")
    run = flowq.submit(file)
    with pytest.warns(DeprecationWarning, match=r"write Run\.approve\(job\)"):
        assert run.release("go") is True
    assert runs.get_record(run.id, run.connection).state == "running"


untyped: Any = flowq


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: untyped.load(3), "takes a file, FILE:NAME or"),
        (lambda: untyped.load(api_jobs.flow), "goes to flowq.submit or flowq.run"),
        (lambda: untyped.submit(api_jobs.flow, [1]), "inputs of a workflow must be a mapping"),
        (lambda: untyped.run(api_jobs.flow, "n=3"), "inputs of a workflow must be a mapping"),
        (lambda: untyped.runs(connection=3), "connection= takes a redis.Redis"),
        (lambda: untyped.runs(limit=-1), "limit must be the maximum"),
        (lambda: untyped.runs(limit="3"), "limit must be the maximum"),
        (lambda: untyped.runs(since=3), "since must be a datetime, a timedelta, or a duration"),
        (lambda: untyped.get_run(3), "takes the id of a run, a text, not 3"),
        (lambda: untyped.events(3), "takes a run, its id, or None"),
        (lambda: untyped.submit(api_jobs.flow).approve("total", "Ann"), "pass the approver as by="),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_what_fits(call: Any, said: str) -> None:
    with pytest.raises(flowq.UsageError, match=said):
        call()


def test_an_option_among_inputs_is_refused_with_the_call_that_takes_it() -> None:
    with pytest.raises(flowq.UsageError, match=r"flowq\.run\(workflow, {…}, timeout=…\)"):
        api_jobs.flow.run(n=1, timeout="60s")
    with pytest.raises(flowq.UsageError, match=r"flowq\.submit\(workflow, {…}, connection=…\)"):
        api_jobs.flow.submit(connection="redis://127.0.0.1:1")


def test_functions_for_jobs_use_the_current_connection() -> None:
    report = flowq.Queue().enqueue("time.time", deferred=True)
    assert flowq.get_future(report.id).id == report.id
    assert flowq.release_job(report.id) is True
    queues.remember(None)
    calls: list[Callable[[], object]] = [
        lambda: flowq.get_future("x"),
        lambda: flowq.release_job("x"),
        flowq.Queue,
    ]
    for call in calls:
        with pytest.raises(flowq.UsageError, match="there is no connection"):
            call()


def test_an_unknown_job_is_not_found_with_the_nearest() -> None:
    run = api_jobs.flow.submit()
    for ask in (run.result, run.explain, run.approve, run.reject):
        with pytest.raises(flowq.NotFound, match=r"no job totl in run .*did you mean 'total'"):
            ask("totl")
        with pytest.raises(flowq.NotFound, match=r"there are count, double, total$"):
            ask("zz")
