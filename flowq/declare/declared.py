"""The jobs that decorators leave behind: functions still, and handles of what they will return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from flowq import spec
from flowq.declare.handles import Handle, JobHandles, holds_handle, to_argument
from flowq.errors import Where

P = ParamSpec("P")
R = TypeVar("R")


class Declarer(Protocol):
    """The workflow that a job belongs to."""

    name: str

    def bind(self, job: JobHandles, arguments: Mapping[str, Any]) -> None:
        """Say with which arguments a job runs."""


class DeclaredJob(JobHandles, Generic[P, R]):
    """A function that is a job of a workflow: called, it is the function it was.

    `result` stands for what it will return in a run (`results` for a group), and `bind` says with
    which arguments it runs.
    """

    def __init__(self, function: Callable[P, R], name: str, workflow: Declarer) -> None:
        self._function = function
        self._workflow = workflow
        self._default_by_parameter = _find_handles(function)
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
        """Say with which arguments the job runs; handles become expressions. Returns the job."""
        self._workflow.bind(self, arguments)
        return self

    def _refuse_handles(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        signature = inspect.signature(self._function)
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return  # Python says it when the function is called
        handle_by_name = self._default_by_parameter
        missing = [
            p
            for p in signature.parameters.values()
            if p.name not in given and (p.name in handle_by_name or _is_required(p))
        ]
        if handles := [handle_by_name[p.name] for p in missing if p.name in handle_by_name]:
            error = _missing(getattr(self._function, "__qualname__", self.name), missing)
            known_as = ", ".join(str(to_argument(handle)) for handle in handles)
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
        """Say with which arguments the job runs. Returns the job."""
        self._workflow.bind(self, arguments)
        return self


class DeclaredCommand(JobHandles):
    """A shell command that is a job of a workflow."""

    def __init__(self, name: str, workflow: Declarer) -> None:
        self.name = name
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<command {self.name} of workflow {self._workflow.name}>"


class NestedJob(JobHandles):
    """A workflow that is a job of another one; its result are its outputs by name."""

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
    """What has been said about one job so far. Shape: `function` is None for what calls none."""

    job: JobHandles
    function: Any
    where: Where
    options: dict[str, Any]
    call: str = ""
    workflow: str = ""
    nested: Callable[[], spec.Workflow] | None = None
    with_: dict[str, Any] = field(default_factory=dict)
    replaceable: frozenset[str] = frozenset()

    @property
    def deferred(self) -> bool:
        """Whether it is a future job."""
        return bool(self.options.get("deferred"))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments, with those that a group's item gives to parameters of its name."""
        if self.function is None:
            return self.with_
        names = [*_given_by_items(self.options)]
        free = [name for name in _find_free(self.function) if name not in self.with_]
        own = {name: handle.text for name, handle in names if name in free}
        return {**self.with_, **own}


def _given_by_items(options: Mapping[str, Any]) -> list[tuple[str, Handle]]:
    if options.get("for_each") is not None:
        return [("item", Handle("item")), ("index", Handle("index"))]
    axes = options.get("matrix") or {}
    return [(name, Handle(f"matrix.{name}")) for name in axes]


def _find_free(function: Any) -> list[str]:
    """Return the parameters that have no default."""
    return [
        p.name for p in _parameters(function) if _is_required(p) and p.kind is not p.POSITIONAL_ONLY
    ]


def _is_required(parameter: inspect.Parameter) -> bool:
    is_several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not is_several


def _find_handles(function: Any) -> dict[str, Any]:
    """Return the parameters whose default only a run knows, with these defaults."""
    return {p.name: p.default for p in _parameters(function) if holds_handle(p.default)}


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables of C do not tell
        return []
