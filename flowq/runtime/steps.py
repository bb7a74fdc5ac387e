"""Work that is too long for one script, in bounded steps that any process can go on with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError
from rq.utils import as_text

from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from redis import Redis

ITEMS_PER_STEP = 100
"""Keeps one call on the server well below 20 ms."""


def finish(connection: Redis, *operations: str) -> list[str]:
    """Make all steps of these operations (`lua/step.lua`), and of those that they lead to.

    Idempotent: others may work on the same operation meanwhile. Returns the ids of running jobs
    that a `cancel:` found; they need a stop command.
    """
    running: list[str] = []
    pending = deque(operations)
    while pending:
        _, more, found, begun = step(connection, pending[0])
        running += found
        pending.extend(begun)
        if not more:
            pending.popleft()
    return running


def work_off(connection: Redis, max_steps: int = 100) -> int:
    """Go on with what others left in the todo, oldest first; return the number of steps made.

    Errors: redis-py's ResponseError when a step could not be made; it keeps no other from its turn.
    """
    failures: dict[str, ResponseError] = {}
    made = 0
    while made < max_steps:
        try:
            what, *_ = step(connection, "")
        except ResponseError as error:
            if str(error) in failures:  # it went to the end, so all others have had their turn
                break
            failures[str(error)] = error
        else:
            if not what:
                break
            made += 1
    for failure in failures.values():
        raise failure
    return made


def step(connection: Redis, operation: str) -> tuple[str, bool, list[str], list[str]]:
    """Make one step; "" for the oldest of the todo.

    Returns what was worked on, whether it goes on, the running jobs that it found, and the
    operations that it led to.
    """
    what, more, running, begun = scripts.STEP.call(connection, keys.TODO, operation, ITEMS_PER_STEP)
    return as_text(what), bool(more), [*map(as_text, running)], [*map(as_text, begun)]
