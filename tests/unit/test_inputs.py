"""Inputs: from `-i name=value` or Python to what the workflow declares."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.declare.python import Workflow as Flow
from flowq.errors import Problem, Where, WorkflowInvalid
from flowq.inputs import EXAMPLE_BY_TYPE, convert, resolve_inputs
from flowq.spec import Input, JobSpec, Places, Workflow
from tests.reading import parse_partly, parse_workflow


def workflow_of(*inputs: Input) -> Workflow:
    places = Places({("inputs", one.name): Where("x.yaml", 2, 3) for one in inputs})
    return Workflow("flow", (JobSpec("a", "m:f"),), inputs, places=places)


def problems_of(given: Mapping[str, object], *inputs: Input) -> tuple[Problem, ...]:
    with pytest.raises(WorkflowInvalid) as caught:
        resolve_inputs(workflow_of(*inputs), given)
    return caught.value.problems


def one_input(type_: Any) -> Input:
    return Input("x", type_, choices=("red", "3.10") if type_ == "enum" else ())


@pytest.mark.parametrize(
    ("type_", "given_", "value"),
    [
        ("str", "3.10", "3.10"),
        ("str", "", ""),
        ("str", "${{ jobs.a.result }}", "${{ jobs.a.result }}"),
        ("int", " 42 ", 42),
        ("int", "-7", -7),
        ("int", "007", 7),
        ("int", 42, 42),
        ("float", "0.5", 0.5),
        ("float", "1e3", 1000.0),
        ("float", 2, 2.0),
        ("bool", "true", True),
        ("bool", "No", False),
        ("bool", "1", True),
        ("bool", False, False),
        ("path", "a/b", "a/b"),
        ("path", PurePosixPath("a/b"), "a/b"),
        ("list", "a, b,c", ["a", "b", "c"]),
        ("list", '[1, "b"]', [1, "b"]),
        ("list", "", []),
        ("list", (1, 2), [1, 2]),
        ("json", '{"a": [1, null]}', {"a": [1, None]}),
        ("json", "3", 3),
        ("json", {"a": (1, 2)}, {"a": [1, 2]}),
        ("json", None, None),
        ("enum", "3.10", "3.10"),
    ],
)
def test_text_is_converted_and_a_value_of_the_type_passes(
    type_: Any, given_: object, value: object
) -> None:
    found = resolve_inputs(workflow_of(one_input(type_)), {"x": given_})["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("type_", "given_", "words"),
    [
        ("str", 3, "must be text, not 3"),
        ("int", "3.5", "must be a whole number, not '3.5'"),
        ("int", "1_000", "must be a whole number"),
        ("int", "", "must be a whole number"),
        ("int", True, "must be a whole number, not True"),
        ("int", "9" * 5000, "must be a whole number"),
        ("float", "a lot", "must be a number"),
        ("float", "nan", "must be a finite number"),
        ("float", 10**400, "must be a finite number"),
        ("float", False, "must be a number"),
        ("bool", "maybe", "must be true or false, not 'maybe'"),
        ("bool", 1, "must be true or false, not 1"),
        ("path", "", "must be a path"),
        ("path", "a\0b", "must be a path"),
        ("path", 3, "must be a path"),
        ("list", {"a": 1}, "must be a list"),
        ("list", "[1", "is not JSON"),
        ("list", [object()], "a value of type object"),
        ("json", "{a: 1}", "is not JSON"),
        ("json", "NaN", "is not JSON"),
        ("json", "[" * 100_000, "nested deeper"),
        ("json", "[" * 100 + "]" * 100, "nested deeper"),
        ("json", {1: 2}, "must be plain data"),
        ("enum", "blue", "must be one of red, 3.10, not 'blue'"),
        ("enum", 3.10, "must be one of"),
        ("int", None, "must be a whole number, not None"),
    ],
)
def test_what_does_not_fit_names_the_input_its_position_and_an_example(
    type_: Any, given_: object, words: str
) -> None:
    (problem,) = problems_of({"x": given_}, one_input(type_))
    assert problem.code == "FQ403"
    assert problem.message.startswith("the input x ")
    assert words in problem.message
    assert problem.where == Where("x.yaml", 2, 3)
    assert "-i x=" in problem.hint


def test_defaults_fill_in_and_the_order_is_that_of_the_declaration() -> None:
    workflow = workflow_of(
        Input("b", "int", 3, required=False), Input("a"), Input("c", required=False)
    )
    found = resolve_inputs(workflow, {"a": "x"})
    assert list(found.items()) == [("b", 3), ("a", "x"), ("c", None)]


def test_none_is_a_value_of_an_optional_input() -> None:
    workflow = workflow_of(Input("a", "int", 3, required=False))
    assert resolve_inputs(workflow, {"a": None}) == {"a": None}


def test_all_problems_are_told_at_once() -> None:
    found = problems_of({"sizes": "3", "n": "x"}, Input("size", "int"), Input("n", "int"))
    assert [problem.code for problem in found] == ["FQ401", "FQ402", "FQ403"]
    assert "did you mean 'size'?" in found[0].hint
    assert "required" in found[1].message
    assert found[1].hint == "for example: -i size=42"


def test_a_workflow_without_inputs_says_so() -> None:
    (problem,) = problems_of({"x": 1})
    assert "no inputs" in problem.hint


@pytest.mark.parametrize("type_", EXAMPLE_BY_TYPE)
def test_the_examples_are_right(type_: Any) -> None:
    convert(Input("x", type_), EXAMPLE_BY_TYPE[type_])


TYPES = st.sampled_from([*EXAMPLE_BY_TYPE, "enum"])


@given(TYPES, st.text(max_size=20) | st.integers() | st.floats() | st.lists(st.binary()))
def test_nonsense_is_a_problem_and_never_another_exception(type_: Any, value: object) -> None:
    with suppress(ValueError):
        found = convert(one_input(type_), value)
        if type_ != "json":
            assert convert(one_input(type_), found) == found


def test_a_text_has_to_match_the_pattern_of_its_input_as_a_whole() -> None:
    month = Input("month", pattern=r"[0-9]{4}-[0-9]{2}")
    assert convert(month, "2026-10") == "2026-10"
    for wrong in ("2026-1", "on 2026-10", "2026-10\n"):
        with pytest.raises(ValueError, match="must match"):
            convert(month, wrong)


def test_the_problem_of_a_pattern_names_the_input_and_the_pattern() -> None:
    workflow = Workflow("w", (), (Input("month", pattern="[0-9]+"),))
    with pytest.raises(WorkflowInvalid) as caught:
        resolve_inputs(workflow, {"month": "May"})
    (problem,) = caught.value.problems
    assert problem.code == "FQ403"
    assert "input month must match [0-9]+" in problem.message
    assert "[0-9]+" in problem.hint


def test_an_input_with_a_pattern_that_is_missing_says_how_to_give_it() -> None:
    flow = Workflow("flow", (), inputs=(Input("month", pattern="[0-9]+"),))

    with pytest.raises(WorkflowInvalid) as caught:
        resolve_inputs(flow, {})

    assert caught.value.problems[0].hint.startswith("give it as -i month=")


def test_an_input_in_short_is_its_default_in_both_fronts() -> None:
    text = "inputs: {a: false, b: 3, c: photos, d: [1, x], e: 2.5, f: }\njobs: {j: {call: m:f}}\n"
    flow = Flow("x", inputs={"a": False, "b": 3, "c": "photos", "d": [1, "x"], "e": 2.5, "f": str})
    flow.call("j", "m:f")
    assert parse_workflow(text, "x.yaml").inputs == flow.spec().inputs
    _, (problem,) = parse_partly("inputs: {a: string}\njobs: {j: {call: m:f}}", "x.yaml")
    assert (problem.code, "write a: {type: str}" in problem.hint) == ("FQ105", True)
