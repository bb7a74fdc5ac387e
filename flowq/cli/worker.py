"""`flowq worker`: a worker in the foreground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from flowq import server, workers
from flowq.cli import options, rq_options
from flowq.cli.place import note, notes_as_records, opened, opened_if_used, warn_about
from flowq.errors import UsageError
from flowq.workers import logs

COUNT = click.IntRange(min=1)


class Concurrency(click.IntRange):
    """A number of jobs; the name of a module is meant for another option."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Errors: UsageError."""
        if isinstance(value, str) and value[:1].isalpha():
            raise UsageError(
                f"-c {value}: -c is the number of jobs at a time here; "
                f"the option for a module of settings is --config {value}"
            )
        number: int = super().convert(value, param, ctx)
        return number


@click.command()
@options.queues
@options.redis_url_as_rq
@click.option(
    "--config",
    metavar="MODULE",
    help="A module of settings as for rq worker: REDIS_URL, REDIS_HOST, SENTINEL, QUEUES, NAME, "
    "DICT_CONFIG. (-c is --concurrency here.)",
)
@click.option(
    "-c",
    "--concurrency",
    type=Concurrency(min=1, max=1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of jobs to execute at a time.",
)
@click.option("-b", "--burst", is_flag=True, help="Exit when the queues are empty.")
@click.option("--max-jobs", type=COUNT, metavar="N", help="Exit after N jobs.")
@click.option(
    "--max-idle-time", type=COUNT, metavar="SECONDS", help="Exit after SECONDS without a job."
)
@click.option(
    "--mode",
    type=click.Choice(["fork", "warm", "multiprocessing"]),
    help="fork: one process per job, as in RQ. warm: reused forked children, much faster for short "
    "jobs. multiprocessing: reused spawned children, on every platform. Reused children are "
    "replaced when a file that they imported changes. Default: fork, where available.",
)
@click.option("--multiprocessing", is_flag=True, help="The same as --mode multiprocessing.")
@click.option(
    "--max-jobs-per-child",
    type=COUNT,
    metavar="N",
    help="Replace a reused child after N jobs; 1: one process per job.",
)
@click.option(
    "--no-batches",
    "batches",
    flag_value=False,
    default=True,
    help="Pass jobs to children one by one, even very short ones.",
)
@click.option(
    "-P",
    "--path",
    "paths",
    multiple=True,
    metavar="FOLDER",
    help="Add this folder to the import path; may be repeated.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="Import this module before the first job; with --mode fork only once, so all jobs share "
    "the objects created by the import. May be repeated.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Execute only code defined there: 'shop.*' for the modules of shop, or one function such "
    "as shop.billing.charge. Also restricts callbacks and classes in data; refused jobs fail. May "
    "be repeated. Default: FLOWQ_ALLOW, else everything.",
)
@click.option(
    "--allow-run",
    is_flag=True,
    help="Execute `run:` jobs too; without --allow, only those. Default: FLOWQ_ALLOW_RUN.",
)
@click.option(
    "--results-ttl",
    "default_result_ttl",
    type=click.IntRange(min=-1),
    metavar="SECONDS",
    help="Seconds to keep results of jobs that do not set a TTL; -1: forever. Default: 500.",
)
@click.option(
    "--worker-ttl",
    type=COUNT,
    metavar="SECONDS",
    help="Seconds after which RQ's tools forget a silent worker. Default: 420.",
)
@click.option(
    "--maintenance-interval",
    type=COUNT,
    metavar="SECONDS",
    help="Seconds between cleanings of RQ's registries. Default: 600.",
)
@click.option(
    "--job-monitoring-interval",
    type=COUNT,
    metavar="SECONDS",
    help="Seconds between heartbeats of a running job, as RQ's tools see them. Default: 30.",
)
@click.option(
    "-j", "--job-class", metavar="NAME", help="A subclass of flowq.Job: package.module.Name"
)
@click.option("--queue-class", metavar="NAME", help="A subclass of flowq.Queue.")
@click.option(
    "--exception-handler",
    "exception_handlers",
    multiple=True,
    metavar="NAME",
    help="When a job fails, call this function in the job's process, with the job and the "
    "exception: package.module.function. May be repeated.",
)
@click.option(
    "-d",
    "--disable-default-exception-handler",
    is_flag=True,
    help="Do not register failed jobs as failed, as in RQ.",
)
@click.option(
    "-S",
    "--serializer",
    type=click.Choice(["pickle", "json"]),
    default="pickle",
    show_default=True,
    help="How jobs and results are serialized; must match the queue.",
)
@click.option(
    "-ds",
    "--dequeue-strategy",
    type=click.Choice(["default", "round_robin", "random"]),
    help="Take jobs from queues in order, in turn, or at random.",
)
@click.option(
    "-s",
    "--with-scheduler",
    is_flag=True,
    expose_value=False,
    help="Accepted as in RQ; the scheduler is always included.",
)
@click.option("-n", "--name", metavar="NAME", help="The worker's name; it must not be in use.")
@click.option("--pid", metavar="FILE", help="Write the process id of the worker to this file.")
@click.option(
    "--log-format",
    metavar="FORMAT",
    help="json: one object per line, with run, job and attempt, also for what the jobs log. Or a "
    "format of Python's logging, as in RQ.",
)
@click.option("--date-format", metavar="FORMAT", help="A format of time.strftime, as in RQ.")
@click.option(
    "--disable-job-desc-logging",
    is_flag=True,
    expose_value=False,
    help="Accepted as in RQ; descriptions of jobs are not logged.",
)
@click.option(
    "--logging-level",
    "--logging_level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="The worker's log level. Default: INFO, with -q WARNING.",
)
@options.quiet
@options.verbose
@rq_options.refuse_others
def command(
    queues: tuple[str, ...],
    redis_url: str | None,
    config: str | None,
    pid: str | None,
    mode: Any,
    multiprocessing: bool,
    paths: tuple[str, ...],
    allow: tuple[str, ...],
    quiet: bool,
    verbose: bool,
    **worker_options: Any,
) -> None:
    """Execute the jobs of the given queues, in order of priority; the default queue is "default".

    On a private server, the worker executes only jobs outside of runs and jobs of scheduled runs,
    because other runs have their own workers. The modules of the current folder are importable, and
    scheduled jobs are queued when they are due. Ctrl-C lets the running jobs finish; a second
    Ctrl-C puts them back. RQ's own command starts the same worker: rq worker -w flowq.Worker.

    \b
      flowq worker --redis-url redis://localhost/0 -c 4 --mode warm
      flowq worker mails default --burst
    """
    if multiprocessing and mode not in (None, "multiprocessing"):
        raise UsageError(f"--multiprocessing and --mode {mode}: give one of them")
    _refuse_files(allow)
    folders = [str(Path(path).absolute()) for path in (*paths, ".")]
    if config:
        settings = rq_options.read_settings(config, tuple(folders))
        redis_url = server.resolve_url(redis_url) or settings.url
        queues = queues or settings.queues
        worker_options["name"] = worker_options["name"] or settings.name
    rq_options.check_handlers(worker_options["exception_handlers"], folders)
    if pid:
        rq_options.write_pid(pid)
    open_place = opened_if_used if worker_options["burst"] else opened
    with _noting(worker_options, quiet), open_place(redis_url, is_here=True) as place:
        if place is None:
            return

        def tell() -> None:
            names = ", ".join(queues or ("default",))
            note(f"working on {names} at {place.shown_url}")
            warn_about(place)

        try:
            workers.main(
                url=place.url,
                queues=queues or ("default",),
                mode="multiprocessing" if multiprocessing else mode,
                paths=folders,
                quiet=quiet,
                allow=allow or None,
                on_start=None if quiet else tell,
                **{name: value for name, value in worker_options.items() if value is not None},
            )
        except (ValueError, ImportError) as error:
            raise UsageError(str(error)) from None


def _noting(worker_options: Mapping[str, Any], quiet: bool) -> AbstractContextManager[None]:
    """Return what makes records of this command's notes, if its log is JSON."""
    if worker_options["log_format"] != logs.JSON:
        return nullcontext()
    level = worker_options["logging_level"] or ("WARNING" if quiet else "INFO")
    logs.set_up(level, worker_options["date_format"], logs.JSON)
    return notes_as_records(logs.LOGGER)


def _refuse_files(allow: Sequence[str]) -> None:
    for name in allow:
        if Path(name).exists():  # by far not the name of a module
            raise UsageError(
                f"--allow {name}: that is a file here, so the shell has replaced a pattern by "
                "file names; quote it: --allow 'shop.*'"
            )
