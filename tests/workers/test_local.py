"""`flowq.local`: a private server with workers, for a `with` block."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import api_jobs
import pytest
import redis.asyncio

import flowq
import flowq.aio
from flowq import client, local_server, server
from flowq.compiling import compile_plan
from flowq.runtime import queue as queues
from flowq.runtime.printed import read_printed
from flowq.workers import start
from tests import JOBS_FOLDER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def start_script(text: str, folder: Path) -> subprocess.Popen[str]:
    """Start a script in an interpreter of its own; `-W error` fails where something leaks."""
    (folder / "script.py").write_text(text)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": JOBS_FOLDER},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_page_about_the_names_begins_with_what_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = queues.remember(None)
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    exec(example, {})
    assert capsys.readouterr().out == "2 strawberry sandwiches and a pot of tea\n"
    assert queues.remember(before) is None


def test_everything_ends_with_the_block_and_the_connection_before_it_is_back(
    connection: object,
) -> None:
    before = queues.remember(None)
    try:
        with suppress(ZeroDivisionError), flowq.local(workers=1) as place:
            outer = queues.find_connection()
            with flowq.local(workers=1) as inner:
                assert queues.find_connection() is inner.connection is not outer
                run = api_jobs.elsewhere.run()  # its queue is served as well
                assert run.result("page") == "page"
            assert queues.find_connection() is outer is place.connection
            pid = place.connection.info("server")["process_id"]
            worker = place._own_workers()[-1]
            state = place.logs.parent
            raise ZeroDivisionError
        assert queues.find_connection() is None
        assert not is_alive(pid)
        assert worker.poll() is not None
        assert not state.exists()
        assert local_server._running == []
    finally:
        queues.remember(before)


def test_jobs_that_are_enqueued_one_by_one_are_executed_and_those_of_runs_print() -> None:
    with flowq.local(workers=1) as place:
        run = api_jobs.flow.run(n=3)
        printed = read_printed(run.id, [f"{run.id}-total"], place.connection)[f"{run.id}-total"][1]
        assert printed.head.decode().splitlines()[-1] == "adding 3"
        job = flowq.Queue(connection=place.connection).enqueue(api_jobs.nap, 0)
        assert job.latest_result(timeout=60).return_value == "rested"


def test_a_workflow_of_another_folder_is_executed_by_workers_that_know_it(tmp_path: Path) -> None:
    (tmp_path / "far_away_tasks.py").write_text("def far():\n    return 'far'\n")
    (tmp_path / "far.yaml").write_text("name: far\njobs:\n  a:\n    call: far_away_tasks:far\n")
    with pytest.MonkeyPatch.context() as patch, flowq.local(workers=1):
        patch.setattr(sys, "path", list(sys.path))
        assert flowq.run(tmp_path / "far.yaml", timeout=60).result("a") == "far"


def test_a_job_that_is_running_at_the_end_is_left(wait_until: Callable[..., None]) -> None:
    with flowq.local(workers=1) as place:
        job = flowq.Queue(connection=place.connection).enqueue(api_jobs.nap, 60)
        wait_until(lambda: job.get_status() == "started")
        worker = place._own_workers()[-1]
    assert worker.poll() is not None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_worker_that_is_killed_is_replaced(
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with flowq.local(workers=1) as place:
        with pytest.raises(
            flowq.RunNotEnded, match=r"count is .*the workers of flowq.local are st"
        ):
            api_jobs.flow.submit(n=2).wait(0)
        api_jobs.flow.run(n=2)
        before = place._own_workers()[-1]
        before.kill()
        assert flowq.run(api_jobs.flow, {"n": 3}, timeout="60s").result("total") == 6
        assert place._own_workers()[-1].pid != before.pid
        assert len(place._own_workers()) == 1
    assert "has ended (SIGKILL); starting another one" in caplog.text


def test_a_worker_that_ends_before_it_has_read_what_it_is_to_do_has_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowq.workers.launch.MAIN", JOBS_FOLDER + "/dying_worker.py")
    worker = start(url="redis://127.0.0.1:1", paths=["x" * 1_000_000])  # more than a pipe holds
    assert worker.wait(60) == 3


def test_workers_that_keep_ending_are_given_up_with_what_they_said(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr("flowq.observing.QUIET_S", 0.01)
    monkeypatch.setattr("flowq.workers.launch.MAIN", JOBS_FOLDER + "/dying_worker.py")
    said = r"workers of flowq.local keep ending \(exit code 3\); no memory for a worker"
    with flowq.local(workers=1) as place:
        run = api_jobs.flow.submit()
        with pytest.raises(flowq.FlowqError, match=said):
            run.wait(60)
        with pytest.raises(flowq.RunNotEnded, match=said):
            run.wait(0)
        assert len(place._restarted_at) == local_server.MAX_STARTS - 1
        monkeypatch.setattr("flowq.local_server.WORKER_LOG", "gone.log")
        place._replace(place._own_workers()[-1])  # the thread that calls it must go on
        assert "(exit code 3); worker.log cannot be read: " in place._failure
        monkeypatch.undo()
        assert api_jobs.flow.run(n=1).result("total") == 0  # another submission tries again


def test_a_queue_on_which_its_workers_do_not_listen_is_named() -> None:
    with flowq.local(workers=1) as place:
        api_jobs.flow.run(n=1)
        flow = flowq.Workflow("far")
        flow.call("nap", "api_jobs:nap", with_={"seconds": 0}, queue="far")
        run = client.submit(compile_plan(flow.spec()), place.connection)  # as another process does
        said = r"write flowq.local\(queues=\['default', 'far'\]\)"
        with pytest.raises(flowq.RunNotEnded, match=said):
            run.wait(0)


def test_workers_that_were_replaced_end_with_the_block_and_so_do_their_jobs(
    wait_until: Callable[..., None],
) -> None:
    with flowq.local(workers=1) as place:
        job = flowq.Queue(connection=place.connection).enqueue(api_jobs.nap_and_tell, 60)
        wait_until(lambda: job.get_meta().get("pid"))
        api_jobs.elsewhere.run()
        workers = list(place._own_workers())
        assert len(workers) == 2
        assert workers[0].poll() is None
    assert all(worker.returncode is not None for worker in workers)
    wait_until(lambda: not is_alive(job.meta["pid"]))


def test_several_threads_submit_runs_with_queues_of_their_own() -> None:
    flows = [flowq.Workflow(f"flow{n}") for n in range(4)]
    for n, flow in enumerate(flows):
        flow.call("page", "api_jobs:nap", with_={"seconds": 0}, queue=f"pages{n}")
    with flowq.local(workers=1) as place, ThreadPoolExecutor() as pool:
        runs = list(pool.map(partial(flowq.run, timeout=60), flows))
        assert [run.result("page") for run in runs] == ["rested"] * 4
        workers = list(place._own_workers())
    assert all(worker.returncode is not None for worker in workers)


def test_the_event_loop_goes_on_while_a_worker_is_replaced(wait_until: Callable[..., None]) -> None:
    async def submit(path: str) -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        async with redis.asyncio.Redis(unix_socket_path=path) as client:
            ticking = asyncio.create_task(tick())
            await flowq.aio.submit(api_jobs.elsewhere, connection=client)
            ticking.cancel()
        return ticks

    with flowq.local(workers=1) as place:
        job = flowq.Queue(connection=place.connection).enqueue(api_jobs.nap, 60)
        wait_until(lambda: job.get_status() == "started")
        path = place.connection.connection_pool.connection_kwargs["path"]
        assert asyncio.run(submit(path)) > 10


def test_only_a_client_of_its_own_server_is_served() -> None:
    class Place:
        connection = redis.Redis(port=1)

    place = Place()
    assert local_server.find_local(redis.Redis(port=1)) is None
    local_server._running.append(place)  # type: ignore[arg-type]
    try:
        assert local_server.find_local(redis.Redis(port=1)) is place
        for other in ({"host": "prod.example.org", "port": 1}, {"port": 2}, {"port": 1, "db": 3}):
            assert local_server.find_local(redis.Redis(**other)) is None
    finally:
        local_server._running.remove(place)  # type: ignore[arg-type]


def test_it_is_started_once_and_asked_only_while_it_runs() -> None:
    place = flowq.local(workers=1)
    with pytest.raises(flowq.UsageError, match="is not started"):
        _ = place.url
    place.stop()
    with pytest.raises(flowq.UsageError, match="number of processes, 1 or more"):
        flowq.local(workers=0)
    with pytest.raises(flowq.UsageError, match="list of names"):
        flowq.local(queues="pages")


def test_a_second_start_is_refused_and_a_second_stop_does_nothing() -> None:
    place = flowq.local(workers=1)
    place.start()
    try:
        with pytest.raises(flowq.UsageError, match="started already"):
            place.start()
    finally:
        place.stop()
        place.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_uses_it_and_does_not_end_it(tmp_path: Path) -> None:
    script = """
import os, sys, time, warnings
import api_jobs, flowq
warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)  # from Python 3.12 on
with flowq.local(workers=1) as place:
    pid = os.fork()
    if not pid:
        print(api_jobs.flow.run(n=2).result("total"), flush=True)
        api_jobs.elsewhere.submit()  # on another queue
        queue = flowq.Queue("pages", connection=place.connection)
        for seconds in (1.2, 0):  # a worker ends after a second if it has another parent
            job = queue.enqueue(api_jobs.nap, seconds)
            print(job.latest_result(timeout=60).return_value, flush=True)
        sys.exit()  # leaves the block
    os.waitpid(pid, 0)
    print(api_jobs.flow.run(n=3).result("total"), flush=True)
    if not (last := os.fork()):
        time.sleep(60)  # keeps all descriptors open
os.kill(last, 9)
"""
    out, errors = start_script(script, tmp_path).communicate(timeout=60)
    assert (out, errors) == ("2\nrested\nrested\n6\n", "")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_its_process(
    number: signal.Signals, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    script = """
import api_jobs, flowq
with flowq.local(workers=1) as place:
    api_jobs.flow.run(n=1)
    job = flowq.Queue(connection=place.connection).enqueue(api_jobs.nap, 0.5)
    print(place.connection.info("server")["process_id"], place._own_workers()[-1].pid, flush=True)
    api_jobs.elsewhere.submit().wait() and input()
"""
    process = start_script(script, tmp_path)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    wait_until(lambda: not any(map(is_alive, pids)))


def test_a_module_of_jobs_that_starts_one_when_imported_is_told_what_to_write(
    tmp_path: Path,
) -> None:
    """Otherwise each worker would start a server and workers, whose children would do the same."""
    (tmp_path / "unguarded.py").write_text(
        "import flowq\n\n"
        "flow = flowq.Workflow('unguarded')\n\n\n"
        "@flow.job\ndef a():\n    return 1\n\n\n"
        "with flowq.local(workers=1):\n    flow.run()\n"
    )
    script = "import unguarded\n"
    _, errors = start_script(script, tmp_path).communicate(timeout=60)
    assert 'write it below `if __name__ == "__main__":`' in errors


def test_a_first_script_has_its_functions_in_itself(tmp_path: Path) -> None:
    script = """
import dataclasses, flowq

@dataclasses.dataclass
class Bread:
    slices: int

class Burnt(Exception): ...

flow = flowq.Workflow("here", inputs={"n": 3})

@flow.job(retries={"max": 1, "backoff": "1ms", "on": [Burnt]})
def bake(n: int = flow.inputs.n):
    if flowq.get_current_job().number_of_retries == 0:
        raise Burnt
    return Bread(n)

@flow.job
def cut(bread=bake.result):
    return bread.slices

@flowq.deferred
def serve(): return "served"

@flowq.job
def lay(thing): return thing

def tell(job, connection, result): print("told of", result)

if __name__ == "__main__":
    with flowq.local(workers=1) as place:
        run = flow.run(n=4)
        print(run.result("bake") == Bread(4), run.result("cut"))
        with serve.open() as meal:
            lay.map(["plate", "cup"], blocks=meal)
        job = flowq.Queue().enqueue(lay, "knife", on_success=flowq.Callback(tell))
        print(meal.latest_result(timeout=60).return_value, job.latest_result(timeout=60).type.name)
        print("told of knife" in place.logs.joinpath("worker.log").read_text())
"""
    out, errors = start_script(script, tmp_path).communicate(timeout=60)
    assert (out, errors) == ("True 4\nserved SUCCESSFUL\nTrue\n", "")


def test_a_server_that_does_not_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = queues.find_connection()

    def fail(**options: object) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr(local_server.launch, "start", fail)
    with pytest.raises(OSError, match="no processes left"):
        flowq.local().start()
    assert queues.find_connection() is before
    assert local_server._running == []
    assert server.find() is None
