"""Seeing a run through: its workers, its display, its interrupts, and how it ended."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import IO

from flowq import client
from flowq.cli import display, reporting, streams
from flowq.cli.following import exit_code, follow, make_attendants
from flowq.cli.interrupts import Interrupted, Interrupts
from flowq.cli.logs import Tail
from flowq.cli.own_workers import OwnWorkers
from flowq.cli.place import Place
from flowq.cli.streams import OutputLost, Stream
from flowq.client import Run
from flowq.errors import FlowqError
from flowq.runtime.patience import patiently
from flowq.status import RunStatus


@dataclass(frozen=True)
class Wishes:
    """How a run is to be shown, and by whom its jobs are to be executed."""

    concurrency: int | None
    is_json: bool
    is_verbose: bool
    is_quiet: bool


def see_to_the_end(
    run: Run,
    place: Place,
    wishes: Wishes,
    out: IO[str],
    interrupts: Interrupts,
    since: str = "0",
) -> int:
    """Follow a run that goes on, with workers of its own where it needs them; say how it ended.

    What happened up to the event `since` is not told again. Returns the exit code.
    Errors: Interrupted, when a second signal says to leave at once.
    """
    stream = streams.Lenient(sys.stderr if wishes.is_json else out)
    try:
        workers = start_workers(run, place, wishes.concurrency)
        status = _follow(run, workers, place, wishes, stream, interrupts, since)
    except Interrupted:
        streams.note(f"flowq: leaving; see {place.hint('status', run.run_id)}")
        raise
    code = _finish(run, status, place, wishes, out, stream)
    if place.is_embedded and not wishes.is_quiet:
        _note_left_alone(place)
    if workers is not None:
        workers.end()
    return Interrupted(interrupts.first).exit_code if interrupts.first else code


def start_workers(run: Run, place: Place, concurrency: int | None) -> OwnWorkers | None:
    """Start workers for a run where it needs its own: on the private server, or with `-c`.

    Errors: FlowqError, with the run canceled.
    """
    if not place.is_embedded and concurrency is None:
        return None
    try:
        return OwnWorkers(run, place, concurrency)
    except OSError as error:
        run.cancel(may_wait=False)
        raise FlowqError(f"cannot start workers, so the run is canceled: {error}") from None


def _follow(
    run: Run,
    workers: OwnWorkers | None,
    place: Place,
    wishes: Wishes,
    stream: Stream,
    interrupts: Interrupts,
    since: str,
) -> RunStatus:
    attendants = make_attendants(run, place, at_once=workers is None)
    attendants += [workers] if workers else []
    if wishes.is_verbose:
        attendants.append(Tail())
    with display.choose(stream, is_quiet=wishes.is_quiet) as shown:
        return follow(run, place, shown, attendants, interrupts, since, has_own=bool(workers))


def _note_left_alone(place: Place) -> None:
    """Say which jobs wait on the private server that no run's workers will execute.

    Jobs of runs have enqueued them without `blocks`, so they belong to no run.
    """
    for queue, count in client.count_left_alone(place.connection).items():
        jobs = "1 job of no run waits" if count == 1 else f"{count} jobs of no run wait"
        start = place.hint("worker --burst", queue)
        streams.note(f"flowq: {jobs} on the queue {queue}; to execute them: {start}")


def _finish(
    run: Run, status: RunStatus, place: Place, wishes: Wishes, out: IO[str], stream: Stream
) -> int:
    """Say how it ended, and return the exit code.

    That nobody reads it any more does not change how it ended. JSON that cannot be written is asked
    for by a program, which must not take it for there.
    """
    code = exit_code(status)
    try:
        if wishes.is_json:
            document = patiently(lambda: reporting.run_json(run, status, run.kept_outputs()))
            streams.write(document, out)
    except BrokenPipeError:
        streams.discard(out)
    except OutputLost as lost:
        again = place.hint("status", run.run_id, "--json")
        streams.note(f"flowq: {lost}; the run {status.state}, see {again}")
        code = code or lost.exit_code
    if not (wishes.is_quiet and status.state == "succeeded"):
        report = patiently(lambda: reporting.make_report(run, status, place))
        reporting.write_summary(report, stream)
    return code
