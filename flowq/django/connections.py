"""Queues and connections of the setting `RQ_QUEUES`, which has the form that django-rq reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from flowq.nearest import did_you_mean
from flowq.runtime.queue import Queue
from flowq.server.connection import make_client
from flowq.server.url import write_login, write_url

if TYPE_CHECKING:
    from redis import Redis

_PARTS = ("HOST", "PORT", "DB", "USERNAME", "PASSWORD", "SSL")
_OTHERS = ("URL", "UNIX_SOCKET_PATH", "DEFAULT_TIMEOUT")


def get_queue(name: str = "default") -> Queue:
    """Return a queue of RQ_QUEUES. Errors: ImproperlyConfigured."""
    timeout = _find(name).get("DEFAULT_TIMEOUT")
    options = {} if timeout is None else {"default_timeout": timeout}
    return Queue(name, connection=get_connection(name), **options)


def get_connection(name: str = "default") -> Redis:
    """Return a client for the server of a queue; queues of one server share it.

    Errors: ImproperlyConfigured.
    """
    return _connect(get_url(name))


@lru_cache(maxsize=32)
def _connect(url: str) -> Redis:
    return make_client(url)


def get_url(name: str = "default") -> str:
    """Return the URL of the server of a queue. Errors: ImproperlyConfigured."""
    queue = _find(name)
    for key in queue.keys() - {*_PARTS, *_OTHERS}:
        hint = did_you_mean(key, (*_PARTS, *_OTHERS)) or "use URL, which can express every setting"
        reason = f"RQ_QUEUES[{name!r}] has a key {key} that flowq cannot read"
        raise ImproperlyConfigured(f"{reason}; {hint}")
    if queue.get("URL"):
        return str(queue["URL"])
    login, db = write_login(queue.get("PASSWORD"), queue.get("USERNAME")), queue.get("DB")
    if queue.get("UNIX_SOCKET_PATH"):
        return f"unix://{login}{quote(str(queue['UNIX_SOCKET_PATH']))}?db={db or 0}"
    has_tls = bool(queue.get("SSL"))
    return write_url(queue.get("HOST"), queue.get("PORT"), db, login=login, has_tls=has_tls)


def _find(name: str) -> Mapping[str, Any]:
    queues: Mapping[str, Mapping[str, Any]] = getattr(settings, "RQ_QUEUES", None) or {}
    if name not in queues:
        hint = did_you_mean(name, queues) or f"it has {', '.join(queues) or 'none'}"
        raise ImproperlyConfigured(f"RQ_QUEUES has no queue {name}; {hint}")
    return queues[name]
