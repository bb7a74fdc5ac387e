"""In the child: the environment variables that differ from job to job.

glibc never frees a value of a variable. That costs 90 bytes a job, or 2 GB an hour in a child that
executes empty jobs without a pause, and after 500,000 jobs `os.environ[…] = …` takes 4 to 5 µs
instead of 1 (benchmarks/shortcuts.py). So on Linux each variable has one string that is
overwritten, which is the only purpose of `_InPlace`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flowq.runtime.variables import NAMES
from flowq.texts import show

JOB_ID = "RQ_JOB_ID"
MAX_BYTES = 255

_IS_LINUX = sys.platform == "linux"
_NOTHING: Mapping[bytes, bytes] = {}


class JobVariables:
    """The environment variables that identify a job and its run to the job."""

    def __init__(self) -> None:
        self._set_job_id = _make_setter(JOB_ID)
        self._setters = {name: (name.encode(), _make_setter(name)) for name in NAMES}
        self._current: Mapping[str, str] = {}
        for name in NAMES:  # they are set if a job has started this worker
            os.environ.pop(name, None)

    def set(self, job_id: str, variables: Mapping[str, str]) -> None:
        """Set the variables of a job, and remove those of the job before."""
        self._set_job_id(job_id)
        if not (variables or self._current):
            return
        known = getattr(os.environ, "_data", _NOTHING) if _IS_LINUX else _NOTHING
        for name, (raw, set_to) in self._setters.items():
            value = _as_value(variables.get(name))
            # Most stay the same: the run, the attempt, and that there is no item.
            if value is None:
                if raw in known or known is _NOTHING:
                    os.environ.pop(name, None)
            elif known.get(raw) != os.fsencode(value):
                set_to(value)
        self._current = variables


def _as_value(text: str | None) -> str | None:
    """Return the text as the value of a variable: without lone surrogates and NUL."""
    if text is None:
        return None
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = show(text)
    return text.replace("\0", r"\x00")


def _make_setter(name: str) -> Callable[[str], None]:
    return _InPlace(name).set if _IS_LINUX else partial(_set_plainly, name)


def _set_plainly(name: str, value: str) -> None:
    os.environ[name] = value


class _InPlace:
    """A variable with one string in the environment of the C library, which is overwritten."""

    def __init__(self, name: str) -> None:
        library = ctypes.PyDLL(None)
        self._name, self._raw_name = name, name.encode()
        self._start = self._raw_name + b"="
        self._put = library.putenv
        self._table = ctypes.c_void_p.in_dll(library, "environ")
        self._text = ctypes.create_string_buffer(len(self._start) + MAX_BYTES + 1)
        # The C library may read it after the end of Python, so it is never freed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._text))
        self._address = ctypes.addressof(self._text)
        self._first: int | None = None
        self._place = ctypes.c_void_p()

    def set(self, text: str) -> None:
        """Set the variable, for Python and for C."""
        environment: Any = os.environ
        value = os.fsencode(text)
        data = getattr(environment, "_data", None)  # a job may have replaced os.environ
        if data is None or len(value) > MAX_BYTES:
            _set_plainly(self._name, text)
            return
        data[self._raw_name] = value
        self._text.value = self._start + value
        # A job may have removed the variable, or the table may have moved.
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
