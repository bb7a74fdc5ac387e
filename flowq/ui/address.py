"""Where the page is: the hosts and origins that browsers may name, and its cookies.

A page of another site can make a browser send requests here, under a name of its own that it has
pointed at this machine (DNS rebinding). So a request counts only if it names a host that was
announced. An address in digits is no such name, and is accepted where the page listens on all.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from flowq.errors import UsageError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where browsers find the page.

    Shape: `hosts` are pairs of a name and a port, None if the application around the page checks
    them. With `any_digits`, each address in digits is one, on these ports. `origin` is what
    requests must have as theirs; "" for the host that they name. `root` is the path before
    all others, without a slash at its end.
    """

    hosts: frozenset[tuple[str, int]] | None = None
    origin: str = ""
    root: str = ""
    any_digits: bool = False

    def has(self, host: str) -> bool:
        """Return whether a Host header names this address."""
        if self.hosts is None:
            return True
        ports = {port for _, port in self.hosts}
        return any(
            named in self.hosts or (self.any_digits and named[1] in ports and _is_digits(named[0]))
            for scheme in _DEFAULT_PORTS  # a proxy may have ended TLS, and names no port
            if (named := read_host(host, scheme)) is not None
        )

    def is_origin(self, origin: str, host: str) -> bool:
        """Return whether an Origin header is this address, in a request that names `host`."""
        if self.origin:
            return origin == self.origin
        scheme, separator, named = origin.partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:  # as "null" is
            return False
        # A proxy may have ended TLS, so the scheme of the request is not that of the browser.
        found = read_host(named, scheme)
        return found is not None and found == read_host(host, scheme)

    @property
    def cookie(self) -> str:
        """The name of the cookie: browsers send cookies to all ports of a host."""
        ports = sorted({port for _, port in self.hosts or ()})
        return "-".join(["flowq", *map(str, ports)])


def local_address(host: str, port: int) -> Address:
    """Return the address of a page that listens on `host` and `port`."""
    names = {host.strip("[]").lower()}
    is_all = host in ("", "0.0.0.0", "::")  # noqa: S104 - it is compared, not used
    if is_all:
        names = {socket.gethostname().lower(), socket.getfqdn().lower()}
    if is_all or is_local(host):
        names.update(LOCAL_NAMES)
    return Address(frozenset((name, port) for name in names), any_digits=is_all)


def public_address(url: str, local: Address) -> Address:
    """Return the address of a page behind a reverse proxy, which may also name the local one.

    Errors: UsageError.
    """
    parts = urlsplit(url)
    try:
        named = read_host(parts.netloc, parts.scheme)
    except ValueError:
        named = None
    if named is None or parts.query or parts.fragment or not parts.path.isascii():
        raise UsageError(f"--public-url {url}: write https://HOST, https://HOST:PORT or …/PATH")
    name, port = named
    shown = f"[{name}]" if ":" in name else name
    is_usual = port == _DEFAULT_PORTS[parts.scheme]
    origin = f"{parts.scheme}://{shown}{'' if is_usual else f':{port}'}"
    hosts = frozenset({named, *(local.hosts or ())})
    return Address(hosts, origin, parts.path.rstrip("/"), local.any_digits)


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    name = host.strip("[]").lower()
    return name == "localhost" or (_is_digits(name) and ip_address(name).is_loopback)


def read_host(text: str, scheme: str) -> tuple[str, int] | None:
    """Return the name, in lower case, and the port in a Host header; None if it is none."""
    if scheme not in _DEFAULT_PORTS or any(sign in text for sign in "@/\\?#, \t"):
        return None
    name, bracket, rest = text.rpartition("]")
    name, colon, port = (name, *rest.partition(":")[1:]) if bracket else text.partition(":")
    if bracket and (not name.startswith("[") or not (rest == "" or rest.startswith(":"))):
        return None
    name = name.removeprefix("[").lower()
    if not name or not name.isascii() or (colon and not (port.isascii() and port.isdigit())):
        return None
    if len(port) > len("65535"):
        return None
    return name, int(port) if colon else _DEFAULT_PORTS[scheme]


def _is_digits(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
