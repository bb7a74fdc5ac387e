"""The inputs of a run: convert and check given values by the types that the workflow declares.

A text is converted, because `-i name=value` can give nothing else. Any other value, from Python,
must be of the declared type already.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowq.errors import Problem, WorkflowInvalid
from flowq.nearest import did_you_mean
from flowq.patterns import PatternRefused, is_match
from flowq.problems import BAD_INPUT, MISSING_INPUT, UNDECLARED_INPUT
from flowq.spec import Input, Places, Workflow

MAX_DEPTH = 64
"""Levels of lists and maps in an input of type json."""

TEXT_TYPES = frozenset({"str", "path", "enum"})
"""The types whose values are texts: a number or a flag in YAML keeps its spelling."""

_BITS_SHOWN = 1_000
_INT = re.compile(r"[+-]?[0-9]{1,1000}")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})

EXAMPLE_BY_TYPE: Mapping[str, str] = {
    "str": "text",
    "int": "42",
    "float": "0.5",
    "bool": "true",
    "path": "folder/file.txt",
    "list": "a,b,c",
    "json": '{"key": [1, 2]}',
}
"""A valid value of each type, as written after `-i name=`."""


def resolve_inputs(
    workflow: Workflow, given: Mapping[str, object], passed_by: str = ""
) -> dict[str, Any]:
    """Return the value of every declared input: the given one, or the default.

    `passed_by` is the job that passes them to a nested workflow, for hints.

    Shape: plain data by name, in the order of declaration; None for an optional input without a
    default that was not given. Errors: WorkflowInvalid with all problems.
    """
    owner = f"the workflow {workflow.name}"
    return resolve(workflow.inputs, given, owner, workflow.places, passed_by)


def resolve(
    inputs: Sequence[Input],
    given: Mapping[str, object],
    owner: str,
    places: Places | None = None,
    passed_by: str = "",
) -> dict[str, Any]:
    """Return the values of declared inputs, those of a workflow or an approval: see above."""
    places = places or Places()
    names = [declared.name for declared in inputs]
    problems = [_unknown(owner, each, names, places) for each in given if each not in names]
    values: dict[str, Any] = {}
    for declared in inputs:
        try:
            values[declared.name] = _resolve(declared, given)
        except _Unfit as unfit:
            where = places.find("inputs", declared.name)
            hint = _advise(declared, passed_by, is_missing=unfit.code == MISSING_INPUT)
            problems.append(Problem(unfit.code, unfit.message, where, hint, input=declared.name))
    if problems:
        raise WorkflowInvalid(problems)
    return values


def convert(declared: Input, value: object) -> Any:
    """Return a value in the type of an input. Errors: ValueError with the reason if it cannot.

    Idempotent, except for texts in inputs of type json.
    """
    return _CONVERT[declared.type](declared, value)


class _Unfit(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def _resolve(declared: Input, given: Mapping[str, object]) -> Any:
    if declared.name not in given:
        if declared.required:
            raise _Unfit(MISSING_INPUT, f"the input {declared.name} is required and was not given")
        return declared.default
    value = given[declared.name]
    if value is None and not declared.required:
        return None
    try:
        return convert(declared, value)
    except ValueError as error:
        raise _Unfit(BAD_INPUT, f"the input {declared.name} {error}") from None


def _unknown(owner: str, name: str, names: Sequence[str], places: Places) -> Problem:
    hint = did_you_mean(name, names) or "it has no inputs"
    return Problem(UNDECLARED_INPUT, f"{owner} has no input {name!r}", places.find("inputs"), hint)


def _advise(declared: Input, passed_by: str, *, is_missing: bool) -> str:
    if declared.pattern is not None and not is_missing:
        return f"the whole text must match {declared.pattern}"
    if declared.pattern is not None:
        where = f"under `with` of {passed_by}" if passed_by else f"as -i {declared.name}=…"
        return f"give it {where}; the whole text must match {declared.pattern}"
    if declared.type == "enum":
        value = next(iter(declared.choices), "")
    else:
        value = EXAMPLE_BY_TYPE[declared.type]
    if passed_by:
        return f"under `with` of {passed_by}, for example: {declared.name}: {value}"
    quoted = f"'{value}'" if " " in value or '"' in value else value
    return f"for example: -i {declared.name}={quoted}"


# Conversion, one function per type. The messages go on after "the input x …".


def _to_str(declared: Input, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_say(value)}")
    return _matched(declared, value)


def _matched(declared: Input, text: str) -> str:
    try:
        if declared.pattern is None or is_match(declared.pattern, text):
            return text
    except PatternRefused as refused:
        raise ValueError(f"cannot be matched with {declared.pattern}: {refused}") from None
    raise ValueError(f"must match {declared.pattern}, and {_say(text)} does not")


def _to_path(declared: Input, value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise ValueError(f"must be a path, not {_say(value)}")
    if not path or "\0" in path:
        raise ValueError(f"must be a path, and {path!r} is not one")
    return _matched(declared, path)


def _to_int(declared: Input, value: object) -> int:
    if isinstance(value, str) and _INT.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {_say(value)}")
    return value


def _to_float(declared: Input, value: object) -> float:
    number = value
    if isinstance(value, str):
        try:
            number = None if "_" in value else float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"must be a number, not {_say(value)}")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, not {_say(value)}")
    return number


def _to_bool(declared: Input, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError(f"must be true or false, not {_say(value)}")


def _to_list(declared: Input, value: object) -> list[Any]:
    if isinstance(value, str):  # `a,b,c`, whose items are texts, or a JSON array
        text = value.strip()
        if not text.startswith("["):
            return [item.strip() for item in text.split(",")] if text else []
        items = _parse_json(text)
        assert isinstance(items, list)  # JSON that begins with a bracket is an array
        return items
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, not {_say(value)}")
    return list(_to_plain(value))


def _to_json(declared: Input, value: object) -> Any:
    return _parse_json(value) if isinstance(value, str) else _to_plain(value)


def _parse_json(text: str) -> Any:
    try:
        return _to_plain(json.loads(text, parse_constant=_refuse_constant))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"is not JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        if "int_max_str_digits" not in str(error):
            raise
        raise ValueError("holds a number of more than 4,300 digits") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"is not JSON: JSON has no {name}")


def _to_plain(value: object, depth: int = 0) -> Any:
    """Return a copy of data that consists of JSON's types."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_to_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _to_plain(item, depth + 1) for key, item in value.items()}
    raise ValueError(f"must be plain data, but it contains {_say(value)}")


def _to_enum(declared: Input, value: object) -> str:
    if isinstance(value, str) and value in declared.choices:
        return value
    choices = ", ".join(declared.choices)
    raise ValueError(f"must be one of {choices}, not {_say(value)}")


def _say(value: object) -> str:
    if isinstance(value, str):
        return f"{value!r}" if len(value) <= 60 else f"{value[:59]!r}…"
    if isinstance(value, int) and value.bit_length() > _BITS_SHOWN:
        return "a number of very many digits"
    if value is None or isinstance(value, bool | int | float):
        return f"{value!r:.60}"
    words: dict[type, str] = {list: "a list", tuple: "a list", dict: "a map"}
    return words.get(type(value), f"a value of type {type(value).__name__}")


_CONVERT: Mapping[str, Callable[[Input, object], Any]] = {
    "str": _to_str,
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "path": _to_path,
    "list": _to_list,
    "json": _to_json,
    "enum": _to_enum,
}
