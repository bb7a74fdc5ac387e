"""Compares the counts of a run with what folding its events gives."""

from __future__ import annotations

import re
from collections import Counter

from redis import Redis

from flowq.runtime import keys
from flowq.runtime.counts import Counted, read_counted
from flowq.status import START, JobStatus, RunStatus


def kind_of(job: JobStatus) -> str:
    if job.helps:
        return "start" if job.name.endswith(START) else "list"
    is_item = job.name.endswith("]") and re.fullmatch(r"(?!.*--\d+--).*--\d+", job.job_id)
    return "item" if is_item else "inside"


def state_of(job: JobStatus) -> str:
    if job.is_asking:
        return "asking"
    if job.is_stuck:
        return "stuck"
    return "tolerated" if job.is_tolerated else job.state


def check_counts(status: RunStatus, connection: Redis) -> Counted | None:
    """Fail if there are counts that differ from a status; return them.

    Where events came between the status and the counts, or a test has removed some, there is
    nothing to compare.
    """
    counted = read_counted(status.run_id, connection)
    if counted is None or counted.status.last_event_id != status.last_event_id:
        return None
    first = connection.xrange(keys.run_events(status.run_id), count=1)
    if first and first[0][1][b"name"]:  # a test has removed those before
        return None
    expected: dict[str, Counter[tuple[str, str]]] = {}
    for job in status.jobs.values():
        group, bracket, _ = job.name.partition("[")
        if bracket:
            expected.setdefault(group, Counter())[kind_of(job), state_of(job)] += 1
    found = {group.name: dict(group.counts) for group in counted.groups}
    told = {name: dict(counts) for name, counts in expected.items()}
    assert found == told, f"{found} was counted, {told} was told"
    singles = {
        name: job
        for name, job in status.jobs.items()
        # One inside of a workflow that lacks all that would tell its name has that of its id.
        if "[" not in name and (name in counted.status.jobs or "--" not in name)
    }
    found_singles = dict(counted.status.jobs)
    differing = {
        name for name in {*singles, *found_singles} if singles.get(name) != found_singles.get(name)
    }
    assert not differing, f"{differing} of {found_singles} differ from {singles}"
    for group in counted.groups:
        for failed in group.failed:
            job = status.jobs[failed.name]
            assert (failed.state, failed.error, failed.reason, failed.ended_at) == (
                job.state,
                job.error,
                job.reason,
                job.ended_at,
            )
    assert counted.status.state == status.state
    assert (counted.status.started_at, counted.status.ended_at, counted.status.groups) == (
        status.started_at,
        status.ended_at,
        status.groups,
    )
    return counted
