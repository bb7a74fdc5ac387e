"""`Wait` and `Pause`: results of executions after which the job waits, without a worker.

Also the plain form of these and of RQ's `Retry`, for the process that ends the execution. The
classes are in pickles, so their names must not change.
"""

from __future__ import annotations

import json
import math

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


class Pause(Retry):
    """The job sleeps, or polls, and is executed again `after_s` seconds later (lua/pauses.lua).

    For a worker that does not know flowq's jobs it is a retry with this delay. `reason` says why it
    waits.
    """

    def __init__(self, after_s: float, reason: str) -> None:
        super().__init__(_WITHOUT_END, [math.ceil(after_s)])
        self.after_s = after_s
        self.reason = reason


def write_retry(retry: Retry) -> bytes:
    """Return a `Retry` as JSON."""
    plain = {
        "max": retry.max,
        "intervals": retry.intervals,
        "at_front": retry.enqueue_at_front,
        "message": retry.message if isinstance(retry, Wait) else None,
    }
    if isinstance(retry, Pause):
        plain["pause"] = [retry.after_s, retry.reason]
    return json.dumps(plain).encode()


def read_retry(data: bytes) -> Retry:
    """Return the `Wait`, `Pause` or `Retry` that `write_retry` was given; other subclasses become
    `Retry`.

    Loads no code. Errors: ValueError, KeyError and TypeError for invalid data.
    """
    plain = json.loads(data)
    if plain["message"] is not None:
        return Wait(plain["message"])
    if (pause := plain.get("pause")) is not None:
        after_s, reason = pause
        return Pause(float(after_s), str(reason))
    return Retry(plain["max"], plain["intervals"], enqueue_at_front=plain["at_front"])
