"""What the README shows works as it stands there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import redis

from flowq.runtime import queue as queues
from flowq.targets import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
TYPO = """\
name: typo
jobs:
  serve:
    deferred: true
    call: time:time
  cut:
    blocs: serve
    call: time:time
"""


def flowq(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flowq", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def command(start: str) -> tuple[str, str]:
    """Return the README's command that begins so, and what it prints there."""
    block = next(block for block in CONSOLE if block.startswith(f"$ {start}"))
    line, _, output = block.removeprefix("$ ").partition("\n")
    return line, output


def test_ci_runs_the_test_command_of_the_readme() -> None:
    line = next(block for block in CONSOLE if "pytest" in block).removeprefix("$ ").strip()
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert ci.splitlines()[-1] == line
    assert ".ci/opentelemetry test " in ci  # what needs its SDK, when that has succeeded


def test_the_workflow_is_the_example() -> None:
    shown = re.findall(r"```yaml\n# workflows/sandwich.yaml\n(.*?)```", README, re.DOTALL)[0]
    example = (ROOT / "workflows" / "sandwich.yaml").read_text("utf-8")
    assert shown == example.partition("\n")[2]


def test_the_first_command_runs_the_workflow_as_shown(tmp_path: Path) -> None:
    line, shown = command("python3 -m venv")
    arguments = line.split("bin/flowq ")[1].split()
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    printed = flowq(*arguments, folder=tmp_path)
    assert _masked(shown.splitlines()[-2]) == _masked(printed.splitlines()[-2])
    assert shown.splitlines()[-1] == printed.splitlines()[-1]


def _masked(line: str) -> str:
    return re.sub(r"run \w{12}|[\d.]+m?s", "…", line)


def test_the_drawing_is_what_graph_prints() -> None:
    line, shown = command("flowq graph")
    assert flowq(*line.split()[1:], folder=ROOT) == shown


def test_the_problem_is_what_check_prints(tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text(TYPO)
    line, shown = command("flowq check")
    assert flowq(*line.split()[1:], folder=tmp_path) == shown


def test_the_plain_api_runs_as_shown(
    connection: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_REDIS_URL", redis_url)
    monkeypatch.setattr(queues, "_remembered", None)
    names: dict[str, object] = {}
    exec(PYTHON[0], names)
    assert connection.llen(f"rq:deferred:{names['report'].id}") == 3  # type: ignore[attr-defined]
    assert connection.llen("rq:queue:default") == 3


def test_decorated_functions_run_as_shown(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "readme_jobs.py").write_text(PYTHON[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("readme_jobs")
    text = tmp_path / "text"
    text.write_text("three small words")
    assert module.count_words(str(text)) == 3
    names = {**vars(module), "find_texts": lambda: [str(text)] * 2}
    monkeypatch.setattr(queues, "_remembered", connection)
    exec(PYTHON[2], names)
    assert connection.llen("rq:queue:default") == 2


def test_the_declared_graph_is_a_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greeting.py").write_text(PYTHON[3])
    monkeypatch.chdir(tmp_path)
    workflow = load("greeting.py")
    assert [job.name for job in workflow.jobs] == ["greet", "choose_word"]


def test_the_lowest_versions_that_are_tried_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = [re.match(r"[a-z0-9-]+>=[\d.]+", each) for each in project["dependencies"]]
    constraints = (ROOT / "tests" / "lowest" / "constraints.txt").read_text("utf-8")
    tried = [line for line in constraints.splitlines() if not line.startswith("#")]
    assert sorted(each[0].replace(">=", "==") for each in allowed if each) == tried
    assert all(allowed)


def test_the_picture_is_what_graph_draws_of_the_workflow() -> None:
    """Compared by what it shows: where boxes are is a matter of the layout's version."""
    (file,) = re.findall(r"!\[The gallery.+\]\((docs/\w+)\.svg\)", README)
    shown = (ROOT / f"{file}.svg").read_text("utf-8")
    now = flowq("graph", f"workflows/{Path(file).name}.yaml", "-f", "svg", folder=ROOT)
    for part in (r"<text.*?>(.*?)</text>", r"<title>(.*?)</title>", r"<style>([^§]*)</style>"):
        assert re.findall(part, shown) == re.findall(part, now)
    assert shown.count("<path") == now.count("<path")
