"""Values of many kinds, as results of jobs, and short words for expressions that have them."""

from __future__ import annotations

import collections
import dataclasses
import enum
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pydantic
import pytest

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import evaluate


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 7


class Kind(enum.StrEnum):
    A = "a"


class OldKind(str, enum.Enum):  # noqa: UP042 - a StrEnum has another text
    A = "a"


class Rights(enum.IntFlag):
    READ = 4


@dataclasses.dataclass
class Point:
    x: int = 1
    tags: list[str] = dataclasses.field(default_factory=lambda: ["a", "b"])
    count: ClassVar[int] = 9
    seed: dataclasses.InitVar[int] = 0

    @property
    def double(self) -> int:
        raise AssertionError("the property was asked")


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    x: int = 1


class Pair(NamedTuple):
    left: Any
    right: Any = 2


class Model(pydantic.BaseModel):
    x: int
    inner: Point | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> int:
        raise AssertionError("the computed field was asked")


VALUES: dict[str, Any] = {
    "int64": np.int64(7),
    "uint8": np.uint8(200),
    "float32": np.float32(0.5),
    "float64": np.float64(1.5),
    "true": np.bool_(True),
    "false": np.bool_(False),
    "str_": np.str_("abc"),
    "day": np.datetime64("2026-01-02"),
    "nanoseconds": np.datetime64("2026-01-02T00:00:00", "ns"),
    "longdouble": np.longdouble(1.5),
    "array": np.array([1, 2, 3]),
    "scalars": [np.int64(3), np.int64(1), np.float64(2.0)],
    "map": {"n": np.int64(7), "p": Point(), 5: "five"},
    "price": Decimal("1.10"),
    "amount": Decimal(3),
    "third": Fraction(1, 3),
    "half": Fraction(1, 2),
    "wide": Decimal("1E+1000000"),
    "prices": [Decimal("0.1")] * 3,
    "mixed": [Decimal(1), 2.5],
    "colour": Colour.RED,
    "pair_of_colour": Colour.PAIR,
    "low": Level.LOW,
    "high": Level.HIGH,
    "levels": [Level.HIGH, Level.LOW],
    "kind": Kind.A,
    "old_kind": OldKind.A,
    "read": Rights.READ,
    "point": Point(4),
    "points": [Point(1), Point(2)],
    "slotted": Slotted(5),
    "named": Pair(3),
    "named_of_points": Pair(Point(8)),
    "model": Model(x=6, inner=Point(7)),
    "day1": date(2026, 1, 1),
    "day2": date(2026, 1, 31),
    "instant": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "berlin": datetime(2026, 1, 1, 13, tzinfo=ZoneInfo("Europe/Berlin")),
    "naive": datetime(2026, 1, 1, 12),  # noqa: DTZ001 - a value without a zone is meant
    "hour": timedelta(hours=1),
    "bytes": b"abc",
    "set": {"b", "c", "a"},
    "numbers": frozenset({3, 1, 2}),
    "objects": {"p": {Slotted(2)}},
    "range": range(2, 10, 3),
    "huge": 10**5000,
    "nan": float("nan"),
    "path": PurePosixPath("/tmp/x y.txt"),
    "uuid": uuid.UUID(int=7),
    "ordered": collections.OrderedDict(b=1, a=2),
    "counter": collections.Counter("aab"),
    "default": collections.defaultdict(list, {"a": [1]}),
    "none": None,
    "class": Point,
    "error": ValueError("as a value"),
}


def value_of(source: str, **more: Any) -> Any:
    return evaluate(f"${{{{ {source} }}}}", results=VALUES | more)


def refusal_of(source: str, **more: Any) -> Problem:
    with pytest.raises(WorkflowInvalid) as caught:
        value_of(source, **more)
    (problem,) = caught.value.problems
    return problem


def short(source: str) -> str:
    """Write `@x` for `jobs.x.result`."""
    words = source.split("@")
    return words[0] + "".join(
        f"jobs.{(name := _name(word))}.result{word[len(name) :]}" for word in words[1:]
    )


def _name(word: str) -> str:
    return word[: next((at for at, c in enumerate(word) if not (c.isalnum() or c == "_")), None)]
