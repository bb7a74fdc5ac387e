"""Parts of a plan as plain data with named fields and a format number, for other versions.

Parts of a plan are stored in Redis: in the arguments of jobs, in the record of a run, in a
schedule. An older or newer version may execute them, so they are written as lists, mappings and
scalars, without the classes of this package:

    {"flowq": 1, "each": {"items": [1, 2]}, "templates": [{"job_id": …, "name": …}]}

- A field with its default value is left out, and a missing field has its default.
- A reader ignores unknown fields, so a new field that old readers may ignore needs nothing else.
- A field that old readers must not ignore needs a higher number under `flowq` in data that use it.
  A reader refuses a number above its own (`NewerFormat`).

The names are those of the dataclasses in `flowq.plan` and `flowq.spec`. `tests/golden/wire` has
samples written by each release; every later release must read them.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from flowq.errors import NewerFormat
from flowq.plan import Does, Enqueue, Expansion, Nested, flatten, gather
from flowq.spec import Defaults, Input, Places, Retry, Shell

FORMAT = 5
"""The newest format that this version reads."""

USUAL_FORMAT = 1
"""The format of data without fields that readers of format 1 must not ignore."""

COMMAND_LIST_FORMAT = 2
"""The format of a job whose command is a list of arguments."""

HOLD_FORMAT = 2
"""The format of a job that asks for its approval after its own execution evaluated its `if`."""

FINALLY_FORMAT = 2
"""The format of data with jobs under `finally`, which must not run as other jobs do."""

QUOTED_VALUES_FORMAT = 3
"""The format of a command with values within quotes, which older versions would quote again."""

REFUSING_FORMAT = 3
"""The format of a job that may not return a secret."""

RETRIES_FORMAT = 2
"""The format of data with a policy of retries, or with `attempt` in an expression."""

SETTINGS_FORMAT = 4
"""The format of data with settings that are expressions, `else`, or a matrix made of results."""

PAUSES_FORMAT = 4
"""The format of a job that sleeps or polls, or adds jobs that do."""

FIRST_FORMAT = 5
"""The format of a job with `start_when` that reads results, or of one that adds such jobs."""
LIMITS_FORMAT = 4
"""The format of a job with a rate, or of one that adds jobs with limits across runs."""

KEY = "flowq"
"""The key of the format's number."""

T = TypeVar("T")


def to_wire(value: Any) -> dict[str, Any]:
    """Return a value of a plan, such as an `Expansion`, as plain data.

    Values of the user inside, such as arguments and items, are not converted.
    """
    return {KEY: USUAL_FORMAT, **_values_of(type(value)).write(value)}


def from_wire(kind: type[T], data: Any) -> T:
    """Return the value of a plan from plain data.

    A value of that kind is returned unchanged: the first versions pickled values.
    Errors: NewerFormat.
    """
    if isinstance(data, kind):
        return data
    check_format(data)
    value: T = _values_of(kind).read(data)
    return value


def write_inputs(inputs: Sequence[Input]) -> str:
    """Return the inputs of an approval as JSON."""
    return json.dumps([to_wire(each) for each in inputs])


def read_inputs(written: str) -> tuple[Input, ...]:
    """Return the inputs written by `write_inputs`; an older version wrote a number."""
    found = json.loads(written or "[]")
    return tuple(from_wire(Input, each) for each in found) if isinstance(found, list) else ()


def check_format(data: Mapping[str, Any]) -> None:
    """Raise NewerFormat for data that only a newer version understands."""
    needed = data.get(KEY, USUAL_FORMAT)
    if needed > FORMAT:
        raise NewerFormat(needed, FORMAT)


# Types -------------------------------------------------------------------------------------------

_Convert = Callable[[Any], Any]


class _Form(NamedTuple):
    """How values of one type are written and read."""

    write: _Convert
    read: _Convert


def _as_it_is(value: Any) -> Any:
    return value


_PLAIN = _Form(_as_it_is, _as_it_is)


def _form_of(hint: Any) -> _Form:
    """Return how to write and read a field with this type hint."""
    if isinstance(hint, type) and is_dataclass(hint):
        values = _values_of(hint)
        return _Form(values.write, values.read)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        rest = [each for each in arguments if each is not types.NoneType]
        if len(rest) == 1:
            return _form_or_none(_form_of(rest[0]))
        return _TEXT_OR_TEXTS if rest == [str, tuple[str, ...]] else _PLAIN
    if origin is tuple:
        return _form_of_tuple(_form_of(arguments[0]))
    if origin is Mapping:
        return _form_of_mapping(*map(_form_of, arguments), has_names=arguments[0] is str)
    return _PLAIN


_TEXT_OR_TEXTS = _Form(
    lambda value: value if isinstance(value, str) else list(value),
    lambda data: data if isinstance(data, str) else tuple(data),
)


def _form_or_none(inner: _Form) -> _Form:
    if inner is _PLAIN:
        return _PLAIN
    return _Form(
        lambda value: None if value is None else inner.write(value),
        lambda data: None if data is None else inner.read(data),
    )


def _form_of_tuple(inner: _Form) -> _Form:
    if inner is _PLAIN:
        return _Form(list, tuple)
    return _Form(
        lambda value: [inner.write(each) for each in value],
        lambda data: tuple(inner.read(each) for each in data),
    )


def _form_of_mapping(key: _Form, value: _Form, *, has_names: bool) -> _Form:
    """Return the form of a mapping. If its keys are no texts, it is written as a list of pairs."""
    if not has_names:
        return _Form(
            lambda them: [[key.write(k), value.write(v)] for k, v in them.items()],
            lambda data: {key.read(k): value.read(v) for k, v in data},
        )
    if value is _PLAIN:
        return _Form(dict, dict)
    return _Form(
        lambda them: {k: value.write(v) for k, v in them.items()},
        lambda data: {k: value.read(v) for k, v in data.items()},
    )


class _Field(NamedTuple):
    name: str
    default: Any
    form: _Form


class _Values:
    """How the values of one dataclass are written and read."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    @cached_property
    def _fields(self) -> list[_Field]:
        # Not in the constructor: a workflow holds workflows.
        hints = typing.get_type_hints(self._kind)
        return [
            _Field(
                each.name,
                each.default if each.default_factory is MISSING else each.default_factory(),
                _form_of(hints[each.name]),
            )
            for each in fields(self._kind)
            if each.name not in _LEFT_OUT
        ]

    def write(self, value: Any) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, default, form in self._fields:
            found = getattr(value, name)
            if found is default:
                continue
            if name == "does":
                written |= _write_does(found)
            elif not _is_same(found, default):
                written[name] = form.write(found)
        return written

    def read(self, data: Mapping[str, Any]) -> Any:
        values = {name: form.read(data[name]) for name, _, form in self._fields if name in data}
        if self._kind is Enqueue:
            values["does"] = _read_does(data)
        return self._kind(**values)


# `does` is written flat, in the fields that older versions had instead of it.


def _write_does(does: Does) -> dict[str, Any]:
    written = {
        name: _values_of(type(value)).write(value) if name in _PARTS_OF_DOES else value
        for name, value in flatten(does).items()
        if value or name == "outputs"
    }
    return {"call": "", **written}  # older versions need that one, whatever the job does


_PARTS_OF_DOES: dict[str, type[Any]] = {
    "nested": Nested,
    "expansion": Expansion,
    "run": Shell,
    "workflow_retries": Retry,
}


def _read_does(data: Mapping[str, Any]) -> Does:
    read = {
        name: _values_of(kind).read(data[name])
        for name, kind in _PARTS_OF_DOES.items()
        if data.get(name) is not None
    }
    return gather({**data, **read})


_LEFT_OUT = frozenset({"unread"})
"""Fields that are empty in every planned workflow."""


def _is_same(value: Any, default: Any) -> bool:
    kind = type(default)
    if type(value) is not kind:
        return False
    # Values of the user are only checked for being empty: comparing may raise, or take long.
    return value == default if kind in _COMPARABLE else not value and not default


_COMPARABLE = (str, int, float, bool, Defaults, Places)


_known: dict[type[Any], _Values] = {}


def _values_of(kind: type[Any]) -> _Values:
    if kind not in _known:
        _known[kind] = _Values(kind)
    return _known[kind]
