"""`flowq graph`: draw a workflow, or a run with the states of its jobs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowq.cli import display, options, terminal
from flowq.cli.compiling import checked_graph
from flowq.cli.completion import complete_run
from flowq.cli.files import name_file, open_file, write_file
from flowq.cli.place import opened
from flowq.errors import UsageError
from flowq.pictures.dot import render_dot
from flowq.pictures.folding import MAX_LEVELS, by_level, focus
from flowq.pictures.html import render_html
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import Picture, draw, to_document
from flowq.pictures.png import render_png
from flowq.pictures.stored import read_picture
from flowq.pictures.svg import render_svg
from flowq.pictures.text import draw_text, render_text
from flowq.render.json import make_document, write_json
from flowq.render.lines import spelled
from flowq.selecting import Selection

_ENDINGS_BY_FORMAT = {
    "text": (".txt",),
    "mermaid": (".mmd", ".mermaid"),
    "dot": (".dot", ".gv"),
    "svg": (".svg",),
    "png": (".png",),
    "html": (".html", ".htm"),
    "json": (".json",),
}


@click.command()
@options.optional_target
@click.option(
    "--run",
    "run_id",
    metavar="RUN",
    shell_complete=complete_run,
    help="Draw a run instead: its id, the beginning of it, or last.",
)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(list(_ENDINGS_BY_FORMAT)),
    help="The format. Default: by the extension of FILE, else text.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to a file instead of stdout.")
@click.option(
    "--open",
    "opens",
    is_flag=True,
    help="Open the drawing in a browser: FILE, or a temporary HTML page.",
)
@click.option(
    "--focus",
    metavar="JOB",
    help="Draw this job and its surroundings; OUTER.INNER for a job of a nested workflow.",
)
@options.selection
@click.option("--levels", is_flag=True, help="Draw one box per level instead of jobs.")
@options.redis_url
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@options.verbose
def command(
    target: str | None,
    run_id: str | None,
    format_: str | None,
    output: str | None,
    opens: bool,
    focus: str | None,
    selection: Selection,
    levels: bool,
    redis_url: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Draw the jobs of a workflow, or of a run, and their dependencies.

    For a TARGET, the command imports no functions and needs no server. For a run, it needs none of
    the files, because the run has kept its picture; it draws the states of the jobs, nested
    workflows and jobs added by code. Large pictures are folded: jobs with the same edges become one
    box, then chains, then levels; DOT and JSON contain every job.

    \b
      flowq graph workflows/sandwich.yaml
      flowq graph workflows/sandwich.yaml -o sandwich.svg
      flowq graph workflows/gallery.yaml --open
      flowq graph workflows/books.yaml --focus report
      flowq graph --run last
      flowq graph --run k3v9x0q2m5ab -o run.html --open
    """
    if opens and output == "-":
        raise UsageError("--open shows a file; remove -o -, or name a file")
    if (target is None) == (run_id is None):
        raise UsageError("name either a TARGET, as in FILE.yaml, or a run, as in --run last")
    if run_id and selection:
        raise UsageError("--only, --from and --skip are for a TARGET; a run shows what it left out")
    format_ = _find_format("json" if as_json else format_, output, opens)
    picture = (
        _draw_run(run_id, redis_url) if run_id else draw(checked_graph(target or "", selection))
    )
    picture = _select(picture, focus, levels)
    if output is None and opens:
        output = name_file("graph", _ENDINGS_BY_FORMAT[format_][0])
    if output and output != "-":
        write_file(Path(output), _drawn(picture, format_))
        if opens:
            open_file(Path(output))
    elif format_ == "png":
        _write_bytes(_draw_png(picture))
    elif format_ == "text":
        width, unicode = display.width_of(sys.stdout, WIDTH), terminal.can_show(sys.stdout)
        display.tell(draw_text(picture, width, unicode=unicode), sys.stdout)
    else:
        terminal.write(_drawn(picture, format_).decode())


MAX_NAMED = 20
"""How many characters without a font are named."""

WIDTH = 120
"""The number of columns of a text in a file, or in a pipe unless COLUMNS says another one."""


def _draw_run(word: str, redis_url: str | None) -> Picture:
    """Return the picture of the run that a word names. Errors: NotFound."""
    with opened(redis_url) as place:
        run = place.find_run(word)
        if read_picture(run.source()) is None:
            terminal.note(
                f"flowq: run {run.run_id} has no stored picture that this version can read; kinds "
                "and conditions of its jobs, and the jobs of nested workflows, are not drawn"
            )
        return run.picture()


def _find_format(format_: str | None, output: str | None, opens: bool) -> str:
    """Return the format. Errors: UsageError for a file with an unknown extension."""
    if format_:
        return format_
    if output is None or output == "-":
        return "html" if opens else "text"
    ending = Path(output).suffix.lower()
    for each, endings in _ENDINGS_BY_FORMAT.items():
        if ending in endings:
            return each
    known = ", ".join(endings[0] for endings in _ENDINGS_BY_FORMAT.values())
    said = (
        f"the extension {ending!r} is not a known format"
        if ending
        else "its extension names no format"
    )
    raise UsageError(f"{output}: {said}; use one of {known}, or --format")


def _select(picture: Picture, name: str | None, levels: bool) -> Picture:
    if name is not None:
        picture = focus(picture, name)
    return by_level(picture, MAX_LEVELS) if levels else picture


def _drawn(picture: Picture, format_: str) -> bytes:
    """Return the content of a file."""
    if format_ == "png":
        return _draw_png(picture)
    if format_ == "json":
        text = write_json(make_document("graph", **to_document(picture)))
    elif format_ == "text":
        text = render_text(picture, WIDTH)
    else:
        renders = {
            "mermaid": render_mermaid,
            "dot": render_dot,
            "svg": render_svg,
            "html": render_html,
        }
        text = renders[format_](picture)
    return spelled(text).encode("utf-8", "backslashreplace")


def _draw_png(picture: Picture) -> bytes:
    content, missing = render_png(picture)
    if missing:
        named = " ".join(missing[:MAX_NAMED])
        more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
        terminal.note(
            f"flowq: no font of this system has {named}{more}: they are boxes in the PNG. Install "
            "a font that has them, or write SVG or HTML, which readers draw with their own fonts"
        )
    return content


def _write_bytes(content: bytes) -> None:
    if sys.stdout.isatty():
        raise UsageError("a PNG cannot be shown in a terminal; write it with -o FILE")
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
