"""`flowq retry`: what did not succeed, once more."""

from __future__ import annotations

import click

from flowq import client
from flowq.cli import options, streams
from flowq.cli.attending import Wishes, see_to_the_end
from flowq.cli.interrupts import Interrupts
from flowq.cli.place import opened

NAMED = 5


@click.command()
@options.run_id
@options.redis_url
@options.concurrency
@options.as_json
@options.quiet
@options.verbose
def command(
    run_id: str,
    redis_url: str | None,
    concurrency: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run again what did not succeed in a run that has ended, and everything after it.

    All other jobs keep their results. Then it follows the run as `flowq run` does.

    \b
      flowq retry k3v9x0q2m5ab
    """
    wishes = Wishes(concurrency, as_json, verbose, quiet)
    with streams.result_stream(as_json) as out, opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        with Interrupts(deferring=True) as interrupts:
            since = run.status().last_event_id
            deleted = [job.name for job in run.status().jobs.values() if job.state == "deleted"]
            again = run.retry()
            count = len(again)
            if deleted:
                names = ", ".join(deleted[:NAMED]) + (" and others" if len(deleted) > NAMED else "")
                streams.note(f"flowq: {names}: deleted, and cannot run again")
            streams.note(f"flowq: {count} job{'s' if count > 1 else ''} of run {run_id} run again")
            return see_to_the_end(run, place, wishes, out, interrupts, since)
