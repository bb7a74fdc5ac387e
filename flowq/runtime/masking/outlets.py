"""Masks the output of a job inside its own process, for workers that do not read it.

RQ's own workers and their jobs share their output. Here the job writes into a pipe, and a thread
reads the pipe, masks the text, and passes it on. If the process is killed, the text in the pipe is
lost.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from flowq.files import write_all
from flowq.runtime.masking import Mask, has_reader
from flowq.runtime.masking.reporters import hide_from_reporters

CHUNK_BYTES = 65_536
PIPE_BYTES = 1 << 20
GRACE_S = 1.0
"""How long to wait for the end of the output. Background processes of the job may keep it open;
their output is still masked."""


@contextmanager
def masked_output(mask: Mask) -> Iterator[None]:
    """Mask what user code and its processes print in a `with` block, and what it reports."""
    if mask:
        hide_from_reporters(mask.values)
    if not mask or has_reader():
        yield
        return
    with ExitStack() as stack:
        for descriptors in _find_outlets():
            stack.enter_context(_masked(descriptors, mask))
        yield


def _find_outlets() -> Iterable[list[int]]:
    """Return descriptors 1 and 2 and those of Python's streams, grouped by the file they write to.

    Descriptors of one file share a pipe, which preserves the order of their output.
    """
    found = [1, 2]
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a program may have replaced it by any object
            found.append(stream.fileno())
    outlets: dict[tuple[int, int], list[int]] = {}
    for descriptor in dict.fromkeys(found):
        with suppress(OSError):  # it is closed
            status = os.fstat(descriptor)
            place = status.st_ino or descriptor, status.st_dev  # a console of Windows has no number
            outlets.setdefault(place, []).append(descriptor)
    return outlets.values()


@contextmanager
def _masked(descriptors: list[int], mask: Mask) -> Iterator[None]:
    originals = [os.dup(descriptor) for descriptor in descriptors]
    reader, writer = os.pipe()
    _widen(writer)
    _flush()
    for descriptor in descriptors:
        os.dup2(writer, descriptor)
    os.close(writer)
    given = reader, os.dup(originals[0]), mask
    thread = threading.Thread(target=_pass_on, args=given, name="flowq-masking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _flush()
        for descriptor, original in zip(descriptors, originals, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        thread.join(GRACE_S)


def _pass_on(reader: int, target: int, mask: Mask) -> None:
    waiting = b""
    try:
        while data := os.read(reader, CHUNK_BYTES):
            waiting += data
            shown, used = mask.hide_begun(waiting)
            waiting = waiting[used:]
            write_all(target, shown)
        write_all(target, mask.hide_bytes(waiting))
    except OSError:  # the reader of the output is gone
        with suppress(OSError):
            while os.read(reader, CHUNK_BYTES):
                pass
    finally:
        os.close(reader)
        os.close(target)


def _widen(pipe: int) -> None:
    """Enlarge the pipe, if possible: C code that prints may block our thread."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415 - POSIX only

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _flush() -> None:
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with suppress(Exception):  # as above
            stream.flush()
