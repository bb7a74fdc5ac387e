"""The report of a run: one HTML file, to be sent to others or kept when the run is gone.

It has no script, loads nothing, and its size does not grow with the number of items. What it shows
of failures was masked when the workers wrote it.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from flowq.durations import utc_time
from flowq.history import Attempt
from flowq.pictures.html import TABLE_END, TABLE_START, draw_nested, draw_scrolling, make_page
from flowq.pictures.picture import Picture
from flowq.pictures.svg import escaped, render_svg, to_xml
from flowq.pictures.timeline import (
    MAX_ROWS,
    STYLE,
    Row,
    find_rows,
    look_of,
    pick_rows,
    render_timeline,
)
from flowq.render.lines import count, find_mark, format_duration, spelled
from flowq.render.summary import count_states, without_runtime
from flowq.runtime.blockers import last_message
from flowq.runtime.results import Failure
from flowq.status import BAD, TOLERATED, JobStatus, RunRecord, RunStatus

MAX_FAILURES = 30
MAX_TRACEBACK = 8_000
"""Characters of one traceback: the end of it, where the error is."""

_NEVER = datetime.max.replace(tzinfo=UTC)
_MAX_TABLE = 500
_MAX_INPUT = 200
_MAX_REASON = 300
_MAX_WORKER = 12

_STYLE = """\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.5rem 0 1rem}
dt{color:#57606a}
dd{margin:0;overflow-wrap:anywhere}
pre{overflow-x:auto;background:#f6f8fa;padding:.75rem;font:12px/1.45 ui-monospace,Menlo,monospace}
.legend span{margin-inline-end:1rem;white-space:nowrap}
.legend svg{vertical-align:-3px;margin-inline-end:.3rem}
td.short{overflow-wrap:normal}
td.short{min-width:8.5rem}
td.number{min-width:0}
td:last-child{min-width:16rem}
th.number{text-align:end}
td.number{text-align:end;white-space:nowrap;font-variant-numeric:tabular-nums}
@media (prefers-color-scheme:dark){
dt{color:#9da7b3}
pre{background:#161b22}
}
"""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a report is made of.

    Shape: `attempts` and `failures` are by the name of the job; `hosts` has the host and process id
    of workers by name. Units: `now` is aware UTC; what has not ended is drawn up to it.
    """

    record: RunRecord
    status: RunStatus
    picture: Picture
    attempts: Mapping[str, Sequence[Attempt]]
    failures: Mapping[str, Failure]
    now: datetime
    hosts: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def find_workers(attempts: Mapping[str, Sequence[Attempt]]) -> set[str]:
    """Return the names of the workers that a report names."""
    return {each.worker for some in attempts.values() for each in some if each.worker}


def render_report(report: RunReport) -> str:
    """Return the report as a page that ends with a newline."""
    title = escaped(f"{report.record.workflow}: {report.status.state}")
    rows = find_rows(report.picture, report.status, report.attempts)
    body = [
        f"<h1>{escaped(report.record.workflow)}</h1>",
        *_facts(report),
        *_failures(report),
        "<h2>Jobs and their dependencies</h2>",
        draw_scrolling(render_svg(report.picture)),
        *draw_nested(report.picture, with_tables=False),
        *_timeline(report, rows),
        *_table(report, rows),
    ]
    return make_page(title, body, _STYLE + STYLE)


def _facts(report: RunReport) -> Iterator[str]:
    record, status = report.record, report.status
    state = f"{status.state}: {status.reason}" if status.reason else status.state
    counts = ", ".join(f"{number:,} {each}" for number, each in count_states(status))
    until = status.ended_at or report.now
    took = (until - status.started_at).total_seconds() if status.started_at else None
    facts = [
        ("state", escaped(state)),
        ("run", escaped(record.run_id)),
        ("file", escaped(record.file)),
        ("jobs", escaped(counts)),
        ("due", _instant(record.due_at)),
        ("submitted", _instant(record.created_at)),
        ("began", _instant(status.started_at)),
        ("ended", _instant(status.ended_at)),
        ("took" if status.ended_at else "has taken", "" if took is None else format_duration(took)),
        *(
            (f"input {escaped(name)}", escaped(repr(value)[:_MAX_INPUT]))
            for name, value in record.inputs.items()
        ),
        *((f"label {escaped(name)}", escaped(said)) for name, said in record.labels.items()),
    ]
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{said}</dd>" for name, said in facts if said)
    yield "</dl>"
    if not status.ended_at:
        yield f"<p>The run had not ended when this was written, {_instant(report.now)}.</p>"


def _begin(report: RunReport) -> datetime:
    """Return the instant that times are told from: the commit, or the last retry."""
    first = [each[0].started_at for each in report.attempts.values() if each]
    return min(
        report.status.started_at or report.record.created_at,
        *(each for each in first if each),
        report.now,
    )


def _instant(at: datetime | None) -> str:
    if at is None:
        return ""
    return f'<time datetime="{at.astimezone(UTC).isoformat()}">{utc_time(at)}</time>'


def find_shown(status: RunStatus) -> list[JobStatus]:
    """Return the failed jobs that a report shows: not tolerated ones first, then by their end."""
    return _find_failed(status)[:MAX_FAILURES]


def _find_failed(status: RunStatus) -> list[JobStatus]:
    """Return the jobs that failed, and those that somebody has rejected."""
    found = status.find_failed((*BAD, "canceled"), with_tolerated=True)
    failed = [job for job in found if job.state in BAD or job.is_rejected]
    return sorted(failed, key=lambda job: (status.is_tolerated(job), job.ended_at or _NEVER))


def _failures(report: RunReport) -> Iterator[str]:
    found = _find_failed(report.status)
    number, tolerated = len(found), sum(map(report.status.is_tolerated, found))
    if not number:
        return
    how_many = f"{tolerated:,} of them" if tolerated < number else "all" if number > 1 else ""
    said = f", {how_many} tolerated".replace(",  ", ", ") if tolerated else ""
    yield f"<h2>{count(number, 'failure')}{said}</h2>"
    for job in find_shown(report.status):
        yield from _failure(job, report)
    if number > MAX_FAILURES:
        yield f"<p>{number - MAX_FAILURES:,} more failures are not shown.</p>"


def _failure(job: JobStatus, report: RunReport) -> Iterator[str]:
    kept = report.failures.get(job.name)
    text = kept.traceback if kept else job.reason
    told = "\n".join(without_runtime(text, advice=""))
    attempts = report.attempts.get(job.name, ())
    is_tolerated = report.status.is_tolerated(job)
    mark = TOLERATED if is_tolerated else job.state
    notes = [TOLERATED if is_tolerated else ""]
    notes += [count(len(attempts), "attempt") if len(attempts) > 1 else ""]
    words = ", ".join(filter(None, notes))
    why = _find_error(attempts) or (last_message(text) if kept else job.reason)
    yield (
        f"<details><summary>{find_mark(mark)} {escaped(job.name)}"
        f"{f' ({words})' if words else ''}: {escaped(why[:_MAX_REASON])}</summary>"
    )
    yield f"<pre>{_escaped_lines(told)}</pre>"
    earlier = [each for each in attempts[:-1] if each.error]
    if earlier:
        yield "<p>Earlier attempts:</p><ul>"
        yield from (f"<li>attempt {each.number}: {escaped(each.error)}</li>" for each in earlier)
        yield "</ul>"
    yield "</details>"


def _find_error(attempts: Sequence[Attempt]) -> str:
    """Return the first line of the error of the last attempt; "" where none is known."""
    return attempts[-1].error if attempts else ""


def _escaped_lines(text: str) -> str:
    """Return a text of several lines for `pre`, without its beginning if it is long."""
    if len(text) > MAX_TRACEBACK:
        text = f"… {len(text) - MAX_TRACEBACK:,} characters left out\n{text[-MAX_TRACEBACK:]}"
    return to_xml(html.escape(spelled(text)))


def _timeline(report: RunReport, rows: Sequence[Row]) -> Iterator[str]:
    ends = [each.ended_at for row in rows for each in row.all_attempts if each.ended_at]
    end = max([report.status.ended_at or report.now, *ends])
    yield "<h2>Timeline</h2>"
    drawing = render_timeline(rows, _begin(report), end)
    legend = [*_LEGEND, *([_BROKEN] if 'class="break"' in drawing else [])]
    yield f'<p class="legend">{"".join(map(_legend, legend))}</p>'
    yield draw_scrolling(drawing)
    if len(rows) > MAX_ROWS:
        yield f"<p>{len(rows) - MAX_ROWS:,} more jobs are not in the timeline.</p>"


_LEGEND = (
    ("held", "held, for example by an approval"),
    ("waits", "waited in the queue"),
    ("runs", "running, or how many ran"),
    ("finished", "finished"),
    ("bad", "failed"),
)

_BROKEN = ("break", "nothing was queued or running: shortened")


def _legend(entry: tuple[str, str]) -> str:
    class_, words = entry
    box = f'<rect class="{class_}" x="1" y="3" width="20" height="10"/>'
    return f'<span><svg class="timeline" width="22" height="16">{box}</svg>{words}</span>'


_HEAD = ("job", "state", "attempts", "waited", "took", "began", "on", "why")
_NUMBERS = ("attempts", "waited", "took", "began")


def _table(report: RunReport, rows: Sequence[Row]) -> Iterator[str]:
    yield "<h2>Jobs</h2>"
    yield TABLE_START
    heads = (f"<th{' class=number' if name in _NUMBERS else ''}>{name}</th>" for name in _HEAD)
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    begin = _begin(report)
    yield from (_table_row(row, begin, report.hosts) for row in pick_rows(rows, _MAX_TABLE))
    yield "</tbody>"
    yield TABLE_END
    if len(rows) > _MAX_TABLE:
        yield f"<p>{len(rows) - _MAX_TABLE:,} more jobs are not in this table.</p>"


def _table_row(row: Row, begin: datetime, hosts: Mapping[str, tuple[str, int]]) -> str:
    attempts = row.all_attempts
    counts: dict[str, int] = {}
    for look in map(look_of, row.jobs):
        counts[look] = counts.get(look, 0) + 1
    if len(row.jobs) == 1:
        said = "failed, tolerated" if row.jobs[0].is_tolerated else row.jobs[0].state
        states = f"{find_mark(look_of(row.jobs[0]))} {said}"
    else:
        states = ", ".join(
            f"{find_mark(look)} {number:,} {look}" for look, number in counts.items()
        )
    begun = min((each.started_at for each in attempts if each.started_at), default=None)
    since = (begun - begin).total_seconds() if begun else None
    workers = sorted({each.worker for each in attempts if each.worker})
    on = count(len(workers), "worker") if workers else ""
    if len(workers) == 1:
        host, pid = hosts.get(workers[0], ("", 0))
        on = f"{host}, process {pid}" if host else f"worker {workers[0][:_MAX_WORKER]}"
    reasons = {_why(*each) for each in zip(row.jobs, row.attempts, strict=True)} - {""}
    why = reasons.pop() if len(reasons) == 1 else f"{len(reasons)} reasons" if reasons else ""
    measured = attempts if len(row.jobs) > 1 else attempts[-1:]
    waits = [each.waited_s for each in measured if each.waited_s is not None]
    times = [each.duration_s for each in measured if each.duration_s is not None]
    return (
        f'<tr><th scope="row">{escaped(row.name)}</th><td class="short">{states}</td>'
        f'<td class="number">{f"{len(attempts):,}" if attempts else ""}</td>'
        f'<td class="number">{_describe(waits)}</td><td class="number">{_describe(times)}</td>'
        f'<td class="number">{"" if since is None else f"+{format_duration(since)}"}</td>'
        f'<td class="short">{escaped(on)}</td>'
        f"<td>{escaped(why[:_MAX_REASON])}</td></tr>"
    )


def _why(job: JobStatus, attempts: Sequence[Attempt]) -> str:
    """Return why a job is as it is; that its failure is tolerated stands beside its state."""
    reason = "" if job.reason == TOLERATED else job.reason
    return reason or (_find_error(attempts) if job.state in BAD else "")


def _describe(seconds: Sequence[float]) -> str:
    """Return a duration as HTML; of several, the median and the longest."""
    if not seconds:
        return ""
    if len(seconds) == 1:
        return format_duration(seconds[0])
    middle, most = format_duration(median(seconds)), format_duration(max(seconds))
    return f"median {middle}<br>up to {most}"
