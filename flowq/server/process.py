"""The server's process, as its guardian has it: start, adopt, end."""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100, PTH104, PTH117, PTH118
from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from flowq.server import folder, private
from flowq.server.resp import Refused, Reply, Wire, await_loaded, greet, serves

SETTINGS = {
    "save": "",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    # RQ keeps the result of each job in a stream of its own; its one entry would be given 4 KB.
    "stream-node-max-bytes": "512",
    # A job with some arguments takes half of the memory when its hash stays in one piece.
    "hash-max-ziplist-value": "1024",
}

LISTEN_S = 20.0
SHUT_DOWN_S = 10.0


class Process:
    """A server on the data in the current folder, and the lock that keeps it the only one.

    The lock is inherited by the server: it is free when neither the guardian nor the server lives.
    """

    def __init__(self, binary: str, is_persistent: bool) -> None:
        self.binary = binary
        self.is_persistent = is_persistent
        self.path = folder.SOCKET  # not absolute when inside: a project may be renamed
        self.wire: Wire | None = None
        self._lock: int | None = None
        self._pid: int | None = None  # None also for an adopted server, which is not our child

    # --- beginning ---

    def take_lock(self) -> bool:
        """Make sure that no server is on the data. False: there is one. Idempotent."""
        if self._lock is None:
            self._lock = folder.try_lock(folder.SERVER_LOCK)
            if self._lock is not None:
                os.set_inheritable(self._lock, True)
        return self._lock is not None

    def start(self) -> None:
        """Start the server (the lock is ours) and wait until it has loaded its data.

        Errors: Trouble, with what the server said; Untrusted, with what is not what it should be.
        """
        self.path = folder.place_socket(self.path)
        private.remove_socket(self.path)  # a foreign server must not answer for ours
        private.make_folder(folder.DATA)
        private.check_tree(folder.DATA)
        log = folder.open_log()
        begin_bytes = os.fstat(log).st_size
        try:
            self._spawn(log)
            self._listen()
        except (OSError, Refused) as error:
            self.kill()
            raise folder.Trouble(explain(error, self.binary, begin_bytes)) from error
        finally:
            os.close(log)

    def adopt(self) -> bool:
        """Connect to the server that another guardian has left behind. False: none answers."""
        path = folder.read_where(".")
        for name in (path, path + folder.CLOSED):
            if self._adopt_at(name):
                if name != path:  # that guardian died while it closed the door
                    os.rename(name, path)
                self.path = path
                return True
        return False

    def _adopt_at(self, path: str) -> bool:
        try:
            if not private.is_own_socket(path):
                return False
            self.wire = greet(path)
            if serves(self.wire, folder.DATA):
                await_loaded(self.wire)
                return True
        except (OSError, Refused):
            pass
        self.hang_up()
        return False

    def discard_stale(self) -> None:
        """Remove the socket that a killed server has left somewhere, if nobody listens there.

        Somebody may: a copied project notes the socket of the original.
        """
        path = folder.read_where(".")
        if not private.is_own_socket(path):
            return
        try:
            Wire(path).close()
        except OSError:
            folder.discard_socket(path)

    def _spawn(self, log: int) -> None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        # With an inherited locale that this machine does not have the server would not start.
        environment = {**os.environ, "LC_ALL": "C"}
        # Not the subprocess module: its import alone takes as long as the start of the server.
        self._pid = os.posix_spawn(self.binary, self._command(), environment, file_actions=actions)
        if self._lock is not None:
            folder.note_holder(self._lock, self._pid)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": self._path_from_data(),
            "unixsocketperm": "700",
            "dir": folder.DATA,
            "appendonly": "yes" if self.is_persistent else "no",
            **SETTINGS,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [self.binary, *words]

    def _path_from_data(self) -> str:
        if os.path.isabs(self.path):
            return self.path
        state = os.path.realpath(".")
        return os.path.relpath(os.path.join(state, self.path), os.path.realpath(folder.DATA))

    def _listen(self) -> None:
        deadline = time.monotonic() + LISTEN_S
        while self.wire is None:
            self._raise_if_ended()
            try:
                await_loaded(self._connected())
            except OSError:
                self.hang_up()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    def _raise_if_ended(self) -> None:
        if self._is_reaped():
            raise ConnectionResetError("it ended at once")

    # --- living ---

    def ask(self, *words: str) -> Reply:
        """Ask the server. Errors: OSError when it is gone, or too slow; Refused."""
        return self._connected().ask(*words)

    def read_info(self, section: str, name: str) -> int:
        """Return a figure of the server. Errors: as `ask`."""
        return self._connected().read_info(section, name)

    def _connected(self) -> Wire:
        if self.wire is None:
            wire = greet(self.path)
            if not serves(wire, folder.DATA):
                wire.close()
                raise ConnectionRefusedError("this is another server")
            self.wire = wire
        return self.wire

    # --- ending ---

    def shut_down(self) -> None:
        """End the server, gently if it can be. Idempotent."""
        with suppress(OSError, Refused):
            self.ask("SHUTDOWN", "NOSAVE")
        self.hang_up()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
        self.await_end()

    def hang_up(self) -> None:
        """Close the connection. Idempotent."""
        if self.wire is not None:
            self.wire.close()
            self.wire = None

    def has_ended(self) -> bool:
        """Whether the process is gone. Of a child its parent knows, of an adopted one the lock."""
        return self._is_reaped() if self._pid is not None else self.take_lock()

    def _is_reaped(self) -> bool:
        if self._pid is None or not os.waitpid(self._pid, os.WNOHANG)[0]:
            return False
        self._pid = None
        return True

    def await_end(self) -> None:
        """Wait for the end of the server, and make it end if it does not. Errors: Trouble."""
        deadline = time.monotonic() + SHUT_DOWN_S
        while not self.has_ended():
            if time.monotonic() > deadline:
                self.kill()
                return
            time.sleep(0.005)

    def kill(self) -> None:
        """End the server at once, if it is our child. Idempotent."""
        self.hang_up()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = None


def explain(error: Exception, binary: str, begin_bytes: int) -> str:
    """Say why the server did not start, from the end of its own log."""
    lines = private.read(folder.LOG)[begin_bytes:].decode(errors="replace").splitlines()
    lines = [line for line in lines if " # WARNING" not in line]
    reasons = [line.partition(" # ")[2] for line in lines if " # " in line] or lines
    told = "; ".join(reason.strip() for reason in reasons[-3:]) or str(error)
    return f"{binary} did not start: {told} (see {os.path.abspath(folder.LOG)})"
