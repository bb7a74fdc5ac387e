"""What is said about a run once its status is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowq.cli import display, logs, streams
from flowq.cli.place import Place
from flowq.cli.streams import Stream
from flowq.client import KeptOutputs, Run
from flowq.render.groups import by_declaration
from flowq.render.json import run_document, write_json
from flowq.render.summary import MAX_FAILURES, MAX_OUTPUT_LINES, FailedJob, Report, summary
from flowq.status import RunStatus


def make_report(run: Run, status: RunStatus, place: Place) -> Report:
    """Return what there is to say about a run that has ended."""
    kept = run.kept_outputs()
    return Report(
        status=status,
        results={} if kept.views or kept.errors else _last_results(run, status),
        outputs=kept.views,
        unknown=kept.errors,
        failed=_failed(run, status),
        show_command=lambda name: place.hint("show", run.run_id, name),
    )


def _last_results(run: Run, status: RunStatus) -> Mapping[str, Any]:
    """Return views of the results of what nothing comes after; a group's as a list."""
    last = {name for name, facts in run.facts(status).items() if facts.is_last}
    declared = by_declaration(status).values()
    shown = [each for each in declared if last.issuperset(job.name for job in each.own)]
    views = run.views([job.name for each in shown for job in each.items], status)
    results = {name: view.result for name, view in views.items()}
    return {
        each.name: [results.get(job.name) for job in each.items]
        if each.is_group
        else results[each.name]
        for each in shown
        if (each.items or each.state == "finished" if each.is_group else each.name in results)
    }


def _failed(run: Run, status: RunStatus) -> list[FailedJob]:
    # What a cancel stopped has not failed: nobody asks why.
    bad = ("failed",) if status.state == "canceled" else ("failed", "stopped")
    jobs = (job for job in status.jobs.values() if job.state in bad)
    names = [job.name for job in jobs if not (status.is_tolerated(job) or job.has_failed_inside)]
    tracebacks = run.failures(names[:MAX_FAILURES])
    return [
        FailedJob(
            name,
            tracebacks[name].traceback if name in tracebacks else "",
            logs.read_last(status.jobs[name].job_id, MAX_OUTPUT_LINES),
            status.jobs[name].reason,
        )
        for name in names
    ]


def write_summary(report: Report, stream: Stream) -> None:
    """Write the end of a run for eyes."""
    lines = summary(report, display.width_of(stream), unicode=streams.can_show(stream))
    display.tell(lines, stream)


def run_json(run: Run, status: RunStatus, kept: KeptOutputs) -> str:
    """Return the one JSON object of a run; an output that has no value is null there."""
    results = {name: view.result for name, view in run.views(status=status).items()}
    outputs = {**kept.views, **dict.fromkeys(kept.errors)}
    return write_json(run_document(status, results, outputs, run.facts(status)))
