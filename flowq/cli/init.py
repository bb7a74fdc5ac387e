"""`flowq init`: create the first files of a workflow."""

from __future__ import annotations

import re
from pathlib import Path

import click

from flowq.cli import options, terminal
from flowq.declare.schema import build_schema
from flowq.declare.starter import write_tasks, write_workflow
from flowq.errors import UsageError
from flowq.render.json import write_json

SCHEMA_FILE = "flowq.schema.json"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@click.command()
@click.argument("name", metavar="[NAME]", default="hello")
@options.verbose
def command(name: str, verbose: bool) -> None:
    """Create a first workflow in the current folder, as a starting point for your own.

    Creates NAME.yaml with comments, NAME_tasks.py with its functions, and the schema for editors.
    Existing files are never overwritten.

    \b
      flowq init report
      flowq run report.yaml
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a module: letters, digits and _ only")
    texts = {
        f"{name}.yaml": write_workflow(name, SCHEMA_FILE),
        f"{name}_tasks.py": write_tasks(),
        SCHEMA_FILE: write_json(build_schema()),
    }
    taken = [file for file in texts if file != SCHEMA_FILE and Path(file).exists()]
    if taken:
        there = "is there already" if len(taken) == 1 else "are there already"
        raise UsageError(f"{' and '.join(taken)} {there}; nothing was written")
    if Path(SCHEMA_FILE).exists():
        del texts[SCHEMA_FILE]
    for file, text in texts.items():
        Path(file).write_text(text, encoding="utf-8")
    terminal.write(f"wrote {', '.join(texts)}\nrun it: flowq run {name}.yaml\n")
