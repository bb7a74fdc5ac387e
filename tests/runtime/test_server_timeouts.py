"""Connections that notice when nobody is there, and leave a slow server its time."""

from __future__ import annotations

import pickle
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from flowq import server
from flowq.server import timeouts
from flowq.server.timeouts import with_limits
from flowq.workers.address import address_of
from tests.workers.black_hole import BlackHole
from tests.workers.real_servers import Servers


def options_of(client: redis.Redis) -> dict[str, Any]:
    return client.connection_pool.connection_kwargs


def test_a_connection_by_url_waits_for_an_answer_but_not_for_ever() -> None:
    options = options_of(server.make_client("redis://localhost:1/0"))
    assert options["socket_timeout"] == timeouts.REPLY_TIMEOUT_S
    assert options["socket_connect_timeout"] == timeouts.CONNECT_TIMEOUT_S
    assert options["socket_keepalive"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:1/0?socket_timeout=5",
        "rediss://localhost:1/0?socket_timeout=5",
        "unix:///tmp/none.sock?socket_timeout=5",
        "redis+sentinel://localhost:1/service?socket_timeout=5",
    ],
)
def test_what_a_url_says_about_timeouts_wins_for_children_too(url: str) -> None:
    client = server.make_client(url)
    assert options_of(client)["socket_timeout"] == 5
    assert address_of(client).options["socket_timeout"] == 5


def test_what_a_connection_says_wins_and_what_is_redis_pys_own_does_not() -> None:
    plain = address_of(redis.Redis()).options
    assert plain["socket_timeout"] == timeouts.REPLY_TIMEOUT_S
    assert plain["socket_keepalive_options"]
    own = address_of(
        redis.Redis(socket_timeout=2, socket_keepalive=False, socket_keepalive_options={})
    ).options
    assert (own["socket_timeout"], own["socket_keepalive"]) == (2, False)
    assert own["socket_keepalive_options"] == {}


def test_a_unix_socket_gets_no_options_of_tcp() -> None:
    options = with_limits({"path": "/x"}, redis.UnixDomainSocketConnection)
    assert options == {
        "path": "/x",
        "socket_timeout": timeouts.REPLY_TIMEOUT_S,
        "socket_connect_timeout": timeouts.CONNECT_TIMEOUT_S,
    }


@pytest.mark.parametrize("url", ["redis://localhost:1/0", "rediss://localhost:1/0"])
def test_children_get_the_same_class_of_connection_by_pickle(url: str) -> None:
    address = pickle.loads(pickle.dumps(address_of(server.make_client(url))))
    pool = address.connect().connection_pool
    assert issubclass(pool.connection_class, timeouts.InSlices)
    assert pool.make_connection().socket_timeout == timeouts.REPLY_TIMEOUT_S


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_the_kernel_is_told_when_to_give_up(tmp_path: Path) -> None:
    with Servers(tmp_path) as servers, closing(server.connect(servers.start().url)) as client:
        line: Any = client.connection_pool.get_connection()
        told = [
            line._sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        ]
        client.connection_pool.release(line)
    assert told == [15, 5, 3, 30_000]


def test_what_is_long_may_take_longer_than_the_limit(connection: redis.Redis) -> None:
    long = b"x" * (64 * timeouts.SLICE_BYTES)
    path = connection.connection_pool.connection_kwargs["path"]
    with (
        BlackHole(path, pause_s=0.02) as slow,  # which takes more than a second
        closing(server.connect(slow.url(limit_s=0.5))) as client,
    ):
        client.set("long", long)
        assert client.get("long") == long
