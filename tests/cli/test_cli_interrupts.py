"""Signals, deaths, closed pipes: how a run goes on, or ends, when something happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker

from flowq import client, server
from tests.cli.commands import Flowq

WaitUntil = Callable[..., None]


def _newest(connection: Redis) -> client.RunRecord:
    return client.list_runs(connection, 1)[0]


def _worker_pids(connection: Redis) -> list[int]:
    return [worker.pid for worker in Worker.all(connection=connection) if worker.pid]


@pytest.fixture
def door(
    flowq: Flowq, folder: Path, redis_url: str, wait_until: WaitUntil
) -> Iterator[subprocess.Popen[str]]:
    """`flowq run` of a workflow that waits for the file `key`, once it really does."""
    words = ["door.yaml", "-i", f"file={folder}/key", "--redis-url", redis_url, "-c", "1"]
    process = flowq.start("run", *words)
    wait_until((folder / "key.started").exists, within_s=20)
    yield process
    (folder / "key").touch()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_run_says_so_and_ends_the_workers(
    door: subprocess.Popen[str],
    connection: Redis,
    wait_until: WaitUntil,
    number: signal.Signals,
    code: int,
) -> None:
    door.send_signal(number)
    stdout, stderr = door.communicate(timeout=60)

    assert door.returncode == code
    assert f"canceling run {_newest(connection).run_id}" in stderr
    assert "⊘ door canceled" in stdout
    assert _newest(connection).state == "canceled"
    wait_until(lambda: not _worker_pids(connection))


@pytest.fixture
def load() -> Iterator[None]:
    """More to do than there are processors."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


LEFT = (130, -signal.SIGINT)
"""The exit code of a command that leaves; one more signal may end the interpreter itself."""


def press(process: subprocess.Popen[str], times: int, apart_s: float = 0.02) -> None:
    """Send SIGINT that often; the kernel makes one of those that follow at once."""
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(apart_s)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_several_interrupts_at_once_cancel_the_run_and_leave(
    door: subprocess.Popen[str], connection: Redis, wait_until: WaitUntil, times: int
) -> None:
    press(door, times)
    _, stderr = door.communicate(timeout=60)

    run = _newest(connection)
    assert door.returncode in LEFT, stderr
    assert f"canceling run {run.run_id}" in stderr
    assert f"exiting; see flowq status {run.run_id}" in stderr
    wait_until(lambda: _newest(connection).state == "canceled", within_s=20)
    wait_until(lambda: not _worker_pids(connection), within_s=20)


def test_several_interrupts_cancel_the_run_under_load_too(
    door: subprocess.Popen[str], connection: Redis, wait_until: WaitUntil, load: None
) -> None:
    press(door, 3, 0.06)
    _, stderr = door.communicate(timeout=60)

    assert door.returncode in LEFT, stderr
    wait_until(lambda: _newest(connection).state == "canceled", within_s=40)


@pytest.mark.parametrize("times", [2, 3])
def test_a_run_that_is_being_submitted_does_not_go_on_when_its_command_leaves(
    flowq: Flowq, folder: Path, redis_url: str, connection: Redis, wait_until: WaitUntil, times: int
) -> None:
    jobs = "".join(f"  j{number}: {{call: 'time:time'}}\n" for number in range(3_000))
    (folder / "many.yaml").write_text(f"name: many\njobs:\n{jobs}")
    process = flowq.start("run", "many.yaml", "--redis-url", redis_url)
    wait_until(lambda: client.list_runs(connection, 1), within_s=60)

    press(process, times)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode in LEFT, stderr
    if client.list_runs(connection):  # it was submitted before the command left
        assert f"canceling run {_newest(connection).run_id}" in stderr
        assert "no run was submitted" not in stderr
        wait_until(lambda: _newest(connection).state == "canceled", within_s=20)
    else:
        assert "exiting; no run was submitted" in stderr
        assert "canceling run" not in stderr


@pytest.mark.parametrize("verb", ["retry", "release"])
def test_several_interrupts_cancel_a_run_that_another_command_has_let_go(
    flowq: Flowq, folder: Path, wait_until: WaitUntil, verb: str
) -> None:
    words = ["run", "door.yaml", "-i", f"file={folder}/key"]
    if verb == "release":
        run_id = flowq(*words, "--hold").stdout.strip()
    else:
        first = flowq.start(*words)
        wait_until((folder / "key.started").exists, within_s=20)
        first.send_signal(signal.SIGINT)
        run_id = first.communicate(timeout=60)[1].partition("canceling run ")[2].split(";")[0]
        (folder / "key.started").unlink()
    process = flowq.start(verb, run_id)
    wait_until((folder / "key.started").exists, within_s=20)

    press(process, 2)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode in LEFT, stderr
    assert f"canceling run {run_id}" in stderr
    assert "exiting; see" in stderr
    with contextlib.closing(server.ensure(folder).connect()) as connection:
        wait_until(lambda: _newest(connection).state == "canceled", within_s=20)


def test_a_command_that_leaves_says_that_the_server_does_not_answer(
    flowq: Flowq, folder: Path, wait_until: WaitUntil
) -> None:
    process = flowq.start("run", "door.yaml", "-i", f"file={folder}/key")
    wait_until((folder / "key.started").exists, within_s=20)
    with contextlib.closing(server.ensure(folder).connect()) as connection:
        server_pid = int(connection.info("server")["process_id"])
    os.kill(server_pid, signal.SIGSTOP)
    try:
        press(process, 2)
        _, stderr = process.communicate(timeout=60)
    finally:
        os.kill(server_pid, signal.SIGCONT)

    assert process.returncode == 130
    assert "the server does not answer, so run" in stderr
    assert "may go on; end it with: flowq cancel" in stderr


def test_an_interrupted_run_still_gives_its_json(
    flowq: Flowq, folder: Path, wait_until: WaitUntil
) -> None:
    process = flowq.start("run", "door.yaml", "-i", f"file={folder}/key", "--json")
    wait_until((folder / "key.started").exists, within_s=20)

    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    document = json.loads(stdout)
    assert document["status"] == "canceled"
    after = document["jobs"]["after"]
    assert datetime.fromisoformat(after.pop("ended_at")) <= datetime.now(UTC)
    assert after == {
        "status": "canceled",
        "ids": [f"{document['run']}-after"],
        "reason": "the run was canceled",
        "tolerated": False,
        "queued_at": None,
        "started_at": None,
        "duration_s": None,
        "attempts": [],
        "error": None,
        "result": None,
    }


def test_a_second_interrupt_leaves_at_once(
    door: subprocess.Popen[str], connection: Redis, wait_until: WaitUntil
) -> None:
    (pid,) = _worker_pids(connection)
    os.kill(pid, signal.SIGSTOP)  # it does not hear that its job is to be stopped
    try:
        door.send_signal(signal.SIGINT)
        run = client.get_run(_newest(connection).run_id, connection)
        wait_until(lambda: run.status().jobs["after"].state == "canceled")
        door.send_signal(signal.SIGINT)
        _, stderr = door.communicate(timeout=60)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert door.returncode == 130
    assert f"flowq status {run.run_id}" in stderr


def test_a_run_outlives_a_killed_command_and_its_workers_end_with_it(
    door: subprocess.Popen[str], folder: Path, connection: Redis, wait_until: WaitUntil
) -> None:
    door.kill()
    door.communicate()
    (folder / "key").touch()

    wait_until(lambda: _newest(connection).state == "succeeded", within_s=20)
    wait_until(lambda: not _worker_pids(connection), within_s=10)


def test_killed_workers_are_replaced_and_the_run_succeeds(
    door: subprocess.Popen[str], folder: Path, connection: Redis
) -> None:
    (pid,) = _worker_pids(connection)
    os.kill(pid, signal.SIGKILL)
    (folder / "key").touch()

    stdout, stderr = door.communicate(timeout=60)

    assert "the workers have ended (SIGKILL); starting others" in stderr
    assert door.returncode == 0, stdout + stderr


def test_a_run_goes_on_when_its_private_server_and_the_guardian_are_killed(
    flowq: Flowq, folder: Path, wait_until: WaitUntil
) -> None:
    process = flowq.start("run", "door.yaml", "-i", f"file={folder}/key")
    wait_until((folder / "key.started").exists, within_s=20)
    running = server.ensure(folder)
    with contextlib.closing(running.connect()) as connection:
        server_pid = int(connection.info("server")["process_id"])
    guardian_pid = int((running.state / "guardian.lock").read_text().split()[1])

    os.kill(guardian_pid, signal.SIGKILL)
    os.kill(server_pid, signal.SIGKILL)
    (folder / "key").touch()
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 0, stdout + stderr


def test_without_a_worker_the_waiting_queue_is_named_at_once(flowq: Flowq, redis_url: str) -> None:
    process = flowq.start("run", "sandwich.yaml", "--redis-url", redis_url)
    assert process.stderr is not None

    line = next(line for line in process.stderr if "no worker" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert "no worker listens: jobs wait on the queue default" in line
    assert "flowq worker default --redis-url" in line
    assert process.returncode == 130


@pytest.fixture
def watch(
    door: subprocess.Popen[str], flowq: Flowq, redis_url: str, connection: Redis
) -> subprocess.Popen[str]:
    """`flowq watch`, which has told that a job of the newest run has started."""
    process = flowq.start("watch", _newest(connection).run_id, "--redis-url", redis_url)
    assert process.stdout is not None
    while "wait started" not in process.stdout.readline():
        pass
    return process


def test_interrupting_a_watch_leaves_the_run_alone(
    watch: subprocess.Popen[str], connection: Redis
) -> None:
    watch.send_signal(signal.SIGINT)
    _, stderr = watch.communicate(timeout=60)

    assert watch.returncode == 130
    assert "the run goes on" in stderr
    assert _newest(connection).state == "running"


def test_a_watch_that_is_interrupted_several_times_still_says_how_to_end_the_run(
    watch: subprocess.Popen[str], connection: Redis
) -> None:
    press(watch, 3, 0.005)
    _, stderr = watch.communicate(timeout=60)

    assert watch.returncode in LEFT, stderr
    assert "the run goes on; end it with: flowq cancel" in stderr
    assert "Traceback" not in stderr
    assert _newest(connection).state == "running"


def test_a_reader_that_has_read_enough_is_no_error(flowq: Flowq) -> None:
    reading, writing = os.pipe()
    process = flowq.start("graph", "sandwich.yaml", "--format", "json", stdout=writing)
    os.close(writing)
    os.close(reading)

    _, stderr = process.communicate(timeout=60)

    assert (process.returncode, stderr) == (0, "")


def test_a_run_whose_reader_leaves_ends_with_the_exit_code_of_the_run(flowq: Flowq) -> None:
    reading, writing = os.pipe()
    process = flowq.start("run", "burnt.yaml", stdout=writing)
    os.close(writing)
    os.close(reading)

    _, stderr = process.communicate(timeout=60)

    assert (process.returncode, stderr) == (1, "")


def test_a_run_needs_none_of_the_standard_streams(flowq: Flowq, folder: Path) -> None:
    closed = "import os, sys; os.closerange(0, 3); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-m", "flowq", "run", "sandwich.yaml"]

    done = subprocess.run(
        [sys.executable, "-c", closed, *command],
        cwd=folder,
        env=flowq.env,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    with contextlib.closing(server.ensure(folder).connect()) as connection:
        assert _newest(connection).state == "succeeded"


INTERRUPTED_WHILE = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv[0] = "flowq"
runpy.run_module("flowq", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["click", "redis"])
@pytest.mark.parametrize("variables", [{}, {"_FLOWQ_COMPLETE": "bash_complete"}])
def test_an_interrupt_while_modules_are_imported_shows_no_traceback(
    folder: Path, module: str, variables: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE.format(module=module), "runs"],
        cwd=folder,
        env={**os.environ, "COMP_WORDS": "flowq show ", "COMP_CWORD": "2", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in LEFT
