"""The shells that commands may be for, as far as they are on this machine, and how to run them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowq.commands.places import with_places
from flowq.commands.values import fill
from flowq.expressions.templates import split
from flowq.runtime.shell import command_line
from flowq.spec import Shell

SHELLS = ("bash", "dash", "ksh93", "mksh", "zsh", "ash")
SMALL = frozenset({"dash", "ash"})

NASTY = (
    "",
    " ",
    "plain",
    "two  words",
    " edges ",
    "*",
    "~",
    "?[a-z]*",
    "{a,b}",
    "a\nb",
    "\n",
    "line\n\n",
    "\ttab\t",
    "a\r\n",
    "'",
    '"',
    "'\"'\"'",
    "\\",
    "\\\\n\\'",
    "\\c\\0101",
    "$HOME",
    "${HOME}",
    "$(touch CANARY)",
    "`touch CANARY`",
    "a[$(touch CANARY)]",
    "x[$(touch CANARY)]=1",
    "; touch CANARY ;",
    "' ; touch CANARY ; '",
    '" ; touch CANARY ; "',
    '"$(touch CANARY)"',
    "\n touch CANARY \n",
    "EOF\ntouch CANARY\n",
    "EOF",
    "& touch CANARY &",
    "|touch CANARY",
    "}; touch CANARY; {",
    ") touch CANARY ;; x",
    "-n",
    "-e",
    "--",
    "-eq",
    "!",
    "(",
    ")",
    "]",
    "]]",
    "=",
    "=ls",
    "%s%n%d",
    "# no comment",
    "!!",
    "1+1",
    "$((1+1))",
    "$'\\x41'",
    "é→\U0001f600",
    "caf\udce9\udcff\udc80",
    "".join(map(chr, range(1, 32))) + "\x7f",
    "\udce3'",
    "\udc81\udc5c"[:1],
    "flowq_value_0",
    "${flowq_value_1}",
)

WORST = tuple(
    value
    for value in NASTY
    if value
    in ("", "two  words", "*", "line\n\n", "-n", "-eq", "!", "(", "=ls", "a[$(touch CANARY)]")
    or "'" in value
    or '"' in value
    or "\\" in value
    or "\udce9" in value
)


def find_program(shell: str, folder: Path) -> str | None:
    """Return a program that is that shell, or None where there is none."""
    if shell == "ash":
        busybox = shutil.which("busybox")
        if busybox is None:
            return None
        (folder / "ash").symlink_to(busybox)
        return str(folder / "ash")
    return shutil.which(shell)


def execute(
    program: str, command: str, values: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a worker runs it, with a value for the source of each expression."""
    shell = with_places(Shell(command, program))
    assert "x" not in shell.places
    parts = split(command)
    sources = [part.source for part in parts if not isinstance(part, str)]
    known: Sequence[str | None] = [part if isinstance(part, str) else None for part in parts]
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "ZDOTDIR": str(folder)}
    filled = fill(known, [values[source] for source in sources], shell.places, environ)
    arguments = command_line(program, filled.command)
    options = {"env": {**environ, **filled.variables}, "cwd": folder, "capture_output": True}
    if not filled.assignments:
        return subprocess.run(arguments, stdin=subprocess.DEVNULL, check=False, **options)
    with filled.open_input() as file:
        return subprocess.run(arguments, stdin=file, check=False, **options)
