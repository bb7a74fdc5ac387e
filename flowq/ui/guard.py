"""Who may send what: the one place that every request passes, before any route is looked for.

A request is served if it names a host that was announced (`flowq.ui.address`), and `authorize`
names its sender. Every method but GET and HEAD, whatever it is called, also needs proof that no
page of another site has sent it, and a body of JSON, which is read here within limits. Nothing is
ever allowed to other origins, so there are no CORS headers.

`flowq ui` authorizes by one token (`Token`). The address that it prints carries the token once: it
becomes a cookie, and a redirect removes it from the address. Programs send it as a bearer token.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowq.render.json import make_document
from flowq.ui.address import Address
from flowq.ui.replies import as_json, find_path

Answer = str | Response | None
"""Who sends a request; the reply to one that nobody has authorized, or None to refuse it."""

Authorize = Callable[[Request], "Answer | Awaitable[Answer]"]

READING = ("GET", "HEAD")
CSRF_HEADER = "X-Flowq-Token"
MAX_BODY_BYTES = 1_000_000
MAX_URL_BYTES = 8_000
MAX_HEADER_BYTES = 32_000
MAX_REQUESTS = 150
"""How many requests are served at a time; those of open pages too, which last."""

MAX_REQUESTS_OF_ONE = 60
"""Of these, how many one sender may have, if the application around the page tells them apart."""

BODY_S = 20.0
"""How long the body of a request may take."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
DEFAULT_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cache-Control": "no-store",
}
"""What a route may set otherwise."""

_AGAIN = (
    '<!doctype html><meta charset="utf-8"><title>flowq</title>'
    '<meta http-equiv="refresh" content="0"><p><a href="">Continue</a></p>\n'
)


class Refusal(Exception):
    """The request is refused, with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Token:
    """Authorizes by one token: in a cookie, or as a bearer token."""

    def __init__(self, token: str, address: Address, who: str) -> None:
        self.address = address
        self._token = token
        self._who = who

    def __call__(self, request: Request) -> str | None:
        """Return who sends a request, or None to refuse it."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = request.cookies.get(self.address.cookie, "")
        return self._who if self.is_right(given.strip()) else None

    def is_right(self, given: str) -> bool:
        """Return whether this is the token, in a time that does not depend on it."""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def find_landing(self, request: Request) -> Response | None:
        """Return the reply to an address that carries the token: a cookie, and where to go."""
        if request.method not in READING or "token" not in request.query_params:
            return None
        pairs = parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True)
        if not all(self.is_right(value) for name, value in pairs if name == "token"):
            return None
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        # One slash: a browser takes two for another host.
        path = "/" + quote(find_path(request.scope)).lstrip("/")
        url = request.scope.get("root_path", "") + path
        response = RedirectResponse(f"{url}?{rest}" if rest else url, 303)
        _set_cookie(request, response, self.address, self._token, "strict")
        return response


class Guard:
    """Refuses requests that nobody has authorized, and adds the headers that browsers obey."""

    def __init__(self, app: ASGIApp, authorize: Authorize, address: Address) -> None:
        self._app = app
        self._authorize = authorize
        self._address = address
        self._count = 0
        self._count_by_sender = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            self._count += 1
            scope = {**scope, "state": dict(scope.get("state", {}))}
            try:
                await self._serve(scope, receive, send)
            finally:
                self._count -= 1
                if counted := scope["state"].get("counted"):
                    self._count_by_sender[counted] -= 1
                    if not self._count_by_sender[counted]:
                        del self._count_by_sender[counted]

    def _count_sender(self, request: Request) -> None:
        """Leave room for others, where there are others: a token is that of one person."""
        who = request.state.who
        if isinstance(self._authorize, Token):
            return
        if self._count_by_sender[who] >= MAX_REQUESTS_OF_ONE:
            retry = {"Retry-After": "5"}
            raise refuse(request, 503, f"too many requests of {who} at a time", retry)
        self._count_by_sender[who] += 1
        request.scope["state"]["counted"] = who

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if root := self._address.root:  # proxies may leave the prefix out, or pass it on
            path = root + find_path({**scope, "root_path": root})
            scope = {**scope, "root_path": root, "path": path}
        request = Request(scope, receive)
        csrf_cookie = ""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
                if csrf_cookie:
                    response = Response()
                    _set_cookie(request, response, self._address, csrf_cookie, "lax")
                    headers.append("set-cookie", response.headers["set-cookie"])
            await send(message)

        try:
            self._check_size(request)
            self._check_host(request)
            await self._check_sender(request)
            self._count_sender(request)
            if request.method not in READING:
                self._check_origin(request)
                request.state.body = await _read_body(request)
        except Refusal as refusal:
            await refusal.response(scope, receive, send_with_headers)
            return
        except ClientDisconnect:
            return
        cookie = request.cookies.get(self._address.cookie, "")
        # A browser that a proxy, or the application around, has authorized has no cookie of ours.
        if not cookie and _is_browser(request):
            cookie = csrf_cookie = secrets.token_urlsafe()
        request.state.csrf = _make_csrf(cookie)
        await self._app(scope, receive, send_with_headers)

    def _check_size(self, request: Request) -> None:
        if self._count > MAX_REQUESTS:
            raise refuse(request, 503, "too many requests at a time", {"Retry-After": "5"})
        query: bytes = request.scope["query_string"]
        if not query.isascii():
            raise refuse(request, 400, "the query of the address is not encoded")
        if len(request.scope["path"]) + len(query) > MAX_URL_BYTES:
            raise refuse(request, 414, f"the address has more than {MAX_URL_BYTES:,} characters")

        if (
            sum(len(name) + len(value) for name, value in request.scope["headers"])
            > MAX_HEADER_BYTES
        ):
            raise refuse(request, 431, f"the headers have more than {MAX_HEADER_BYTES:,} bytes")

    def _check_host(self, request: Request) -> None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._address.has(hosts[0]):
            raise refuse(
                request,
                421,
                "flowq ui is not known by the host of this address; use the one that it printed, "
                "and behind a proxy, name it with --public-url",
            )

    async def _check_sender(self, request: Request) -> None:
        is_token = isinstance(self._authorize, Token)
        if isinstance(self._authorize, Token):
            if landing := self._authorize.find_landing(request):
                raise Refusal(landing)
            who = self._authorize(request)
        else:
            answer = await _ask(self._authorize, request)
            if isinstance(answer, Response) and _is_page(request):
                raise Refusal(answer)
            who = answer.strip() if isinstance(answer, str) else None
        if who:
            request.state.who = who
        elif not is_token:
            raise refuse(request, 403, "not authorized")
        elif _may_come_again(request):
            raise Refusal(HTMLResponse(_AGAIN, 401))
        else:
            raise refuse(
                request,
                401,
                "this needs a token: open the address that flowq ui printed when it started, or "
                "send the header `Authorization: Bearer TOKEN`",
                {"WWW-Authenticate": 'Bearer realm="flowq"'},
            )

    def _check_origin(self, request: Request) -> None:
        """Refuse what may come from a page of another site.

        A browser adds no `Authorization: Bearer` of its own, so a program with one needs no other
        proof; but a proxy may add it, so what the browser says of the sender counts all the same.
        """
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        is_other = (site is not None and site != "same-origin") or (
            origin is not None and not self._address.is_origin(origin, headers["host"])
        )
        is_program = headers.get("authorization", "").lower().startswith("bearer ")
        is_unknown = site is None and origin is None
        if is_other or (is_unknown and not is_program):
            raise refuse(request, 403, "this request comes from another site")
        if is_unknown:
            return
        given, cookie = headers.get(CSRF_HEADER, ""), request.cookies.get(self._address.cookie, "")
        wanted = _make_csrf(cookie).encode()
        if not (cookie and secrets.compare_digest(given.encode("utf-8", "replace"), wanted)):
            raise refuse(request, 403, "this page is out of date; load it again")


def refuse(
    request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
) -> Refusal:
    """Return a refusal that says why, in the form that the route has."""
    if find_path(request.scope).startswith("/api/"):
        error = {"type": "Refused", "message": message, "exit_code": 1}
        response = as_json(make_document("error", error=error), status)
        response.headers.update(dict(headers or {}))
    else:
        response = PlainTextResponse(f"{message}\n", status, dict(headers or {}))
    return Refusal(response)


async def _ask(authorize: Authorize, request: Request) -> object:
    """Ask a function of the user, which may block."""
    if inspect.iscoroutinefunction(authorize):
        found = await authorize(request)
    else:
        found = await run_in_threadpool(authorize, request)
        if inspect.isawaitable(found):
            found = await found
    return found


def _is_page(request: Request) -> bool:
    """Return whether a person sees the reply: the script and programs would not know what it is."""
    is_navigation = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
    path = find_path(request.scope)
    return (
        request.method in READING and is_navigation and not path.startswith(("/api/", "/metrics"))
    )


def _is_browser(request: Request) -> bool:
    headers = request.headers
    return "authorization" not in headers or "text/html" in headers.get("accept", "")


def _may_come_again(request: Request) -> bool:
    """Return whether a browser left out the cookie because a page of another site has the link.

    The reply makes it ask again by itself, and then it sends the cookie. As GET changes no run,
    that is as safe as a link in an address bar.
    """
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-site") in ("cross-site", "same-site")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and "token" not in request.query_params
    )


async def _read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body; {} without one. Errors: Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refuse(request, 415, "send JSON, with the header `Content-Type: application/json`")
    content = bytearray()
    try:
        with anyio.fail_after(BODY_S):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise refuse(request, 413, f"the body has more than {MAX_BODY_BYTES:,} bytes")
    except TimeoutError:
        raise refuse(request, 408, "the body came too slowly") from None
    if not content.strip():
        return {}
    try:
        body = json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise refuse(request, 400, "the body is not JSON, in UTF-8") from None
    if not isinstance(body, dict):
        raise refuse(request, 400, "the body is JSON, but not an object")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _make_csrf(cookie: str) -> str:
    """Return what proves that a page of ours has read its cookie."""
    return hashlib.sha256(b"flowq csrf " + cookie.encode("utf-8", "replace")).hexdigest()


def _set_cookie(
    request: Request, response: Response, address: Address, value: str, same_site: Any
) -> None:
    is_secure = address.origin.startswith("https:") or request.scope["scheme"] == "https"
    response.set_cookie(
        address.cookie,
        value,
        path=request.scope.get("root_path", "") or "/",
        secure=is_secure,
        httponly=True,
        samesite=same_site,
    )
