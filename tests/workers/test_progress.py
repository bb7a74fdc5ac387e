"""What a job reports of its progress is there while it runs, and what it reported last stays."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import SimpleWorker
from rq.job import Job as RQJob

import flowq
from flowq import server
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.reports import Progress, write_progress
from flowq.runtime import keys, runs
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.wip import read_wip
from flowq.status import PROGRESSED, JobStatus
from flowq.workers import Worker
from flowq.workers.claims import Claim
from flowq.workers.redis_side import Capacity, RedisSide
from flowq.workers.shared_state import SharedState
from tests.reading import parse_workflow
from tests.workers.real_servers import REFUSALS

Drain = Callable[..., Worker]
WaitUntil = Callable[..., None]


def start(connection: redis.Redis, jobs: str) -> Run:
    workflow = parse_workflow(f"name: flow\njobs: {{{jobs}}}", "flow.yaml")
    return submit(compile_plan(workflow, {}), connection)


def count_reports(run: Run) -> int:
    return sum(event.event == PROGRESSED for event in flowq.events(run))


def job_of(run: Run, name: str = "job") -> JobStatus:
    return run.status().jobs[name]


def test_the_last_report_of_each_short_job_arrives_with_its_end(
    connection: redis.Redis, drain: Drain, mode: str
) -> None:
    """A child has several of them in hand, and reports their ends together."""
    count = 3 if mode == "fork" else 40
    run = start(
        connection,
        f"job: {{call: 'worker_jobs:report_progress', for_each: '${{{{ range({count}) }}}}', "
        "with: {until: '${{ item + 1 }}'}}",
    )
    drain(mode=mode)
    found = run.status().jobs
    jobs = [found[f"job[{index}]"] for index in range(count)]
    assert [job.state for job in jobs] == ["finished"] * count
    assert [job.attempts for job in jobs] == [1] * count
    assert [job.progress for job in jobs] == [
        Progress(number, number, f"step {number}") for number in range(1, count + 1)
    ]
    assert count_reports(run) == count


def test_a_job_that_reports_for_long_adds_one_event(connection: redis.Redis, drain: Drain) -> None:
    run = start(
        connection,
        "job: {call: 'worker_jobs:report_progress', with: {until: 1000, wait_s: 1.2}}, "
        "after: {call: 'worker_jobs:nothing', needs: job}",
    )
    drain()
    events = [(event.name, event.event) for event in flowq.events(run)]
    assert events.count(("job", PROGRESSED)) == 1
    assert events.index(("job", PROGRESSED)) < events.index(("job", "finished"))
    assert job_of(run).progress == Progress(1000, 1000, "step 1000")
    assert job_of(run).attempts == 1


def test_what_a_killed_process_has_reported_last_is_known(
    connection: redis.Redis, drain: Drain, mode: str
) -> None:
    run = start(connection, "job: {call: 'worker_jobs:report_and_die', with: {text: last words}}")
    drain(mode=mode)
    job = job_of(run)
    assert (job.state, job.progress) == ("failed", Progress(3, 10, "last words"))
    assert job.attempts == 1


def test_a_retry_begins_without_progress(
    connection: redis.Redis, start_worker: Callable[..., Any], wait_until: WaitUntil, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    run = start(
        connection,
        f"job: {{call: 'worker_jobs:report_at_first', with: {{key: '{tmp_path}/key', "
        f"go: '{go}'}}, retries: 1}}",
    )
    start_worker()
    wait_until(lambda: job_of(run).attempts == 2 and job_of(run).state == "started")
    assert job_of(run).progress is None
    assert [each.progress for each in read_wip(connection).executions] == [None]
    go.touch()
    wait_until(lambda: run.status().is_ended)
    assert job_of(run).progress is None
    assert count_reports(run) == 1  # of the first attempt


def test_the_progress_of_a_running_job_is_shown(
    connection: redis.Redis, start_worker: Callable[..., Any], wait_until: WaitUntil, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    run = start(connection, f"job: {{call: 'worker_jobs:report_and_wait', with: {{go: '{go}'}}}}")
    start_worker()
    said = Progress(1, 4, "first of four")
    wait_until(lambda: job_of(run).progress == said)
    assert job_of(run).state == "started"
    assert [each.progress for each in read_wip(connection).executions] == [said]
    go.touch()
    wait_until(lambda: run.status().is_ended)


def test_a_job_of_no_run_reports_too(queue: Queue, connection: redis.Redis, drain: Drain) -> None:
    job = queue.enqueue("worker_jobs.report_progress", 2)
    drain()
    assert b'"done":2' in connection.hget(job.key, "flowq_progress")  # type: ignore[operator]


def test_threads_of_a_job_report_for_it(connection: redis.Redis, drain: Drain, mode: str) -> None:
    run = start(connection, "job: {call: 'worker_jobs:report_from_threads'}")
    drain(mode=mode)
    assert job_of(run).progress == Progress(1, 2, "from a thread")


def test_secrets_are_hidden_in_the_message(
    connection: redis.Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "ganz geheim")
    run = start(
        connection,
        "job: {call: 'worker_jobs:report_and_die', with: {text: '${{ secrets.TOKEN }}!'}}",
    )
    drain()
    assert job_of(run).progress == Progress(3, 10, "***!")
    stored = connection.hgetall(keys.job(job_of(run).job_id))
    assert b"ganz geheim" not in b"".join(stored.values())


@pytest.mark.parametrize("is_plain", [False, True])
def test_rqs_own_worker_writes_the_reports_of_its_jobs(
    connection: redis.Redis, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its process, with our classes and with its own."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "jobs")
    run = start(
        connection,
        "job: {call: 'worker_jobs:report_progress', with: {until: 100}}, "
        "other: {call: 'worker_jobs:report_progress', with: {until: 50}}",
    )
    classes = {} if is_plain else {"job_class": Job, "queue_class": Queue}
    worker = SimpleWorker(["default"], connection=connection, **classes)
    worker.work(burst=True, logging_level="CRITICAL")
    assert count_reports(run) == 2
    assert [job_of(run, name).attempts for name in ("job", "other")] == [1, 1]
    if not is_plain:  # RQ's classes do not tell us that a job is about to end
        assert job_of(run).progress == Progress(100, 100, "step 100")
        assert job_of(run, "other").progress == Progress(50, 50, "step 50")
        assert job_of(run).state == "finished"


@pytest.mark.parametrize("is_plain", [False, True])
def test_rqs_own_worker_hides_secrets_in_the_message(
    connection: redis.Redis, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "jobs")
    monkeypatch.setenv("TOKEN", "ganz geheim")
    run = start(
        connection, "job: {call: 'worker_jobs:report_text', with: {text: '${{ secrets.TOKEN }}!'}}"
    )
    classes = {} if is_plain else {"job_class": Job, "queue_class": Queue}
    SimpleWorker(["default"], connection=connection, **classes).work(
        burst=True, logging_level="CRITICAL"
    )
    said = [event.progress for event in flowq.events(run) if event.progress]
    assert said == [Progress(1, None, "***!")]


def test_a_report_about_an_ended_or_removed_job_changes_nothing(
    connection: redis.Redis, drain: Drain
) -> None:
    from flowq.runtime import scripts

    run = start(connection, "job: {call: 'worker_jobs:nothing'}")
    drain()
    job_id = job_of(run).job_id

    def report() -> None:
        text = '{"done":1,"total":2,"message":""}'
        scripts.PROGRESS.call(connection, keys.job(job_id), "worker", job_id, "", "", text)

    report()
    assert count_reports(run) == 0
    runs.remove(run.run_id, connection)
    report()
    assert connection.keys("*events*") == []
    assert connection.exists(keys.job(job_id)) == 0


def test_jobs_that_report_nothing_cost_nothing(
    connection: redis.Redis, drain: Drain, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        "flowq.runtime.scripts.PROGRESS.call", lambda *arguments: calls.append(arguments)
    )
    for _ in range(20):
        queue.enqueue("worker_jobs.nothing")
    drain()
    assert calls == []


def test_an_old_reader_takes_a_report_for_a_start_that_is_told_again(
    connection: redis.Redis, drain: Drain
) -> None:
    """What is in the log is what readers of older versions know."""
    run = start(connection, "job: {call: 'worker_jobs:report_progress', with: {until: 3}}")
    drain()
    entries: Any = connection.xrange(keys.run_events(run.run_id))
    states = [entry[b"state"] for _, entry in entries if entry[b"name"] == b"job"]
    assert states in ([b"queued", b"started", b"started", b"finished"],)
    assert RQJob.fetch(job_of(run).job_id, connection=connection).is_finished


def test_a_report_of_a_job_calls_few_functions_and_no_server(queue: Queue, drain: Drain) -> None:
    job = queue.enqueue("worker_jobs.count_calls_of_a_report")
    drain()
    calls = job.return_value()
    assert isinstance(calls, int)
    assert 8 < calls < 50  # fewer would be those outside of a job, where it does nothing


def test_a_job_that_spoils_its_own_fields_holds_up_no_other(
    connection: redis.Redis, drain: Drain
) -> None:
    run = start(
        connection,
        "job: {call: 'worker_jobs:report_after_setting', with: {name: flowq_progress_at, "
        "value: no id}}, other: {call: 'worker_jobs:report_progress', with: {until: 3}}",
    )
    drain()
    assert [job_of(run, name).state for name in ("job", "other")] == ["finished", "finished"]
    assert job_of(run).progress == Progress(1, 2)


def claim_two(connection: redis.Redis) -> tuple[RedisSide, list[Claim]]:
    """Claim two jobs, which have reported something that is not written yet."""
    queue = Queue(connection=connection)
    queue.enqueue_many([Queue.prepare_data("worker_jobs.nothing") for _ in range(2)])
    side = RedisSide(connection, "worker", ["default"], 30)
    claims = [*side.turn([], Capacity(1, 1, 1)).claims, *side.turn([], Capacity(1, 1, 1)).claims]
    for claim in claims:
        side.note_progress(claim, write_progress(Progress(1, 2), str))
    return side, claims


def has_progress(connection: redis.Redis, claim: Claim) -> bool:
    return bool(connection.hexists(keys.job(claim.job_id), "flowq_progress"))


def test_a_report_that_cannot_be_written_keeps_no_other_one(
    connection: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    side, (spoiled, other) = claim_two(connection)
    connection.set(keys.job(spoiled.job_id), "no hash")
    side.store_progress()
    assert has_progress(connection, other)
    side.store_progress()
    assert caplog.text.count("is not written") == 1
    assert spoiled.job_id in caplog.text


@pytest.mark.parametrize("answer", REFUSALS)
def test_reports_wait_for_a_server_that_refuses_and_nothing_waits_for_them(answer: str) -> None:
    begin, end = REFUSALS[answer]
    with server.temporary() as started, closing(started.connect()) as connection:
        side, claims = claim_two(connection)
        begin(connection)
        side.store_progress()
        end(connection)
        assert [has_progress(connection, claim) for claim in claims] == [False, False]
        side.store_progress()
        assert [has_progress(connection, claim) for claim in claims] == [True, True]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("how", ["report_until_interrupted", "kill_processes_that_report"])
def test_a_report_that_is_interrupted_holds_up_no_later_job(
    queue: Queue, drain: Drain, how: str
) -> None:
    """The timeout of a job, or its end, may come between any two steps of a report."""
    first = queue.enqueue(f"worker_jobs.{how}", 20, job_timeout=20)
    then = queue.enqueue("worker_jobs.report_progress", 2, job_timeout=20)
    drain()
    assert [job.get_status() for job in (first, then)] == ["finished", "finished"]
    assert b'"done":2' in (queue.connection.hget(then.key, "flowq_progress") or b"")


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_processes_that_report_at_once_spoil_no_report() -> None:
    context = multiprocessing.get_context("fork")
    shared = SharedState(context)
    texts = ["a" * 2_000, "b" * 1_000, "c" * 10]

    def report(text: str) -> None:
        while True:
            shared.report(1, text)

    processes = [context.Process(target=report, args=(text,), daemon=True) for text in texts]
    for process in processes:
        process.start()
    try:
        found = Counter(shared.find_report(1) for _ in range(20_000))
    finally:
        for process in processes:
            process.kill()
    assert set(found) <= {"", *texts}
    for process in processes:
        process.join()
    shared.report(1, "the last one")
    assert shared.find_report(1) == "the last one"
    assert shared.find_report(2) == ""
