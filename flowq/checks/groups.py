"""The rules of groups, of conditions, and of keys that cannot be combined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowq.errors import Problem, Where, WorkflowInvalid
from flowq.expressions import as_source, as_template, evaluate, find_references, needs_success
from flowq.expressions.places import ROOTS_BY_KEY
from flowq.expressions.plain import describe
from flowq.expressions.references import find_whole_reference
from flowq.graph import Graph
from flowq.matrix import MANY_COMBINATIONS, MAX_COMBINATIONS, explain_excess
from flowq.nearest import did_you_mean
from flowq.problems import (
    BAD_MATRIX,
    CANCELS_ITS_OWN,
    EXCLUDE_WITHOUT_AXIS,
    IF_AND_POLICY,
    LIMIT_WITHOUT_GROUP,
    LIMITS_DIFFER,
    NOT_A_LIST,
    NOTHING_BEFORE,
)
from flowq.spec import JobSpec, Matrix, Path, Workflow

KEYS_OF_GROUPS = ("for_each", "matrix", "include")
"""The keys that turn a job into a group."""


def check_matrices(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A matrix has combinations, and not too many; `exclude` names its axes."""
    for job in workflow.jobs:
        if job.matrix is not None:
            yield from _size(workflow, job, job.matrix)
            for index, combination in enumerate(job.matrix.exclude):
                for name in combination:
                    if name not in job.matrix.axes and workflow.is_known(job.name, "matrix"):
                        message = f"`exclude` of job {job.name} names {name}, which is not an axis"
                        where = workflow.places.find("jobs", job.name, "exclude", index, name)
                        hint = did_you_mean(name, job.matrix.axes)
                        yield Problem(EXCLUDE_WITHOUT_AXIS, message, where, hint)


def _size(workflow: Workflow, job: JobSpec, matrix: Matrix) -> Iterator[Problem]:
    where = workflow.places.find("jobs", job.name, "matrix")
    if not matrix.axes and not matrix.include and workflow.is_known(job.name, "matrix", "include"):
        hint = "write matrix: {NAME: [values]}"
        yield Problem(BAD_MATRIX, f"the matrix of job {job.name} has no axes", where, hint)
    for name, values in matrix.axes.items():
        path = ("jobs", job.name, "matrix", name)
        place = workflow.places.find(*path)
        if not workflow.is_whole(*path):
            continue
        if isinstance(values, list | tuple) and not values:
            message = f"{name} in the matrix of job {job.name} has no values"
            yield Problem(BAD_MATRIX, message, place, "an empty axis leaves no combinations")
        elif isinstance(values, list | tuple) and (twice := _find_twice(values)) is not None:
            message = f"{name} in the matrix of job {job.name} has {twice!r} twice"
            yield Problem(BAD_MATRIX, message, place, "each combination is a job of its own")
    yield from check_combinations(job.name, matrix.axes, where, (*matrix.include, *matrix.exclude))


def check_combinations(
    name: str,
    axes: Mapping[str, object],
    where: Where | None,
    entries: Sequence[Mapping[str, object]] = (),
) -> Iterator[Problem]:
    """Yield a problem if a matrix is too large, as far as it is known (`explain_excess`)."""
    if excess := explain_excess(axes, entries):
        told, hint = excess
        yield Problem(BAD_MATRIX, f"the matrix of job {name} {told}", where, hint)


def check_count(name: str, count: int, where: Where | None) -> Iterator[Problem]:
    """Yield a problem if a matrix has too many combinations, with those that `include` adds."""
    if count > MAX_COMBINATIONS:
        message = f"the matrix of job {name} has {count:,} combinations"
        yield Problem(BAD_MATRIX, message, where, MANY_COMBINATIONS)


def _find_twice(values: list[object] | tuple[object, ...]) -> object | None:
    seen: set[tuple[str, str]] = set()
    for value in values:
        identity = (type(value).__name__, repr(value))
        if identity in seen:
            return value
        seen.add(identity)
    return None


def check_lists(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A group is made from a list, as far as that is known before a run."""
    type_by_name = {declared.name: declared.type for declared in workflow.inputs}
    for job in workflow.jobs:
        made_of: list[tuple[Path, object]] = []
        if job.for_each is not None:
            made_of.append((("for_each",), job.for_each.items))
        if job.matrix is not None:
            made_of += ((("matrix", name), axis) for name, axis in job.matrix.axes.items())
        for path, items in made_of:
            key = str(path[0])
            found = isinstance(items, str) and _explain_no_list(key, items, type_by_name, graph)
            if found:
                told, hint = found
                message = f"`{key}` of job {job.name} is {told}"
                where = workflow.places.find("jobs", job.name, *path)
                yield Problem(NOT_A_LIST, message, where, hint)


def _explain_no_list(
    key: str, items: str, type_by_name: Mapping[str, str], graph: Graph
) -> tuple[str, str] | None:
    """Return what an expression gives if it cannot be a list, with a hint; None if it can."""
    whole = find_whole_reference(as_source(items))
    if whole is None:
        return _explain_constant(items)
    if whole.root == "inputs" and type_by_name.get(whole.name, "list") not in ("list", "json"):
        told = f"{whole}, which is of type {type_by_name[whole.name]}"
        return told, "a group needs a list: type: list"
    if whole.root not in ROOTS_BY_KEY[key]:  # it has no value there: another rule reports it
        return None
    if whole.root == "run":
        return f"{whole}, which is text", "a group needs a list"
    if whole.root != "jobs":
        return None
    if kind := _KIND_BY_ATTRIBUTE.get(whole.attribute):
        return f"{whole}, which is {kind}", f"write jobs.{whole.name}.result, or .results"
    job = graph.job_by_name.get(whole.name)
    is_text = job is not None and job.run is not None and job.run.result in (None, "last", "text")
    if is_text and whole.attribute == "result":
        hint = f"write `result: lines`, or json, at job {whole.name}; or split the text: x | split"
        return f"{whole}, which is text: a part of what a command printed", hint
    return None


_KIND_BY_ATTRIBUTE = {
    "status": "text",
    "error": "a map",
    "exit_code": "a number",
    "attempts": "a number",
}


def _explain_constant(items: str) -> tuple[str, str] | None:
    if find_references(items).roots:
        return None
    try:
        value = evaluate(items)
    except WorkflowInvalid:  # an expression without a value is a problem of its own
        return None
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return None
    hint = f"to count: ${{{{ range({value}) }}}}" if type(value) is int else "write [a, b, c]"
    return f"{describe(value)}, not a list", hint


def check_conditions(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job whose `if` checks how earlier jobs ended has no `on_blocker_failure`."""
    for job in workflow.jobs:
        if job.if_ is None or job.on_blocker_failure is None:
            continue
        condition = as_template(job.if_)
        if not needs_success(condition):
            asked = find_references(condition).statuses
            message = f"job {job.name} uses {min(asked)}() and sets `on_blocker_failure`"
            where = workflow.places.find("jobs", job.name, "on_blocker_failure")
            hint = "remove it: such an `if` is evaluated when all jobs before it have ended"
            yield Problem(IF_AND_POLICY, message, where, hint)


def check_limits(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Group limits are set only on groups (a warning)."""
    for job in workflow.jobs:
        if job.for_each is not None or job.matrix is not None:
            continue
        if not workflow.is_known(job.name, *KEYS_OF_GROUPS):
            continue
        limits = {
            "max_parallel": job.max_parallel is not None or "max_parallel" in job.settings,
            "fail_fast": bool(job.fail_fast),
            "continue_on_error": job.continue_on_error is not None
            and job.continue_on_error.percent not in (None, 0, 100),
        }
        for key in (key for key, is_said in limits.items() if is_said):
            message = f"`{key}` of job {job.name} changes nothing: it is a single job"
            where = workflow.places.find("jobs", job.name, key)
            hint = "it limits a group: a job with `for_each` or `matrix`"
            yield Problem(LIMIT_WITHOUT_GROUP, message, where, hint, severity="warning")


def check_limits_across_runs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """The jobs of a `concurrency` group have the same limit (a warning)."""
    first_by_group: dict[str, JobSpec] = {}
    for job in workflow.jobs:
        one = job.concurrency
        if one is None or "concurrency.limit" in job.settings:
            continue
        group = job.settings.get("concurrency.group", one.group)
        first = first_by_group.setdefault(group, job)
        limit = first.concurrency.limit if first.concurrency else one.limit
        if one.limit != limit:
            message = f"the group {group} has limit {one.limit} at job {job.name}, and {limit} at"
            where = workflow.places.find("jobs", job.name, "concurrency")
            hint = "write the same limit: a job waits until fewer than its own limit have a slot"
            yield Problem(LIMITS_DIFFER, f"{message} {first.name}", where, hint, severity="warning")


def check_cancel_in_progress(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """The items of a group do not cancel each other to make room (a warning)."""
    for job in workflow.jobs:
        one = job.concurrency
        if one is None or not one.cancel_in_progress:
            continue
        if job.for_each is None and job.matrix is None:
            continue
        group = job.settings.get("concurrency.group", one.group)
        if not find_references(group).roots & {"item", "index", "matrix"}:
            message = f"the items of job {job.name} cancel each other: all have the same group"
            where = workflow.places.find("jobs", job.name, "concurrency")
            hint = "name the item in `group`, as in x-${{ item }}, or remove `cancel_in_progress`"
            yield Problem(CANCELS_ITS_OWN, message, where, hint, severity="warning")


def check_questions(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Only a job with blockers refers to how they ended (a warning)."""
    for job in workflow.jobs:
        key = "on_blocker_failure" if job.on_blocker_failure is not None else "if"
        asks = job.if_ is not None and "failure" in find_references(as_template(job.if_)).statuses
        if (key != "if" or asks) and not graph.predecessors(job.name):
            message = f"`{key}` of job {job.name} refers to jobs before it, but there are none"
            where = workflow.places.find("jobs", job.name, key)
            hint = "name them under `needs`, or remove it"
            yield Problem(NOTHING_BEFORE, message, where, hint, severity="warning")
