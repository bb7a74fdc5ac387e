"""The rules of whole workflows: nested workflows and their inputs, schedules, timeouts.

`flowq.checks.check` calls each rule. Nothing here reads a file: nested workflows have been read
with the outer one. A value is a problem only if it can never fit its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from flowq.cron import find_next
from flowq.durations import write_duration
from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import as_source, evaluate, find_references, is_live
from flowq.expressions.places import find_schedules
from flowq.expressions.references import Reference, find_whole_reference
from flowq.graph import Graph
from flowq.inputs import EXAMPLE_BY_TYPE, convert
from flowq.nearest import did_you_mean, find_nearest, show_name
from flowq.problems import (
    BAD_CRON,
    BAD_NESTED_INPUTS,
    BAD_SCHEDULE_INPUTS,
    CONCURRENCY_OF_NESTED,
    NO_SUCH_WORKFLOW,
    TIMEOUT_TOO_LONG,
    UNKNOWN_TIME_ZONE,
)
from flowq.spec import Input, InputType, JobSpec, Path, Schedule, Workflow


def check_nested(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A nested workflow exists, gets its required inputs, and no others."""
    for job in workflow.jobs:
        if not job.workflow:
            continue
        nested = workflow.workflows.get(job.workflow)
        if nested is not None:
            yield from _check_inputs_of(workflow, job, nested)
        elif workflow.is_whole("workflows", job.workflow) and workflow.is_known(
            job.name, "workflow"
        ):
            where = workflow.places.find("jobs", job.name, "workflow")
            shown = show_name(job.workflow)
            message = f"job {job.name} runs the workflow {shown}, which does not exist"
            hint = did_you_mean(job.workflow, workflow.workflows)
            yield Problem(NO_SUCH_WORKFLOW, message, where, hint or "declare it under `workflows:`")


def check_concurrency(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """`concurrency` is set on the workflow that is run (a warning)."""
    for job in workflow.jobs:
        nested = workflow.workflows.get(job.workflow)
        if nested is not None and nested.concurrency is not None:
            message = f"job {job.name} ignores the `concurrency` of {nested.name}"
            hint = "it applies to runs: write `concurrency` at the job that runs it"
            where = workflow.places.find("jobs", job.name, "workflow")
            yield Problem(CONCURRENCY_OF_NESTED, message, where, hint, severity="warning")


def _check_inputs_of(workflow: Workflow, job: JobSpec, nested: Workflow) -> Iterator[Problem]:
    input_by_name = {declared.name: declared for declared in nested.inputs}
    whole = [d for d in nested.inputs if nested.is_whole("inputs", d.name)]
    places = workflow.places
    for name, value in job.with_.items():
        where = places.find("jobs", job.name, "with", name)
        if name in input_by_name:
            if not nested.is_whole("inputs", name, "type"):
                continue
            if misfit := find_misfit(input_by_name[name], value, workflow, job):
                reason, hint = misfit
                message = f"job {job.name} passes {name} to {nested.name}, but that {reason}"
                yield Problem(BAD_NESTED_INPUTS, message, where, hint)
        elif nested.is_whole("inputs"):
            message = f"job {job.name} passes {name}, but {nested.name} has no such input"
            hint = did_you_mean(name, input_by_name) or "remove it, or declare it there"
            yield Problem(BAD_NESTED_INPUTS, message, where, hint)
    missing = [d.name for d in whole if d.required and d.name not in job.with_]
    if missing and workflow.is_known(job.name, "with"):
        message = f"job {job.name} does not pass {', '.join(missing)} to {nested.name}"
        where = places.find("jobs", job.name, "with")
        hint = f"add it under `with:`, as in {missing[0]}: …"
        yield Problem(BAD_NESTED_INPUTS, message, where, hint)


_FITTING: Mapping[InputType, frozenset[InputType]] = {
    "int": frozenset({"int", "float", "json"}),
    "float": frozenset({"float", "json"}),
    "bool": frozenset({"bool", "json"}),
    "list": frozenset({"list", "json"}),
}
"""The input types that accept every value of a type. A text may hold any value, and json is any."""

_WORD_BY_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
}


def find_misfit(
    declared: Input, value: Any, workflow: Workflow, job: JobSpec
) -> tuple[str, str] | None:
    """Return why a value can never fit an input that a job passes it to, with a hint, or None.

    `workflow` and `job` define the expressions in the value. A value that is known only in a run
    may fit.
    """
    whole = find_whole_reference(as_source(value)) if isinstance(value, str) else None
    if whole is not None and is_live(value) and whole.root == "inputs":
        source = next((each for each in workflow.inputs if each.name == whole.name), None)
        return _of_input(declared, source, whole) if source is not None else None
    if whole is not None and is_live(value):
        for known in _values_of(whole, job):
            if (misfit := _of_value(declared, known)) is not None:
                return f"{misfit[0]}, which {whole} can be", _hint(declared, str(whole), known)
        return None
    if not find_references(value).roots:
        return _of_value(declared, value)
    if isinstance(value, str):
        return None  # a text with parts, or an expression that is more than a name
    kind: InputType = "list" if isinstance(value, list | tuple) else "json"
    is_map = kind == "json" and declared.type != "json"
    if is_map or (kind == "list" and declared.type not in _FITTING["list"]):
        return f"must be {_say_type(declared)}, not a {'map' if is_map else 'list'}", ""
    return None


def _of_input(declared: Input, source: Input, whole: Reference) -> tuple[str, str] | None:
    """Return why no value of the input `source` fits another input."""
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
    """Yield the values of `item` or `matrix.NAME` that are written in the workflow."""
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


SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""Any day: whether a cron expression has a next time does not depend on it."""

_MAX_CRON = 1_000
"""Characters of a cron expression."""


def check_schedule(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Each `cron` and `timezone` of a schedule can be understood, and its inputs are declared."""
    for path, schedule in find_schedules(workflow):
        if reason := _explain_bad_cron(schedule.cron):
            where = workflow.places.find(*path, "cron")
            hint = 'five fields: minute hour day month weekday, as in "30 2 * * 1-5"'
            message = f"{schedule.cron!r:.200} is not a cron expression{reason}"
            yield Problem(BAD_CRON, message, where, hint)
        try:
            ZoneInfo(schedule.timezone)
        except (ValueError, OSError, LookupError):
            where = workflow.places.find(*path, "timezone")
            message = f"there is no time zone {schedule.timezone!r:.200}"
            near = find_nearest(schedule.timezone[:200], sorted(available_timezones()))
            hint = "write the name of an IANA time zone, such as Europe/Berlin"
            if near:
                hint = f"did you mean {near!r}?"
            yield Problem(UNKNOWN_TIME_ZONE, message, where, hint)
        yield from _check_scheduled_inputs(workflow, path, schedule)


def _check_scheduled_inputs(
    workflow: Workflow, path: Path, schedule: Schedule
) -> Iterator[Problem]:
    declared = {each.name: each for each in workflow.inputs}
    for name, value in schedule.inputs.items():
        where = workflow.places.find(*path, "inputs", name)
        if name not in declared:
            if workflow.is_whole("inputs"):
                message = f"the schedule gives the input {name}, but the workflow has no such input"
                hint = did_you_mean(name, declared) or "remove it, or declare it under `inputs`"
                yield Problem(BAD_SCHEDULE_INPUTS, message, where, hint)
            continue
        is_known = not find_references(value).roots and workflow.is_whole("inputs", name, "type")
        if is_known and (misfit := _of_value(declared[name], value)):
            message = f"the schedule gives the input {name}, and that {misfit[0]}"
            yield Problem(BAD_SCHEDULE_INPUTS, message, where, misfit[1])


def check_timeouts(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job's timeout is not longer than its workflow's (a warning)."""
    if (most := workflow.timeout_s) is None:
        return
    said: list[tuple[Path, str, float | None]] = [
        (("jobs", job.name, "timeout"), f"job {job.name} has", job.timeout_s)
        for job in workflow.jobs
    ]
    default = workflow.defaults.timeout_s
    for path, owner, timeout_s in [(("defaults", "timeout"), "`defaults` has", default), *said]:
        if timeout_s is not None and timeout_s > most:
            own, whole = write_duration(timeout_s), write_duration(most)
            message = f"{owner} a timeout of {own}, but the workflow only {whole}"
            where = workflow.places.find(*path)
            hint = "the whole run is canceled first: shorten one, or lengthen the other"
            yield Problem(TIMEOUT_TOO_LONG, message, where, hint, severity="warning")


def _explain_bad_cron(cron: str) -> str:
    if len(cron) > _MAX_CRON:
        return f": it has more than {_MAX_CRON:,} characters"
    fields = len(cron.split())
    if fields != 5:
        return f": it has {fields} field{'' if fields == 1 else 's'}, not 5"
    try:
        find_next(cron, UTC, SOME_DAY)
    except (ValueError, KeyError):
        return " that has a next time"
    return ""
