"""How long a server may be silent before a connection to it counts as dead.

A host that vanishes, or a firewall that forgets a connection, closes nothing: whoever waits for an
answer then waits for ever. Two things put an end to that. The kernel asks the other host for a sign
of life, and gives up on data that nobody acknowledges: that tells a dead host from a slow server,
which acknowledges even while it does something long, or is stopped. Something in between (a proxy,
a balancer) may acknowledge for a server that is gone, so an answer has a limit too. Both are 30 s:
far more than the longest script, fork or swap of a healthy server takes, and what is sent or comes
in parts has that long for each part. What a user's URL or connection says itself wins.
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
"""After so long without a word the other host is asked, so often, at such intervals: 30 s."""

SLICE_BYTES = 256 * 1024


def limits(connection_class: type[Any]) -> dict[str, Any]:
    """Return redis-py's options for a connection that notices when nobody is there."""
    found: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }
    if issubclass(connection_class, Connection):  # the others are no TCP
        found |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
    return found


def with_limits(options: Mapping[str, Any], connection_class: type[Any]) -> dict[str, Any]:
    """Return a connection's options with our limits for what its user has not said.

    What redis-py itself puts there counts as unsaid: its 5 s since version 8 are less than a server
    may take, and before that there was no limit.
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


# What is long ------------------------------------------------------------------------------------


class InSlices:
    """Sends in slices, each of which has all the time: `sendall` takes its limit for the whole."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what `pack_command` or `pack_commands` returned. Errors: redis-py's."""
        chunks = [command] if isinstance(command, str | bytes) else command
        super().send_packed_command(_slices(chunks), check_health)  # type: ignore[misc]


class TCPConnection(InSlices, Connection):
    """redis-py's, which sends in slices."""


class TLSConnection(InSlices, SSLConnection):
    """The same with TLS."""


def in_slices(connection_class: type[Any]) -> type[Any]:
    """Return the class of ours for one of redis-py's; others are left as they are."""
    ours: dict[type[Any], type[Any]] = {Connection: TCPConnection, SSLConnection: TLSConnection}
    return ours.get(connection_class, connection_class)


def _slices(chunks: Iterable[Any]) -> Iterator[Any]:
    for chunk in chunks:
        if len(chunk) <= SLICE_BYTES:
            yield chunk
            continue
        view = memoryview(chunk)
        yield from (view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))
