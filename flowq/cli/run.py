"""`flowq run`: run a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO

import click

from flowq import client
from flowq.cli import options, terminal
from flowq.cli.compiling import describe_inputs, make_plan
from flowq.cli.following import RunOptions, follow_to_the_end, named_when_lost, start_workers
from flowq.cli.place import Place, opened, warn_about
from flowq.cli.plan import written
from flowq.cli.terminal import Interrupts, OutputLost
from flowq.client import Run
from flowq.documents import run_json
from flowq.plan import Plan
from flowq.selecting import Selection


class _WithInputs(click.Command):
    """A command whose help lists the inputs of the workflow named before `--help`."""

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
@options.labels
@options.selection
@options.redis_url
@options.concurrency
@click.option(
    "--dry-run", is_flag=True, help="Print the plan and enqueue nothing; needs no server."
)
@click.option(
    "--detach", is_flag=True, help="Print the run's id and exit; workers execute the run."
)
@click.option("--hold", is_flag=True, help="Submit the run, but start nothing before `release`.")
@options.as_json
@options.json_lines
@options.all_results
@options.no_import
@options.quiet
@options.verbose
def command(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    labels: Mapping[str, str],
    selection: Selection,
    redis_url: str | None,
    concurrency: int | None,
    dry_run: bool,
    detach: bool,
    hold: bool,
    as_json: bool,
    json_lines: bool,
    all_results: bool,
    imports: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run a workflow and show its progress.

    TARGET is a YAML file, package.module:workflow, or file.py:workflow; - is standard input.
    Without a URL, the jobs run on this machine, on the private server of the current folder, in
    workers that serve only this run. With a URL, they run on the workers that listen there; -c N
    starts additional ones.

    Ctrl-C cancels the run; a second Ctrl-C exits immediately.

    \b
      flowq run workflows/sandwich.yaml -i slices=4
      flowq run workflows/sandwich.yaml --label team=kitchen
      flowq run workflows/release.yaml --only write,test
      flowq run workflows/release.yaml --from pack --skip publish
      flowq run app.flows:report --redis-url redis://localhost/0 --detach
      flowq run workflows/sandwich.yaml --help     show its inputs
    """
    as_json = as_json or json_lines
    run_options = RunOptions(concurrency, as_json, verbose, quiet, json_lines, all_results)
    with terminal.result_stream(as_json) as out:
        plan = make_plan(target, given, inputs_file, imports, labels, selection)
        if dry_run:
            terminal.write(written(plan, as_json), out)
            return 0
        with opened(redis_url, creating=True) as place:
            warn_about(place)
            if hold:
                return _hold(plan, place, run_options, out)
            if detach:
                return _detach(plan, place, run_options, out)
            return _run(plan, place, run_options, out)


def _hold(plan: Plan, place: Place, run_options: RunOptions, out: IO[str]) -> int:
    run = client.submit(plan, place.connection, is_held=True, is_apart=place.is_embedded)
    with named_when_lost(run, place, end="is held"):
        _write_id(run, run_options, out)
    if not run_options.is_quiet:
        terminal.note(f"flowq: start it with: {place.hint('release', run.run_id)}")
    return 0


def _detach(plan: Plan, place: Place, run_options: RunOptions, out: IO[str]) -> int:
    run = client.submit(plan, place.connection, is_apart=place.is_embedded)
    with named_when_lost(run, place):
        workers = start_workers(run, place, run_options.concurrency)
        _write_id(run, run_options, out)
        if workers is None and (queues := run.unattended_queues()):
            terminal.note(f"flowq: no worker listens on: {', '.join(queues)}")
    if not run_options.is_quiet:
        terminal.note(f"flowq: follow it with: {place.hint('watch', run.run_id)}")
    return 0


def _write_id(run: Run, run_options: RunOptions, out: IO[str]) -> None:
    try:
        if run_options.is_json:
            terminal.write(run_json(run, is_line=run_options.has_lines), out)
        else:
            terminal.write(f"{run.run_id}\n", out)
    except OutputLost:
        terminal.note(f"flowq: run {run.run_id} is submitted")
        raise


def _run(plan: Plan, place: Place, run_options: RunOptions, out: IO[str]) -> int:
    with Interrupts(deferring=True) as interrupts:
        submit = partial(client.submit, plan, place.connection, is_apart=place.is_embedded)
        run = Run(plan.run_id, place.connection)
        return follow_to_the_end(run, place, run_options, out, interrupts, begin=submit)
