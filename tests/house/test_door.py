"""The public door: light to import, complete, and good enough for programs written for RQ."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import flowq
import flowq as rq
from flowq import aio, errors

ROOT = Path(__file__).parents[2]

DECLARING = """
import sys
before = set(sys.modules)
import flowq

@flowq.job(timeout="30s", retries=3)
def thumbnail(path): ...

@flowq.deferred(queue="pages")
def page(title): ...

flow = flowq.Workflow("gallery", inputs={"folder": "photos"})

@flow.job
def list_photos(folder=flow.inputs.folder): ...

assert list_photos.result == "${{ jobs.list_photos.result }}"
flowq.UsageError, flowq.FlowqError
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - sys.stdlib_module_names - {"flowq"}))
"""


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_flowq_loads_no_other_module_of_it_and_nothing_foreign() -> None:
    code = "import sys; b = set(sys.modules); import flowq; print(*sorted(set(sys.modules) - b))"
    loaded = run_python(code).split()
    assert [name for name in loaded if name.startswith("flowq")] == ["flowq", "flowq._version"]
    assert {name.partition(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "flowq"}


def test_a_child_loads_nothing_that_plans_or_submits_runs() -> None:
    """Each spawned child pays for what it imports before its first job."""
    nothing_traces = "sys.modules['opentelemetry'] = None"  # importing it would fail
    code = f"import sys; {nothing_traces}; import flowq.workers.child.main; print(*sys.modules)"
    loaded = set(run_python(code).split())
    assert "flowq.workers.child.execute" in loaded
    heavy = "spec status plan planner declare expressions inputs runtime.planned cli"
    assert not loaded & {f"flowq.{name}" for name in heavy.split()}


def test_decorating_functions_loads_the_standard_library_only() -> None:
    assert run_python(DECLARING) == ""


@pytest.mark.parametrize("name", flowq.__all__)
def test_every_name_of_the_door_opens(name: str) -> None:
    assert getattr(flowq, name) is not None
    assert name in dir(flowq)


PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)(?:\(.*?\))?` \| (.+) \|$", re.MULTILINE)
NAMES, METHODS, AWAITED = map(ROW.findall, re.split("## A run\n|## With asyncio\n", PAGE))


def test_the_page_of_names_has_each_public_name_once_and_no_other() -> None:
    assert sorted([*dict(NAMES), "__version__"]) == sorted(flowq.__all__)
    assert len(dict(NAMES)) == len(NAMES)


def test_the_page_of_names_has_the_methods_of_a_run_as_they_are() -> None:
    assert len(METHODS) > 15
    for name, _ in METHODS:
        assert getattr(flowq.Run, name).__doc__, name


def test_the_page_of_names_has_those_that_are_awaited() -> None:
    assert sorted(dict(AWAITED)) == sorted(aio.__all__)


def test_what_is_awaited_has_the_methods_of_a_run_that_others_have() -> None:
    there = {name for name in vars(aio.Run) if not name.startswith("_")}
    assert {name for name, _ in METHODS} <= there


def parameters_of(function: object) -> dict[str, tuple[object, object]]:
    """Return the kind and the default of each parameter, by name."""
    found = inspect.signature(function).parameters  # type: ignore[arg-type]
    return {name: (each.kind, each.default) for name, each in found.items()}


OF_COMMANDS = {"release": {"name"}, "follow": {"poll_s"}, "explain": {"commands"}}
OF_COMMANDS |= {"views": {"status"}, "failures": {"status"}, "outputs": {"instead"}}
"""Parameters that only flowq's own commands use, or that are deprecated."""


@pytest.mark.parametrize("name", [name for name, _ in METHODS if name != "id"])
def test_a_method_of_a_run_takes_the_same_with_await_and_without(name: str) -> None:
    plain, awaited = (parameters_of(getattr(run, name)) for run in (flowq.Run, aio.Run))
    assert awaited == {key: plain[key] for key in plain if key not in OF_COMMANDS.get(name, ())}
    shown = re.search(rf"^\| `{name}\((.*)\)` \|", PAGE.split("## A run\n")[1], re.MULTILINE)
    assert shown is not None
    parts = (each.partition("=") for each in shown[1].split(", ") if each)
    said = {key: default for key, _, default in parts}
    assert [key for key in awaited if key in said] == list(said)
    for key, default in said.items():
        assert not default or repr(awaited[key][1]) == default.replace('"', "'"), key


@pytest.mark.parametrize("name", ["submit", "run", "get_run", "runs", "events"])
def test_a_function_takes_the_same_with_await_and_without(name: str) -> None:
    plain, awaited = (parameters_of(getattr(module, name)) for module in (flowq, aio))
    kind, _ = awaited.pop("connection")
    assert kind == plain.pop("connection")[0]
    assert awaited == plain


def test_what_warns_that_it_ends_is_in_the_table_of_what_is_deprecated() -> None:
    promises = (ROOT / "docs" / "promises.md").read_text("utf-8")
    table = promises.partition("## Deprecation")[2].partition("## ")[0]
    warned = [
        found
        for file in (ROOT / "flowq").rglob("*.py")
        for found in re.findall(r'"(\S+) ends with flowq [\d.]+;', file.read_text("utf-8"))
    ]
    assert "Run.release(job)" in warned
    for name in warned:
        assert f"`{name}`" in table


def test_names_that_are_not_there_are_said_as_python_says_them() -> None:
    with pytest.raises(AttributeError, match="module 'flowq' has no attribute 'NoQueue'"):
        flowq.NoQueue  # noqa: B018


def test_every_error_is_in_the_door() -> None:
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.FlowqError)
    }
    assert ours <= set(flowq.__all__)


def cut_bread(parts: int) -> str:
    return f"{parts} slices"


def add_marmalade(kind: str) -> str:
    return kind


def serve() -> str:
    return "a sandwich"


def test_programs_written_for_rq_find_the_same_words(connection: redis.Redis) -> None:
    queue = rq.Queue(connection=connection)
    bread_slices = queue.enqueue(cut_bread, kwargs={"parts": 4})
    marmalade = queue.enqueue(add_marmalade, args=("strawberry",), depends_on=bread_slices)
    future_job = queue.enqueue(serve, deferred=True)
    blocker = queue.enqueue(cut_bread, 2, blocked_by=future_job)
    assert connection.lrange(f"rq:deferred:{future_job.id}", 0, -1) == [blocker.id.encode()]
    assert {job.get_status() for job in (marmalade, future_job, blocker)} == {"deferred"}
    rq.release_job(future_job)
    assert blocker.get_status() == "queued"
    assert future_job.get_status() == "deferred"
