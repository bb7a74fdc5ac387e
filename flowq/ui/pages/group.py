"""A group: how many items are in which state, the items by state, how long they took, and why
some failed. Of a large group only one page of its items is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.client import missing_job
from flowq.pictures.report import say_place
from flowq.render.groups import Declared, choose_items
from flowq.render.lines import format_duration
from flowq.render.tally import LEAST_ITEMS
from flowq.runtime.counts import find_items, read_newest_ends
from flowq.runtime.runs import read_job_records
from flowq.status import BAD, ENDED, TOLERATED, JobStatus
from flowq.ui.pages.inside import find_many
from flowq.ui.pages.parts import find_target, when_counted
from flowq.ui.pages.waiting import ask, read_items
from flowq.ui.reading import Seen
from flowq.ui.site import site_of

PAGE = 100
SLOWEST = 10
ERRORS = 10
MAX_NAMED = 3
MAX_ERROR = 200
MAX_LINE = 1_000
"""How many characters of an error are compared."""

BARS = 24
NEWEST_ENDS = 4_000
"""Of a group whose items are counted: so many of the run's newest events are looked at for the
durations and errors."""

MAX_ERRORS_READ = 1_000
_WORST_FIRST = (*BAD, TOLERATED, "started", "queued", "scheduled", "deferred", "finished")


@dataclass(frozen=True, slots=True)
class _Group:
    """A group.

    Shape: `counts` by state; `items` are those of the page, `next` the query of the next one;
    `durations` are seconds, of the items that `measured` describes; `errors` are first lines, each
    with how many items have it and the names of some.
    """

    state: str
    counts: Mapping[str, int]
    chosen: str
    items: Sequence[JobStatus]
    has_more: bool
    ended: Sequence[JobStatus]
    measured: str
    list_job: JobStatus | None = None


def show_group(request: Request) -> Response:
    """Show a group."""
    site, name = site_of(request), request.path_params["group"]
    run = client.get_run(request.path_params["run"], site.connection)
    seen, query = site.reader.read_run(run), request.query_params
    target = find_target(seen, request.scope.get("root_path", ""), name)
    if "/jobs/" in target:
        return RedirectResponse(target, 303)
    state, after, text = query.get("state", ""), query.get("after", ""), query.get("find", "")
    found = _read_counted(seen, name, state, after, text)
    if found is None:
        found = _read_folded(seen, name, state, after, text)
    hosts = run.find_hosts(job.worker for job in found.items)
    timed = [job for job in found.ended if job.duration_s is not None and job.started_at]
    slowest = sorted(timed, key=lambda job: job.duration_s or 0.0, reverse=True)[:SLOWEST]
    asked = {"state": found.chosen, "find": text}
    last = found.items[-1].name if found.items else ""
    return site.render(
        request,
        "group.html",
        seen=seen,
        record=seen.record,
        group_name=name,
        group=found,
        total=sum(found.counts.values()),
        rows=[(job, say_place(job.worker, hosts) if job.worker else "") for job in found.items],
        text=text,
        after=after,
        next=_link({**asked, "after": last}) if found.has_more else "",
        first=_link(asked) if after else "",
        link=lambda each: _link({"state": each}),
        slowest=slowest,
        histogram=make_histogram([job.duration_s or 0.0 for job in timed]),
        errors=count_errors(found.ended),
        asking=_find_asking(seen, name),
    )


def _link(query: Mapping[str, str]) -> str:
    return "?" + urlencode({key: each for key, each in query.items() if each}) + "#items"


def _read_counted(seen: Seen, name: str, state: str, after: str, text: str) -> _Group | None:
    """Read a group whose items are counted; None for all others."""
    part, run_id, connection = seen.tally.parts.get(name), seen.run.run_id, seen.run.connection
    if seen.counted is None or part is None or not (part.is_group and part.states.total()):
        return None
    counts, items, has_more = +part.states, list[JobStatus](), False
    chosen = state or ("" if text else _find_worst(counts))
    if text:
        items = find_items(run_id, name, text, connection, PAGE + 1)
        items = [job for job in items if chosen in ("", _look(job))]
    elif chosen in counts:
        items = read_items(seen, name, chosen, PAGE + 1, after)
    has_more = len(items) > PAGE and not text
    ended = read_newest_ends(run_id, name, connection, NEWEST_ENDS)
    measured = ""
    if len(ended) < sum(counts[each] for each in (*BAD, TOLERATED, "finished")):
        measured = f"of the {len(ended):,} items that ended last"
    return _Group(
        part.state, counts, chosen, items[:PAGE], has_more, ended, measured, part.list_job
    )


def _read_folded(seen: Seen, name: str, state: str, after: str, text: str) -> _Group:
    status = seen.status if seen.counted is None else seen.run.status()
    group = find_many(status, name)
    if group is None:
        raise missing_job(seen.run.run_id, name, status.names())
    counts = Counter(map(_look, group.items))
    chosen = state or ("" if text else _find_worst(counts))
    items, has_more = _choose(seen, group, chosen, after, text)
    ended = [job for job in group.items if job.state in ENDED]
    return _Group(group.state, counts, chosen, items, has_more, ended, "", group.list_job)


def _choose(
    seen: Seen, group: Declared, state: str, after: str, text: str
) -> tuple[list[JobStatus], bool]:
    names = {job.name for job in group.items}
    if text:
        found = _search(seen, group.items, text)
        chosen = [job for job in found if state in ("", _look(job))]
        return chosen[:PAGE], False
    if state == TOLERATED:
        behind = list(group.items)
        if after in names:
            behind = behind[[job.name for job in behind].index(after) + 1 :]
        tolerated = [job for job in behind if job.is_tolerated]
        return tolerated[:PAGE], len(tolerated) > PAGE
    if state:
        return choose_items(group, state, after if after in names else "", PAGE)
    return list(group.items[:PAGE]), False


def _search(seen: Seen, items: Sequence[JobStatus], text: str) -> list[JobStatus]:
    """Return the items that have a text in their name, or in the call with their item's value."""
    wanted = text.lower()
    records = read_job_records([job.job_id for job in items], seen.run.connection)
    return [
        job
        for job in items
        if wanted in job.name.lower()
        or (job.job_id in records and wanted in records[job.job_id].description.lower())
    ]


def _look(job: JobStatus) -> str:
    return TOLERATED if job.is_tolerated else job.state


def _find_worst(counts: Mapping[str, int]) -> str:
    return next((each for each in (*_WORST_FIRST, *counts) if counts.get(each)), "")


def count_errors(ended: Iterable[JobStatus]) -> list[tuple[str, int, list[str]]]:
    """Count the first lines of errors, those together that differ only in values.

    Shape: the most frequent first, each with the number of items and the names of some. Values are
    shown as `…` where they differ.
    """
    names: dict[str, list[str]] = {}
    lines: dict[str, set[str]] = {}
    for job in ended:
        if job.state in BAD:
            why = job.error or ("" if job.reason == TOLERATED else job.reason) or "unknown"
            kind = without_values(why)
            names.setdefault(kind, []).append(job.name)
            lines.setdefault(kind, set()).add(why[:MAX_ERROR])
    most = sorted(names.items(), key=lambda each: -len(each[1]))
    return [
        (next(iter(lines[kind])) if len(lines[kind]) == 1 else kind, len(some), some[:MAX_NAMED])
        for kind, some in islice(most, ERRORS)
    ]


_VALUE = re.compile(
    r"""
    (?<!\w)'[^']*(?:'(?!\w)|$) | (?<!\w)"[^"]*(?:"|$) | `[^`]*(?:`|$)  # what is quoted, or cut
    | (?P<path>(?<![\w.~-])[\w.~-]*+:?(?:[/\\]+[\w.~@%+?&=\#:-]+)+)      # paths and addresses
    | \b0[xX][0-9a-fA-F]+
    | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
    | \b(?=\w*[0-9])[0-9a-fA-F]{7,}\b
    | [0-9]+(?:[.,:_-][0-9]+)*
    """,
    re.VERBOSE,
)


def without_values(line: str) -> str:
    """Return an error without what differs from item to item: numbers, ids, paths, quoted texts."""

    def replace(found: re.Match[str]) -> str:
        is_word = found["path"] and not re.search(r"[\d.:\\]|^/", found[0])  # `Input/output`
        return found[0] if is_word else "…"

    return _VALUE.sub(replace, line[:MAX_LINE])[:MAX_ERROR]


def _find_asking(seen: Seen, name: str) -> object:
    part = seen.find_part(name)
    if part is None:
        return None
    jobs = [job for job in seen.status.jobs.values() if job.is_asking and job.declared_as == name]
    number = len(jobs)
    for group in seen.counted.groups if seen.counted else ():
        if group.name == name and (number := group.counts.get(("item", "asking"), 0)):
            jobs = read_items(seen, name, "asking", limit=1)
    if not jobs:
        return None
    records = read_job_records([jobs[0].job_id], seen.run.connection)
    return ask(jobs[0], name, records.get(jobs[0].job_id), number)


# How long they took ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many items took how long.

    Shape: `bars` have from, to (as text) and how many; each is drawn `x`, `height` (of 60).
    """

    bars: Sequence[tuple[str, str, int, float, float]]
    total: int
    median: str
    ninetieth: str
    longest: str


def make_histogram(seconds: Sequence[float]) -> Histogram | None:
    """Return the distribution of durations; None of too few to have one."""
    if len(seconds) < LEAST_ITEMS:
        return None
    ordered = sorted(seconds)
    least, most = ordered[0], ordered[-1]
    width = (most - least) / BARS or 0.001
    counts = Counter(min(int((each - least) / width), BARS - 1) for each in ordered)
    highest = max(counts.values())
    bars = [
        (
            format_duration(least + at * width),
            format_duration(least + (at + 1) * width),
            counts[at],
            at * 20.0,
            round(max(60 * counts[at] / highest, 1.0 if counts[at] else 0.0), 1),
        )
        for at in range(BARS)
    ]
    rank = len(ordered) - 1
    told = (format_duration(ordered[round(part * rank)]) for part in (0.5, 0.9, 1))
    return Histogram(bars, len(ordered), *told)


ROUTES: list[BaseRoute] = [Route("/runs/{run}/groups/{group:path}", when_counted(show_group))]
