"""Check everything that a job names before a worker with `--allow` runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowq.allowed import check_commands
from flowq.callables import find_callable
from flowq.errors import NotAllowed
from flowq.runtime.job import PERFORM, Job


def check_job(job: Job) -> None:
    """Check the `meta`, data, callbacks and function of a job in a restricted process.

    Admitted modules are imported. An import that fails is ignored here: the job meets it again.

    Raises:
        NotAllowed: for the first name that is not admitted.
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
