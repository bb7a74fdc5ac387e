"""Views: what is shown of values, bounded, and true about what is not shown."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from rq.timeouts import JobTimeoutException

from flowq.runtime.views import (
    MARK,
    MAX_BYTES,
    MAX_REPR_BYTES,
    Shown,
    make_view,
    to_document,
    to_printable,
    write_view,
)

Point = namedtuple("Point", "x y")


class Size(enum.IntEnum):
    SMALL = 1


class Name(enum.StrEnum):
    ANNA = "anna"


class Colour(enum.Enum):
    RED = 1


@dataclass
class Card:
    number: int
    tags: list[str] = field(default_factory=list)
    code: str = field(default="1234", repr=False)


class Angry:
    def __repr__(self) -> str:
        raise SystemExit("no")


class Endless(Mapping[str, int]):
    """A mapping that says it is small, and never ends."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return (str(number) for number in iter(int, 1))


class Scalar:
    """As numpy's scalars are, without numpy."""

    shape = ()

    def item(self) -> float:
        return 1.5


Scalar.__module__ = "numpy"


def marked(text: str, kind: str) -> dict[str, Any]:
    return {MARK: {"repr": text, "type": kind}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (-3, -3),
        (1.5, 1.5),
        ("é\udce9", "é\udce9"),
        ([1, (2, [])], [1, [2, []]]),
        ({"a": {"b": None}}, {"a": {"b": None}}),
        (OrderedDict(a=1), {"a": 1}),
        (Point(1, 2), [1, 2]),
        (Size.SMALL, 1),
        (Name.ANNA, "anna"),
        (Scalar(), 1.5),
        ([Scalar()], [1.5]),
        (Colour.RED, marked("<Colour.RED: 1>", f"{__name__}.Colour")),
        (float("nan"), marked("nan", "builtins.float")),
        ([float("-inf")], [marked("-inf", "builtins.float")]),
        ({1: "a"}, marked("{1: 'a'}", "builtins.dict")),
        (b"ab", marked("b'ab'", "builtins.bytes")),
        ({1}, marked("{1}", "builtins.set")),
        (set(), marked("set()", "builtins.set")),
        (frozenset({1}), marked("frozenset({1})", "builtins.frozenset")),
        (Decimal("1.5"), marked("Decimal('1.5')", "decimal.Decimal")),
        (Card(1, ["a"]), marked("Card(number=1, tags=['a'])", f"{__name__}.Card")),
        (Angry(), marked("<unprintable: SystemExit>", f"{__name__}.Angry")),
        ({MARK: {"repr": "x"}}, marked(f"{{'{MARK}': {{'repr': 'x'}}}}", "builtins.dict")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_as_json_and_what_json_has_no_word_for_is_marked(
    value: Any, expected: Any
) -> None:
    assert json.loads(write_view(value)) == expected


def make_loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def make_deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("make", "length"),
    [
        (make_loop, 1),
        (make_deep, 1),
        (lambda: "x" * 1_000_000, 1_000_000),
        (lambda: "é" * 5_000, 5_000),
        (lambda: b"x" * 1_000_000, 1_000_000),
        (lambda: list(range(100_000)), 100_000),
        (lambda: dict.fromkeys(range(100_000)), 100_000),
        (lambda: {"body": "x" * 100_000, "status": 200}, 2),
        (lambda: ["x" * 3_000, "y" * 3_000], 2),
        (lambda: 10**5_000, None),
        (lambda: Card(1, ["x" * 10_000] * 1_000), None),
        (Endless, 1),
        (lambda: {"k" * 100_000: 1}, 1),
    ],
)
def test_what_is_too_large_or_too_deep_is_cut_and_says_so(
    make: Callable[[], Any], length: int | None
) -> None:
    text = write_view(make())
    shown = json.loads(text)[MARK]
    assert len(text) <= MAX_BYTES
    assert shown["truncated"] is True
    assert shown.get("length") == length
    assert shown["repr"]
    printed = repr(to_printable(json.loads(text)))
    assert printed.endswith("(cut)" if length is None else f"… (cut; its length is {length:,})")


def test_of_a_long_text_inside_of_something_the_rest_is_seen() -> None:
    view = make_view({"body": "x" * 100_000, "status": 200})
    assert view[MARK]["repr"].endswith("xxx…', 'status': 200}")


def test_what_just_fits_is_whole() -> None:
    assert write_view("x" * (MAX_BYTES - 4)) == json.dumps("x" * (MAX_BYTES - 4))
    assert MARK in write_view("x" * MAX_BYTES)
    assert json.loads(write_view([1] * 2_000)) == [1] * 2_000


def test_a_stranger_inside_takes_no_more_than_its_share() -> None:
    text = write_view([b"x" * 100_000, 1])
    assert json.loads(text)[1] == 1
    assert len(text) <= MAX_REPR_BYTES + 10


@pytest.mark.parametrize("value", ["a secret", ["secret"], {"k": {"secret"}}, {1: "secret"}])
def test_secrets_are_hidden_wherever_they_are(value: Any) -> None:
    text = write_view(value, hide=lambda text: text.replace("secret", "***"))
    assert "***" in text
    assert "secret" not in text


def test_no_half_of_a_secret_is_left_where_a_text_is_cut() -> None:
    secret = "hunter2" * 10
    for before in range(MAX_BYTES - 100, MAX_BYTES, 7):
        text = write_view(
            "-" * before + secret + "-" * MAX_BYTES, hide=lambda text: text.replace(secret, "***")
        )
        assert "hunter2" not in text


def test_a_document_has_the_marked_values_without_the_mark() -> None:
    view = make_view([{"a": {1}}, 2])
    assert to_document(view) == [{"a": {"repr": "{1}", "type": "builtins.set"}}, 2]
    assert repr(to_printable(view)) == "[{'a': {1}}, 2]"


def test_what_is_shown_of_a_job_are_its_arguments_as_they_were_and_its_result() -> None:
    shown, numbers = Shown(), [1]
    shown.keep_arguments({"numbers": numbers})
    numbers.clear()
    assert json.loads(shown.at_end("failed")) == {"arguments": {"numbers": [1]}}
    shown.keep_result(numbers)
    assert json.loads(shown.at_end("finished")) == {"arguments": {"numbers": [1]}, "result": []}
    assert json.loads(shown.at_end("failed")) == {"arguments": {"numbers": [1]}}


class Slow:
    """The timeout of its job comes while its text is made."""

    def __repr__(self) -> str:
        raise JobTimeoutException("too long")


@pytest.mark.parametrize("value", [Slow(), [Slow()], {"a": {Slow()}}])
def test_the_timeout_of_the_job_is_not_lost_in_here(value: Any) -> None:
    with pytest.raises(JobTimeoutException):
        write_view(value)


class Nameless(type):
    """A class that does not even tell its name."""

    def __getattribute__(cls, name: str) -> Any:
        raise KeyError(name)


def test_even_what_has_no_name_has_a_view() -> None:
    view = make_view(Nameless("Thing", (), {})())
    assert view == {MARK: {"repr": "<unprintable>", "type": "", "truncated": True}}


def test_views_need_neither_redis_nor_numpy() -> None:
    code = "import sys; from flowq.runtime import views; views.write_view({'a': 1})\n"
    code += "sys.exit(bool({'redis', 'rq', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
