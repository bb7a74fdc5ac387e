"""Jobs whose results cannot be kept, each in a way of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rq import Retry, get_current_job


class NeedsTwo(Exception):
    """Can be written, and not be read."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class RaisesWhenWritten:
    """Its pickling raises what is no Exception."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt("not now")


class EatsMemory:
    """Its pickling needs too much."""

    def __reduce__(self) -> Any:
        raise MemoryError


class CannotBeRead(list[int]):
    """A list that raises when its items are asked for."""

    def __iter__(self) -> Iterator[int]:
        raise ValueError("not today")


class Lies(RaisesWhenWritten):
    """Every access raises, even that to its class."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__reduce__", "__reduce_ex__"):
            return super().__getattribute__(name)
        raise ValueError(name)


@dataclasses.dataclass(slots=True)
class Holder:
    """Something with something in it."""

    name: str
    parts: list[Any]


class Pair(NamedTuple):
    """Something with names."""

    left: Any
    right: Any


class Plain:
    """An object that can be kept."""

    def __init__(self, value: Any) -> None:
        self.value = value


def nest(levels: int) -> list[Any]:
    """Return a list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _local() -> Any:
    class Local:
        pass

    return Local()


MAKERS = {
    "lambda": lambda: lambda: 1,
    "module": lambda: {"modules": [json]},
    "open file": lambda: Pair(1, Path(__file__).open()),  # noqa: SIM115
    "lock": lambda: Holder("a", [threading.Lock()]),
    "generator": lambda: {"files": [1, 2, 3, (each for each in ())]},
    "iterator": lambda: [re.finditer("a", "aa")],
    "too deep": lambda: nest(100_000),
    "too large": lambda: {"text": "x" * 51_000_000},
    "raising": lambda: {"a": {1: RaisesWhenWritten()}},
    "no memory": lambda: [EatsMemory()],
    "unreadable": lambda: {"errors": [NeedsTwo("a", "b")]},
    "local class": lambda: [_local()],
    "key": lambda: {"ok": 1, (1, threading.Lock()): 2},
    "in a deque": lambda: deque([1, threading.Lock()]),
    "raising when looked at": lambda: {"a": CannotBeRead([1])},
    "lying": lambda: [Lies()],
    "in an object": lambda: Plain({"x": [json]}),
}


def count_up() -> Iterator[int]:
    """A function that is a generator."""
    yield from range(3)


async def read_later() -> AsyncIterator[int]:
    """The same with async."""
    yield 1


def make(what: str) -> Any:
    """Return that."""
    return MAKERS[what]()


def make_again(what: str) -> Any:
    """Return that at the first attempt, and a number at the second."""
    job = get_current_job()
    assert job is not None
    return MAKERS[what]() if job.connection.incr(f"attempts:{job.id}") == 1 else 7


def ask_for_retry() -> Any:
    """Ask for another attempt at the first."""
    job = get_current_job()
    assert job is not None
    return Retry(max=1) if job.connection.incr(f"attempts:{job.id}") == 1 else "second"


def take(value: Any = None) -> str:
    """Say what has come."""
    return repr(value)


def make_list(what: str) -> list[Any]:
    """Return a list for a group."""
    return [1, MAKERS[what]()]


def make_secret() -> dict[str, Any]:
    """Return a map whose key is a secret."""
    return {os.environ["SECRET"]: threading.Lock()}


def number() -> int:
    """Return something that can be kept."""
    return 7


def change(job: Any, connection: Any, result: Any) -> None:
    """A success callback that changes the result."""
    result.append("changed")


def spoil(job: Any, connection: Any, result: Any) -> None:
    """A success callback after which the result cannot be read any more."""
    result.append(NeedsTwo("a", "b"))


def make_items() -> list[Any]:
    """Return a list."""
    return [1]
