"""Runs flowq's own code on a client of `redis.asyncio`, without threads and without a second copy.

`call(function)` runs the function in a greenlet. Its connection is a `Bridge`: a `redis.Redis` each
of whose commands switches to the coroutine that called, which awaits the same command of the
asynchronous client, and switches back with the answer. So the function waits, and the event loop
does not. A canceled task raises CancelledError where the function waits for the server, as Ctrl-C
raises KeyboardInterrupt there.

Source: SQLAlchemy's asyncio extension works in this way (`greenlet_spawn`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import redis
from redis.asyncio import Redis, RedisCluster
from redis.client import Pipeline

from flowq.errors import UsageError

try:
    from greenlet import getcurrent, greenlet
except ImportError as error:
    raise ImportError(
        "flowq.aio needs the package greenlet: pip install 'rq-flowq[aio]'", name="greenlet"
    ) from error

if TYPE_CHECKING:
    from redis.asyncio.client import Pipeline as AsyncPipeline

P = ParamSpec("P")
R = TypeVar("R")


class _Call(greenlet):
    """One call of a function; `coroutine` is the greenlet of the coroutine that awaits it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.coroutine = getcurrent()
        super().__init__(function, self.coroutine)
        self.gr_context = self.coroutine.gr_context  # the same context variables


async def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function that waits for a `Bridge`, and return its result.

    Errors: those of the function; CancelledError, which the function gets where it waits.
    """
    running, task = _Call(partial(function, *args, **kwargs)), asyncio.current_task()
    cancels = task.cancelling() if task else 0
    result: Any = running.switch()
    while not running.dead:
        try:
            answer = await result
        except BaseException as error:  # noqa: BLE001 - the function decides
            failure: BaseException | None = error
        else:
            failure = None
        if task and task.cancelling() > cancels:
            cancels = task.cancelling()
            if not isinstance(failure, asyncio.CancelledError):
                failure = asyncio.CancelledError()  # redis-py loses some while it connects
        result = running.throw(failure) if failure else running.switch(answer)
    return result  # type: ignore[no-any-return]


def wait_for(make: Callable[[], Awaitable[R]]) -> R:
    """Await something in the coroutine that called the running function, and return its answer.

    `make` is called only if that is possible. Errors: UsageError outside of `call`.
    """
    running = getcurrent()
    if not isinstance(running, _Call):
        raise UsageError(
            "this object belongs to a client of redis.asyncio, so its methods must be awaited; "
            "write await flowq.aio.call(object.method, …)"
        )
    answer: R = running.coroutine.switch(make())
    return answer


class Bridge(redis.Redis):
    """A `redis.Redis` whose commands a client of `redis.asyncio` sends, inside `call` only."""

    def __init__(self, client: Redis) -> None:
        # Not redis-py's own, which would make a pool.
        self._asynchronous = client
        self.connection_pool: Any = _Pool(client)
        self.connection = None
        self.response_callbacks: Any = client.response_callbacks
        self.auto_close_connection_pool = False
        self._single_connection_client = False

    def __repr__(self) -> str:
        return f"<flowq.aio {self._asynchronous!r}>"

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Do as redis-py's."""
        theirs: Any = self._asynchronous
        return wait_for(lambda: theirs.execute_command(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Do as redis-py's."""
        return _BridgePipeline(self, self._asynchronous.pipeline(transaction))

    def pause(self, seconds: float) -> None:
        """Wait, as `flowq.runtime.connections.pause` does with this connection."""
        wait_for(lambda: asyncio.sleep(seconds))

    def close(self) -> None:
        """Do nothing: the client belongs to its user."""


class _Pool:
    """The pool of an asynchronous client, as far as code without `await` uses a pool."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client.connection_pool, name)

    def disconnect(self, inuse_connections: bool = True) -> None:
        pool: Any = self._client.connection_pool
        wait_for(lambda: pool.disconnect(inuse_connections=inuse_connections))


class _BridgePipeline(Pipeline):
    """A pipeline that collects commands itself; the asynchronous one sends them."""

    def __init__(self, bridge: Bridge, theirs: AsyncPipeline) -> None:
        self._theirs: Any = theirs  # redis-py has no types for what is needed of it
        super().__init__(
            bridge.connection_pool, bridge.response_callbacks, theirs.is_transaction, None
        )

    @property
    def watching(self) -> bool:
        """Whether it has watched keys, and sends each command at once."""
        return bool(self._theirs.watching)

    @watching.setter
    def watching(self, value: bool) -> None: ...

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Do as redis-py's."""
        return wait_for(lambda: self._theirs.immediate_execute_command(*args, **options))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Do as redis-py's."""
        if not self.command_stack and not self.watching:
            return []
        self._theirs.command_stack = self.command_stack
        self._theirs.explicit_transaction = self.explicit_transaction
        self.command_stack, self.explicit_transaction = [], False
        answers: list[Any] = wait_for(lambda: self._theirs.execute(raise_on_error))
        return answers

    def reset(self) -> None:  # type: ignore[override]  # as redis-py's own
        """Do as redis-py's."""
        self.command_stack, self.explicit_transaction = [], False
        if self._theirs.connection is not None:
            wait_for(self._theirs.reset)

    def __del__(self) -> None:
        """Do nothing: the asynchronous pipeline gives its connection back itself."""


_BRIDGE = "_flowq_bridge"


def bridge_to(connection: object) -> Bridge:
    """Return the one bridge of an asynchronous client. Errors: UsageError for any other object."""
    if isinstance(connection, RedisCluster):
        raise UsageError(
            "flowq.aio supports no clusters: use the functions of flowq in a thread, with the URL "
            "redis+cluster://…, as in await asyncio.to_thread(flowq.submit, …, connection=url)"
        )
    if not isinstance(connection, Redis):
        what = "a redis.Redis, which would block the event loop"
        raise UsageError(
            f"flowq.aio takes connection=, a client of redis.asyncio, not "
            f"{what if isinstance(connection, redis.Redis) else repr(connection)}; write "
            "redis.asyncio.Redis.from_url(url), and pass it to each call"
        )
    found: Bridge | None = getattr(connection, _BRIDGE, None)
    if found is None:
        found = Bridge(connection)
        setattr(connection, _BRIDGE, found)
    return found
