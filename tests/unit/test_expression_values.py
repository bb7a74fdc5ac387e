"""The values of results in expressions: numbers of all kinds, enumerations, objects with fields."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from flowq.errors import WorkflowInvalid
from flowq.expressions import as_items, decide, evaluate, write
from flowq.expressions.plain import enter
from tests.unit.expression_values import VALUES, Level, Slotted, refusal_of, short, value_of


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Scalars of numpy are Python's.
        ("@int64", 7),
        ("@int64 * 2 + 1", 15),
        ("@int64 > 5 and @true", True),
        ("not @true", False),
        ("@false or 3", 3),
        ("@uint8 + 100", 300),
        ("@float32 / 2", 0.25),
        ("@str_ | upper", "ABC"),
        ("@day == @day1 + @hour * 24", True),
        ("@scalars[1]", 1),
        ("sort(@scalars)", [1, 2.0, 3]),
        ("sum(@scalars)", 6.0),
        ("@scalars == [3, 1, 2]", True),
        ("1 in @scalars", True),
        ("@map.n + 1", 8),
        ("json(@scalars)", "[3, 1, 2.0]"),
        ("range(@int64)[@int64 - 1]", 6),
        ("@int64 is number", True),
        ("@float64 is number", True),
        ("@true is boolean", True),
        # Exact numbers.
        ("@price + @price", Decimal("2.20")),
        ("@price * 3", Decimal("3.30")),
        ("@price > 1 and 1 < @price and @amount == 3", True),
        ("@price / @amount < 1", True),
        ("-@price", Decimal("-1.10")),
        ("@third + @third", Fraction(2, 3)),
        ("@third * 3 == 1", True),
        ("@half + @price", Fraction(8, 5)),
        ("@half < @price", True),
        ("@half ** 2", Fraction(1, 4)),
        ("sum(@prices)", Decimal("0.3")),
        ("max(@prices) < 1", True),
        ("float(@price) + 0.5", 1.6),
        ("int(@amount)", 3),
        ("round(@price, 1)", Decimal("1.1")),
        ("abs(-@third)", Fraction(1, 3)),
        ("@price is number and @third is number", True),
        ("@true + @price", Decimal("2.10")),
        # Enumerations.
        ("@high > @low and @high == 7", True),
        ("@low + 1", 2),
        ("@kind == 'a' and @old_kind == 'a'", True),
        ("@kind ~ 'b'", "ab"),
        ("@kind in ['a', 'b']", True),
        ("@read == 4", True),
        ("sort(@levels)", [1, 7]),
        ("@colour.value", "red"),
        ("@colour.name ~ '!'", "RED!"),
        ("@colour.value == 'red'", True),
        ("@pair_of_colour.value[1]", 2),
        ("@high.name", "HIGH"),
        ("@high.value + 1", 8),
        ("@kind.value", "a"),
        ("@colour == none", False),
        # Declared fields.
        ("@point.x + 1", 5),
        ("@point['x']", 4),
        ("@point.tags[1]", "b"),
        ("@points[1].x", 2),
        ("last(@points).x", 2),
        ("@slotted.x", 5),
        ("@named.left + @named[1]", 5),
        ("@named == [3, 2]", False),  # a tuple is no list, as in Python
        ("len(@named)", 2),
        ("@named_of_points.left.x", 8),
        ("@model.x", 6),
        ("@model.inner.x", 7),
        ("@map.p.x", 1),
        ("@point.nothing | default('none')", "none"),
        ("@point.x is defined and not (@point.y is defined)", True),
        ("@model is none", False),
        ("@model != none", True),
        ("none == @none", True),
        ("len(@points)", 2),
        ("[@point.x, 1]", [4, 1]),
        # Filters over items pass what they do not look at, and read fields as `.x` does.
        ("@points | map('x')", [1, 2]),
        ("[@point, @model] | map('x')", [4, 6]),
        ("@points | select('x', 2) | map('tags')", [["a", "b"]]),
        ("[{'n': 1, 'item': @point}, {'n': 2, 'item': @array}] | select('n', 2) | map('n')", [2]),
        ("[{'n': 1, 'item': @point}] | reject('item.y') | map('item.x')", [4]),
        ("[@array, none] | compact | len", 1),
        ("[{'price': @price}, {'price': none}] | select('price') | len", 1),
        ("[{'kind': @kind}, {'kind': 'z'}] | select('kind', @kind) | len", 1),
        ("[{'n': @int64}] | select('n', 7) | len", 1),
        # Instants, durations.
        ("@day1 < @day2", True),
        ("@day2 - @day1", timedelta(days=30)),
        ("@day2 - @day1 > @hour", True),
        ("@instant == @berlin", True),
        ("@instant + @hour > @berlin", True),
        ("@hour * 2", timedelta(hours=2)),
        ("@hour / @hour", 1.0),
        ("sum([@hour, @hour])", timedelta(hours=2)),
        ("max(@day1, @day2)", date(2026, 1, 31)),
        # The rest.
        ("@bytes == @bytes and len(@bytes) == 3", True),
        ("@set == @set and 'a' in @set", True),
        ("list(@set)", ["a", "b", "c"]),
        ("join(@set, '-')", "a-b-c"),
        ("sort(@numbers, reverse=true)", [3, 2, 1]),
        ("len(@set) + sum(@numbers)", 9),
        ("len(@range)", 3),
        ("@range == [2, 5, 8] and 5 in @range", True),
        ("@huge > 1", True),
        ("@nan == @nan", False),
        ("@path == '/tmp/x y.txt'", True),
        ("@path | stem", "x y"),
        ("@path ~ '.bak'", "/tmp/x y.txt.bak"),
        ("@uuid == '00000000-0000-0000-0000-000000000007'", True),
        ("@ordered.a", 2),
        ("keys(@ordered)", ["b", "a"]),
        ("@counter.a", 2),
        ("@default.a", [1]),
        ("@default.z | default(0)", 0),
        ("@map[5]", "five"),
    ],
)
def test_values_of_results_work_in_expressions(source: str, expected: Any) -> None:
    value = value_of(short(source))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("@price + 1.5", "the Decimal 1.10 and the number 1.5 do not mix: a float is not exact"),
        ("@price > 1.5", "do not mix"),
        ("@third == 0.5", "do not mix"),
        ("0.5 in @prices", "do not mix"),
        ("@prices == [0.1, 0.1, 0.1]", "do not mix"),
        ("sum(@mixed)", "do not mix"),
        ("max(@mixed)", "do not mix"),
        ("sort(@mixed)", "do not mix"),
        ("min(@price, 0.5)", "do not mix"),
        ("@wide + 1", "more than 4,096 bits"),
        ("int(@wide)", "more than 4,096 bits"),
        ("round(@wide)", "more than 4,096 bits"),
        ("@wide == @third", "more than 4,096 bits"),
        ("@third ** 100000", "more than 4,096 bits"),
        ("2 ** @half", "must be a whole number"),
        ("@price / 0", "divides by zero"),
        ("@price % 0", "does not work with"),
        ("@colour == 'red'", "nothing can be computed with Colour.RED"),
        ("@colour and 1", "Colour.RED is neither true nor false"),
        ("@point == @point", "nothing can be computed with a Point"),
        ("@points == [1]", "nothing can be computed with a Point"),
        ("@point and 1", "a Point is neither true nor false"),
        ("@point.double", "is a Point, which declares no field 'double'"),
        ("@point.count", "declares no field 'count'"),
        ("@point.seed", "declares no field 'seed'"),
        ("@point.__class__", "declares no field '__class__'"),
        ("@point.__dict__", "declares no field '__dict__'"),
        ("@point[0]", "of which nothing can be read here"),
        ("@named.count", "declares no field 'count'"),
        ("@named._fields", "declares no field '_fields'"),
        ("@model.computed", "declares no field 'computed'"),
        ("@model.model_fields", "declares no field 'model_fields'"),
        ("@model.model_dump", "declares no field"),
        ("@colour._value_", "declares no field '_value_'"),
        ("@class.x", "of which nothing can be read here"),
        ("@error.args", "is a ValueError, of which nothing can be read here"),
        ("@array[0]", "is an ndarray, of which nothing can be read here"),
        ("@array == 1", "nothing can be computed with an ndarray"),
        ("@array and 1", "an ndarray is neither true nor false"),
        ("len(@array)", "nothing can be computed with an ndarray"),
        ("@nanoseconds > 1", "nothing can be computed with a datetime64"),
        ("@longdouble + 1", "nothing can be computed with a longdouble"),
        ("@instant > @naive", "one of these instants has a time zone"),
        ("@instant == @naive", "one of these instants has a time zone"),
        ("@instant == @day1", "an instant and a date do not mix"),
        ("@day1 + 1", "+ does not work with the date 2026-01-01 and the number 1"),
        ("@day1.year", "of which nothing can be read here"),
        ("@bytes % 1", "% does not format texts"),
        ("@bytes ~ 'x'", "bytes are not text"),
        ("'x' ~ @huge", "a number of so many digits has no text"),
        ("@path / 'x'", "/ does not work with"),
        ("@none.x", "is none, and that has no 'x'"),
        ("sort(@points)", "nothing can be computed with a Point"),
        ("sum(@points)", "nothing can be computed with a Point"),
        ("'' ~ @class", "nothing can be computed with a type"),
        ("join([@error])", "nothing can be computed with a ValueError"),
    ],
)
def test_an_error_tells_the_truth(source: str, words: str) -> None:
    problem = refusal_of(short(source))
    assert words in problem.message


def test_an_error_says_what_to_do_instead() -> None:
    assert "write float(…)" in refusal_of(short("@price + 1.5")).hint
    assert refusal_of(short("@colour == 'red'")).hint == "write .value or .name"
    assert "its fields are x, tags" in refusal_of(short("@point == 1")).hint
    assert refusal_of(short("@slotted.X")).hint == "did you mean 'x'?"
    assert ".tolist()" in refusal_of(short("@array[0]")).hint


def test_what_is_no_scalar_passes_whole() -> None:
    for name in ("array", "point", "points", "named", "model", "colour", "high", "price", "set"):
        assert value_of(f"jobs.{name}.result") is VALUES[name]
    assert type(value_of("jobs.int64.result")) is int
    assert value_of(short("[@array, @point]")) == [VALUES["array"], VALUES["point"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int64", "7"),
        ("float64", "1.5"),
        ("true", "true"),
        ("none", "null"),
        ("price", "1.10"),
        ("third", "1/3"),
        ("colour", "Colour.RED"),
        ("high", "7"),
        ("kind", "a"),
        ("old_kind", "a"),
        ("point", '{"x": 4, "tags": ["a", "b"]}'),
        ("named", "[3, 2]"),
        ("model", '{"x": 6, "inner": {"x": 7, "tags": ["a", "b"]}}'),
        ("map", '{"n": 7, "p": {"x": 1, "tags": ["a", "b"]}, "5": "five"}'),
        ("scalars", "[3, 1, 2.0]"),
        ("prices", '["0.1", "0.1", "0.1"]'),
        ("levels", "[7, 1]"),
        ("set", '["a", "b", "c"]'),
        ("range", "[2, 5, 8]"),
        ("day1", "2026-01-01"),
        ("instant", "2026-01-01 12:00:00+00:00"),
        ("hour", "1:00:00"),
        ("path", "/tmp/x y.txt"),
        ("uuid", "00000000-0000-0000-0000-000000000007"),
        ("nan", "nan"),
    ],
)
def test_values_have_texts(name: str, text: str) -> None:
    assert evaluate(f"<${{{{ jobs.{name}.result }}}}>", results=VALUES) == f"<{text}>"
    assert write(VALUES[name], "x") == text


@pytest.mark.parametrize("name", ["array", "bytes", "huge", "class", "error"])
def test_what_has_no_text_is_refused(name: str) -> None:
    with pytest.raises(WorkflowInvalid):
        write(VALUES[name], "x")


def test_a_condition_is_true_or_false_or_refused() -> None:
    def holds(name: str) -> bool:
        return decide(f"${{{{ jobs.{name}.result }}}}", results=VALUES)

    assert all(map(holds, ["true", "int64", "price", "low", "set"]))
    assert not any(map(holds, ["false", "none"]))
    for name in ("array", "point", "model", "colour"):
        with pytest.raises(WorkflowInvalid, match="is neither true nor false"):
            holds(name)


def test_the_items_of_a_group_are_plain_where_they_can_be() -> None:
    items = as_items(np.array([3, 1]), "x")
    assert items == [3, 1]
    assert [type(item) for item in items] == [int, int]
    assert as_items({"b", "a"}, "x") == ["a", "b"]
    assert as_items({Level.HIGH, Level.LOW}, "x") == [Level.LOW, Level.HIGH]
    assert as_items((VALUES["point"],), "x") == [VALUES["point"]]
    with pytest.raises(WorkflowInvalid, match="have no order"):
        as_items({1, "a"}, "x")
    with pytest.raises(WorkflowInvalid, match="have no order"):
        as_items({Slotted(1)}, "x")


def test_decimals_are_computed_with_as_always_whatever_a_job_has_set() -> None:
    with localcontext() as context:
        context.prec = 2
        assert value_of(short("@price + 100")) == Decimal("101.10")
        assert getcontext().prec == 2


def test_data_frames_pass_whole_and_nothing_else() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2]})
    assert value_of("jobs.frame.result", frame=frame) is frame
    for source in ("@frame['a']", "@frame.a", "len(@frame)", "@frame or 1", "@frame == 1"):
        problem = refusal_of(short(source), frame=frame)
        assert "a DataFrame" in problem.message
        assert ".to_dict()" in problem.hint


def test_enter_leaves_other_things_alone() -> None:
    for value in (1, "a", None, [np.int64(1)], object, VALUES["array"], VALUES["longdouble"]):
        assert enter(value) is value
