"""What an execution returns that has only judged the `if` of its job, which has to wait now; and
how that, or RQ's Retry, is passed on to the process that ends the execution."""

from __future__ import annotations

import json

from rq.job import Retry

_WITHOUT_END = 10**9
_AGAIN_S = 5


class Wait(Retry):
    """The job waits for its approval, or for a slot; `Job` holds it (lua/approvals.lua).

    To a worker that does not know flowq's jobs it is a retry: the job is judged again after some
    seconds, until a worker takes it that can hold it. `message` is what whoever approves it should
    read; empty when that is known already.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_WITHOUT_END, [_AGAIN_S])
        self.message = message


def write_retry(retry: Retry) -> bytes:
    """Return in a plain form what an execution has returned."""
    plain = {
        "max": retry.max,
        "intervals": retry.intervals,
        "at_front": retry.enqueue_at_front,
        "message": retry.message if isinstance(retry, Wait) else None,
    }
    return json.dumps(plain).encode()


def read_retry(data: bytes) -> Retry:
    """Return what `write_retry` was given; of a class derived from RQ's, RQ's. Nothing is loaded.

    Errors: ValueError, KeyError and TypeError for anything else.
    """
    plain = json.loads(data)
    if plain["message"] is not None:
        return Wait(plain["message"])
    return Retry(plain["max"], plain["intervals"], enqueue_at_front=plain["at_front"])
