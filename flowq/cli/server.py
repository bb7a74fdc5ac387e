"""`flowq server`: the private server of a folder, and the state that it keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from flowq import server
from flowq.cli import options, terminal
from flowq.errors import UsageError
from flowq.render.json import make_document, write_json
from flowq.server import adopting, embedded, state

NOT_RUNNING = "not running"
SHOWN = 3
WARNING = """\
Their pickles will be trusted, so their author can run code as you. Adopt them only if you created
them yourself, and they did not come with a clone, an archive or a cache."""

_folder = click.argument("folder", required=False, type=click.Path(path_type=Path))
_yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group(cls=options.Subcommands)
def command() -> None:
    """Inspect or stop the private server of a folder, or remove its state.

    The private server has the runs and jobs of commands used in that folder without --redis-url. It
    starts and stops automatically. Its state is not in the folder, but in the user's own state
    folder ($XDG_STATE_HOME/flowq, by default ~/.local/state/flowq) or in FLOWQ_STATE, and only this
    user can access it. So flowq never trusts state that came with a folder, for example from a
    clone or a cache.

    FOLDER is the current folder by default; it need not exist any more.

    \b
      flowq server status
      flowq server stop
    """


@command.command()
@_folder
@options.as_json
def status(folder: Path | None, as_json: bool) -> None:
    """Show whether the server is running, and where its state is."""
    facts = _look(folder)
    if as_json:
        terminal.write(write_json(make_document("server", **facts)))
        return
    above = None if folder or server.is_used() else server.find_used_above()
    lines = [
        ("server", _describe_server(facts)),
        ("state", facts["state"] + ("" if facts["exists"] else " (not created yet)")),
        ("named by", state.VARIABLE if facts["is_named"] else ""),
        ("data", _describe_size(facts)),
        ("log", facts["log"]),
        ("above", f"{above}; commands about existing runs use it here" if above else ""),
    ]
    for name, value in lines:
        if value:
            terminal.write(f"{name:<9}{value}\n")
    if gone := state.find_abandoned():
        terminal.write("".join(f"{line}\n" for line in _describe_gone(gone)))


def _describe_gone(gone: Sequence[str]) -> Iterator[str]:
    states = "1 state of a folder" if len(gone) == 1 else f"{len(gone)} states of folders"
    yield f"gone     {states} no longer there (flowq server adopt FOLDER, or reset --gone for all):"
    yield from (f"  {each}" for each in gone[:SHOWN])
    if len(gone) > SHOWN:
        yield f"  and {len(gone) - SHOWN} more"


def _look(folder: Path | None) -> dict[str, Any]:
    found, kept = _find(folder), server.find(folder)
    is_running = kept is not None and kept.is_running
    return {
        "folder": found.belongs_to,
        "state": str(found.path),
        "is_named": found.is_named,
        "exists": kept is not None,
        "is_running": is_running,
        "other_host": kept.other_host if kept is not None and not is_running else "",
        "size_bytes": _measure(found.data) if kept is not None else 0,
        "log": str(kept.log) if kept is not None and kept.log.exists() else "",
    }


def _measure(folder: Path) -> int:
    size_bytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the server may rewrite its files at any moment
                size_bytes += Path(place, name).lstat().st_size
    return size_bytes


def _describe_server(facts: dict[str, Any]) -> str:
    if facts["is_running"]:
        return "running"
    if facts["other_host"]:
        return f"{facts['other_host']} has it"
    return f"{NOT_RUNNING}; the next command starts it" if facts["exists"] else NOT_RUNNING


def _describe_size(facts: dict[str, Any]) -> str:
    return _in_kilobytes(facts["size_bytes"]) if facts["size_bytes"] else ""


def _in_kilobytes(size_bytes: int) -> str:
    return f"{-(-size_bytes // 1000):,} kB"


@command.command()
@_folder
def path(folder: Path | None) -> None:
    """Print where the state is, or would be."""
    terminal.write(f"{_find(folder).path}\n")


@command.command()
@_folder
def url(folder: Path | None) -> None:
    """Print the URL of the server, for other programs, and start it if necessary.

    It stops a minute after the last program has disconnected. In Python, flowq.connect() does the
    same.

    \b
      rq info --url "$(flowq server url)"
    """
    _find(folder)
    terminal.write(f"{server.ensure(folder).url}\n")


@command.command()
@_folder
def stop(folder: Path | None) -> None:
    """Stop the server, even if it is in use. Its data stays; the next command restarts it."""
    _find(folder)
    kept = server.find(folder)
    if kept is None or not kept.is_running:
        terminal.write(f"{NOT_RUNNING}\n")
        return
    kept.stop()
    terminal.write("stopped\n")


@command.command()
@_folder
@click.option("--gone", is_flag=True, help="Remove the states of all folders that are gone.")
@_yes
def reset(folder: Path | None, gone: bool, yes: bool) -> None:
    """Stop the server and remove its state: runs, jobs, results and output."""
    if gone:
        _reset_gone(folder, yes)
        return
    facts = _look(folder)
    if not facts["exists"]:
        terminal.write("nothing to remove\n")
        return
    size = _in_kilobytes(facts["size_bytes"])
    question = f"Remove all runs and jobs of {facts['folder']} ({size} in {facts['state']})?"
    _confirm(question, yes, "nothing was removed")
    embedded.reset(folder)
    terminal.write(f"removed {facts['state']}\n")


def _reset_gone(folder: Path | None, yes: bool) -> None:
    if folder is not None or state.find().is_named:
        what = str(folder) if folder is not None else f"the variable {state.VARIABLE}"
        raise UsageError(
            f"--gone removes the states of all folders that are gone: leave out {what}"
        )
    gone = state.find_abandoned()
    if not gone:
        terminal.write("nothing to remove\n")
        return
    terminal.note("\n".join(gone))
    question = f"Remove all runs and jobs of these {len(gone)} folders, which no longer exist?"
    _confirm(question, yes, "nothing was removed")
    for each in gone:
        if not os.path.lexists(each):  # it may have come back, as a disk does
            embedded.reset(Path(each))
    terminal.write(f"removed {len(gone)}\n")


@command.command()
@click.argument("source", metavar="[FROM]", required=False, type=click.Path(path_type=Path))
@_yes
def adopt(source: Path | None, yes: bool) -> None:
    """Trust a state that flowq cannot verify as yours, and use it for the current folder.

    FROM is the folder that has the state: a renamed folder, or one that contains the .flowq of an
    older version. The default is the state that flowq refused here. The command copies its runs,
    jobs and output, after stopping a server that uses them.

    Do this only if you created that state yourself. Jobs are pickles, so their author can run
    code as you.
    """
    found = adopting.find_adoptable(source)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.written_at))
    terminal.note(
        f"{found.source}: {found.files} files with {_in_kilobytes(found.size_bytes)} of runs and "
        f"jobs, last written {when}.\n{WARNING}"
    )
    _confirm("Adopt them?", yes, "nothing was adopted")
    adopting.adopt(found)
    terminal.write(f"adopted: {found.target.path}\n")
    if not found.is_in_place:
        terminal.write(f"{found.source} is not needed any more\n")


def _find(folder: Path | None) -> state.State:
    found = state.find(folder)
    if folder is not None and found.is_named:
        raise UsageError(f"{state.VARIABLE} names one state for all folders: leave out {folder}")
    return found


def _confirm(question: str, is_sure: bool, otherwise: str) -> None:
    """Ask for confirmation, unless --yes is given. Errors: UsageError without a terminal; click's
    Exit."""
    try:
        if is_sure or click.confirm(question, err=True):
            return
    except click.Abort:  # there is nobody to answer
        raise UsageError(f"{otherwise}; --yes does it without asking") from None
    terminal.write(f"{otherwise}\n")
    raise click.exceptions.Exit(0)
