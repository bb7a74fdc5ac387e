"""The state folder where there are no Unix sockets: locks that any platform has, and the address.

STATE/           ours (`state.py` says where it is, and makes it)
├── belongs-to   the folder that it is for
├── data/        the append-only file
├── address      where the server listens, and the two secrets; for our eyes only
├── server.conf  what the server reads at its start; for our eyes only
├── logs/        what jobs and workers print
├── server.log   what the server and its keeper have to say
├── keeper.lock  held by the keeper
└── door.lock    shared by those who look for the server; the keeper's while it closes
"""

# The keeper imports this, and runs without much:
# ruff: noqa: PTH105, PTH108
from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO

from flowq.server import private
from flowq.server.resp import Wire

ADDRESS = "address"
CONFIG = "server.conf"
DATA = "data"
LOG = "server.log"
KEEPER_LOCK = "keeper.lock"
DOOR_LOCK = "door.lock"

HOST = "127.0.0.1"
REPLACE_S = 2.0
LOG_BYTES = 1_000_000
PROOF_USER = "proof"


class NotOurs(ConnectionRefusedError):
    """Somebody else listens there."""


@dataclass(frozen=True)
class Address:
    """Where the server of a folder listens.

    `password` is what we show to it. `proof` is what it shows to us, and what nobody ever sends to
    it: whoever took over its port, and was shown the password, does not know that.
    """

    port: int
    password: str
    proof: str

    @property
    def url(self) -> str:
        """The URL that redis-py and RQ's tools understand."""
        return (
            f"redis://:{self.password}@{HOST}:{self.port}/0?protocol=2"  # which all of them speak
        )

    def call(self) -> Wire:
        """Connect, and make sure that it is our server. Errors: OSError, Refused."""
        wire = Wire((HOST, self.port))
        try:
            wire.ask("AUTH", self.password)
            if not self._is_shown(wire.ask("ACL", "GETUSER", PROOF_USER)):
                raise NotOurs("this is another server")
        except BaseException:
            wire.close()
            raise
        return wire

    def _is_shown(self, facts: object) -> bool:
        flat = facts if isinstance(facts, list) else []
        found = dict(zip(flat[::2], flat[1::2], strict=False)).get(b"passwords")
        return isinstance(found, list) and found == [self.proof.encode()]


def make_address(port: int) -> Address:
    """Return an address with new secrets."""
    return Address(port, secrets.token_urlsafe(32), secrets.token_hex(32))


def read_address(state: Path) -> Address | None:
    """Return the address that the keeper of this folder has left, if there is one.

    The keeper may be of a newer version: what only that one knows is ignored.
    """
    known = {each.name for each in fields(Address)}
    try:
        said = json.loads(private.read(state / ADDRESS))
        return Address(**{name: value for name, value in said.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_address(state: Path, address: Address) -> None:
    """Let others find the server."""
    write_private(state / ADDRESS, json.dumps(asdict(address)))


def write_private(path: Path, text: str) -> None:
    """Write a file for our eyes only; a reader finds the old or the new text, never a part."""
    draft = private.make_draft(path, text.encode())
    try:
        _replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _replace(draft: str, path: Path) -> None:
    deadline = time.monotonic() + REPLACE_S
    while True:
        try:
            os.replace(draft, path)
            return
        except PermissionError:  # on Windows, for as long as somebody reads it
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_log(state: Path) -> BinaryIO:
    """Open the log for appending; a long one begins anew. Errors: Untrusted, OSError."""
    log = os.fdopen(private.open_file(state / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
    if os.fstat(log.fileno()).st_size > LOG_BYTES:
        log.truncate(0)
    return log


class Lock:
    """A lock on a file, which the system frees with the process that has it.

    The standard library has no locks of files that work everywhere, but a database that does.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def release(self) -> None:
        """Let others have it. Idempotent."""
        self._connection.close()


def try_lock(path: Path, *, shared: bool = False) -> Lock | None:
    """Take a lock without waiting; None when somebody has it. Errors: Untrusted, OSError."""
    # It is looked at, not opened: closing it would free the locks of this process.
    with suppress(FileNotFoundError):
        private.check_status(os.lstat(path), path)
    connection = None
    try:
        with private.exact_modes():
            connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
        if shared:
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM sqlite_master").fetchall()
        else:
            connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return None
        raise OSError(f"{path}: {error}") from error
    return Lock(path, connection)
