"""The output of jobs, captured at file descriptors, so that C code and subprocesses are included.

Each child writes to its own scratch file. When a job ends, its output moves to the job's log (or to
the worker's own output), and the scratch file is emptied; a job that prints nothing costs three
position checks. For a longer job, the supervisor passes on the output so far (`Scratch`). The
shared state says how much was passed on, and its lock prevents both from moving output at the same
time.

The process that moves output out of a scratch file masks the secrets in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from flowq.runtime.masking import Mask
from flowq.server import private
from flowq.texts import ATTEMPT_LINE, show_bytes
from flowq.workers.shared_state import LOCK_S, SharedState

LOG_BYTES = 1_000_000
"""How much of one job's output is kept: the first and the last half of that."""

HALF_BYTES = LOG_BYTES // 2

RUNAWAY_BYTES = 64_000_000
"""How long a scratch file may get while its job runs."""

TAIL_BYTES = 2_000

BINARY = getattr(os, "O_BINARY", 0)
"""Windows would change line ends, and take a Ctrl-Z for the end of the file."""


MARK = 0 if BINARY else (1 << 30) + 7
"""Where an empty scratch file is positioned: elsewhere stands what somebody has written to, or has
put in its place. On Windows a subprocess would write there, instead of at the end."""

ALL_BYTES = 1 << 50

log = logging.getLogger("rq.worker")


class Capture:
    """In the child: sends descriptors 1 and 2 to the scratch file, and from there to the log."""

    def __init__(
        self, log_folder: str | None, scratch_folder: str | None, shared: SharedState
    ) -> None:
        self._log_folder = log_folder
        self._shared = shared
        self._scratch: int | None = None
        self._terminal = 1
        self.mask = Mask()
        """The secrets that jobs of this process have read: what they left behind may print them."""
        if scratch_folder:
            self._terminal = os.dup(1)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC | BINARY
            self._scratch = os.open(scratch_path(scratch_folder, os.getpid()), flags, 0o600)
            self._file = os.fstat(self._scratch)
            os.lseek(self._scratch, MARK, os.SEEK_SET)
            os.dup2(self._scratch, 1)
            os.dup2(self._scratch, 2)

    @property
    def is_on(self) -> bool:
        """Whether output goes to a scratch file; else it goes to where the worker prints."""
        return self._scratch is not None

    def end(self, job_id: str | None) -> bool:
        """Move what was written since the last call to the job's log.

        False when the job has closed descriptors 1 or 2, or put others there: they are repaired,
        but what it has opened since may have got their numbers.
        """
        scratch = self._scratch
        if scratch is None or _are_at_mark(scratch):
            return True
        if not _is_file(scratch, self._file):  # the job has closed it, and opened what is its own
            return False
        is_fit = _is_file(1, self._file) and _is_file(2, self._file)
        try:
            with self._shared.held():
                self._write(job_id, read_bounded(scratch, self._shared.logged_bytes, self.mask))
                # In this order: the supervisor must not pass on again what is in the log.
                self._shared.note_logged(ALL_BYTES)
                os.ftruncate(scratch, 0)
                self._shared.note_logged(0)
                os.lseek(scratch, MARK, os.SEEK_SET)
            if not is_fit:
                os.dup2(scratch, 1)
                os.dup2(scratch, 2)
        except OSError:
            return False
        return is_fit

    def _write(self, job_id: str | None, text: bytes) -> None:
        try:
            if self._log_folder and job_id:
                append_log(self._log_folder, job_id, text)
            else:
                _write_all(self._terminal, text)
        except OSError as error:  # a full disk, a reader that has gone: the job has succeeded
            log.warning("the output of job %s is lost: %s", job_id, error)


def _are_at_mark(scratch: int) -> bool:
    seek, here = os.lseek, os.SEEK_CUR
    try:
        return MARK == seek(1, 0, here) == seek(2, 0, here) == seek(scratch, 0, here)
    except OSError:  # closed, or not a file any more
        return False


def _is_file(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:
        return False


def open_stream(descriptor: int) -> TextIO:
    """Return what `sys.stdout` and `sys.stderr` are in a child.

    By line, or the last words of a killed job would be lost; and whatever the worker's process has
    put in the place of its own streams does not matter here.
    """
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def scratch_path(folder: str, pid: int) -> Path:
    """Return where the child with that process id writes."""
    return Path(folder) / f"child-{pid}.out"


def read_bounded(descriptor: int, skip: int, mask: Mask) -> bytes:
    """Return what is in the file, masked, without the middle when it is long, and without the
    first `skip` bytes (at most half of what is kept, or all)."""
    size = os.fstat(descriptor).st_size
    if size <= LOG_BYTES or skip > HALF_BYTES:
        return read_masked(descriptor, skip, size, mask)
    note = f"\n[… {size - 2 * HALF_BYTES:,} bytes left out …]\n".encode()
    first = read_masked(descriptor, skip, HALF_BYTES, mask)
    return first + note + read_masked(descriptor, size - HALF_BYTES, size, mask)


def read_masked(descriptor: int, begin: int, end: int, mask: Mask) -> bytes:
    """Return what stands there, masked, also where a secret goes beyond it."""
    around = mask.longest
    at = max(0, begin - around)
    text = read_at(descriptor, at, end + around - at)
    return mask.hide_bytes(text, begin - at, min(end - at, len(text)))


def read_at(descriptor: int, at: int, size: int) -> bytes:
    """Return so many bytes from there, or what there is."""
    os.lseek(descriptor, at, os.SEEK_SET)
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def append_log(folder: str, job_id: str, text: bytes) -> None:
    """Add to the log of a job; a retry goes below what was there."""
    if not text:
        return
    path = Path(folder, f"{job_id}.log")
    try:
        descriptor = private.open_file(path, APPENDING)
    except FileNotFoundError:  # the folder is not there yet, or not any more
        path.parent.mkdir(mode=private.FOLDER_MODE, exist_ok=True)
        descriptor = private.open_file(path, APPENDING)
    with os.fdopen(descriptor, "ab") as file:
        file.write(text)


def mark_attempt(folder: str, job_id: str, attempt: int) -> None:
    """Part what a further attempt will print from what is in the log of the job already."""
    path = Path(folder) / f"{job_id}.log"
    try:
        if path.exists():
            append_log(folder, job_id, f"{ATTEMPT_LINE.format(attempt)}\n".encode())
    except OSError as error:
        log.warning("the log of job %s cannot be written: %s", job_id, error)


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


# In the supervisor -------------------------------------------------------------------------------
# A child sends its secrets before its job can print them, and the shared state says how many there
# are. Output is masked on its way into a log, and stays where it is until all of them are known.

BRIEFLY_S = 0.01


WITHHELD = b"[its output is not kept: it may have secrets in it that are not known here]\n"


MAX_SECRETS = 8_000_000


MAX_SECRETS_COUNT = 10_000
"""How many characters, and how many secrets, are kept of one child. A child runs the code of users,
which must not fill the memory of its supervisor."""


class Secrets:
    """What the supervisor knows of the secrets of one child. `count` is how many."""

    def __init__(self) -> None:
        self.mask = Mask()
        self.count = 0
        self._size = 0

    def add(self, values: list[str]) -> bool:
        """Take in some of them; False when these would be too many, and are left out.

        `count` then stays below what the shared state says, so that the child's output is withheld.
        """
        self._size += sum(map(len, values))
        if self._size > MAX_SECRETS or self.count + len(values) > MAX_SECRETS_COUNT:
            return False
        self.mask.add(values)
        self.count += len(values)
        return True


class Scratch:
    """What the children of one supervisor have written; nothing without a folder for it."""

    def __init__(self, folder: str | None, log_folder: str | None) -> None:
        self._folder = folder
        self._log_folder = log_folder

    def pass_on(
        self, pid: int, shared: SharedState, number: int, job_id: str, secrets: Secrets
    ) -> None:
        """Add what a running job has written so far to its log; the first half of what is kept.

        What comes last is known at its end only, and the child adds that.
        """
        if self._folder is None or self._log_folder is None:
            return  # where the worker itself prints a slow reader could stop us
        with suppress(OSError), shared.held(BRIEFLY_S) as is_held:
            if is_held and shared.begun == number:
                with _opened(scratch_path(self._folder, pid), os.O_RDONLY) as descriptor:
                    self._pass_on(descriptor, shared, self._log_folder, job_id, secrets)

    def _pass_on(
        self, descriptor: int, shared: SharedState, log_folder: str, job_id: str, secrets: Secrets
    ) -> None:
        done = shared.logged_bytes
        text = read_at(descriptor, done, HALF_BYTES - done)
        if shared.secrets_told != secrets.count:  # now, as it may print them once it has told them
            return
        shown, used = secrets.mask.hide_begun(text)
        shared.note_logged(done + used)
        append_log(log_folder, job_id, shown)

    def take(self, pid: int, shared: SharedState, job_id: str, secrets: Secrets) -> str:
        """Move what a dead child has written to the log of its job; return the end of it."""
        if self._folder is None:
            return ""
        try:
            with (
                shared.held(LOCK_S),
                _opened(scratch_path(self._folder, pid), os.O_RDWR) as descriptor,
            ):
                return self._take(descriptor, shared, job_id, secrets)
        except OSError:
            return ""

    def _take(self, descriptor: int, shared: SharedState, job_id: str, secrets: Secrets) -> str:
        size = os.fstat(descriptor).st_size
        tail = text = WITHHELD if size else b""
        if shared.secrets_told == secrets.count:
            tail = read_masked(descriptor, max(0, size - TAIL_BYTES), size, secrets.mask)
            text = read_bounded(descriptor, shared.logged_bytes, secrets.mask)
        shared.note_logged(ALL_BYTES)
        if self._log_folder:
            with suppress(OSError):
                append_log(self._log_folder, job_id, text)
        os.ftruncate(descriptor, 0)
        shared.note_logged(0)
        return show_bytes(tail)

    def trim(self, pid: int, secrets: Secrets) -> None:
        """Cut the output of a job that prints without end, but not in the middle of a secret."""
        if self._folder is None:
            return
        path = scratch_path(self._folder, pid)
        with suppress(OSError):
            if path.stat().st_size > RUNAWAY_BYTES:
                os.truncate(path, _find_cut(path, secrets.mask) if secrets.mask else HALF_BYTES)

    def drop(self, pid: int) -> None:
        """Remove the file of a child that is gone."""
        if self._folder is not None:
            with suppress(OSError):  # on Windows, while something that the job started has it open
                scratch_path(self._folder, pid).unlink()


def _find_cut(path: Path, mask: Mask) -> int:
    with _opened(path, os.O_RDONLY) as descriptor:
        begin = max(0, HALF_BYTES - mask.longest)
        text = read_at(descriptor, begin, HALF_BYTES - begin)
    return begin + mask.hide_begun(text)[1]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | BINARY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
