"""Memory that a child and its supervisor share, readable at any time without a message.

A child that was killed, or is executing C code, cannot answer. The shared state still shows which
job it executes and since when, and stores the ends of short jobs until they are sent together. The
lock makes "begin the next job" and "take back jobs that have not begun" mutually exclusive.

User code must never take the lock: a timeout can interrupt a job between any two steps, a process
that a job has started can be killed at any moment, and the lock would stay taken. So reports of
progress are written without it, and one that was not written to its end has a wrong checksum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from multiprocessing.sharedctypes import RawArray
from struct import Struct
from typing import Any
from zlib import crc32

from flowq.reports import MAX_BYTES

_BEGUN, _BEGUN_AT, _PID, _FIRST, _LIMIT, _EXTRA_S, _USED, _TAKEN, *_FLAGS, _SIZE = range(12)
_CONCLUDES, _READY, _SECRETS = _FLAGS
_CHECKSUM = Struct("=I")
_HEAD = Struct("=QH")
"""Of a report: the job's number, and the length of the text."""

LOCK_S = 0.2
KEPT_BYTES = 65_536


class SharedState:
    """The shared memory of one child. The supervisor makes it, and passes it to the new child.

    Instants are on the monotonic clock, which all processes of a machine share.
    """

    def __init__(self, context: Any) -> None:
        self._values = RawArray("d", _SIZE)
        self._kept = RawArray("c", KEPT_BYTES)
        self._report = RawArray("c", _CHECKSUM.size + _HEAD.size + MAX_BYTES)
        self._lock = context.Lock()

    # In the child --------------------------------------------------------------------------------

    def note_ready(self) -> None:
        """Note that the child has started and waits for its first message."""
        self._values[_READY] = True

    def begin(self, number: int, pid: int) -> bool:
        """Note that process `pid` begins a job now. False if the job was taken back."""
        values, lock = self._values, self._lock
        lock.acquire()  # `with lock` takes three times as long, and this runs for each job
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
        """Store an end that is not sent yet; False if there is no room."""
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
        # Slices of the array itself are slow. Only in the child, because this cannot be pickled.
        return memoryview(self._kept).cast("B")

    def clear(self) -> None:
        """Remove the stored ends: they have been sent."""
        with self._lock:
            self._values[_USED] = 0

    def ask_for(self, seconds: float) -> None:
        """Request so much time for the job's callbacks, beyond its timeout."""
        self._values[_EXTRA_S] = seconds

    def count_secrets(self, count: int) -> None:
        """Announce that so many further secrets are being sent to the supervisor."""
        self._values[_SECRETS] += count

    def report(self, number: int, text: str) -> None:
        """Store the progress of a job, in the place of what was reported before.

        User code calls this, also in several threads and processes at once.
        """
        data = text.encode("utf-8", "replace")[:MAX_BYTES]
        said = _HEAD.pack(number, len(data)) + data
        checked = _CHECKSUM.pack(crc32(said)) + said
        self._report[: len(checked)] = checked

    def begin_to_conclude(self) -> None:
        """Note that the child begins to conclude the execution that it was sent."""
        self._values[_CONCLUDES] = True

    # In both -------------------------------------------------------------------------------------

    @contextmanager
    def held(self, within_s: float | None = None) -> Iterator[bool]:
        """Hold the lock. Yields False if it could not be taken `within_s` seconds."""
        is_held = self._lock.acquire(timeout=within_s)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()

    @property
    def taken_bytes(self) -> int:
        """How much of the scratch file was taken already. Use it only while `held`."""
        value = int(self._values[_TAKEN])
        return value if value >= 0 else -1 - value

    @property
    def is_output_closed(self) -> bool:
        """Whether the child is sending the rest of the output. Use it only while `held`."""
        return bool(self._values[_TAKEN] < 0)

    def open_output(self, taken_bytes: int) -> None:
        """Note how much of the scratch file was taken. Use it only while `held`."""
        self._values[_TAKEN] = taken_bytes

    def close_output(self) -> None:
        """Note that the child sends the rest of the output. Use it only while `held`."""
        self._values[_TAKEN] = -1 - self.taken_bytes

    # In the supervisor ---------------------------------------------------------------------------

    def find_report(self, number: int) -> str:
        """Return the last report of a job's progress.

        Empty if the last one is not of this job, or is just being written, or was interrupted.
        """
        raw: bytes = self._report.raw
        (checksum,) = _CHECKSUM.unpack_from(raw)
        reported_by, length = _HEAD.unpack_from(raw, _CHECKSUM.size)
        if reported_by != number or length > MAX_BYTES:
            return ""
        said = raw[_CHECKSUM.size :][: _HEAD.size + length]
        return said[_HEAD.size :].decode("utf-8", "replace") if crc32(said) == checksum else ""

    @property
    def is_ready(self) -> bool:
        """Whether the child has started and waits, or waited, for its first message."""
        return bool(self._values[_READY])

    @property
    def has_begun_to_conclude(self) -> bool:
        """Whether the child has begun to conclude the execution that it was sent last."""
        return bool(self._values[_CONCLUDES])

    def forget_conclusion(self) -> None:
        """Reset `has_begun_to_conclude`, before the child is sent an execution to conclude."""
        self._values[_CONCLUDES] = False

    @property
    def secrets_told(self) -> int:
        """How many secrets the child has announced; some of them may not have arrived yet."""
        return int(self._values[_SECRETS])

    @property
    def begun(self) -> int:
        """The number of the job that began last; 0 before the first one."""
        return int(self._values[_BEGUN])

    @property
    def begun_at(self) -> float:
        """When that job began."""
        return float(self._values[_BEGUN_AT])

    @property
    def extra_s(self) -> float:
        """The time that the child has requested beyond the job's timeout."""
        return float(self._values[_EXTRA_S])

    @property
    def pid(self) -> int:
        """The process that executes that job."""
        return int(self._values[_PID])

    def allow(self, first: int, limit: int) -> None:
        """Let the child begin the jobs numbered from `first` up to below `limit`."""
        self._values[_FIRST] = first
        self._values[_LIMIT] = limit

    def read_kept(self) -> bytes:
        """Return the stored ends; also those of a killed child."""
        with self.held(LOCK_S):
            return bytes(self._kept[: int(self._values[_USED])])

    def take_back(self) -> int | None:
        """Let the child begin nothing more; return the number that began last.

        Returns None if the lock is stuck.
        """
        if not self._lock.acquire(timeout=LOCK_S):
            return None
        try:
            self._values[_LIMIT] = self._values[_BEGUN] + 1
            return self.begun
        finally:
            self._lock.release()

    def free(self) -> None:
        """Release the lock that a process may have held when it died."""
        self._lock.acquire(timeout=LOCK_S)
        self._lock.release()
