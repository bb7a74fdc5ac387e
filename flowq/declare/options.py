"""The options of a job as they are written in Python, turned into the values of a spec.

Each reader takes what the user wrote and returns the value, or raises ValueError with the rest of
a sentence that begins with the option's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, cast, get_args

from flowq.declare import retries
from flowq.declare.handles import MARK, Handle, JobHandles, to_source
from flowq.durations import parse_duration
from flowq.inputs import convert
from flowq.nearest import did_you_mean
from flowq.patterns import PatternRefused, check_pattern
from flowq.problems import (
    BAD_DEFAULT,
    BAD_DURATION,
    BAD_RETRY_CAUSE,
    RETRIES_OUT_OF_BOUNDS,
)
from flowq.spec import Block, Input, InputType, Retry

FREE = "x-"
"""How the keys begin that are free for a user, wherever there are fixed keys."""

MAX_DURATION_S = 3650 * 86_400

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""The default of an input that has none."""

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
    """A value that breaks a rule with a code of its own."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def read_text(value: object) -> str:
    """Read an option that is a text."""
    if not isinstance(value, str):
        raise ValueError(f"is a text, not {value!r}")
    return str(value)


def read_fixed_text(value: object) -> str:
    """Read a text in which nothing is filled in."""
    text = read_text(value)
    if "${{" in to_source(text):
        raise ValueError(f"is fixed text, without expressions, not {to_source(text)!r}")
    return text


def read_description(value: object) -> str:
    """Read a text that may show what an expression looks like; a handle would not be filled in."""
    text = read_text(value)
    if MARK in text:
        raise ValueError(f"is fixed text, without handles, not {to_source(text)!r}")
    return text


def read_mapping(value: object) -> Mapping[str, Any]:
    """Read an option that is a mapping with texts as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"is a mapping of texts to values, not {value!r}")
    return value


def read_duration(value: object) -> float:
    """Read a duration. Units: the answer is in seconds."""
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise Unreadable(str(error), BAD_DURATION) from None
    if seconds > MAX_DURATION_S:
        raise Unreadable(f"is at most 3650d, not {value!r}", BAD_DURATION)
    return seconds


def read_timeout(value: object) -> float:
    """Read a duration that is not zero. Units: the answer is in seconds."""
    seconds = read_duration(value)
    if seconds == 0:
        raise Unreadable("is more than nothing; leave it out for the default", BAD_DURATION)
    return seconds


def read_retries(value: Any) -> Retry:
    """Read `3`, `{"max": 3, "backoff": "2s", …}`, our Retry or RQ's with one interval."""
    if isinstance(value, Retry):
        return value
    if isinstance(value, Mapping):
        refuse_unknown(value, _WORDS_OF_RETRIES)
        return Retry(
            _read_max(value.get("max")),
            read_duration(value.get("backoff", 0)),
            _bounded("factor", retries.read_factor, value.get("factor", 1)),
            read_timeout(value["max_backoff"]) if "max_backoff" in value else None,
            _bounded("jitter", retries.read_share, value.get("jitter", 0)),
            read_timeout(value["within"]) if "within" in value else None,
            _read_causes("on", value.get("on", ())),
            _read_causes("never_on", value.get("never_on", ())),
        )
    if hasattr(value, "intervals") and hasattr(value, "max"):
        intervals = set(value.intervals)
        if len(intervals) > 1:
            raise ValueError(f"has one backoff in a workflow, not {sorted(intervals)}")
        return Retry(_read_max(value.max), read_duration(intervals.pop() if intervals else 0))
    return Retry(_read_max(value))


_WORDS_OF_RETRIES = (
    *("max", "backoff", "factor", "max_backoff", "jitter", "within", "on", "never_on"),
)


def _read_max(value: object) -> int:
    count = read_count(value)
    if count > retries.MAX_RETRIES:
        raise Unreadable(
            f"is at most {retries.MAX_RETRIES:,}, not {count:,}", RETRIES_OUT_OF_BOUNDS
        )
    return count


def _bounded(name: str, read: Callable[[object], float], value: object) -> float:
    try:
        return read(value)
    except ValueError as error:
        raise Unreadable(f"has a {name} that {error}", RETRIES_OUT_OF_BOUNDS) from None


def _read_causes(name: str, value: Any) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(retries.read_cause, _several(value))))
    except retries.UnknownCause as error:
        raise Unreadable(f"has an `{name}` that {error}; {error.hint}", BAD_RETRY_CAUSE) from None


def read_count(value: object) -> int:
    """Read a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"is a number such as 3, or {{'max': 3, 'backoff': '2s'}}, not {value!r}")
    return value


def is_free(key: str) -> bool:
    """Whether a key is free for what a user likes, such as values with an anchor."""
    return key.startswith(FREE)


def refuse_unknown(given: Iterable[str], known: tuple[str, ...]) -> None:
    """Refuse a key that is not among those that are known, and not free."""
    for key in given:
        if key not in known and not is_free(key):
            raise ValueError(f"has no key {key!r}; {did_you_mean(str(key), known)}")


def read_names(value: Any) -> tuple[str, ...]:
    """Read `needs`: a job, a name, or several of them; no name twice."""
    return tuple(dict.fromkeys(_name(item) for item in _several(value)))


def read_blocks(value: Any) -> tuple[Block, ...]:
    """Read `blocks`: as `needs`, or a mapping with a policy for each edge."""
    if not isinstance(value, Mapping):
        return tuple(Block(name) for name in read_names(value))
    return tuple(Block(_name(key), _read_edge_policy(policy)) for key, policy in value.items())


def _read_edge_policy(value: Any) -> Any:
    policy = value.get("on_failure") if isinstance(value, Mapping) else None
    if value is not None and (policy != "ignore" or len(value) != 1):
        raise ValueError(f"has one policy for an edge, {{'on_failure': 'ignore'}}, not {value!r}")
    return policy


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple | set | frozenset) else (value,)


def _name(value: Any) -> str:
    if isinstance(value, Handle):
        raise ValueError(f"names jobs, not their values: leave .result out of {value.text}")
    if isinstance(value, str):
        return value
    if not isinstance(value, JobHandles):
        raise ValueError(f"takes jobs of this workflow or their names, not {value!r}")
    return str(value.name)


def read_input(
    name: str,
    kind: Any = None,
    default: Any = REQUIRED,
    description: str = "",
    choices: Iterable[str] = (),
    pattern: str | None = None,
) -> Input:
    """Read the declaration of an input; its type follows from its default when it says none."""
    allowed = tuple(read_text(choice) for choice in choices)
    read = _read_type(kind, default, allowed)
    if bool(allowed) != (read == "enum"):
        raise ValueError(f"is of type {read}; choices and the type enum go together")
    if pattern is not None:
        _check_pattern(pattern, read)
    about = (read_description(description), allowed, pattern)
    declared = Input(name, read, None, default is REQUIRED, *about)
    return declared if declared.required else _with_default(declared, default)


def _check_pattern(pattern: str, kind: InputType) -> None:
    if kind not in ("str", "path", "json"):
        raise ValueError(f"is of type {kind}, and a pattern is for text")
    try:
        check_pattern(read_text(pattern))
    except PatternRefused as refused:
        raise ValueError(f"has a pattern that cannot be used: {refused}") from None


def read_short_input(name: str, value: Any) -> Input:
    """Read an input in the short form: a type, a default, or a mapping with the words of YAML."""
    if isinstance(value, Input):
        return replace(value, name=name)
    if isinstance(value, Mapping):
        known = ("type", "default", "description", "choices", "pattern")
        refuse_unknown(value, known)
        said = {key: item for key, item in value.items() if key in known}
        words = {"kind" if key == "type" else key: item for key, item in said.items()}
        return read_input(name, **words)
    return read_input(name, value) if isinstance(value, type) else read_input(name, default=value)


def _read_type(kind: Any, default: Any, choices: tuple[str, ...]) -> InputType:
    if kind in get_args(InputType):
        return cast(InputType, kind)
    if kind is None and choices:
        return "enum"
    if kind is None:
        kind = str if default is REQUIRED or default is None else type(default)
    if isinstance(kind, type):
        for python_type, name in _TYPE_BY_PYTHON_TYPE.items():
            if issubclass(kind, python_type):
                return name
    raise ValueError(f"has a type: {', '.join(get_args(InputType))}, not {kind!r}")


def _with_default(declared: Input, default: Any) -> Input:
    if default is None or (declared.type == "json" and isinstance(default, str)):
        return replace(declared, default=default)  # a text is data too; JSON text is for -i
    try:
        return replace(declared, default=convert(declared, default))
    except ValueError as error:
        raise Unreadable(f"has a default that {error}", BAD_DEFAULT) from None


def merge_blocks(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return each future job once, with the policy that one of the places says."""
    block_by_name: dict[str, Block] = {}
    for block in blocks:
        if block.name not in block_by_name or block.on_failure is not None:
            block_by_name[block.name] = block
    return tuple(block_by_name.values())
