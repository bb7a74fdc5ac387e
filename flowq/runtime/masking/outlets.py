"""Masked output where no flowq worker reads it: a pipe for a job's output, inside of its process.

For RQ's own workers, whose jobs print to where the worker does. A thread reads the pipe, masks, and
passes on. What is in the pipe when the process is killed is lost, and shown nowhere.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from flowq.runtime.masking import Mask, has_reader
from flowq.runtime.masking.reporters import hide_from_reporters

CHUNK_BYTES = 65_536
PIPE_BYTES = 1 << 20
GRACE_S = 1.0
"""How long to wait for the end of the output: what the job has left behind may hold it open. That
goes on being masked."""


@contextmanager
def masked_output(mask: Mask) -> Iterator[None]:
    """Mask what users' code prints inside, and reports; also by what it starts."""
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
    """Return 1 and 2, and where Python's streams write to if that is elsewhere; those together
    that lead to the same place, so that the order of what is written stays."""
    found = [1, 2]
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be anything that a program has put there
            found.append(stream.fileno())
    outlets: dict[tuple[int, int], list[int]] = {}
    for descriptor in dict.fromkeys(found):
        with suppress(OSError):  # closed: nobody can print there
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
            _write_all(target, shown)
        _write_all(target, mask.hide_bytes(waiting))
    except OSError:  # nobody reads it any more
        with suppress(OSError):
            while os.read(reader, CHUNK_BYTES):
                pass
    finally:
        os.close(reader)
        os.close(target)


def _widen(pipe: int) -> None:
    """Let a pipe hold more where it can: C code that prints may keep our thread waiting."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415 - POSIX only

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


def _flush() -> None:
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with suppress(Exception):  # as above
            stream.flush()
