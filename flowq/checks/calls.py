"""The rules of functions that jobs call: they exist, and accept the arguments passed to them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from inspect import Parameter
from itertools import chain

from flowq.callables import NameMissing, NotCallable, is_generator_function
from flowq.errors import FlowqError, Problem
from flowq.graph import Graph
from flowq.nearest import did_you_mean
from flowq.problems import (
    ARGUMENT_BY_POSITION,
    CANNOT_IMPORT,
    GENERATOR,
    MISSING_ARGUMENT,
    NOT_A_FUNCTION,
    UNKNOWN_ARGUMENT,
)
from flowq.spec import JobSpec, Workflow


def check_functions(
    workflow: Workflow, graph: Graph, find_callable: Callable[[str], Callable[..., object]]
) -> Iterator[Problem]:
    """Yield what is wrong with the functions that the jobs of one workflow call."""
    jobs = [job for job in graph if job.call]
    calls = dict.fromkeys(job.call for job in jobs)
    found_by_call = {call: _look_at(call, find_callable) for call in calls}
    for job in jobs:
        found = found_by_call[job.call]
        if isinstance(found, _Refusal):
            where = workflow.places.find("jobs", job.name, "call")
            yield Problem(found.code, f"job {job.name} {found.message}", where, found.hint)
        elif found is not None:
            for problem, name in chain(
                _positional_only(job, found), _unknown_arguments(job, found)
            ):
                yield replace(problem, where=workflow.places.find("jobs", job.name, "with", name))
            yield from _missing_arguments(workflow, job, found)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a call cannot be made. Shape: the message goes on after "job x …"."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Taken:
    """The parameters of a function, and whether its author can change them."""

    parameters: list[Parameter]
    is_own: bool

    @property
    def takes_all(self) -> bool:
        return any(each.kind is Parameter.VAR_KEYWORD for each in self.parameters)


def _look_at(
    call: str, find_callable: Callable[[str], Callable[..., object]]
) -> _Taken | _Refusal | None:
    """Return the parameters of a function; None if it has no signature (some written in C)."""
    try:
        found = find_callable(call)
    except NotCallable as error:
        message = f"calls {call}, which is of type {error.kind}"
        return _Refusal(NOT_A_FUNCTION, message, "name a function: package.module:function")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        reason, hint = explain_import(error)
        return _Refusal(CANNOT_IMPORT, f"cannot import {call}: {reason}", hint)
    if is_generator_function(found):
        message = f"calls {call}, a generator function: calling it executes nothing"
        return _Refusal(GENERATOR, message, "return a list of what it yields")
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return None
    package = call.partition(":")[0].partition(".")[0]
    is_own = inspect.isroutine(found) and not inspect.isbuiltin(found)
    return _Taken(parameters, is_own and package not in sys.stdlib_module_names)


def explain_import(error: BaseException) -> tuple[str, str]:
    """Return why a name could not be imported, and what may help."""
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = "importable are installed packages, the workflow's folder and the current folder"
    elif isinstance(error, NameMissing):
        public = [name for name in dir(error.obj) if not name.startswith("_")]
        hint = did_you_mean(error.name or "", public)
    if isinstance(error, ImportError | FlowqError | NameMissing):
        return str(error), hint
    return f"importing it raised {type(error).__name__}: {error}".rstrip(": "), hint


_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_METHOD = "it is a method, which needs an object: call a class method, a static one, or a function"


def _missing_arguments(workflow: Workflow, job: JobSpec, taken: _Taken) -> Iterator[Problem]:
    missing = [
        each.name
        for each in taken.parameters
        if each.kind in _BY_NAME and each.default is Parameter.empty and each.name not in job.with_
    ]
    if missing and workflow.is_known(job.name, "with"):
        message = f"job {job.name} does not pass {', '.join(missing)} to {job.call}"
        where = workflow.places.find("jobs", job.name, "with")
        is_method = missing[0] == "self" and "." in job.call.partition(":")[2]
        hint = _METHOD if is_method else f"add it under `with:`, as in {missing[0]}: …"
        yield Problem(MISSING_ARGUMENT, message, where, hint)


def _positional_only(job: JobSpec, taken: _Taken) -> Iterator[tuple[Problem, str]]:
    for parameter in taken.parameters:
        passed = parameter.name in job.with_ and not taken.takes_all
        required = parameter.default is Parameter.empty
        if parameter.kind is Parameter.POSITIONAL_ONLY and (required or passed):
            message = f"{job.call} takes {parameter.name} by position only; `with` passes by name"
            hint = "call a function of your own that passes it on"
            if taken.is_own:
                hint = "take the / out of the function's signature, or call another function"
            yield Problem(ARGUMENT_BY_POSITION, message, hint=hint), parameter.name


def _unknown_arguments(job: JobSpec, taken: _Taken) -> Iterator[tuple[Problem, str]]:
    by_name = [each.name for each in taken.parameters if each.kind in _BY_NAME]
    known = {*by_name}
    known |= {each.name for each in taken.parameters if each.kind is Parameter.POSITIONAL_ONLY}
    for name in () if taken.takes_all else job.with_:
        if name not in known:
            message = f"job {job.name} passes {name}, which {job.call} does not take"
            hint = did_you_mean(name, by_name) or "remove it: it takes no arguments by name"
            yield Problem(UNKNOWN_ARGUMENT, message, hint=hint), name
