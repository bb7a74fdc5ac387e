"""Executes long operations in bounded steps, each one script, that any process can continue.

An operation is an entry of the todo in Redis, such as `purge:RUN` or `free:FUTURE`, and stays there
until its last step. The caller that began one continues it with `finish`; maintenance continues
what others have left with `run_steps` or `try_all`. `lua/step.lua` decides what a step does.
Nothing here may keep state between two steps: another process may make the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import ResponseError
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.utils import as_text

from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from redis import Redis

ITEMS_PER_STEP = 100
"""Keeps one call on the server well below 20 ms."""

LOOKS_PER_STEP = 250
"""The same for steps that usually only read."""

_LOOKING = ("watch:", "look:")


def finish(connection: Redis, *operations: str) -> list[str]:
    """Execute all steps of these operations (`lua/step.lua`), and of those that they start.

    Idempotent: other processes may execute steps of the same operation meanwhile. Returns the ids
    of running jobs that a `cancel:` found; they need a stop command. What others found gets it.
    """
    running: list[str] = []
    pending = deque(operations)
    while pending:
        made = step(connection, pending[0])
        if made.what.startswith("cancel:"):
            running += made.running
        else:
            stop(made.running, connection)
        pending.extend(made.begun)
        if not made.more:
            pending.popleft()
    return running


def run_steps(connection: Redis, max_steps: int = 100) -> int:
    """Continue operations in the todo, oldest first; return the number of steps.

    Errors: redis-py's ResponseError if a step failed, after all other operations had their turn.
    """
    made, failures = try_all(connection, max_steps)
    for failure in failures:
        raise failure
    return made


def try_all(connection: Redis, max_steps: int = 100) -> tuple[int, list[ResponseError]]:
    """Do what `run_steps` does; return the number of steps and the failures.

    Running jobs that should end get a stop command.
    """
    failures: dict[str, ResponseError] = {}
    made = 0
    while made < max_steps:
        try:
            what, _, running, *_ = step(connection, "")
            stop(running, connection)
        except ResponseError as error:
            if str(error) in failures:  # a failed operation goes to the end, so all had a turn
                break
            failures[str(error)] = error
        else:
            if not what:
                break
            made += 1
    return made, list(failures.values())


def stop(job_ids: Iterable[str], connection: Redis) -> None:
    """Send the workers of running jobs RQ's stop command."""
    for job_id in job_ids:
        try:
            send_stop_job_command(connection, job_id)
        except (InvalidJobOperation, NoSuchJobError):  # it has ended
            continue


class Step(NamedTuple):
    """The result of one step.

    Attributes:
        what: the operation; empty if there was none.
        more: whether it has more steps.
        running: the ids of running jobs that need a stop command.
        begun: the operations that it started.
        found: repaired jobs: id, what was wrong, and the id of the run or of a blocked future job.
    """

    what: str
    more: bool
    running: list[str]
    begun: list[str]
    found: list[tuple[str, str, str]]


def step(connection: Redis, operation: str) -> Step:
    """Execute one step of an operation; "" stands for the oldest in the todo."""
    limit = LOOKS_PER_STEP if operation.startswith(_LOOKING) else ITEMS_PER_STEP
    answer = scripts.STEP.call(connection, keys.TODO, operation, limit)
    what, more, running, begun, found = answer
    texts = [as_text(part) for part in found]
    return Step(
        as_text(what),
        bool(more),
        [as_text(job_id) for job_id in running],
        [as_text(each) for each in begun],
        list(zip(texts[::3], texts[1::3], texts[2::3], strict=True)),
    )
