"""The output of jobs, captured at file descriptors, so that C code and subprocesses are included.

Each child writes to its own scratch file. When a job ends, its child takes the output from there
and sends head and tail with the job's end, which the supervisor stores (`runtime/printed.py`). A
job that prints nothing costs three position checks. Of a longer job, the supervisor takes the
output so far (`Scratch`). The shared state says how much was taken, and its lock prevents both from
taking output at the same time. Output of jobs outside of runs goes to the worker's own output.

The process that takes output out of a scratch file masks the secrets in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from flowq.files import write_all
from flowq.runtime.masking import Mask
from flowq.runtime.printed import HEAD_BYTES, TAIL_BYTES, Printed
from flowq.texts import show_bytes
from flowq.workers.messages import End, Task
from flowq.workers.shared_state import LOCK_S, SharedState

if TYPE_CHECKING:
    from flowq.workers.claims import Claim

ECHO_BYTES = 1_000_000
"""How much of one job's output goes to the worker's own output: its first and its last half."""

HALF_BYTES = ECHO_BYTES // 2

STEP_BYTES = 4 * (HEAD_BYTES + TAIL_BYTES)
"""The most that a supervisor reads of a job at a time; of more, it takes head and tail."""

RUNAWAY_BYTES = 64_000_000
"""The size at which the scratch file of a running job is cut."""

LAST_BYTES = 2_000
"""How much of its output is in the error of a job whose process died."""

BINARY = getattr(os, "O_BINARY", 0)
"""Without it, Windows would change line ends and take a Ctrl-Z for the end of the file."""

MARK = 0 if BINARY else (1 << 30) + 7
"""The position in an empty scratch file. Any other position shows that something was written, or
that the descriptor was replaced. Not on Windows, where a subprocess would write at this position
instead of at the end of the file."""

log = logging.getLogger("rq.worker")


class Capture:
    """In the child: sends descriptors 1 and 2 to the scratch file, and takes output from there.

    `echoes`: whether the output of jobs of runs goes to the worker's own output, too.
    """

    def __init__(self, scratch_folder: str | None, shared: SharedState, *, echoes: bool) -> None:
        self._shared = shared
        self._echoes = echoes
        self._scratch: int | None = None
        self._is_taken = False
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

    def take(self, task: Task, end: End) -> End:
        """Return the end of a job with what the job has printed. `clear` must follow.

        The child is spent if the job closed or replaced descriptor 1 or 2: they are repaired, but a
        file that the job has opened since may have their numbers.
        """
        scratch = self._scratch
        if scratch is None or _are_at_mark(scratch):
            return end
        if not _is_file(scratch, self._file):  # the job closed it and opened a file of its own
            return end._replace(is_spent=True)
        is_fit = _is_file(1, self._file) and _is_file(2, self._file)
        is_in_run = b"flowq_run" in task.raw[::2]
        try:
            with self._shared.held():
                size = os.fstat(scratch).st_size
                if is_in_run:
                    rest = read_rest(scratch, self._shared.taken_bytes, size, self.mask)
                    end = end._replace(printed=rest.write_text())
                if self._echoes or not is_in_run:
                    self._echo(task.job_id, read_bounded(scratch, size, self.mask))
                self._shared.close_output()
                self._is_taken = True
        except OSError:
            is_fit = False
        return end if is_fit else end._replace(is_spent=True)

    def clear(self) -> None:
        """Empty the scratch file, once the end with its content is sent or stored.

        Until then the supervisor takes nothing from it, unless this process dies.
        """
        scratch = self._scratch
        if scratch is None or not self._is_taken:
            return
        self._is_taken = False
        with suppress(OSError), self._shared.held():
            os.ftruncate(scratch, 0)
            self._shared.open_output(0)
            os.lseek(scratch, MARK, os.SEEK_SET)
            for descriptor in (1, 2):
                if not _is_file(descriptor, self._file):
                    os.dup2(scratch, descriptor)

    def _echo(self, job_id: str, text: bytes) -> None:
        try:
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


def read_rest(descriptor: int, begin: int, end: int, mask: Mask) -> Printed:
    """Return the content of the file from a position on, masked, as head and tail."""
    rest = Printed()
    if end - begin > HEAD_BYTES + TAIL_BYTES:
        rest.add(read_masked(descriptor, begin, begin + HEAD_BYTES, mask))
        rest.skip(end - TAIL_BYTES - begin - HEAD_BYTES)
        begin = end - TAIL_BYTES
    rest.add(read_masked(descriptor, begin, end, mask))
    return rest


def read_bounded(descriptor: int, size: int, mask: Mask) -> bytes:
    """Return the content of the file, masked. The middle of long content is left out."""
    if size <= ECHO_BYTES:
        return read_masked(descriptor, 0, size, mask)
    note = f"\n[… {size - 2 * HALF_BYTES:,} bytes left out …]\n".encode()
    first = read_masked(descriptor, 0, HALF_BYTES, mask)
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


# In the supervisor -------------------------------------------------------------------------------
# A child sends its secrets before its job can print them, and the shared state has their number.
# Output is masked when it is taken, and stays in the scratch file until all secrets are known.

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

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def take_so_far(self, pid: int, shared: SharedState, claim: Claim, secrets: Secrets) -> None:
        """Add to a claim what its job has printed since the last call."""
        if self._folder is None or not claim.run_id:
            return
        with suppress(OSError), shared.held(BRIEFLY_S) as is_held:
            if is_held and shared.begun == claim.number and not shared.is_output_closed:
                with _opened(scratch_path(self._folder, pid), os.O_RDONLY) as descriptor:
                    _take_so_far(descriptor, shared, claim, secrets)

    def take_rest(self, pid: int, shared: SharedState, claim: Claim, secrets: Secrets) -> str:
        """Add to a claim what the dead process of its job has left; return the end of the output.

        Empties the scratch file: a fork server goes on with it.
        """
        if self._folder is None:
            return ""
        try:
            with (
                shared.held(LOCK_S),
                _opened(scratch_path(self._folder, pid), os.O_RDWR) as descriptor,
            ):
                size, last = os.fstat(descriptor).st_size, b""
                if shared.secrets_told == secrets.count:
                    claim.print_rest(read_rest(descriptor, shared.taken_bytes, size, secrets.mask))
                    last = read_masked(descriptor, max(0, size - LAST_BYTES), size, secrets.mask)
                elif size:
                    last = WITHHELD
                    claim.print_rest(Printed(WITHHELD, b"", len(WITHHELD)))
                os.ftruncate(descriptor, 0)
                shared.open_output(0)
                return show_bytes(last)
        except OSError:
            return ""

    def is_too_large(self, pid: int) -> bool:
        """Whether `trim` should cut the scratch file of a child."""
        if self._folder is None:
            return False
        with suppress(OSError):
            return scratch_path(self._folder, pid).stat().st_size > RUNAWAY_BYTES
        return False

    def trim(self, pid: int, shared: SharedState, claim: Claim | None, secrets: Secrets) -> None:
        """Take what the job of `claim` has printed, and cut its scratch file, which is too large.

        Not in the middle of a secret. The job prints on meanwhile: what it prints between the last
        look and the cut is counted, or not even that.
        """
        assert self._folder is not None
        path = scratch_path(self._folder, pid)
        with suppress(OSError), shared.held(BRIEFLY_S) as is_held:
            if not is_held or shared.is_output_closed:
                return
            if claim is not None and shared.begun != claim.number:
                return
            at = _find_cut(path, secrets.mask) if secrets.mask else HALF_BYTES
            with _opened(path, os.O_RDWR) as descriptor:
                if claim is not None and claim.run_id:
                    # Twice: the second time is short, so that hardly any last words are lost.
                    _take_so_far(descriptor, shared, claim, secrets)
                    _take_so_far(descriptor, shared, claim, secrets)
                    if (taken := shared.taken_bytes) >= at:
                        lost = Printed()
                        lost.skip(os.fstat(descriptor).st_size - taken)
                        claim.print_more(lost)
                os.ftruncate(descriptor, at)
            shared.open_output(min(at, shared.taken_bytes))

    def drop(self, pid: int) -> None:
        """Remove the scratch file of a child that has ended."""
        if self._folder is not None:
            with suppress(OSError):  # on Windows, while a process of the job has it open
                scratch_path(self._folder, pid).unlink()


def _take_so_far(descriptor: int, shared: SharedState, claim: Claim, secrets: Secrets) -> None:
    begin, size, mask = shared.taken_bytes, os.fstat(descriptor).st_size, secrets.mask
    if size <= begin:
        return
    part = Printed()
    at = max(begin, size - TAIL_BYTES) if size - begin > STEP_BYTES else begin
    around = mask.longest if at > begin else 0
    text = read_at(descriptor, at - around, size - at + around)
    if at > begin:
        part.add(read_masked(descriptor, begin, begin + HEAD_BYTES, mask))
    # After reading: the child announces a secret before it can print it.
    if shared.secrets_told != secrets.count:
        return
    used = mask.hide_begun(text)[1]
    taken = at - around + used  # may be before `at`, at the beginning of a secret
    if at > begin:
        part.skip(min(at, taken) - begin - HEAD_BYTES)
    part.add(mask.hide_bytes(text, around, max(around, used)))
    shared.open_output(taken)
    claim.print_more(part)


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
