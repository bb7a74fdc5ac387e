"""Compares the counts that scripts keep of a run with what its events say."""

from __future__ import annotations

from collections import Counter

from redis import Redis

from flowq.runtime import keys
from flowq.runtime.counts import SHOWN, read_tallies
from flowq.status import START, JobStatus, RunStatus


def kind_of(job: JobStatus) -> str:
    if job.helps:
        return "start" if job.name.endswith(START) else "list"
    return "item" if job.is_item else "inside"


def state_of(job: JobStatus) -> str:
    if job.is_asking:
        return "asking"
    if job.is_stuck:
        return "stuck"
    return "tolerated" if job.is_tolerated else job.state


def check_tallies(status: RunStatus, connection: Redis) -> bool:
    """Fail if counts are there and are not those of the events; return whether they are there.

    A test that has removed the events of a run has none to compare with.
    """
    tallies = read_tallies(status.run_id, connection)
    if tallies is None or _are_events_gone(status.run_id, connection):
        return False
    expected: dict[str, Counter[tuple[str, str]]] = {}
    singles: dict[str, str] = {}
    for job in status.jobs.values():
        declared = f"{status.run_id}-{job.declared_as}"
        if job.job_id == declared:
            singles[declared] = job.state
        else:
            counts = expected.setdefault(declared, Counter())
            counts[kind_of(job), state_of(job)] += 1
    found = {tally.job_id: dict(tally.counts) for tally in tallies if tally.counts}
    told = {name: dict(counts) for name, counts in expected.items()}
    assert found == told, f"{found} is counted, {told} was told"
    for tally in tallies:
        if tally.single is not None:
            state = SHOWN.get(tally.single.state, tally.single.state)
            assert state == singles[tally.job_id], f"{tally} is {singles[tally.job_id]}"
    return True


def _are_events_gone(run_id: str, connection: Redis) -> bool:
    first = connection.xrange(keys.run_events(run_id), count=1)
    return bool(first) and bool(first[0][1][b"name"])  # the first one is about the run itself
