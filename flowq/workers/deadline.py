"""The exception in the job when its time is up, where there are signals and where there are none.

RQ's `TimerDeathPenalty` starts a thread for each job and writes its text into the exception class
for good; here one thread per child serves all jobs.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException


class _Watch:
    """The thread that raises in another one when a deadline has passed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._penalty: ThreadDeathPenalty | None = None
        self._wakes_at = float("inf")
        threading.Thread(target=self._run, name="flowq-deadline", daemon=True).start()

    def set(self, penalty: ThreadDeathPenalty | None, deadline: float | None) -> None:
        with self._condition:
            self._penalty, self._deadline = penalty, deadline
            # Usually the thread sleeps until an earlier deadline of the same length: let it.
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
    """RQ's timeout without signals. Units: seconds, fractions allowed."""

    def __init__(
        self,
        timeout: float,
        exception: type[BaseException] = BaseTimeoutException,
        **options: Any,
    ) -> None:
        super().__init__(timeout, exception, **options)  # type: ignore[no-untyped-call]
        self._thread_id = threading.get_ident()
        text = f"Task exceeded maximum timeout value ({timeout} seconds)"

        def __init__(error: BaseException) -> None:  # noqa: N807 - only classes can be raised there
            BaseException.__init__(error, text)

        self._raised = type(exception.__name__, (exception,), {"__init__": __init__})
        self._raised.__module__ = exception.__module__

    def setup_death_penalty(self) -> None:
        """Set the deadline."""
        _get_watch().set(self, time.monotonic() + self._timeout)

    def cancel_death_penalty(self) -> None:
        """Forget it."""
        _get_watch().set(None, None)

    def strike(self) -> None:
        """Raise in the thread of the job, at its next step in Python."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread_id), ctypes.py_object(self._raised)
        )


class AlarmDeathPenalty(BaseDeathPenalty):
    """RQ's timeout by SIGALRM. Between `begin_batch` and `end_batch` an alarm that is set already
    is left alone when it comes before the deadline; it is set anew when it goes off too early.
    """

    _current: AlarmDeathPenalty | None = None
    _is_in_batch = False
    _rings_at = 0.0

    @classmethod
    def begin_batch(cls) -> None:
        """Short jobs follow: do not set an alarm for each of them."""
        cls._is_in_batch = True

    @classmethod
    def end_batch(cls) -> None:
        """Back to one alarm for each job."""
        cls._is_in_batch = False
        cls._set(0.0)

    def setup_death_penalty(self) -> None:
        """Set the deadline. Units: seconds."""
        cls = AlarmDeathPenalty
        cls._current = self
        now = time.monotonic()
        self.deadline = now + self._timeout
        if not cls._is_in_batch or not now < cls._rings_at <= self.deadline + 1:
            if signal.getsignal(signal.SIGALRM) is not _on_alarm:
                signal.signal(signal.SIGALRM, _on_alarm)
            cls._set(self._timeout)

    def cancel_death_penalty(self) -> None:
        """Forget it."""
        AlarmDeathPenalty._current = None
        if not AlarmDeathPenalty._is_in_batch:
            AlarmDeathPenalty._set(0.0)

    @classmethod
    def ring(cls) -> None:
        """Raise when the time is up."""
        cls._rings_at = 0.0
        if cls._current is None:
            return
        left_s = cls._current.deadline - time.monotonic()
        if left_s > 0.01:
            cls._set(left_s)
        else:
            text = f"Task exceeded maximum timeout value ({cls._current._timeout} seconds)"
            raise cls._current._exception(text)

    @classmethod
    def _set(cls, seconds: float) -> None:
        cls._rings_at = time.monotonic() + seconds if seconds else 0.0
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _on_alarm(_number: int, _frame: Any) -> None:
    AlarmDeathPenalty.ring()


DEATH_PENALTY_CLASS: type[BaseDeathPenalty] = (
    AlarmDeathPenalty if hasattr(signal, "SIGALRM") else ThreadDeathPenalty
)
"""RQ's way where there is SIGALRM, else a thread."""


def prepare() -> None:
    """Start what the timeouts of this process need, so that no job seems to have started it."""
    if DEATH_PENALTY_CLASS is ThreadDeathPenalty:
        _get_watch()


@contextmanager
def batch() -> Iterator[None]:
    """Let several short jobs share what their timeouts cost."""
    if DEATH_PENALTY_CLASS is not AlarmDeathPenalty:
        yield
        return
    AlarmDeathPenalty.begin_batch()
    try:
        yield
    finally:
        AlarmDeathPenalty.end_batch()
