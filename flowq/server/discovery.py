"""Clients of servers that move: a Sentinel's primary, or the cluster node that has flowq's keys.

    redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/SERVICE[/DB][?OPTIONS]
    redis+cluster://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?OPTIONS]

`rediss+…` uses TLS, also for the sentinels. The options are those of redis-py's own URLs, and
`sentinel_username` and `sentinel_password`. All keys of flowq and RQ are in one slot of a cluster.
Each new connection looks up the slot's node, as it looks up the primary of a Sentinel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)

from flowq.runtime.keys import PREFIX
from flowq.server.timeouts import InSlices

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
SENTINEL_PORT, CLUSTER_PORT = 26379, 6379

ASK_S = 2.0
ASKING: Mapping[str, Any] = {
    "socket_timeout": ASK_S,
    "socket_connect_timeout": ASK_S,
    "retry": Retry(NoBackoff(), 0),
}
"""Options for asking one sentinel, or one node: short limits, because there are others to ask."""

_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:,\[\]]+)(?::(?P<port>\d+))?")

Address = tuple[str, int]
ELSEWHERE = (AskError, ClusterDownError, TryAgainError)
"""The errors of a cluster's node that does not have the keys (MovedError is an AskError)."""


def is_managed(url: str) -> bool:
    """Whether the server behind the URL has to be looked up."""
    return url.partition("://")[0].lower() in SENTINEL_SCHEMES + CLUSTER_SCHEMES


def make_client(url: str, **options: Any) -> redis.Redis:
    """Return a client, which connects with its first command. The URL's options have priority.

    Errors: ValueError for any other URL, and if the keys would not be in one slot of a cluster.
    """
    parts = urlsplit(url)
    if parts.scheme in SENTINEL_SCHEMES:
        return _sentinel_client(parts, options)
    return _cluster_client(parts, options)


class Following(InSlices, SentinelManagedConnection):
    """A connection that looks up its server again if the keys have moved to another one."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply. Errors: redis-py's; a move counts as a lost connection."""
        try:
            return super().read_response(*args, **options)
        except (*ELSEWHERE, ResponseError) as error:
            # A primary that becomes a replica ends blocking commands with UNBLOCKED.
            if not isinstance(error, ELSEWHERE) and not str(error).startswith("UNBLOCKED"):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError(f"the keys have moved: {error}") from error


class FollowingSSL(Following, SSLConnection):
    """The same with TLS."""


# Sentinel ----------------------------------------------------------------------------------------


def _sentinel_client(parts: SplitResult, options: dict[str, Any]) -> redis.Redis:
    service, _, db = unquote(parts.path).strip("/").partition("/")
    if not service or (db and not db.isdigit()):
        raise ValueError("the name of the service is missing: redis+sentinel://HOST:PORT/SERVICE")
    words = dict(parse_qsl(parts.query))
    asking: dict[str, Any] = dict(ASKING)
    for name in ("username", "password"):
        if f"sentinel_{name}" in words:
            asking[name] = words.pop(f"sentinel_{name}")
    found = {**options, **_options(parts, words)}
    has_tls = found.get("connection_class") is SSLConnection
    found["connection_class"] = FollowingSSL if has_tls else Following
    if has_tls:
        asking |= {name: value for name, value in found.items() if name.startswith("ssl_")}
        asking["ssl"] = True
    manager = Sentinel(_hosts(parts, SENTINEL_PORT), sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    found.setdefault("db", int(db or 0))
    client: redis.Redis = manager.master_for(service, **found)  # type: ignore[no-untyped-call]
    return client


# Cluster -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """Finds the node that has a slot. Takes the place of redis-py's Sentinel; can be pickled."""

    nodes: tuple[Address, ...]
    slot: int
    options: dict[str, Any] = field(default_factory=dict)

    def discover_master(self, service_name: str) -> Address:
        """Return the address of the node, as the first node that answers knows it.

        Errors: MasterNotFoundError, which is redis-py's ConnectionError.
        """
        troubles = []
        for host, port in self.nodes:
            try:
                return self._ask(host, port)
            except (RedisError, OSError) as error:
                troubles.append(f"{host}:{port}: {error}")
        raise MasterNotFoundError(
            f"no sentinel knows the address of {service_name}: {'; '.join(troubles)}"
        )

    def _ask(self, host: str, port: int) -> Address:
        with redis.Redis(host, port, **self.options) as node:
            reply: Any = node.execute_command("CLUSTER SLOTS")
        if isinstance(reply, dict):  # some versions of redis-py make a dictionary of the rows
            reply = [(*ends, found["primary"]) for ends, found in reply.items()]
        for first, last, primary, *_ in reply:
            if first <= self.slot <= last:
                name = primary[0].decode() if isinstance(primary[0], bytes) else primary[0]
                return name or host, int(primary[1])  # a node may not know its own name
        raise MasterNotFoundError(f"no node has slot {self.slot}")


def _cluster_client(parts: SplitResult, options: dict[str, Any]) -> redis.Redis:
    if parts.path.strip("/ ") not in ("", "0"):
        raise ValueError("a cluster has no databases to choose from, and no service")
    if not re.search(r"\{[^{}]+\}", PREFIX):
        raise ValueError(
            "on a cluster all keys must be in one slot: set RQ_KEY_PREFIX to a name in braces, "
            "such as {rq}, here and for all workers"
        )
    found = {**options, **_options(parts, dict(parse_qsl(parts.query)))}
    has_tls = found.pop("connection_class", None) is SSLConnection
    slot = key_slot(PREFIX.encode())
    asking = {**found, **ASKING, "ssl": has_tls}
    manager = Cluster(tuple(_hosts(parts, CLUSTER_PORT)), slot, asking)
    connection_class = FollowingSSL if has_tls else Following
    pool = SentinelConnectionPool(PREFIX, manager, connection_class=connection_class, **found)  # type: ignore[no-untyped-call]
    return redis.Redis(connection_pool=pool)


# Both --------------------------------------------------------------------------------------------


def _options(parts: SplitResult, words: dict[str, str]) -> dict[str, Any]:
    """Return redis-py's options for the user, the password and the query of the URL."""
    user, at, _ = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    found: dict[str, Any] = parse_url(f"{scheme}://{user}{at}host?{urlencode(words)}")  # type: ignore[no-untyped-call]
    found.pop("host")
    return found


def _hosts(parts: SplitResult, default_port: int) -> list[Address]:
    found = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        match = _HOST.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not HOST:PORT")
        found.append((match["host"].strip("[]"), int(match["port"] or default_port)))
    return found
