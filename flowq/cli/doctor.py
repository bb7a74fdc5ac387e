"""`flowq doctor`: what went wrong behind our back, found and put right."""

from __future__ import annotations

import click

from flowq import client, server
from flowq.cli import options, streams
from flowq.cli.place import opened

SENTENCES = {
    "deleted": "was deleted; {owner} does not wait for it any more",
    "expired": "expired before it ran; {owner} has been told",
    "lost": "was on no queue, and no worker had it; it is queued again",
}
ENDED = "was {what} by a worker or a tool of RQ's own; {owner} has been told"


@click.command()
@options.redis_url
@options.verbose
def command(redis_url: str | None, verbose: bool) -> None:
    """Find what ended unnoticed, in all that waits, and put it right.

    Workers of flowq do the same by and by; this does it at once, and says what it found.

    \b
      flowq doctor
    """
    with opened(redis_url) as place:
        for warning in server.health(place.connection):
            streams.write(f"warning: {warning}\n")
        findings = client.examine(place.connection)
        for finding in findings:
            sentence = SENTENCES.get(finding.what, ENDED)
            said = sentence.format(what=finding.what, owner=finding.owner_id)
            streams.write(f"{finding.job_id} {said}\n")
        count = len(findings)
        streams.write(f"put right: {count}\n" if count else "nothing to put right\n")
