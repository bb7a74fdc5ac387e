"""Workers that are forked from a process that has imported what a worker imports.

An interpreter that imports flowq and RQ takes half a second of CPU time; a fork of one that has
done so takes a hundredth of that. The workers read their values from their input, as those of
`flowq.workers.start` do, and are as separate: a session, an environment and a folder of their own.
Tests of how a worker starts, and of what it imports, call `flowq.workers.start` instead.

This file is also the program of that process, and a module that spawned children import: so it
imports nothing of flowq before it is told to.
"""

from __future__ import annotations

import io
import json
import multiprocessing.connection
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Template:
    """The process from which workers are forked, seen from the tests. It ends with the tests."""

    def __init__(self) -> None:
        self._line, theirs = multiprocessing.connection.Pipe()
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._codes: dict[int, int] = {}

    def start(self, values: Mapping[str, Any]) -> ForkedWorker:
        """Fork a worker, with the environment and the folder of this process."""
        self._line.send((dict(values), dict(os.environ), str(Path.cwd())))
        while (said := self._line.recv())[0] == "ended":
            self._codes[said[1]] = said[2]
        return ForkedWorker(said[1], self)

    def find_code(self, pid: int, within_s: float) -> int | None:
        """Return how that worker has ended; None while it lives."""
        deadline = time.monotonic() + within_s
        while pid not in self._codes and self._line.poll(max(0.0, deadline - time.monotonic())):
            _, ended, code = self._line.recv()
            self._codes[ended] = code
        return self._codes.get(pid)

    def end(self) -> None:
        """Let it end."""
        self._line.close()
        self._process.wait()


class ForkedWorker:
    """A worker's process, as `subprocess.Popen` shows it."""

    def __init__(self, pid: int, template: Template) -> None:
        self.pid = pid
        self._template = template

    def poll(self) -> int | None:
        """Return its exit code, or a signal as a negative number; None while it lives."""
        return self._template.find_code(self.pid, 0.0)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end."""
        code = self._template.find_code(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


# The other side ----------------------------------------------------------------------------------


def serve(line: Connection) -> int:
    """Fork a worker for each message, and say how each has ended. Returns in the workers too."""
    import flowq.workers.launch  # what a worker imports before its first job
    from tests.rare_repairs import make_repairs_rare

    make_repairs_rare()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready = multiprocessing.connection.wait([line, woken])
        if woken in ready:
            os.read(woken, 1_000)
            report_ends(line)
        if line not in ready:
            continue
        try:
            values, environment, folder = line.recv()
        except EOFError:
            return 0
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (line.fileno(), woken, wake):
                os.close(end)
            return be_worker(flowq.workers.launch.run_command, values, environment, folder)
        line.send(("started", pid))


def report_ends(line: Connection) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        line.send(("ended", pid, os.waitstatus_to_exitcode(status)))


def be_worker(
    run_command: Any, values: dict[str, Any], environment: dict[str, str], folder: str
) -> int:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    random.seed()
    output = os.devnull
    folder_of_log = values.pop("log_folder", None)
    if folder_of_log:
        Path(folder_of_log).mkdir(parents=True, exist_ok=True)
        output = str(Path(folder_of_log) / "worker.log")
    opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    os.close(opened)
    sys.stdin = io.StringIO(json.dumps(values))
    return run_command(["--values", "-"])  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    sys.exit(serve(Connection(int(sys.argv[1]))))
