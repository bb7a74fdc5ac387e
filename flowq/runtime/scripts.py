"""The Lua scripts, read from `lua/`, and the two ways to call them.

`Script.call` sends the digest and falls back to the source when the server does not know it (after
SCRIPT FLUSH, a restart or a fail-over). `Script.append` puts the source itself into a pipeline: a
digest that is missing inside MULTI/EXEC fails alone while everything around it is committed, which
in a transaction of RQ's would end a job without settling it.
"""

from __future__ import annotations

import hashlib
import re
import time
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError
from rq.utils import utcformat

from flowq.runtime import keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from redis.connection import Connection


def _read(name: str) -> str:
    text = files("flowq.runtime").joinpath("lua", f"{name}.lua").read_text("utf-8")
    # Comments and indentation are for people; the server hashes and transfers every byte.
    lines = (re.sub(r"(^|\s)--.*$", "", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def clock() -> tuple[str, str]:
    """Return now, as RQ writes instants and in epoch seconds, for the scripts."""
    return utcformat(datetime.now(UTC)), f"{time.time():.3f}"


class Script:
    """One operation on the server: what all share (`lua/common.lua`), and the file of its name.

    A long one has further files, which stand in front of that one.
    """

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        self.source = "\n".join([_COMMON, *map(_read, parts), _read(name)])
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, connection: Redis, slot_key: str, *args: Any) -> Any:
        """Run it now. Atomic on the server; a lost reply may mean that it was applied.

        Errors: redis-py's, with the script's own text when the script has a bug.
        """
        arguments = (1, slot_key, keys.PREFIX, *clock(), *args)
        try:
            return connection.evalsha(self.digest, *arguments)
        except NoScriptError:
            return connection.eval(self.source, *arguments)

    def send(self, connection: Connection, slot_key: str, *args: Any) -> None:
        """Say it on a connection of one's own, and read the answer later.

        Errors: redis-py's ConnectionError; the answer may be NoScriptError, which `call` handles.
        """
        command = ("EVALSHA", self.digest, 1, slot_key, keys.PREFIX, *clock(), *args)
        connection.send_packed_command(connection.pack_command(*command))  # type: ignore[no-untyped-call]

    def append(self, pipeline: Pipeline, slot_key: str, *args: Any) -> None:
        """Put it into somebody's transaction; it is part of that EXEC or not at all."""
        pipeline.eval(self.source, 1, slot_key, keys.PREFIX, *clock(), *args)


_COMMON = "\n".join(map(_read, ("common", "settling", "again", "nested", "groups")))

ADD = Script("add")
RELEASE = Script("release")
SETTLE = Script("settle")
START = Script("start")
STEP = Script("step", "step_futures", "step_groups", "step_runs")
EMPTY = Script("empty")
EXPIRED = Script("expired")
COMMIT = Script("commit")
RETRY = Script("retry")
TURN = Script("turn")
BACK = Script("back")
BEAT = Script("beat")
DUE = Script("due")
GROW = Script("grow")
PASS = Script("pass")
APPROVE = Script("approve")
