"""Giving a run a queue of its own that shared its queues with others until now.

Runs of the private server have one from the beginning (`flowq.runtime.runs.submit`); those that an
older version has submitted there, or a schedule, get it when workers are started for them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from redis import Redis

JOBS_PER_CALL = 100
SHARED = "shared"
"""Field of a run's record: it had no queue of its own at first."""


def set_apart(run_id: str, connection: Redis) -> str:
    """Return the queue that a run has for itself; if need be, make it and move its jobs there.

    A job that is being executed stays where it is, and is moved by a later call. Idempotent.
    Errors: RunNotFound.
    """
    from flowq.runtime.runs import get_record  # noqa: PLC0415

    key, queue = keys.run(run_id), keys.own_queue(run_id)
    record = get_record(run_id, connection)
    if record.queue and not connection.hexists(key, SHARED):
        return record.queue
    connection.hset(key, mapping={"queue": queue, SHARED: "1"})
    ids = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    ids.reverse()  # the list has the last ones first
    for first in range(0, len(ids), JOBS_PER_CALL):
        scripts.SET_APART.call(connection, key, queue, *ids[first : first + JOBS_PER_CALL])
    return queue
