"""Who works when: requests wait for their turn in the event loop, and hold no thread meanwhile.

So however many requests wait, for others that are as heavy or for a server that does not answer,
those of other kinds, and files, are served.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

Reply = Callable[[Request], Response]
Answer = TypeVar("Answer")

MAX_HEAVY = 4
MAX_LIGHT = 24
"""How many requests read whole runs at a time, and how many do less. One of both has a thread."""

WAIT_S = 20.0
"""How long a request waits for its turn."""


class Turns:
    """Lets so many calls at a time run in threads, which are for these alone."""

    def __init__(self, most: int, wait_s: float = WAIT_S) -> None:
        self._most = most
        self._wait_s = wait_s
        self._free_by_loop = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]()

    async def run(self, call: Callable[[Request], Answer], request: Request) -> Answer:
        """Return what a call returns. Errors: its own; HTTPException if its turn does not come."""
        loop = asyncio.get_running_loop()
        free = self._free_by_loop.setdefault(loop, asyncio.Semaphore(self._most))
        try:
            async with asyncio.timeout(self._wait_s):
                await free.acquire()
        except TimeoutError:
            retry = {"Retry-After": "5"}
            raise HTTPException(503, "too many requests at a time", retry) from None
        try:
            return await to_thread.run_sync(call, request, limiter=CapacityLimiter(math.inf))
        finally:
            free.release()


def in_turn(find_turns: Callable[[Request], Turns]) -> Callable[[Reply], _Waiting]:
    """Let a reply wait for its turn among others."""

    def decorate(reply: Reply) -> _Waiting:
        if inspect.iscoroutinefunction(reply):
            return reply

        @wraps(reply)
        async def wait(request: Request) -> Response:
            return await find_turns(request).run(reply, request)

        return wait

    return decorate


_Waiting = Callable[[Request], Awaitable[Response]]
