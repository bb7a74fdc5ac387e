"""Workers of two versions side by side, as during an upgrade: their scripts, and their data."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs

import flowq
from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime import keys, planned, scripts, wire
from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER
from tests.workers.forked_workers import ForkedWorker

Wait = Callable[..., None]

NEWER = """
import hashlib, sys
from flowq.runtime import scripts
from tests.rare_repairs import make_repairs_rare
make_repairs_rare()
for script in vars(scripts).values():
    if isinstance(script, scripts.HotScript):
        newer = script.function + "_newer"
        assert script.function in script.library
        script.library = script.library.replace(script.function, newer)
        script.function = newer
    if isinstance(script, scripts.Script):
        script.source += "\\n-- of a newer version"
        script.digest = hashlib.sha1(script.source.encode()).hexdigest()
from flowq.workers import main
main(url=sys.argv[1], mode="warm", name="newer", paths=[sys.argv[2]], quiet=True)
"""


FLOW = """
name: flow
inputs: {numbers: {type: list, default: [1, 2]}}
outputs: {sums: "${{ jobs.sum.results }}"}
jobs:
  list: {call: worker_jobs:get_dict}
  grow:
    call: worker_jobs:add
    for_each: "${{ inputs.numbers }}"
    key: item
    more: "[result] if result < 4 else []"
    needs: [list]
    with: {a: "${{ item }}", b: "${{ jobs.list.result.a }}"}
  sum:
    workflow: inner
    for_each: "${{ jobs.grow.results }}"
    with: {number: "${{ item }}"}
workflows:
  inner:
    inputs: {number: {type: int}}
    outputs: {sum: "${{ jobs.twice.result }}"}
    jobs:
      twice: {call: worker_jobs:add, with: {a: "${{ inputs.number }}", b: "${{ inputs.number }}"}}
"""

RESULT = {"sums": [{"sum": 4}, {"sum": 6}, {"sum": 8}]}


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """The file of a workflow that has a plan inside of its jobs."""
    path = tmp_path / "flow.yaml"
    path.write_text(FLOW, "utf-8")
    return path


@pytest.fixture
def newer_flowq(tmp_path: Path) -> Path:
    """A folder with a flowq whose values have a field more, last, and that writes all fields."""
    root = tmp_path / "newer"
    shutil.copytree(Path(flowq.__file__).parent, root / "flowq")
    for name in ("plan.py", "spec.py"):
        add_field(root / "flowq" / name)
    wire = root / "flowq" / "runtime" / "wire.py"
    replace_once(wire, "if found is default", "if False")
    replace_once(wire, "if not _is_same(found, default)", "if True")
    return root


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, which must be there once."""
    source = path.read_text("utf-8")
    assert source.count(old) == 1, f"{path.name} has not once: {old}"
    path.write_text(source.replace(old, new), "utf-8")


def add_field(path: Path) -> None:
    """Give each class in a file that has fields one more, `nice`, behind its last one.

    One that has the fields of another class has it from there.
    """
    lines = path.read_text("utf-8").splitlines()
    classes = [each for each in ast.parse("\n".join(lines)).body if isinstance(each, ast.ClassDef)]
    assert classes
    for each in reversed([each for each in classes if not each.bases]):
        fields = [part for part in each.body if isinstance(part, ast.AnnAssign)]
        if fields and (end := fields[-1].end_lineno):
            lines.insert(end, "    nice: int = 0")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def run_newer(root: Path, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run code with the newer flowq."""
    code = f"from flowq.plan import Slot; assert Slot('a').nice == 0\n{code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})


def submit_flow(flow: Path, connection: redis.Redis) -> Run:
    return submit(compile_plan(load(str(flow)), {}, run_id="flow", imports=False), connection)


def test_a_newer_worker_executes_what_an_older_version_has_planned(
    connection: redis.Redis, redis_url: str, flow: Path, newer_flowq: Path
) -> None:
    run = submit_flow(flow, connection)
    code = "import sys; from flowq.workers import main\n"
    code += "main(url=sys.argv[1], mode='warm', paths=[sys.argv[2]], burst=True, quiet=True)"
    assert run_newer(newer_flowq, code, redis_url, JOBS_FOLDER).wait(60) == 0
    assert run.wait(60).state == "succeeded"
    assert run.outputs() == RESULT


def test_an_older_worker_executes_what_a_newer_version_has_planned(
    connection: redis.Redis,
    redis_url: str,
    flow: Path,
    newer_flowq: Path,
    drain: Callable[..., object],
) -> None:
    code = "import sys, redis; from flowq.client import submit\n"
    code += "from flowq.compiling import compile_plan, load\n"
    code += "plan = compile_plan(load(sys.argv[2]), {}, run_id='flow', imports=False)\n"
    code += "submit(plan, redis.from_url(sys.argv[1]))"
    assert run_newer(newer_flowq, code, redis_url, str(flow)).wait(60) == 0
    assert b"nice" in connection.hget(keys.run("flow"), "outputs")
    drain()
    assert Run("flow", connection).wait(60).state == "succeeded"
    assert Run("flow", connection).outputs() == RESULT


def test_what_was_planned_before_there_was_a_plain_form_is_executed(
    connection: redis.Redis,
    flow: Path,
    drain: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(planned, "to_wire", lambda value: value)
        run = submit_flow(flow, connection)
    drain()
    assert run.wait(60).state == "succeeded"
    assert run.outputs() == RESULT


def test_a_job_in_a_form_that_only_newer_versions_know_fails_and_says_so(
    connection: redis.Redis,
    flow: Path,
    drain: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(planned, "USUAL_FORMAT", wire.FORMAT + 1)
        run = submit_flow(flow, connection)
    drain()
    assert run.status().state == "failed"
    failures: Any = run.failures()
    assert list(failures) == ["grow(list)"]
    assert "NewerFormat: a newer version of flowq wrote this" in failures["grow(list)"].traceback


def test_workers_with_different_scripts_drain_one_graph(
    redis_url: str,
    connection: redis.Redis,
    start_worker: Callable[..., ForkedWorker],
    wait_until: Wait,
    tmp_path: Path,
) -> None:
    queue = Queue(connection=connection)
    root = Path(__file__).parents[2]
    newer = subprocess.Popen([sys.executable, "-c", NEWER, redis_url, JOBS_FOLDER], cwd=root)
    try:
        start_worker(name="older")
        wait_until(lambda: connection.scard("rq:workers") == 2, 20)
        go = tmp_path / "go"
        report = queue.enqueue(worker_jobs.get_pid, deferred=True)
        blockers = []
        for number in range(40):
            begun = str(tmp_path / f"began-{number}")
            call = (worker_jobs.touch_and_wait, begun, str(go)) if number < 2 else (sum, [number])
            blockers.append(queue.enqueue(*call, blocked_by=report))
        report.release()
        # Both must be at it before the others go on.
        wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2, 20)
        at_work = {connection.hget(blocker.key, "worker_name") for blocker in blockers[:2]}
        assert at_work == {b"older", b"newer"}
        go.touch()
        wait_until(lambda: report.get_status(refresh=True) == "finished", 20)
        loaded = {library[1].decode() for library in connection.function_list()}
        assert {scripts.TURN.function, f"{scripts.TURN.function}_newer"} <= loaded
        assert [blocker.return_value() for blocker in blockers[2:]] == list(range(2, 40))
        assert connection.lrange(f"rq:deferred:{report.id}", 0, -1) == [
            blocker.id.encode() for blocker in blockers
        ]
    finally:
        newer.kill()
        newer.wait()


def test_what_a_newer_version_notes_in_a_job_is_left_alone(
    connection: redis.Redis, drain: Callable[..., object]
) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(worker_jobs.add, 1, 2)
    connection.hset(job.key, "flowq_newer", "yes")
    drain()
    assert job.return_value() == 3
    assert connection.hget(job.key, "flowq_newer") == b"yes"


def test_the_keys_of_another_version_are_not_touched(
    connection: redis.Redis, drain: Callable[..., object]
) -> None:
    other = f"{keys.PREFIX}:flowq:{keys.VERSION + 1}:todo"
    connection.zadd(other, {"fancy:work": 1})
    Queue(connection=connection).enqueue(worker_jobs.nothing)
    drain()
    assert connection.zrange(other, 0, -1) == [b"fancy:work"]
