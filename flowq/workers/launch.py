"""Start a worker as a separate process, and run the one that `python -m flowq.workers` starts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.utils import as_text

from flowq.errors import FlowqError, ServerUnavailable, UsageError
from flowq.runtime import keys
from flowq.runtime.connections import describe, retry_while_unavailable
from flowq.runtime.kept_outputs import read_kept_outputs
from flowq.server import private
from flowq.server.connection import make_client
from flowq.server.url import hide_argument, hide_password, resolve_url
from flowq.status import RUN_ENDED
from flowq.subprocesses import detached
from flowq.workers.processes import START_METHODS, Mode
from flowq.workers.resting import keep_connection, rest
from flowq.workers.supervisor import UNREACHABLE
from flowq.workers.worker import Worker, stop_signals

MAIN = os.path.join(os.path.dirname(__file__), "__main__.py")  # noqa: PTH118, PTH120
WORKER_LOG = "worker.log"
LOOK_S = 0.1
"""The interval at which a worker checks whether its run has ended."""

PARENT_LOOK_S = 1.0
"""The interval at which it checks whether its parent has ended."""


def main(
    *,
    url: str,
    queues: Sequence[str] = ("default",),
    burst: bool = False,
    paths: Sequence[str] = (),
    until_run: str | None = None,
    parent_pid: int | None = None,
    name: str | None = None,
    quiet: bool = False,
    logging_level: str | None = None,
    max_jobs: int | None = None,
    max_idle_time: int | None = None,
    dequeue_strategy: str | None = None,
    log_format: str = DEFAULT_LOGGING_FORMAT,
    date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
    client_name: str | None = None,
    on_limit: Callable[[Redis], None] | None = None,
    on_start: Callable[[], None] | None = None,
    **options: Any,
) -> bool:
    """Run a worker in this process; return whether any job was done.

    Args:
        paths: come first on the children's `sys.path`.
        until_run: the worker ends with this run.
        parent_pid: the worker ends when this process, its parent, has ended; on Windows, where a
            process does not learn that, a minute after its server.
        logging_level, max_jobs, max_idle_time, dequeue_strategy, log_format, date_format: as in
            `Worker.work`; `options` as in `Worker`.
        client_name: the name in the server's list of clients.
        on_start, on_limit: called before the first job, and after an end by one of the limits.
    """
    if options.get("job_class") or options.get("queue_class"):
        # The only modules of the user that a worker itself imports.
        sys.path[:0] = paths
    connection = make_client(url, client_name=client_name)
    make = partial(Worker, list(queues), name, connection=connection, paths=paths, **options)
    worker = retry_while_unavailable(make)  # RQ's constructor queries the server
    if on_start is not None:
        on_start()
    if parent_pid is not None and not until_run and hasattr(os, "fork"):
        _end_with(parent_pid)
    has_worked = worker.work(
        burst=burst,
        logging_level=logging_level or ("WARNING" if quiet else "INFO"),
        max_jobs=max_jobs,
        max_idle_time=max_idle_time,
        dequeue_strategy=dequeue_strategy,
        log_format=log_format,
        date_format=date_format,
        until=_find_end(until_run, parent_pid, connection),
    )
    if on_limit is not None and worker.has_reached_limit:
        on_limit(connection)
    return has_worked


def _find_end(
    run_id: str | None, parent_pid: int | None, connection: Redis
) -> Callable[[], bool] | None:
    """Return the condition on which the worker ends by itself, if there is one."""
    if run_id:
        return partial(has_run_ended, run_id, connection)
    return None if parent_pid is None else _never


def has_run_ended(run_id: str, connection: Redis) -> bool:
    """Whether a run is gone, or has ended and its outputs are stored.

    False while the server cannot be reached.
    """
    try:
        state: Any = connection.hget(keys.run(run_id), "state")
        if state is not None and as_text(state) not in RUN_ENDED:
            return False
        return not read_kept_outputs(run_id, connection).is_pending
    except UNREACHABLE:
        return False


def _never() -> bool:
    """End by itself only when the server is gone for long (`Limits.until`)."""
    return False


def _end_with(parent_pid: int) -> None:
    """End this worker, even while it executes jobs, when it gets another parent.

    By a timer, because workers fork, which a thread would make unsafe.
    """

    def look(*_: object) -> None:
        if os.getppid() != parent_pid:  # the second time, it leaves the jobs that it is executing
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, PARENT_LOOK_S, PARENT_LOOK_S)


def start(
    *,
    url: str,
    queues: Sequence[str] = ("default",),
    concurrency: int = 1,
    paths: Sequence[str] = (),
    log_folder: str | None = None,
    until_run: str | None = None,
    mode: Mode | None = None,
    burst: bool = False,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a worker in a process and session of its own, which outlives this process.

    The worker's own messages go to `<log_folder>/worker.log`; without a folder they are discarded.
    """
    values: dict[str, Any] = {
        "url": url,
        "queues": list(queues),
        "concurrency": concurrency,
        "paths": list(paths),
        "echoes": False,
        "until_run": until_run,
        "mode": mode,
        "burst": burst,
        **options,
    }
    command = make_command(until_run)
    output: Any = subprocess.DEVNULL
    if log_folder:
        if not os.path.isdir(log_folder):  # noqa: PTH112
            private.make_folder(log_folder)
        path = os.path.join(log_folder, WORKER_LOG)  # noqa: PTH118
        descriptor = private.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        output = open(descriptor, "ab")  # noqa: PTH123, SIM115
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, **detached()
        )
    finally:
        if output is not subprocess.DEVNULL:
            output.close()
    assert process.stdin is not None
    # If the pipe is broken, the process has ended already, and its exit code says so.
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(values).encode())  # not as arguments, which `ps` shows
    return process


def describe_ending(code: int) -> str:
    """Say how a process has ended, as Popen gives it: `exit code 2`, or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def make_command(until_run: str | None) -> list[str]:
    """Return the command that starts a worker, which reads its options from its standard input.

    The list of processes shows the run. `-P` keeps the current folder out of `sys.path`: its
    modules belong to the user, and a supervisor imports none of them.
    """
    run = ["--until-run", until_run] if until_run else []
    return [sys.executable, "-P", MAIN, *run, "--values", "-"]


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run a worker with the arguments of `python -m flowq.workers`; return the exit code."""
    values = vars(_parser().parse_args(arguments))
    if values.pop("values"):
        values = json.load(sys.stdin)
        if values.get("can_rest"):
            keep_connection(values, make_client(values["url"]))
            values["on_limit"] = partial(rest, dict(values), make_command(values.get("until_run")))
    else:
        values = {name: value for name, value in values.items() if value is not None}
    if not values.get("url"):
        sys.stderr.write("give --url, or set FLOWQ_REDIS_URL\n")
        return UsageError.exit_code
    hide_argument(values["url"], hide_password(values["url"]))
    logging.captureWarnings(True)
    try:
        main(**values)
    except FlowqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except (ValueError, ImportError) as error:  # a name in use, or a missing class
        sys.stderr.write(f"{error}\n")
        return UsageError.exit_code
    except RedisError as error:  # not with the URL, which may hold a password
        sys.stderr.write(f"the server cannot be used: {describe(error)}\n")
        return ServerUnavailable.exit_code
    for number in stop_signals():  # a late signal to end must not change the exit code
        signal.signal(number, signal.SIG_IGN)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m flowq.workers", description=__doc__)
    add = parser.add_argument
    add("queues", nargs="*", default=["default"], help="in order of priority")
    add("--url", default=resolve_url(None))
    add("-c", "--concurrency", type=int, help="how many jobs at a time")
    add("--mode", choices=list(START_METHODS), help="how children are started")
    add("--burst", action="store_true", default=None, help="end when the queues are empty")
    add("--path", dest="paths", action="append", help="a folder for the jobs' sys.path")
    add("--preload", action="append", help="a module to import before the first job")
    add("--allow", action="append", help="shop.*: only what is defined there; else everything")
    add("--allow-run", action="store_true", default=None, help="run: jobs too")
    add("--no-echo", dest="echoes", action="store_false", default=None, help="print no output")
    add("--until-run", help="end when this run has ended")
    add("--name", help="the worker's name")
    add("--grace", dest="timeout_grace_s", type=float, help="seconds from a timeout to the kill")
    add("--max-jobs", type=int, help="end after so many jobs")
    add("--max-idle-time", type=int, help="end after so many seconds without a job")
    add("--max-jobs-per-child", type=int, help="replace a kept child after so many jobs")
    add("--no-batches", dest="batches", action="store_false", default=None, help="one by one")
    add("--results-ttl", dest="default_result_ttl", type=int, help="seconds; -1 for ever")
    add("--job-class", help="a subclass of flowq.Job: package.module.Name")
    add("--dequeue-strategy", choices=["default", "round_robin", "random"], help="as RQ's")
    add("--logging-level", help="how much the worker logs about itself")
    add("--log-format", help="a pattern of Python's logging, or json")
    add("--date-format", help="a pattern of time.strftime")
    add("--quiet", action="store_true", default=None, help="say less")
    add("--values", help=argparse.SUPPRESS)
    return parser
