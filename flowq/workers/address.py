"""How to connect to the server, as a value: children and the wakeup open their own connections."""

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
    """What is needed to connect as the connection that a worker was given does; can be pickled.

    Attributes:
        service: the name of the service, if the server is found by Sentinel or in a cluster.
        sentinels: (host, port) of each Sentinel that knows the primary of `service`.
        cluster: finds the node of a cluster that has flowq's keys.
    """

    redis_class: type[Redis]
    connection_class: type[Any]
    options: dict[str, Any]
    service: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: dict[str, Any] = field(default_factory=dict)
    cluster: Cluster | None = None

    def make_pool(self, **changes: Any) -> ConnectionPool:
        """Return a connection pool with some options changed; does not connect yet."""
        options = {**self.options, **changes, "connection_class": self.connection_class}
        if not self.service:
            return ConnectionPool(**options)
        manager = self.cluster or Sentinel(  # type: ignore[no-untyped-call]
            list(self.sentinels), sentinel_kwargs=self.sentinel_options
        )
        return SentinelConnectionPool(self.service, manager, **options)  # type: ignore[no-untyped-call]

    def connect(self) -> Redis:
        """Return a client, which connects with its first command."""
        return self.redis_class(connection_pool=self.make_pool())

    def connect_unrepeating(self) -> Redis:
        """Return a client that does not repeat a command whose answer is missing."""
        return self.redis_class(connection_pool=self.make_pool(retry=Retry(NoBackoff(), 0)))


def address_of(connection: Redis) -> Address:
    """Return the address of a connection, with the time limits of server/timeouts.py."""
    redis_class, connection_class, options = parse_connection(connection)
    connection_class = in_slices(connection_class)
    options = with_limits(options, connection_class)
    manager = getattr(connection.connection_pool, "sentinel_manager", None)
    if manager is None:
        return Address(redis_class, connection_class, options)
    options.pop("connection_pool", None)  # a Sentinel's connections have their pool here
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
