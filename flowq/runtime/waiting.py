"""What an execution returns that has only judged the `if` of its job, which has to wait now."""

from __future__ import annotations

from rq.job import Retry

_WITHOUT_END = 10**9
_AGAIN_S = 5


class Wait(Retry):
    """The job waits for its approval, or for a slot; `Job` holds it (lua/hold.lua).

    To a worker that does not know flowq's jobs it is a retry: the job is judged again after some
    seconds, until a worker takes it that can hold it. `message` is what whoever approves it should
    read; empty when that is known already.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_WITHOUT_END, [_AGAIN_S])
        self.message = message
