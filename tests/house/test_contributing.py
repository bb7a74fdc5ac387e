"""The recipes of CONTRIBUTING.md are true of the examples they name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from flowq.cli.main import COMMANDS
from flowq.expressions.functions import FUNCTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", PAGE, flags=re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| `(flowq/[\w/.]+)` \|", flags=re.MULTILINE)


def files_with(word: str) -> set[str]:
    """Return the files of flowq that have a word, also as the end of a longer one."""
    found = re.compile(rf"(?:\b|_){word}\b")
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "flowq").rglob("*.*")
        if path.suffix in (".py", ".lua") and found.search(path.read_text("utf-8"))
    }


def check_recipe(title: str, example: str) -> None:
    listed = set(ROW.findall(RECIPES[title]))
    found = files_with(example)
    assert listed == found, (
        f"CONTRIBUTING.md, {title!r}: add {sorted(found - listed)}, remove {sorted(listed - found)}"
    )


def test_the_recipe_for_a_key_lists_every_file_that_knows_the_example() -> None:
    check_recipe("Add a key of the language", "on_crash")


def test_the_recipe_for_a_problem_lists_every_file_that_knows_the_example() -> None:
    check_recipe("Add a problem", "LIMIT_WITHOUT_GROUP")


def test_the_recipe_for_a_format_lists_every_file_that_knows_the_example() -> None:
    check_recipe("Add a format of pictures", "mermaid")


def test_the_recipe_for_an_option_of_workers_lists_every_file_that_knows_the_example() -> None:
    check_recipe("Add an option of workers", "max[-_]jobs[-_]per[-_]child")


def test_the_recipes_for_functions_and_start_methods_name_what_is_there() -> None:
    assert ROW.findall(RECIPES["Add a function of expressions"])
    assert "unique" in FUNCTIONS
    listed = ROW.findall(RECIPES["Add a way to start children"])
    for path, word in zip(listed, ("Spawned", "START_METHODS", "--mode"), strict=True):
        assert word in (ROOT / path).read_text("utf-8"), path


def test_each_command_is_a_module_and_a_line_of_the_table() -> None:
    listed = ROW.findall(RECIPES["Add a command"])
    assert listed == ["flowq/cli/wip.py", "flowq/cli/main.py"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in COMMANDS:
        module = (ROOT / "flowq" / "cli" / f"{name}.py").read_text("utf-8")
        assert re.search(r"^def command\(", module, flags=re.MULTILINE), name
        assert f"`flowq {name}" in readme, name


def test_the_files_of_an_event_have_the_field_of_the_example() -> None:
    for path in ROW.findall(RECIPES["Add a field to the events of a run"]):
        assert "worker" in (ROOT / path).read_text("utf-8"), path


def test_the_files_of_an_end_have_the_field_of_the_example() -> None:
    listed = ROW.findall(RECIPES["Add a field to the end of a job"])
    assert len(listed) == 5
    for path in listed:
        assert re.search(r"\bcode\b", (ROOT / path).read_text("utf-8")), path


def test_each_task_is_there() -> None:
    tasks = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["poe"]["tasks"]
    named = set(re.findall(r"`poe (\w+)`", PAGE))
    assert named
    assert named <= tasks.keys()
