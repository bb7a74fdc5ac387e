"""The examples in the tables of docs/coming-from.md pass `flowq check`."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest
import yaml

from flowq.cli.main import commands
from flowq.compiling import find_problems
from flowq.declare.keys import JOB
from tests.docs.pages import DOCS
from tests.reading import parse_workflow

PAGE = (DOCS / "coming-from.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!---)(.+) \| (.+) \| (`.+`) \|$", PAGE, re.MULTILINE)
TOOLS = ("GitHub Actions", "Argo Workflows", "Airflow", "Celery", "Sidekiq", "Dagu", "Snakemake")
OF_BOTH = {"timeout", "max_parallel"}
"""Keys of a job and of a workflow: an example with nothing else is of the workflow."""


def lines_of(cell: str) -> list[str]:
    lines = [each.strip("`") for each in cell.split("<br>")]
    return [re.sub(r"\bon: ", '"on": ', each) for each in lines]  # PyYAML reads YAML 1.1


def wrap(part: dict[str, Any]) -> dict[str, Any]:
    """Return a whole workflow with a part of a job, or of a workflow, and what it refers to."""
    jobs: dict[str, Any] = {
        "build": {"run": "echo 12", "result": "json"},
        "list": {"run": "echo '[1, 2]'", "result": "json"},
        "pages": {"for_each": [1], "run": "echo"},
    }
    inputs = {"n": {"type": "int"}, "day": {"type": "str"}, "names": {"type": "list"}}
    is_of_job = part.keys() <= JOB.keys.keys() and not part.keys() <= OF_BOTH
    if is_of_job:
        return {"inputs": inputs, "jobs": {**jobs, "example": part}}
    whole = {"inputs": inputs, **part, "jobs": {**jobs, **part.get("jobs", {})}}
    return {**whole, "inputs": {**inputs, **part.get("inputs", {})}}


def test_each_tool_has_a_table_whose_rows_have_examples() -> None:
    sections = dict(re.findall(r"^## (.+)\n(?s:(.+?))(?=^## |\Z)", PAGE, re.MULTILINE))
    for tool in TOOLS:
        rows = re.findall(r"^\| (?!---)", sections[tool], re.MULTILINE)
        assert len(rows) >= 9, tool
    assert len(ROWS) == len(re.findall(r"^\| (?!---)", PAGE, re.MULTILINE)) - len(TOOLS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_an_example_is_one_of_flowq(row: tuple[str, str, str]) -> None:
    lines = lines_of(row[2])
    if lines[0].startswith("flowq "):
        _, name, *words = shlex.split(lines[0])
        command = commands.get_command(click.Context(commands), name)
        assert command is not None
        known = {option for each in command.params for option in each.opts}
        assert {word for word in words if word.startswith("-")} <= known
        return
    whole = yaml.safe_dump(wrap(yaml.safe_load("\n".join(lines))), sort_keys=False)
    problems = find_problems(parse_workflow(whole, "example.yaml"), imports=False)
    assert not [str(each) for each in problems if each.severity == "error"]
