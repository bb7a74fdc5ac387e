"""Serializes results, arguments and items. Errors name the part that cannot be stored.

A value without problems costs no more than its serializer. It is read back only if it contains
objects of classes, because reading plain data cannot fail. The faulty part is searched only after
an error.
"""

from __future__ import annotations

import io
import json
import threading
import types
from collections import deque
from collections.abc import AsyncIterable, Coroutine, Iterator
from typing import Any

from rq.serializers import JSONSerializer, PickleSerializer
from rq.timeouts import BaseTimeoutException

from flowq.errors import Unserializable
from flowq.runtime.unpickling import read_own

MAX_BYTES = 50_000_000
"""The limit of one result, or of the arguments of one job."""

LARGE_BYTES = 1_000_000
"""A larger result leads to a warning in the log."""

_REFERS_TO_CODE = 0x93
"""Pickle's opcode STACK_GLOBAL. A pickle without it imports and calls nothing when it is read. A
number, because searching for bytes takes ten times as long."""

_MAX_PLACE = 50
"""The depth of the search for a faulty part; a deeper one is reported as nested too deeply."""

_MAX_TEXT = 200
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_LOCKS = (type(threading.Lock()), type(threading.RLock()))

Part = tuple[str, Any]


def serialize(value: Any, serializer: Any, name: str = "result") -> bytes:
    """Return a value as bytes that can be read again.

    `name` is the name of the value in messages. Errors: Unserializable, which names the part that
    cannot be stored; timeouts of the job are raised unchanged.
    """
    try:
        data: bytes = serializer.dumps(value)
        if serializer is not PickleSerializer or _REFERS_TO_CODE in data:
            _read_back(data, value, serializer)
    except BaseTimeoutException:
        raise
    except BaseException as error:  # noqa: BLE001 - code of users; RQ keeps a text instead
        told = explain([(name, value)], serializer, error)
        raise told from (error if _is_of_users(error) else None)
    return data


def check_size(size: int, name: str, value: Any) -> None:
    """Raise Unserializable for a value that is too large to store."""
    if size > MAX_BYTES:
        what = f"{_name_type(value)} of {describe_size(size)}"
        hint = f"at most {describe_size(MAX_BYTES)} can be kept; write it to a file, and pass on"
        raise Unserializable(name, what, "it is too large", f"{hint} the path")


def describe_size(size: int) -> str:
    """Return a number of bytes as `12.3 MB`."""
    return f"{size / 1_000_000:.1f} MB".replace(".0 MB", " MB")


def refuse_of_script(parts: list[Part], serializer: Any) -> None:
    """Refuse arguments with objects of classes of `__main__`, which in workers is another module.

    `parts` are values with their names. Errors: Unserializable.
    """
    for place, value in parts if serializer is PickleSerializer else ():
        for name in _list_names_of_script(serializer.dumps(value)):
            raise Unserializable(
                place,
                f"an object of {name}",
                "its class is defined in the script or notebook that was started",
                f"move {name} to a module beside it, and import it",
            )


def _list_names_of_script(data: bytes) -> Iterator[str]:
    """Yield the names in `__main__` to which a pickle refers; it is not loaded."""
    from pickletools import genops  # noqa: PLC0415 - large, and few pickles contain that word

    pushed: list[Any] = [None]
    memo: list[Any] = []
    for opcode, argument, _ in genops(data):
        if opcode.name == "MEMOIZE":
            memo.append(pushed[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            pushed.append(memo[int(str(argument))])
        elif opcode.name == "STACK_GLOBAL" and pushed[-2] == "__main__":
            yield pushed[-1]
        else:
            pushed.append(argument)


def explain(parts: list[Part], serializer: Any, error: BaseException) -> Unserializable:
    """Return an error that names the first of these values that cannot be stored, and its part.

    `parts` are values with their names; `error` is the error of serializing all of them.
    """
    if isinstance(error, MemoryError):  # the search would need as much memory again
        name, value = parts[0]
        return Unserializable(
            name, _name_type(value), "there is not enough memory to write it", _hint(value)
        )
    place, value, steps = "", None, 0
    seen: set[int] = set()
    while found := _find_failing(parts, serializer, seen):
        (step, value), error = found
        place += step
        steps += 1
        if steps > _MAX_PLACE:
            top = place.partition("[")[0].partition(".")[0]
            hint = "keep it flat, or write it to a file and pass on the path"
            return Unserializable(top, _name_type(value), "it is nested too deeply", hint)
        parts = _parts_of(value, serializer)
    if not place:  # the whole value fails, but none of its parts
        place, value = parts[0]
    return Unserializable(place, _name_type(value), _shorten(error), _hint(value, serializer))


def _read_back(data: bytes, value: Any, serializer: Any) -> None:
    if serializer is not JSONSerializer and type(value) not in _SCALARS:
        read_own(data, serializer)


def _is_of_users(error: BaseException) -> bool:
    """Whether user code has raised the error, so that its traceback is useful."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return module.partition(".")[0] not in ("flowq", "json", "rq")


def _find_failing(
    parts: list[Part], serializer: Any, seen: set[int]
) -> tuple[Part, BaseException] | None:
    for step, part in parts:
        if type(part) in _SCALARS and serializer is PickleSerializer:
            continue
        if id(part) in seen:
            continue
        try:
            _read_back(serializer.dumps(part), part, serializer)
        except BaseTimeoutException:
            raise
        except BaseException as error:  # noqa: BLE001 - code of users runs in here
            seen.add(id(part))
            return (step, part), error
    return None


def _parts_of(value: Any, serializer: Any) -> list[Part]:
    """Return the parts of a value; none if its own code raises an error."""
    try:
        return list(_look_inside(value, serializer))
    except BaseTimeoutException:
        raise
    except BaseException:  # noqa: BLE001 - code of users: __iter__, items, __getattribute__
        return []


def _look_inside(value: Any, serializer: Any) -> Iterator[Part]:
    """Yield the parts of a value, each with its path from the value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{_quote(key)}]", item
        for key in value if serializer is not JSONSerializer else ():
            yield f" (its key {_quote(key)})", key
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for name, item in zip(value._fields, value, strict=False):
            yield f".{name}", item
    elif isinstance(value, list | tuple | deque):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield " (one of its items)", item
    elif not isinstance(value, type | types.ModuleType | types.FunctionType):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[Part]:
    for name, item in getattr(value, "__dict__", {}).items():
        yield f".{name}", item
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                yield f".{name}", object.__getattribute__(value, name)
            except AttributeError:
                continue
    if isinstance(value, BaseException):
        yield ".args", value.args


def _quote(key: Any) -> str:
    text = json.dumps(key, ensure_ascii=False) if isinstance(key, str) else _say(key)
    return text if len(text) <= 60 else text[:59] + "…"


def _say(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - code of users
        return f"a {type(value).__name__}"


# Compared with `type(value)`: `value.__class__` may be user code, and wrong.
_KINDS: tuple[tuple[Any, str, str], ...] = (
    (types.GeneratorType, "a generator", "make it a list: list(…)"),
    (io.IOBase, "an open file", "use its path, or what it contains"),
    (types.ModuleType, "a module", "use its name"),
    (_LOCKS, "a lock", "leave it out: it holds within one process only"),
    (Coroutine, "a coroutine", "await it, and use what that gives"),
    (AsyncIterable, "an asynchronous iterator", "collect its items in a list"),
    (Iterator, "", "make it a list: list(…)"),
    (type, "a class", "define the class at the top of a module, or use its name"),
)


def _name_type(value: Any) -> str:
    if type(value) is types.FunctionType:
        return "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__name__}"
    for kind, words, _ in _KINDS:
        if issubclass(type(value), kind) and words:
            return words
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _hint(value: Any, serializer: Any = None) -> str:
    if serializer is JSONSerializer:
        return "the JSON serializer keeps texts, numbers, flags, lists and maps with texts as keys"
    if type(value) is types.FunctionType:
        return "use what it returns, or a function that is defined at the top of a module"
    for kind, _, hint in _KINDS:
        if issubclass(type(value), kind):
            return hint
    if "<locals>" in type(value).__qualname__:
        return f"define {type(value).__name__} at the top of a module"
    return "use plain data: texts, numbers, lists, maps"


def _shorten(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - code of users
        text = ""
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
