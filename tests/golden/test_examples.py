"""Every workflow in `workflows/`, through every stage, against files that a reviewer can read.

`FLOWQ_UPDATE_GOLDEN=1 pytest tests/golden` writes the files anew; the change is then in the diff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flowq.checks import check
from flowq.compiling import find_problems, load
from flowq.declare.yaml import read_workflow
from flowq.errors import Problem, WorkflowInvalid
from flowq.graph import build_graph
from flowq.inputs import EXAMPLE_BY_TYPE, resolve_inputs
from flowq.pictures.dot import render_dot
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import Picture, draw, to_document
from flowq.pictures.text import render_text
from flowq.plan import Plan
from flowq.planner import make_plan
from flowq.render.json import plan_document, to_json, write_json
from flowq.render.plan_text import render_plan
from flowq.spec import Input, Places, Workflow

_ROOT = Path(__file__).parents[2]
_WORKFLOWS = _ROOT / "workflows"
_GOLDEN = Path(__file__).parent
_UPDATE = os.environ.get("FLOWQ_UPDATE_GOLDEN") == "1"

_EXAMPLES = sorted(path.stem for path in _WORKFLOWS.glob("*.yaml"))
_REFUSALS = sorted(path.name for path in (_WORKFLOWS / "bad").glob("*.yaml"))


@cache
def _workflow(stem: str) -> Workflow:
    return read_workflow(_WORKFLOWS / f"{stem}.yaml")


def _picture(stem: str) -> Picture:
    return draw(build_graph(_workflow(stem)))


def _plan(stem: str) -> Plan:
    workflow = _workflow(stem)
    required = (declared for declared in workflow.inputs if declared.required)
    inputs = resolve_inputs(workflow, {each.name: _example_value(each) for each in required})
    return make_plan(build_graph(workflow), inputs, "run000golden")


def _example_value(declared: Input) -> str:
    return declared.choices[0] if declared.choices else EXAMPLE_BY_TYPE[declared.type]


def _spec_document(stem: str) -> dict[str, Any]:
    document: dict[str, Any] = to_json(
        _said(replace(_workflow(stem), places=Places(), folder=None))
    )
    return document


def _said(value: Any) -> Any:
    """Return the fields of a declaration that differ from their defaults, as plain data."""
    if isinstance(value, tuple | list):
        return [_said(item) for item in value]
    if not is_dataclass(value):
        return value
    pairs = ((each, getattr(value, each.name)) for each in fields(value))
    return {each.name: _said(found) for each, found in pairs if found != _default(each)}


def _default(declared: Field[Any]) -> Any:
    factory = declared.default_factory
    return declared.default if factory is MISSING else factory()


_STAGES: Mapping[str, Callable[[str], str]] = {
    "spec.json": lambda stem: write_json(_spec_document(stem)),
    "graph.json": lambda stem: write_json(to_document(_picture(stem))),
    "graph.txt": lambda stem: render_text(_picture(stem)),
    "graph.ascii.txt": lambda stem: render_text(_picture(stem), unicode=False),
    "graph.mmd": lambda stem: render_mermaid(_picture(stem)),
    "graph.dot": lambda stem: render_dot(_picture(stem)),
    "plan.txt": lambda stem: render_plan(_plan(stem)),
    "plan.json": lambda stem: write_json(plan_document(_plan(stem))),
}


@pytest.mark.parametrize("stage", _STAGES)
@pytest.mark.parametrize("stem", _EXAMPLES)
def test_an_example_looks_as_it_did_at_every_stage(stem: str, stage: str) -> None:
    _compare(_GOLDEN / "examples" / stem / stage, _STAGES[stage](stem))


@pytest.mark.parametrize("stem", _EXAMPLES)
def test_an_example_has_no_problems(stem: str) -> None:
    workflow = _workflow(stem)

    assert check(workflow, build_graph(workflow)) == []


@pytest.mark.parametrize("name", _REFUSALS)
def test_a_refusal_reads_as_it_did(name: str) -> None:
    problems = _problems(name)

    assert any(problem.severity == "error" for problem in problems)
    assert all(problem.where for problem in problems)
    text = "".join(f"{problem}\n" for problem in problems)
    _compare(_GOLDEN / "bad" / f"{Path(name).stem}.txt", text)


def _problems(name: str) -> Sequence[Problem]:
    """Return what is wrong as far as no user code needs to be imported."""
    try:
        return find_problems(load(str(_WORKFLOWS / "bad" / name)), imports=False)
    except WorkflowInvalid as invalid:
        return invalid.problems


def test_no_golden_file_is_left_of_a_workflow_that_is_gone() -> None:
    examples = {path.name for path in (_GOLDEN / "examples").glob("*")}
    refusals = {path.stem for path in (_GOLDEN / "bad").glob("*.txt")}

    assert examples <= set(_EXAMPLES)
    assert refusals <= {Path(name).stem for name in _REFUSALS}


def _compare(path: Path, text: str) -> None:
    """Compare a text with its golden file; paths of this machine are not part of either."""
    for folder in (_ROOT, Path.cwd()):
        text = text.replace(f"{folder}{os.sep}", "").replace(json.dumps(str(folder))[1:-1], ".")
    if _UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}: run with FLOWQ_UPDATE_GOLDEN=1"
    assert text == path.read_text(encoding="utf-8")
