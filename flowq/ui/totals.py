"""How many jobs of runs have ended, for lists: counted as `flowq status` does, without what helps.

Folds the events of a run, and keeps what it has found until the run has new ones. Of a run that is
too large for that, the server's own counts are shown, which have the jobs that help among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from flowq.errors import RunNotFound
from flowq.runtime import keys
from flowq.runtime.connections import read_each
from flowq.runtime.counts import RunTotals, read_totals
from flowq.runtime.runs import get_declared, read_events
from flowq.status import BAD, ENDED, RunStatus, fold
from flowq.ui.live_counts import as_text

if TYPE_CHECKING:
    from redis import Redis

MOST_EVENTS, EVENTS_PER_CALL = 2_000, 20_000
"""The most events of a run that is folded, and of all that one call folds."""

NEWEST_JOBS, INSIDE = 100, "--"
"""Jobs inside of nested workflows have this in their ids, and are among the newest of a run."""

MAX_KEPT = 1_000

_kept: dict[tuple[str, Any], RunTotals] = {}
_lock = Lock()


def count_runs(run_ids: Sequence[str], connection: Redis) -> dict[str, RunTotals]:
    """Return how many jobs runs have, by run id."""
    found, left = read_totals(run_ids, connection), EVENTS_PER_CALL
    answers = read_each(
        run_ids,
        connection,
        lambda pipe, run: (
            pipe.xlen(keys.run_events(run)),
            pipe.xrevrange(keys.run_events(run), count=1),
            pipe.exists(keys.run_groups(run)),
            pipe.lrange(keys.run_jobs(run), 0, NEWEST_JOBS - 1),
        ),
    )
    for run_id, (size, newest, has_groups, jobs) in answers:
        if not has_groups and not any(INSIDE in as_text(job_id) for job_id in jobs):
            continue  # nothing in it helps, so the server's counts are the same
        key = run_id, newest[0][0] if newest else b""
        with _lock:
            known = _kept.get(key)
        if known is None and 0 < size <= min(MOST_EVENTS, left):
            left -= size
            try:
                declared = get_declared(run_id, connection)
            except RunNotFound:
                continue
            known = _count(fold(declared, read_events(run_id, connection)))
            with _lock:
                _kept[key] = known
                for oldest in list(_kept)[:-MAX_KEPT]:
                    del _kept[oldest]
        if known is not None:
            found[run_id] = known
    return found


def _count(status: RunStatus) -> RunTotals:
    jobs = list(status.declared())
    bad = (*BAD, "canceled", "deleted")
    return RunTotals(
        len(jobs),
        sum(job.state not in ENDED for job in jobs),
        sum(job.state in bad and not status.is_tolerated(job) for job in jobs),
    )
