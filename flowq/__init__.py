"""A workflow language for deferred job graphs on RQ.

This module defines the public API. Importing it loads only the standard library, because every
child process imports it; the first use of a name imports its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowq._version import __version__

if TYPE_CHECKING:  # what `__getattr__` resolves, for the type checker
    from rq import Callback, Retry, get_current_job

    from flowq.api import Workflow, backfill, events, get_run, load, run, runs, submit
    from flowq.client import Run
    from flowq.errors import (
        CycleError,
        DoNotRetry,
        FlowqError,
        FutureAlreadyStarted,
        FutureEnded,
        JobIdTaken,
        JobNotFound,
        NewerFormat,
        NotAFutureJob,
        NotAllowed,
        NotFound,
        NotOpen,
        PollFailed,
        Problem,
        RetryLater,
        RunFailed,
        RunNotEnded,
        RunNotFound,
        SecretInResult,
        ServerUnavailable,
        ShellFailed,
        StateUnusable,
        TooManyItems,
        Unserializable,
        Unsupported,
        UsageError,
        Where,
        WorkflowInvalid,
        WorkflowNotFound,
        WrongState,
    )
    from flowq.event import Event, EventError
    from flowq.functions import connect, deferred, get_future, job, release_job
    from flowq.local_server import Local, local
    from flowq.reports import Progress
    from flowq.runtime.futures import current_future
    from flowq.runtime.holds import Edge
    from flowq.runtime.job import Job
    from flowq.runtime.progress import progress
    from flowq.runtime.queue import Queue
    from flowq.runtime.wip import WIPRegistry
    from flowq.status import JobStatus, RunRecord, RunStatus
    from flowq.workers import MultiprocessingWorker, Worker

__all__ = [
    "Callback",
    "CycleError",
    "DoNotRetry",
    "Edge",
    "Event",
    "EventError",
    "FlowqError",
    "FutureAlreadyStarted",
    "FutureEnded",
    "Job",
    "JobIdTaken",
    "JobNotFound",
    "JobStatus",
    "Local",
    "MultiprocessingWorker",
    "NewerFormat",
    "NotAFutureJob",
    "NotAllowed",
    "NotFound",
    "NotOpen",
    "PollFailed",
    "Problem",
    "Progress",
    "Queue",
    "Retry",
    "RetryLater",
    "Run",
    "RunFailed",
    "RunNotEnded",
    "RunNotFound",
    "RunRecord",
    "RunStatus",
    "SecretInResult",
    "ServerUnavailable",
    "ShellFailed",
    "StateUnusable",
    "TooManyItems",
    "Unserializable",
    "Unsupported",
    "UsageError",
    "WIPRegistry",
    "Where",
    "Worker",
    "Workflow",
    "WorkflowInvalid",
    "WorkflowNotFound",
    "WrongState",
    "__version__",
    "backfill",
    "connect",
    "current_future",
    "deferred",
    "events",
    "get_current_job",
    "get_future",
    "get_run",
    "job",
    "load",
    "local",
    "progress",
    "release_job",
    "run",
    "runs",
    "submit",
]

_MODULE_BY_NAME = {
    "Edge": "flowq.runtime.holds",
    "Event": "flowq.event",
    "EventError": "flowq.event",
    "Job": "flowq.runtime.job",
    "JobStatus": "flowq.status",
    "Local": "flowq.local_server",
    "MultiprocessingWorker": "flowq.workers",
    "Progress": "flowq.reports",
    "Queue": "flowq.runtime.queue",
    "Run": "flowq.client",
    "RunRecord": "flowq.status",
    "RunStatus": "flowq.status",
    "WIPRegistry": "flowq.runtime.wip",
    "Worker": "flowq.workers",
    "Workflow": "flowq.api",
    "backfill": "flowq.api",
    "connect": "flowq.functions",
    "current_future": "flowq.runtime.futures",
    "get_future": "flowq.functions",
    "get_run": "flowq.api",
    "deferred": "flowq.functions",
    "events": "flowq.api",
    "job": "flowq.functions",
    "load": "flowq.api",
    "local": "flowq.local_server",
    "progress": "flowq.runtime.progress",
    "release_job": "flowq.functions",
    "run": "flowq.api",
    "runs": "flowq.api",
    "submit": "flowq.api",
    # RQ's own, so that `import flowq as rq` serves where the module was written for RQ.
    "Callback": "rq",
    "Retry": "rq",
    "get_current_job": "rq",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What is in the door and not in the table is an error.
    value = getattr(import_module(_MODULE_BY_NAME.get(name, "flowq.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
