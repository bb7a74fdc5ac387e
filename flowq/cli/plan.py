"""`flowq plan`: show what a run would do."""

from __future__ import annotations

from collections.abc import Mapping

import click

from flowq.cli import options, terminal
from flowq.cli.compiling import make_plan
from flowq.plan import Plan
from flowq.render.json import plan_document, write_json
from flowq.render.plan_text import render_plan
from flowq.selecting import Selection


@click.command()
@options.target
@options.inputs
@options.inputs_file
@options.selection
@options.no_import
@options.as_json
@options.verbose
def command(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    selection: Selection,
    imports: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Show what a run would do, operation by operation, without doing it.

    It needs no server, and is equivalent to `flowq run --dry-run`. The run's id is an example.

    \b
      flowq plan workflows/sandwich.yaml -i slices=4
      flowq plan workflows/sandwich.yaml --only make_tea
    """
    with terminal.result_stream(as_json) as out:
        plan = make_plan(target, given, inputs_file, imports, selection=selection)
        terminal.write(written(plan, as_json), out)


def written(plan: Plan, as_json: bool) -> str:
    """Return a plan for stdout."""
    return write_json(plan_document(plan)) if as_json else render_plan(plan)
