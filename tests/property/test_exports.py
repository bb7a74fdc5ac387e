"""Whatever is declared can be written in both languages, and is the same when it is read."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings

from flowq.declare.export_python import export_python
from flowq.declare.export_yaml import export_yaml
from flowq.declare.problems import Problems
from flowq.declare.python import Workflow as PythonWorkflow
from flowq.declare.schema import build_schema
from flowq.declare.shapes import to_data
from flowq.declare.yaml import read_workflow
from flowq.declare.yaml_text import read_document
from flowq.spec import Workflow
from tests.property.declarations import workflows
from tests.reading import parse_workflow

EXAMPLES = sorted((Path(__file__).parents[2] / "workflows").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(build_schema())


def run_python(text: str, file: str = "made.py") -> Workflow:
    names: dict[str, PythonWorkflow] = {}
    exec(compile(text, file, "exec"), names)
    return names["flow"].spec()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_survives_both_languages(file: Path) -> None:
    workflow = read_workflow(file)
    assert parse_workflow(export_yaml(workflow), str(file)) == workflow
    assert run_python(export_python(workflow), str(file)) == workflow


@settings(max_examples=80, deadline=None)
@given(workflows())
def test_a_workflow_that_is_written_as_yaml_reads_as_it_was(workflow: Workflow) -> None:
    text = export_yaml(workflow)
    assert parse_workflow(text, "made.yaml") == workflow
    assert export_yaml(parse_workflow(text, "made.yaml")) == text


@settings(max_examples=80, deadline=None)
@given(workflows())
def test_a_workflow_that_is_written_as_python_declares_what_it_was(workflow: Workflow) -> None:
    text = export_python(workflow)
    assert run_python(text) == workflow


@settings(max_examples=40, deadline=None)
@given(workflows())
def test_the_schema_accepts_whatever_is_written(workflow: Workflow) -> None:
    node = read_document(export_yaml(workflow), Problems("made.yaml"))
    assert node is not None
    assert [error.message for error in VALIDATOR.iter_errors(to_data(node))] == []


def test_keys_behind_handles_are_written_as_handles() -> None:
    text = """\
name: x
inputs: {data: {type: json}}
jobs:
  a: {call: m:f, approval: {inputs: {host: {type: str}}}}
  b-c: {for_each: [1], call: m:f}
  b:
    call: m:f
    with:
      host: ${{ jobs.a.approval.host }}
      word: ${{ jobs.a.result["wo rd"] }}
      type: ${{ jobs.a.error["type"] }}
      first: ${{ jobs.b-c.results[0]["x"] }}
      size: a ${{ inputs.data["size"] }}
      other: ${{ jobs.a.result.x }}
"""
    workflow = parse_workflow(text, "x.yaml")
    code = export_python(workflow)
    assert run_python(code) == workflow
    assert code.count("flow.expression(") == 1  # the last one: a handle would say it otherwise
    assert 'a.result["wo rd"]' in code
    assert "b_c.results[0]" in code
