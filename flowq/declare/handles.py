"""Handles: Python objects for values that only a run knows.

A handle is an expression. When a workflow is declared, it becomes the text of the expression, `${{
jobs.list_photos.result }}`. Until then, text made of it, as in `f"{flow.inputs.folder}/a"`, has an
invisible mark, so that a literal `${{` in a user's data is not taken for an expression.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar

from flowq import spec
from flowq.declare.nodes import MapNode
from flowq.errors import UsageError, Where

MARK = "\u2060"  # WORD JOINER, which has no width, and never occurs between $ and {{

_MARKED = f"${MARK}{{{{"
_LITERAL_OPENING = re.compile(r"(?<!\$)\$+\{\{")
_MARKED_OPENING = re.compile(r"(?<!\$)(\$*)\$" + MARK + r"\{\{")


class Handle:
    """A value that only a run knows: an input, or the result of a job.

    It can be passed as an argument, subscripted (`count.result["words"]`) and used in f-strings. It
    equals handles and texts with the same expression.
    """

    __slots__ = ("source",)

    def __init__(self, source: str) -> None:
        self.source = source

    @property
    def text(self) -> str:
        """The expression as in YAML."""
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

    This declares nothing; checking the workflow reports unknown names.
    """

    __slots__ = ("_root",)

    def __init__(self, root: str) -> None:
        self._root = root

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Handle(f"{self._root}.{name}")

    def __getitem__(self, name: str) -> Any:
        name = plain_text(name)
        if name.isidentifier():
            return Handle(f"{self._root}.{name}")
        return Handle(f"{self._root}[{json.dumps(name, ensure_ascii=False)}]")


class JobHandles:
    """A job of a workflow, with handles for its result and its other values in a run."""

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
        """The handle of the outcomes of a group's items: item, status, result, error …"""
        return Handle(f"jobs.{self.name}.outcomes")

    @property
    def by_key(self) -> Any:
        """The handle of a group's results by key: `tests.by_key["linux"]`."""
        return Handle(f"jobs.{self.name}.by_key")

    @property
    def approval(self) -> Any:
        """The handles of the inputs of the job's approval: `publish.approval.version`."""
        return Names(f"jobs.{self.name}.approval")

    @property
    def status(self) -> Any:
        """The handle of the job's status."""
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
        """The handle of the number of times that a single job was started."""
        return Handle(f"jobs.{self.name}.attempts")


def plain_text(text: str) -> str:
    """Return the text itself, even for a subclass with another `__str__`, such as an Enum."""
    return str.__str__(text)


def to_source(text: str) -> str:
    """Return a text without the marks of handles."""
    return plain_text(text).replace(_MARKED, "${{")


def holds_handle(value: Any) -> bool:
    """Whether a value is or contains a handle, or text made of one."""
    if isinstance(value, str):
        return _MARKED_OPENING.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_handle, value.values()))
    return isinstance(value, Handle) or (
        isinstance(value, list | tuple) and any(map(holds_handle, value))
    )


def to_template(text: str) -> str:
    """Return a text as a template of the spec: what is not marked is a literal."""

    def write_opening(found: re.Match[str]) -> str:
        # Dollars before an expression would escape it: `f"${price}"` writes them as an expression.
        dollars = found.group(1)
        return f"${{{{ '{dollars}' }}}}${{{{" if dollars else "${{"

    escaped = _LITERAL_OPENING.sub(r"$\g<0>", plain_text(text))
    return _MARKED_OPENING.sub(write_opening, escaped)


# The jobs that decorators return: functions, with handles of their results.


P = ParamSpec("P")
R = TypeVar("R")


class Declarer(Protocol):
    """The workflow that a job belongs to."""

    name: str

    def bind(self, job: JobHandles, arguments: Mapping[str, Any]) -> None:
        """Set arguments of a job."""


class DeclaredJob(JobHandles, Generic[P, R]):
    """A function that is a job of a workflow. Calling it calls the function.

    `result` is the handle of its result in a run (`results` for a group), and `bind` sets its
    arguments.
    """

    def __init__(self, function: Callable[P, R], name: str, workflow: Declarer) -> None:
        self._function = function
        self._workflow = workflow
        self._default_by_parameter = {
            p.name: p.default for p in _parameters(function) if holds_handle(p.default)
        }
        self.name = name
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now.

        Errors: TypeError for an argument that is not given, and whose default is a handle.
        """
        if self._default_by_parameter:
            self._refuse_handles(args, kwargs)
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name} of workflow {self._workflow.name}>"

    def __reduce__(self) -> str:
        return str(self.__dict__["__qualname__"])

    def bind(self, **arguments: Any) -> DeclaredJob[P, R]:
        """Set arguments of the job; handles become expressions. Returns the job."""
        self._workflow.bind(self, arguments)
        return self

    def _refuse_handles(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        signature = inspect.signature(self._function)
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return  # calling the function raises the error
        handle_by_name = self._default_by_parameter
        missing = [
            p
            for p in signature.parameters.values()
            if p.name not in given and (p.name in handle_by_name or _is_required(p))
        ]
        if handles := [handle_by_name[p.name] for p in missing if p.name in handle_by_name]:
            error = _missing(getattr(self._function, "__qualname__", self.name), missing)
            known_as = ", ".join(
                handle.text
                if isinstance(handle, Handle)
                else to_source(handle if isinstance(handle, str) else str(handle))
                for handle in handles
            )
            error.add_note(f"{known_as} has a value in a run only.")
            raise error


def _missing(function: str, parameters: list[inspect.Parameter]) -> TypeError:
    """Return the error that Python raises when these arguments of a function are not given."""
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    kind = "positional" if positional else "keyword-only"
    names = [repr(p.name) for p in positional or parameters]
    several = f"{', '.join(names[:-1])}{',' if len(names) > 2 else ''} and {names[-1]}"
    said = f"argument: {names[0]}" if len(names) == 1 else f"arguments: {several}"
    return TypeError(f"{function}() missing {len(names)} required {kind} {said}")


class DeclaredCall(JobHandles):
    """A function that is named as a text, and is a job of a workflow."""

    def __init__(self, name: str, workflow: Declarer) -> None:
        self.name = name
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<job {self.name} of workflow {self._workflow.name}>"

    def bind(self, **arguments: Any) -> DeclaredCall:
        """Set arguments of the job. Returns the job."""
        self._workflow.bind(self, arguments)
        return self


class DeclaredCommand(JobHandles):
    """A shell command that is a job of a workflow."""

    def __init__(self, name: str, workflow: Declarer) -> None:
        self.name = name
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<command {self.name} of workflow {self._workflow.name}>"


class DeclaredSleep(JobHandles):
    """A pause that is a job of a workflow."""

    def __init__(self, name: str, workflow: Declarer) -> None:
        self.name = name
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<sleep {self.name} of workflow {self._workflow.name}>"


class NestedJob(JobHandles):
    """A workflow that is a job of another workflow; its result is its outputs by name."""

    def __init__(self, name: str, workflow: Declarer) -> None:
        self.name = name
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<nested workflow {self.name} of workflow {self._workflow.name}>"

    def bind(self, **arguments: Any) -> NestedJob:
        """Say which inputs the nested workflow gets. Returns the job."""
        self._workflow.bind(self, arguments)
        return self


@dataclass
class Declaration:
    """What has been said about one job so far. Shape: `function` is None for what calls none.

    `node` has the options by key, `with_` the arguments; `bind` may replace those in `replaceable`.
    `nested` returns the workflow that the job runs.
    """

    job: JobHandles
    function: Any
    where: Where
    node: MapNode
    with_: MapNode
    nested: Callable[[], spec.Workflow] | None = None
    is_final: bool = False
    replaceable: frozenset[str] = frozenset()

    def find_own_arguments(self) -> dict[str, Handle]:
        """Return the arguments that required parameters get from a group's item by their name."""
        if self.function is None:
            return {}
        free = {
            p.name
            for p in _parameters(self.function)
            if _is_required(p) and p.kind is not p.POSITIONAL_ONLY
        }
        sources = {"item": "item", "index": "index"}
        if "for_each" not in self.node.node_by_key:
            matrix = self.node.node_by_key.get("matrix")
            axes = matrix.node_by_key if isinstance(matrix, MapNode) else ()
            sources = {name: f"matrix.{name}" for name in axes}
        return {
            name: Handle(source)
            for name, source in sources.items()
            if name in free and name not in self.with_.node_by_key
        }


def _is_required(parameter: inspect.Parameter) -> bool:
    is_several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not is_several


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables in C have no signature
        return []
