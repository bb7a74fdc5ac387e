"""Every rule has its place on the page of problems, and the examples there are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from flowq.compiling import compile_plan, find_problems
from flowq.errors import WorkflowInvalid
from flowq.problems import RULE_BY_CODE
from flowq.spec import Workflow
from tests.reading import parse_workflow

PAGE = (Path(__file__).parents[2] / "docs" / "problems.md").read_text("utf-8")
SECTION = re.compile(
    r'<a id="(fq\d+)"></a>\n\n### (FQ\d+): ([^\n]*)\n(.*?)'
    r"```(\w+) wrong\n(.*?)```\n\n```(\w+) right\n(.*?)```\n",
    re.DOTALL,
)
SECTIONS = {found.group(2): found for found in SECTION.finditer(PAGE)}
WAIT = """
inputs: {pause: {type: int}}
jobs:
  wait: {call: time:sleep, with: {seconds: "${{ inputs.pause }}"}}
"""


def test_the_page_has_a_section_for_each_rule_of_the_register_in_its_order() -> None:
    shown = [(found.group(2), found.group(3), found.group(1)) for found in SECTIONS.values()]
    assert shown == [(rule.code, rule.title, rule.code.lower()) for rule in RULE_BY_CODE.values()]


@pytest.mark.parametrize("code", sorted(SECTIONS))
def test_the_wrong_example_breaks_the_rule_and_the_right_one_none(code: str) -> None:
    _, _, _, _, language, wrong, other, right = SECTIONS[code].groups()
    assert language == other
    assert code in codes_of(wrong, language, code)
    assert codes_of(right, language, code) == set()


def codes_of(text: str, language: str, code: str) -> set[str]:
    """Return the codes of what is wrong; of functions only where the section is about them."""
    try:
        workflow, given = read(text, language)
        found = find_problems(workflow, imports=code.startswith("FQ5"))
        codes = {problem.code for problem in found}
        if not codes:
            compile_plan(workflow, given, imports=False)
    except WorkflowInvalid as invalid:
        return {problem.code for problem in invalid.problems}
    return codes


def read(text: str, language: str) -> tuple[Workflow, dict[str, str]]:
    if language == "yaml":
        return parse_workflow(text.replace("␇", "\a"), "example.yaml"), {}
    if language == "console":
        return parse_workflow(WAIT, "wait.yaml"), inputs_of(text)
    names: dict[str, Any] = {}
    exec(text, {"__name__": "example"}, names)
    flow = names["flow"]
    return flow if isinstance(flow, Workflow) else flow.spec(), {}


def inputs_of(command: str) -> dict[str, str]:
    words = shlex.split(command)
    pairs = (words[place + 1] for place, word in enumerate(words) if word == "-i")
    return dict(pair.split("=", 1) for pair in pairs)
