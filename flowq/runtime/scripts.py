"""The Lua scripts in `lua/`, and how they are called.

`Script.call` sends the digest, and the source if the server does not know it (after SCRIPT FLUSH, a
restart or a fail-over). `Script.append` puts the source into a pipeline: inside MULTI/EXEC, an
unknown digest fails alone while all other commands are committed, so that RQ's transaction would
end a job without settling it.
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
    # Without comments and indentation: the source is often sent and hashed.
    lines = map(str.strip, _COMMENT.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


_NO_CLOCK = ("", "")
"""Instead of the caller's clock: scripts use that of the server."""


def format_instant(at_s: float) -> str:
    """Return epoch seconds as RQ writes instants, in a twentieth of the time of RQ's function."""
    second, microsecond = divmod(round(at_s * 1e6), 1_000_000)
    return f"{format_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=16)
def format_second(at_s: int) -> str:
    """Return the part of `format_instant` before the decimal point."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


SHARED = (
    *("runs", "jobs", "approvals", "slots", "groups", "nested", "outcomes", "futures", "edges"),
    *("firsts", "ancestors", "settling", "retries", "metrics"),
)
"""The files that every script includes; each fills a table of its name."""


def _compose(parts: tuple[str, ...]) -> str:
    """Return the source of the shared files and of the script's own parts.

    All tables are declared before the first file, so files can call each other in any order. Each
    file is a block, so that its other names are local to it.
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
        call = f"begin_call(ARGV)\nlocal answer = {operation}(ARGV)"
        self._call = f"{call}\nend_call()\nreturn answer"

    @cached_property
    def source(self) -> str:
        """The text that the server gets."""
        return "\n".join([_compose(self.parts), self._call])

    @cached_property
    def digest(self) -> str:
        """By which the server knows the text."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, connection: Redis, slot_key: str, *args: Any) -> Any:
        """Execute it. Atomic on the server; if the reply is lost, it may have been executed.

        Errors: redis-py's, with the message of the script if that has a bug.
        """
        arguments = (1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)
        try:
            return connection.evalsha(self.digest, *arguments)
        except NoScriptError:
            return connection.eval(self.source, *arguments)

    def append(self, pipeline: Pipeline, slot_key: str, *args: Any) -> None:
        """Append it to a transaction, with which it is executed or not at all."""
        pipeline.eval(self.source, 1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)


class HotScript(Script):
    """A frequently called script: a function that stays loaded, if the server supports functions.

    A script creates its hundred Lua functions anew in each call, which takes as long as the work
    for a job. A library is evaluated once, outside of any call. So its files must not use Redis or
    Lua's libraries outside of functions, and must set all state of a call at its beginning. The
    name contains a digest of the source, so that versions coexist.
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
            if "already exists" not in str(error):  # else another process has just loaded it
                _WITHOUT_FUNCTIONS.add(connection.connection_pool)
                return False
        return True

    def send(self, line: Connection, pool: ConnectionPool, slot_key: str, *args: Any) -> None:
        """Send it on a connection of the pool; the caller reads the answer later.

        If the answer is an error for which `is_missing` is true, use `call` instead.
        Errors: redis-py's ConnectionError.
        """
        command = self.words(pool, slot_key, *args)
        # redis-py's own packing checks each argument, which takes longer than everything else.
        line.send_packed_command([pack_command(command)])  # type: ignore[no-untyped-call]

    def words(self, pool: ConnectionPool, slot_key: str, *args: Any) -> tuple[Any, ...]:
        """Return the command that calls it, for another client of that pool's server."""
        how = ("FCALL", self.function)
        if pool in _WITHOUT_FUNCTIONS:
            how = ("EVALSHA", self.digest)
        return (*how, 1, slot_key, keys.PREFIX, *_NO_CLOCK, *args)


_WITHOUT_FUNCTIONS: WeakSet[ConnectionPool] = WeakSet()
"""Pools of servers without functions, or on which we may not load any."""

_MISSING = ("function not found", "unknown command")


def is_missing(error: ResponseError) -> bool:
    """Whether the server does not know the function or script; it has executed nothing."""
    text = str(error).lower()
    is_refused = isinstance(error, NoScriptError | NoPermissionError)
    return is_refused or any(word in text for word in _MISSING)


_STEP_PARTS = (
    *("attempts", "release", "workers", "executions", "holders", "watching", "retention"),
    *("deadlines", "lifecycle", "rerun", "needless", "step"),
)
"""`step` is last, because it reads the functions of the others when it is loaded."""

ADD = HotScript("add.add_all")
RELEASE = HotScript("futures.close")
SETTLE = Script("settling.settle")
START = Script("attempts.start")
STEP = HotScript("step.make", *_STEP_PARTS)
EMPTY = Script("settling.empty_queue")
EXPIRED = Script("settling.expire")
COMMIT = Script("runs.commit")
CANCEL = Script("runs.begin_cancel")
KEEP_GROUPS = Script("keeping.copy_groups", "printed")
KEEP = Script("keeping.keep", "printed")
RETRY = Script("rerun.retry_run", *_STEP_PARTS)
ROUND = Script("rerun.retry_workflow", *_STEP_PARTS)
TURN = HotScript("turn.make", "attempts", "printed", "turn_ends", "turn_claims")
GIVE_BACK = Script("executions.give_back", "workers")
KEEP_PRINTED = Script("printed.keep_all")
CHARGE_VIEW = Script("printed.charge_view")
BEAT = Script("workers.beat")
FIND_LOST = Script("workers.find_lost")
DUE = Script("due.queue_all")
LEAVE = Script("workers.leave")
ARE_THERE = Script("workers.are_there")
GROW = Script("groups.grow")
TELL_ABOUT = Script("attempts.tell_about")
PROGRESS = Script("attempts.note_progress")
CALLS_OFF = Script("runs.is_called_off")
APPROVE = Script("approvals.approve")
MAY_GO_ON = Script("approvals.may_go_on")
HOLD = Script("approvals.hold")
SLEEP = Script("pauses.sleep")
POLL = Script("pauses.poll")
PAUSE = Script("pauses.begin")
MAY_RETRY = Script("retries.may_retry")
SET_APART = Script("jobs.set_apart")
READ_METRICS = Script("metrics.read")
COUNT = Script("counts.catch_up")
LIST_ITEMS = Script("counts.list_items")
FIND_EVENTS = Script("counts.find_events")
CHECK_LISTS = Script("listing.check")
SWEEP_LISTS = Script("listing.sweep")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
HOT = tuple(script for script in ALL if isinstance(script, HotScript))
"""The scripts that are functions on the server."""


def prepare() -> None:
    """Put all texts together now, so that no process that is forked from this one has to."""
    for script in ALL:
        _ = script.library if isinstance(script, HotScript) else script.digest
