"""The JSON Schema and the reader agree, as an independent validator sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flowq.checks import check
from flowq.declare.input_shapes import INPUT
from flowq.declare.keys import DEFAULTS, JOB, WORKFLOW
from flowq.declare.limits import CONCURRENCY
from flowq.declare.problems import Problems
from flowq.declare.schema import build_schema
from flowq.declare.shapes import to_data
from flowq.declare.starter import write_workflow
from flowq.declare.workflow_shapes import SCHEDULE
from flowq.declare.yaml import read_workflow
from flowq.declare.yaml_text import read_document
from flowq.errors import Problem, WorkflowInvalid
from flowq.graph import build_graph
from tests.reading import parse_workflow

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SCHEMA = build_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OF_SHAPES = {"FQ103", "FQ105", "FQ106", "FQ108", "FQ109", "FQ110", "FQ114", "FQ117", "FQ118"}
BEYOND_A_SCHEMA = {
    "condition_with_two_expressions": "it knows no expressions",
    "expression_in_a_key": "it does not look into arguments",
    "input_pattern_is_no_pattern": "it knows no regular expressions of Python",
    "input_pattern_looks_ahead": "it knows no regular expressions of Python",
    "list_as_a_key": "it sees data, where there is no such key any more",
}


def data_of(text: str) -> Any:
    node = read_document(text, Problems("x.yaml"))
    return None if node is None else to_data(node)


def is_valid(text: str) -> bool:
    return bool(VALIDATOR.is_valid(data_of(text)))


def problems_of(file: Path) -> list[Problem]:
    try:
        workflow = read_workflow(file)
        return check(workflow, build_graph(workflow))
    except WorkflowInvalid as invalid:
        return list(invalid.problems)


def refused_shapes() -> Iterator[Path]:
    for file in sorted((WORKFLOWS / "bad").glob("*.yaml")):
        codes = {problem.code for problem in problems_of(file)}
        if codes & OF_SHAPES:
            yield file


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", sorted(WORKFLOWS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_schema_accepts_an_example(file: Path) -> None:
    assert is_valid(file.read_text("utf-8"))


def test_the_schema_accepts_what_init_writes() -> None:
    assert is_valid(write_workflow("hello", "flowq.schema.json"))


@pytest.mark.parametrize("file", list(refused_shapes()), ids=lambda file: file.stem)
def test_the_schema_refuses_what_the_reader_does(file: Path) -> None:
    assert is_valid(file.read_text("utf-8")) == (file.stem in BEYOND_A_SCHEMA)


@pytest.mark.parametrize("words", [JOB, WORKFLOW, DEFAULTS, INPUT, SCHEDULE, CONCURRENCY])
def test_every_key_says_what_it_means_and_its_examples_are_right(words: Any) -> None:
    for name, key in words.keys.items():
        assert key.description.endswith("."), name
        one = jsonschema.Draft202012Validator(key.schema())
        for example in key.examples:
            assert one.is_valid(list(example) if isinstance(example, tuple) else example), name


@pytest.mark.parametrize(
    "text",
    [
        'jobs: {a: {run: ["", x]}}',
        "jobs: {a: {call: m:f, for_each: words}}",
        "jobs: {a: {call: m:f, timeout: 0s}}",
        'jobs: {a: {call: m:f, timeout: " 0.0 h "}}',
        "jobs: {a: {call: m:f, continue_on_error: 101%}}",
        "jobs: {a: {call: m:f, needs: b c}}",
        "jobs: {a: {call: m:f, needs: [b, 'c,d']}}",
        "jobs: {a: {call: m:f, retries: {max: 1, backoff: 1s, jitter: 120%}}}",
        "jobs: {a: {call: m:f, retries: {max: 1, on: 256}}}",
        "jobs: {a: {call: m:f, retries: {max: 1, on: [0]}}}",
        "{inputs: {i: {type: int, pattern: x}}, jobs: {a: {call: m:f}}}",
        "{inputs: {i: {type: str, choices: [a]}}, jobs: {a: {call: m:f}}}",
        "{inputs: {i: {default: 1, required: true}}, jobs: {a: {call: m:f}}}",
    ],
)
def test_the_schema_refuses_a_value_that_the_reader_refuses(text: str) -> None:
    assert not is_valid(text)
    with pytest.raises(WorkflowInvalid):
        parse_workflow(text, "x.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "jobs: {n: {call: m:f}, a: {call: m:f, needs: true}, b: {call: m:f, blocks: [1.5]}}",
        'jobs: {a: {run: [echo, ""]}}',
        "jobs: {a: {call: m:f, timeout: 0.5s, continue_on_error: 007%}}",
        "jobs: {a: {call: m:f, continue_on_error: 100.0%, for_each: '${{ inputs.x }}'}}",
        "jobs: {a: {call: m:f, retries: {max: 1, on: [255, 1-3], jitter: 100%}}}",
        "{inputs: {i: {choices: [a], default: a, required: false}}, jobs: {a: {call: m:f}}}",
        "{inputs: {i: {pattern: x}}, jobs: {a: {call: m:f}}}",
    ],
)
def test_the_schema_accepts_a_value_that_the_reader_accepts(text: str) -> None:
    assert is_valid(text)
    parse_workflow(text, "x.yaml")
