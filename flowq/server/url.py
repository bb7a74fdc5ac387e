"""URLs of servers: which one is meant, and how to show one without its password."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

HIDDEN = "***"
VARIABLES = ("FLOWQ_REDIS_URL", "RQ_REDIS_URL")

_PARAMETER = re.compile(r"([?&;])([^=&;]*)=([^&;]*)")
_SECRET = re.compile(r"pass|pwd|secret|token|auth|credential", re.IGNORECASE)


def resolve_url(option: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL to use: the option, else FLOWQ_REDIS_URL, else RQ_REDIS_URL, else None.

    An empty value counts as none, so that `FLOWQ_REDIS_URL= flowq run …` uses the embedded server.
    """
    candidates = [option, *(environment.get(name) for name in VARIABLES)]
    return next((url.strip() for url in candidates if url and url.strip()), None)


def hide_password(url: str) -> str:
    """Return the URL for eyes: passwords, and whatever stands where one could be, are starred.

    Total: any text is accepted, and in doubt too much is hidden rather than too little.
    """
    scheme, separator, rest = url.rpartition("://") if url.count("://") == 1 else _split(url)
    return scheme + separator + _hide_user(_hide_parameters(rest), scheme)


def _split(url: str) -> tuple[str, str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme, separator, rest) if separator else ("", "", url)


def _hide_parameters(rest: str) -> str:
    def hide(match: re.Match[str]) -> str:
        mark, name, value = match.groups()
        return f"{mark}{name}={HIDDEN if _SECRET.search(unquote_plus(name)) else value}"

    return _PARAMETER.sub(hide, rest)


def _hide_user(rest: str, scheme: str) -> str:
    if scheme == "unix" and rest.startswith("/"):
        return rest
    user, at, host = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        return f"{name}:{HIDDEN}@{host}" if colon else f"{HIDDEN}@{host}"
    return _hide_port(rest)


def _hide_port(rest: str) -> str:
    """Hide what stands for the port and is none: a password whose `@host` is missing."""
    place = re.match(r"(\[[^\]]*\]|[^:/?#]*)(:[^/?#]*)?", rest)
    if place is None or not place[2] or place[2][1:].isdigit():
        return rest
    return f"{place[1]}:{HIDDEN}"
