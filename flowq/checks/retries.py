"""The rules of `retries`: settings are consistent, and `on` names exception classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flowq.callables import name_exception, names_of_exception
from flowq.checks.calls import explain_import
from flowq.declare.retries import explain_contradiction, is_exit_code
from flowq.errors import Problem
from flowq.graph import Graph
from flowq.problems import NOT_AN_EXCEPTION, RETRIES_CONTRADICT
from flowq.spec import Path, Retry, Workflow

_FIRST_SIGNAL = 129
"""The lowest exit code that stands for a signal: 128 + signal 1."""


def check_retries(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Retry settings are consistent (a warning)."""
    for owner, path, retries in _all(workflow, graph):
        found = explain_contradiction(retries)
        if found is not None:
            message, hint = found
            where = workflow.places.find(*path)
            message = f"the retries of {owner} {message}"
            yield Problem(RETRIES_CONTRADICT, message, where, hint, severity="warning")
    for job in graph:
        if job.retries is None or not job.call:
            continue
        for key, cause in _causes(job.retries):
            if is_exit_code(cause) and int(cause.rpartition("-")[2]) < _FIRST_SIGNAL:
                message = (
                    f"job {job.name} calls a function, which has no exit code: {cause} under "
                    f"`{key}` is meant for `run`"
                )
                hint = "name exceptions; a process that was killed has 137"
                where = workflow.places.find("jobs", job.name, "retries", key)
                yield Problem(RETRIES_CONTRADICT, message, where, hint, severity="warning")


def check_causes(
    workflow: Workflow, graph: Graph, find_callable: Callable[[str], Callable[..., object]]
) -> Iterator[Problem]:
    """Yield what is wrong with the exception classes that retries name, which are imported."""
    for owner, path, retries in _all(workflow, graph):
        for key, cause in _causes(retries):
            problem = None if is_exit_code(cause) else _explain(cause, find_callable)
            if problem is not None:
                message, hint = problem
                where = workflow.places.find(*path, key)
                yield Problem(NOT_AN_EXCEPTION, f"`{key}` of {owner} {message}", where, hint)


def _all(workflow: Workflow, graph: Graph) -> Iterator[tuple[str, Path, Retry]]:
    if workflow.defaults.retries is not None:
        yield "the defaults", ("defaults", "retries"), workflow.defaults.retries
    for job in graph:
        if job.retries is not None:
            yield f"job {job.name}", ("jobs", job.name, "retries"), job.retries


def _causes(retries: Retry) -> Iterator[tuple[str, str]]:
    yield from (("on", cause) for cause in retries.on)
    yield from (("never_on", cause) for cause in retries.never_on)


def _explain(
    name: str, find_callable: Callable[[str], Callable[..., object]]
) -> tuple[str, str] | None:
    """Return why a name is not the name of an exception class, and a hint; None if it is."""
    try:
        found: Any = find_callable(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        reason, hint = explain_import(error)
        return f"names {name}, which cannot be imported: {reason}", hint
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return (
            f"names {name}, which is not an exception class",
            "name the class of the exception that is raised",
        )
    if name not in names_of_exception(found):
        own = name_exception(found)
        return f"names {name}, which is another name of {own}", f"write {own}"
    return None
