"""`flowq run` as on Windows: over TCP, with spawned children, without anything of POSIX.

The stand-ins are those of `without_posix/`. A machine with Windows would be better; what that
leaves open is said in docs/windows.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq.runtime.queue import Queue
from flowq.server.state import find
from tests import JOBS_FOLDER
from tests.workers.real_servers import Servers, Started, wait_until

HERE = Path(__file__).parent
WORKFLOWS = HERE.parents[1] / "workflows"
CTRL_BREAK = 21

MINE = """
name: mine
jobs:
  look: {call: windows_jobs:find_posix}
  look_inside: {call: windows_jobs:find_posix_inside}
  describe: {call: windows_jobs:describe}
  greet:
    run: echo hello "$NAME"
    env: {NAME: "${{ jobs.describe.result }}"}
  shout:
    for_each: [a, größe]
    call: windows_jobs:shout
    with: {word: "${{ item }}"}
  count:
    for_each: [7]
    run: import os; print(6 * int(os.environ["N"]))
    env: {N: "${{ item }}"}
    shell: python
"""

SLOW = """
name: slow
inputs: {began: {type: str}}
jobs:
  wait: {call: windows_jobs:wait_for_interrupt, with: {began: "${{ inputs.began }}"}}
  never: {call: windows_jobs:describe, needs: wait}
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server that listens to TCP only."""
    with Servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers.start()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with workflows, and what they call."""
    place = tmp_path_factory.mktemp("folder")
    shutil.copy(Path(JOBS_FOLDER, "windows_jobs.py"), place)
    for file in (*WORKFLOWS.glob("sandwich*"), *WORKFLOWS.glob("gallery*")):
        shutil.copy(file, place)
    (place / "mine.yaml").write_text(MINE, encoding="utf-8")
    (place / "slow.yaml").write_text(SLOW, encoding="utf-8")
    return place


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_"))}
    stand_ins = HERE / "without_posix"
    return {
        **kept,
        "PYTHONPATH": str(stand_ins),
        "PATH": f"{stand_ins / 'bin'}{os.pathsep}{kept['PATH']}",
        "PYTHONWARNDEFAULTENCODING": "1",
        **more,
    }


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flowq", *words],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def flowq(folder: Path, *words: str, **more: str) -> tuple[int, bytes, bytes]:
    process = start(folder, *words, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def no_worker_is_left(started: Started) -> bool:
    return not started.connection.scard("rq:workers")


@pytest.fixture(scope="module")
def run_id(folder: Path, started: Started) -> str:
    """A run that has ended, shown on a console of the oldest kind."""
    words = ("run", "sandwich.yaml", "--redis-url", started.url, "-c", "1")
    code, out, err = flowq(folder, *words, PYTHONIOENCODING="cp437")
    assert code == 0, err
    assert b"2 strawberry sandwiches and a pot of tea" in out
    assert b"?" not in out
    return out.decode("cp437").rpartition("run ")[2].split()[0]


def test_a_workflow_runs_on_one_child(run_id: str, folder: Path, started: Started) -> None:
    assert started.connection.hget(f"rq:flowq:1:run:{run_id}", "state") == b"succeeded"
    assert no_worker_is_left(started)
    log = (find(folder).logs / "worker.log").read_text()
    assert "serve finished" in log
    assert "Traceback" not in log


def test_jobs_on_several_children_find_nothing_of_posix_and_commands_run_on_cmd(
    folder: Path, started: Started
) -> None:
    words = ("run", "mine.yaml", "--redis-url", started.url, "-c", "3", "--json", "-v")
    code, out, err = flowq(folder, *words, PYTHONIOENCODING="cp1252:strict")
    assert code == 0, err
    jobs = json.loads(out)["jobs"]
    assert jobs["look"]["result"] == jobs["look_inside"]["result"] == []
    assert jobs["describe"]["result"] == "nt win32"
    assert jobs["greet"]["result"] == "hello nt win32"
    assert jobs["shout"]["results"] == ["A", "GRÖSSE"]
    assert jobs["count"]["results"] == ["42"]
    assert "größe" in err.decode("cp1252")


def test_ctrl_break_cancels_a_run_as_ctrl_c_does(folder: Path, started: Started) -> None:
    began = folder / "began"
    words = ("run", "slow.yaml", "--redis-url", started.url, "-c", "1", "-i", f"began={began}")
    process = start(folder, *words)
    try:
        wait_until(began.exists, 30)
        process.send_signal(CTRL_BREAK)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"canceling run" in out + err
    wait_until(lambda: no_worker_is_left(started), 10)


def test_rqs_own_command_starts_our_worker_and_ctrl_break_lets_it_end(
    folder: Path, started: Started
) -> None:
    job = Queue("mine", connection=started.connection).enqueue("operator.add", 1, 2)
    words = ["worker", "-u", started.url, "-w", "flowq.MultiprocessingWorker", "-j", "flowq.Job"]
    words += ["--queue-class", "flowq.Queue", "mine"]
    code = f"from rq.cli import main; main({words!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment())
    try:
        wait_until(lambda: job.return_value() == 3, 30)
        process.send_signal(CTRL_BREAK)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert no_worker_is_left(started)


# Consoles ----------------------------------------------------------------------------------------

LOOK = """
import sys
from flowq.cli.main import main
for words in {commands!r}:
    try:
        main(words)
    except SystemExit as left:
        assert not left.code, words
"""


@pytest.mark.parametrize("encoding", ["cp437", "cp1252:strict"])
def test_drawings_suit_the_consoles_of_windows(
    run_id: str, folder: Path, started: Started, encoding: str
) -> None:
    at = ("--redis-url", started.url)
    commands = [
        ("graph", "gallery.yaml"),
        ("graph", "gallery.yaml", "--format", "mermaid"),
        ("plan", "gallery.yaml"),
        ("check", "gallery.yaml"),
        ("status", run_id, *at),
        ("show", run_id, *at),
        ("show", run_id, "serve", *at),
        ("runs", *at),
    ]
    code_text = LOOK.format(commands=commands)
    look = subprocess.run(
        [sys.executable, "-c", code_text],
        cwd=folder,
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert look.returncode == 0, look.stderr
    assert b"?" not in look.stdout.replace(b"=?", b"")  # a plan has arguments to be known
