"""In the child: `RQ_JOB_ID`, the environment variable that is another one for each job.

To the C library each new value of a variable is a new string, and glibc keeps them all: a hundred
bytes for each job, and more time the more there are. So there it gets one string, and that is
written over.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

NAME = "RQ_JOB_ID"
MAX_BYTES = 255

_NAME = NAME.encode()
_START = _NAME + b"="


def make_teller() -> Callable[[str], None]:
    """Return what tells a job its id, and the processes that it starts."""
    return _InPlace().tell if sys.platform == "linux" else _tell_plainly


def _tell_plainly(job_id: str) -> None:
    os.environ[NAME] = job_id


class _InPlace:
    """One string in the environment of the C library, and where it stands there."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)
        self._put = library.putenv
        self._table = ctypes.c_void_p.in_dll(library, "environ")
        self._text = ctypes.create_string_buffer(len(_START) + MAX_BYTES + 1)
        # It is read after the end of Python too.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._text))
        self._address = ctypes.addressof(self._text)
        self._first: int | None = None
        self._place = ctypes.c_void_p()

    def tell(self, job_id: str) -> None:
        """Set the variable, for Python and for C."""
        environment: Any = os.environ
        value = job_id.encode()
        data = getattr(environment, "_data", None)  # a job may have put something else there
        if data is None or len(value) > MAX_BYTES:
            _tell_plainly(job_id)
            return
        data[_NAME] = value
        self._text.value = _START + value
        # A job may have taken it away, or have made another table.
        if self._table.value != self._first or self._place.value != self._address:
            self._insert()

    def _insert(self) -> None:
        if self._put(self._text):
            raise MemoryError
        self._first = place = self._table.value or 0
        self._place = ctypes.c_void_p.from_address(place)
        while self._place.value != self._address:
            place += ctypes.sizeof(ctypes.c_void_p)
            self._place = ctypes.c_void_p.from_address(place)
