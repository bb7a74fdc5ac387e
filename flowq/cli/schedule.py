"""`flowq schedule`: a workflow that runs by itself."""

from __future__ import annotations

from collections.abc import Mapping

import click

from flowq.cli import compiling, options, streams
from flowq.cli.place import opened, warn_about


@click.command()
@options.target
@options.inputs
@options.inputs_file
@options.redis_url
@options.no_import
@options.verbose
def command(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    redis_url: str | None,
    imports: bool,
    verbose: bool,
) -> None:
    """Submit a run whenever the workflow's `schedule` says so, until Ctrl-C.

    The runs are submitted and executed by workers: this command only watches the clock. Keep one of
    it for each workflow.

    \b
      flowq schedule workflows/books.yaml --redis-url redis://localhost/0
    """
    from flowq.scheduling import make_scheduler  # noqa: PLC0415 - loads RQ's cron

    plan = compiling.make_plan(target, given, inputs_file, imports)
    with opened(redis_url, creating=True) as place:
        warn_about(place)
        scheduler = make_scheduler(compiling.load(target), plan.inputs, place.connection)
        at = scheduler.get_jobs()[0].get_next_enqueue_time().astimezone()
        streams.note(f"flowq: the next run of {plan.workflow} is due at {at:%Y-%m-%d %H:%M %Z}")
        scheduler.start()  # type: ignore[no-untyped-call]  # RQ's
