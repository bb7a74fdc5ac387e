"""How to reach the server, as values: children and the wakeup make connections of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool
from rq.connections import parse_connection

from flowq.server.discovery import Cluster
from flowq.server.timeouts import in_slices, with_limits


@dataclass(frozen=True)
class Address:
    """What it takes to connect like the connection that a worker was given; it can be pickled.

    `sentinels`: (host, port) of each, when they tell where the primary of `service` is; `cluster`:
    what tells which of its nodes it is.
    """

    redis_class: type[Redis]
    connection_class: type[Any]
    options: dict[str, Any]
    service: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: dict[str, Any] = field(default_factory=dict)
    cluster: Cluster | None = None

    def make_pool(self, **changes: Any) -> ConnectionPool:
        """Return a pool, with some options changed; nothing is connected yet."""
        options = {**self.options, **changes, "connection_class": self.connection_class}
        if not self.service:
            return ConnectionPool(**options)
        manager = self.cluster or Sentinel(  # type: ignore[no-untyped-call]
            list(self.sentinels), sentinel_kwargs=self.sentinel_options
        )
        return SentinelConnectionPool(self.service, manager, **options)  # type: ignore[no-untyped-call]

    def connect(self) -> Redis:
        """Return a client; nothing is connected before its first command."""
        return self.redis_class(connection_pool=self.make_pool())

    def connect_unrepeating(self) -> Redis:
        """Return a client that says nothing twice when there is no answer."""
        return self.redis_class(connection_pool=self.make_pool(retry=Retry(NoBackoff(), 0)))


def address_of(connection: Redis) -> Address:
    """Return the address behind a connection, with limits for answers (server/timeouts.py)."""
    redis_class, connection_class, options = parse_connection(connection)
    connection_class = in_slices(connection_class)
    options = with_limits(options, connection_class)
    manager = getattr(connection.connection_pool, "sentinel_manager", None)
    if manager is None:
        return Address(redis_class, connection_class, options)
    options.pop("connection_pool", None)  # the pool itself, for its connections
    service: str = connection.connection_pool.service_name  # type: ignore[attr-defined]
    if isinstance(manager, Cluster):
        return Address(redis_class, connection_class, options, service=service, cluster=manager)
    known = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    return Address(
        redis_class,
        connection_class,
        options,
        service=service,
        sentinels=tuple((each["host"], each["port"]) for each in known),
        sentinel_options=dict(manager.sentinel_kwargs),
    )
