"""Server URLs: choosing the right one, writing one from its parts, and hiding its password."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote_plus

from flowq.runtime import variables

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLACE = re.compile(r"(\[[^\]]*\]|[^:/?#]*)(:[^/?#]*)?")
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d+)?"
_HOSTS = re.compile(f"{_HOST}(,{_HOST})*")
_SECRET = re.compile(r"pass|pwd|secret|token|auth|credential", re.IGNORECASE)


def resolve_url(option: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL to use: the option, else FLOWQ_REDIS_URL, else RQ_REDIS_URL, else None.

    An empty value counts as none, so that `FLOWQ_REDIS_URL= flowq run …` uses the embedded server.
    """
    candidates = [option, *(environment.get(name) for name in variables.SERVER)]
    return next((url.strip() for url in candidates if url and url.strip()), None)


def write_login(password: object, username: object = None) -> str:
    """Return the `USER:PASSWORD@` of a URL; empty without a password."""
    if not password:
        return ""
    return f"{quote(str(username or ''), safe='')}:{quote(str(password), safe='')}@"


def write_url(
    host: object = None,
    port: object = None,
    db: object = None,
    *,
    login: str = "",
    has_tls: bool = False,
) -> str:
    """Return the URL of a server at a host and a port; as everywhere, localhost:6379, database 0.

    `login` is what `write_login` returns.
    """
    scheme, place = "rediss" if has_tls else "redis", str(host or "localhost")
    place = f"[{place}]" if ":" in place else place  # IPv6
    return f"{scheme}://{login}{place}:{port or 6379}/{db or 0}"


def hide_password(url: str) -> str:
    """Return the URL for display, with `***` for passwords and everything that may be one.

    Accepts any text. When in doubt, it hides too much rather than too little.
    """
    scheme = _SCHEME.match(url)
    prefix = scheme[0] if scheme else ""
    rest = _hide_parameters(url.removeprefix(prefix))
    if prefix.lower() == "unix://" and rest.startswith("/"):
        return prefix + rest
    if "+" in prefix and _HOSTS.fullmatch(rest.partition("/")[0].partition("?")[0]):
        return prefix + rest
    return prefix + _hide_user(rest)


def _hide_parameters(rest: str) -> str:
    """Hide the query from its first secret value on: an `&` may be part of the value."""
    place, mark, query = rest.partition("?")
    shown = []
    for parameter in query.split("&"):
        if _SECRET.search(unquote_plus(parameter)):
            name, equals, _ = parameter.partition("=")
            shown.append(f"{name}={HIDDEN}" if equals else HIDDEN)
            break
        shown.append(parameter)
    return place + mark + "&".join(shown)


def _hide_user(rest: str) -> str:
    user, at, host = rest.rpartition("@")
    if not at:
        return _hide_port(rest)
    name, colon, _ = user.partition(":")
    return f"{name}:{HIDDEN}@{host}" if colon else f"{HIDDEN}@{host}"


def _hide_port(rest: str) -> str:
    """Hide a port that is not a number: it is a password whose `@host` is missing."""
    place = _PLACE.match(rest)
    if place is None or not place[2] or place[2][1:].isdigit():
        return rest
    return f"{place[1]}:{HIDDEN}"


# The list of processes ---------------------------------------------------------------------------

_ARG_START, _ARG_END = 45, 46
"""The positions of these fields after the program's name in /proc/self/stat; see proc(5)."""


def hide_argument(argument: str, shown: str) -> bool:
    """Overwrite an argument of this process in the system's list of processes with `shown`.

    Does not change `sys.argv`. Returns whether it was possible, which is on Linux only. The
    argument was visible until now. Errors: none.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - few commands need it

    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        written = ctypes.string_at(start, end - start) if 0 < start < end else b""
        wanted = argument.encode("utf-8", "surrogateescape")
        at = written.find(wanted)
        if at < 0:
            return False
        text = shown.encode("utf-8", "replace")[: len(wanted)].ljust(len(wanted))
        ctypes.memmove(start + at, text, len(text))
    except (OSError, ValueError, IndexError):
        return False
    return True
