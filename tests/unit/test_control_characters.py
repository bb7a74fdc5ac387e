"""What is in a workflow or a result moves no cursor: control characters are spelled out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from flowq.cli import display, terminal
from flowq.cli.compiling import describe_inputs
from flowq.errors import WorkflowInvalid
from flowq.graph import build_graph
from flowq.pictures.dot import render_dot
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import draw
from flowq.pictures.text import render_text
from flowq.planner import make_plan
from flowq.render.lines import plain, spelled, spelled_line
from flowq.render.plan_text import render_plan
from tests.reading import parse_workflow

NASTY = "\x1b[31m\x1b]0;x\x07\x9b2J\r\x08\u202e"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TEXT = r"""
name: "flow\e[2J"
description: "\e]0;owned\a"
inputs: {v: {type: enum, choices: ["a\e[1m"], default: "a\e[1m", description: "in\e[31mput"}}
jobs:
  a: {run: "echo \e[5m", description: "be\e[31mware\nof\r a forged\x9b line\u202e"}
  b: {matrix: {x: ["\e[2J"]}, run: "echo ${{ inputs.v }}", if: "'\e' != ''"}
"""


def test_control_characters_are_spelled_out() -> None:
    assert spelled("a\tb\nc é →") == "a\tb\nc é →"
    assert spelled(NASTY) == r"\x1b[31m\x1b]0;x\x07\x9b2J\r\x08\u202e"
    assert spelled_line("a\n b\x1b") == r"a b\x1b"
    assert plain((("a\x1b", ""), ("b", "bold"))) == r"a\x1bb"


def test_nothing_of_a_workflow_reaches_the_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    workflow = parse_workflow(TEXT, "flow.yaml")
    shown, plan = draw(build_graph(workflow)), make_plan(build_graph(workflow), {}, "r")
    for text in (render_plan(plan), render_text(shown), render_dot(shown), render_mermaid(shown)):
        terminal.write(text)
    try:
        parse_workflow('jobs: {a: {run: x, "\\e[2J": 1}, "\\e[1m": {}}', "flow\x1b.yaml")
    except WorkflowInvalid as invalid:
        terminal.note(str(invalid))
    display.tell([((NASTY, "bold"),)], sys.stdout)
    written = capsys.readouterr()
    assert r"be\x1b[31mware of a forged\x9b line\u202e" in written.out
    assert UNSAFE.search(written.out + written.err) is None


def test_the_help_of_a_workflow_is_safe(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(TEXT)
    ((option, about),) = describe_inputs(str(file))
    assert r"in\x1b[31mput" in about
    assert UNSAFE.search(option + about) is None


def test_a_live_table_is_safe() -> None:
    pytest.importorskip("rich")
    assert display._to_text([((NASTY, ""),)]).plain == spelled(NASTY)
