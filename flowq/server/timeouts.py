"""Time limits of connections: how long a server may be silent before a connection counts as dead.

A host that vanishes, or a firewall that drops a connection, closes nothing, so a client would wait
forever for an answer. Two limits prevent this. The kernel probes the other host (keepalive), and
gives up on data that is not acknowledged: this recognizes a dead host but not a slow server, whose
kernel acknowledges data even while the server is busy or stopped. A proxy or load balancer may
acknowledge data for a server that is gone, so answers have a time limit too. Both limits are 30 s:
far more than the longest script, fork or swap of a healthy server, and each part of a long message
has that long. Values in the user's URL or connection have priority.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from redis import Connection, Redis, SSLConnection

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 30.0
IDLE_S, PROBE_S, PROBES = 15, 5, 3
"""Keepalive: the first probe after IDLE_S, then PROBES of them, PROBE_S apart; 30 s together."""

SLICE_BYTES = 256 * 1024


def limits(connection_class: type[Any]) -> dict[str, Any]:
    """Return redis-py's options for a connection with these time limits."""
    found: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }
    if issubclass(connection_class, Connection):  # TCP
        found |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
    return found


def with_limits(options: Mapping[str, Any], connection_class: type[Any]) -> dict[str, Any]:
    """Return a connection's options, with our limits where its user has set none.

    Defaults of redis-py do not count as set: 5 s since version 8, which is less than a healthy
    server may take, and no limit before.
    """
    ours = limits(connection_class)
    said = {
        name: value
        for name, value in options.items()
        if name not in ours or not (value is None or value is _THEIRS.get(name))
    }
    return {**ours, **said}


_THEIRS = {name: each.default for name, each in inspect.signature(Redis).parameters.items()}


def _keepalive_options() -> dict[int, int]:
    value_by_name = {
        # macOS calls it TCP_KEEPALIVE.
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": IDLE_S,
        "TCP_KEEPINTVL": PROBE_S,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": int(REPLY_TIMEOUT_S * 1000),  # Linux
    }
    return {
        getattr(socket, name): value
        for name, value in value_by_name.items()
        if hasattr(socket, name)
    }


# Long commands -----------------------------------------------------------------------------------


class InSlices:
    """Sends in slices, each with the full time limit: that of `sendall` is for all its data."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a result of `pack_command` or `pack_commands`. Errors: redis-py's."""
        chunks = [command] if isinstance(command, str | bytes) else command
        super().send_packed_command(_slices(chunks), check_health)  # type: ignore[misc]


class TCPConnection(InSlices, Connection):
    """redis-py's TCP connection, which sends in slices."""


class TLSConnection(InSlices, SSLConnection):
    """The same with TLS."""


def in_slices(connection_class: type[Any]) -> type[Any]:
    """Return the class that sends in slices for one of redis-py's; any other class unchanged."""
    ours: dict[type[Any], type[Any]] = {Connection: TCPConnection, SSLConnection: TLSConnection}
    return ours.get(connection_class, connection_class)


def _slices(chunks: Iterable[Any]) -> Iterator[Any]:
    for chunk in chunks:
        if len(chunk) <= SLICE_BYTES:
            yield chunk
            continue
        view = memoryview(chunk)
        yield from (view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))
