"""`flowq graph`: a workflow as a picture."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import IO

import click

from flowq.cli import options, terminal
from flowq.cli.compiling import checked_graph
from flowq.errors import UsageError
from flowq.pictures.dot import render_dot
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import View, graph_document, view_graph
from flowq.pictures.text import render_text
from flowq.render.json import write_json
from flowq.render.lines import spelled

_FORMATS = ("text", "mermaid", "dot", "json")
_FORMAT_BY_ENDING = {
    ".dot": "dot",
    ".gv": "dot",
    ".json": "json",
    ".mermaid": "mermaid",
    ".mmd": "mermaid",
}


@click.command()
@options.target
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="How it is drawn. Default: as the ending of FILE says, else text.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to a file instead of stdout.")
@options.verbose
def command(target: str, format_: str | None, output: str | None, verbose: bool) -> None:
    """Draw a workflow: its jobs, and what must run before what.

    Its functions are not imported, and it needs no server.

    \b
      flowq graph workflows/sandwich.yaml
      flowq graph workflows/sandwich.yaml -o sandwich.mmd
      flowq graph workflows/sandwich.yaml --format dot | dot -Tsvg > sandwich.svg
    """
    view = view_graph(checked_graph(target))
    format_ = format_ or _FORMAT_BY_ENDING.get(Path(output or "").suffix, "text")
    if output and output != "-":
        _write_file(output, _drawn(view, format_, None))
    else:
        terminal.write(_drawn(view, format_, sys.stdout))


def _drawn(view: View, format_: str, stream: IO[str] | None) -> str:
    """Return the picture, for a stream or for a file, which is as wide as it needs to be."""
    if format_ == "json":
        return write_json(graph_document(view))
    if format_ == "mermaid":
        return render_mermaid(view)
    if format_ == "dot":
        return render_dot(view)
    if stream is None:
        return render_text(view, 120)
    width = shutil.get_terminal_size((120, 24)).columns if stream.isatty() else 120
    return render_text(view, width, unicode=terminal.can_show(stream))


def _write_file(output: str, text: str) -> None:
    try:
        Path(output).write_text(spelled(text), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from None
