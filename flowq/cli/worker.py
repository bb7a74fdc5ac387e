"""`flowq worker`: a worker in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowq import workers
from flowq.cli import options, terminal
from flowq.cli.place import opened, opened_if_used, warn_about
from flowq.errors import UsageError

COUNT = click.IntRange(min=1)


@click.command()
@options.queues
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
@click.option("-b", "--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--max-jobs", type=COUNT, metavar="N", help="End after so many jobs.")
@click.option(
    "--max-idle-time", type=COUNT, metavar="SECONDS", help="End after so long without a job."
)
@click.option(
    "--mode",
    type=click.Choice(["fork", "warm", "multiprocessing"]),
    help="fork: a process for each job, as RQ does. warm: forked children that are kept, much "
    "faster for short jobs. multiprocessing: spawned ones that are kept, on every platform. Those "
    "that are kept are replaced when a file of what they have imported changes. "
    "Default: fork, where there is one.",
)
@click.option("--multiprocessing", is_flag=True, help="The same as --mode multiprocessing.")
@click.option(
    "--max-jobs-per-child",
    type=COUNT,
    metavar="N",
    help="Replace a child that is kept after so many jobs; 1: a process for each job.",
)
@click.option(
    "--no-batches",
    "batches",
    flag_value=False,
    default=True,
    help="Hand over even the shortest jobs one by one.",
)
@click.option(
    "-P",
    "--path",
    "paths",
    multiple=True,
    metavar="FOLDER",
    help="Import from there too; may be given again for others.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="Import it before the first job; with --mode fork once for all jobs, which then share "
    "what it made at its import. May be given again for others.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Execute only what is defined there: 'shop.*' for the modules of shop, or one function, "
    "as shop.billing.charge. It goes for callbacks and for classes in the data too, and what is "
    "refused fails. May be given again for others. Default: FLOWQ_ALLOW, else everything.",
)
@click.option(
    "--allow-run",
    is_flag=True,
    help="Execute `run:` jobs too; without --allow nothing else. Default: FLOWQ_ALLOW_RUN.",
)
@click.option(
    "--results-ttl",
    "default_result_ttl",
    type=click.IntRange(min=-1),
    metavar="SECONDS",
    help="How long results are kept of jobs that do not say it; -1: for ever. Default: 500.",
)
@click.option("--job-class", metavar="NAME", help="A subclass of flowq.Job: package.module.Name")
@click.option(
    "-S",
    "--serializer",
    type=click.Choice(["pickle", "json"]),
    default="pickle",
    show_default=True,
    help="How jobs and results are kept in Redis, as their queue says.",
)
@click.option(
    "--dequeue-strategy",
    type=click.Choice(["default", "round_robin", "random"]),
    help="Take from the queues in their order, from one after the other, or at random.",
)
@click.option(
    "-s",
    "--with-scheduler",
    is_flag=True,
    expose_value=False,
    help="As RQ's option; here the scheduler is always included.",
)
@click.option("-n", "--name", metavar="NAME", help="The worker's name; it must not be in use.")
@click.option(
    "--logging-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="How much the worker says of itself. Default: INFO, with -q WARNING.",
)
@options.quiet
@options.verbose
def command(
    queues: tuple[str, ...],
    redis_url: str | None,
    mode: Any,
    multiprocessing: bool,
    paths: tuple[str, ...],
    allow: tuple[str, ...],
    quiet: bool,
    verbose: bool,
    **worker_options: Any,
) -> None:
    """Execute the jobs of queues, in this order of priority; without any, of "default".

    On a private server these are jobs of no run, and those of scheduled runs: others have workers
    of their own. The modules of the current folder are importable, and scheduled jobs are queued
    when they are due. Ctrl-C lets the running jobs finish; a second one puts them back. RQ's own
    command starts the same worker: rq worker -w flowq.Worker.

    \b
      flowq worker --redis-url redis://localhost/0 -c 4 --mode warm
      flowq worker mails default --burst
    """
    if multiprocessing and mode not in (None, "multiprocessing"):
        raise UsageError(f"--multiprocessing and --mode {mode}: give one of them")
    for name in allow:
        if Path(name).exists():  # by far not the name of a module
            raise UsageError(
                f"--allow {name}: that is a file here, so the shell has put names of files in the "
                "place of a pattern; write it in quotes: --allow 'shop.*'"
            )
    with opened_if_used(redis_url) if worker_options["burst"] else opened(redis_url) as place:
        if place is None:
            return

        def tell() -> None:
            names = ", ".join(queues or ("default",))
            terminal.note(f"flowq: working on {names} at {place.shown_url}")
            warn_about(place)

        try:
            workers.main(
                url=place.url,
                queues=queues or ("default",),
                mode="multiprocessing" if multiprocessing else mode,
                paths=[str(Path(path).absolute()) for path in (*paths, ".")],
                quiet=quiet,
                allow=allow or None,
                on_start=None if quiet else tell,
                **{name: value for name, value in worker_options.items() if value is not None},
            )
        except (ValueError, ImportError) as error:
            raise UsageError(str(error)) from None
