"""The keeper: a small process that starts, watches and ends a server on loopback.

It is to `loopback.py` what the guardian is to `embedded.py`, with what every platform has: the
server listens on 127.0.0.1 with a random password, locks are those of SQLite, and a parent is
noticed by a pipe that closes. A keeper that is killed leaves its server behind; the next one adopts
it, since it can be asked for its proof.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from flowq.server import private
from flowq.server.guardian import report, say
from flowq.server.portable import (
    ADDRESS,
    CONFIG,
    DATA,
    DOOR_LOCK,
    HOST,
    KEEPER_LOCK,
    LOG,
    PROOF_USER,
    Address,
    Lock,
    NotOurs,
    make_address,
    open_log,
    read_address,
    try_lock,
    write_address,
    write_private,
)
from flowq.server.process import SETTINGS
from flowq.server.resp import CLIENT_NAME, PROBE, Refused, Reply, Wire, await_loaded

LISTEN_S = 20.0
END_S = 10.0
UNFINISHED_IDLE_S = 86_400.0
MAX_RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
RECONNECT_S = 0.05
TRIES = 3


class Trouble(Exception):
    """There will be no server; the message is for the user."""


class Keeper:
    """One life of a keeper in the state folder, which is the current one.

    `binary` "": the stopgap. `idle_s` None: it keeps nothing, and ends with its parent. `runs_key`
    and `ended_key`: sorted sets of all and of the ended runs.
    """

    def __init__(self, binary: str, idle_s: float | None, runs_key: str, ended_key: str) -> None:
        self.binary = binary
        self.idle_s = idle_s
        self.address: Address | None = None
        self._run_keys = (runs_key, ended_key)
        self._tick_s = min(1.0, (idle_s or 1.0) / 4)
        self._lock: Lock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._connections_seen = -1
        self._used_at = time.monotonic()
        self._restarted_at: list[float] = []
        self._is_ending = False

    # Beginning -----------------------------------------------------------------------------------

    def take_over(self) -> bool:
        """Start a server, or adopt the one that runs. False: it has a keeper already.

        Errors: Trouble, OSError.
        """
        private.check_folder(Path.cwd())
        self._lock = try_lock(Path(KEEPER_LOCK))
        if self._lock is None:
            return False
        self.address = read_address(Path())
        if not self._adopt():
            self._start()
        return True

    def _adopt(self) -> bool:
        """Connect to the server that another keeper has left behind. False: there is none.

        Errors: Trouble when it does not answer: a second one must not get at its data.
        """
        try:
            self._ask(PROBE)
        except TimeoutError as error:
            raise Trouble("the server has the data, but does not answer") from error
        except (NotOurs, Refused):
            self.address = None  # its port is taken
            return False
        except OSError:
            return False
        return True

    def _start(self) -> None:
        """Start the server and wait until it has loaded its data. Errors: Trouble, OSError."""
        private.make_folder(DATA)
        private.check_tree(DATA)
        for tries_left in reversed(range(TRIES)):
            if self.address is None:
                self.address = make_address(find_port())
            try:
                self._start_once(self.address)
                return
            except (OSError, Refused) as error:
                self.kill()
                self.address = None  # somebody else may have the port
                if not tries_left:
                    told = f"{self.binary or 'the stopgap'} did not start: {error}"
                    raise Trouble(f"{told}; see {Path(LOG).resolve()}") from error

    def _start_once(self, address: Address) -> None:
        write_private(Path(CONFIG), configuration(address, is_persistent=self.idle_s is not None))
        with open_log(Path()) as log:
            self._process = subprocess.Popen(  # noqa: S603 - a server program and our own file
                [*self._program(), CONFIG], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + LISTEN_S
        while True:
            if self._process.poll() is not None:
                raise ConnectionResetError("it ended at once")
            try:
                self._ask(PROBE)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        write_address(Path(), address)

    def _program(self) -> list[str]:
        if self.binary:
            return [self.binary]
        return [sys.executable, "-P", str(Path(__file__).with_name("__main__.py")), "fake"]

    # Living --------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Look after the server until it is to end, then leave nothing behind but its data."""
        if self.idle_s is None:
            threading.Thread(target=self._await_parent, daemon=True).start()
        while not self._is_ending:
            self._wait_for_news()
            if not Path(KEEPER_LOCK).exists():
                self._end("the folder has been removed")
                continue
            try:
                if self._is_idle() and self._close_door():
                    self._end("nobody has used the server for a while")
            except Refused:
                self._used_at = time.monotonic()  # a long script is running, for example
            except OSError:
                if not self._is_ending:
                    self._go_on_without_answer()
        self._hang_up()
        self.leave()

    def _wait_for_news(self) -> None:
        """Wait for a moment, or until the server hangs up; only sockets can be waited for."""
        if self._wire is None:
            time.sleep(RECONNECT_S)
        else:
            select.select([self._wire.socket], [], [], self._tick_s)

    def _await_parent(self) -> None:
        sys.stdin.buffer.read()
        self._is_ending = True
        wire = self._wire
        if wire is not None:  # wakes us up
            with suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RD)

    def _end(self, reason: str) -> None:
        say("keeper", reason)
        self._is_ending = True

    def _is_idle(self) -> bool:
        if self._is_used():
            self._used_at = time.monotonic()
        idle_s = time.monotonic() - self._used_at
        if self.idle_s is None or idle_s < self.idle_s:
            return False
        return idle_s >= UNFINISHED_IDLE_S or not self._ask("ZDIFF", "2", *self._run_keys)

    def _is_used(self) -> bool:
        """Whether a client is there, or one has been there since the last look."""
        before = self._connections_seen
        wire = self._connected()
        self._connections_seen = wire.read_info("stats", "total_connections_received")
        clients = wire.read_info("clients", "connected_clients")
        return clients > 1 or self._connections_seen != before  # one of them is the keeper

    def _close_door(self) -> bool:
        """Let nobody find the server any more, unless somebody looks for it, or has come."""
        door = try_lock(Path(DOOR_LOCK))
        if door is None:
            return False
        try:
            if self._is_used():
                return False
            Path(ADDRESS).unlink(missing_ok=True)
            return True
        finally:
            door.release()

    def _go_on_without_answer(self) -> None:
        self._hang_up()
        if self._process is not None and self._process.poll() is None:
            return  # it is slow, or has cut us off: the next look will tell
        if self._process is None and self._adopt():
            return
        if not Path(ADDRESS).exists() or (self._process and self._process.returncode == 0):
            self._end("the server was told to end")
            return
        say("keeper", "the server has died: starting again")
        now = time.monotonic()
        recent = [at for at in self._restarted_at if now - at < RESTARTS_WITHIN_S]
        self._restarted_at = [*recent, now]
        try:
            if len(self._restarted_at) > MAX_RESTARTS:
                raise Trouble("it dies again and again")
            self._start()
        except (Trouble, OSError) as trouble:
            self._end(f"giving up: {trouble}")

    def _ask(self, *words: str) -> Reply:
        return self._connected().ask(*words)

    def _connected(self) -> Wire:
        if self._wire is None:
            if self.address is None:
                raise ConnectionRefusedError("there is no address")
            wire = self.address.call()
            await_loaded(wire)
            wire.ask("CLIENT", "SETNAME", CLIENT_NAME)
            self._wire = wire
        return self._wire

    # Ending --------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def leave(self) -> None:
        """End the server, gently if it can be, and forget where it was. Idempotent."""
        wait_s = 0.0
        with suppress(OSError, Refused):
            wire = self._connected()
            wait_s = END_S
            wire.ask("SHUTDOWN", "NOSAVE")
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
        self.kill()
        with suppress(OSError):
            Path(ADDRESS).unlink(missing_ok=True)
            Path(CONFIG).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    def kill(self) -> None:
        """End the server at once, if it is our child. Idempotent."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def configuration(address: Address, *, is_persistent: bool) -> str:
    """Return what the server reads. Not on its command line, which others can see."""
    lines = [
        f"port {address.port}",
        f"bind {HOST}",
        f"requirepass {address.password}",
        f"user {PROOF_USER} off #{address.proof}",
        f"dir {DATA}",
        f"appendonly {'yes' if is_persistent else 'no'}",
        *(f'{name} "{value}"' for name, value in SETTINGS.items()),
    ]
    return "\n".join(lines) + "\n"


def find_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def main(words: list[str]) -> int:
    """Run with STATE BINARY IDLE_S RUNS_KEY ENDED_KEY; "" is None. Errors: in words, to the
    standard output, where the starter reads; the standard error is the log."""
    state, binary, idle_s, runs_key, ended_key = words
    os.umask(0o077)
    os.chdir(state)
    keeper = Keeper(binary, float(idle_s) if idle_s else None, runs_key, ended_key)
    try:
        is_ours = keeper.take_over()
    except (Trouble, OSError) as trouble:
        report(f"error {trouble}")
        keeper.leave()
        return 1
    report("ready" if is_ours else "busy")
    if is_ours:
        keeper.watch()
    return 0
