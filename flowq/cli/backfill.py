"""`flowq backfill`: submit the runs of a schedule for a range of time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import click

from flowq.cli import compiling, options, terminal
from flowq.cli.place import opened, warn_about
from flowq.cli.schedule import find_scheduled, until_interrupted, warn_about_workers
from flowq.render.lines import count


@click.command()
@options.target
@click.option("--from", "begin", required=True, metavar="D", help="The first day, or instant.")
@click.option("--to", "end", required=True, metavar="D", help="The last day, or instant.")
@click.option(
    "--max-parallel",
    type=click.IntRange(min=1),
    metavar="N",
    help="Wait while N of these runs have not ended. Default: submit all of them at once.",
)
@options.inputs
@options.inputs_file
@options.redis_url
@options.no_import
@options.quiet
@options.verbose
def command(
    target: str,
    begin: str,
    end: str,
    max_parallel: int | None,
    given: Mapping[str, str],
    inputs_file: str | None,
    redis_url: str | None,
    imports: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Submit a run for each due time of a workflow's `schedule` between two days.

    A due time has one run: those that `flowq schedule` or an earlier backfill has submitted in the
    last 30 days are left out, so after an interruption the same command continues. A run that
    was removed with `run.remove()` is submitted again. D is a date, 2026-11-29, or an instant,
    2026-11-29T06:00; without an offset in the time zone of the schedule. `run.due_at` tells a job
    which due time its run is for.

    \b
      flowq backfill workflows/books.yaml --from 2026-11-01 --to 2026-11-30 --max-parallel 4
    """
    from flowq import scheduling  # noqa: PLC0415 - nothing but this needs it

    (workflow,) = find_scheduled(target).values()
    inputs = compiling.read_given(given, inputs_file)
    defaults = compiling.read_environment(workflow)
    dues = scheduling.find_range(workflow, begin, end, datetime.now(UTC))
    if not dues:
        terminal.note(f"flowq: {workflow.name} was never due from {begin} to {end}")
        return
    with terminal.users_code():
        plan = scheduling.plan_due(workflow, dues[0], inputs, defaults=defaults, imports=imports)
    with opened(redis_url, creating=True) as place, terminal.Interrupts(deferring=True) as signals:
        warn_about(place)
        if not quiet:
            warn_about_workers([plan], place)
        numbers = {True: 0, False: 0}
        for due, run_id in scheduling.backfill(
            workflow,
            dues,
            inputs,
            place.connection,
            defaults=defaults,
            max_parallel=max_parallel,
            wait=until_interrupted(signals),
        ):
            numbers[run_id is not None] += 1
            if run_id:
                terminal.write(f"{due.at.isoformat()}  {run_id}\n")
        left = len(dues) - sum(numbers.values())
        if not quiet:
            before = f", {numbers[False]:,} submitted before" if numbers[False] else ""
            terminal.note(f"flowq: {count(numbers[True], 'run')} submitted{before}")
        if left:
            terminal.note(f"flowq: {left:,} are left: give the same command again to go on")
            raise terminal.Interrupted(signals.first or 0)
