"""Expressions with any value: a value or a coded problem, within one budget for all of them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowq.compiling import compile_plan
from flowq.errors import WorkflowInvalid
from flowq.expressions import Budget, evaluate, one_budget
from flowq.expressions.grammar import FUNCTION_NAMES
from flowq.expressions.operators import BINARY, COMPARISONS
from tests.reading import parse_workflow
from tests.unit.expression_values import refusal_of

HUGE = 10**5000
MODULUS = 2**61 - 1
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -5, 3_000, MODULUS, HUGE, -HUGE, 1.5, float("inf"), float("nan")),
    *("", "a", "9" * 5_000, "[", "\ud800", b"x", object(), range(3), range(10**12)),
    *([], [1], ["a"], [[1]], [{"a": 1}], [None], [HUGE, "a"], [float("nan"), 1], [b"a"]),
    *({}, {"a": 1}, {"a": {"b": [1]}}, {1: 2}, {"\ud800": 1}, (1, 2), {1, 2}, frozenset("a")),
    *(Decimal("1.5"), Decimal("1e999999"), Decimal("NaN"), Fraction(1, 3), [1, 2.5, Decimal(1)]),
    *(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.date(2026, 1, 1)),
    *(
        datetime.datetime.max.replace(tzinfo=datetime.UTC),
        datetime.timedelta(1),
        [datetime.timedelta.max] * 2,
    ),
]
SOURCES = [
    *(f"inputs.a {word} inputs.b" for word in ("+", "-", "*", "/", "//", "%", "**", "~")),
    *(f"inputs.a {word} inputs.b" for word in ("==", "!=", "<", ">=", "in", "not in", "and", "or")),
    *("inputs.a[inputs.b]", "inputs.a[inputs.b:]", "-inputs.a", "+inputs.a", "not inputs.a"),
    *("inputs.a.b", "{inputs.a: 1}", "'' ~ inputs.a", "inputs.a | map('a') | join"),
    *(f"{name}(inputs.a, inputs.b)" for name in sorted(FUNCTION_NAMES)),
    *(f"inputs.a | {name}" for name in sorted(FUNCTION_NAMES)),
]


def check(source: str, a: Any, b: Any) -> None:
    try:
        evaluate(f"${{{{ {source} }}}}", inputs={"a": a, "b": b})
    except WorkflowInvalid as invalid:
        codes = {problem.code[:3] for problem in invalid.problems}
    else:
        codes = {"FQ3"}
    assert codes == {"FQ3"}


def test_the_list_of_sources_has_every_operator() -> None:
    assert len(BINARY) == 7
    assert len(COMPARISONS) == 8


@pytest.mark.parametrize("source", SOURCES)
def test_every_value_gives_a_value_or_a_coded_problem(source: str) -> None:
    for value in VALUES:
        check(source, value, VALUES[7])


@given(st.sampled_from(SOURCES), st.sampled_from(VALUES), st.sampled_from(VALUES))
@settings(max_examples=200, deadline=None)
def test_any_two_values_give_a_value_or_a_coded_problem(source: str, a: Any, b: Any) -> None:
    check(source, a, b)


@pytest.mark.parametrize("source", ["keys([1])", "values('a')", "items('a')", "keys('a')"])
def test_keys_and_values_are_those_of_a_map(source: str) -> None:
    assert refusal_of(source).code == "FQ305"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("2 ** 3 ** 2", 512),
        ("(2 ** 3) ** 2", 64),
        ("-2 ** 2", -4),
        ("(-2) ** 2", 4),
        ("2 ** -1", 0.5),
        ("2 ** -1 ** 2", 0.5),
        ("--2 ** 2", 4),
        ("2 * 3 ** 2", 18),
        ("-2 | abs", 2),
        ("-inputs.x ** 2", -9),
    ],
)
def test_powers_group_as_in_python(source: str, value: float) -> None:
    assert evaluate(f"${{{{ {source} }}}}", inputs={"x": 3}) == value


def test_unique_of_numbers_that_collide_is_refused_at_once() -> None:
    colliding = [number * MODULUS for number in range(50_000)]
    with pytest.raises(WorkflowInvalid, match=r"FQ306 .* the same to a hash table"):
        evaluate("${{ unique(inputs.x) }}", inputs={"x": colliding})
    assert evaluate("${{ unique(inputs.x) }}", inputs={"x": [1, 1.0, "a", "a", 2]}) == [1, "a", 2]
    assert len(evaluate("${{ unique(inputs.x) }}", inputs={"x": [*range(50_000)] * 2})) == 50_000


COSTLY = "${{ range(20000) | sort | len }}"


def test_all_expressions_of_a_value_have_one_budget() -> None:
    assert evaluate(COSTLY) == 20_000
    for value in (COSTLY * 100, [COSTLY] * 100, {"a": {str(at): COSTLY for at in range(100)}}):
        with pytest.raises(WorkflowInvalid, match=r"FQ306 .* with the other"):
            evaluate(value)


def test_what_is_evaluated_for_one_job_has_one_budget() -> None:
    with pytest.raises(WorkflowInvalid, match="FQ306"), one_budget(Budget()):  # noqa: PT012
        for _ in range(100):
            evaluate(COSTLY)
    assert evaluate(COSTLY) == 20_000


def test_thousands_of_small_expressions_are_fine() -> None:
    assert evaluate("${{ 1 + 1 }}" * 5_000) == "2" * 5_000


def test_a_whole_plan_has_one_budget_that_grows_with_its_jobs() -> None:
    costly = "${{ range(inputs.n) | sort | len }}"
    workflow = parse_workflow(
        "name: w\ninputs: {n: {type: int, default: 30000}}\njobs:\n"
        + "".join(f"  j{at}: {{run: [echo], env: {{A: '{costly}'}}}}\n" for at in range(12)),
        "w.yaml",
    )
    with pytest.raises(WorkflowInvalid, match=r"w.yaml:\d+:\d+: FQ306"):
        compile_plan(workflow, {}, imports=False)
    compile_plan(workflow, {"n": 100}, imports=False)


def test_whole_numbers_too_large_are_compared_and_not_computed_with() -> None:
    assert evaluate("${{ inputs.x > 1 }}", inputs={"x": HUGE}) is True
    for source in ("inputs.x // 3", "inputs.x % inputs.x", "inputs.x + 1"):
        with pytest.raises(WorkflowInvalid, match="FQ306"):
            evaluate(f"${{{{ {source} }}}}", inputs={"x": HUGE})
