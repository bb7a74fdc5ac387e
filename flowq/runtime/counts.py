"""How many items of each group of a run are in which state, without reading the items.

A script counts the events, each of them once and a page at a time, whenever somebody asks
(`lua/counts.lua`). So the counts are those that folding the events gives, whichever versions have
written these, and jobs pay nothing for them. Readers fold the events where there are no counts
(None here): for a run that has many single jobs and no large groups, for a user who may only look,
on a server that takes no changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import starmap
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.exceptions import NoPermissionError
from rq.utils import as_text, str_to_date

from flowq.runtime import keys, runs, scripts
from flowq.runtime.connections import read_each
from flowq.status import (
    ASKING,
    BAD,
    BUSY,
    ENDED,
    STUCK,
    TOLERATED,
    Event,
    JobStatus,
    RunStatus,
    fold,
)

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

STATES = (
    *("deferred", "asking", "stuck", "scheduled", "queued", "started"),
    *("finished", "skipped", "tolerated", "failed", "stopped", "expired", "canceled", "deleted"),
)
"""The states that are told apart, in the order of their codes. `asking`, `stuck` and `tolerated`
are cases of `deferred` and `failed`."""

_SHOWN = {"asking": "deferred", "stuck": "deferred"}

Kind = Literal["item", "inside", "start", "list"]
KINDS: tuple[Kind, ...] = ("item", "inside", "start", "list")
"""What a job is to its group: an item, inside of a workflow that an item runs, or one that begins
such a workflow, or makes a list inside of it."""

EVENTS_PER_CALL = 2_000
"""How many declared jobs and events a script reads in one call. Meanwhile the server serves nobody
else: 15 to 30 ms, and 50 to 130 ms on a machine with four times as much to do as it has cores."""

FEW_EVENTS = 2_000
"""Folding these takes no longer than counting them."""


@dataclass(frozen=True, slots=True)
class RunTotals:
    """How many jobs a run has so far, those that help others among them.

    `left` have not ended; `bad` failed or were canceled, and are not tolerated.
    """

    jobs: int
    left: int
    bad: int


def read_totals(run_ids: Iterable[str], connection: Redis) -> dict[str, RunTotals]:
    """Return how many jobs runs have, by run id. One round trip, and no reading of jobs."""

    def ask(pipe: Pipeline, run_id: str) -> None:
        pipe.llen(keys.run_jobs(run_id))
        pipe.hmget(keys.run(run_id), "left", "bad")

    return {
        run_id: RunTotals(jobs, max(0, int(left or 0)), max(0, int(bad or 0)))
        for run_id, (jobs, (left, bad)) in read_each(run_ids, connection, ask)
    }


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """One group. Shape: `counts` by kind and state, without zeros; `failed` has the newest items
    that failed, the oldest of them first.

    `began_at` is when the first of its jobs began, in a retried run the first of those that ran
    again. `ended_at` is when the last one ended. `is_retried`: some began before a retry.
    """

    name: str
    counts: Mapping[tuple[Kind, str], int] = field(default_factory=dict)
    began_at: datetime | None = None
    ended_at: datetime | None = None
    is_retried: bool = False
    failed: tuple[JobStatus, ...] = ()

    @property
    def states(self) -> dict[str, int]:
        """How many of its items are in each state, `TOLERATED` for a failure that is."""
        found: dict[str, int] = {}
        for (kind, state), count in self.counts.items():
            if kind == "item":
                shown = _SHOWN.get(state, state)
                found[shown] = found.get(shown, 0) + count
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """A run with counts instead of the jobs of its groups.

    Shape: `status` has the single jobs only; `groups` are in no order, `order` has the names of
    groups and single jobs as declared.
    """

    status: RunStatus
    groups: tuple[GroupCounts, ...]
    order: tuple[str, ...]

    @property
    def is_stuck(self) -> bool:
        """Whether some job waits for failed blockers."""
        return any(job.is_stuck for job in self.status.jobs.values()) or any(
            state == "stuck" for group in self.groups for _, state in group.counts
        )


def read_counted(run_id: str, connection: Redis) -> Counted | None:
    """Return the counts of a run, or None if its events have to be folded instead.

    Costs as much as the events since the last call, and reading the ids of what is declared: one
    job for a `for_each`, however many items it adds, but each combination of a matrix. Where
    single jobs have been added, for example by a nested workflow, all ids of the run are read.
    Errors: RunNotFound.
    """
    declared = _read_declared(run_id, connection)
    answer = _catch_up(run_id, connection) if declared else None
    if answer is None or declared is None:
        return None
    raw, flat, entries, failures = answer
    kept = dict(zip(map(as_text, raw[::2]), map(as_text, raw[1::2]), strict=True))
    counts: dict[str, dict[tuple[Kind, str], int]] = {}
    for number, code, kind, count in zip(*(flat[at::4] for at in range(4)), strict=True):
        counts.setdefault(str(number), {})[KINDS[kind], STATES[code - 1]] = count
    status = fold(declared.status, map(_read_entry, entries))
    if len(status.jobs) > len(declared.status.jobs):  # code has added some while the run ran
        status = replace(status, jobs=_sort(status.jobs, run_id, connection))
    failed = _read_failed(failures, connection)
    groups = []
    for name, number in ((key[2:], kept[key]) for key in kept if key.startswith("n:")):
        began, before = kept.get(f"began:{number}"), kept.get(f"before:{number}")
        times = (_instant(began or before), _instant(kept.get(f"ended:{number}")))
        own = tuple(job for job in failed if job.name.partition("[")[0] == name)
        if found := counts.get(number):
            groups.append(GroupCounts(name, found, *times, before is not None, own))
    state = _state_of(status, groups)
    status = replace(status, state=state, last_event_id=kept["at"])
    return Counted(status, tuple(groups), declared.order)


def read_if_large(run_id: str, connection: Redis) -> Counted | None:
    """Return the counts of a run with many events, or None. Errors: RunNotFound."""
    if connection.xlen(keys.run_events(run_id)) <= FEW_EVENTS:
        return None
    return read_counted(run_id, connection)


class _Declared(NamedTuple):
    """The order of what is declared, and a run's status before any event, without the items."""

    order: tuple[str, ...]
    status: RunStatus


def _read_declared(run_id: str, connection: Redis) -> _Declared | None:
    record = runs.get_record(run_id, connection)
    ids = [as_text(job_id) for job_id in connection.lrange(keys.run_order(run_id), 0, -1)]
    if not ids:  # of an older version
        return None
    group_ids = {as_text(raw) for raw in connection.sscan_iter(keys.run_groups(run_id))}
    single = [job_id for job_id in ids if group_ids.isdisjoint(_outer_ids(job_id))]
    name_by_id = runs.read_names(run_id, single, connection)
    groups = frozenset(runs.read_groups(run_id, connection))
    order = dict.fromkeys(
        name_by_id.get(job_id, job_id.partition("--")[0].removeprefix(f"{run_id}-"))
        for job_id in ids
    )
    jobs = {name: JobStatus(name, job_id) for job_id, name in name_by_id.items()}
    return _Declared(tuple(order), RunStatus(run_id, record.workflow, jobs=jobs, groups=groups))


def _outer_ids(job_id: str) -> Iterator[str]:
    outer = job_id.rpartition("--")[0]
    while outer:
        yield outer
        outer = outer.rpartition("--")[0]


def _read_failed(entries: list[Any], connection: Redis) -> list[JobStatus]:
    """Return the jobs of events that tell failures, the oldest first."""
    jobs = fold(RunStatus("", ""), map(_read_entry, entries)).jobs.values()
    ordered = sorted(jobs, key=lambda job: job.ended_at or _NEVER)
    answers = read_each(
        [job.job_id for job in ordered],
        connection,
        lambda pipe, job_id: pipe.hget(keys.job(job_id), "flowq_attempts"),
    )
    return [
        replace(job, attempts=int(count or 1))
        for job, (_, (count,)) in zip(ordered, answers, strict=True)
    ]


_NEVER = datetime.max.replace(tzinfo=UTC)


def _sort(jobs: Mapping[str, JobStatus], run_id: str, connection: Redis) -> dict[str, JobStatus]:
    """Return jobs in the order in which `runs.get_declared` has them."""
    added = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    order = [as_text(job_id) for job_id in connection.lrange(keys.run_order(run_id), 0, -1)]
    known = dict.fromkeys([*order, *reversed(added)])
    place_by_id = {job_id: at for at, job_id in enumerate(known)}
    return dict(sorted(jobs.items(), key=lambda item: place_by_id.get(item[1].job_id, inf)))


def _read_entry(entry: list[Any]) -> Event:
    fields = entry[1]
    return runs.read_entry(entry[0], dict(zip(fields[::2], fields[1::2], strict=True)))


def _catch_up(run_id: str, connection: Redis) -> tuple[list[Any], ...] | None:
    while True:
        try:
            answer = scripts.COUNT.call(connection, keys.run(run_id), run_id, EVENTS_PER_CALL)
        except NoPermissionError:  # of a user who may only look
            return None
        if answer[0] == b"none":
            return None
        if answer[0] == b"all":
            return tuple(answer[1:])


def _instant(microseconds: str | None) -> datetime | None:
    if not microseconds:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))


def _state_of(status: RunStatus, groups: list[GroupCounts]) -> str:
    """Return `waiting` for a running run in which nothing can happen unless somebody acts."""
    if status.state not in ("running", "waiting"):
        return status.state
    states = {state for group in groups for _, state in group.counts}
    is_busy = states & set(BUSY) or any(job.state in BUSY for job in status.jobs.values())
    is_held_up = states & {"asking", "stuck"} or status.is_held_up or status.state == "waiting"
    return "waiting" if is_held_up and not is_busy else "running"


def read_page(
    counted: Counted, group: str, state: str, connection: Redis, *, after: str = "", limit: int
) -> list[JobStatus] | None:
    """Return items of a group that are in a state as a status has them, in their order.

    `after` is the name of an item, behind which the page begins. The server looks through the
    events for those of these items, and transfers no others. Returns None where that cannot be
    told: there is no such item, or the state is one of two that counts tell apart.
    """
    run_id, wanted = counted.status.run_id, (*_SHOWN_AS.get(state, ()), state)
    counts = next((each.counts for each in counted.groups if each.name == group), {})
    found = [each for each in wanted if ("item", each) in counts]
    if len(found) > 1 or (after and connection.zscore(keys.run_states(run_id), after) is None):
        return None
    names = _list_items(run_id, group, found[0], connection, after, limit) if found else []
    events = read_job_events(run_id, names, connection) if names else []
    jobs = fold(RunStatus(run_id, ""), events).jobs
    return [jobs.get(name) or JobStatus(name, "") for name in names]


def read_job_events(run_id: str, names: Sequence[str], connection: Redis) -> list[Event]:
    """Return the events of some jobs of a run, in their order.

    The server looks through all events of the run, and transfers no others.
    """
    return _find_events(run_id, names, connection, "0-0")


def read_item_events(run_id: str, name: str, job_id: str, connection: Redis) -> list[Event]:
    """Do the same for one job. The server looks only at events since the job was added, if the
    clock of the process that added it is about right."""
    fields = connection.hmget(keys.job(job_id), "created_at", "ended_at")
    created, ended = (str_to_date(each) if each else None for each in fields)
    if created is not None:
        since = f"{int(created.timestamp() * 1_000) - CLOCKS_DIFFER_MS}-0"
        until = int(ended.timestamp() * 1_000) + CLOCKS_DIFFER_MS if ended else None
        events = _find_events(run_id, [name], connection, since, until)
        if events and events[0].state in ("queued", "deferred") and events[-1].state in ENDED:
            return events
    return read_job_events(run_id, [name], connection)


CLOCKS_DIFFER_MS = 2_000


def find_id(run_id: str, name: str, connection: Redis) -> str:
    """Return the id of the job with this name in a run, without reading the run; "" if that fails.

    Finds `page[0]` and `deploy.build`. An item by another key, `page[de]`, and what is inside of
    it, is found in groups that are counted.
    """
    head, bracket, rest = name.partition("]")
    base = _find_item_id(run_id, head + bracket, connection) if bracket else ""
    for known, inside in ((f"{run_id}-", name), (base, rest)):
        job_id = known + _INDEX.sub(r"--\1", inside).replace(".", "--")
        found = connection.hmget(keys.job(job_id), "flowq_run", "flowq_name") if known else []
        if found == [run_id.encode(), name.encode("utf-8", "surrogateescape")]:
            return job_id
    return "" if rest else base


_INDEX = re.compile(r"\[([0-9]+)\]")


def _find_item_id(run_id: str, name: str, connection: Redis) -> str:
    """Return the id of an item of a group that is counted; "" for an unknown name."""
    score = connection.zscore(keys.run_states(run_id), name)
    group = name.partition("[")[0]
    is_item = score is not None and int(score) // PER_BUCKET % len(KINDS) == 0
    return f"{run_id}-{group}--{int(score or 0) % PER_BUCKET}" if is_item else ""


def _find_events(
    run_id: str, names: Sequence[str], connection: Redis, last: Any, until_ms: int | None = None
) -> list[Event]:
    events: list[Any] = []
    while last and (until_ms is None or int(as_text(last).partition("-")[0]) <= until_ms):
        arguments = (run_id, last, EVENTS_PER_CALL, *names)
        last, some = scripts.FIND_EVENTS.call(connection, keys.run(run_id), *arguments)
        events += some
    return list(map(_read_entry, events))


def read_items(
    counted: Counted, group: str, state: str, connection: Redis, *, after: str = "", limit: int
) -> list[JobStatus]:
    """Return items as `read_page` does, from their own records: it costs as much as the items.

    `state` is one of `STATES`. Says nothing of progress, of retries to come, and of earlier
    attempts. Of an item that is gone, only the name and the state are known.
    """
    run_id = counted.status.run_id
    names = _list_items(run_id, group, state, connection, after, limit)
    return _read_records(run_id, group, dict.fromkeys(names, state), connection)


_ITEM_FIELDS = (
    *("worker_name", "flowq_attempts", "enqueued_at", "started_at", "ended_at"),
    *("flowq_reason", keys.VIEW_FIELD),
)
_REASONS = {"asking": ASKING, "stuck": STUCK, "tolerated": TOLERATED}


def _read_records(
    run_id: str, group: str, state_by_name: Mapping[str, str], connection: Redis
) -> list[JobStatus]:
    with connection.pipeline(transaction=False) as pipeline:
        for name in state_by_name:
            pipeline.zscore(keys.run_states(run_id), name)
        scores = pipeline.execute()
    index_by_name = {
        name: int(score) % PER_BUCKET
        for name, score in zip(state_by_name, scores, strict=True)
        if score is not None
    }
    id_by_name = {name: f"{run_id}-{group}--{at}" for name, at in index_by_name.items()}
    answers = read_each(
        id_by_name.values(), connection, lambda pipe, job: pipe.hmget(keys.job(job), *_ITEM_FIELDS)
    )
    return [
        _read_record(name, job_id, state_by_name[name], fields)
        for name, (job_id, (fields,)) in zip(id_by_name, answers, strict=True)
    ]


PER_BUCKET = 1 << 24
"""In the score of an item, what stands below this is its index (`lua/counts.lua`)."""


def _read_record(name: str, job_id: str, state: str, fields: Sequence[bytes | None]) -> JobStatus:
    worker, attempts, *instants, reason, view = (as_text(each or b"") for each in fields)
    queued_at, started_at, ended_at = (str_to_date(each) if each else None for each in instants)
    is_over = state not in ("deferred", "asking", "stuck", "scheduled", "queued")
    said = json.loads(view) if view and state in (*BAD, "tolerated") else {}
    return JobStatus(
        name,
        job_id,
        "failed" if state == "tolerated" else _SHOWN.get(state, state),
        reason or _REASONS.get(state, ""),
        worker if is_over else "",
        int(attempts or 0),
        queued_at=queued_at,
        started_at=started_at if is_over else None,
        ended_at=ended_at if state in ENDED or state == "tolerated" else None,
        error=str((said.get("failure") or {}).get("error") or said.get("error") or ""),
    )


def read_newest_events(run_id: str, connection: Redis, limit: int) -> list[Event]:
    """Return the newest events of a run, in their order."""
    entries: Any = connection.xrevrange(keys.run_events(run_id), count=limit)
    return list(starmap(runs.read_entry, reversed(entries)))


def read_newest_ends(run_id: str, group: str, connection: Redis, limit: int) -> list[JobStatus]:
    """Return the items of a group that ended among the newest events of a run, in no order.

    Reads `limit` events.
    """
    found: dict[str, Event] = {}
    for event in reversed(read_newest_events(run_id, connection, limit)):
        if event.name.startswith(f"{group}[") and event.name.endswith("]"):
            found.setdefault(event.name, event)
    ended = [each for each in found.values() if each.state in ENDED]
    return list(fold(RunStatus(run_id, ""), ended).jobs.values())


def find_items(
    run_id: str, group: str, text: str, connection: Redis, limit: int
) -> list[JobStatus]:
    """Return some items of a counted group with this text in their keys, as in `page[3]`.

    Looks at `MAX_SEARCHED` items or some more; the case of ASCII letters does not matter.
    """
    letters = (
        f"[{each.lower()}{each.upper()}]"
        if each.isascii() and each.isalpha()
        else f"\\{each}"
        if each in "*?[]\\^"
        else each
        for each in text
    )
    pattern = f"{group}\\[*{''.join(letters)}*\\]"
    names: list[str] = []
    cursor = looked_at = 0
    while looked_at < MAX_SEARCHED and len(names) < limit:
        answer: Any = connection.zscan(keys.run_states(run_id), cursor, pattern, ITEMS_PER_SCAN)
        cursor, some = answer
        names += [as_text(name) for name, _ in some]
        looked_at += ITEMS_PER_SCAN
        if not cursor:
            break
    shown = sorted(names[:limit])
    with connection.pipeline(transaction=False) as pipeline:
        for name in shown:
            pipeline.zscore(keys.run_states(run_id), name)
        scores = pipeline.execute()
    codes = {
        name: int(score) // PER_BUCKET // len(KINDS) % STATES_PER_GROUP - 1
        for name, score in zip(shown, scores, strict=True)
        if score is not None
    }
    states = {name: STATES[code] for name, code in codes.items()}
    return _read_records(run_id, group, states, connection)


STATES_PER_GROUP = 16


MAX_SEARCHED, ITEMS_PER_SCAN = 1_000_000, 20_000
"""How many items of a group are looked at for a text, altogether and in one call."""

_SHOWN_AS = {"deferred": ("asking", "stuck"), "failed": ("tolerated",)}


def _list_items(
    run_id: str, group: str, state: str, connection: Redis, after: str, limit: int
) -> list[str]:
    """Return the names of items of a group that are in one of `STATES`, in their order.

    The run has been counted before.
    """
    arguments = (run_id, group, STATES.index(state) + 1, after, limit)
    raw = scripts.LIST_ITEMS.call(connection, keys.run(run_id), *arguments)
    return [as_text(name) for name in raw]
