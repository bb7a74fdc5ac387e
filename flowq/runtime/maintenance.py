"""What every flowq worker looks after between jobs: stepwise work left behind, and old runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.steps import finish, work_off

if TYPE_CHECKING:
    from redis import Redis

RUNS_PER_PASS = 20


def tidy(connection: Redis) -> None:
    """Go on with unfinished releases and the like; remove runs that nobody needs any more.

    Bounded; idempotent; safe in any number of processes at once, since every step is one script.
    """
    work_off(connection)
    for index in (keys.STAGED, keys.ENDED):
        due: Any = connection.zrangebyscore(index, 0, time.time(), start=0, num=RUNS_PER_PASS)
        for run_id in due:
            finish(connection, f"purge:{as_text(run_id)}")
