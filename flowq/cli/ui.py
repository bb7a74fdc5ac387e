"""`flowq ui`: the page, served on this machine."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from html import escape
from importlib.util import find_spec
from pathlib import Path

import click
from redis.exceptions import RedisError

from flowq import server
from flowq.cli import options, terminal
from flowq.cli.following import start_workers
from flowq.cli.place import Place, make_retry, note, opened
from flowq.cli.terminal import Interrupts
from flowq.client import Run
from flowq.errors import UsageError
from flowq.runtime.approvals import say_who
from flowq.server import private
from flowq.server.connection import PING_S, explain, make_client

HOLD_S = 2.0
"""How often the private server is asked something, so that it does not end as unused."""

ANSWER_S = 10.0
"""How long a page waits for an answer of the server. Commands wait longer, but nobody sees them."""

FEWEST_CHARACTERS = 32
"""The shortest token that a file may have."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@click.option("--read-only", is_flag=True, help="Show runs, but change nothing.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@click.option(
    "--workflows",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Let the page and its API submit runs of the YAML workflows in this folder, by name.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Use the token in this file, which is created if it does not exist. Default: a new token "
    "each time.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="The address of the page at a reverse proxy, as in https://jobs.example/flowq.",
)
@options.redis_url
@options.verbose
def command(
    host: str,
    port: int,
    read_only: bool,
    no_open: bool,
    workflows: Path | None,
    token_file: Path | None,
    public_url: str | None,
    redis_url: str | None,
    verbose: bool,
) -> None:
    """Show runs, jobs, workers and schedules in a browser, until Ctrl-C.

    The command prints an address with a token. Anyone who has it can see all arguments, results and
    output, and, without --read-only, change runs. Programs send the token as a header:
    `Authorization: Bearer TOKEN`; /api/openapi.json describes what they can ask.

    On the private server of the current folder, the command starts workers for runs that the page
    submits or resumes, as flowq run does.

    \b
      flowq ui
      flowq ui --workflows workflows/
      flowq ui --read-only --no-open --port 8080 --token-file ~/.flowq-token
      flowq ui --redis-url redis://localhost/0
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UsageError("flowq ui needs more packages: pip install 'rq-flowq[ui]'")
    from flowq.ui.address import is_local, local_address, public_address  # noqa: PLC0415 - extras
    from flowq.ui.application import make_app  # noqa: PLC0415
    from flowq.ui.guard import Token  # noqa: PLC0415
    from flowq.ui.serving import serve  # noqa: PLC0415
    from flowq.ui.site import Site  # noqa: PLC0415

    if read_only and workflows:
        raise UsageError("--read-only and --workflows exclude each other")
    token = _read_token(token_file) if token_file else secrets.token_urlsafe()
    with _reached(redis_url) as place, _listening(host, port) as listener:
        address = local_address(host, listener.getsockname()[1])
        url = _name(host, listener.getsockname()[1])
        if not is_local(host):
            note(
                f"other machines can reach {url}, and without TLS the network can read the token: "
                "put a proxy with TLS before it (--public-url), or listen on 127.0.0.1",
                is_warning=True,
            )
        if public_url:
            address, url = public_address(public_url, address), public_url.rstrip("/")
        site = Site(
            place.connection,
            is_read_only=read_only,
            workflows=workflows,
            server=place.shown_url,
            start_workers=_starting(place),
        )
        application = make_app(site, Token(token, address, f"{say_who()} (ui)"), address)
        page = f"{url}/?token={token}"
        terminal.write(f"{page}\n")
        sys.stdout.flush()
        note("whoever has this address has the page; Ctrl-C ends it")
        with _opened_in_browser(page, wanted=not no_open), Interrupts(deferring=True):
            serve(application, listener)


@contextmanager
def _reached(option: str | None) -> Iterator[Place]:
    """Yield the server to show, which need not answer yet; the private one is kept running."""
    url = server.resolve_url(option)
    if url is None:
        is_new = not server.is_used() and server.find_used_above() is None
        with opened(None, creating=is_new) as place, _held(place):
            place.retry.wait_at_most(0.0)  # a page says so at once, and asks again
            yield place
        return
    connection = make_client(url, health_check_interval=PING_S, socket_timeout=ANSWER_S)
    place = Place(url, connection, False, make_retry(), option)
    try:
        try:
            connection.ping()
        except (RedisError, OSError, UnicodeError) as error:
            note(
                f"the server at {place.shown_url} cannot be used: {explain(error)}; the "
                "page shows runs as soon as it can be"
            )
        yield place
    finally:
        connection.close()


@contextmanager
def _held(place: Place) -> Iterator[None]:
    """Keep a connection to the private server, which ends without one; also after a restart."""
    is_over = threading.Event()

    def hold() -> None:
        while not is_over.wait(HOLD_S):
            with suppress(RedisError, OSError):
                place.connection.ping()

    threading.Thread(target=hold, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use; choose another one with --port, or any free "
                "one without it"
            ) from None
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def _name(host: str, port: int) -> str:
    """Return the URL of a page that listens there."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host.strip("[]")  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _starting(place: Place) -> Callable[[Run], object] | None:
    """Return what starts workers for a run; None where others serve all runs."""
    if not place.is_embedded:
        return None
    folder, lock = Path.cwd(), threading.Lock()  # workers find the code of the run there

    def start(run: Run) -> None:
        with lock, chdir(folder):
            if not run.is_served():
                workers = start_workers(run, place, None)
                if workers is not None:  # one that has ended remains as long as nobody waits for it
                    threading.Thread(target=workers.wait, daemon=True).start()

    return start


def _read_token(path: Path) -> str:
    """Return the token in a file, which is created if it is not there. Errors: UsageError."""
    try:
        if not path.exists():
            private.write_whole(path, f"{secrets.token_urlsafe()}\n".encode())
        descriptor = private.open_file(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            is_open_to_others = hasattr(os, "geteuid") and os.fstat(descriptor).st_mode & 0o077
            token = file.read(1000).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path}: {error}") from None
    if is_open_to_others:
        raise UsageError(f"--token-file {path}: other users can read it; run: chmod 600 {path}")
    if len(token) < FEWEST_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        raise UsageError(
            f"--token-file {path}: a token has at least {FEWEST_CHARACTERS} of A-Z, a-z, 0-9, _ "
            "and -; remove the file, and flowq writes a new one"
        )
    return token


@contextmanager
def _opened_in_browser(url: str, *, wanted: bool) -> Iterator[None]:
    """Open a URL in the browser, without telling it to other users, who see arguments of programs.

    A file that only this user can read leads there.
    """
    if not wanted or not _has_display():
        if wanted:
            note("there is no display here: open the address in a browser yourself")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="flowq-ui-", ignore_cleanup_errors=True) as folder:
        file = Path(folder, "open.html")
        private.write_whole(
            file,
            (
                '<!doctype html><meta charset="utf-8"><title>flowq</title>'
                '<meta name="referrer" content="no-referrer">'
                f'<meta http-equiv="refresh" content="0; url={escape(url)}">'
                f'<a href="{escape(url)}">Open the page</a>\n'
            ).encode(),
        )
        # A browser in the terminal would block.
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
        yield


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
