"""Runs commands as jobs: starts them, reads their output, and ends all of their processes.

`flowq.runtime.work.perform` calls `run` in the process of the job. Values reach a command as
variables or as arguments, never as text of its code: `flowq.commands` decides where they may be. No
process of a command may outlive it, or its worker, on platforms with process groups.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import PureWindowsPath
from typing import IO, Any, TextIO

from flowq import texts
from flowq.binding import describe_command
from flowq.commands.values import NOTHING, REFUSED, WORD, Filled, fill, find_shell, show
from flowq.errors import ShellFailed, UsageError
from flowq.expressions import write, write_argument
from flowq.expressions.templates import split
from flowq.runtime.command_progress import VARIABLE as PROGRESS
from flowq.runtime.command_progress import ProgressFile
from flowq.runtime.masking import HIDDEN, Mask
from flowq.runtime.masking.outlets import masked_output
from flowq.subprocesses import kill_tree

MAX_RESULT_BYTES = 1_000_000
"""How much of the end of the output is kept for the result."""

MAX_SHOWN = 200
"""The most characters of a command in a message."""

CHUNK_BYTES = 65_536
"""How much of the output is read at once."""

GRACE_S = 1.0
LOOK_S = 0.5

NOT_FOUND = 127
NOT_STARTED = 126
"""The exit codes that shells use for a program that could not be started."""

_POWERSHELL = ("-NoProfile", "-NonInteractive", "-Command")
_ARGUMENTS_BY_SHELL: Mapping[str, tuple[str, ...]] = {
    "bash": ("bash", "--noprofile", "--norc", "-euo", "pipefail", "-c"),
    "sh": ("sh", "-eu", "-c"),
    "pwsh": ("pwsh", *_POWERSHELL),
    "powershell": ("powershell", *_POWERSHELL),
    "python": (sys.executable, "-X", "utf8", "-c"),
    # Whatever the registry says: extensions on, and !NAME!, which cmd replaces after parsing.
    "cmd": ("cmd", "/d", "/e:on", "/v:on", "/s", "/c"),
}
_STOP_ON_ERRORS = (  # like `-e` of other shells, and return the last program's exit code
    "$ErrorActionPreference = 'stop'\n",
    "\nif (Test-Path -LiteralPath variable:\\LASTEXITCODE) { exit $LASTEXITCODE }",
)
_LEASH = """read line
setsid sh -c 'kill -KILL "-$1"; rm -rf -- "$2"' sh $$ "$1" || rm -rf -- "$1"
kill -KILL 0"""


def run(
    shell: Mapping[str, Any],
    value_of: Callable[[Any], Any],
    mask: Mask,
    timeout_s: object = None,
    *,
    tell: Callable[[str], None] = lambda command: None,
    instead: Callable[[str], Any] | None = None,
) -> Any:
    """Run a command and return its result. Its output goes to the job's output.

    The result is made from its standard output. Text that is not UTF-8 keeps its bytes if it is
    used as an argument, a variable or an item (texts.py).

    The command in `shell` is a text for a shell, or a list of a program and its arguments.
    `value_of` evaluates an expression; `tell` is called with the command and all values in it.
    With `instead`, nothing is executed: the result is what it returns for that text.
    Blocks until the command has ended. If this is interrupted (by a timeout), or this process dies,
    all processes of the command are killed.
    Errors: ShellFailed, also for a missing program, shell or folder; UsageError for an expression
    on cmd; WorkflowInvalid for a value that cannot be an argument; ValueError if the output is not
    JSON for `result: json`.
    """
    command = first_line(shell["command"])
    output, errors = _Output(mask, sys.stdout), _Output(mask, sys.stderr)
    try:
        prepared = _prepare(shell, value_of, mask)
        command = shorten(prepared.shown)
        tell(prepared.shown)
        with masked_output(mask):
            if instead is not None:
                return instead(prepared.shown)
            code = _execute(prepared, output, errors)
    except _NotStarted as failure:
        raise ShellFailed(command, failure.code, str(failure)) from None
    if code:
        reason = errors.last_line or output.last_line
        if code == NOT_STARTED and prepared.is_large:
            reason = f"{reason}; {_TOO_LARGE}"
        raise ShellFailed(command, code, reason)
    return output.result(shell.get("result") or "last")


def first_line(command: str | Sequence[str]) -> str:
    """Return the first line of a declared command, for messages about one that was not run."""
    return shorten(describe_command(command))


def shorten(command: str) -> str:
    """Return the first line of a command, of at most `MAX_SHOWN` characters."""
    first, _, rest = command.strip().partition("\n")
    return first if len(first) <= MAX_SHOWN and not rest else f"{first[:MAX_SHOWN]}…"


def not_started(command: str | Sequence[str], reason: str) -> ShellFailed:
    """Return the error for a command whose folder is missing, or cannot be entered."""
    return ShellFailed(first_line(command), NOT_FOUND, reason)


class _NotStarted(Exception):
    """A command could not be started. `code` is the exit code that a shell would return."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A command that is ready to start, and its text for display.

    `command` is a text for `shell`, or a list of words without one. `filled` has the values in a
    text.
    """

    command: list[str] | str
    shown: str
    shell: str = ""
    filled: Filled = NOTHING

    @property
    def arguments(self) -> list[str] | str:
        """The arguments to start; for cmd, the whole line. Errors: as `command_line`."""
        if isinstance(self.command, str):
            return command_line(self.shell, self.command)
        return self.command

    @property
    def is_large(self) -> bool:
        """Whether values are so large that a program may not accept them as arguments."""
        return bool(self.filled.assignments)


_TOO_LARGE = (
    "a value of this command may be too large for an argument of a program: print it to a file, or "
    "into the program, with printf '%s' and > or |"
)


def _prepare(shell: Mapping[str, Any], value_of: Callable[[Any], Any], mask: Mask) -> _Prepared:
    """Return the command with all values in it, ready to start.

    For display, secrets are hidden before a value is quoted, because quoting may change them.
    Errors: _NotStarted; as `run`.
    """
    command = shell["command"]
    if not isinstance(command, str):
        words = [_word(item, value_of) for item in command]
        shown = " ".join(_show_value(WORD, word, mask) for word in words)
        return _Prepared(words, texts.show(shown))
    name = shell.get("shell") or default_shell()
    parts = split(command)
    sources = [str(part) for part in parts if not isinstance(part, str)]
    if not sources:
        text = "".join(map(str, parts))  # without the escapes
        return _Prepared(text, texts.show(text), name)
    places = _places(name, shell.get("places") or WORD * len(sources))
    values = [write(value_of(source), source) for source in sources]
    known = [part if isinstance(part, str) else None for part in parts]
    try:
        filled = fill(known, values, places, os.environ)
    except ValueError as error:
        raise _NotStarted(NOT_STARTED, str(error)) from None
    shown_values = iter([_show_value(*each, mask) for each in zip(places, values, strict=True)])
    shown = "".join(next(shown_values) if part is None else part for part in known)
    return _Prepared(filled.command, texts.show(shown), name, filled)


def _places(name: str, places: str) -> str:
    """Return the places of a command's values. Errors: UsageError if a value may not be there."""
    if find_shell(name) is None:
        raise UsageError(
            f"flowq cannot quote values in a command for {name}: pass them under `env:`, or write "
            "the command as a list"
        )
    if REFUSED in places:
        raise UsageError("the command has a value where it could become code: `flowq check`")
    return places


def _show_value(place: str, text: str, mask: Mask) -> str:
    hidden = mask.hide(text)
    return hidden if hidden == HIDDEN else show(hidden, place)


def _word(item: str, value_of: Callable[[Any], Any]) -> str:
    """Return one argument. The value of an expression is never split into several."""
    return "".join(
        part if isinstance(part, str) else write_argument(value_of(str(part)), str(part))
        for part in split(item)
    )


def default_shell() -> str:
    """Return the name of the default shell."""
    if os.name == "nt":
        return "cmd"
    return "bash" if shutil.which("bash") else "sh"


def kind_of(name: str) -> str:
    """Return the kind of a shell by its name or path: `cmd` for `C:\\Windows\\cmd.exe`."""
    kind = PureWindowsPath(name).stem.lower()
    return kind if kind in _ARGUMENTS_BY_SHELL else name


def command_line(name: str, command: str) -> list[str] | str:
    """Return the arguments that run a command in that shell; for cmd, the whole line.

    Errors: _NotStarted if the shell is missing; UsageError for several lines on cmd.
    """
    kind = kind_of(name)
    program, *options = _ARGUMENTS_BY_SHELL.get(kind, (name, "-c"))
    if kind != name:
        program = name
    elif kind == "cmd":
        program = os.environ.get("COMSPEC") or program
    if shutil.which(program) is None:
        raise _NotStarted(NOT_FOUND, f"there is no shell {name} where the job runs")
    if kind == "cmd":  # it has its own rules for quotes, and removes the outer ones
        line = _one_line(command)
        return f'{subprocess.list2cmdline([program])} {" ".join(options)} "{line}"'
    if kind in ("pwsh", "powershell"):
        command = command.join(_STOP_ON_ERRORS)
    return [program, *options, command]


def _one_line(command: str) -> str:
    lines = [line for line in command.splitlines() if line.strip()]
    if len(lines) > 1:  # cmd would silently ignore all but the first
        raise UsageError(
            "cmd takes one line: join them with &&, put them into a .cmd file and call that, "
            "or choose another shell (`shell: pwsh`, `shell: python`)"
        )
    return lines[0].strip() if lines else ""


# Executing ---------------------------------------------------------------------------------------


class _Output:
    """Passes on the output of one stream in whole lines, and keeps its end.

    What is no whole line, such as a prompt, is passed on when its stream rests: it is seen then,
    and not lost if this process is killed. The process that reads our own output masks it.
    """

    def __init__(self, mask: Mask, target: TextIO) -> None:
        self._mask = mask
        self._target = target
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self.is_cut = False
        self._lock = threading.Lock()
        self._rest = bytearray()  # a line that has not ended
        self._passed = 0  # how many bytes of it are passed on
        self._is_resting = False

    def take(self, stream: BufferedReader) -> None:
        """Read until all writers have closed the stream."""
        self._target.flush()
        with stream:
            while part := stream.read1(min(CHUNK_BYTES, MAX_RESULT_BYTES)):
                with self._lock:
                    self._take(part)
        with self._lock:
            self._end_piece()

    def pass_on_rest(self) -> None:
        """Pass on the beginning of a line, unless more of it came since the last call."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._is_resting:
                end = len(self._rest) - _count_unfinished(self._rest)
                text, self._passed = self._rest[self._passed : end], max(self._passed, end)
                self._pass_on(bytes(text))
            self._is_resting = True
        finally:
            self._lock.release()

    def _take(self, part: bytes) -> None:
        self._is_resting = False
        end = part.rfind(b"\n") + 1
        if len(self._rest) + (end or len(part)) > MAX_RESULT_BYTES:
            self._end_piece()
        self._rest += part[:end]
        if end:
            self._end_piece()
        self._rest += part[end:]

    def _end_piece(self) -> None:
        """Pass on and keep what was read: whole lines, or a part of a very long one."""
        piece = bytes(self._rest)
        text = piece[self._passed :]
        self._rest.clear()
        self._passed = 0
        self._pass_on(text)
        self._keep(piece)

    def _pass_on(self, text: bytes) -> None:
        if text:
            lines = [text] if text.isascii() else text.splitlines(keepends=True)
            with suppress(ValueError, OSError):
                self._target.write("".join(map(_shown, lines)).replace("\r\n", "\n"))
                self._target.flush()

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size > MAX_RESULT_BYTES and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft())
            self.is_cut = True

    @property
    def last_line(self) -> str:
        """The last line that is not blank, for display."""
        lines = (line for piece in reversed(self._pieces) for line in reversed(piece.splitlines()))
        shown = (_shown(line).strip() for line in lines)
        return self._mask.hide(next((line for line in shown if line), ""))

    def result(self, kind: str) -> Any:
        """Return the job's result of this kind."""
        # Split as bytes: `str.splitlines` splits at more characters.
        lines = list(map(_decoded, b"".join(self._pieces).splitlines(keepends=True)))
        if kind == "last":
            last = next((line for line in reversed(lines) if line.strip()), "")
            return last.rstrip("\r\n")
        if self.is_cut:
            raise UsageError(f"the output is too long for `result: {kind}`; write it to a file")
        if kind == "lines":
            return [line.rstrip("\r\n") for line in lines]
        text = "".join(lines)
        if kind != "json":
            return text.rstrip("\r\n")
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"`result: json`, but the output is not JSON: {error}") from None


def _decoded(output: bytes) -> str:
    """Decode output: UTF-8, or the encoding of the Windows console."""
    try:
        return output.decode()
    except UnicodeDecodeError:
        with suppress(LookupError):
            return output.decode("oem", errors="replace")
        return texts.from_bytes(output)


def _shown(output: bytes) -> str:
    return texts.show(_decoded(output))


def _count_unfinished(output: bytearray) -> int:
    """Return how many bytes at the end begin something: a character, or the end of a line."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(output[-4:])
    return 1 if output.endswith(b"\r") else len(decoder.getstate()[0])


def _execute(prepared: _Prepared, output: _Output, errors: _Output) -> int:
    readers: list[threading.Thread] = []
    try:
        code = _execute_leashed(prepared, output, errors, readers)
    except BaseException:
        _join(readers)  # they have ended: what they have printed last is in the pipes
        raise
    for reader in readers:
        reader.join()
    return code


def _execute_leashed(
    prepared: _Prepared, output: _Output, errors: _Output, readers: list[threading.Thread]
) -> int:
    filled, arguments = prepared.filled, prepared.arguments
    with ExitStack() as stack:
        file = ProgressFile()
        stack.callback(file.remove)
        options = dict(stack.enter_context(_leash(file.folder)), stdin=subprocess.DEVNULL)
        options["env"] = {**os.environ, PROGRESS: file.path, **filled.variables}
        if filled.assignments:
            options["stdin"] = stack.enter_context(_open_input(filled))
        process = _start(arguments, options)
        for part, stream in ((output, process.stdout), (errors, process.stderr)):
            readers.append(threading.Thread(target=part.take, args=(stream,), daemon=True))
            readers[-1].start()
        try:
            code = _wait_for(process, lambda: _look(output, errors, file))
        except BaseException:
            kill_tree(process.pid)
            process.kill()
            raise
        finally:
            file.report()
        _join(readers)  # its background processes may keep the streams open
    return code


def _join(readers: Iterable[threading.Thread]) -> None:
    until = time.monotonic() + GRACE_S
    for reader in readers:
        reader.join(max(0.0, until - time.monotonic()))


def _open_input(filled: Filled) -> AbstractContextManager[IO[bytes]]:
    try:
        return filled.open_input()
    except OSError as error:
        reason = f"its values cannot be written to a temporary file: {error.strerror}"
        raise _NotStarted(NOT_STARTED, reason) from None


def _start(arguments: list[str] | str, options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start a program. Errors: _NotStarted."""
    program = arguments if isinstance(arguments, str) else arguments[0]
    if any("\0" in argument for argument in arguments):
        raise _NotStarted(NOT_STARTED, "a command cannot contain the character NUL")
    if not program:
        raise _NotStarted(NOT_FOUND, "the first item, which names the program, is empty")
    if os.name == "nt" and program.lower().endswith((".bat", ".cmd")):
        # Windows passes it to cmd, for which arguments cannot be quoted safely.
        reason = f"{program} is a file for cmd: write the command as one text, with `shell: cmd`"
        raise _NotStarted(NOT_STARTED, reason)
    try:
        return subprocess.Popen(  # noqa: S603 - it is what the job is there for
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
    except OSError as error:
        code = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_STARTED
        raise _NotStarted(code, texts.show(_why_not_started(program, error))) from None


def _why_not_started(program: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if shutil.which(program):
            return f"the program that the first line of {program} names does not exist"
        if os.path.dirname(program):  # noqa: PTH120 - whether a folder was written
            return f"there is no file {program} in {os.getcwd()}"  # noqa: PTH109 - as text
        if len(words := program.split()) > 1:
            hint = f"each item of the list is one argument: [{', '.join(words)}]"
            return f"there is no program {program!r} where the job runs; {hint}"
        return f"there is no program {program} where the job runs"
    if error.errno == errno.ENOEXEC:
        return f"{program} is not a program; a script begins with a line such as #!/bin/sh"
    if error.errno == errno.E2BIG:
        return "its arguments are too long: pass so much data in a file"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{program} cannot be executed: {error.strerror}; `chmod +x` makes a file executable"
    return f"{program} cannot be executed: {error.strerror or error}"


def _wait_for(process: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    while True:  # in short waits, so that a timeout can be raised on every platform
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_S)
        look()


def _look(output: _Output, errors: _Output, file: ProgressFile) -> None:
    output.pass_on_rest()
    errors.pass_on_rest()
    file.report()


@contextmanager
def _leash(folder: str) -> Iterator[dict[str, Any]]:
    """Yield options for a process that is killed, with its children, when we leave or die.

    A separate process leads its group, and kills the group when its pipe to us closes, even if this
    process is killed. The command is in that group and not in ours, so that it can be killed alone.
    The folder is removed afterwards, which takes long on a slow file system; so by a process that
    is not in the group. Where there is no `setsid` for that (macOS), the folder is removed first.
    """
    if not hasattr(os, "killpg"):
        yield {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        return
    leader = subprocess.Popen(  # noqa: S603 - a fixed text
        ["sh", "-c", _LEASH, "sh", folder],  # noqa: S607 - wherever it is
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield {"process_group": leader.pid}
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
        assert leader.stdin is not None
        leader.stdin.close()
        leader.wait()
