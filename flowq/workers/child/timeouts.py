"""Raises the timeout exception in a job, with or without signals.

RQ's `TimerDeathPenalty` starts a thread for each job and permanently changes the message of the
exception class; here one thread per child serves all jobs.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from typing import Any

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException

SHORTEST_S = 0.001


class _Watch:
    """A thread that raises an exception in another thread after a deadline."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._penalty: ThreadDeathPenalty | None = None
        self._wakes_at = float("inf")
        threading.Thread(target=self._run, name="flowq-deadline", daemon=True).start()

    def set(self, penalty: ThreadDeathPenalty | None, deadline: float | None) -> None:
        with self._condition:
            self._penalty, self._deadline = penalty, deadline
            # Usually the thread already wakes for an earlier deadline, and need not be notified.
            if deadline is not None and deadline < self._wakes_at:
                self._condition.notify()

    def _run(self) -> None:
        with self._condition:
            while True:
                now = time.monotonic()
                if self._deadline is not None and self._deadline <= now and self._penalty:
                    self._penalty.strike()
                    self._penalty, self._deadline = None, None
                self._wakes_at = float("inf") if self._deadline is None else self._deadline
                wait_s = None if self._deadline is None else min(self._deadline - now, 3600.0)
                self._condition.wait(wait_s)


_watch: _Watch | None = None


def _get_watch() -> _Watch:
    global _watch  # noqa: PLW0603 - one thread for the whole process
    if _watch is None:
        _watch = _Watch()
    return _watch


class ThreadDeathPenalty(BaseDeathPenalty):
    """RQ's timeout without signals, in fractions of seconds; `used_s` have passed already."""

    def __init__(
        self,
        timeout: float,
        exception: type[BaseException] = BaseTimeoutException,
        used_s: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout, exception, **kwargs)  # type: ignore[no-untyped-call]
        self._thread_id = threading.get_ident()
        self._left_s = max(SHORTEST_S, timeout - used_s)
        text = f"Task exceeded maximum timeout value ({timeout} seconds)"

        # Another thread can only be made to raise a class, so the class has the message.
        def __init__(error: BaseException) -> None:  # noqa: N807
            BaseException.__init__(error, text)

        self._raised = type(exception.__name__, (exception,), {"__init__": __init__})
        self._raised.__module__ = exception.__module__

    def setup_death_penalty(self) -> None:
        """Set the deadline."""
        _get_watch().set(self, time.monotonic() + self._left_s)

    def cancel_death_penalty(self) -> None:
        """Remove the deadline."""
        _get_watch().set(None, None)

    def strike(self) -> None:
        """Raise the exception in the thread of the job, at its next Python instruction."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread_id), ctypes.py_object(self._raised)
        )


# `signal.getsignal` wraps this function and searches an enum for each handler, which takes 5.4 µs,
# or 3.4 % of a short job (benchmarks/shortcuts.py).
_get_handler: Any = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)
_ALARM = int(getattr(signal, "SIGALRM", 0))


class _Alarm:
    """The interval timer of this process.

    A running timer is left alone if it fires shortly before the deadline, and is set again if it
    fires too early or a job has replaced its handler. The state is in an object because each
    assignment to a class attribute clears Python's caches for the class.
    """

    def __init__(self) -> None:
        self.current: AlarmDeathPenalty | None = None

    def ring_within(self, seconds: float) -> None:
        """Make sure that the timer fires within this time, but not in its first half.

        Usually it is already set to fire then, which costs little to check. Each signal interrupts
        system calls of C code, so it must not fire much too early.
        """
        is_ours = _get_handler(_ALARM) is _on_alarm
        if not is_ours or not seconds / 2 <= signal.getitimer(signal.ITIMER_REAL)[0] <= seconds:
            self.set(seconds)

    def set(self, seconds: float) -> None:
        """Set the timer to so many seconds; 0 stops it."""
        if _get_handler(_ALARM) is not _on_alarm:
            signal.signal(signal.SIGALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def release(self) -> None:
        """End the deadline. A timer that the job has set itself must not fire in the next job."""
        self.current = None
        if _get_handler(_ALARM) is not _on_alarm:
            self.set(0.0)

    def ring(self) -> None:
        """Raise the exception if the deadline has passed."""
        penalty = self.current
        if penalty is None:
            self.set(0.0)  # a job may have left a repeating timer
            return
        left_s = penalty.deadline - time.monotonic()
        if left_s > 0.01:
            self.set(left_s)
        else:
            text = f"Task exceeded maximum timeout value ({penalty.timeout_s} seconds)"
            raise penalty.exception(text)


_alarm = _Alarm()


def _on_alarm(_number: int, _frame: Any) -> None:
    _alarm.ring()


class AlarmDeathPenalty(BaseDeathPenalty):
    """RQ's timeout by SIGALRM, in fractions of seconds; `used_s` have passed already."""

    deadline = 0.0

    def __init__(
        self,
        timeout: float,
        exception: type[BaseException] = BaseTimeoutException,
        used_s: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout, exception, **kwargs)  # type: ignore[no-untyped-call]
        self.timeout_s = timeout
        self._left_s = max(SHORTEST_S, timeout - used_s)
        self.exception = exception

    def __enter__(self) -> None:
        """Set the deadline."""
        _alarm.current = self
        self.deadline = time.monotonic() + self._left_s
        _alarm.ring_within(self._left_s)

    def __exit__(self, type: object, value: object, traceback: object) -> None:  # noqa: A002 - RQ's
        """Remove the deadline."""
        try:  # noqa: SIM105 - `suppress` takes longer than everything else here
            _alarm.release()
        except BaseTimeoutException:  # as in RQ: it came too late
            pass


DEATH_PENALTY_CLASS: type[BaseDeathPenalty] = (
    AlarmDeathPenalty if hasattr(signal, "SIGALRM") else ThreadDeathPenalty
)
"""By SIGALRM, as in RQ, if the platform has it; otherwise by a thread."""


def disarm() -> None:
    """Stop the timer, before a job without a timeout."""
    if DEATH_PENALTY_CLASS is AlarmDeathPenalty:
        _alarm.set(0.0)


def prepare() -> None:
    """Start the thread of this process's timeouts, so that no job seems to have started it."""
    if DEATH_PENALTY_CLASS is ThreadDeathPenalty:
        _get_watch()
