"""Memory that a child and its supervisor share, readable at any time without a message.

A child that was killed, or is executing C code, cannot answer. The shared state still says which
job it executes and since when, and stores the ends of short jobs until they are sent together. The
lock makes "begin the next job" and "take back jobs that have not begun" mutually exclusive.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from multiprocessing.sharedctypes import RawArray
from typing import Any

_BEGUN, _BEGUN_AT, _PID, _FIRST, _LIMIT, _EXTRA_S, _USED, _LOGGED, *_FLAGS, _SIZE = range(12)
_CONCLUDES, _READY, _SECRETS = _FLAGS
LOCK_S = 0.2
KEPT_BYTES = 65_536


class SharedState:
    """Shared memory of one child. Make it in the supervisor, hand it over when the child starts.

    Units: instants on the monotonic clock, which all processes of a machine share.
    """

    def __init__(self, context: Any) -> None:
        self._values = RawArray("d", _SIZE)
        self._kept = RawArray("c", KEPT_BYTES)
        self._lock = context.Lock()

    # In the child --------------------------------------------------------------------------------

    def say_ready(self) -> None:
        """Say that this child has come as far as its first message."""
        self._values[_READY] = True

    def begin(self, number: int, pid: int) -> bool:
        """Say that this job is being executed now, by which process. False: it was taken back."""
        values, lock = self._values, self._lock
        lock.acquire()  # its own `with` takes three times as long, and this runs for each job
        try:
            if not values[_FIRST] <= number < values[_LIMIT]:
                return False
            values[_BEGUN_AT] = time.monotonic()
            values[_PID] = pid
            values[_EXTRA_S] = 0.0
            values[_BEGUN] = number
        finally:
            lock.release()
        return True

    def keep(self, data: bytes) -> bool:
        """Keep the report of a job that is not sent yet; False when there is no room."""
        values, lock = self._values, self._lock
        lock.acquire()
        try:
            begin = int(values[_USED])
            end = begin + len(data)
            if end > KEPT_BYTES:
                return False
            self._capacity[begin:end] = data
            values[_USED] = end
        finally:
            lock.release()
        return True

    @cached_property
    def _capacity(self) -> memoryview:
        # The array itself is written byte by byte. In the child only: this cannot be pickled.
        return memoryview(self._kept).cast("B")

    def clear(self) -> None:
        """Forget the kept reports: they have been sent."""
        with self._lock:
            self._values[_USED] = 0

    def ask_for(self, seconds: float) -> None:
        """Say that the job's callbacks need so much time beyond its timeout."""
        self._values[_EXTRA_S] = seconds

    def count_secrets(self, count: int) -> None:
        """Say that so many secrets more are being told to the supervisor."""
        self._values[_SECRETS] += count

    def begin_to_conclude(self) -> None:
        """Say that what this child was last told to conclude is being concluded."""
        self._values[_CONCLUDES] = True

    # In both -------------------------------------------------------------------------------------

    @contextmanager
    def held(self, within_s: float | None = None) -> Iterator[bool]:
        """Keep the other side out; gives False when it did not come to that `within_s`."""
        is_held = self._lock.acquire(timeout=within_s)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()

    @property
    def logged_bytes(self) -> int:
        """How much of what the child has written is in a log already. Only while it is `held`."""
        return int(self._values[_LOGGED])

    def note_logged(self, size: int) -> None:
        """So many bytes of what the child has written are in a log now. Only while `held`."""
        self._values[_LOGGED] = size

    # In the supervisor ---------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the child has come as far as its first message."""
        return bool(self._values[_READY])

    @property
    def has_begun_to_conclude(self) -> bool:
        """Whether the child has begun what it was last told to conclude."""
        return bool(self._values[_CONCLUDES])

    def forget_conclusion(self) -> None:
        """The child is about to be told to conclude something: it has not begun that yet."""
        self._values[_CONCLUDES] = False

    @property
    def secrets_told(self) -> int:
        """How many secrets it has told us, some of which we may not have heard yet."""
        return int(self._values[_SECRETS])

    @property
    def begun(self) -> int:
        """The number of the job that was begun last; 0 for none yet."""
        return int(self._values[_BEGUN])

    @property
    def begun_at(self) -> float:
        """When it was begun."""
        return float(self._values[_BEGUN_AT])

    @property
    def extra_s(self) -> float:
        """What it asked for beyond the job's timeout."""
        return float(self._values[_EXTRA_S])

    @property
    def pid(self) -> int:
        """The process that executes it."""
        return int(self._values[_PID])

    def allow(self, first: int, limit: int) -> None:
        """Let the child begin the jobs numbered from `first` up to below `limit`."""
        self._values[_FIRST] = first
        self._values[_LIMIT] = limit

    def read_kept(self) -> bytes:
        """Return the reports that are not sent yet; of a killed child too."""
        with self.held(LOCK_S):
            return bytes(self._kept[: int(self._values[_USED])])

    def take_back(self) -> int | None:
        """Let it begin nothing more; return the number begun last, None when the lock is stuck."""
        if not self._lock.acquire(timeout=LOCK_S):
            return None
        try:
            self._values[_LIMIT] = self._values[_BEGUN] + 1
            return self.begun
        finally:
            self._lock.release()

    def free(self) -> None:
        """Whoever executed a job here is dead, and may have died with the lock in its hand."""
        self._lock.acquire(timeout=LOCK_S)
        self._lock.release()
