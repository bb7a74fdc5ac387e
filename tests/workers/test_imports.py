"""Which process imports the users' modules, and what becomes of it when they change."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rq import Callback, Retry
from rq.job import JobStatus

from flowq import client, compiling
from flowq.runtime.queue import Queue
from flowq.workers.child.sources import LOOK_S, Sources
from flowq.workers.launch import run_command

Start = Callable[..., subprocess.Popen[bytes]]
Wait = Callable[..., None]

SHOP = """
import os, random, sys
from pathlib import Path
import numpy.random

FOLDER = Path(__file__).parent
OWN = random.Random()

class Price: pass

def get_pid(*args): return os.getpid()
def has_supervisor(): return "flowq.workers.supervisor" in sys.modules
def fail(): raise ValueError("no")
def draw(): return random.random()
def draw_own(): return OWN.random()
def draw_numpy(): return numpy.random.SHARED.random()
def note(job, connection, *args): (FOLDER / "noted").touch()

def add(name, text):
    with (FOLDER / name).open("a") as file:
        file.write(text)

def count(): add("counted", ".")

add("importers", f"{os.getpid()}\\n")
"""

ENDLESS = """
import os, threading, flowq
from pathlib import Path

flow = flowq.Workflow("endless")
leaves = threading.Event()
attempts = []

@flow.job
def a():
    leaves.set()
    threads[1].join()
    enqueue("time.time")  # a job may
    return attempts

def enqueue(what):
    from flowq.runtime.queue import get_queue
    get_queue("later", flowq.connect(os.environ["URL_OF_TEST"])).enqueue(what)

def attempt(do, *arguments):
    try:
        do(*arguments)
    except flowq.UsageError as error:
        attempts.append(str(error))
        return error

def attempt_all(waits=None):
    if waits: waits.wait(20)
    attempt(enqueue, "endless.a")
    attempt(enqueue, "time.time")
    return attempt(lambda: flowq.submit(flow, connection=os.environ["URL_OF_TEST"]))

calls = [dict(target=attempt_all, args=[each], daemon=True) for each in (None, leaves)]
threads = [threading.Thread(**call) for call in calls]
for thread in threads: thread.start()
threads[0].join()
if os.environ.get("RAISES"): raise attempt_all()
"""
"""Submits runs again when it is imported: in threads, and in the thread that imports it."""

NUMPY = """
import random

SHARED = random.Random()
seed = SHARED.seed
"""
"""What numpy is in this: a generator for all, seeded at the import."""

FLOW = """
name: shop
jobs:
  plain: {call: "shop:get_pid"}
  live: {call: "shop:get_pid", if: "1 == 1"}
  each: {for_each: [1, 2], call: "shop:get_pid"}
  last: {call: "shop:get_pid", needs: [plain, live, each]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module `shop`, which notes who imports it."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").touch()
    (tmp_path / "numpy" / "random.py").write_text(NUMPY)
    return tmp_path


@pytest.fixture
def begin(launch_worker: Start, folder: Path) -> Start:
    """`begin(**options)`: a worker of this folder, in a process that knows nothing of it."""

    def start(**options: Any) -> subprocess.Popen[bytes]:
        return launch_worker(paths=[str(folder)], **options)

    return start


@pytest.fixture
def value_of(queue: Queue, wait_until: Wait) -> Callable[[str], Any]:
    """`value_of(name)`: what a job of that function returns."""

    def run(name: str) -> Any:
        job = queue.enqueue(name)
        wait_until(lambda: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED), 20)
        return job.return_value()

    return run


def importers(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "importers").read_text().split()]


def test_only_the_processes_that_execute_jobs_import_their_modules(
    queue: Queue,
    begin: Start,
    folder: Path,
    mode: str,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    price = type("Price", (), {"__module__": "shop"})
    monkeypatch.setitem(sys.modules, "shop", SimpleNamespace(Price=price))  # or it is not pickled
    jobs = [queue.enqueue("shop.get_pid") for _ in range(4)]
    jobs.append(queue.enqueue("shop.get_pid", on_success=Callback("shop.note")))
    jobs.append(queue.enqueue("shop.get_pid", price(), meta={"price": price()}))
    failing = queue.enqueue("shop.fail", retry=Retry(max=1), on_failure=Callback("shop.note"))
    looking = queue.enqueue("shop.has_supervisor")
    (folder / "shop.yaml").write_text(FLOW)
    flow = compiling.load(str(folder / "shop.yaml"))
    run = client.submit(compiling.compile_plan(flow, imports=False), queue.connection)
    worker = begin(mode=mode, concurrency=2)
    wait_until(lambda: run.status().is_ended, 20)
    wait_until(lambda: {job.get_status() for job in jobs} == {JobStatus.FINISHED}, 20)
    wait_until(lambda: failing.get_status() is JobStatus.FAILED, 20)
    wait_until(lambda: looking.return_value() is (mode != "multiprocessing"), 20)
    assert (folder / "noted").exists()
    pids = importers(folder)
    assert worker.pid not in pids
    assert {job.return_value() for job in jobs} <= set(pids)
    if mode == "fork":  # each of its own: seven jobs, two attempts, five jobs of the run
        assert len(set(pids)) == len(pids) >= 14
    else:
        assert len(pids) <= 2


def test_random_numbers_differ_from_job_to_job(
    queue: Queue, begin: Start, folder: Path, mode: str, wait_until: Wait
) -> None:
    names = ("draw", "draw_own", "draw_numpy")
    jobs = {name: [queue.enqueue(f"shop.{name}") for _ in range(6)] for name in names}
    begin(mode=mode, concurrency=2)
    wait_until(lambda: queue.finished_job_registry.count == 18, 20)
    for name in names:
        assert len({job.return_value() for job in jobs[name]}) == 6, name


def test_a_preloaded_module_is_imported_once_for_all_forked_jobs(
    queue: Queue, begin: Start, folder: Path, wait_until: Wait
) -> None:
    names = ("get_pid", "draw", "draw_own", "draw_numpy")
    jobs = {name: [queue.enqueue(f"shop.{name}") for _ in range(6)] for name in names}
    worker = begin(mode="fork", preload=["shop"])
    wait_until(lambda: queue.finished_job_registry.count == 24, 20)
    [importer] = importers(folder)
    values = {name: {job.return_value() for job in jobs[name]} for name in names}
    assert importer not in {worker.pid, *values["get_pid"]}
    assert {name: len(found) for name, found in values.items()} == {
        "get_pid": 6,
        "draw": 6,
        "draw_numpy": 6,
        "draw_own": 1,  # as --preload says: what the module has made for itself is shared
    }


def test_what_forked_jobs_need_of_ours_is_imported_once(
    queue: Queue, begin: Start, folder: Path, value_of: Callable[[str], Any]
) -> None:
    (folder / "looks.py").write_text(
        "import sys\n"
        "def look():\n"
        "    there = 'flowq.expressions.engine' in sys.modules\n"
        "    import flowq.expressions.engine\n"
        "    return there\n"
    )
    begin(mode="fork")
    assert [value_of("looks.look") for _ in range(3)] == [False, True, True]


def test_kept_children_import_what_is_preloaded_before_their_first_job(
    queue: Queue, begin: Start, folder: Path, wait_until: Wait
) -> None:
    worker = begin(mode="warm", concurrency=2, preload=["shop"])
    path = folder / "importers"
    wait_until(lambda: path.exists() and len(importers(folder)) == 2, 20)
    assert worker.pid not in importers(folder)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("nowhere", "cannot preload nowhere: ModuleNotFoundError: No module named 'nowhere'"),
        ("broken", "cannot preload broken: ValueError: no ({folder}/broken.py:2)"),
        ("endless", "UsageError: a worker imports this module ({folder}/endless.py, line "),
    ],
)
def test_a_worker_that_cannot_preload_a_module_says_why_and_ends(
    redis_url: str,
    tmp_path: Path,
    mode: str,
    module: str,
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("URL_OF_TEST", redis_url)
    monkeypatch.setenv("RAISES", "1")
    (tmp_path / "broken.py").write_text("import os\nraise ValueError('no')\n")
    (tmp_path / "endless.py").write_text(ENDLESS)
    options = ["--url", redis_url, "--mode", mode, "--path", str(tmp_path), "-c", "2", "--quiet"]
    assert run_command([*options, "--preload", module]) == 2
    error = capfd.readouterr().err
    assert words.format(folder=tmp_path) in error
    assert "Traceback" not in error


@pytest.mark.parametrize("mode", ["fork", "warm"])
def test_a_module_that_submits_again_when_a_worker_imports_it_is_refused(
    queue: Queue,
    start_worker: Callable[..., Any],
    redis_url: str,
    tmp_path: Path,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In whichever thread, also in one that outlives the import; but its jobs may enqueue."""
    monkeypatch.setenv("URL_OF_TEST", redis_url)
    (tmp_path / "endless.py").write_text(ENDLESS)
    job = queue.enqueue("endless.a")
    worker = start_worker(mode=mode, paths=[str(tmp_path)], burst=True, max_jobs=5)
    assert worker.wait() == 0
    said: Any = job.return_value()
    assert len(said) == 6
    assert all("under `if __name__" in each for each in said), said
    assert sum("or in the function of a job" in each for each in said) == 3
    assert sum(f"({tmp_path / 'endless.py'}, line " in each for each in said) == 3
    assert (queue.count, queue.finished_job_registry.count) == (0, 1)
    assert Queue("later", connection=queue.connection).count == 1
    assert client.list_runs(queue.connection) == []


# Changed files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "preload"), [("warm", []), ("multiprocessing", []), ("fork", ["menu"])]
)
def test_a_kept_process_is_replaced_when_what_it_has_imported_changes(
    begin: Start,
    folder: Path,
    mode: str,
    preload: list[str],
    value_of: Callable[[str], Any],
    wait_until: Wait,
) -> None:
    menu = folder / "menu.py"
    menu.write_text("def get(): return 'soup'\n")
    begin(mode=mode, preload=preload)
    assert value_of("menu.get") == "soup"
    menu.write_text("def get(): return 'pasta'\n")
    wait_until(lambda: value_of("menu.get") == "pasta", 20)
    menu.write_text("this is no Python\n")
    wait_until(lambda: value_of("menu.get") is None, 20)
    menu.write_text("def get(): return 'cake, again'\n")
    wait_until(lambda: value_of("menu.get") == "cake, again", 20)
    menu.unlink()
    wait_until(lambda: value_of("menu.get") is None, 20)


def test_jobs_that_a_replaced_child_held_run_once(
    queue: Queue, begin: Start, folder: Path, value_of: Callable[[str], Any], wait_until: Wait
) -> None:
    begin(mode="warm", concurrency=2)
    value_of("shop.get_pid")
    os.utime(folder / "shop.py")
    jobs = [queue.enqueue("shop.count") for _ in range(200)]
    wait_until(lambda: queue.finished_job_registry.count == 201, 20)
    assert {job.get_status() for job in jobs} == {JobStatus.FINISHED}
    assert len((folder / "counted").read_bytes()) == 200


def test_forked_jobs_have_the_code_of_their_start(
    begin: Start, folder: Path, value_of: Callable[[str], Any]
) -> None:
    menu = folder / "menu.py"
    begin(mode="fork")
    for dish in ("soup", "pasta", "apple cake"):
        menu.write_text(f"def get(): return {dish!r}\n")
        assert value_of("menu.get") == dish


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """`imported(name)`: a module that this process has imported; the path of its file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text("VALUE = 1\n")
        os.utime(path, (1, 1))
        importlib.import_module(name)
        names.append(name)
        return path

    yield make
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """One that looks whenever it is asked."""
    monkeypatch.setattr("flowq.workers.child.sources.LOOK_S", 0)
    monkeypatch.setattr("flowq.workers.child.sources.SHARE", 0)
    return Sources()


def test_what_was_imported_before_is_not_looked_at(
    imported: Callable[[str], Path], sources: Sources
) -> None:
    early = imported("early_module")
    later = Sources()
    early.write_text("VALUE = 22\n")
    assert not later.find_changed()
    assert sources.find_changed() == str(early)


def test_a_change_between_the_import_and_the_first_look_is_found(
    imported: Callable[[str], Path], sources: Sources
) -> None:
    kept, gone = imported("kept_module"), imported("gone_module")
    gone.unlink()
    assert sources.find_changed() == str(gone)
    assert not sources.find_changed()
    kept.write_text("VALUE = 22\n")
    assert sources.find_changed() == str(kept)


def test_a_file_from_the_future_is_no_change(
    imported: Callable[[str], Path], sources: Sources
) -> None:
    path = imported("future_module")
    os.utime(path, (4e9, 4e9))
    assert not sources.find_changed()
    os.utime(path, (5e9, 5e9))
    assert sources.find_changed() == str(path)


def test_a_link_that_points_elsewhere_is_a_change(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        release = tmp_path / f"release-{number}"
        release.mkdir()
        (release / "deployed.py").write_text(f"VALUE = {number}\n")
        os.utime(release / "deployed.py", (number, number))
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "release-1")
    monkeypatch.syspath_prepend(str(current))
    importlib.import_module("deployed")
    assert not sources.find_changed()
    current.unlink()
    current.symlink_to(tmp_path / "release-2")
    assert sources.find_changed() == str(current / "deployed.py")
    sys.modules.pop("deployed")


def test_what_is_installed_is_not_looked_at(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "installed_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.import_module("installed_module")
    assert not sources.find_changed()
    sys.modules.pop("installed_module")


def test_looks_take_a_small_part_of_the_time(
    imported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    looks = []

    def stamp(file: str) -> tuple[int, int]:
        looks.append(now[0])
        now[0] += 0.02  # a slow disk
        return 1, 1

    monkeypatch.setattr("flowq.workers.child.sources.time.monotonic", lambda: now[0])
    monkeypatch.setattr("flowq.workers.child.sources._stamp", stamp)
    sources = Sources()
    imported("slow_module")
    now[0] += LOOK_S
    while now[0] < 120:
        sources.find_changed()
        now[0] += 0.001
    gaps = [after - before for before, after in pairwise(looks)]
    assert len(gaps) > 5
    assert min(gaps) >= 2
