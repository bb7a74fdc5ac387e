"""A page of the documentation is played: its files written, its commands run, as a reader would.

`Reader.play` goes through the blocks of a page in a folder of its own:

- a block that names a file is written there; at the end each workflow among them is checked;
- other Python is executed, block after block, with the names of the blocks before it;
- each `$ command` of a console block runs on a pseudo-terminal, and what it leaves on the screen
  is compared with the lines below it. Times, ids and names of hosts may differ, and so may the
  order of lines, because jobs run at once. A line `...` stands for any lines. A command below
  which nothing but that is shown has to succeed.

`flowq` is forked from this process, which has imported it: a start costs a hundredth of a new one.
With FLOWQ_UPDATE_GOLDEN=1 the pages are rewritten: read the diff.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flowq.cli.main import main
from tests.cli.terminal import screen
from tests.docs.pages import Block

COLUMNS, LINES = 100, 400
WITHIN_S = 60
IS_REWRITING = bool(os.environ.get("FLOWQ_UPDATE_GOLDEN"))
WARNED = "flowq: warning: the server keeps nothing on disk"  # that of the tests, on purpose
SHOWN_FOLDER = "/home/ann/flows"
HINT = "FLOWQ_UPDATE_GOLDEN=1 python -m pytest tests/docs writes it into the page: read the diff"
_PLAIN = re.compile(r"flowq [^|<>&;$`*]*")
_MASKS = (
    (re.compile(r"\b[a-z0-9]{12}\b"), "RUN"),  # and some words, on both sides
    (re.compile(r"\b\d\d\d\d-\d\d-\d\d\b"), "DAY"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "CLOCK"),
    (re.compile(r"<?\b(\d+m )?\d+(\.\d+)?m?s\b|\b\d+[mhd]\b"), "TIME"),
    (re.compile(r"\b(pid|process) \d+\b"), r"\1 PID"),
    (re.compile(r"[━╸╺─]+"), "BAR"),
    (re.compile(r"\s+"), " "),
)


def masked(line: str) -> str:
    """Return a line without what differs from one run to the next."""
    for pattern, instead in _MASKS:
        line = pattern.sub(instead, line)
    return line.strip()


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    folder: Path
    env: dict[str, str]
    before_running: Callable[[], None] = lambda: None
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    workflows: dict[str, Block] = field(default_factory=dict)
    rewritten: dict[Block, str] = field(default_factory=dict)

    def play(self, block: Block) -> None:
        """Do what one block says."""
        if block.mark == "not run":
            return
        if block.language == "console":
            self._play_commands(block)
        elif block.file and block.mark != "fragment":
            self._write(block)
        elif block.language == "python":
            code = compile(block.text, block.where, "exec", dont_inherit=True)
            if block.mark != "fragment":
                self.before_running()
                exec(code, self.names)

    def _write(self, block: Block) -> None:
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")
        if block.language == "python":
            compile(block.text, block.where, "exec")
        if path.suffix == ".yaml" and re.search(r"^jobs:", block.text, re.MULTILINE):
            self.workflows[block.file] = block

    def _play_commands(self, block: Block) -> None:
        played = []
        for part in re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            while line.endswith("\\"):
                more, _, shown = shown.partition("\n")
                line = f"{line}\n{more}"
            self.before_running()
            code, printed = self.run(line.removeprefix("$ "))
            played.append(self._compared(block, line, shown, printed, code))
        if IS_REWRITING:
            self.rewritten[block] = "".join(played)

    def _compared(self, block: Block, line: str, shown: str, printed: list[str], code: int) -> str:
        wanted = [masked(each) for each in shown.splitlines() if each.strip()]
        got = [masked(each) for each in printed if each.strip()]
        is_part = "..." in wanted
        missing = [each for each in wanted if each not in got and each != "..."]
        surplus = [each for each in got if each not in wanted]
        is_any = set(wanted) <= {"..."}
        fits = code == 0 if is_any else not missing and (is_part or not surplus)
        if not fits and IS_REWRITING and wanted and not is_part:
            return "\n".join((line, *printed, ""))  # thus a line `?` is filled in
        text = "\n".join(printed)
        assert fits, f"{block.where}\n{line}\nprinted (exit code {code}):\n{text}\n{HINT}"
        return f"{line}\n{shown}"

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run a command on a terminal; return its exit code and what is on the screen."""
        pid, terminal = pty.fork()
        if pid == 0:
            _become(command, self.folder, self.env)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        written = bytearray()
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux says so when the last writer has gone
                break
            written += part
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        text = written.decode("utf-8", "replace").replace(str(self.folder), SHOWN_FOLDER)
        return os.waitstatus_to_exitcode(status), _trimmed(screen(text))


def _trimmed(lines: list[str]) -> list[str]:
    lines = [line.rstrip() for line in lines if not line.startswith(WARNED)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _become(command: str, folder: Path, env: dict[str, str]) -> NoReturn:
    """Be that command, in the forked process."""
    code: object = 99
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        if not _PLAIN.fullmatch(command):
            os.execvp("bash", ["bash", "-c", command])
        sys.stdin = os.fdopen(0, closefd=False)  # pytest has put others in their place
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        main(shlex.split(command)[1:])
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:  # noqa: BLE001 - this process must not go on with pytest's work
        traceback.print_exc()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
