"""Jobs that behave badly, each in a way of its own, behind one function that is usually short."""

from __future__ import annotations

import ctypes
import faulthandler
import locale
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rq import get_current_job


class DiesWhenPickled:
    """Takes the process with it."""

    def __reduce__(self) -> Any:
        os._exit(4)


class CannotBePickled:
    """Raises what is no Exception."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class CannotBeTold(Exception):
    """An error whose text is another one."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class BadStream:
    """Takes the place of a stream."""

    def flush(self) -> None:
        """Do more than asked for."""
        sys.exit(3)


def leave_grandchild() -> None:
    """Fork, with everything inherited."""
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)


def leave_daemon() -> None:
    """Fork twice, and leave the session."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1)
            os.write(1, b"the daemon")
        os._exit(0)


def spin() -> None:
    """Keep the interpreter busy."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass


def lose_folder() -> None:
    """Be in a folder that is gone."""
    folder = Path(f"{os.environ['TMPDIR']}/{os.getpid()}")
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def ignore_all_signals() -> None:
    """And let none through."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number < signal.SIGRTMIN:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def leave_alarm() -> None:
    """Set an alarm that kills the process when this job has ended, also on a busy machine."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.5)


def exhaust_memory() -> None:
    """Have a limit, and meet it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size_bytes = pages * resource.getpagesize() + 50_000_000
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, resource.RLIM_INFINITY))
    kept = []
    while True:
        kept.append(bytearray(1_000_000))


def send_to_null() -> None:
    """Put something else in the place of the streams."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)


def close_streams() -> None:
    """Close the objects and the descriptors."""
    sys.stdout.close()
    sys.stderr.close()
    os.closerange(0, 3)


def crash(how: Callable[[], Any]) -> None:
    """Die in C."""
    faulthandler.disable()
    how()


def raise_(error: BaseException) -> None:
    """Raise."""
    raise error


def kill_group() -> None:
    """End all that belongs to us."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "segfault": (lambda: crash(lambda: ctypes.string_at(0)), "SIGSEGV"),
    "abort": (lambda: crash(os.abort), "SIGABRT"),
    "exit hard": (lambda: os._exit(0), "exit code 0"),
    "exec": (lambda: os.execv("/bin/true", ["true"]), "exit code 0"),
    "kill group": (kill_group, "SIGKILL"),
    "die in pickle": (DiesWhenPickled, "exit code 4"),
    "exit": (lambda: sys.exit(7), "SystemExit: 7"),
    "interrupt": (lambda: raise_(KeyboardInterrupt()), "KeyboardInterrupt"),
    "base exception": (lambda: raise_(BaseException("base")), "BaseException: base"),
    "untellable": (lambda: raise_(CannotBeTold()), "CannotBeTold"),
    "memory": (exhaust_memory, "MemoryError"),
    "lambda": (lambda: lambda: None, ""),
    "unpicklable": (CannotBePickled, ""),
    "print": (lambda: [os.write(1, b"x" * 1_000_000) for _ in range(100)] and None, ""),
    "grandchild": (leave_grandchild, ""),
    "daemon": (leave_daemon, ""),
    "thread": (lambda: threading.Thread(target=time.sleep, args=(60,)).start(), ""),
    "spinning thread": (lambda: threading.Thread(target=spin, daemon=True).start(), ""),
    "folder": (lose_folder, ""),
    "umask": (lambda: os.umask(0o777) and None, ""),
    "environment": (os.environ.clear, ""),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C"), ""),
    "signals": (ignore_all_signals, ""),
    "alarm": (leave_alarm, ""),
    "pause": (lambda: time.sleep(0.7), ""),  # so that it is there when the alarm would ring
    "close streams": (close_streams, ""),
    "null": (send_to_null, ""),
    "no stream": (lambda: setattr(sys, "stdout", None), ""),
    "bad stream": (lambda: setattr(sys, "stdout", BadStream()), ""),
}
"""What each of them does, and which words its error has; none where it succeeds."""

NUMBERS_ONLY = {
    "close all": lambda: os.closerange(0, 256),
    "close files": lambda: os.closerange(3, 256),
}
"""Those that may succeed or fail: what they close is what they would say so with."""


def maybe(name: str = "") -> Any:
    """Count the run of this job; then be bad in this way, if any."""
    job = get_current_job()
    job.connection.incr(f"run:{job.id}")
    if not name:
        return None
    os.write(1, f"{name} was here".encode())
    return BAD[name][0]() if name in BAD else NUMBERS_ONLY[name]()
