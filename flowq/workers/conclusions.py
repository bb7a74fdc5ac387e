"""Executions that RQ's own code has to end, in a child: jobs with dependents, retries, webhooks.

Our script ends most jobs; how an end is written says `End.how`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from redis.exceptions import ResponseError

from flowq.runtime.connections import is_refusal
from flowq.workers.children import Pool
from flowq.workers.messages import Claim
from flowq.workers.redis_side import RedisSide

MAX_TRIES = 3
"""How many children may fail to conclude one execution."""

LATER_S = 0.5

log = logging.getLogger("rq.worker")


class Conclusions:
    """What has ended and is to be concluded. While anything is `waiting` nothing is claimed."""

    def __init__(self, redis_side: RedisSide, pool: Pool) -> None:
        self.redis_side = redis_side
        self.pool = pool
        self.waiting: list[Claim] = []
        self._not_before = 0.0

    def add(self, claim: Claim) -> None:
        """Conclude it when a child is idle."""
        claim.end = claim.end._replace(how="conclude")
        self.waiting.append(claim)

    def put_off(self, claim: Claim) -> None:
        """Conclude it later: the server did not answer the child."""
        claim.tries = 0
        self._not_before = time.monotonic() + LATER_S
        self.add(claim)

    def go_on(self) -> Iterator[Claim]:
        """Give them to idle children; give those that were given up, and ended by our script.

        Errors: redis-py's.
        """
        if not self.waiting or time.monotonic() < self._not_before:
            return
        for claim in list(self.waiting):
            is_given_up = claim.tries >= MAX_TRIES
            if is_given_up:
                self._give_up(claim)
            elif not self.pool.conclude(claim):
                continue
            self.waiting.remove(claim)
            if is_given_up:
                yield claim

    def _give_up(self, claim: Claim) -> None:
        try:
            self.redis_side.force_end(claim)
        except ResponseError as error:
            if is_refusal(error):  # it waits for the server, like all others
                raise
            # Else it stays in WIP, and RQ finds it abandoned.
        log.error("job %s cannot be ended as RQ would; it is ended without", claim.job_id)
