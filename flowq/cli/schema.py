"""`flowq schema`: print the JSON Schema of workflow files."""

from __future__ import annotations

import click

from flowq.cli import options, terminal
from flowq.declare.schema import build_schema
from flowq.render.json import write_json


@click.command()
@options.verbose
def command(verbose: bool) -> None:
    """Print the JSON Schema of workflow files, for editors.

    An editor with a YAML language server finds the schema through this first line of a file: #
    yaml-language-server: $schema=flowq.schema.json

    \b
      flowq schema > flowq.schema.json
    """
    terminal.write(write_json(build_schema()))
