"""`flowq schema`: print the JSON Schema of workflow files, or of what `--json` prints."""

from __future__ import annotations

from typing import Literal

import click

from flowq.cli import options, terminal
from flowq.declare.schema import build_schema
from flowq.render.json import load_schema, write_json


@click.command()
@click.argument("what", type=click.Choice(["workflow", "output"]), default="workflow")
@options.verbose
def command(what: Literal["workflow", "output"], verbose: bool) -> None:
    """Print the JSON Schema of workflow files, for editors, or that of all output of --json.

    An editor with a YAML language server finds the schema through this first line of a file: #
    yaml-language-server: $schema=flowq.schema.json

    \b
      flowq schema > flowq.schema.json
      flowq schema output
    """
    terminal.write(write_json(build_schema() if what == "workflow" else load_schema()))
