"""The chapters of the language name every word of it, and what they show is right."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flowq.checks import check
from flowq.declare.input_shapes import INPUT
from flowq.declare.keys import DEFAULTS, JOB, WORKFLOW
from flowq.declare.limits import CONCURRENCY
from flowq.declare.shapes import Vocabulary
from flowq.declare.workflow_shapes import SCHEDULE
from flowq.expressions.grammar import FUNCTION_NAMES, ROOTS
from flowq.expressions.references import JOB_ATTRIBUTES, RUN_ATTRIBUTES, STATUS_BY_FUNCTION
from flowq.graph import build_graph
from tests.reading import parse_workflow

DOCS = Path(__file__).parents[2] / "docs"
CHAPTERS = [DOCS / "language.md", *sorted((DOCS / "language").glob("*.md"))]
PAGE = "".join(chapter.read_text("utf-8") for chapter in CHAPTERS)
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
PYTHON, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
WORDS = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))


@pytest.mark.parametrize("vocabulary", [JOB, WORKFLOW, INPUT, DEFAULTS, SCHEDULE, CONCURRENCY])
def test_every_key_is_in_a_chapter(vocabulary: Vocabulary) -> None:
    assert vocabulary.keys.keys() <= WORDS


def test_every_name_and_function_of_expressions_is_in_a_chapter() -> None:
    functions = STATUS_BY_FUNCTION.values()
    assert {*FUNCTION_NAMES, *ROOTS, *JOB_ATTRIBUTES, *RUN_ATTRIBUTES, *functions} <= WORDS


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_right(text: str) -> None:
    workflow = parse_workflow(text, "example.yaml")
    assert check(workflow, build_graph(workflow)) == []


def test_the_example_in_python_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gallery_tasks")
    monkeypatch.setitem(sys.modules, "gallery_tasks", module)
    exec(PYTHON, vars(module))
    assert module.flow.spec() == parse_workflow(EXAMPLES[0], "x.yaml")
