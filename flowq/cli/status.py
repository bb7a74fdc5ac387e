"""`flowq status`: where a run is."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, following, options, terminal
from flowq.cli.place import opened
from flowq.render.progress import progress
from flowq.render.summary import Report, results


@click.command()
@options.run_id
@options.redis_url
@options.as_json
@options.verbose
def command(run_id: str, redis_url: str | None, as_json: bool, verbose: bool) -> None:
    """Show where a run is, job by job.

    The exit code is 0 whatever its state; scripts read the "status" of --json.

    \b
      flowq status k3v9x0q2m5ab
      flowq status k3v9x0q2m5ab --json
    """
    with terminal.result_stream(as_json) as out, opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        status = run.status()
        kept = run.kept_outputs()
        if as_json:
            terminal.write(following.run_json(run, status, kept), out)
            for name, why in kept.errors.items():
                terminal.note(f"flowq: output {name} has no value: {why}")
            return
        width, unicode = display.width_of(out), terminal.can_show(out)
        display.tell(progress(status, datetime.now(UTC), width, unicode=unicode), out)
        ended = Report(status, outputs=kept.views, unknown=kept.errors)
        display.tell(list(results(ended, width, unicode=unicode)), out)
        if status.is_ended and status.state != "succeeded":
            terminal.write(f"\nwhy: {place.hint('show', run_id)}\n", sys.stdout)
        if any(job.is_stuck for job in status.jobs.values()):
            terminal.write(f"\nwhat to do: {place.hint('explain', run_id)}\n", sys.stdout)
