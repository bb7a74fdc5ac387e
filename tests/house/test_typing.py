"""Type checkers see what flowq's API takes and returns."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowq
from flowq import aio
from flowq.functions import OPTION_NAMES

ROOT = Path(__file__).parents[2]
TYPING = ROOT / "tests" / "typing"
README = (ROOT / "README.md").read_text("utf-8")
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", "--no-warn-unused-configs"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.fixture(scope="module", params=CHECKERS)
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a type checker says of all files together."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; .ci/typing runs it")
    examples = tmp_path_factory.mktemp("examples") / "readme_example.py"
    examples.write_text("".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:2]))
    files = [*sorted(TYPING.glob("*.py")), examples]
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[request.param], *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 1, text  # there is something to refuse
    return text


def errors(said: str, name: str) -> set[int]:
    """Return the numbers of the lines of a file in which there are errors."""
    return {int(line) for line in re.findall(rf"{re.escape(name)}:(\d+):.*\berror\b", said)}


@pytest.mark.parametrize("name", ["accepted.py", "readme_example.py"])
def test_what_is_right_is_accepted(said: str, name: str) -> None:
    assert not errors(said, name), said


def test_every_public_name_is_accepted() -> None:
    """So that one that is removed is an error of the type checkers too, without a look at lists."""
    text = (TYPING / "accepted.py").read_text("utf-8")
    plain, awaited = text.split("async def asynchronous")
    add = f"add to {TYPING / 'accepted.py'}"
    assert set(flowq.__all__) <= set(re.findall(r"\bflowq\.(\w+)", text)), add
    assert set(aio.__all__) <= set(re.findall(r"\baio\.(\w+)", text)), add
    methods = {name for name in vars(aio.Run) if not name.startswith("_")}
    assert methods <= set(re.findall(r"\brun\.(\w+)", plain)), add
    assert methods <= set(re.findall(r"\b(?:run|submitted)\.(\w+)", awaited)), add


def test_what_is_wrong_is_refused(said: str) -> None:
    lines = (TYPING / "refused.py").read_text("utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    assert errors(said, "refused.py") == wrong, said


def test_each_option_of_a_job_may_stand_beside_arguments() -> None:
    tree = ast.parse((ROOT / "flowq" / "functions.py").read_text("utf-8"))
    [verb] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Verb"]
    calls = [node for node in verb.body if isinstance(node, ast.FunctionDef)]
    assert {argument.arg for call in calls for argument in call.args.kwonlyargs} == OPTION_NAMES
