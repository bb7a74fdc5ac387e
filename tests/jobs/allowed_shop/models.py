"""Classes that data may be made of."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple


class Color(enum.Enum):
    """A colour."""

    RED = "red"


@dataclass
class Order:
    """An order."""

    number: int
    color: Color = Color.RED

    class Line(NamedTuple):
        """A line of it."""

        text: str

    def pay(self) -> int:
        """Pay it."""
        return self.number

    @classmethod
    def make(cls, number: int) -> int:
        """Make one."""
        return cls(number).number


class Special(PurePosixPath):
    """A class with methods of another module."""


class Refused(ValueError):
    """An exception of the shop."""


Pair = namedtuple("Pair", "a b")


def function(*arguments: Any) -> Any:
    """A function, which is nothing that data is made of."""
    raise AssertionError(arguments)
