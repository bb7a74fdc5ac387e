"""`flowq export`: a workflow as a file, in the other language or in the same one."""

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
    help="What to write.",
)
@options.verbose
def command(target: str, language: str, verbose: bool) -> None:
    """Write a workflow as YAML, or as Python code.

    What is written declares the same workflow. Comments are not kept; workflows in files of their
    own are named, so put it beside them.

    \b
      flowq export app.flows:report > report.yaml
      flowq export report.yaml --to python > report.py
    """
    terminal.write(_WRITERS[language](checked_graph(target).workflow))
