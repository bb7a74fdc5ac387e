"""Everything that a `call` can name: all kinds of what Python can call, and what it cannot."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any


class Maker:
    """A class with all kinds of functions in it."""

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        """Be an object that can be called."""
        return self.n + x

    def method(self, x: int) -> int:
        """Need an object."""
        return self.n * x

    @classmethod
    def of_class(cls, x: int) -> str:
        """Know the class."""
        return f"{cls.__name__} {x}"

    @staticmethod
    def static(x: int) -> int:
        """Know nothing."""
        return x

    class Inner:
        """A class in a class."""

        @staticmethod
        def deep(x: int) -> int:
            """Be found all the same."""
            return -x

        class Innermost:
            """Deeper still."""

            @classmethod
            def deepest(cls, x: int) -> str:
                """Be found as well."""
                return f"{cls.__qualname__} {x}"


class Derived(Maker):
    """A class that inherits."""


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate without telling the name."""

    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as one should."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def plain(x: int) -> int:
    """Be what most are."""
    return x


nameless = lambda x: [x]  # noqa: E731
instance = Maker(5)
partial = functools.partial(plain, x=9)
without_name = undecorated(plain)
with_name = decorated(plain)
cached = functools.lru_cache(plain)
constant = 3


async def coroutine(x: int) -> int:
    """Wait for something."""
    await asyncio.sleep(0)
    return x


def returns_coroutine(x: int) -> Any:
    """Return what is to be waited for."""
    return coroutine(x)


def generator(x: int) -> Iterator[int]:
    """Execute nothing."""
    yield x


async def async_generator(x: int) -> AsyncIterator[int]:
    """Execute nothing either."""
    yield x


partial_generator = functools.partial(generator, x=9)


class GeneratingMaker:
    """What is called is a generator function."""

    def __call__(self, x: int) -> Iterator[int]:
        """Execute nothing."""
        yield x


generating_instance = GeneratingMaker()
