"""Lists of runs, newest first: all of them, by workflow, and by label; and their indexes.

An index is a sorted set of the ids of runs by the time of their submission. The script that removes
a run takes it out of each (lua/lifecycle.lua). `run_labels.py` keeps those by label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.errors import RunNotFound
from flowq.runtime import keys
from flowq.runtime.connections import read_each
from flowq.runtime.run_labels import look_at_labeled
from flowq.runtime.runs import get_current_record
from flowq.status import RunRecord

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

RUNS_PER_READ = 100


def iterate_runs(
    connection: Redis, workflow: str | None = None, labels: Mapping[str, str] | None = None
) -> Iterator[RunRecord]:
    """Yield all runs, newest first, or those of the workflows of one name, and with all labels.

    Reads the records of the shortest list that has all of them.
    """
    labels = labels or {}
    lists = [keys.runs_with(*label) for label in labels.items()]
    if workflow is not None and not _has_old_runs(connection):
        lists.append(keys.runs_of(workflow))
    key = min(lists, key=lambda each: int(connection.zcard(each)), default=keys.RUNS)
    for first in count(0, RUNS_PER_READ):
        run_ids: Any = connection.zrevrange(key, first, first + RUNS_PER_READ - 1)
        if not run_ids:
            return
        for run_id in run_ids:
            try:
                record = get_current_record(as_text(run_id), connection)
            except RunNotFound:  # removed meanwhile
                continue
            if workflow in (None, record.workflow) and labels.items() <= record.labels.items():
                yield record


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
    """Repair the index of runs by workflow, which older versions neither extend nor trim.

    It adds before it trims: so it also trims a run that it has added after its removal. The indexes
    by label are trimmed too; only versions that know them submit runs with labels.
    """
    scores = {as_text(raw): score for raw, score in connection.zscan_iter(keys.RUNS, count=1_000)}
    answers = read_each(scores, connection, lambda pipe, run: pipe.hget(keys.run(run), "workflow"))
    key_by_run = {run_id: keys.runs_of(as_text(name)) for run_id, (name,) in answers if name}

    def add(pipeline: Pipeline, run_id: str) -> None:
        pipeline.zadd(key_by_run[run_id], {run_id: scores[run_id]}, nx=True)

    list(read_each(key_by_run, connection, add))
    for raw_key in connection.scan_iter(f"{keys.runs_of('')}*", count=1_000):
        key = as_text(raw_key)
        entries = [as_text(raw) for raw, _ in connection.zscan_iter(key, count=1_000)]
        found = read_each(entries, connection, lambda pipe, run: pipe.zscore(keys.RUNS, run))
        stale = [run_id for run_id, (score,) in found if score is None]
        for first in range(0, len(stale), 1_000):
            connection.zrem(key, *stale[first : first + 1_000])
    for entry, score in connection.zscan_iter(keys.LABELED, count=1_000):
        look_at_labeled(as_text(entry), score, connection)


def find_run_ids(beginning: str, connection: Redis) -> list[str]:
    """Return the ids of runs with this prefix, in no order.

    Scans the ids of all runs, 1,000 per command.
    """
    pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", beginning) + "*"
    return [as_text(raw) for raw, _ in connection.zscan_iter(keys.RUNS, pattern, count=1_000)]
