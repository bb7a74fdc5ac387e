"""`flowq cancel`: cancel a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from flowq import client
from flowq.cli import options, terminal
from flowq.cli.following import start_workers
from flowq.cli.place import Place, opened
from flowq.client import Run
from flowq.status import ENDED, RunStatus

SHOWN = 5


@click.command()
@options.run_id
@click.option("--now", is_flag=True, help="Also cancel jobs that run at the end of the run.")
@options.redis_url
@options.verbose
def command(run_id: str, now: bool, redis_url: str | None, verbose: bool) -> None:
    """Cancel a run: jobs that have not started are canceled, and running jobs are stopped.

    Afterwards, jobs with always() or canceled() in their `if` and those under `finally` still run,
    for example to clean up or to send a message. --now cancels or stops these jobs too. Jobs that
    no worker would execute are also canceled; on the private server of the current folder, the
    command starts workers for them.

    \b
      flowq cancel k3v9x0q2m5ab
      flowq cancel k3v9x0q2m5ab --now
    """
    with opened(redis_url, is_changing=True) as place:
        run = place.find_run(run_id)
        before = run.status()
        queues = run.cancel(now=now, may_wait=place.is_embedded)
        status = run.status()
        terminal.write(f"{'; '.join(_told(status))}\n")
        if queues:
            _tell_abandoned(before, status, queues)
        if place.is_embedded and not status.is_ended:
            _see_to_the_rest(run, place)


def _tell_abandoned(before: RunStatus, status: RunStatus, queues: Sequence[str]) -> None:
    """Say which jobs would still have run if somebody had executed them."""
    ended = [
        job.name
        for job in status.jobs.values()
        if job.reason == client.ABANDONED and job != before.jobs.get(job.name)
    ]
    if ended:
        was, their = ("was", "its") if len(ended) == 1 else ("were", "their")
        where = f"on the queue{'s' if len(queues) > 1 else ''} {', '.join(queues)}"
        terminal.note(
            f"flowq: {_shown(ended)} {was} to run, as {their} `if` asks for, but no worker listens "
            f"{where}: canceled as well"
        )


def _see_to_the_rest(run: Run, place: Place) -> None:
    if not run.is_served():
        start_workers(run, place, None)
        terminal.note(
            "flowq: workers were started for that; follow the run with: "
            f"{place.hint('watch', run.run_id)}"
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
        its, these = ("its", "this") if len(left) == 1 else ("their", "these")
        why = f"as {its} `if` or `finally` asks for"
        yield f"{_shown(left)} will run, {why}; --now ends {these} too"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" and others" if len(names) > SHOWN else "")
