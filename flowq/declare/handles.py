"""Handles: what stands in Python code for a value that only a run knows.

A handle is an expression. It becomes its text, `${{ jobs.list_photos.result }}`, when a workflow is
declared; until then text that was made of it, as in `f"{flow.inputs.folder}/a"`, carries an
invisible mark, so that a literal `${{` in somebody's data is not taken for an expression.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from flowq.errors import UsageError

MARK = "\u2060"  # WORD JOINER: it has no width, and no place between $ and {{ in anybody's text

_LITERAL_OPENING = re.compile(r"(?<!\$)\$+\{\{")
_MARKED_OPENING = re.compile(r"(?<!\$)(\$*)\$" + MARK + r"\{\{")


class Handle:
    """A value that only a run knows: an input, or the result of a job.

    It can be passed as an argument, subscripted (`count.result["words"]`) and put into f-strings.
    It equals another handle, or a text, that says the same expression.
    """

    __slots__ = ("source",)

    def __init__(self, source: str) -> None:
        self.source = source

    @property
    def text(self) -> str:
        """The expression as YAML has it."""
        return f"${{{{ {self.source} }}}}"

    def __repr__(self) -> str:
        return f"<handle {self.text}>"

    def __str__(self) -> str:
        return f"${MARK}{{{{ {self.source} }}}}"

    def __format__(self, format_spec: str) -> str:
        if format_spec:
            raise UsageError(f"{self.text} has no value yet, so {format_spec!r} cannot format it")
        return str(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self.source == other.source
        return self.text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __getitem__(self, key: str | int) -> Handle:
        return Handle(f"{self.source}[{json.dumps(key, ensure_ascii=False)}]")

    def __add__(self, other: object) -> NoReturn:
        self._refuse_sum()

    def __radd__(self, other: object) -> NoReturn:
        self._refuse_sum()

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it refuses
        self._refuse("decide on it")

    def __iter__(self) -> NoReturn:
        self._refuse("loop over it")

    def __len__(self) -> NoReturn:  # noqa: PLE0303 - it refuses
        self._refuse("take its length")

    def _refuse_sum(self) -> NoReturn:
        raise UsageError(
            f"{self.text} is known only in a run, so the declaration cannot add to it; "
            'put it into an f-string for text, or write flow.expression("… + …")'
        )

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"{self.text} is known only in a run, so the declaration cannot {what}; "
            "pass it to a job and do it in the job's function"
        )


class Names:
    """Values by name as handles: `flow.inputs.folder`, `flow.matrix["python"]`.

    Nothing is declared by this; whether there is such a name is checked with the workflow.
    """

    __slots__ = ("_root",)

    def __init__(self, root: str) -> None:
        self._root = root

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Handle(f"{self._root}.{name}")

    def __getitem__(self, name: str) -> Any:
        if name.isidentifier():
            return Handle(f"{self._root}.{name}")
        return Handle(f"{self._root}[{json.dumps(name, ensure_ascii=False)}]")


class JobHandles:
    """What stands for a job of a workflow, and for what it will have left in a run."""

    name: str

    @property
    def result(self) -> Any:
        """The handle of the job's result: `${{ jobs.NAME.result }}`."""
        return Handle(f"jobs.{self.name}.result")

    @property
    def results(self) -> Any:
        """The handle of a group's results, in the order of its items."""
        return Handle(f"jobs.{self.name}.results")

    @property
    def outcomes(self) -> Any:
        """The handle of how the items of a group ended: item, status, result, error …"""
        return Handle(f"jobs.{self.name}.outcomes")

    @property
    def by_key(self) -> Any:
        """The handle of a group's results by key: `tests.by_key["linux"]`."""
        return Handle(f"jobs.{self.name}.by_key")

    @property
    def approval(self) -> Any:
        """The handles of what the approval of the job gave: `publish.approval.version`."""
        return Names(f"jobs.{self.name}.approval")

    @property
    def status(self) -> Any:
        """The handle of how the job ended."""
        return Handle(f"jobs.{self.name}.status")

    @property
    def error(self) -> Any:
        """The handle of a single job's error: `a.error["type"]`, `a.error["message"]`."""
        return Handle(f"jobs.{self.name}.error")

    @property
    def exit_code(self) -> Any:
        """The handle of the exit code of a shell job."""
        return Handle(f"jobs.{self.name}.exit_code")

    @property
    def attempts(self) -> Any:
        """The handle of how often a single job was started."""
        return Handle(f"jobs.{self.name}.attempts")


def to_source(text: str) -> str:
    """Return a text with the marks of handles taken out."""
    return text.replace(MARK, "")


def holds_handle(value: Any) -> bool:
    """Whether a value is a handle, or has one, or text made of one, somewhere inside."""
    if isinstance(value, str):
        return _MARKED_OPENING.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_handle, value.values()))
    return isinstance(value, Handle) or (
        isinstance(value, list | tuple) and any(map(holds_handle, value))
    )


def to_argument(value: Any) -> Any:
    """Return a value as the plain data of a spec: handles as their text, literals escaped.

    Shape: new lists and dicts; tuples become lists. Errors: ValueError, with a sentence, for what
    is no plain data.
    """
    if isinstance(value, Handle):
        return value.text
    if isinstance(value, str):
        return _to_template(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, list | tuple):
        return [to_argument(item) for item in value]
    if isinstance(value, Mapping):
        return dict(_items(value))
    raise ValueError(_refusal(value))


def _items(value: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(key, str) and (MARK in key or "${{" in key):
            raise ValueError("has a key that holds an expression; only values can")
        if not isinstance(key, str):
            raise ValueError(f"has the key {key!r}; the keys of a mapping are texts")
        yield str(key), to_argument(item)


def _to_template(text: str) -> str:
    """Return a text as the spec has it: what is not marked is a literal."""
    escaped = _LITERAL_OPENING.sub(r"$\g<0>", str(text))
    return _MARKED_OPENING.sub(_to_opening, escaped)


def _to_opening(found: re.Match[str]) -> str:
    # Dollars before an expression would escape it: `f"${price}"` says them as an expression.
    dollars = found.group(1)
    return f"${{{{ '{dollars}' }}}}${{{{" if dollars else "${{"


def _refusal(value: Any) -> str:
    reason = f"is of type {type(value).__name__}; write plain data: text, numbers, lists, mappings"
    if isinstance(value, JobHandles):
        return f"is a job; its value is {value.name}.result"
    return f"{reason}, or str(…) of it" if hasattr(value, "__fspath__") else reason
