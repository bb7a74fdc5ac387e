"""Checking all that a job leads to, before any of it is run, in a worker with `--allow`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowq.allowed import check_commands
from flowq.callables import find_callable
from flowq.errors import NotAllowed
from flowq.runtime.job import PERFORM, Job


def check_job(job: Job) -> None:
    """Check a job's `meta`, its data, its callbacks and what it calls, in a restricted process.

    What is admitted is imported; where that fails the job meets it again. Errors: NotAllowed.
    """
    for look in _list_checks(job):
        try:
            look()
        except NotAllowed:
            raise
        except Exception:  # noqa: BLE001, S112 - of users' modules, or of data that cannot be read
            continue


def _list_checks(job: Job) -> Iterator[Callable[[], Any]]:
    if job.has_unreadable_meta:
        yield job.read_meta
    yield lambda: job.args
    yield lambda: job.success_callback
    yield lambda: job.failure_callback
    yield lambda: job.stopped_callback
    yield lambda: _check_call(job)


def _check_call(job: Job) -> None:
    _ = job.func
    if job.func_name != PERFORM:
        return
    work = job.args[0]
    if isinstance(work, Mapping):  # else `perform` says what is wrong
        if "shell" in work:
            check_commands()
        if "call" in work:
            find_callable(work["call"])
