"""Lists of runs, newest first: all of them, by workflow, state and label; and their indexes.

An index is a sorted set of the ids of runs by the time of their submission. The script that removes
a run takes it out of each (lua/lifecycle.lua). `run_labels.py` keeps those by label, `lua/runs.lua`
those by state. Where older versions work on the same server, which do not know all of this, workers
put the lists right (`sweep`), and so does whoever reads an entry that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError
from rq.utils import as_text

from flowq.errors import RunNotFound
from flowq.labels import check_labels
from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_each
from flowq.runtime.run_labels import look_at_labeled
from flowq.runtime.runs import read_records
from flowq.status import RUN_ENDED, RunRecord

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

RUNS_PER_READ = 100

MOST_LOOKED_AT = 2_000
"""How many runs are looked at for one page: what no index knows, such as a text, may be rare."""

MAX_SEARCHED = 200
"""How many characters of the value of an input are searched for a text."""

RUNS_PER_SWEEP = 100
"""How many runs a step of a sweep looks at, in about a millisecond of the server's time."""

STATES = ("staged", "running", *sorted(RUN_ENDED))
"""The states of runs that have an index; one that is retried is in that of `running`."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What runs are selected by; all of it must fit, and what is empty fits all.

    `text` is part of the run's id, of the name of its workflow, of a label (`team=data`) or of an
    input (`month=2026-11`), in letters of either case.
    """

    state: str = ""
    workflow: str = ""
    since: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    text: str = ""

    def fits(self, record: RunRecord) -> bool:
        """Whether a run is to be listed."""
        return (
            self.state in ("", record.state)
            and self.workflow in ("", record.workflow)
            and (self.since is None or record.created_at >= self.since)
            and set(self.labels) <= record.labels.items()
            and self.text.casefold() in _searched(record)
        )


def _searched(record: RunRecord) -> str:
    inputs = (f"{name}={value}"[:MAX_SEARCHED] for name, value in record.inputs.items())
    labels = (f"{name}={value}" for name, value in record.labels.items())
    return "\n".join([record.run_id, record.workflow, *labels, *inputs]).casefold()


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first. `after`: where the next page begins; empty if this is the last one.

    A page may have fewer runs than were asked for, or none, and not be the last one.
    """

    runs: tuple[RunRecord, ...]
    after: str = ""


def list_runs(
    connection: Redis,
    limit: int = 50,
    *,
    state: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
    labels: Mapping[str, str] | None = None,
) -> list[RunRecord]:
    """Return the newest runs, newest first. Errors: UsageError for `labels`.

    `workflow` is a name, `since` an instant of submission. `read_run_page` reads lists by pages.
    """
    pairs = tuple(check_labels(labels).items())
    wanted = RunFilter(state or "", workflow or "", since, pairs)
    return list(islice(iterate_runs(connection, wanted), limit))


def read_run_page(
    connection: Redis,
    limit: int,
    wanted: RunFilter | None = None,
    *,
    after: str = "",
    most: int = MOST_LOOKED_AT,
) -> RunPage:
    """Return the newest runs behind the run `after`, at most `limit`, of the next `most` runs.

    Costs as much as the runs it looks at, however many there are: `workflow`, `labels` and `state`
    have indexes. Errors: RunNotFound if the run `after` is gone.
    """
    wanted, found, last = wanted or RunFilter(), list[RunRecord](), ""
    for number, (run_id, record) in enumerate(_iterate(connection, wanted, after, limit)):
        if number == most:
            return RunPage(tuple(found), last)
        last = run_id
        if wanted.fits(record):
            if len(found) == limit:
                return RunPage(tuple(found), found[-1].run_id if found else after)
            found.append(record)
    return RunPage(tuple(found))


def iterate_runs(
    connection: Redis, wanted: RunFilter | None = None, after: str = ""
) -> Iterator[RunRecord]:
    """Yield all runs that fit, newest first, from behind the run `after` on.

    Reads the records of the shortest list that has all of them.
    Errors: RunNotFound if the run `after` is gone.
    """
    wanted = wanted or RunFilter()
    found = _iterate(connection, wanted, after, RUNS_PER_READ)
    return (record for _, record in found if wanted.fits(record))


def _iterate(
    connection: Redis, wanted: RunFilter, after: str, page: int
) -> Iterator[tuple[str, RunRecord]]:
    """Yield the runs of the shortest list that has all that fit, with their ids."""
    key = _find_shortest(connection, wanted)
    newest, seen = "+inf", frozenset[str]()
    oldest = "-inf" if wanted.since is None else f"{wanted.since.timestamp() - 1:.6f}"
    if after:
        score = connection.zscore(keys.RUNS, after)
        if score is None:
            hint = "the list cannot go on behind a run that was removed; begin it anew"
            raise RunNotFound(after, hint)
        newest = repr(float(score))
        # Of one instant, those with later ids are listed first.
        same: Any = connection.zrangebyscore(keys.RUNS, newest, newest)
        seen = frozenset(as_text(raw) for raw in same if as_text(raw) >= after)
    page = max(1, min(page + 1, RUNS_PER_READ))
    while True:
        count = page + len(seen)
        raw: Any = connection.zrevrangebyscore(key, newest, oldest, 0, count, withscores=True)
        scores = {as_text(run_id): repr(float(score)) for run_id, score in raw}
        new = [run_id for run_id in scores if run_id not in seen]
        records = dict(read_records(new, connection))
        _put_right(key, new, records, connection)
        yield from records.items()
        if len(raw) < count:
            return
        newest, page = scores[new[-1]], RUNS_PER_READ
        seen = frozenset(run_id for run_id in scores if scores[run_id] == newest)


def _find_shortest(connection: Redis, wanted: RunFilter) -> str:
    lists = [keys.runs_with(*label) for label in wanted.labels]
    if wanted.workflow and not _has_old_runs(connection):
        lists.append(keys.runs_of(wanted.workflow))
    if wanted.state and _knows_states(connection):
        lists.append(keys.runs_in(_listed_as(wanted.state)))
    return min(lists, key=lambda each: int(connection.zcard(each)), default=keys.RUNS)


def _listed_as(state: str) -> str:
    return "running" if state in ("waiting", "retrying") else state


def _put_right(
    key: str, run_ids: Iterable[str], records: Mapping[str, RunRecord], connection: Redis
) -> None:
    """Move those runs of a list that were removed, or have another state than the list is for."""
    states = {keys.runs_in(state): state for state in STATES}
    wrong = [
        run_id
        for run_id in run_ids
        if run_id not in records
        or (key in states and _listed_as(records[run_id].state) != states[key])
    ]
    if wrong and key != keys.RUNS:
        with suppress(ResponseError):  # a reader that may not write, or a replica
            scripts.CHECK_LISTS.call(connection, key, key, *wrong)


def sweep(connection: Redis) -> int:
    """Make the next step of putting the lists by state and by workflow right, if that is due.

    Every worker calls this; together they look at 100 runs a second: of those that have not ended
    every minute, of all every hour. Returns after how many seconds a step is due again.
    """
    return int(scripts.SWEEP_LISTS.call(connection, keys.MARKS, RUNS_PER_SWEEP))


def _knows_states(connection: Redis) -> bool:
    """Whether each run is listed by a state, as far as numbers tell.

    Those are not that older versions have submitted, until the lists are put right.
    """
    with connection.pipeline(transaction=False) as pipeline:
        for key in (keys.RUNS, *map(keys.runs_in, STATES)):
            pipeline.zcard(key)
        runs, *listed = pipeline.execute()
    return int(runs) == sum(map(int, listed))


def _has_old_runs(connection: Redis) -> bool:
    """Whether the oldest run is of a version that had no index of runs by workflow.

    One that such a version submits later, beside newer ones, is listed after `index_runs`.
    """
    oldest: Any = connection.zrange(keys.RUNS, 0, 0)
    if not oldest:
        return False
    workflow = as_text(connection.hget(keys.run(as_text(oldest[0])), "workflow") or b"")
    return connection.zscore(keys.runs_of(workflow), oldest[0]) is None


def index_runs(connection: Redis) -> None:
    """Repair the indexes by workflow and by state, which older versions neither extend nor trim.

    It adds before it trims: so it also trims a run that it has added after its removal. The indexes
    by label are trimmed too; only versions that know them submit runs with labels.
    """
    scores = {as_text(raw): score for raw, score in connection.zscan_iter(keys.RUNS, count=1_000)}
    answers = read_each(scores, connection, lambda pipe, run: pipe.hget(keys.run(run), "workflow"))
    key_by_run = {run_id: keys.runs_of(as_text(name)) for run_id, (name,) in answers if name}

    def add(pipeline: Pipeline, run_id: str) -> None:
        pipeline.zadd(key_by_run[run_id], {run_id: scores[run_id]}, nx=True)

    list(read_each(key_by_run, connection, add))
    _index_states(scores, connection)
    _trim(map(as_text, connection.scan_iter(f"{keys.runs_of('')}*", count=1_000)), connection)
    for entry, score in connection.zscan_iter(keys.LABELED, count=1_000):
        look_at_labeled(as_text(entry), score, connection)


def _index_states(scores: Mapping[str, float], connection: Redis) -> None:
    def move(pipeline: Pipeline, run_id: str) -> None:
        state = "running" if states[run_id] == "retrying" else states[run_id]
        for other in STATES:
            if other == state:
                pipeline.zadd(keys.runs_in(state), {run_id: scores[run_id]})
            else:
                pipeline.zrem(keys.runs_in(other), run_id)

    def read() -> dict[str, str]:
        answers = read_each(scores, connection, lambda pipe, run: pipe.hget(keys.run(run), "state"))
        return {run_id: as_text(state) for run_id, (state,) in answers if state}

    moved: dict[str, str] = {}
    while states := {run: state for run, state in read().items() if moved.get(run) != state}:
        list(read_each(states, connection, move))  # one may have ended meanwhile
        moved |= states
    _trim([keys.runs_in(state) for state in STATES], connection)


def _trim(indexes: Iterable[str], connection: Redis) -> None:
    """Take out of indexes what is no run any more."""
    for key in indexes:
        entries = [as_text(raw) for raw, _ in connection.zscan_iter(key, count=1_000)]
        found = read_each(entries, connection, lambda pipe, run: pipe.zscore(keys.RUNS, run))
        stale = [run_id for run_id, (score,) in found if score is None]
        for first in range(0, len(stale), 1_000):
            connection.zrem(key, *stale[first : first + 1_000])


def find_run_ids(beginning: str, connection: Redis) -> list[str]:
    """Return the ids of runs with this prefix, in no order.

    Scans the ids of all runs, 1,000 per command.
    """
    pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", beginning) + "*"
    return [as_text(raw) for raw, _ in connection.zscan_iter(keys.RUNS, pattern, count=1_000)]
