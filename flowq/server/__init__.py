"""The embedded server: a private Valkey for the current folder, when no URL is given.

    ensure(folder)    the folder's server, started if it does not run
    is_used(folder)   whether the folder has one, without starting anything
    find_used_above() the nearest folder above the current one that has one
    find(folder)      the folder's server, running or not
    temporary()       a server that keeps nothing, for as long as a `with` block
    connect(url)      a checked connection to any server, with errors that teach
    make_client(url)  the same, unchecked and unconnected
    health(redis)     warnings about a server that may lose jobs
    resolve_url(...)  the URL from options and environment variables
    hide_password(url)   the URL for display
    hide_argument(…)  remove a password from the list of processes

    embedded.py    starts, finds and stops servers; find_binary chooses the program
    guardian.py    the process that watches a server; process.py the server's process
    endpoint.py    a Unix socket or a port on loopback; the server's settings
    state.py       the state folder, and its owner; adopting.py adopts one that is not proved
    private.py     files that only this user can change; locks.py locks on files
    connection.py  clients, and warnings; discovery.py Sentinel and cluster; url.py URLs
    timeouts.py    time limits of connections
    resp.py        a client without redis-py; fake.py the fallback server

A name of this package loads its module when it is first used. The guardian (`__main__.py`), for
which the first command in a folder waits, thus loads neither redis nor the other modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` resolves, for the type checker
    from flowq.server.connection import connect, health, make_client
    from flowq.server.embedded import Server, ensure, find, find_used_above, is_used, temporary
    from flowq.server.url import hide_argument, hide_password, resolve_url

__all__ = [
    "Server",
    "connect",
    "ensure",
    "find",
    "find_used_above",
    "health",
    "hide_argument",
    "hide_password",
    "is_used",
    "make_client",
    "resolve_url",
    "temporary",
]

_MODULE_BY_NAME = {
    "Server": "embedded",
    "connect": "connection",
    "ensure": "embedded",
    "find": "embedded",
    "find_used_above": "embedded",
    "health": "connection",
    "hide_argument": "url",
    "hide_password": "url",
    "is_used": "embedded",
    "make_client": "connection",
    "resolve_url": "url",
    "temporary": "embedded",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_BY_NAME[name]}"), name)
    globals()[name] = value
    return value
