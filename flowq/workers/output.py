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

from flowq.files import write_all
from flowq.runtime.masking import Mask
from flowq.server import private
from flowq.texts import ATTEMPT_LINE, show_bytes
from flowq.workers.shared_state import LOCK_S, SharedState

LOG_BYTES = 1_000_000
"""How much of one job's output is kept: its first and its last half a megabyte."""

HALF_BYTES = LOG_BYTES // 2

RUNAWAY_BYTES = 64_000_000
"""The size at which the scratch file of a running job is cut."""

TAIL_BYTES = 2_000

BINARY = getattr(os, "O_BINARY", 0)
"""Without it, Windows would change line ends and take a Ctrl-Z for the end of the file."""

MARK = 0 if BINARY else (1 << 30) + 7
"""The position in an empty scratch file. Any other position shows that something was written, or
that the descriptor was replaced. Not on Windows, where a subprocess would write at this position
instead of at the end of the file."""

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
        """The secrets that jobs of this process have read; their background processes may still
        print them."""
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
        """Whether output goes to a scratch file; otherwise it goes to the worker's own output."""
        return self._scratch is not None

    def end(self, job_id: str | None) -> bool:
        """Move the output since the last call to the job's log.

        Returns False if the job closed or replaced descriptor 1 or 2. They are repaired, but a file
        that the job has opened since may have their numbers.
        """
        scratch = self._scratch
        if scratch is None or _are_at_mark(scratch):
            return True
        if not _is_file(scratch, self._file):  # the job closed it and opened a file of its own
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
                write_all(self._terminal, text)
        except OSError as error:  # a full disk, or a closed pipe: no reason to fail the job
            job = {"job_id": job_id}
            log.warning("the output of job %s is lost: %s", job_id, error, extra=job)


def _are_at_mark(scratch: int) -> bool:
    seek, here = os.lseek, os.SEEK_CUR
    try:
        return MARK == seek(1, 0, here) == seek(2, 0, here) == seek(scratch, 0, here)
    except OSError:  # closed, or no longer a file
        return False


def _is_file(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:
        return False


def open_stream(descriptor: int) -> TextIO:
    """Return a new `sys.stdout` or `sys.stderr` for a child.

    It is line-buffered, so that the last output of a killed job is not lost, and independent of
    the objects that the worker's process uses as its streams.
    """
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def scratch_path(folder: str, pid: int) -> Path:
    """Return the scratch file of the child with this process id."""
    return Path(folder) / f"child-{pid}.out"


def read_bounded(descriptor: int, skip: int, mask: Mask) -> bytes:
    """Return the content of the file, masked, without the first `skip` bytes.

    The middle of long content is left out. `skip` is at most HALF_BYTES, or ALL_BYTES.
    """
    size = os.fstat(descriptor).st_size
    if size <= LOG_BYTES or skip > HALF_BYTES:
        return read_masked(descriptor, skip, size, mask)
    note = f"\n[… {size - 2 * HALF_BYTES:,} bytes left out …]\n".encode()
    first = read_masked(descriptor, skip, HALF_BYTES, mask)
    return first + note + read_masked(descriptor, size - HALF_BYTES, size, mask)


def read_masked(descriptor: int, begin: int, end: int, mask: Mask) -> bytes:
    """Return this part of the file, masked, including secrets that extend beyond the part."""
    around = mask.longest
    at = max(0, begin - around)
    text = read_at(descriptor, at, end + around - at)
    return mask.hide_bytes(text, begin - at, min(end - at, len(text)))


def read_at(descriptor: int, at: int, size: int) -> bytes:
    """Return up to `size` bytes from a position of the file."""
    os.lseek(descriptor, at, os.SEEK_SET)
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def append_log(folder: str, job_id: str, text: bytes) -> None:
    """Append to the log of a job."""
    if not text:
        return
    path = Path(folder, f"{job_id}.log")
    try:
        descriptor = private.open_file(path, APPENDING)
    except FileNotFoundError:  # the folder was not made yet, or was removed
        path.parent.mkdir(mode=private.FOLDER_MODE, exist_ok=True)
        descriptor = private.open_file(path, APPENDING)
    with os.fdopen(descriptor, "ab") as file:
        file.write(text)


def mark_attempt(folder: str, job_id: str, attempt: int) -> None:
    """Add a line to an existing log that separates a new attempt from the earlier ones."""
    path = Path(folder) / f"{job_id}.log"
    try:
        if path.exists():
            append_log(folder, job_id, f"{ATTEMPT_LINE.format(attempt)}\n".encode())
    except OSError as error:
        job = {"job_id": job_id}
        log.warning("the log of job %s cannot be written: %s", job_id, error, extra=job)


# In the supervisor -------------------------------------------------------------------------------
# A child sends its secrets before its job can print them, and the shared state has their number.
# Output is masked on its way into a log, and stays in the scratch file until all secrets are known.

BRIEFLY_S = 0.01
WITHHELD = b"[its output is not kept: it may have secrets in it that are not known here]\n"

MAX_SECRETS = 8_000_000
MAX_SECRETS_COUNT = 10_000
"""Limits of the secrets of one child, in characters and in number: the user code in a child must
not fill the memory of its supervisor."""


class Secrets:
    """The secrets of one child that the supervisor knows."""

    def __init__(self) -> None:
        self.mask = Mask()
        self.count = 0
        self._size = 0

    def add(self, values: list[str]) -> bool:
        """Add secrets; False if they exceed the limits and are left out.

        `count` then stays below the number in the shared state, so the child's output is withheld.
        """
        self._size += sum(map(len, values))
        if self._size > MAX_SECRETS or self.count + len(values) > MAX_SECRETS_COUNT:
            return False
        self.mask.add(values)
        self.count += len(values)
        return True


class Scratch:
    """The scratch files of one supervisor's children; there are none without a folder."""

    def __init__(self, folder: str | None, log_folder: str | None) -> None:
        self._folder = folder
        self._log_folder = log_folder

    def pass_on(
        self, pid: int, shared: SharedState, number: int, job_id: str, secrets: Secrets
    ) -> None:
        """Add the output so far of a running job to its log, up to HALF_BYTES.

        The last half is known only when the job ends, and the child adds it.
        """
        if self._folder is None or self._log_folder is None:
            return  # not to the worker's own output, whose slow reader could block us
        with suppress(OSError), shared.held(BRIEFLY_S) as is_held:
            if is_held and shared.begun == number:
                with _opened(scratch_path(self._folder, pid), os.O_RDONLY) as descriptor:
                    self._pass_on(descriptor, shared, self._log_folder, job_id, secrets)

    def _pass_on(
        self, descriptor: int, shared: SharedState, log_folder: str, job_id: str, secrets: Secrets
    ) -> None:
        done = shared.logged_bytes
        text = read_at(descriptor, done, HALF_BYTES - done)
        # After reading: the child announces a secret before it can print it.
        if shared.secrets_told != secrets.count:
            return
        shown, used = secrets.mask.hide_begun(text)
        shared.note_logged(done + used)
        append_log(log_folder, job_id, shown)

    def take(self, pid: int, shared: SharedState, job_id: str, secrets: Secrets) -> str:
        """Move the output of a dead child to the log of its job; return the end of the output."""
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
        """Cut the scratch file of a job that prints too much, but not in the middle of a secret."""
        if self._folder is None:
            return
        path = scratch_path(self._folder, pid)
        with suppress(OSError):
            if path.stat().st_size > RUNAWAY_BYTES:
                os.truncate(path, _find_cut(path, secrets.mask) if secrets.mask else HALF_BYTES)

    def drop(self, pid: int) -> None:
        """Remove the scratch file of a child that has ended."""
        if self._folder is not None:
            with suppress(OSError):  # on Windows, while a process of the job has it open
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
