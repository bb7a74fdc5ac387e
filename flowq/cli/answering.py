"""What `approve`, `reject` and `release` have in common: a word for a run, which then goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from flowq import client
from flowq.cli import streams
from flowq.cli.attending import Wishes, see_to_the_end
from flowq.cli.interrupts import Interrupts
from flowq.cli.place import Place, opened
from flowq.client import Run


def answer(run_id: str, redis_url: str | None, wishes: Wishes, tell: Callable[[Run], str]) -> int:
    """Do what `tell` does to a run, and say what it returns; return the exit code.

    On the private server of the current folder follow the run then, where nobody executes it.
    """
    with streams.result_stream(False) as out, opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        return answer_run(run, place, wishes, out, tell)


def answer_run(
    run: Run, place: Place, wishes: Wishes, out: IO[str], tell: Callable[[Run], str]
) -> int:
    """The same for a run that was found."""
    with Interrupts(deferring=True) as interrupts:
        since = run.status().last_event_id
        told = tell(run)
        if not wishes.is_quiet:
            streams.note(f"flowq: {told}")
        hold = run.find_hold()
        if hold is not None and hold.kind == "held":
            start = place.hint("release", run.run_id)
            streams.note(f"flowq: {hold.text}; start it with: {start}")
            return 0
        if not _is_alone(run, place, wishes):
            return 0
        return see_to_the_end(run, place, wishes, out, interrupts, since)


def _is_alone(run: Run, place: Place, wishes: Wishes) -> bool:
    """Whether nobody executes the run unless we do."""
    if run.status().is_ended:
        return False
    return wishes.concurrency is not None or (place.is_embedded and not run.is_served())
