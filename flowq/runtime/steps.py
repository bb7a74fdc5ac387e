"""Work that is too long for one script, in bounded steps that any process can go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from redis import Redis

ITEMS_PER_STEP = 250
"""Keeps one call on the server well below 20 ms."""


def finish(connection: Redis, *operations: str) -> list[str]:
    """Make all steps of these operations (`lua/step.lua`), in this order, to their end.

    Idempotent: others may work on the same operation meanwhile. Returns the ids of running jobs
    that a `cancel:` found; they need a stop command.
    """
    running: list[str] = []
    for operation in operations:
        more = True
        while more:
            _, more, found = step(connection, operation)
            running += found
    return running


def work_off(connection: Redis, max_steps: int = 100) -> int:
    """Go on with what others left in the todo, oldest first; return the number of steps made."""
    for count in range(max_steps):
        what, _, _ = step(connection, "")
        if not what:
            return count
    return max_steps


def step(connection: Redis, operation: str) -> tuple[str, bool, list[str]]:
    """Make one step; return what was worked on, whether it goes on, and running jobs found."""
    what, more, *running = scripts.STEP.call(connection, keys.TODO, operation, ITEMS_PER_STEP)
    return as_text(what), bool(more), [as_text(job_id) for job_id in running]
