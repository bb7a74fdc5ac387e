"""`flowq worker`: a worker in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from flowq import workers
from flowq.cli import options, streams
from flowq.cli.place import opened, warn_about
from flowq.errors import UsageError


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@options.redis_url
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1, max=1024),
    default=1,
    show_default=True,
    metavar="N",
    help="How many jobs are executed at a time.",
)
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option(
    "--multiprocessing",
    is_flag=True,
    help="Keep spawned children, instead of a fork for each job; the default on Windows.",
)
@click.option(
    "-S",
    "--serializer",
    type=click.Choice(["pickle", "json"]),
    default="pickle",
    show_default=True,
    help="How jobs and results are kept in Redis, as their queue says.",
)
@click.option("--name", metavar="NAME", help="The worker's name; it must not be in use.")
@options.quiet
@options.verbose
def command(
    queues: tuple[str, ...],
    redis_url: str | None,
    concurrency: int,
    burst: bool,
    multiprocessing: bool,
    serializer: str,
    name: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Execute the jobs of queues, in this order of priority; without any, of "default".

    The modules of the current folder are importable. Ctrl-C lets the running jobs finish; a second
    one puts them back. RQ's own command starts the same worker: rq worker -w flowq.Worker.

    \b
      flowq worker --redis-url redis://localhost/0 -c 4
      flowq worker mails default --burst
    """
    with opened(redis_url) as place:
        if not quiet:
            names = ", ".join(queues or ("default",))
            streams.note(f"flowq: working on {names} at {place.shown_url}")
            warn_about(place)
        try:
            workers.main(
                url=place.url,
                queues=queues or ("default",),
                concurrency=concurrency,
                mode="multiprocessing" if multiprocessing else None,
                burst=burst,
                paths=[str(Path.cwd())],
                name=name,
                quiet=quiet,
                serializer=serializer,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
