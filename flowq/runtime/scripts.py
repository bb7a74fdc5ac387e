"""The Lua scripts, read from `lua/`, and the ways to call them.

`Script.call` sends the digest and falls back to the source when the server does not know it (after
SCRIPT FLUSH, a restart or a fail-over). `Script.append` puts the source itself into a pipeline: a
digest that is missing inside MULTI/EXEC fails alone while everything around it is committed, which
in a transaction of RQ's would end a job without settling it.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from hiredis import pack_command
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from flowq.runtime import keys
from flowq.runtime.connections import is_refusal

if TYPE_CHECKING:
    from redis import ConnectionPool, Redis
    from redis.client import Pipeline
    from redis.connection import Connection


_FOLDER = files("flowq.runtime").joinpath("lua")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))--.*$", re.MULTILINE)


@cache
def _read(name: str) -> str:
    text = _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
    # Comments and indentation are for people; the server hashes and transfers every byte.
    lines = map(str.strip, _COMMENT.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


_NO_CLOCK = ("", "")
"""In the place of the caller's clock: the scripts take that of the server."""


def format_instant(at_s: float) -> str:
    """Return epoch seconds as RQ writes instants; its own function takes twenty times as long."""
    second, microsecond = divmod(round(at_s * 1e6), 1_000_000)
    return f"{format_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=16)
def format_second(at_s: int) -> str:
    """Return what comes before the point in `format_instant`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


SHARED = (
    *("runs", "jobs", "approvals", "slots", "groups", "nested", "outcomes", "futures", "edges"),
    *("ancestors", "settling", "retries"),
)
"""The files that stand in front of every script, each with a table of its name."""


def _compose(parts: tuple[str, ...]) -> str:
    """Return what stands in front of a script: the shared files, and the parts it has of its own.

    Each has a table of its name, and all of these are there before the first file: so files may
    call each other, whatever their order. A file's other names are its own, for it is a block.
    """
    names = (*SHARED, *(part for part in parts if part not in SHARED))
    tables = f"local {', '.join(names)} = {', '.join('{}' for _ in names)}"
    return "\n".join([tables, _read("common"), *(f"do\n{_read(name)}\nend" for name in names)])


class Script:
    """One operation on the server: a function of a Lua file's table, `file.function`.

    In front of it stand the files that all share (`SHARED`), its own, and further `parts`. The text
    is put together at the first call: most processes call few scripts, and many none.
    """

    def __init__(self, operation: str, *parts: str) -> None:
        self.operation = operation
        self.name = operation.replace(".", "_")
        own = operation.partition(".")[0]
        self.parts = tuple(dict.fromkeys((*parts, own)))
        self._call = f"begin_call(ARGV)\nreturn {operation}(ARGV)"

    @cached_property
    def source(self) -> str:
        """The text that the server gets."""
        return "\n".join([_compose(self.parts), self._call])

    @cached_property
    def digest(self) -> str:
        """By which the server knows the text."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, connection: Redis, slot_key: str, *args: Any) -> Any:
        """Run it now. Atomic on the server; a lost reply may mean that it was applied.

        Errors: redis-py's, with the script's own text when the script has a bug.
        """
        arguments = (1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)
        try:
            return connection.evalsha(self.digest, *arguments)
        except NoScriptError:
            return connection.eval(self.source, *arguments)

    def append(self, pipeline: Pipeline, slot_key: str, *args: Any) -> None:
        """Put it into somebody's transaction; it is part of that EXEC or not at all."""
        pipeline.eval(self.source, 1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)


class HotScript(Script):
    """One that is called often: as a function that stays loaded, where the server has those.

    A script makes its hundred functions anew in each call, which takes as long as a job's work.
    Here the files are read once, when there is no call: outside of their functions they do not use
    Lua's own libraries, and what belongs to one call they set at its beginning. The name has the
    digest of the text in it, so that two versions live side by side.
    """

    @cached_property
    def function(self) -> str:
        """Its name on the server."""
        return f"flowq_{self.name}_{self.digest[:12]}"

    @cached_property
    def library(self) -> str:
        """The text that defines the function."""
        head = f"redis.register_function('{self.function}', function(KEYS, ARGV)"
        texts = [_compose(self.parts), head, self._call, "end)"]
        return "\n".join([f"#!lua name={self.function}", *texts])

    def call(self, connection: Redis, slot_key: str, *args: Any) -> Any:
        """As `Script.call`."""
        if connection.connection_pool not in _WITHOUT_FUNCTIONS:
            try:
                return self._call_function(connection, slot_key, *args)
            except ResponseError as error:
                if not is_missing(error):
                    raise
            if self._load(connection):
                return self._call_function(connection, slot_key, *args)
        return super().call(connection, slot_key, *args)

    def _call_function(self, connection: Redis, slot_key: str, *args: Any) -> Any:
        return connection.fcall(self.function, 1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)

    def _load(self, connection: Redis) -> bool:
        try:
            connection.function_load(self.library)
        except ResponseError as error:
            if is_refusal(error):
                raise
            if "already exists" not in str(error):  # else somebody was faster
                _WITHOUT_FUNCTIONS.add(connection.connection_pool)
                return False
        return True

    def send(self, line: Connection, pool: ConnectionPool, slot_key: str, *args: Any) -> None:
        """Say it on a connection of one's own, from that pool, and read the answer later.

        Errors: redis-py's ConnectionError. The answer may be an error for which `is_missing` is
        true; `call` can do it then.
        """
        command = self.words(pool, slot_key, *args)
        # redis-py looks at each argument first, which takes longer than all the rest.
        line.send_packed_command([pack_command(command)])  # type: ignore[no-untyped-call]

    def words(self, pool: ConnectionPool, slot_key: str, *args: Any) -> tuple[Any, ...]:
        """Return the command that calls it, for who speaks to the server of that pool himself."""
        how = ("FCALL", self.function)
        if pool in _WITHOUT_FUNCTIONS:
            how = ("EVALSHA", self.digest)
        return (*how, 1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)


_WITHOUT_FUNCTIONS: WeakSet[ConnectionPool] = WeakSet()
"""Pools to servers that have no functions, or do not let us load any."""

_MISSING = ("function not found", "unknown command")


def is_missing(error: ResponseError) -> bool:
    """Whether the server does not know what we called, or functions at all: nothing was done."""
    text = str(error).lower()
    is_refused = isinstance(error, NoScriptError | NoPermissionError)
    return is_refused or any(word in text for word in _MISSING)


_STEP_PARTS = (
    *("attempts", "release", "workers", "executions", "watching", "retention"),
    *("deadlines", "lifecycle", "rerun", "step"),
)
"""`step` is the last, because it reads the functions of the others when it is loaded."""

ADD = HotScript("add.add_all")
RELEASE = HotScript("futures.close")
SETTLE = Script("settling.settle")
START = Script("attempts.start")
STEP = HotScript("step.make", *_STEP_PARTS)
EMPTY = Script("settling.empty_queue")
EXPIRED = Script("settling.expire")
COMMIT = Script("runs.commit")
RETRY = Script("rerun.retry_run", *_STEP_PARTS)
ROUND = Script("rerun.retry_workflow", *_STEP_PARTS)
TURN = HotScript("turn.make", "attempts", "turn_ends", "turn_claims")
GIVE_BACK = Script("executions.give_back", "workers")
BEAT = Script("workers.beat")
FIND_LOST = Script("workers.find_lost")
DUE = Script("due.queue_all")
LEAVE = Script("workers.leave")
ARE_THERE = Script("workers.are_there")
GROW = Script("groups.grow")
TELL_ABOUT = Script("attempts.tell_about")
CALLS_OFF = Script("runs.is_called_off")
APPROVE = Script("approvals.approve")
MAY_GO_ON = Script("approvals.may_go_on")
HOLD = Script("approvals.hold")
MAY_RETRY = Script("retries.may_retry")
SET_APART = Script("jobs.set_apart")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
HOT = tuple(script for script in ALL if isinstance(script, HotScript))
"""Those that are functions on the server."""


def prepare() -> None:
    """Put all texts together now, so that no process that is forked from this one has to."""
    for script in ALL:
        _ = script.library if isinstance(script, HotScript) else script.digest
