"""Events of runs as lines, for `flowq events`."""

from __future__ import annotations

from datetime import tzinfo

from flowq.event import Event
from flowq.render.lines import STYLE_BY_STATE, Line, format_duration, printable
from flowq.reports import Progress


def event_line(event: Event, zone: tzinfo | None = None, *, has_run: bool = False) -> Line:
    """Return `2026-11-29 12:03:04 slice finished (1.2s)`, the id of the run before the job's name
    if it `has_run`. `zone` is the time zone that instants are shown in; None for the local one."""
    at = event.at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
    run = f"{event.run} " if has_run else ""
    state = (event.event, STYLE_BY_STATE.get(event.event, ""))
    name = (f"{printable(event.name) or 'run'} ", "" if event.name else "bold")
    return ((f"{at} {run}", "dim"), name, state, (_detail(event), ""))


def _detail(event: Event) -> str:
    if event.progress is not None:
        return f" {progress_text(event.progress)}"
    said = [event.reason] if event.reason else []
    if event.by and event.by not in event.reason:
        said.append(f"{event.act} by {event.by}")
    if event.error is not None:
        parts = [event.error.type or "", event.error.message]
        error = ": ".join(part for part in parts if part)
        said += [error] if error and error not in event.reason else []
    took = "" if event.duration_s is None else f" ({format_duration(event.duration_s)})"
    return took + (f": {printable(': '.join(said))}" if said else "")


def progress_text(progress: Progress) -> str:
    """Return `30/120 (25%): reading`; of an unknown total `30: reading`."""
    text = f"{progress.done:,}"
    if progress.total is not None:
        percent = int(100 * min(1.0, progress.done / progress.total))
        text += f"/{progress.total:,} ({percent}%)"
    return f"{text}: {printable(progress.message)}" if progress.message else text
