"""`Wait`, the result of an execution that only evaluated the `if` of its job, which must wait now.

Also the plain form of this and of RQ's `Retry`, for the process that ends the execution. The class
is in pickles, so its name must not change.
"""

from __future__ import annotations

import json

from rq.job import Retry

_WITHOUT_END = 10**9
_AGAIN_S = 5


class Wait(Retry):
    """The job waits for its approval, or for a slot; `Job` holds it (lua/approvals.lua).

    For a worker that does not know flowq's jobs it is a retry: the `if` is evaluated again every
    few seconds, until a worker that can hold the job takes it. `message` is the message of the
    approval; empty if it is stored already.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_WITHOUT_END, [_AGAIN_S])
        self.message = message


def write_retry(retry: Retry) -> bytes:
    """Return a `Retry` as JSON."""
    plain = {
        "max": retry.max,
        "intervals": retry.intervals,
        "at_front": retry.enqueue_at_front,
        "message": retry.message if isinstance(retry, Wait) else None,
    }
    return json.dumps(plain).encode()


def read_retry(data: bytes) -> Retry:
    """Return the `Wait` or `Retry` that `write_retry` was given (other subclasses become `Retry`).

    Loads no code. Errors: ValueError, KeyError and TypeError for invalid data.
    """
    plain = json.loads(data)
    if plain["message"] is not None:
        return Wait(plain["message"])
    return Retry(plain["max"], plain["intervals"], enqueue_at_front=plain["at_front"])
