"""`flowq doctor`: find and repair lost jobs."""

from __future__ import annotations

import click
from redis import Redis

from flowq import client, server
from flowq.cli import options, terminal
from flowq.cli.place import Place, opened_if_used
from flowq.errors import UsageError

SENTENCES = {
    "deleted": "was deleted; {owner} does not wait for it any more",
    "expired": "expired before it ran; {owner} has been told",
    "orphaned": "was executed by {owner}, which is lost; it starts again, or failed",
    "lost": "was on no queue, and no worker had it; it is queued again",
}
NOTHING = "nothing to put right\n"
ENDED = "was {what} by a worker or a tool of RQ's own; {owner} has been told"


@click.command()
@click.option("--uninstall", is_flag=True, help="Remove all data of flowq from the server.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--force", is_flag=True, help="Remove unfinished runs too, and cancel waiting future jobs."
)
@options.redis_url
@options.verbose
def command(redis_url: str | None, uninstall: bool, yes: bool, force: bool, verbose: bool) -> None:
    """Find and repair lost jobs.

    flowq's workers do the same periodically. This command also works without any worker, and
    reports its findings. It recovers jobs of lost workers, which may take ten seconds.

    With --uninstall it removes all data of flowq from the server: runs with their jobs, keys,
    functions, and flowq's fields of other jobs. RQ's queues and jobs stay. It refuses while workers
    of flowq are alive and, without --force, while runs are unfinished or future jobs wait.

    \b
      flowq doctor
      flowq doctor --uninstall
    """
    if (yes or force) and not uninstall:
        raise UsageError("--yes and --force belong to --uninstall")
    with opened_if_used(redis_url) as place:
        if place is None:
            terminal.write("nothing to remove\n" if uninstall else NOTHING)
        elif uninstall:
            _uninstall(place, is_sure=yes, is_forced=force)
        else:
            _examine(place.connection)


def _examine(connection: Redis) -> None:
    for warning in server.health(connection):
        terminal.write(f"warning: {warning}\n")
    findings = client.heal(connection)
    for finding in findings:
        sentence = SENTENCES.get(finding.what, ENDED)
        said = sentence.format(what=finding.what, owner=finding.owner_id)
        terminal.write(f"{finding.job_id} {said}\n")
    count = len(findings)
    terminal.write(f"put right: {count}\n" if count else NOTHING)


def _uninstall(place: Place, *, is_sure: bool, is_forced: bool) -> None:
    client.check_uninstall(place.connection, is_forced=is_forced)
    question = f"Remove all runs, keys and functions of flowq from {place.shown_url}?"
    try:
        is_sure = is_sure or click.confirm(question, err=True)
    except click.Abort:  # there is nobody to answer
        raise UsageError("nothing was removed; --yes does it without asking") from None
    if not is_sure:
        terminal.write("nothing was removed\n")
        return
    removed = client.uninstall(place.connection, is_forced=is_forced)
    terminal.write(
        f"removed: runs with their jobs: {removed.runs}, other keys: {removed.keys}, "
        f"functions: {removed.functions}, fields in jobs of RQ's: {removed.jobs}\n"
    )
