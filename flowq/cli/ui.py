"""`flowq ui`: the page, served on this machine."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from importlib.util import find_spec

import click

from flowq.cli import options, terminal
from flowq.cli.place import opened
from flowq.errors import UsageError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@click.option("--read-only", is_flag=True, help="Show runs, but change nothing.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@options.redis_url
def command(host: str, port: int, read_only: bool, no_open: bool, redis_url: str | None) -> None:
    """Show runs, jobs, workers and schedules in a browser, until Ctrl-C.

    \b
      flowq ui
      flowq ui --read-only --no-open --port 8080
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UsageError("flowq ui needs more packages: pip install 'rq-flowq[ui]'")
    import uvicorn  # noqa: PLC0415 - an extra

    from flowq.ui.address import local_address  # noqa: PLC0415 - starlette is an extra
    from flowq.ui.application import make_app  # noqa: PLC0415
    from flowq.ui.guard import Token  # noqa: PLC0415
    from flowq.ui.site import Site  # noqa: PLC0415

    token = secrets.token_urlsafe(32)

    with opened(redis_url, creating=True) as place, socket.create_server((host, port)) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}/?token={token}"
        terminal.write(f"{url}\n")
        if not no_open:
            webbrowser.open(url)
        address = local_address(host, listener.getsockname()[1])
        site = Site(place.connection, is_read_only=read_only, server=place.shown_url)
        application = make_app(site, Token(token, address, "ui"), address)
        config = uvicorn.Config(application, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
