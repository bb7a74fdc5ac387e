"""`flowq export`: write a workflow as YAML or Python."""

from __future__ import annotations

import click

from flowq.cli import options, terminal
from flowq.cli.compiling import checked_graph
from flowq.declare.export_python import export_python
from flowq.declare.export_yaml import export_yaml

_WRITERS = {"yaml": export_yaml, "python": export_python}


@click.command()
@options.target
@click.option(
    "--to",
    "language",
    type=click.Choice(list(_WRITERS)),
    default="yaml",
    show_default=True,
    help="The output language.",
)
@options.verbose
def command(target: str, language: str, verbose: bool) -> None:
    """Write a workflow as YAML, or as Python code.

    The output declares an equivalent workflow, without comments. It refers to nested workflow files
    by their names, so put it in the same folder.

    \b
      flowq export app.flows:report > report.yaml
      flowq export report.yaml --to python > report.py
    """
    terminal.write(_WRITERS[language](checked_graph(target).workflow))
