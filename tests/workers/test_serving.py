"""Workers for one run: their children, and what becomes of them while a run only waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rq.job import Job as RQJob

from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime import keys
from flowq.runtime.listening import find_served, find_unattended
from flowq.workers import serving
from flowq.workers.resting import MAX_SERVED

GATED = (
    "name: g\njobs:\n  one: {run: echo $ENV}\n  two: {needs: one, approval: true, run: echo $ENV}\n"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


class Served:
    """Runs with workers of their own, which rest soon."""

    def __init__(self, connection: redis.Redis, url: str, folder: Path) -> None:
        self.connection, self.url, self.folder = connection, url, folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, text: str = GATED) -> Run:
        """Submit a run, and start its workers."""
        (self.folder / "flow.yaml").write_text(text)
        plan = compile_plan(load(str(self.folder / "flow.yaml")), {}, imports=False)
        run = submit(plan, self.connection, is_apart=True)
        self.processes.append(serving.serve(run.run_id, self.connection, self.url))
        return run

    def is_resting(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the process is the one that only waits."""
        return b"resting.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes()


@pytest.fixture
def served(
    connection: redis.Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    """Runs with workers of their own; these end with the test."""
    monkeypatch.setattr(serving, "REST_AFTER_S", 0.2)
    monkeypatch.setenv("ENV", "mine")
    runs = Served(connection, redis_url, tmp_path)
    yield runs
    for process in runs.processes:
        process.kill()
        process.wait()


def test_workers_of_runs_that_wait_rest_in_little_memory_and_go_on_when_one_is_released(
    served: Served, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    runs = [served.start() for _ in range(4)]
    wait_until(lambda: all(map(served.is_resting, served.processes)), within_s=60)
    run_ids = {run.run_id for run in runs}
    wait_until(lambda: find_served(served.connection) == run_ids, within_s=60)
    assert not any(run.unattended_queues() for run in runs)
    assert sum(map(_read_pss_kb, served.processes)) < len(runs) * 20_000
    monkeypatch.setenv("ENV", "another one")
    runs[0].release("two")
    wait_until(lambda: runs[0].status().is_ended, within_s=60)
    assert runs[0].results() == {"one": "mine", "two": "mine"}
    assert served.processes[0].wait(60) == 0
    runs[1].cancel()
    assert served.processes[1].wait(60) == 0
    assert all(map(served.is_resting, served.processes[2:]))


def _read_pss_kb(process: subprocess.Popen[bytes]) -> int:
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return int(text.partition("Pss:")[2].split()[0])


def test_workers_that_rest_see_to_what_is_due_and_to_what_rqs_tools_queue(
    served: Served, wait_until: Callable[..., None]
) -> None:
    run = served.start(
        "name: g\njobs:\n  one: {approval: {expires: 4s}, run: echo}\n"
        "  two: {needs: one, if: always(), run: echo two}\n"
    )
    wait_until(lambda: served.is_resting(served.processes[0]), within_s=60)
    wait_until(lambda: run.status().is_ended, within_s=60)
    assert run.status().jobs["two"].state == "finished"
    other = served.start()
    wait_until(lambda: served.is_resting(served.processes[1]), within_s=60)
    job_id = other.status().jobs["one"].job_id
    served.connection.hset(keys.job(job_id), "status", "queued")
    served.connection.rpush(keys.queue(keys.own_queue(other.run_id)), job_id)
    wait_until(lambda: other.status().jobs["one"].attempts == 2, within_s=60)


def test_workers_that_rest_notice_what_rqs_tools_remove(
    served: Served, wait_until: Callable[..., None]
) -> None:
    run = served.start()
    wait_until(lambda: served.is_resting(served.processes[0]), within_s=60)
    job_id = run.status().jobs["two"].job_id
    RQJob.fetch(job_id, served.connection).delete()
    # As if the time for the next look, which is within half a minute, had come.
    served.connection.zadd(keys.WATCHED, {run.run_id: 0})
    wait_until(lambda: run.status().is_ended, within_s=30)
    assert run.status().jobs["two"].state == "deleted"


def test_workers_that_rest_look_at_a_run_of_many_jobs_in_parts(
    served: Served, wait_until: Callable[..., None]
) -> None:
    run = served.start(
        "name: many\njobs:\n  one: {run: echo}\n  two: {needs: one, approval: true, run: echo}\n"
        f"  each: {{matrix: {{n: {list(range(3_000))}}}, needs: two, run: echo}}\n"
    )
    wait_until(lambda: served.is_resting(served.processes[0]), within_s=60)
    served.connection.zadd(keys.WATCHED, {run.run_id: 0})
    wait_until(lambda: served.connection.zscore(keys.WATCHED, run.run_id) > time.time() + 1, 30)
    assert int(served.connection.hget(keys.run(run.run_id), "watched")) == 0
    assert served.is_resting(served.processes[0])


def test_a_run_is_served_without_a_gap_while_its_workers_rest_and_go_on(
    served: Served, wait_until: Callable[..., None]
) -> None:
    text = "name: g\njobs:\n" + "".join(
        f"  j{number}: {{approval: true, run: echo}}\n" for number in range(3)
    )
    run = served.start(text)
    wait_until(run.is_served, within_s=60)
    gaps = []

    def is_watched(condition: Callable[[], bool]) -> bool:
        gaps.extend([number for number in range(20) if not run.is_served()])
        return condition()

    for name in run.status().jobs:
        wait_until(lambda: is_watched(lambda: served.is_resting(served.processes[0])), 60)
        run.release(name)
        wait_until(lambda name=name: is_watched(lambda: run.status().jobs[name].ended_at), 60)
    assert not gaps


def test_there_are_children_only_while_there_is_something_to_do(
    served: Served, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REST_AFTER_S", 600)
    run = served.start()
    wait_until(lambda: run.status().jobs["two"].is_asking, within_s=60)
    children = Path(f"/proc/{served.processes[0].pid}/task/{served.processes[0].pid}/children")
    wait_until(lambda: not children.read_text(), within_s=60)
    run.release("two")
    wait_until(lambda: run.status().is_ended, within_s=60)


def test_a_run_whose_workers_were_killed_is_unattended_until_others_are_started(
    served: Served, wait_until: Callable[..., None]
) -> None:
    run = served.start()
    assert not find_unattended([keys.own_queue(run.run_id)], served.connection)  # they are starting
    wait_until(run.is_served, within_s=60)
    served.processes[0].kill()
    wait_until(lambda: not run.is_served(), within_s=60)
    assert find_unattended([keys.own_queue(run.run_id)], served.connection)
    served.processes.append(serving.serve(run.run_id, served.connection, served.url))
    wait_until(run.is_served, within_s=60)


def test_more_runs_than_may_wait_like_that_lose_their_workers(served: Served) -> None:
    others = [
        redis.from_url(served.url, client_name=keys.server_of_run(f"other{number}"))
        for number in range(MAX_SERVED)
    ]
    for other in others:
        other.ping()
    run = served.start()
    assert served.processes[0].wait(60) == 0
    assert (run.status().state, run.is_served()) == ("waiting", False)
    for other in others:
        other.close()


def test_the_queue_of_a_run_is_listed_while_it_goes_on_and_leaves_nothing_behind(
    connection: redis.Redis, tmp_path: Path, drain: Callable[..., object]
) -> None:
    (tmp_path / "flow.yaml").write_text(
        "name: q\njobs:\n"
        "  one: {for_each: [1, 2], run: test -e gate, queue: mails}\n"
        "  two: {needs: one, run: echo, retries: 1}\n"
    )
    plan = compile_plan(load(str(tmp_path / "flow.yaml")), {}, imports=False)
    run = submit(plan, connection, is_apart=True)
    queue = keys.own_queue(run.run_id)
    assert connection.smembers("rq:queues") == {f"rq:queue:{queue}".encode()}
    drain(queue)
    assert run.status().state == "failed"
    assert connection.smembers("rq:queues") == set()
    assert {job.queue for job in run.job_records().values()} == {"mails", "default"}
    run.retry()
    assert connection.smembers("rq:queues") == {f"rq:queue:{queue}".encode()}
    drain(queue)
    run.remove()
    left = [key for key in connection.keys("*") if run.run_id.encode() in key]
    assert not [key for key in left if b"scheduler-lock" not in key]


def test_what_a_process_that_waits_is_told_may_be_longer_than_a_pipe() -> None:
    code = (
        "import sys; from flowq.workers.resting import replace_process\n"
        "read = 'import json, sys; print(len(json.load(sys.stdin)[\"paths\"]))'\n"
        "replace_process([sys.executable, '-c', read], {'paths': 'x' * 200_000}, None)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, timeout=60
    )
    assert told.stdout.strip() == b"200000", told.stderr
