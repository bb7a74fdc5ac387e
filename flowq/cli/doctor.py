"""`flowq doctor`: find and repair lost jobs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowq import client, server
from flowq.cli import options, terminal
from flowq.cli.place import Place, opened_if_used
from flowq.client import Finding
from flowq.errors import UsageError
from flowq.render.json import make_document, write_json

SENTENCES = {
    "deleted": "was deleted; {owner} does not wait for it any more",
    "expired": "expired before it ran; {owner} has been updated",
    "orphaned": "was being executed by {owner}, which is lost; it was queued again, or has failed",
    "lost": "was on no queue, and no worker had it; it is queued again",
}
NOTHING = "nothing to repair\n"
ENDED = "was {what} by a worker or a tool of RQ's own; {owner} has been updated"


@click.command()
@click.option("--uninstall", is_flag=True, help="Remove all data of flowq from the server.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--force", is_flag=True, help="Remove unfinished runs too, and cancel waiting future jobs."
)
@options.redis_url
@options.as_json
@options.verbose
def command(
    redis_url: str | None, uninstall: bool, yes: bool, force: bool, as_json: bool, verbose: bool
) -> None:
    """Find and repair lost jobs.

    flowq's workers do the same periodically. This command also works without any worker, and
    reports its findings. It recovers jobs of lost workers, which may take ten seconds.

    With --uninstall it removes all data of flowq from the server: runs with their jobs, keys,
    functions, and flowq's fields of other jobs. RQ's queues and jobs stay. It refuses while workers
    of flowq are alive and, without --force, while runs are unfinished or future jobs wait. It never
    uses the private server of a folder above.

    \b
      flowq doctor
      flowq doctor --json
      flowq doctor --uninstall
    """
    if (yes or force) and not uninstall:
        raise UsageError("--yes and --force need --uninstall")
    if as_json and uninstall:
        raise UsageError("--json cannot be used with --uninstall")
    opening = opened_if_used(redis_url, is_here=uninstall)  # it would remove the runs of others
    with terminal.result_stream(as_json) as out, opening as place:
        if uninstall and place is None:
            terminal.write("nothing to remove\n")
        elif uninstall and place is not None:
            _uninstall(place, is_sure=yes, is_forced=force)
        else:
            warnings = list(server.health(place.connection)) if place else []
            findings = client.heal(place.connection) if place else []
            tell = _write_json if as_json else _tell
            terminal.write(tell(warnings, findings), out)


def _tell(warnings: Sequence[str], findings: Sequence[Finding]) -> str:
    lines = [f"warning: {warning}\n" for warning in warnings]
    lines += [f"{finding.job_id} {_sentence(finding)}\n" for finding in findings]
    lines.append(f"repaired: {len(findings)}\n" if findings else NOTHING)
    return "".join(lines)


def _write_json(warnings: Sequence[str], findings: Sequence[Finding]) -> str:
    told = [
        {"job_id": each.job_id, "what": each.what, "owner": each.owner_id, "message": sentence}
        for each, sentence in ((each, _sentence(each)) for each in findings)
    ]
    return write_json(make_document("doctor", warnings=list(warnings), findings=told))


def _sentence(finding: Finding) -> str:
    sentence = SENTENCES.get(finding.what, ENDED)
    return sentence.format(what=finding.what, owner=finding.owner_id)


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
