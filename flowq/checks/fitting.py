"""Whether a value fits an input, as far as it is known before anything has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowq.errors import WorkflowInvalid
from flowq.expressions import as_source, evaluate, find_references, is_live
from flowq.expressions.references import Reference, find_whole_reference
from flowq.inputs import EXAMPLE_BY_TYPE, convert
from flowq.spec import Input, InputType, JobSpec, Workflow

_FITTING: Mapping[InputType, frozenset[InputType]] = {
    "int": frozenset({"int", "float", "json"}),
    "float": frozenset({"float", "json"}),
    "bool": frozenset({"bool", "json"}),
    "list": frozenset({"list", "json"}),
}
"""The types of inputs that take every value of a type; a text may hold any, and json is any."""

_WORD_BY_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
}


def find_misfit(
    declared: Input, value: Any, workflow: Workflow, job: JobSpec
) -> tuple[str, str] | None:
    """Return why a value never fits an input that a job passes it to, and what to do; or None.

    `workflow` and `job` say what the expressions in the value stand for. Nothing is said about a
    value that may fit: the result of a job, or a text that only a run knows.
    """
    whole = find_whole_reference(as_source(value)) if isinstance(value, str) else None
    if whole is not None and is_live(value):
        return _of_reference(declared, whole, workflow, job)
    if not find_references(value).roots:
        return _of_value(declared, value)
    if isinstance(value, str):
        return None  # a text with parts, or an expression that is more than a name
    kind: InputType = "list" if isinstance(value, list | tuple) else "json"
    is_map = kind == "json" and declared.type != "json"
    if is_map or (kind == "list" and declared.type not in _FITTING["list"]):
        return f"must be {_say_type(declared)}, not a {'map' if is_map else 'list'}", ""
    return None


def _of_reference(
    declared: Input, whole: Reference, workflow: Workflow, job: JobSpec
) -> tuple[str, str] | None:
    if whole.root == "inputs":
        source = next((each for each in workflow.inputs if each.name == whole.name), None)
        return _of_input(declared, source, whole) if source is not None else None
    for value in _values_of(whole, job):
        if (misfit := _of_value(declared, value)) is not None:
            reason, _ = misfit
            return f"{reason}, which {whole} can be", _hint(declared, str(whole), value)
    return None


def _of_input(declared: Input, source: Input, whole: Reference) -> tuple[str, str] | None:
    if source.type == "enum":
        fits = any(_of_value(declared, choice) is None for choice in source.choices)
        if fits or not source.choices:
            return None
        return f"must be {_say_type(declared)}, not one of {', '.join(source.choices)}", ""
    fitting = _FITTING.get(source.type)
    if fitting is None or declared.type in fitting:
        return None
    reason = f"must be {_say_type(declared)}, and {whole} is {_WORD_BY_TYPE[source.type]}"
    return reason, _hint(declared, str(whole), None)


def _of_value(declared: Input, value: Any) -> tuple[str, str] | None:
    try:
        known = evaluate(value)
        if known is not None or declared.required:
            convert(declared, known)
    except ValueError as error:
        return str(error), _hint(declared, "", value)
    except WorkflowInvalid:  # an expression without a value is a problem of its own
        return None
    return None


def _values_of(whole: Reference, job: JobSpec) -> Iterator[Any]:
    """Yield what `item` or `matrix.NAME` stands for, where that is written out."""
    values: Any = ()
    if whole.root == "item" and job.for_each is not None:
        values = job.for_each.items
    elif whole.root == "matrix" and job.matrix is not None and whole.name:
        values = job.matrix.axes.get(whole.name, ())
    if isinstance(values, list | tuple):
        yield from (value for value in values if not find_references(value).roots)


def _say_type(declared: Input) -> str:
    if declared.type == "enum":
        return f"one of {', '.join(declared.choices)}"
    return {"str": "text", "path": "a path"}.get(declared.type) or _WORD_BY_TYPE[declared.type]


def _hint(declared: Input, source: str, value: Any) -> str:
    if declared.type in ("str", "path", "enum") and source:
        return f"turn it into text: ${{{{ str({source}) }}}}"
    if declared.type in ("str", "path") and isinstance(value, int | float):
        return f"write it as text: {str(value)!r}"
    if declared.type in ("str", "enum") or source:
        return ""
    if declared.pattern is not None:
        return f"the whole text must match {declared.pattern}"
    return f"for example: {declared.name}: {EXAMPLE_BY_TYPE[declared.type]}"
