"""`flowq run`: from a file to a finished run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from flowq import client, server
from flowq.cli import display, options, reporting, streams
from flowq.cli.compiling import describe_inputs, make_plan
from flowq.cli.following import Attendant, UnattendedQueues, exit_code, follow
from flowq.cli.interrupts import Interrupted, Interrupts
from flowq.cli.logs import Tail
from flowq.cli.own_workers import OwnWorkers
from flowq.cli.place import Place, opened
from flowq.cli.plan import written
from flowq.client import Run
from flowq.errors import FlowqError
from flowq.plan import Plan
from flowq.render.json import run_document, write_json
from flowq.status import RunStatus


@dataclass(frozen=True)
class Wishes:
    """How a run is to be shown, and by whom its jobs are to be executed."""

    concurrency: int | None
    is_json: bool
    is_verbose: bool
    is_quiet: bool


class _WithInputs(click.Command):
    """A command whose help tells the inputs of the workflow that is named before `--help`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        named = [word for word in ctx.meta.get("words", ()) if word.endswith((".yaml", ".yml"))]
        inputs = describe_inputs(named[0]) if named and Path(named[0]).is_file() else []
        if inputs:
            with formatter.section(f"Inputs of {named[0]}"):
                formatter.write_dl(inputs)


@click.command(cls=_WithInputs)
@options.target
@options.inputs
@options.inputs_file
@options.redis_url
@options.concurrency
@click.option("--dry-run", is_flag=True, help="Print the plan; enqueue nothing, need no server.")
@click.option("--detach", is_flag=True, help="Print the run's id, and leave it to the workers.")
@options.as_json
@options.no_import
@options.quiet
@options.verbose
def command(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    redis_url: str | None,
    concurrency: int | None,
    dry_run: bool,
    detach: bool,
    as_json: bool,
    imports: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run a workflow and show how it goes.

    TARGET is a YAML file, package.module:workflow, or file.py:workflow. Without a URL the jobs run
    here, on a private server of the current folder. With one they run on the workers that listen
    there, and with -c N on workers of its own as well.

    Ctrl-C cancels the run; a second one leaves at once.

    \b
      flowq run workflows/sandwich.yaml -i slices=4
      flowq run app.flows:report --redis-url redis://localhost/0 --detach
      flowq run workflows/sandwich.yaml --help     what inputs it has
    """
    wishes = Wishes(concurrency, as_json, verbose, quiet)
    with streams.result_stream(as_json) as out:
        plan = make_plan(target, given, inputs_file, imports)
        if dry_run:
            streams.write(written(plan, as_json), out)
            return 0
        with opened(redis_url, creating=True) as place:
            _warn_about(place)
            if detach:
                return _detach(plan, place, wishes, out)
            return _run(plan, place, wishes, out)


def _warn_about(place: Place) -> None:
    for warning in () if place.is_embedded else server.health(place.connection):
        streams.note(f"flowq: warning: {warning}")


def _start_workers(run: Run, plan: Plan, place: Place, wishes: Wishes) -> OwnWorkers | None:
    if not place.is_embedded and wishes.concurrency is None:
        return None
    try:
        return OwnWorkers(run, plan, place.url, wishes.concurrency)
    except OSError as error:
        run.cancel()
        raise FlowqError(f"cannot start workers, so the run is canceled: {error}") from None


def _detach(plan: Plan, place: Place, wishes: Wishes, out: IO[str]) -> int:
    run = client.submit(plan, place.connection)
    workers = _start_workers(run, plan, place, wishes)
    if wishes.is_json:
        streams.write(write_json(run_document(run.status(), {})), out)
    else:
        streams.write(f"{run.run_id}\n", out)
    if workers is None and (queues := run.unattended_queues()):
        streams.note(f"flowq: no worker listens on: {', '.join(queues)}")
    if not wishes.is_quiet:
        streams.note(f"flowq: follow it with: {place.hint(f'watch {run.run_id}')}")
    return 0


def _run(plan: Plan, place: Place, wishes: Wishes, out: IO[str]) -> int:
    stream = sys.stderr if wishes.is_json else out
    with Interrupts(deferring=True) as interrupts:
        run = client.submit(plan, place.connection)
        try:
            workers = _start_workers(run, plan, place, wishes)
            status = _follow(run, workers, place, wishes, stream, interrupts)
        except (Interrupted, Exception):
            streams.note(f"flowq: leaving; see {place.hint(f'status {run.run_id}')}")
            raise
        _finish(run, status, place, wishes, out)
        if workers is not None:
            workers.end()
    return 128 + interrupts.first if interrupts.first else exit_code(status)


def _follow(
    run: Run,
    workers: OwnWorkers | None,
    place: Place,
    wishes: Wishes,
    stream: IO[str],
    interrupts: Interrupts,
) -> RunStatus:
    attendants: list[Attendant] = [UnattendedQueues(run, place, at_once=workers is None)]
    attendants += [workers] if workers else []
    if wishes.is_verbose:
        attendants.append(Tail())
    with display.choose(stream, is_quiet=wishes.is_quiet) as shown:
        return follow(run, shown, attendants, interrupts)


def _finish(run: Run, status: RunStatus, place: Place, wishes: Wishes, out: IO[str]) -> None:
    """Say how it ended; that nobody reads it any more does not change how it ended."""
    try:
        if wishes.is_json:
            streams.write(reporting.run_json(run, status), out)
        if not (wishes.is_quiet and status.state == "succeeded"):
            stream = sys.stderr if wishes.is_json else out
            reporting.write_summary(reporting.make_report(run, status, place), stream)
    except BrokenPipeError:
        streams.discard(out)
