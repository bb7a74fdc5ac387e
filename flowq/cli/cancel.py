"""`flowq cancel`: the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click

from flowq import client
from flowq.cli import options, streams
from flowq.cli.place import opened
from flowq.status import ENDED, RunStatus


@click.command()
@options.run_id
@click.option("--now", is_flag=True, help="End also what is there for the end of the run.")
@options.redis_url
@options.verbose
def command(run_id: str, now: bool, redis_url: str | None, verbose: bool) -> None:
    """End a run: what has not started never will, and what runs is stopped.

    Then jobs run whose `if` asks always() or canceled(), to clean up or to tell somebody. With
    --now these are called off, or stopped, as well.

    \b
      flowq cancel k3v9x0q2m5ab
      flowq cancel k3v9x0q2m5ab --now
    """
    with opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        run.cancel(now=now)
        status = run.status()
        streams.write(f"{'; '.join(_told(status))}\n")
        queues = [] if status.is_ended else run.unattended_queues(status)
        if queues:
            is_own = run.record().queue in queues
            words = f"release {run_id}" if is_own else f"worker {shlex.join(queues)}"
            streams.note(
                f"flowq: no worker executes what is left: start one with: {place.hint(words)}; or "
                f"end the run with: {place.hint(f'cancel {run_id} --now')}"
            )


def _told(status: RunStatus) -> Iterator[str]:
    yield f"run {status.run_id} is canceled"
    running = status.count_by_state().get("started", 0)
    if running:
        are = "runs, and is" if running == 1 else "run, and are"
        yield f"{running} of its jobs still {are} being stopped"
    jobs = status.jobs.values()
    left = [job.name for job in jobs if job.state not in ENDED and job.state != "started"]
    if left:
        shown = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        their, these = ("its", "this") if len(left) == 1 else ("their", "these")
        yield f"{shown} will run, as {their} `if` asks for; --now ends {these} too"
