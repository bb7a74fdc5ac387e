"""What cannot be kept in Redis: results, arguments, meta, items; said with its place."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import kept_jobs
import pytest
import redis
from rq import Callback, Retry
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer, PickleSerializer

from flowq import Unserializable, Worker
from flowq import job as flowq_job
from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime import serializing
from flowq.runtime.job import Job, get_job
from flowq.runtime.lookups import list_items
from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER

Work = Callable[..., None]

PLACES = {
    "lambda": "result: a lambda cannot be kept",
    "module": 'result["modules"][0]: a module cannot be kept',
    "open file": "result.right: an open file cannot be kept",
    "lock": "result.parts[0]: a lock cannot be kept",
    "generator": 'result["files"][3]: a generator cannot be kept',
    "iterator": "result[0]: a callable_iterator cannot be kept",
    "too deep": "result: a list cannot be kept (it is nested too deeply)",
    "too large": "result: a dict of 51 MB cannot be kept (it is too large)",
    "raising": 'result["a"][1]: a RaisesWhenWritten cannot be kept (KeyboardInterrupt: not now)',
    "no memory": "result: a list cannot be kept (there is not enough memory to write it)",
    "unreadable": 'result["errors"][0]: a NeedsTwo cannot be kept (TypeError: NeedsTwo.__init__()',
    "local class": "result[0]: a Local cannot be kept",
    "key": "result (its key (1, <unlocked _thread.lock object at",
    "in a deque": "result[1]: a lock cannot be kept",
    "raising when looked at": 'result["a"]: a CannotBeRead cannot be kept (ValueError: not today)',
    "lying": "result[0]: a Lies cannot be kept (KeyboardInterrupt: not now)",
    "in an object": 'result.value["x"][0]: a module cannot be kept',
}


def last_line(job: RQJob) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string or "").strip().rpartition("\n")[2]


@pytest.fixture(params=["flowq", "rq"])
def execute(request: pytest.FixtureRequest, connection: redis.Redis, work: Work) -> Work:
    """Do all jobs, with flowq's worker or with RQ's in this process."""
    if request.param == "rq":
        return work

    def run() -> None:
        Worker(["default"], connection=connection, paths=[JOBS_FOLDER]).work(
            burst=True, logging_level="ERROR"
        )

    return run


def test_a_blocker_whose_result_cannot_be_kept_fails_and_says_where_it_is(
    queue: Queue, execute: Work
) -> None:
    future = queue.enqueue(
        kept_jobs.number, deferred=True, on_blocker_failure="run", job_id="future"
    )
    jobs = {what: queue.enqueue(kept_jobs.make, what, blocked_by=future) for what in PLACES}
    future.release()
    execute()
    for what, job in jobs.items():
        assert job.get_status() == "failed", what
        assert PLACES[what] in last_line(job), what
        assert job.return_value() is None, what
    assert "in __reduce__" in str(jobs["raising"].latest_result().exc_string)
    assert [blocker.status for blocker in future.blockers] == ["failed"] * len(PLACES)
    assert future.return_value(refresh=True) == 7


def test_a_generator_function_is_no_coroutine(queue: Queue, execute: Work) -> None:
    future = queue.enqueue(kept_jobs.take, deferred=True, on_blocker_failure="run")
    jobs = [
        queue.enqueue(function, blocked_by=future)
        for function in (kept_jobs.count_up, kept_jobs.read_later)
    ]
    future.release()
    execute()
    assert "result: a generator cannot be kept" in last_line(jobs[0])
    assert "result: an asynchronous iterator cannot be kept" in last_line(jobs[1])
    text = str(jobs[0].latest_result().exc_string)
    assert "direct cause" not in text  # what pickle says is in the message


@pytest.mark.parametrize("program", ["flowq", "rq"])
def test_a_plain_job_keeps_the_text_as_with_rq_and_it_is_logged_once(
    queue: Queue, redis_url: str, program: str
) -> None:
    job = queue.enqueue(kept_jobs.make, "generator")
    future = queue.enqueue(kept_jobs.make, "module", deferred=True)
    unkept = queue.enqueue(kept_jobs.make, "lambda", result_ttl=0)
    future.release()
    classes = ["--job-class", "flowq.Job", "--queue-class", "flowq.Queue", "--url", redis_url]
    options = ["--redis-url", redis_url] if program == "flowq" else classes
    command = [str(Path(sys.executable).with_name(program)), "worker", "--burst", *options]
    worker = subprocess.run(
        command, check=False, cwd=JOBS_FOLDER, capture_output=True, text=True, timeout=60
    )
    assert [job.get_status(), future.get_status()] == ["finished"] * 2, worker.stderr
    assert {job.return_value(), future.return_value()} == {"Unserializable return value"}
    logged = [
        line for line in (worker.stdout + worker.stderr).splitlines() if " cannot be " in line
    ]
    assert len(logged) == 2
    assert f'job {job.id}: result["files"][3]: a generator cannot be kept' in logged[0]
    assert f'job {future.id}: result["modules"][0]: a module cannot be kept' in logged[1]
    assert not RQJob.exists(unkept.id, queue.connection)


@pytest.mark.parametrize("how", ["fork", "warm", "rq", "rq fork", "inline", "dependents"])
def test_of_a_result_that_can_be_written_but_not_read_the_text_is_kept_as_the_log_says(
    connection: redis.Redis, redis_url: str, how: str, work: Work
) -> None:
    queue = Queue(connection=connection, is_async=how != "inline")
    job = queue.enqueue(kept_jobs.make, "unreadable")
    if how == "dependents":  # RQ's own code ends it
        queue.enqueue(kept_jobs.take, depends_on=job)
    if how in ("fork", "warm", "rq fork"):
        program = "rq" if how == "rq fork" else "flowq"
        classes = ["--job-class", "flowq.Job", "--queue-class", "flowq.Queue", "--url", redis_url]
        options = classes if program == "rq" else ["--mode", how, "--redis-url", redis_url]
        command = [str(Path(sys.executable).with_name(program)), "worker", "--burst", *options]
        said = subprocess.run(
            command, check=True, cwd=JOBS_FOLDER, capture_output=True, text=True, timeout=60
        )
        assert (said.stdout + said.stderr).count(
            'result["errors"][0]: a NeedsTwo cannot be kept'
        ) == 1
    elif how == "rq":
        work()
    elif how == "dependents":
        Worker(["default"], connection=connection, paths=[JOBS_FOLDER]).work(burst=True)
    assert job.return_value(refresh=True) == "Unserializable return value"


def test_a_callback_that_makes_a_result_unreadable_leaves_the_text(
    queue: Queue, execute: Work
) -> None:
    job = queue.enqueue(kept_jobs.make_items, on_success=Callback(kept_jobs.spoil))
    execute()
    assert job.return_value() == "Unserializable return value"


def test_a_retry_may_help(queue: Queue, execute: Work) -> None:
    future = queue.enqueue(kept_jobs.take, deferred=True)
    job = queue.enqueue(kept_jobs.make_again, "lambda", retry=Retry(max=1), blocked_by=future)
    future.release()
    execute()
    assert (job.get_status(), job.return_value()) == ("finished", 7)
    assert future.get_status() == "finished"


def test_in_a_synchronous_queue_a_blocker_fails_as_well(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, is_async=False)
    future = queue.enqueue(kept_jobs.number, deferred=True, on_blocker_failure="run")
    job = queue.enqueue(kept_jobs.make, "generator", blocked_by=future)
    plain = queue.enqueue(kept_jobs.make, "generator")
    future.release()
    assert job.get_status() == "failed"
    assert PLACES["generator"] in last_line(job)
    assert plain.return_value() == "Unserializable return value"


def test_the_json_serializer_says_what_it_keeps(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, serializer=JSONSerializer)
    future = queue.enqueue(kept_jobs.take, deferred=True, on_blocker_failure="run")
    tuple_key = queue.enqueue(kept_jobs.make, "key", blocked_by=future)
    module = queue.enqueue(kept_jobs.make, "module", blocked_by=future)
    future.release()
    Worker(["default"], connection=connection, paths=[JOBS_FOLDER], serializer=JSONSerializer).work(
        burst=True, logging_level="ERROR"
    )
    assert "result: a dict cannot be kept (TypeError: keys must be str" in last_line(tuple_key)
    assert 'result["modules"][0]: a module cannot be kept' in last_line(module)
    assert "the JSON serializer keeps texts" in last_line(module)


def test_a_success_callback_that_changes_the_result_changes_what_is_kept(
    queue: Queue, execute: Work
) -> None:
    job = queue.enqueue(kept_jobs.make_items, on_success=Callback(kept_jobs.change))
    execute()
    assert job.return_value() == [1, "changed"]


def test_a_retry_that_is_returned_survives_the_json_serializer(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, serializer=JSONSerializer)
    job = queue.enqueue(kept_jobs.ask_for_retry)
    Worker(["default"], connection=connection, paths=[JOBS_FOLDER], serializer=JSONSerializer).work(
        burst=True, logging_level="CRITICAL"
    )
    assert (job.get_status(), job.return_value()) == ("finished", "second")


# In a workflow -----------------------------------------------------------------------------------


def run_text(text: str, tmp_path: Path, connection: redis.Redis, work: Work) -> Run:
    file = tmp_path / "flow.yaml"
    file.write_text(text)
    run = submit(compile_plan(load(str(file)), {}), connection)
    work()
    return run


def job_of(run: Run, name: str) -> Job:
    return get_job(f"{run.run_id}-{name}", run.connection)


def test_in_a_workflow_such_a_job_fails_and_the_next_gets_nothing(
    tmp_path: Path, connection: redis.Redis, execute: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "open sesame")
    text = """
        name: flow
        jobs:
          plain: {call: "kept_jobs:make", with: {what: generator}}
          told: {call: "kept_jobs:make", with: {what: lock}, if: "true"}
          after: {call: "kept_jobs:take", with: {value: "${{ jobs.plain.result }}"}}
          list: {call: "kept_jobs:make_list", with: {what: module}}
          each: {for_each: "${{ jobs.list.result }}", call: "kept_jobs:take"}
          grow:
            for_each: [1]
            call: "kept_jobs:make_list"
            with: {what: lock}
            more: "[2, 3]"
            env: {SECRET: "${{ secrets.SECRET_KEY }}"}
          secret:
            call: "kept_jobs:make_secret"
            env: {SECRET: "${{ secrets.SECRET_KEY }}"}
    """
    run = run_text(text, tmp_path, connection, execute)
    assert PLACES["generator"] in last_line(job_of(run, "plain"))
    assert PLACES["lock"] in last_line(job_of(run, "told"))
    assert 'result[1]["modules"][0]: a module' in last_line(job_of(run, "list"))
    for name in ("after", "each(list)"):
        assert run.status().jobs[name].state == "skipped", name
    assert 'result["***"]: a lock' in last_line(job_of(run, "secret"))
    # It has failed before it added anything.
    assert list_items(f"{run.run_id}-grow", connection) == [f"{run.run_id}-grow--0"]


def test_a_plain_worker_of_rqs_fails_a_job_that_is_more_than_a_call(
    tmp_path: Path, connection: redis.Redis, work_plainly: Work
) -> None:
    text = 'name: flow\njobs: {a: {call: "kept_jobs:make", with: {what: lock}, env: {A: b}}}'
    run = run_text(text, tmp_path, connection, work_plainly)
    assert PLACES["lock"] in last_line(job_of(run, "a"))


# Arguments, meta, items --------------------------------------------------------------------------


def test_an_argument_that_cannot_be_kept_is_named_when_it_is_enqueued(queue: Queue) -> None:
    future = queue.enqueue(kept_jobs.take, deferred=True)
    for more in ({}, {"blocked_by": future}):
        with pytest.raises(Unserializable, match=r"^argument 2: a lock cannot be kept"):
            queue.enqueue(kept_jobs.take, 1, threading.Lock(), **more)
        with pytest.raises(Unserializable, match=r"^argument value\[0\]: a lambda cannot be kept"):
            queue.enqueue(kept_jobs.take, value=[lambda: 1], **more)
        with pytest.raises(Unserializable, match=r'^meta\["a"\]: a module cannot be kept'):
            queue.enqueue(kept_jobs.take, meta={"a": serializing}, **more)
        many = [Queue.prepare_data(kept_jobs.take, [each], **more) for each in (1, (x for x in ()))]
        with pytest.raises(Unserializable, match=r"^argument 1: a generator cannot be kept"):
            queue.enqueue_many(many)
    assert len(future.blockers) == 0
    assert queue.count == 0


def test_arguments_of_a_decorated_function_are_named_too(queue: Queue) -> None:
    call = flowq_job(queue=queue)(kept_jobs.take)
    with pytest.raises(Unserializable, match=r"^argument value: a generator cannot be kept"):
        call.enqueue(value=(x for x in ()))
    with pytest.raises(Unserializable, match=r"^argument 1: a lock cannot be kept"):
        call.map([1, threading.Lock()])
    assert queue.count == 0


def test_arguments_that_are_too_large_are_refused_for_jobs_of_flowqs(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serializing, "MAX_BYTES", 1_000)
    future = queue.enqueue(kept_jobs.take, deferred=True)
    with pytest.raises(Unserializable, match=r"arguments of kept_jobs.take: .* too large"):
        queue.enqueue(kept_jobs.take, "x" * 1_001, blocked_by=future)
    queue.enqueue(kept_jobs.take, "x" * 1_001)  # as RQ does


def test_meta_that_a_job_cannot_keep_is_named(queue: Queue) -> None:
    job = queue.enqueue(kept_jobs.take)
    job.meta["lock"] = threading.Lock()
    with pytest.raises(Unserializable, match=r'^meta\["lock"\]: a lock cannot be kept'):
        job.save_meta()


def test_arguments_that_the_worker_cannot_read_are_explained(queue: Queue, execute: Work) -> None:
    module = types.ModuleType("only_here")
    exec("class Thing: pass", vars(module))
    sys.modules["only_here"] = module
    try:
        job = queue.enqueue("kept_jobs.take", module.Thing())
    finally:
        del sys.modules["only_here"]
    execute()
    assert f"the arguments of job {job.id} cannot be read here: ModuleNotFoundError" in (
        last_line(job)
    )
    assert "must be importable where workers run" in last_line(job)


def test_a_value_that_can_be_read_is_not_read_where_it_is_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[bytes] = []

    class Counting(PickleSerializer):
        loads = read.append  # type: ignore[assignment]

    monkeypatch.setattr(serializing, "PickleSerializer", Counting)
    serializing.serialize({"a": [1, "text", b"bytes", 1.5, None, (True,)]}, Counting)
    assert not read
    serializing.serialize(kept_jobs.Plain(1), Counting)
    assert len(read) == 1
