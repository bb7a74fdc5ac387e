"""`flowq report`: write one HTML file about a run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowq.cli import options, terminal
from flowq.cli.files import name_file, open_file, write_file
from flowq.cli.place import opened
from flowq.errors import UsageError

ENDINGS = (".html", ".htm")


@click.command()
@options.run_id
@click.option("-o", "--output", metavar="FILE", help="Write to a file instead of stdout.")
@click.option("--open", "opens", is_flag=True, help="Open the report in a browser.")
@options.redis_url
@options.verbose
def command(
    run_id: str, output: str | None, opens: bool, redis_url: str | None, verbose: bool
) -> None:
    """Write a report of a run: one HTML file without scripts, which loads nothing.

    It contains the picture of the run, a timeline that tells waiting from running, a table of the
    jobs, and the failures with their tracebacks. Its size does not grow with the number of items in
    a group. The run need not have ended.

    \b
      flowq report last -o report.html
      flowq report k3v9x0q2m5ab --open
    """
    if output is None and not opens and sys.stdout.isatty():
        raise UsageError("a report is an HTML page: write it with `-o report.html --open`")
    if opens and output == "-":
        raise UsageError("--open shows a file; remove -o -, or name a file")
    if output and output != "-" and Path(output).suffix.lower() not in ENDINGS:
        raise UsageError(f"a report is an HTML page, so name a file that ends in .html: {output}")
    with opened(redis_url) as place:
        page = place.find_run(run_id).report()
    if output is None and opens:
        output = name_file("report", ".html")
    if output is None or output == "-":
        terminal.write(page)
        return
    write_file(Path(output), page.encode("utf-8", "backslashreplace"))
    if opens:
        open_file(Path(output))
