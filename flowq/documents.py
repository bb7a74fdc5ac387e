"""Reads what the `--json` of several commands, and the page, say of a run (`flowq.render.json`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowq import client, job_output
from flowq.client import Explanation, Run, missing_job
from flowq.errors import UsageError
from flowq.pictures.of_run import find_edges
from flowq.pictures.picture import edge_documents
from flowq.pictures.stored import read_picture
from flowq.render.groups import by_declaration, choose_items, find_declared
from flowq.render.job_output import output_documents
from flowq.render.json import (
    MAX_RESULTS,
    RunFacts,
    job_document,
    make_document,
    run_document,
    write_json,
)
from flowq.render.summary import without_runtime
from flowq.status import BAD, ENDED, JobStatus, RunStatus

LAST_LINES = 10
"""How many lines of the output of a job that failed are in its error."""

MAX_FAILURES = 100
"""Of how many failed jobs the output is read."""


def read_run(run: Run, *, has_all_results: bool = False, has_nested: bool = False) -> RunFacts:
    """Return what is known of a run. Loads no pickles. Errors: RunNotFound."""
    status, attempts = run.history()
    kept = run.kept_outputs()
    names = _find_shown(status, has_all_results=has_all_results, has_nested=has_nested)
    views = run.views(names, status)
    records = run.job_records(status)
    edges = find_edges(status, read_picture(run.source()), records)
    workers = {each.worker for some in attempts.values() for each in some}
    return RunFacts(
        status,
        {name: view.result for name, view in views.items()},
        kept.views,
        kept.errors,
        records,
        run.record(),
        attempts,
        run.find_hosts(workers),
        _read_errors(run, status),
        edge_documents(edges),
        has_all_results,
        has_nested,
    )


def _find_shown(status: RunStatus, *, has_all_results: bool, has_nested: bool) -> list[str]:
    """Return the names of the jobs whose results are shown."""
    names: list[str] = []
    for declared in by_declaration(status).values():
        is_cut = declared.is_group and not has_all_results
        names += [job.name for job in declared.items[: MAX_RESULTS if is_cut else None]]
        if has_nested:
            names += [job.name for job in declared.inside]
    return names


def _read_errors(run: Run, status: RunStatus) -> Mapping[str, Mapping[str, Any]]:
    bad = [job for job in status.jobs.values() if job.state in BAD]
    ends = run.ends([job.job_id for job in bad])
    printed = job_output.read_last_lines(
        run, [job.job_id for job in bad[:MAX_FAILURES]], LAST_LINES
    )
    return {
        job.name: {
            "type": end.error_type,
            "message": end.message,
            "exit_code": end.exit_code,
            "last_lines": printed.get(job.job_id, []),
        }
        for job, end in zip(bad, ends, strict=True)
        if end.message is not None
    }


def run_json(
    run: Run,
    part: Callable[[RunStatus], RunStatus] | None = None,
    *,
    has_all_results: bool = False,
    has_nested: bool = False,
    is_line: bool = False,
) -> str:
    """Return a run, or a part of it, as one JSON object; an output without a value is null."""
    facts = read_run(run, has_all_results=has_all_results, has_nested=has_nested)
    if part is not None:
        facts = replace(facts, status=part(facts.status))
    return write_json(run_document(facts), None if is_line else 2)


def job_json(
    run: Run,
    name: str,
    find_items: Callable[[RunStatus], Sequence[JobStatus]] | None = None,
    *,
    has_all_results: bool,
    has_nested: bool,
) -> str:
    """Return what `read_job` does as JSON. Errors: NotFound."""
    document = read_job(
        run, name, find_items, has_all_results=has_all_results, has_nested=has_nested
    )
    return write_json(document)


def read_job(
    run: Run,
    name: str,
    find_items: Callable[[RunStatus], Sequence[JobStatus]] | None = None,
    *,
    has_all_results: bool = False,
    has_nested: bool = False,
) -> dict[str, Any]:
    """Return a job, an item or a group of a run as a document. Errors: NotFound.

    With `find_items`, it lists those items of the group, and has only their ids and results.
    """
    facts = read_run(run, has_all_results=has_all_results, has_nested=has_nested)
    job = facts.status.jobs.get(name)
    group = None if job else find_declared(facts.status, name)
    if job is None and group is None:
        raise missing_job(run.run_id, name, facts.status.names())
    names = [name, *(each.name for each in (group.items if group and "." in name else ()))]
    views = run.views(names, facts.status)
    view = views.get(name, client.JobView())
    failure = run.failures([name], facts.status).get(name)
    traceback: Sequence[str] = without_runtime(failure.traceback) if failure else ()
    printed = job_output.read(run, [job.job_id]).get(job.job_id, {}) if job else {}
    output = output_documents(printed)
    found = {each: views[each].result for each in views}
    facts = replace(facts, result_by_name={**facts.result_by_name, **found})
    if find_items is not None:
        listed = {each.name for each in find_items(facts.status)}
        results = {each: view.result for each, view in run.views(listed, facts.status).items()}
        facts = replace(facts, listed=listed, result_by_name={**facts.result_by_name, **results})
    return job_document(facts, name, view.arguments, traceback, output)


def choose_page(
    run: Run, status: RunStatus, name: str, state: str, after: str, limit: int
) -> list[JobStatus]:
    """Return the items of a group that are in a state, those behind the item `after`.

    Errors: NotFound; UsageError for what is no group.
    """
    group = find_declared(status, name)
    if group is None or not group.is_group:
        if group is None and name not in status.jobs:
            raise missing_job(run.run_id, name, status.names())
        raise UsageError(f"{name} is not a group; only a group has items to list by state")
    names = {job.name for job in group.items}
    if after and after not in names:
        raise missing_job(run.run_id, after, names)
    return choose_items(group, state, after, limit)[0]


MAX_EXPLAINED = 5
"""How many jobs are explained where none is named."""


def names_to_explain(status: RunStatus) -> list[str]:
    """Return the jobs that are explained where none is named: those left, else those that failed.

    All of them; the first `MAX_EXPLAINED` are shown.
    """
    jobs = status.jobs.values()
    left = [job.name for job in jobs if job.state not in ENDED]
    bad = (job for job in jobs if job.state != "finished" and not status.is_tolerated(job))
    return left or [job.name for job in bad]


def explain_document(explanations: Iterable[Explanation]) -> dict[str, Any]:
    """Return what `flowq explain` prints."""
    return make_document("explain", jobs=[_explanation(each) for each in explanations])


def _explanation(told: Explanation) -> dict[str, Any]:
    return {
        "name": told.name or None,
        "job_id": told.job_id,
        "status": told.state,
        "reasons": [
            {
                "kind": reason.kind,
                "message": reason.text,
                "hint": reason.hint or None,
                "job_ids": list(reason.job_ids),
            }
            for reason in told.reasons
        ],
    }
