"""The report of a run: one HTML file, to be sent to others or kept when the run is gone.

It has no script, loads nothing, and its size does not grow with the number of items. What it shows
of failures was masked when the workers wrote it.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from flowq.durations import utc_time
from flowq.history import Attempt, find_run_duration
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
from flowq.render.lines import (
    count,
    find_mark,
    format_duration,
    more_are,
    spelled,
    write_value,
)
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
    took = find_run_duration(record, report.now)
    facts = [
        ("state", escaped(state)),
        ("run", escaped(record.run_id)),
        ("file", escaped(record.file)),
        ("jobs", escaped(counts)),
        ("continues", escaped(record.continues)),
        ("due", _instant(record.due_at)),
        ("submitted", _instant(record.created_at)),
        ("submitted by", escaped(record.submitted_by)),
        ("began", _instant(record.committed_at)),
        ("ended", _instant(status.ended_at)),
        ("took" if status.ended_at else "has taken", "" if took is None else format_duration(took)),
        *(
            (f"input {escaped(name)}", escaped(write_value(value)[:_MAX_INPUT]))
            for name, value in record.inputs.items()
        ),
        *((f"label {escaped(name)}", escaped(said)) for name, said in record.labels.items()),
    ]
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{said}</dd>" for name, said in facts if said)
    yield "</dl>"
    if not status.ended_at:
        yield f"<p>The run had not ended when this was written, {_instant(report.now)}.</p>"


def find_begin(report: RunReport) -> datetime:
    """Return the instant that times are told from: the commit."""
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
    """Return the failed jobs that a report shows, the first of `find_failed`."""
    return find_failed(status)[:MAX_FAILURES]


def find_failed(status: RunStatus) -> list[JobStatus]:
    """Return the jobs that failed, and those that somebody has rejected.

    Not tolerated ones first, of these the rejected ones, then by their end.
    """
    found = status.find_failed((*BAD, "canceled"), with_tolerated=True)
    failed = [job for job in found if job.state in BAD or job.is_rejected]

    def rank(job: JobStatus) -> tuple[bool, bool, datetime]:
        return status.is_tolerated(job), not job.is_rejected, job.ended_at or _NEVER

    return sorted(failed, key=rank)


def count_failures(failed: int, rejected: int) -> str:
    """Return how many jobs failed by themselves, and how many were rejected, as a heading."""
    told = [count(failed, "failure")] if failed or not rejected else []
    return ", ".join([*told, *([count(rejected, "rejection")] if rejected else [])])


@dataclass(frozen=True, slots=True)
class ToldFailure:
    """What is said of a failure.

    Shape: `mark` is the state that it looks like; `notes` stand beside the name; `why` is one line,
    `text` the traceback without frames of flowq and RQ; `earlier` are failed attempts before it.
    """

    job: JobStatus
    mark: str
    notes: tuple[str, ...]
    why: str
    text: str
    earlier: tuple[Attempt, ...] = ()


def tell_failure(job: JobStatus, report: RunReport) -> ToldFailure:
    """Return what is said of a failure, from what was read with the report."""
    kept = report.failures.get(job.name)
    text = kept.traceback if kept else job.reason
    attempts = report.attempts.get(job.name, ())
    is_tolerated = report.status.is_tolerated(job)
    notes = [TOLERATED if is_tolerated else ""]
    number = max(len(attempts), attempts[-1].number if attempts else job.attempts)
    notes += [count(number, "attempt") if number > 1 else ""]
    known = _find_error(attempts) or job.error
    why = known or (last_message(text) if kept else job.reason)
    return ToldFailure(
        job,
        TOLERATED if is_tolerated else job.state,
        tuple(filter(None, notes)),
        why[:_MAX_REASON],
        "\n".join(without_runtime(text, advice="")),
        tuple(each for each in attempts[:-1] if each.error),
    )


def _failures(report: RunReport) -> Iterator[str]:
    found = find_failed(report.status)
    number, tolerated = len(found), sum(map(report.status.is_tolerated, found))
    if not number:
        return
    how_many = f"{tolerated:,} of them" if tolerated < number else "all" if number > 1 else ""
    said = f", {how_many} tolerated".replace(",  ", ", ") if tolerated else ""
    rejected = sum(job.is_rejected for job in found)
    yield f"<h2>{count_failures(number - rejected, rejected)}{said}</h2>"
    for job in find_shown(report.status):
        yield from _failure(tell_failure(job, report))
    if number > MAX_FAILURES:
        yield f"<p>{more_are(number - MAX_FAILURES, 'failure')} not shown.</p>"


def _failure(told: ToldFailure) -> Iterator[str]:
    words = ", ".join(told.notes)
    yield (
        f"<details><summary>{find_mark(told.mark)} {escaped(told.job.name)}"
        f"{f' ({words})' if words else ''}: {escaped(told.why)}</summary>"
    )
    yield f"<pre>{_escaped_lines(told.text)}</pre>"
    if told.earlier:
        yield "<p>Earlier attempts:</p><ul>"
        yield from (
            f"<li>attempt {each.number}: {escaped(each.error)}</li>" for each in told.earlier
        )
        yield "</ul>"
    yield "</details>"


def _find_error(attempts: Sequence[Attempt]) -> str:
    """Return the first line of the error of the last attempt; "" where none is known."""
    return attempts[-1].error if attempts else ""


def _escaped_lines(text: str) -> str:
    return to_xml(html.escape(spelled(without_beginning(text))))


def without_beginning(text: str, at_most: int = MAX_TRACEBACK) -> str:
    """Return a traceback, without its beginning if it has more characters than that."""
    if len(text) <= at_most:
        return text
    return f"… {len(text) - at_most:,} characters left out\n{text[-at_most:]}"


def _timeline(report: RunReport, rows: Sequence[Row]) -> Iterator[str]:
    ends = [each.ended_at for row in rows for each in row.all_attempts if each.ended_at]
    end = max([report.status.ended_at or report.now, *ends])
    yield "<h2>Timeline</h2>"
    drawing = render_timeline(rows, find_begin(report), end)
    yield draw_legend(drawing)
    yield draw_scrolling(drawing)
    if len(rows) > MAX_ROWS:
        yield f"<p>{more_are(len(rows) - MAX_ROWS, 'job')} not in the timeline.</p>"


_LEGEND = (
    ("held", "held, for example by an approval"),
    ("waits", "waited in the queue"),
    ("runs", "running, or how many ran"),
    ("finished", "finished"),
    ("bad", "failed"),
)

_BROKEN = ("break", "nothing was queued or running: shortened")


def draw_legend(drawing: str) -> str:
    """Return what the colours of a timeline mean, as HTML."""
    legend = [*_LEGEND, *([_BROKEN] if 'class="break"' in drawing else [])]
    return f'<p class="legend">{"".join(map(_legend, legend))}</p>'


def _legend(entry: tuple[str, str]) -> str:
    class_, words = entry
    box = f'<rect class="{class_}" x="1" y="3" width="20" height="10"/>'
    svg = f'<svg class="timeline" width="22" height="16" aria-hidden="true">{box}</svg>'
    return f"<span>{svg}{words}</span>"


_HEAD = ("job", "state", "attempts", "waited", "took", "began", "on", "why")
_NUMBERS = ("attempts", "waited", "took", "began")


def _table(report: RunReport, rows: Sequence[Row]) -> Iterator[str]:
    yield "<h2>Jobs</h2>"
    yield TABLE_START
    heads = (f"<th{' class=number' if name in _NUMBERS else ''}>{name}</th>" for name in _HEAD)
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    begin = find_begin(report)
    yield from (_table_row(row, begin, report.hosts) for row in pick_rows(rows, _MAX_TABLE))
    yield "</tbody>"
    yield TABLE_END
    if len(rows) > _MAX_TABLE:
        yield f"<p>{more_are(len(rows) - _MAX_TABLE, 'job')} not in this table.</p>"


def _table_row(row: Row, begin: datetime, hosts: Mapping[str, tuple[str, int]]) -> str:
    told = tell_row(row, begin, hosts)
    if told.is_one_job:
        [(look, _)] = told.states
        states = f"{find_mark(look)} {'failed, tolerated' if look == TOLERATED else look}"
    else:
        states = ", ".join(f"{find_mark(look)} {number:,} {look}" for look, number in told.states)
    waited, took = ("<br>".join(each) for each in (told.waited, told.took))
    return (
        f'<tr><th scope="row">{escaped(row.name)}</th><td class="short">{states}</td>'
        f'<td class="number">{f"{told.attempts:,}" if told.attempts else ""}</td>'
        f'<td class="number">{waited}</td><td class="number">{took}</td>'
        f'<td class="number">{told.began}</td>'
        f'<td class="short">{escaped(told.on)}</td>'
        f"<td>{escaped(told.why)}</td></tr>"
    )


@dataclass(frozen=True, slots=True)
class ToldRow:
    """What a table says of a declaration.

    Shape: `states` has how many of its jobs look how; `waited` and `took` are a duration or, of
    several, the median and the longest, or empty; `began` is the time since the run's begin, `+3s`.
    """

    name: str
    is_one_job: bool
    states: tuple[tuple[str, int], ...]
    attempts: int
    waited: tuple[str, ...]
    took: tuple[str, ...]
    began: str
    began_at: datetime | None
    on: str
    why: str


def tell_row(row: Row, begin: datetime, hosts: Mapping[str, tuple[str, int]]) -> ToldRow:
    """Return what a table says of a declaration."""
    attempts = row.all_attempts
    begun = min((each.started_at for each in attempts if each.started_at), default=None)
    since = (begun - begin).total_seconds() if begun else None
    workers = sorted({each.worker for each in attempts if each.worker})
    on = count(len(workers), "worker") if workers else ""
    if len(workers) == 1:
        on = say_place(workers[0], hosts)
    reasons = {_why(*each) for each in zip(row.jobs, row.attempts, strict=True)} - {""}
    why = reasons.pop() if len(reasons) == 1 else f"{len(reasons)} reasons" if reasons else ""
    measured = attempts if len(row.jobs) > 1 else attempts[-1:]
    return ToldRow(
        row.name,
        len(row.jobs) == 1,
        tuple(Counter(map(look_of, row.jobs)).items()),
        len(attempts),
        _describe([each.waited_s for each in measured if each.waited_s is not None]),
        _describe([each.duration_s for each in measured if each.duration_s is not None]),
        "" if since is None else f"+{format_duration(since)}",
        begun,
        on,
        why[:_MAX_REASON],
    )


def say_place(worker: str, hosts: Mapping[str, tuple[str, int]]) -> str:
    """Return where a worker is, or the beginning of its name where that is not known."""
    host, pid = hosts.get(worker, ("", 0))
    return f"{host}, process {pid}" if host else f"worker {worker[:_MAX_WORKER]}"


def _why(job: JobStatus, attempts: Sequence[Attempt]) -> str:
    """Return why a job is as it is; that its failure is tolerated stands beside its state."""
    reason = "" if job.reason == TOLERATED else job.reason
    return reason or (_find_error(attempts) if job.state in BAD else "")


def _describe(seconds: Sequence[float]) -> tuple[str, ...]:
    """Return a duration; of several, the median and the longest."""
    if len(seconds) > 1:
        middle, most = format_duration(median(seconds)), format_duration(max(seconds))
        return f"median {middle}", f"up to {most}"
    return tuple(map(format_duration, seconds))
