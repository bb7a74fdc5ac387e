"""`flowq`: the group of commands, and the handling of errors and signals.

A command is imported when it is used, so that `flowq --help` is quick. Each command is a module of
this package that has the command's name and defines `command`.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from flowq._version import __version__
from flowq.cli import terminal
from flowq.cli.terminal import Interrupted, Interrupts, OutputLost
from flowq.errors import FlowqError, UsageError, WorkflowInvalid

COMMANDS: Mapping[str, str] = {
    "run": "Run a workflow and show its progress.",
    "check": "Report every problem in a workflow.",
    "plan": "Show what a run would do, without doing it.",
    "graph": "Draw a workflow, or a run.",
    "export": "Write a workflow as YAML, or as Python code.",
    "init": "Create a first workflow in the current folder.",
    "schema": "Print the JSON Schema of workflow files, for editors.",
    "watch": "Follow an active run.",
    "status": "Show the progress of a run.",
    "show": "Show everything about a run, or one of its jobs.",
    "report": "Write one HTML file about a run.",
    "events": "Print what happens in a run, or in all runs.",
    "runs": "List the most recent runs.",
    "cancel": "Cancel a run.",
    "approve": "Approve a job that waits for approval.",
    "reject": "Reject a job that waits for approval; it is canceled.",
    "release": "Release a held run.",
    "schedule": "Submit a run whenever a workflow's schedule is due.",
    "backfill": "Submit the runs of a schedule for a range of days.",
    "retry": "Rerun the jobs of a run that did not succeed, or one job.",
    "explain": "Explain why a job has not run.",
    "doctor": "Find and repair lost jobs.",
    "wip": "List the jobs that are being executed right now.",
    "worker": "Execute the jobs of queues.",
    "workers": "List the workers of a server.",
    "metrics": "Print metrics in the text format of Prometheus.",
    "ui": "Show runs, jobs and workers in a browser.",
    "server": "Inspect or stop the private server of a folder.",
    "completion": "Print a shell's completion script.",
}

PROLOGUE = """
A workflow is a YAML file, or Python code with decorators, that declares jobs and their order.

\b
  flowq run workflows/sandwich.yaml          run it, on a private server of this folder
  flowq check workflows/sandwich.yaml        find its mistakes first
  flowq run app.flows:report -i day=monday   a workflow in Python, with an input
  flowq show last                            the newest run; -2 is the one before

RUN is the id of a run, the beginning of one, or `last`.

\b
Without --redis-url (or FLOWQ_REDIS_URL, RQ_REDIS_URL), commands use the private server of the
current folder; commands about existing runs also find that of a folder above. It stops when it is
unused; `flowq server path` prints where its state is.

\b
Exit codes: 0 succeeded, 1 the run failed, 2 usage, 3 invalid workflow, 4 server unreachable,
5 no such run or job, or in the wrong state, 6 the result cannot be written to stdout (a reader
that stops early, such as `head`, is no error), 130 interrupted (143 by SIGTERM).
"""


_RUN_ARGUMENTS = ("run_id", "run_or_job")
_NUMBER = re.compile(r"^-([1-9][0-9]{0,5})$")


class _Commands(click.Group):
    """A group that knows its commands by name, and imports only the one in use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.disable()  # what modules make stays: to look for garbage in it takes 40 ms
        try:
            command = import_module(f"flowq.cli.{cmd_name}").command
        finally:
            gc.freeze()
            gc.unfreeze()  # all of it counts as old now, else the next look would walk it at once
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(_unknown(args[0]))
        name, command, rest = super().resolve_command(ctx, args)
        if rest and command and any(each.name in _RUN_ARGUMENTS for each in command.params):
            rest[0] = _NUMBER.sub(r"last:\1", rest[0])  # click would look for an option -1
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_MEANT: Mapping[str, str] = {
    "logs": "flowq show RUN JOB shows the output of a job, and follows it with --follow",
    "ps": "flowq wip lists what is being executed, flowq runs the runs",
    "ls": "flowq runs lists the runs",
    "list": "flowq runs lists the runs",
    "stop": "flowq cancel ends a run, flowq server stop the private server",
    "kill": "flowq cancel ends a run",
    "submit": "flowq run submits a workflow, and does not wait for it with --detach",
    "start": "flowq run starts a workflow, flowq worker a worker",
    "resume": "flowq release releases a held run, flowq retry runs again what failed",
    "rerun": "flowq retry runs again what failed",
    "validate": "flowq check looks for mistakes in a workflow",
    "lint": "flowq check looks for mistakes in a workflow",
    "tail": "flowq events RUN --follow prints what happens in a run, flowq show RUN JOB --follow "
    "what a job prints",
    "help": "see flowq --help, and flowq COMMAND --help",
}
"""What other tools call their commands, and what to write here."""


def _unknown(word: str) -> str:
    from flowq.nearest import did_you_mean  # noqa: PLC0415 - difflib is not needed otherwise

    if word.endswith((".yaml", ".yml")) or ":" in word:
        return f"there is no command {word!r}; to run it: flowq run {word}"
    if word in _MEANT:
        return f"there is no command {word!r}; {_MEANT[word]}"
    return f"there is no command {word!r}; {did_you_mean(word, COMMANDS)}"


@click.command(
    cls=_Commands,
    help=f"Run graphs of jobs on Redis Queue (RQ).\n{PROLOGUE}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", prog_name="flowq")
def commands() -> None:
    """Hold the commands."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    terminal.repair()
    if "_FLOWQ_COMPLETE" in os.environ:
        commands.main(prog_name="flowq")
    code = _run(list(sys.argv[1:] if args is None else args))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            terminal.discard(stream)
    sys.exit(code)


def _run(args: list[str]) -> int:
    """Run one command and return its exit code; errors are reported on stderr."""
    try:
        with Interrupts(), commands.make_context("flowq", args) as ctx:
            code = commands.invoke(ctx)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leaving:  # after --help and --version too
        lost = terminal.find_loss()
        if lost is not None:
            terminal.note(describe(lost))
        return leaving.exit_code or (lost.exit_code if lost else 0)
    except click.ClickException as error:
        error.show()
        _write_error(args, UsageError(error.format_message()))
        return error.exit_code
    except FlowqError as error:
        terminal.note(describe(error))
        _write_error(args, error)
        return error.exit_code
    except BrokenPipeError:
        terminal.discard(sys.stdout)  # the reader, such as `head`, has read enough
        return 0
    except Interrupted as interrupted:
        return interrupted.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - nobody but its author likes a traceback
        return _unexpected(error)


def _write_error(args: Sequence[str], error: FlowqError) -> None:
    """Print the error for a program that has asked for JSON."""
    options = list(itertools.takewhile(lambda word: word != "--", args))
    has_lines = "--json-lines" in options
    if isinstance(error, OutputLost) or not (has_lines or "--json" in options):
        return
    from flowq.render.json import error_document, write_json  # noqa: PLC0415 - as for commands

    with suppress(OSError, OutputLost):
        text = write_json(error_document(error), indent=None if has_lines else 2)
        terminal.write(text)


def describe(error: FlowqError) -> str:
    """Return the message for an error: one line, or the problems and their number."""
    if not isinstance(error, WorkflowInvalid):
        return f"flowq: {error}"
    number = sum(problem.severity == "error" for problem in error.problems)
    return f"{error}\n{number} problem{'' if number == 1 else 's'}"


def _unexpected(error: Exception) -> int:
    """Explain an error that no command expected: a full disk, a broken installation, a bug."""
    lost = terminal.find_loss()  # of what click itself has written
    if lost is not None:
        terminal.note(describe(lost))
        return lost.exit_code
    import traceback  # noqa: PLC0415 - loads what most commands do not need

    trace = "".join(traceback.format_exception(error)) if terminal.is_debugging() else ""
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) and not _has_folder():
        terminal.note(f"{trace}flowq: the current folder is gone; change to one that exists")
        return UsageError.exit_code
    if isinstance(error, OSError):
        terminal.note(f"{trace}flowq: {text}")
        return 1
    hint = "" if trace else ", with what the same command prints with FLOWQ_LOG=debug"
    terminal.note(
        f"{trace}flowq: unexpected {type(error).__name__}: {text}\n"
        f"  this is a bug in flowq; please report it{hint}"
    )
    return 1


def _has_folder() -> bool:
    try:
        return bool(Path.cwd())
    except OSError:
        return False
