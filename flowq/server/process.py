"""The server's process, as its guardian manages it: start, adopt, query and stop."""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100
from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from flowq.server import private
from flowq.server.endpoint import DATA, LOG, CannotStart, Endpoint
from flowq.server.locks import Lock
from flowq.server.resp import CLIENT_NAME, Connection, Refused, Reply, await_loaded

if TYPE_CHECKING:
    import subprocess

LISTEN_S = 20.0
SHUT_DOWN_S = 10.0
TRIES = 3
LOG_BYTES = 1_000_000


class Process:
    """A server on the data in the current folder, with the lock that keeps other servers away.

    Args:
        program: the program and its first arguments; the endpoint adds others.
        endpoint: how to reach the server.
        is_persistent: whether it stores its data.
    """

    def __init__(self, program: list[str], endpoint: Endpoint, *, is_persistent: bool) -> None:
        self.program = program
        self.endpoint = endpoint
        self.is_persistent = is_persistent
        self.connection: Connection | None = None
        self.exit_code: int | None = None
        """The exit code, if it is known. That of an adopted server, which is no child, is not."""
        self._lock: Lock | None = None
        self._child: Child | subprocess.Popen[bytes] | None = None  # None also for an adopted one

    # --- beginning ---

    def take_lock(self) -> bool:
        """Lock the data; False if a server uses them. Idempotent."""
        if self._lock is None:
            self._lock = self.endpoint.try_data()
            if self._lock is not None:
                self._lock.share()
        return self._lock is not None

    def start(self) -> None:
        """Start the server and wait until it has loaded its data. The lock must be held.

        Errors: CannotStart, with the server's message; Untrusted, for a file that must not be used.
        """
        private.make_folder(DATA)
        private.check_tree(DATA)
        for tries_left in reversed(range(TRIES)):
            words = [*self.program, *self.endpoint.prepare(is_persistent=self.is_persistent)]
            log = open_log()
            begin_bytes = os.fstat(log).st_size
            try:
                self._child = spawn(words, log)
                if self._lock is not None:
                    self._lock.note_holder(self._child.pid)
                self._listen()
                return
            except (OSError, Refused) as error:
                self.kill()
                if not tries_left or not self.endpoint.was_taken():
                    raise CannotStart(explain(error, self.program[0], begin_bytes)) from error
            finally:
                os.close(log)

    def adopt(self) -> bool:
        """Connect to a server whose guardian has died; False if none answers."""
        connection = self.endpoint.adopt()
        if connection is None:
            return False
        try:
            self._greet(connection)
            await_loaded(connection)
        except (OSError, Refused):
            self.hang_up()
            return False
        return True

    def _greet(self, connection: Connection) -> None:
        """Set the connection's name, by which clients see that the server has a guardian."""
        self.connection = connection
        connection.ask("CLIENT", "SETNAME", CLIENT_NAME)

    def _listen(self) -> None:
        deadline = time.monotonic() + LISTEN_S
        while True:
            if self.has_ended():
                raise ConnectionResetError("it ended at once")
            try:
                await_loaded(self._connected())
                return
            except OSError:
                self.hang_up()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    # --- living ---

    def ask(self, *words: str) -> Reply:
        """Send a command and return the reply. Errors: OSError if the server is gone, or too slow;
        Refused."""
        return self._connected().ask(*words)

    def read_info(self, section: str, name: str) -> int:
        """Return a number from INFO. Errors: as `ask`."""
        return self._connected().read_info(section, name)

    def _connected(self) -> Connection:
        if self.connection is None:
            self._greet(self.endpoint.call())
        assert self.connection is not None
        return self.connection

    # --- ending ---

    def shut_down(self) -> None:
        """End the server: by a command, then by a signal, at last by a kill. Idempotent."""
        with suppress(OSError, Refused):
            self.ask("SHUTDOWN", "NOSAVE")
        self.hang_up()
        if self._child is not None:
            self._child.terminate()
        deadline = time.monotonic() + SHUT_DOWN_S
        while not self.has_ended():
            if time.monotonic() > deadline:
                self.kill()
                return
            time.sleep(0.005)

    def hang_up(self) -> None:
        """Close the connection. Idempotent."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def has_ended(self) -> bool:
        """Whether the process is gone. For an adopted server, the lock on the data tells."""
        if self._child is None:
            return self.take_lock()
        self.exit_code = self._child.poll()
        if self.exit_code is None:
            return False
        self._child = None
        return True

    def kill(self) -> None:
        """Kill the server, if it is our child. Idempotent."""
        self.hang_up()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


class Child:
    """A child process, with the methods of `subprocess.Popen` that are needed here.

    Importing subprocess takes as long as starting the server.
    """

    def __init__(self, words: list[str], log: int, environment: dict[str, str]) -> None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        self.pid = os.posix_spawn(words[0], words, environment, file_actions=actions)
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end, and return the exit code."""
        return self._wait(0)

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, options)
            self._exit_code = os.waitstatus_to_exitcode(status) if pid else None
        return self._exit_code


def spawn(words: list[str], log: int) -> Child | subprocess.Popen[bytes]:
    """Start a program whose output goes to the log. Errors: OSError."""
    # The server does not start with a locale that this machine does not have.
    environment = {**os.environ, "LC_ALL": "C"}
    if hasattr(os, "posix_spawn"):
        return Child(words, log, environment)
    import subprocess  # noqa: PLC0415 - see above

    return subprocess.Popen(  # noqa: S603 - a server program and our own words
        words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
    )


def open_log() -> int:
    """Open the log for appending. A long log is renamed first, or else truncated.

    Errors: Untrusted, OSError.
    """
    if os.path.lexists(LOG) and os.lstat(LOG).st_size > LOG_BYTES:
        with suppress(PermissionError):  # on Windows, because the guardian has it open
            os.replace(LOG, LOG + ".old")  # noqa: PTH105 - see above
    log = private.open_file(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def explain(error: Exception, program: str, begin_bytes: int) -> str:
    """Return why the server did not start, from the end of its log."""
    lines = private.read(LOG)[begin_bytes:].decode(errors="replace").splitlines()
    lines = [line for line in lines if " # WARNING" not in line]
    reasons = [line.partition(" # ")[2] for line in lines if " # " in line] or lines
    told = "; ".join(reason.strip() for reason in reasons[-3:]) or str(error)
    return f"{program} did not start: {told} (see {os.path.abspath(LOG)})"
