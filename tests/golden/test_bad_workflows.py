"""The refusals in `workflows/bad`: each file one thing that is wrong, and every rule shown.

What they print is compared in `test_examples.py`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from flowq.compiling import find_problems, load
from flowq.errors import Problem, WorkflowInvalid
from flowq.problems import RULE_BY_CODE

BAD = Path(__file__).parents[2] / "workflows" / "bad"
FILES = sorted(BAD.glob("*.yaml"))
MANY = {
    "defaults_of_one_job",
    "merge_key",
    "many_problems",
    "github_workflow",
    "job_keys_not_indented",
    "nested_inputs",
    "text_and_graph",
}


@cache
def problems_of(file: Path) -> tuple[Problem, ...]:
    """Return what is wrong as far as no user code needs to be imported."""
    try:
        return tuple(find_problems(load(str(file)), imports=False))
    except WorkflowInvalid as invalid:
        return invalid.problems


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_refused_file_has_one_problem_with_a_position(file: Path) -> None:
    problems = problems_of(file)
    assert all(problem.where and problem.where.file == str(file) for problem in problems)
    assert len(problems) <= 1 or file.stem in MANY


def test_every_rule_of_the_reader_is_shown_by_a_file() -> None:
    shown = {problem.code for file in FILES for problem in problems_of(file)}
    ours = {code for code in RULE_BY_CODE if code.startswith(("FQ1", "FQ3"))}
    assert ours <= shown


def test_every_problem_says_what_to_do() -> None:
    without = {
        f"{file.stem} {problem.code}"
        for file in FILES
        for problem in problems_of(file)
        if not problem.hint and "must be" not in problem.message
    }
    assert without <= {
        "alias_of_itself FQ112",
        "alias_without_anchor FQ112",
        "too_deep FQ111",
    }
