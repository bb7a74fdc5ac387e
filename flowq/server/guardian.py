"""The guardian: a small process that starts, watches and ends the embedded server of one folder.

The commands of `embedded.py` start it, and wait for its report. It holds two locks, which the
system releases however a process dies:

    guardian.lock   held by the guardian: there is one guardian for each folder
    the data        held by the guardian and by the server: while either is alive, no other process
                    starts a server on the same data (`Endpoint.try_data`)

If a guardian is killed, its `Standby` starts another one, which adopts the server. If the server is
killed, the guardian starts it again, from its append-only file. After `idle_s` without a client and
without unfinished runs, both end. A temporary server ends with its parent.

This module imports little, because the first command in a folder waits for it.
"""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH109
from __future__ import annotations

import _thread
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from flowq.server import private
from flowq.server.endpoint import (
    DOOR_LOCK,
    GUARDIAN_LOCK,
    CannotStart,
    Endpoint,
    TcpEndpoint,
    UnixEndpoint,
)
from flowq.server.locks import Lock
from flowq.server.process import Process
from flowq.server.resp import PROBE, Refused

ADOPT, TCP, FAKE = "adopt", "tcp", "fake"
"""Arguments of `main`: start no server; use TCP. FAKE selects the server in `fake.py`."""

TAKE_OVER_S = 15.0
RECONNECT_S = 0.05
UNFINISHED_IDLE_S = 86_400.0
MAX_RESTARTS, RESTARTS_WITHIN_S = 5, 60.0

SHELL = "/bin/sh"
SCRIPT = 'IFS= read -r next; read -r word || eval "exec $next"'


class Guardian:
    """A guardian of the state folder, which is the current folder.

    Args:
        program: the server program and its first arguments; the endpoint adds others.
        endpoint: how to reach the server.
        idle_s: end after so long without a client; None for never.
        parent_pid: None for a persistent server. A temporary one ends with this process, whose end
            also closes our standard input.
        run_keys: the keys of the sorted sets of all runs and of the ended ones.
        standby: starts another guardian if this one is killed.
    """

    def __init__(
        self,
        program: list[str],
        endpoint: Endpoint,
        idle_s: float | None,
        parent_pid: int | None,
        run_keys: tuple[str, str],
        standby: Standby | None = None,
    ) -> None:
        self.idle_s = idle_s
        self.parent_pid = parent_pid
        self.endpoint = endpoint
        self.server = Process(program, endpoint, is_persistent=parent_pid is None)
        self._run_keys = run_keys
        self._standby = standby
        self._tick_s = min(1.0, (idle_s or 1.0) / 4)
        self._lock: Lock | None = None
        self._connections_seen = -1
        self._used_at = time.monotonic()
        self._restarted_at: list[float] = []
        self._is_hidden = False
        self._is_ending = False

    def take_over(self, *, can_start: bool = True) -> bool:
        """Start a server, or adopt the running one.

        Returns False if it has a guardian already, or none runs and `can_start` is False.
        Errors: CannotStart, OSError.
        """
        private.check_folder(os.getcwd())
        self._lock = self.endpoint.try_lock(GUARDIAN_LOCK)
        if self._lock is None:
            return False
        if self._standby is not None:
            self._standby.start()  # before the lock on the data, which it must not inherit
        self._lock.note_holder(os.getpid())
        deadline = time.monotonic() + TAKE_OVER_S
        while not self.server.take_lock():
            if self.server.adopt():
                return True
            if time.monotonic() > deadline:
                raise CannotStart(f"{self.endpoint.holder} has the data, but does not answer")
            time.sleep(0.01)
        if not can_start:
            return False
        self.server.start()
        return True

    def watch(self) -> None:
        """Watch the server until it should end, then end it and remove all but its data."""
        signal.signal(signal.SIGTERM, self._end_soon)
        if self.parent_pid:
            _thread.start_new_thread(self._await_parent, ())
        while not self._is_ending:
            self._wait_for_news()
            if not self._is_ending:
                self._look()
        with suppress(OSError):  # the folder may have been removed, with its locks
            self.server.shut_down()
        self.leave()

    def _end_soon(self, *_: object) -> None:
        self._is_ending = True

    def _await_parent(self) -> None:
        """Wait until the parent's pipe closes. (`select` cannot wait for pipes on Windows.)"""
        with suppress(OSError):
            os.read(0, 1)
        self._is_ending = True
        connection = self.server.connection
        if connection is not None:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RD)  # wakes `_wait_for_news` up

    def _wait_for_news(self) -> None:
        """Wait for a moment, or until the server hangs up."""
        if self.server.connection is None:
            time.sleep(RECONNECT_S)
        else:
            select.select([self.server.connection], [], [], self._tick_s)
        # A process that the parent has forked may keep the pipe open after the parent's end.
        if self.parent_pid and not is_alive(self.parent_pid):
            self._is_ending = True

    def _look(self) -> None:
        if not self._has_folder():
            self._end("the folder has been removed")
            return
        try:
            if self._is_used():
                self._used_at = time.monotonic()
            if self._can_be_found() and self._is_idle() and self._hide():
                self._end("nobody has used the server for a while")
        except Refused:
            self._used_at = time.monotonic()  # for example, a long script is running
        except OSError:
            if not self._is_ending:
                self._go_on_without_answer()

    def _end(self, reason: str) -> None:
        say(reason)
        self._is_ending = True

    def _has_folder(self) -> bool:
        return self._lock is not None and self._lock.is_current()

    # --- idleness ---

    def _is_used(self) -> bool:
        """Whether a client is connected, or has connected since the last look."""
        before = self._connections_seen
        self._connections_seen = self.server.read_info("stats", "total_connections_received")
        clients = self.server.read_info("clients", "connected_clients")
        return clients > 1 or self._connections_seen != before  # the guardian counts as one

    def _is_idle(self) -> bool:
        idle_s = time.monotonic() - self._used_at
        if self.idle_s is None or idle_s < self.idle_s:
            return False
        # The second question: whether there are runs that have not ended.
        return idle_s >= UNFINISHED_IDLE_S or not self.server.ask("ZDIFF", "2", *self._run_keys)

    def _hide(self) -> bool:
        """Hide the server, unless a client is connecting or has connected meanwhile.

        Clients that look for the server share the door's lock meanwhile, so those that have found
        it are counted here. Clients that use its URL directly, and found the socket before it was
        renamed, are in the server's queue of connections: one or two commands later they count.
        """
        door = self.endpoint.try_lock(DOOR_LOCK)
        if door is None:
            return False
        try:
            if not self._is_used():
                self.endpoint.hide()
                self._is_hidden = True
                self.server.ask(PROBE)
                if not self._is_used():
                    return True
            self._show()
            return False
        except Refused:
            self._show()
            raise
        finally:
            door.release()

    def _show(self) -> None:
        self.endpoint.show()
        self._is_hidden = False
        self._used_at = time.monotonic()

    # --- after the death of the server ---

    def _can_be_found(self) -> bool:
        """Whether clients can find the server. If its socket was removed, restart it."""
        if self.endpoint.is_shown():
            return True
        self.server.ask(PROBE)  # fails if the server itself has removed it because it ends
        if not self.endpoint.returns_when_removed:
            self._end("the address has been removed")
            return False
        say("the socket has been removed: starting again")
        self.server.shut_down()
        self._start_again()
        return False

    def _go_on_without_answer(self) -> None:
        """Find out whether the server is slow, was killed, or was told to end.

        A server that was told to end has exit code 0. That of an adopted server is unknown, but it
        is not shown any more: a server removes its socket, and `stop` hides the address.
        """
        self.server.hang_up()
        self._used_at = time.monotonic()
        if self._is_hidden:
            self._show()
        if not self.server.has_ended():
            return  # it is slow, has disconnected us, or is ending: the next look will tell
        if self.endpoint.is_shown() and self.server.exit_code != 0:
            say("the server has died: starting again")
            self._start_again()
        else:
            self._end("the server was told to end")

    def _start_again(self) -> None:
        now = time.monotonic()
        recent = [at for at in self._restarted_at if now - at < RESTARTS_WITHIN_S]
        self._restarted_at = [*recent, now]
        try:
            if len(self._restarted_at) > MAX_RESTARTS:
                raise CannotStart("it dies again and again")
            if not self.server.take_lock():
                raise CannotStart("it does not end")
            self.server.start()
        except (CannotStart, OSError) as trouble:
            self._end(f"giving up: {trouble}")

    def leave(self) -> None:
        """Remove the files by which clients find the server, or the temporary folder.

        Nothing is removed while a server still uses the data: other guardians must find it later.
        """
        if not self._has_folder() or not self.server.take_lock():
            return
        self.endpoint.discard()
        if self.parent_pid:
            import shutil  # noqa: PLC0415 - needed only here, and slow to import

            shutil.rmtree(os.getcwd(), ignore_errors=True)


class Standby:
    """A shell that starts another guardian if this one is killed.

    The shell waits for a word from a pipe. A guardian that ends regularly sends one; if it is
    killed, the pipe closes without it. The next guardian adopts the server, and has its own
    standby. If the server is gone too, it exits, and the next command starts both. Without a POSIX
    shell there is no standby, and the next command starts a guardian.

    `words` are the arguments of the next guardian. It starts in the current folder, with the
    standard input of this one, by which it notices the end of a parent.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._pipe: int | None = None

    def start(self) -> None:
        """Start it. Call once."""
        if not hasattr(os, "posix_spawn"):
            return
        reading, self._pipe = os.pipe()
        kept = 3 if reading != 3 else 4  # where it keeps the standard input
        command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv) + 1], *self._words]
        line = f"{' '.join(map(quote, command))} 0<&{kept} {kept}<&- 1>/dev/null\n"
        actions = [(os.POSIX_SPAWN_DUP2, 0, kept), (os.POSIX_SPAWN_DUP2, reading, 0)]
        # In its own process group, and without the guardian's name in its command line, so that a
        # kill of the guardian by group or by name does not reach it.
        with suppress(OSError):
            os.posix_spawn(
                SHELL, [SHELL, "-c", SCRIPT], os.environ, file_actions=actions, setpgroup=0
            )
        os.close(reading)
        with suppress(OSError):
            os.write(self._pipe, line.encode(errors="surrogateescape"))

    def dismiss(self) -> None:
        """End the standby. Idempotent."""
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, b"end\n")
            os.close(self._pipe)
            self._pipe = None


def quote(word: str) -> str:
    """Quote a word for a POSIX shell. (`shlex` is slow to import.)"""
    return "'" + word.replace("'", "'\\''") + "'"


def say(text: str) -> None:
    """Write a line to the log, which is the standard error."""
    with suppress(OSError):  # not a file
        os.lseek(2, 0, os.SEEK_END)  # Windows does not append to inherited files by itself
    with suppress(OSError):  # the disk may be full
        os.write(2, f"flowq guardian {os.getpid()}: {text}\n".encode(errors="replace"))


def report(text: str) -> None:
    """Report the result in one line to the starter. After that, all output goes to the log."""
    with suppress(OSError):  # the starter may have been killed
        os.write(1, (text.replace("\n", " ") + "\n").encode(errors="replace"))
    os.dup2(2, 1)


def is_alive(pid: int) -> bool:
    """Whether the process exists. Always True on Windows, where asking would kill it."""
    if os.name == "nt":
        return True  # `os.kill` ends a process there, whatever the signal
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(words: list[str]) -> int:
    """Run a guardian; return its exit code.

    `words` are STATE BINARY IDLE_S PARENT_PID RUNS_KEY ENDED_KEY, then optionally ADOPT and TCP. An
    empty word means None; an empty BINARY is the server of `fake.py`. The starter reads the report
    and errors from the standard output; the standard error is the log.
    """
    state, binary, idle_s, parent_pid, runs_key, ended_key, *rest = words
    os.umask(0o077)
    if not parent_pid and hasattr(os, "fork") and os.fork():
        return 0  # the guardian is not a child of the command, which need not wait for it
    os.chdir(state)
    standby = Standby([".", *words[1:6], *{*rest, ADOPT}])
    guardian = Guardian(
        [binary] if binary else [sys.executable, "-P", sys.argv[0], FAKE],
        TcpEndpoint() if TCP in rest else UnixEndpoint(),
        float(idle_s) if idle_s else None,
        int(parent_pid) if parent_pid else None,
        (runs_key, ended_key),
        standby,
    )
    try:
        return live(guardian, can_start=ADOPT not in rest)
    finally:
        standby.dismiss()


def live(guardian: Guardian, *, can_start: bool) -> int:
    """Take over the server, report, and watch it; return the exit code."""
    try:
        is_ours = guardian.take_over(can_start=can_start)
    except (CannotStart, OSError) as trouble:
        report(f"error {trouble}")
        guardian.leave()
        return 1
    report("ready" if is_ours else "busy")
    if is_ours:
        guardian.watch()
    return 0
