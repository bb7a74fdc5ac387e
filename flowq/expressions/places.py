"""Where expressions stand in a declaration, and which names have a value there.

The readers, the graph and the checks share this table. A key that is not in it holds fixed text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowq.expressions.templates import as_template, has_expression
from flowq.spec import JobSpec, Path, Schedule, Workflow

_ITEM = frozenset({"item", "index", "matrix"})
_RUN = frozenset({"inputs", "run"})
_WHERE_IT_RUNS = frozenset({"env", "secrets", "attempt"})

ROOTS_BY_KEY: Mapping[str, frozenset[str]] = {
    "with": _RUN | _ITEM | _WHERE_IT_RUNS | {"jobs", "ended", "approval"},
    "env": _RUN | _ITEM | _WHERE_IT_RUNS | {"jobs", "ended", "approval"},
    "run": _RUN | _ITEM | _WHERE_IT_RUNS | {"jobs", "ended", "approval"},
    "cwd": _RUN | _ITEM | _WHERE_IT_RUNS | {"jobs", "ended", "approval"},
    "sleep": _RUN | _ITEM | {"jobs", "ended", "approval"},
    "poll": _RUN | _ITEM | {"result"},
    "if": _RUN | _ITEM | {"jobs", "status", "ended"},
    "approval": _RUN | _ITEM | {"jobs", "ended"},
    "for_each": _RUN | {"jobs", "ended"},
    "key": _RUN | {"item", "index"},
    "more": _RUN | {"item", "index", "result"},
    "stop_when": _RUN | _ITEM | {"result"},
    "matrix": frozenset({"inputs", "jobs"}),
    "include": frozenset({"inputs", "jobs"}),
    "exclude": frozenset({"inputs", "jobs"}),
    # Settings are known before their job is enqueued (`flowq.settings`).
    **dict.fromkeys(
        ("queue", "timeout", "retries", "continue_on_error", "concurrency", "rate"),
        frozenset({"inputs"}) | _ITEM,
    ),
    "max_parallel": frozenset({"inputs"}),
}
"""The names that a key of a job can see. `item` and `index` also need a `for_each`, `matrix` a
`matrix`."""

ROOTS_BY_WORKFLOW_KEY: Mapping[str, frozenset[str]] = {
    "env": _RUN | _WHERE_IT_RUNS,
    "outputs": _RUN | {"jobs"},
    "concurrency": frozenset({"inputs"}),
    "labels": _RUN,
    "schedule": frozenset({"run"}),
    "defaults": _RUN | _WHERE_IT_RUNS,
}
"""The names that a key of the workflow itself can see."""

ROOTS_OF_DEFAULT_SETTINGS = frozenset({"inputs"})
"""The names that settings under `defaults` can see: they are the same for all jobs."""


def find_texts(job: JobSpec) -> Iterator[tuple[Path, str]]:
    """Yield each text of a job that contains expressions, with its path inside the job."""
    if job.with_:
        yield from texts_of(job.with_, ("with",))
    if job.env:
        yield from texts_of(job.env, ("env",))
    if job.run is not None:
        yield from texts_of(job.run.command, ("run",))
    if job.cwd is not None:
        yield from texts_of(job.cwd, ("cwd",))
    if job.sleep is not None:
        yield from texts_of(job.sleep, ("sleep",))
    if job.poll is not None:
        yield ("poll", "until"), as_template(job.poll.until)
    if job.if_ is not None:
        yield ("if",), as_template(job.if_)
    if job.approval is not None and job.approval.message:
        yield from texts_of(job.approval.message, ("approval", "message"))
    if (each := job.for_each) is not None:
        yield from texts_of(each.items, ("for_each",))
        yield from _sources(key=each.key, more=each.more, stop_when=each.stop_when)
    if (matrix := job.matrix) is not None:
        yield from texts_of(matrix.axes, ("matrix",))
        yield from texts_of(matrix.include, ("include",))
        yield from texts_of(matrix.exclude, ("exclude",))
        yield from _sources(stop_when=matrix.stop_when)
    for key, template in job.settings.items():
        yield tuple(key.split(".")), template


def find_workflow_texts(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """Yield each text of the workflow itself that contains expressions, with its path."""
    yield from texts_of(workflow.env, ("env",))
    yield from texts_of(workflow.outputs, ("outputs",))
    if workflow.concurrency is not None:
        yield from texts_of(workflow.concurrency.group, ("concurrency", "group"))
    yield from texts_of(workflow.labels, ("labels",))
    for path, schedule in find_schedules(workflow):
        yield from texts_of(schedule.inputs, (*path, "inputs"))
    yield from texts_of(workflow.defaults.cwd, ("defaults", "cwd"))
    for key, template in workflow.defaults.settings.items():
        yield ("defaults", *key.split(".")), template


def find_schedules(workflow: Workflow) -> Iterator[tuple[Path, Schedule]]:
    """Yield the schedules of a workflow with their paths."""
    schedules = workflow.schedules
    is_list = len(schedules) > 1 or ("schedule", 0) in workflow.places.where_by_path
    for index, schedule in enumerate(schedules):
        yield ("schedule", *([index] if is_list else ())), schedule


def _sources(**source_by_key: str | None) -> Iterator[tuple[Path, str]]:
    for key, source in source_by_key.items():
        if source is not None:
            yield (key,), as_template(source)


def texts_of(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each text in a value, however deep, that contains expressions, with its path."""
    if isinstance(value, str):
        if has_expression(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_of(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts_of(item, (*path, index))
