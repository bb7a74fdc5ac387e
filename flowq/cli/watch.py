"""`flowq watch`: follow an active run."""

from __future__ import annotations

import sys

import click

from flowq.cli import display, following, options, terminal
from flowq.cli.following import exit_code, follow, make_monitors, named_when_lost
from flowq.cli.place import opened
from flowq.cli.terminal import Interrupted, Interrupts
from flowq.job_output import Tail


@click.command()
@options.run_id
@options.redis_url
@options.as_json
@options.json_lines
@options.all_results
@options.quiet
@options.verbose
def command(
    run_id: str,
    redis_url: str | None,
    as_json: bool,
    json_lines: bool,
    all_results: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Follow a run to its end, like `flowq run`.

    Ctrl-C stops watching, not the run. The exit code is 0 if the run succeeded, else 1.

    \b
      flowq watch k3v9x0q2m5ab
      flowq watch last --json-lines
    """
    as_json = as_json or json_lines
    with terminal.result_stream(as_json) as result, opened(redis_url) as place, Interrupts():
        run = place.find_run(run_id)
        monitors = make_monitors(run, place)
        monitors += [Tail(run)] if verbose else []
        out = terminal.Lenient(sys.stderr if as_json else result)
        lines = display.JsonLines(terminal.Lenient(result), run.run_id) if json_lines else None
        try:
            with (
                named_when_lost(run, place),
                lines or display.choose(out, is_quiet=quiet, is_verbose=verbose) as shown,
            ):
                status = follow(run, place, shown, monitors)
        except Interrupted:
            terminal.note(
                f"flowq: the run goes on; end it with: {place.hint('cancel', run.run_id)}"
            )
            raise
        if as_json:
            from flowq.documents import run_json  # noqa: PLC0415 - a table needs none of it

            text = run_json(run, has_all_results=all_results, is_line=json_lines)
            terminal.write(text, result)
        if not (quiet and status.state == "succeeded"):
            following.write_summary(following.make_report(run, status, place), out)
    return exit_code(status) or terminal.code_of_loss(result)
