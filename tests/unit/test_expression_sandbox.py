"""Nobody gets out of an expression, and none takes long."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import evaluate

INPUTS = {"size": 256, "name": "sun", "items": [1, 2, 3], "flag": True}
RESULTS: dict[str, Any] = {
    "build-web": {"url": "http://x"},
    "big": list(range(100_000)),
    "long": "x" * 1_000_000,
    "when": date(2026, 1, 2),
}


def value_of(source: str) -> Any:
    return evaluate(f"${{{{ {source} }}}}", inputs=INPUTS, results=RESULTS)


def refusal_of(source: str) -> Problem:
    with pytest.raises(WorkflowInvalid) as caught:
        value_of(source)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    "source",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "inputs.__class__",
        "inputs['__class__']",
        "inputs.name.__class__",
        "inputs.name['__class__']",
        "inputs.items.append(1)",
        "inputs.items.append",
        "jobs.when.result.year",
        "jobs.when.result.__class__",
        "jobs.build-web.result.__init__.__globals__",
        "len.__globals__",
        "(len)('a')",
        "'{0.__class__}'.format(1)",
        "'%s' | format(1)",
        "inputs.name | attr('upper')",
        "inputs | map(attribute='x')",
        "item.__class__",
        "item.__init__.__globals__",
        "index.real",
        "matrix.__class__",
        "matrix.items",
        "env.__class__",
        "run.__class__",
        "result.__class__",
        "success.__globals__",
        "success().__class__",
        "jobs.build-web.outcomes.append(1)",
        "lipsum.__globals__",
        "cycler()",
        "self.x",
        "config",
        "loop",
        "caller()",
        "namespace()",
        "dict(a=1)",
        "joiner()",
        "import('os')",
        "__import__('os')",
        "{% set x = 1 %}",
    ],
)
def test_nothing_outside_the_documented_names_is_reached(source: str) -> None:
    if source == "(len)('a')":  # parentheses change nothing: it is the documented function
        assert value_of(source) == 1
    else:
        assert refusal_of(source).code in ("FQ301", "FQ302", "FQ303", "FQ305")


class Bomb:
    """An object whose every operation tells that it was used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __bool__(self) -> bool:
        raise AssertionError("asked for its truth")

    __hash__ = object.__hash__


@pytest.mark.parametrize("source", ["{} == 1", "not {}", "{} and 1", "{}.x", "{} + 1", "1 < {}"])
def test_operators_never_call_code_of_a_result(source: str) -> None:
    text = "${{ " + source.replace("{}", "jobs.bomb.result") + " }}"
    with pytest.raises(WorkflowInvalid):
        evaluate(text, results={"bomb": Bomb()})


def test_an_object_that_is_no_plain_data_passes_whole() -> None:
    bomb = Bomb()
    assert evaluate("${{ jobs.bomb.result }}", results={"bomb": bomb}) is bomb


# Limits


@pytest.mark.parametrize(
    "source",
    [
        "2 ** 100000000",
        "9 ** 99 ** 99",
        "(2 ** 4000) * (2 ** 4000)",
        "'a' * 100000000",
        "[1] * 100000 * 100000",
        "[[1] * 1000] * 1000",
        "range(1000000000)",
        "range(10 ** 30)",
        "jobs.long.result ~ 'x'",
        "[jobs.long.result] * 2 | join(jobs.long.result)",
        "jobs.long.result | replace('', jobs.long.result)",
        "jobs.long.result | split('x')",
        "jobs.long.result | list",
        "jobs.big.result + [1]",
        "round(1, 0 - 1000000000) if true else 1",
        "jobs.big.result" + " | sort" * 300,
        "(" * 1500 + "1" + ")" * 1500,
        "1" + "+1" * 1900,
        "1" + " + 1" * 5000,
        "not " * 900 + "1",
        "1" + "|abs" * 900,
    ],
)
def test_time_and_size_are_bounded(
    source: str, count_operations: Callable[[Callable[[], object]], int]
) -> None:
    refusals: list[str] = []
    tracemalloc.start()
    try:
        operations = count_operations(lambda: refusals.append(refusal_of(source).code))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusals[0] in ("FQ301", "FQ305", "FQ306")
    assert operations < 10_000_000
    assert peak_bytes < 100_000_000


def test_a_large_result_passes_and_its_length_and_items_are_free() -> None:
    large = {"large": ["x" * 100] * 500_000}
    assert evaluate("${{ jobs.large.result }}", results=large) is large["large"]
    assert evaluate("${{ len(jobs.large.result) }}", results=large) == 500_000
    assert evaluate("${{ jobs.large.result[499999] }}", results=large) == "x" * 100
