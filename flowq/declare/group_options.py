"""The options of groups, conditions, commands and runs as they are written in Python.

Readers as those in `options`: the value, or a ValueError with the rest of a sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from flowq.declare.handles import Handle, to_argument, to_source
from flowq.declare.options import (
    Unreadable,
    read_count,
    read_mapping,
    read_short_input,
    read_text,
    read_timeout,
    refuse_unknown,
)
from flowq.expressions import as_source, as_template
from flowq.problems import BAD_NAME
from flowq.spec import (
    ALL_TOLERATED,
    NONE_TOLERATED,
    Approval,
    Concurrency,
    Matrix,
    Schedule,
    Tolerance,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERCENTAGE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")


def read_expression(value: object) -> str:
    """Read one expression: a handle, or a text with braces or without."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | Handle) or value == "":
        raise ValueError(f"is an expression, as a text or a handle, not {value!r}")
    source = as_source(value.text if isinstance(value, Handle) else to_source(value))
    if "${{" in source:
        raise ValueError(f"is one expression, and {source!r} is more; leave the braces away")
    return source


def read_template(value: object) -> str:
    """Read a text, in which handles are filled in."""
    if not isinstance(value, str | Handle) or value == "":
        raise ValueError(f"is a text, not {value!r}")
    return str(to_argument(value))


def read_command(value: object) -> str | tuple[str, ...]:
    """Read a text for a shell, or a list of a program and its arguments."""
    if not isinstance(value, list | tuple):
        return read_template(value)
    words = tuple(map(_read_word, value))
    if not words or not words[0]:
        raise ValueError(f"is a program and its arguments, such as ['ls', '-l'], not {value!r}")
    return words


def _read_word(value: object) -> str:
    if value is None or isinstance(value, list | tuple | Mapping):
        raise ValueError(f"has the item {value!r}; each item is one argument, a text")
    if isinstance(value, bool | int | float):
        return _to_variable(value)
    return str(to_argument(os.fspath(value) if isinstance(value, os.PathLike) else value))


def read_items(value: object) -> Any:
    """Read what there is one job for: a list, or an expression that gives one."""
    if isinstance(value, str) and value.isidentifier():
        raise ValueError(f"is a list or a handle such as list_photos.result, not {value!r}")
    if isinstance(value, str | Handle):
        return as_template(read_expression(value))
    if isinstance(value, list | tuple | range):
        return to_argument(list(value))
    raise ValueError(f"is a list, or a handle such as list_photos.result, not {value!r}")


def read_axes(value: object) -> dict[str, Any]:
    """Read the lists of a matrix by name."""
    return {_axis_name(name): _read_axis(name, axis) for name, axis in read_mapping(value).items()}


def _axis_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Unreadable(f"has the axis {name!r}; letters, digits and _ only", BAD_NAME)
    return name


def _read_axis(name: str, value: object) -> Any:
    if isinstance(value, Handle):
        return value.text
    if not isinstance(value, list | tuple | range):
        raise ValueError(f"has a list for {name}, not {value!r}")
    return to_argument(list(value))


def read_combinations(value: object) -> tuple[dict[str, Any], ...]:
    """Read `include` or `exclude`: a list of mappings, or one."""
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, Mapping) for item in items):
        raise ValueError(f"is a list of mappings such as {{'os': 'linux'}}, not {value!r}")
    return tuple(to_argument(item) for item in items)


def build_matrix(said: Mapping[str, Any]) -> Matrix | None:
    """Return the matrix of a job from the options that were read, or None when it has none."""
    if said.get("matrix") is None and said.get("include") is None:
        return None
    stop_when = said.get("stop_when") if said.get("for_each") is None else None
    combinations = (said.get("include") or (), said.get("exclude") or ())
    return Matrix(said.get("matrix") or {}, *combinations, stop_when)


def read_positive(value: object) -> int:
    """Read a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"is a whole number from 1, not {value!r}")
    return value


def read_flag(value: object) -> bool:
    """Read True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"is True or False, not {value!r}")
    return value


def read_tolerance(value: object) -> Tolerance | None:
    """Read how many failures count as successes: True, a count, or a text such as "20%"."""
    if isinstance(value, Tolerance):
        return value
    if isinstance(value, bool):
        return ALL_TOLERATED if value else NONE_TOLERATED
    if isinstance(value, int) and value >= 0:
        return Tolerance(count=read_count(value))
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found.group(1)) > 100:
        raise ValueError(f"is True, a count, or a text such as '20%', not {value!r}")
    percent = float(found.group(1))
    return Tolerance(percent=int(percent) if percent.is_integer() else percent)


def read_approval(value: object) -> Approval | None:
    """Read whether somebody has to approve the job: True, or what to tell and to ask them."""
    if isinstance(value, Approval):
        return value
    if isinstance(value, bool):
        return Approval() if value else None
    if isinstance(value, str | Handle):
        return Approval(str(to_argument(value)))
    words = read_mapping(value)
    refuse_unknown(words, ("message", "inputs", "expires"))
    message, expires = words.get("message", ""), words.get("expires")
    if not isinstance(message, str | Handle):
        raise ValueError(f"has a message that is a text, not {message!r}")
    inputs = read_mapping(words.get("inputs", {}))
    return Approval(
        str(to_argument(message)),
        None if expires is None else read_timeout(expires),
        tuple(read_short_input(name, each) for name, each in inputs.items()),
    )


def read_environment(value: object) -> dict[str, str]:
    """Read environment variables by name."""
    return {_variable(name): _to_variable(item) for name, item in read_mapping(value).items()}


def _variable(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Unreadable(f"has the variable {name!r}; letters, digits and _ only", BAD_NAME)
    return name


def _to_variable(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str | Handle):
        raise ValueError(f"has texts as values, not {value!r}")
    return str(to_argument(value))


def read_outputs(value: object) -> dict[str, Any]:
    """Read what a workflow results in, by name."""
    return {name: to_argument(item) for name, item in read_mapping(value).items()}


def read_schedule(value: object) -> Schedule:
    """Read when a workflow runs by itself: a cron expression, or a mapping with a `timezone`."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return Schedule(value)
    words = read_mapping(value)
    refuse_unknown(words, ("cron", "timezone"))
    if "cron" not in words:
        raise ValueError("has a `cron`, as in {'cron': '30 2 * * *'}")
    return Schedule(read_text(words["cron"]), read_text(words.get("timezone", "UTC")))


def read_concurrency(value: object) -> Concurrency:
    """Read which runs come one after the other: a group, or a mapping with one."""
    if isinstance(value, Concurrency):
        return value
    if isinstance(value, str | Handle):
        return Concurrency(read_template(value))
    words = read_mapping(value)
    refuse_unknown(words, ("group", "cancel_in_progress"))
    if "group" not in words:
        raise ValueError("has a `group`: runs with the same text come one after the other")
    is_canceling = read_flag(words.get("cancel_in_progress", False))
    return Concurrency(read_template(words["group"]), is_canceling)
