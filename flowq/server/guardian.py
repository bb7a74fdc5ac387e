"""The guardian: a small process that starts, watches and ends the embedded server of one folder.

The commands of `embedded.py` start it, and wait for its report. Two locks, which the system frees
whatever dies, and however, give the promises:

    guardian.lock   held by the guardian: one guardian for each folder
    the data        held by the guardian and by the server: as long as either of them lives, nobody
                    else starts a server on the same data (`Endpoint.try_data`)

A guardian that finds the data taken adopts the server of a guardian that was killed; its `Standby`
starts one at once. A server that was killed is started again at once, from its append-only file.
With no client for `idle_s` (and no unfinished run) both end. A temporary server lives exactly as
long as its parent.

It imports little, because the first command in a folder waits for it.
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
    Endpoint,
    TcpEndpoint,
    Trouble,
    UnixEndpoint,
)
from flowq.server.locks import Lock
from flowq.server.process import Process
from flowq.server.resp import PROBE, Refused

ADOPT, TCP, FAKE = "adopt", "tcp", "fake"
"""Words for `main`: start no server; listen to TCP. And the name of the server in `fake.py`."""

TAKE_OVER_S = 15.0
RECONNECT_S = 0.05
UNFINISHED_IDLE_S = 86_400.0
MAX_RESTARTS, RESTARTS_WITHIN_S = 5, 60.0

SHELL = "/bin/sh"
SCRIPT = 'IFS= read -r next; read -r word || eval "exec $next"'


class Guardian:
    """One life of a guardian, in the state folder, which is the current one.

    Args:
        program: the server program, before the arguments of the endpoint.
        endpoint: how the server is reached.
        idle_s: end after so long without a client; None: never.
        parent_pid: None: the server is persistent; else it keeps nothing, and ends with that
            process, whose end also closes our standard input.
        run_keys: the sorted sets of all and of the ended runs.
        standby: what takes our place when we are killed.
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
        self._has_closed_door = False
        self._is_ending = False

    def take_over(self, *, can_start: bool = True) -> bool:
        """Start a server, or adopt the one that runs. False: it has a guardian already, or there is
        none and we cannot start one.

        Errors: Trouble, OSError.
        """
        private.check_folder(os.getcwd())
        self._lock = self.endpoint.try_lock(GUARDIAN_LOCK)
        if self._lock is None:
            return False
        if self._standby is not None:
            self._standby.start()  # before the server, whose lock it must not inherit
        self._lock.note_holder(os.getpid())
        deadline = time.monotonic() + TAKE_OVER_S
        while not self.server.take_lock():
            if self.server.adopt():
                return True
            if time.monotonic() > deadline:
                raise Trouble(f"{self.endpoint.holder} has the data, but does not answer")
            time.sleep(0.01)
        if not can_start:
            return False
        self.server.start()
        return True

    def watch(self) -> None:
        """Look after the server until it is to end, then leave nothing behind but its data."""
        signal.signal(signal.SIGTERM, self._end_soon)
        if self.parent_pid:
            _thread.start_new_thread(self._await_parent, ())
        while not self._is_ending:
            self._wait_for_news()
            if not self._is_ending:
                self._look()
        with suppress(OSError):  # the lock is gone with the folder
            self.server.shut_down()
        self.leave()

    def _end_soon(self, *_: object) -> None:
        self._is_ending = True

    def _await_parent(self) -> None:
        """Wait for the end of a pipe that nobody writes to; not everywhere can `select` do that."""
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
        # What the parent has forked may keep the pipe open when the parent is gone.
        if self.parent_pid and not is_alive(self.parent_pid):
            self._is_ending = True

    def _look(self) -> None:
        if not self._has_folder():
            self._end("the folder has been removed")
            return
        try:
            if self._is_used():
                self._used_at = time.monotonic()
            if self._can_be_found() and self._is_idle() and self._close_door():
                self._end("nobody has used the server for a while")
        except Refused:
            self._used_at = time.monotonic()  # a long script is running, for example
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
        """Whether a client is there, or one has been there since the last look."""
        before = self._connections_seen
        self._connections_seen = self.server.read_info("stats", "total_connections_received")
        clients = self.server.read_info("clients", "connected_clients")
        return clients > 1 or self._connections_seen != before  # one of them is the guardian

    def _is_idle(self) -> bool:
        idle_s = time.monotonic() - self._used_at
        if self.idle_s is None or idle_s < self.idle_s:
            return False
        # The second question: whether there are runs that have not ended.
        return idle_s >= UNFINISHED_IDLE_S or not self.server.ask("ZDIFF", "2", *self._run_keys)

    def _close_door(self) -> bool:
        """Let nobody in any more, unless somebody is coming in, or has come in meanwhile.

        Those who look for the server share the lock of the door while they do, so whoever has found
        it is counted here. Those who come without looking, by a URL, are in the server's queue of
        connections if they found the socket before it was renamed; a question or two counts them.
        """
        door = self.endpoint.try_lock(DOOR_LOCK)
        if door is None:
            return False
        try:
            if not self._is_used():
                self.endpoint.hide()
                self._has_closed_door = True
                self.server.ask(PROBE)
                if not self._is_used():
                    return True
            self._open_door()
            return False
        except Refused:
            self._open_door()
            raise
        finally:
            door.release()

    def _open_door(self) -> None:
        self.endpoint.show()
        self._has_closed_door = False
        self._used_at = time.monotonic()

    # --- after a death ---

    def _can_be_found(self) -> bool:
        """Whether clients can find the server; if what leads to it was removed, start it again."""
        if self.endpoint.is_shown():
            return True
        self.server.ask(PROBE)  # fails when the server itself has removed it, because it ends
        if not self.endpoint.returns_when_removed:
            self._end("the address has been removed")
            return False
        say("the socket has been removed: starting again")
        self.server.shut_down()
        self._start_again()
        return False

    def _go_on_without_answer(self) -> None:
        """Find out whether the server is slow, was killed, or was told to end.

        One told to end has exit code 0. That of an adopted server is not known, but there is no
        file any more that leads to it: a server removes its socket, and `stop` hides the address.
        """
        self.server.hang_up()
        self._used_at = time.monotonic()
        if self._has_closed_door:
            self._open_door()
        if not self.server.has_ended():
            return  # it is slow, or has cut us off, or is about to end: the next look will tell
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
                raise Trouble("it dies again and again")
            if not self.server.take_lock():
                raise Trouble("it does not end")
            self.server.start()
        except (Trouble, OSError) as trouble:
            self._end(f"giving up: {trouble}")

    def leave(self) -> None:
        """Remove what is of no use without a server: what leads to it, or a temporary folder.

        A server that has the data still, and does not answer us, must be found by others later.
        """
        if not self._has_folder() or not self.server.take_lock():
            return
        self.endpoint.discard()
        if self.parent_pid:
            import shutil  # noqa: PLC0415 - needed at the very end only, and slow

            shutil.rmtree(os.getcwd(), ignore_errors=True)


class Standby:
    """A shell that starts another guardian when the first one is killed.

    It waits for a word through a pipe. A guardian that ends as it should sends one; the pipe of one
    that was killed closes without it. The next guardian adopts the server, and has a standby of its
    own. Should the server be gone as well it leaves, and the next command starts both. Without a
    POSIX shell there is no standby: the next command starts a guardian too.

    `words` are for the next guardian, which starts in the current folder, with the standard input
    of this one: a parent is noticed by it.
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
        # In a group of its own, and without the guardian's name on its command line: a kill by
        # either, which is meant for the guardian, must not reach the standby.
        with suppress(OSError):
            os.posix_spawn(
                SHELL, [SHELL, "-c", SCRIPT], os.environ, file_actions=actions, setpgroup=0
            )
        os.close(reading)
        with suppress(OSError):
            os.write(self._pipe, line.encode(errors="surrogateescape"))

    def dismiss(self) -> None:
        """Let it end. Idempotent."""
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, b"end\n")
            os.close(self._pipe)
            self._pipe = None


def quote(word: str) -> str:
    """Return a word for a line of a POSIX shell; `shlex` would be slow to import."""
    return "'" + word.replace("'", "'\\''") + "'"


def say(text: str) -> None:
    """Write a line to the log, which is where the output goes once the report is made."""
    with suppress(OSError):  # it is no file
        os.lseek(2, 0, os.SEEK_END)  # Windows does not append by itself to what is inherited
    with suppress(OSError):  # its disk may be full
        os.write(2, f"flowq guardian {os.getpid()}: {text}\n".encode(errors="replace"))


def report(text: str) -> None:
    """Tell the starter, in one line, how it went; from now on the output goes to the log."""
    with suppress(OSError):  # a starter that was killed does not listen
        os.write(1, (text.replace("\n", " ") + "\n").encode(errors="replace"))
    os.dup2(2, 1)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, as far as the platform tells without ending it."""
    if os.name == "nt":
        return True  # there `kill` ends a process whatever the signal
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(words: list[str]) -> int:
    """Run with STATE BINARY IDLE_S PARENT_PID RUNS_KEY ENDED_KEY, of which "" is None (a BINARY:
    the server of `fake.py`), and then perhaps ADOPT and TCP.

    Errors: in words, to the standard output, where the starter reads; the standard error is the
    log.
    """
    state, binary, idle_s, parent_pid, runs_key, ended_key, *rest = words
    os.umask(0o077)
    if not parent_pid and hasattr(os, "fork") and os.fork():
        return 0  # the guardian is nobody's child, so that nobody has to wait for it
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
    """Live one life of a guardian, and return its exit code."""
    try:
        is_ours = guardian.take_over(can_start=can_start)
    except (Trouble, OSError) as trouble:
        report(f"error {trouble}")
        guardian.leave()
        return 1
    report("ready" if is_ours else "busy")
    if is_ours:
        guardian.watch()
    return 0
