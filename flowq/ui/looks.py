"""How the page writes states, counts, instants and inputs: the filters of its templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from flowq.durations import utc_time
from flowq.history import find_run_duration
from flowq.inputs import EXAMPLE_BY_TYPE
from flowq.render.events import progress_text
from flowq.render.lines import (
    count,
    find_mark,
    format_age,
    format_duration,
    shortened,
    spelled,
    write_value,
)
from flowq.render.progress import STATES
from flowq.spec import Input
from flowq.status import BAD, TOLERATED
from flowq.ui.values import show_input

_LOOKS_LIKE: Mapping[str, str] = {
    "running": "started",
    "active": "started",
    "busy": "started",
    "succeeded": "finished",
    "lost": "failed",
    "unserved": "failed",
    "flaky": "tolerated",
    "waiting": "deferred",
    "staged": "deferred",
    "handed": "queued",
    "idle": "deferred",
    "resting": "deferred",
    "paused": "stopped",
    "suspended": "stopped",
    "stopping": "scheduled",
}
"""States of runs, executions, workers and schedules, and the states of jobs with the same glyph."""

_ORDER = (*BAD, TOLERATED, *STATES[len(BAD) :])
"""The order of counts: that of all displays."""

_BAR = 100.0


def glyph(state: str) -> str:
    """Return the character that stands for a state, beside its word."""
    return find_mark(_LOOKS_LIKE.get(state, state))


def said(state: str) -> str:
    """Return the word for a state."""
    return {"handed": "handed over", "unserved": "nobody serves it"}.get(state, state)


def ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return counts by state without zeros, what is bad first."""
    rank = {state: at for at, state in enumerate(_ORDER)}
    found = [(state, number) for state, number in counts.items() if number]
    return sorted(found, key=lambda each: rank.get(each[0], len(rank)))


def parts(counts: Mapping[str, int]) -> Iterator[tuple[str, float, float]]:
    """Yield the parts of a bar that is 100 wide: state, where it begins, and its width."""
    total, begin = sum(counts.values()), 0.0
    for state, number in ordered(counts):
        width = _BAR * number / total
        yield state, round(begin, 2), round(width, 2)
        begin += width


def percent_of(value: float, most: float) -> float:
    """Return the width of a bar that is 100 wide for `most`, and never invisible."""
    return round(min(_BAR, max(1.0, _BAR * value / most)), 1) if most > 0 else 1.0


def iso(at: datetime) -> str:
    """Return an instant for the attribute `datetime`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def before(at: datetime, seconds: float) -> datetime:
    """Return the instant so many seconds before another one."""
    return at - timedelta(seconds=seconds)


def relative(at: datetime, now: datetime) -> str:
    """Return how long ago an instant was, or in how long it will be."""
    ahead_s = (at - now).total_seconds()
    return f"in {format_duration(ahead_s)}" if ahead_s >= 1 else format_age(at, now)


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text.encode("utf-8", "surrogateescape"), safe="")


_PAGE = re.compile(r"the page of ([^/\s]+)/(\S+)")


def linked(hint: str, root: str) -> Markup | str:
    """Return a hint; in `the page of RUN/JOB`, the job is a link."""
    found = _PAGE.search(hint)
    if found is None:
        return spelled(hint)
    run_id, name = found.groups()
    around = spelled(hint[: found.start()]), spelled(hint[found.end() :])
    url = f"{root}/runs/{segment(run_id)}/jobs/{segment(name)}"
    link = Markup('the page of <a href="{}"><bdi>{}</bdi></a>').format(url, spelled(name))
    return Markup("{}{}{}").format(around[0], link, around[1])


def filled(value: Any, type_: str) -> str:
    """Return the value of an input as a form has it, which `flowq.inputs` reads."""
    if value is None:
        return ""
    if type_ in ("json", "list"):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else str(value)


def hint_of(declared: Input) -> str:
    """Return what to know of an input before filling it in."""
    hints = [declared.description]
    if declared.pattern is not None:
        hints.append(f"The whole text must match {declared.pattern}")
    elif declared.type in ("list", "json"):
        hints.append(f"For example: {EXAMPLE_BY_TYPE[declared.type]}")
    return " ".join(filter(None, hints))


_CHECKED_BY_TYPE = {
    "int": r"\s*[+\-]?[0-9]{1,1000}\s*",
    "float": r"\s*[+\-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?\s*",
}
_FITS_BY_TYPE = {"int": "a whole number", "float": "a number"}
_ALIKE = re.compile(
    r"(?:[A-Za-z0-9 _@,:.*+?^$]|\[(?:[A-Za-z0-9_.]|[A-Za-z0-9]-[A-Za-z0-9])+\]|\{[0-9,]+\})+"
)
"""Patterns that a browser takes for the same as Python."""


def checked_by(declared: Input) -> str:
    """Return the pattern by which a browser checks a field before it is sent, or ""."""
    if declared.pattern is not None:
        return declared.pattern if _ALIKE.fullmatch(declared.pattern) else ""
    return _CHECKED_BY_TYPE.get(declared.type, "")


def fits(declared: Input) -> str:
    """Return what a browser says of a field that does not fit."""
    return _FITS_BY_TYPE.get(declared.type, f"the whole text must match {declared.pattern}")


def since(at: datetime | None, now: datetime) -> float | None:
    """Return the seconds since an instant."""
    return None if at is None else max(0.0, (now - at).total_seconds())


MAX_VALUE = 80
"""Characters of a value that are shown in a list."""


def format_value(value: Any) -> str:
    """Return a value as a list shows it: JSON, cut."""
    if isinstance(value, list | dict) and len(value) > MAX_VALUE:
        return f"{'a list' if isinstance(value, list) else 'a map'} of {len(value):,}"
    return shortened(write_value(value), MAX_VALUE)


MAX_INPUTS = 5
"""How many inputs of a run are shown in short."""


def brief(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the first inputs of a run in short, by name."""
    return [(name, format_value(value)) for name, value in islice(inputs.items(), MAX_INPUTS)]


_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def uncoloured(text: str) -> str:
    """Return what a job has printed without what sets its colours."""
    return _COLOUR.sub("", text)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "as_input": show_input,
    "before": before,
    "brief": brief,
    "checked_by": checked_by,
    "count": count,
    "duration": format_duration,
    "filled": filled,
    "fits": fits,
    "glyph": glyph,
    "hint_of": hint_of,
    "iso": iso,
    "linked": linked,
    "number": "{:,}".format,
    "ordered": ordered,
    "parts": parts,
    "percent_of": percent_of,
    "progress": progress_text,
    "relative": relative,
    "said": said,
    "segment": segment,
    "since": since,
    "spelled": spelled,
    "took_of": find_run_duration,
    "uncoloured": uncoloured,
    "utc": utc_time,
}
