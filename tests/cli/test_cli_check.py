"""`flowq check` of several workflows: their problems, a summary, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import Flowq

GOOD = "jobs: {a: {call: 'tasks:work'}}\n"
ROOT = Path(__file__).parents[2]
BAD = "jobs: {a: {run: x, timeout: soon}, b: {run: x, needs: c}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders with modules of one name, what is no workflow, and what is hidden."""
    texts = {
        "one/flow.yaml": GOOD,
        "one/tasks.py": "def work(): ...\n",
        "two/flow.yml": GOOD.replace("work", "other"),
        "two/tasks.py": "def other(): ...\n",
        "two/bad.yaml": BAD,
        "two/compose.yaml": "services: {db: {image: x}}\n",
        "two/.hidden/flow.yaml": BAD,
    }
    for name, text in texts.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_folders_are_searched_for_workflows_and_each_has_its_own_modules(
    flowq: Flowq, folder: Path
) -> None:
    done = flowq("check", "one", "two")
    assert done.returncode == 3
    assert [line.partition(": ")[0] for line in done.stdout.splitlines() if "flow.y" in line] == [
        "one/flow.yaml",
        "two/flow.yml",
    ]
    assert "two/bad.yaml:1:29: FQ110" in done.stdout
    assert "hidden" not in done.stdout
    assert "compose" not in done.stdout
    assert done.stdout.endswith("3 workflows, 2 problems in 1 of them\n")


def test_several_files_that_are_right_exit_with_0(flowq: Flowq, folder: Path) -> None:
    done = flowq("check", "one/flow.yaml", "two/flow.yml", "one/flow.yaml")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("2 workflows, all ok\n")


def test_a_file_that_is_missing_hides_no_problem_of_the_others(flowq: Flowq, folder: Path) -> None:
    done = flowq("check", "none.yaml", "two/bad.yaml")
    assert done.returncode == 3
    assert "none.yaml: there is no such file" in done.stdout
    assert done.stdout.endswith("2 workflows, 2 problems in 1 of them, 1 not found\n")
    assert flowq("check", "none.yaml", "one").returncode == 5


def test_json_has_a_document_for_each(flowq: Flowq, folder: Path) -> None:
    document = json.loads(
        flowq("check", "--json", "one/flow.yaml", "two/bad.yaml", "none.yaml").stdout
    )
    assert [len(each["problems"]) for each in document["targets"]] == [0, 2, 0]
    assert "no such file" in document["targets"][2]["error"]
    assert json.loads(flowq("check", "--json", "one/flow.yaml").stdout)["target"] == "one/flow.yaml"


def test_a_folder_without_workflows_is_said(flowq: Flowq, folder: Path) -> None:
    (folder / "three").mkdir()
    done = flowq("check", "three")
    assert done.returncode == 2


def test_the_hook_for_pre_commit_checks_the_files_that_are_committed(
    flowq: Flowq, folder: Path
) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    program, *words = hook["entry"].split()
    assert (program, hook["language"], hook["types"]) == ("flowq", "python", ["yaml"])
    assert re.search(hook["files"], "workflows/gallery.yaml")
    assert re.search(hook["files"], "shop/workflows/night/mails.yml")
    assert re.search(hook["exclude"], ".github/workflows/ci.yaml"), "has jobs as well"

    done = flowq(*words, "one/flow.yaml", "two/bad.yaml")
    assert done.returncode == 3
    assert "two/bad.yaml:1:29: FQ110" in done.stdout
