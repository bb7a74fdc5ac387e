"""Objects whose every operation is code: expressions run none of it, and none takes long."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from flowq.errors import WorkflowInvalid
from flowq.expressions import evaluate
from flowq.expressions.plain import simplify_top
from tests.unit.expression_values import Kind, Pair, Point, refusal_of, short, value_of


def fail(*_: Any, **__: Any) -> Any:
    raise AssertionError("code of the object was run")


CODE = """
        __getattr__ __getattribute__ __getitem__ __contains__ __iter__ __len__ __missing__
        __bool__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __add__ __radd__ __mul__ __rmul__
        __mod__ __rmod__ __sub__ __neg__ __abs__ __str__ __repr__ __format__ __int__ __float__
        __index__ __round__ keys items values copy upper item get bit_length _asdict
"""
ALL_CODE = dict.fromkeys(CODE.split(), fail)


class Meta(type):
    def __getattr__(cls, name: str) -> Any:
        raise AssertionError(f"the class was asked for {name}")


def trap(base: type, value: Any = None, **more: Any) -> Any:
    names = {**ALL_CODE, "__class__": property(fail), "__class_getitem__": fail, **more}
    names["__hash__"] = base.__hash__
    kind = Meta("Trap", (base,), names)
    return base.__new__(kind) if value is None else base.__new__(kind, value)


def trapped_list() -> Any:
    value = trap(list)
    list.extend(value, [1, 2])
    return value


def trapped_dict() -> Any:
    value = trap(dict)
    dict.update(value, {"a": 1})
    return value


TRAPS: dict[str, Callable[[], Any]] = {
    "object": lambda: trap(object),
    "dataclass": lambda: trap(object, __dataclass_fields__=Point.__dataclass_fields__),
    "pydantic": lambda: trap(object, __pydantic_fields__={"x": fail}),
    "property": lambda: trap(
        object, __dataclass_fields__=Point.__dataclass_fields__, x=property(fail)
    ),
    "dict property": lambda: trap(
        object, __dataclass_fields__=Point.__dataclass_fields__, __dict__=property(fail)
    ),
    "fields property": lambda: trap(object, __dataclass_fields__=property(fail)),
    "no field of a dataclass": lambda: trap(object, __dataclass_fields__={"x": trap(object)}),
    "names that are none": lambda: trap(object, __pydantic_fields__={trap(object): 1, "x": 1}),
    "names property": lambda: trap(tuple, (1, 2), _fields=property(fail)),
    "names that are no texts": lambda: trap(tuple, (1, 2), _fields=(trap(object), 1)),
    "named": lambda: trap(tuple, (1, 2), _fields=("x", "y"), x=property(fail)),
    "numpy": lambda: trap(np.float64, 1.5),
}
SOURCES = (
    *("{}.x", "{}['x']", "{}[0]", "{}[1:]", "{} == 1", "1 == {}", "{} != 'a'", "{} < 1", "{} + 1"),
    *(
        "1 + {}",
        "[1] * {}",
        "-{}",
        "not {}",
        "{} and 1",
        "1 if {} else 2",
        "'a' in {}",
        "{} in [1]",
    ),
    *("[{}] == [1]", "{} ~ 'x'", "'a' % {}", "len({})", "first({})", "str({})", "json({})"),
    *("int({})", "float({})", "abs({})", "round({})", "sum([{}])", "max({}, 1)", "sort([{}, 1])"),
    *("unique([{}])", "join([{}])", "list({})", "keys({})", "values({})", "items({})", "upper({})"),
    *("zip({}, [1])", "chunks({}, 2)", "reverse({})", "range({})", "{} is number", "{} is mapping"),
    *(
        "{} is defined",
        "{} is none",
        "{}.y | default(1)",
        "{'a': {}}.a.x",
        "[1, 2][{}]",
        "{'a': 1}[{}]",
    ),
    *(
        "basename({})",
        "replace({}, 'a', 'b')",
        "split({})",
        "{} == none",
        "{} is string",
        "last({})",
    ),
)


def outcome_of(source: str, value: Any) -> Any:
    """Return the type and the value that an expression has with that, or that it is refused."""
    try:
        made = evaluate(
            "${{ " + source.replace("{}", "jobs.trap.result") + " }}", results={"trap": value}
        )
    except WorkflowInvalid:
        return "refused"
    return _without_traps(made)


def _without_traps(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_without_traps(item) for item in value]
    if kind is dict:
        return {key: _without_traps(item) for key, item in value.items()}
    if kind.__name__ == "Trap":
        return simplify_top(value)
    return value


@pytest.mark.parametrize("name", TRAPS)
def test_no_code_of_an_object_is_run(name: str) -> None:
    for source in SOURCES:
        try:
            text = source.replace("{}", "jobs.trap.result")
            value_of(text, trap=TRAPS[name]())
        except WorkflowInvalid:
            continue


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: trap(str, "abc"), "abc"),
        (lambda: trap(int, 3), 3),
        (lambda: trap(float, 1.5), 1.5),
        (lambda: trap(bytes, b"abc"), b"abc"),
        (trapped_list, [1, 2]),
        (trapped_dict, {"a": 1}),
        (lambda: trap(tuple, (1, 2)), (1, 2)),
        (lambda: trap(frozenset, {1, 2}), frozenset({1, 2})),
    ],
    ids=["str", "int", "float", "bytes", "list", "dict", "tuple", "frozenset"],
)
def test_a_subclass_of_a_plain_type_counts_as_that(make: Callable[[], Any], plain: Any) -> None:
    for source in SOURCES:
        ours, expected = outcome_of(source, make()), outcome_of(source, plain)
        assert (type(ours), ours) == (type(expected), expected), source


def test_a_field_that_a_property_replaces_is_read_from_what_is_held() -> None:
    overridden = type("Overridden", (Pair,), {"left": property(fail)})(3)
    assert value_of("jobs.a.result.left", a=overridden) == 3
    computing = dataclasses.make_dataclass("Computing", ["x"])(4)
    type(computing).x = property(fail)
    assert "holds nothing in its field" in refusal_of("jobs.a.result.x", a=computing).message


def test_an_instant_with_a_time_zone_of_somebodys_own_is_no_plain_data() -> None:
    class Zone(tzinfo):
        utcoffset = tzname = dst = fail

    instant = datetime(2026, 1, 1, tzinfo=Zone())
    for source in ("@a == @a", "@a - @hour", "'' ~ @a", "@a and 1"):
        assert refusal_of(short(source), a=instant).code == "FQ305"
    assert value_of(short("@a == @a"), a=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))))


def test_modules_and_functions_stay_closed() -> None:
    for value in (types, fail, type, Point.double, print, Point().__init__):
        for source in ("@a.__dict__", "@a.fget", "@a.__globals__", "@a == 1", "@a ~ ''", "len(@a)"):
            assert refusal_of(short(source), a=value).code == "FQ305"


def test_numpy_is_not_imported_for_expressions() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from flowq.expressions import evaluate;"
        "evaluate('${{ jobs.a.result }}', results={'a': object()});"
        "evaluate('${{ jobs.a.result + 1 }}', results={'a': 1});"
        "assert 'numpy' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_and_deep_values_are_bounded(
    count_operations: Callable[[Callable[[], object]], int],
) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    class Rows(list[Any]):
        pass

    values = {
        "deep": deep,
        "wide": [[np.int64(1)] * 1000] * 1000,
        "rows": Rows([Rows([Kind.A] * 1000)] * 1000),
        "points": [Point()] * 200_000,
        "digits": Decimal("1" * 100_000),
    }
    sources = {
        "deep": ("@ == 1", "'' ~ @"),
        "wide": ("@ == 1",),
        "rows": ("'' ~ @",),
        "points": ("'' ~ @", "zip(@, @)"),
        "digits": ("@ + 1", "@ * @"),
    }
    for name in values:
        for source in sources[name]:
            text = short(source.replace("@", f"@{name}"))
            operations = count_operations(lambda text=text: refusal_of(text, **values))
            assert operations < 10_000_000, text
