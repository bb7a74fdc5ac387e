"""Values of a Python program as nodes, so that they are read like the text of a file.

`python` turns the arguments of decorators and calls into nodes, and `document` reads them. A handle
becomes the text of its expression, a tuple a list, and a value of the spec (`Retry`, `Approval`, …)
the map that YAML would have. This module refuses only values that cannot become nodes; the reader
checks the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from flowq.declare import job_shapes as job
from flowq.declare.handles import (
    Handle,
    JobHandles,
    plain_text,
    to_source,
    to_template,
)
from flowq.declare.input_shapes import write_input
from flowq.declare.keys import JOB, write_defaults
from flowq.declare.nodes import MAX_DIGITS, ListNode, MapNode, Node, ScalarNode, write_scalar
from flowq.declare.problems import Problems
from flowq.declare.retries import UnknownCause, read_cause
from flowq.declare.workflow_shapes import SCHEDULE
from flowq.errors import Where
from flowq.problems import BAD_RETRY_CAUSE, DOCUMENT_TOO_LARGE, WRONG_SHAPE
from flowq.spec import (
    Approval,
    Concurrency,
    Defaults,
    Input,
    InputType,
    Rate,
    Retry,
    Schedule,
    Tolerance,
)

MAX_DEPTH = 64
# Tuples, because a union would be created anew for each of thousands of values.
_NUMBERS = (bool, int, float)
_LISTS = (list, tuple, range)

_TYPE_BY_PYTHON_TYPE: Mapping[type, InputType] = {
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
    list: "list",
    tuple: "list",
    dict: "json",
    PurePath: "path",
}


class Unreadable(ValueError):
    """A value cannot become a node. Shape: the message continues the name of the key."""

    def __init__(self, message: str, hint: str = "", code: str = WRONG_SHAPE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


@dataclass(frozen=True, slots=True)
class _Written:
    """Plain data of a spec: its texts are templates already, so they are not escaped."""

    data: Any


def key_node(key: str, where: Where) -> ScalarNode:
    """Return the node of a key."""
    return ScalarNode(where.line, where.column, to_source(key), False, 0, None, where.file)


def map_node(where: Where) -> MapNode:
    """Return a map without entries."""
    return MapNode(where.line, where.column, file=where.file)


def input_to_node(value: Any, where: Where) -> Node:
    """Return the declaration of an input as a node. Errors: Unreadable."""
    return to_node(_prepare_input(value), where)


def option_to_node(key: str, value: Any, where: Where) -> Node:
    """Return the value of a key of the language as a node. Errors: Unreadable."""
    prepare = _PREPARE.get(key)
    return to_node(value if prepare is None else prepare(value), where)


def to_node(value: Any, where: Where, depth: int = 0, *, is_written: bool = False) -> Node:
    """Return plain data, which may contain handles, as a node. Errors: Unreadable.

    `is_written` is for data whose texts are templates already.
    """
    if isinstance(value, str):
        text = plain_text(value)
        if is_written or "{{" not in text:
            return ScalarNode(where.line, where.column, text, False, 0, None, where.file)
        source, escaped = to_source(text), to_template(text)
        return ScalarNode(where.line, where.column, source, False, 0, None, where.file, escaped)
    if isinstance(value, _Written):
        return to_node(value.data, where, depth, is_written=True)
    if isinstance(value, Handle):
        text = value.text
        return ScalarNode(where.line, where.column, text, False, 0, None, where.file, text)
    if value is None or isinstance(value, _NUMBERS):
        text = _write_number(value)
        typed = text  # how Python shows it; `text` is how YAML writes it
        if value is None or isinstance(value, bool):
            typed = repr(value)
        elif isinstance(value, float):
            typed = float.__repr__(value)
        return ScalarNode(where.line, where.column, text, True, 0, None, where.file, None, typed)
    if depth == MAX_DEPTH:
        raise Unreadable(f"nests deeper than {MAX_DEPTH} levels", code=DOCUMENT_TOO_LARGE)
    if isinstance(value, _LISTS):
        items = [to_node(item, where, depth + 1, is_written=is_written) for item in value]
        return ListNode(where.line, where.column, items, file=where.file)
    if isinstance(value, Mapping):
        node = map_node(where)
        for key, item in value.items():
            if not isinstance(key, str):
                raise Unreadable(f"has the key {key!r}; the keys of a mapping are texts")
            inner = to_node(item, where, depth + 1, is_written=is_written)
            node.enter(key_node(key, where), inner)
        return node
    raise Unreadable(_refusal(value))


def _write_number(value: bool | float | None) -> str:
    try:
        text = write_scalar(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = ""
    if not text or len(text) > MAX_DIGITS:
        message = f"is a number of more than {MAX_DIGITS:,} digits"
        raise Unreadable(message, "pass it as text", DOCUMENT_TOO_LARGE)
    return text


def _refusal(value: Any) -> str:
    reason = f"is of type {type(value).__name__}; write plain data: text, numbers, lists, mappings"
    if isinstance(value, JobHandles):
        return f"is a job; its value is {value.name}.result"
    return f"{reason}, or str(…) of it" if hasattr(value, "__fspath__") else reason


# Values other than plain data that Python accepts for some keys ----------------------------------


def _written(kind: type, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that writes values of a class as in YAML, and keeps others unchanged."""
    return lambda value: _Written(write(value)) if isinstance(value, kind) else value


def _prepare_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_prepare_name(name): policy for name, policy in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_prepare_name(each) for each in value]
    return _prepare_name(value)


def _prepare_name(value: Any) -> Any:
    if isinstance(value, Handle):
        raise Unreadable(f"names jobs, not their values: leave .result out of {value.text}")
    if isinstance(value, JobHandles):
        return value.name
    if callable(value):
        raise Unreadable(f"takes jobs of this workflow or their names, not {value!r}")
    return value


def _prepare_command(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return [os.fspath(each) if isinstance(each, os.PathLike) else each for each in value]


def _prepare_retries(value: Any) -> Any:
    if isinstance(value, Retry):
        return _Written(job.RETRIES.write(value))
    if isinstance(value, Mapping):
        return {key: _prepare_causes(key, item) for key, item in value.items()}
    if hasattr(value, "intervals") and hasattr(value, "max"):  # RQ's
        intervals = set(value.intervals)
        if len(intervals) > 1:
            raise Unreadable(f"has one backoff in a workflow, not {sorted(intervals)}")
        return {"max": value.max, "backoff": intervals.pop() if intervals else 0}
    return value


def _prepare_causes(key: Any, value: Any) -> Any:
    """Replace exception classes by their names."""
    if key not in ("on", "never_on"):
        return value
    several = value if isinstance(value, list | tuple | set | frozenset) else [value]
    try:
        return [read_cause(each) if isinstance(each, type) else each for each in several]
    except UnknownCause as error:
        raise Unreadable(f"has an `{key}` that {error}", error.hint, BAD_RETRY_CAUSE) from None


def _prepare_approval(value: Any) -> Any:
    if isinstance(value, Approval):
        return _Written(job.APPROVAL.write(value))
    inputs = value.get("inputs") if isinstance(value, Mapping) else None
    return {**value, "inputs": _prepare_inputs(inputs)} if inputs is not None else value


def _prepare_inputs(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _prepare_input(each) for name, each in value.items()}


def _prepare_input(value: Any) -> Any:
    """Return an input as in YAML, from a default, a type, an `Input`, or a mapping as in YAML.

    Values of Python have types, so an input without a type has the type of its default.
    """
    if isinstance(value, Input):
        return _Written(write_input(value))
    if isinstance(value, type):
        return {"type": _name_type(value)}
    if value is None or isinstance(value, os.PathLike):
        value = {"default": value}
    if not isinstance(value, Mapping):
        return value
    words = dict(value)
    kind, default = words.get("type"), words.get("default")
    if isinstance(kind, type):
        words["type"] = _name_type(kind)
    elif kind is None and default is not None and not words.get("choices"):
        words["type"] = _name_type(type(default))
    if isinstance(default, os.PathLike):
        words["default"] = os.fspath(default)
    return words


def _name_type(kind: type) -> str:
    for python_type, name in _TYPE_BY_PYTHON_TYPE.items():
        if issubclass(kind, python_type):
            return name
    raise Unreadable(f"has a type: {', '.join(_TYPE_BY_PYTHON_TYPE.values())}, not {kind!r}")


def _prepare_schedules(value: Any) -> Any:
    write = _written(Schedule, SCHEDULE.write)
    return [write(each) for each in value] if isinstance(value, list | tuple) else write(value)


def _prepare_defaults(value: Any) -> Any:
    if isinstance(value, Defaults):
        return _Written(write_defaults(value))
    if not isinstance(value, Mapping):
        return value
    prepared = {}
    for given, item in value.items():
        key = (plain_text(given) if isinstance(given, str) else str(given)).rstrip("_")
        if item is not None:
            prepared[key] = _PREPARE[key](item) if key in _PREPARE else item
    return prepared


_PREPARE: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("needs", "blocks", "blocked_by", "else"), _prepare_names),
    "run": _prepare_command,
    "retries": _prepare_retries,
    "continue_on_error": _written(Tolerance, job.TOLERANCE.write),
    "approval": _prepare_approval,
    "inputs": _prepare_inputs,
    "defaults": _prepare_defaults,
    "schedule": _prepare_schedules,
    "concurrency": _written(Concurrency, JOB.keys["concurrency"].shape.write),
    "rate": _written(Rate, JOB.keys["rate"].shape.write),
}


def read_retries(value: Any) -> Retry:
    """Return the retries of a job that is enqueued. Errors: ValueError with a message for users."""
    if isinstance(value, Retry):
        return value
    problems, place = Problems(""), Where("", 1, 1)
    found: Retry | None = job.RETRIES.read(
        "retries", option_to_node("retries", value, place), problems
    )
    if problems.found or found is None:
        problem = problems.found[0]
        raise ValueError(f"{problem.message.removeprefix('retries ')}; {problem.hint}".rstrip("; "))
    return found
