"""Waiting for a server that is unavailable or refuses commands; its clock; reads in pages.

`ANSWERS` is the one table of the refusals of a server, and says which of them pass. A test compares
it with docs/production.md. Code that catches errors of redis-py calls `is_passing` or `is_refusal`
instead of naming classes: redis-py has a class for some of these answers, and only the text for
others.

The clock of the server decides what is due. Scripts read it themselves (`lua/common.lua`). Python
reads it with `read_clock` for every instant that is compared with others later: the clock of a host
may be wrong by hours.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from flowq.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


def _read_max_wait() -> float:
    text = os.environ.get("FLOWQ_PATIENCE", "").strip() or "30"
    with suppress(ValueError):
        if float(text) >= 0:  # which nan is not
            return float(text)
    raise UsageError(f"FLOWQ_PATIENCE must be a number of seconds, not {text!r}")


MAX_WAIT_S = _read_max_wait()
"""How long a command waits for an unavailable server."""

JOB_MAX_WAIT_S = 2 * MAX_WAIT_S
"""How long a job waits for an unavailable server, unless its own timeout comes first."""

PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

CALM_S = 2.0
"""An outage is over after so long without an error, so that repeated short ones count as one."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer by which a server refuses a command, without executing any of it.

    Attributes:
        word: the beginning of the answer, in the protocol.
        meaning: completes "the server cannot be used: …".
        advice: what an operator can do.
        is_waited_for: the state passes, by itself or by an operator, so the command is repeated.
    """

    word: str
    meaning: str
    advice: str = ""
    is_waited_for: bool = True


ANSWERS = (
    Answer("LOADING", "it is still loading its data", "try again in a moment"),
    Answer(
        "OOM",
        "its memory is full (maxmemory)",
        "raise that limit, or wait until old runs have expired",
    ),
    Answer(
        "MISCONF",
        "it cannot write to its disk, which may be full, and accepts no changes",
        "make room",
    ),
    Answer("NOREPLICAS", "it has too few replicas (min-replicas-to-write)"),
    Answer("READONLY", "it is a replica, perhaps because another server has taken over"),
    Answer("UNBLOCKED", "it has just become a replica"),
    Answer("MASTERDOWN", "it is a replica that has lost its primary"),
    Answer("CLUSTERDOWN", "its cluster is not complete"),
    Answer("TRYAGAIN", "its keys are being moved to another node"),
    Answer("BUSY", "it is busy with a long script"),
    Answer("ERR max number of clients reached", "it has no room for another client (maxclients)"),
    *(
        Answer(word, meaning, is_waited_for=False)
        for word, meaning in {
            "NOSCRIPT": "it does not know a script, so flowq sends it",
            "NOAUTH": "it requires a password",
            "WRONGPASS": "it refuses the password",
            "NOPERM": "the user lacks a permission",
            "MOVED": "it is one node of a cluster",
            "ASK": "it is one node of a cluster",
            "CROSSSLOT": "the keys are in several slots of a cluster",
        }.items()
    ),
)

_BY_WORD = {answer.word: answer for answer in ANSWERS}
_MAX_CLIENTS = "ERR max number of clients reached"

_WORD_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (BusyLoadingError, "LOADING"),
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (MasterDownError, "MASTERDOWN"),  # before the class that it is derived from
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (NoScriptError, "NOSCRIPT"),
    (NoPermissionError, "NOPERM"),
    (MovedError, "MOVED"),  # before the class that it is derived from
    (AskError, "ASK"),
    (ClusterCrossSlotError, "CROSSSLOT"),
)
"""The classes of redis-py from whose message the word is removed."""

# redis-py puts the command of a pipeline before the answer, and Redis 6.2 the line in a script.
_WORD = re.compile(
    rf"(?:^|of pipeline caused error: |: -)({'|'.join(w for w in _BY_WORD if w.isupper())})\b"
)


def find_answer(error: BaseException) -> Answer | None:
    """Return the answer in the table that caused an error of redis-py; None for other errors."""
    if not isinstance(error, RedisError):
        return None
    for kind, word in _WORD_BY_CLASS:
        if isinstance(error, kind):
            return _BY_WORD[word]
    text = str(error)
    if "max number of clients reached" in text:
        return _BY_WORD[_MAX_CLIENTS]
    found = _WORD.search(text)
    return _BY_WORD[found.group(1)] if found else None


def is_refusal(error: BaseException) -> bool:
    """Whether the server refuses commands for a while. It has executed nothing."""
    answer = find_answer(error)
    return answer is not None and answer.is_waited_for


def is_passing(error: BaseException) -> bool:
    """Whether to repeat the command later: the server refuses for a while, or is unavailable.

    If it is unavailable, it may have executed the command. redis-py raises its own errors for its
    connections, so any other OSError has another cause, such as a file that user code has opened.
    """
    answer = find_answer(error)
    if answer is not None:
        return answer.is_waited_for
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    return isinstance(error, RedisConnectionError | RedisTimeoutError)


def describe(error: BaseException) -> str:
    """Say in one line why the server cannot be used."""
    answer = find_answer(error)
    text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    return answer.meaning if answer is not None and answer.is_waited_for else text


class Outage:
    """Tells that the server cannot be used when that begins, and when it is over: once each.

    `tell_begin` and `tell_end` are called with a message. Call `meet` for each error, and `check`
    from time to time while there is none.
    """

    def __init__(
        self, tell_begin: Callable[[str], object], tell_end: Callable[[str], object]
    ) -> None:
        self._tell_begin = tell_begin
        self._tell_end = tell_end
        self._is_on = False
        self._began_at = self._met_at = 0.0

    @contextmanager
    def told_by(self, tell: Callable[[str], object]) -> Iterator[None]:
        """Tell it in another way inside this context."""
        before = self._tell_begin, self._tell_end
        self._tell_begin = self._tell_end = tell
        try:
            yield
        finally:
            self._tell_begin, self._tell_end = before

    def meet(self, error: BaseException) -> None:
        """Note an error of the server."""
        self._met_at = time.monotonic()
        if not self._is_on:
            self._is_on, self._began_at = True, self._met_at
            self._tell_begin(f"the server cannot be used: {describe(error)}; waiting for it")

    def check(self) -> None:
        """Note that the server answers; after CALM_S the outage is over."""
        if self._is_on and time.monotonic() - self._met_at > CALM_S:
            self.end()

    def end(self) -> None:
        """End the outage, if there is one, without waiting for CALM_S."""
        if self._is_on:
            self._is_on = False
            seconds = self._met_at - self._began_at
            self._tell_end(f"the server can be used again, after {seconds:.1f} s")


class Attempts:
    """Decides whether to repeat a failed operation, and reports the outage.

    Attempts go on for `within_s` after the first failure, which a connection may notice only after
    its whole time limit. The idle connections of `connection` are closed before each further
    attempt: after a fail-over they lead to the old server.
    """

    def __init__(
        self,
        within_s: float = MAX_WAIT_S,
        *,
        connection: Redis | None = None,
        outage: Outage | None = None,
        passes: Callable[[Exception], bool] = is_passing,
    ) -> None:
        self._within_s = within_s
        self._connection = connection
        self._outage = outage
        self._passes = passes
        self._deadline: float | None = None

    @property
    def have_failed(self) -> bool:
        """Whether an attempt has failed."""
        return self._deadline is not None

    def fail(self, error: Exception) -> None:
        """Note a failure; raise the error if another attempt would not help."""
        self._deadline = self._deadline or time.monotonic() + self._within_s
        if not self._passes(error) or time.monotonic() > self._deadline:
            raise error
        if self._connection is not None:
            self._connection.connection_pool.disconnect(inuse_connections=False)
        if self._outage is not None:
            self._outage.meet(error)


def retry_while_unavailable(
    do: Callable[[], Result],
    within_s: float = MAX_WAIT_S,
    *,
    connection: Redis | None = None,
    outage: Outage | None = None,
    passes: Callable[[Exception], bool] = is_passing,
) -> Result:
    """Call `do`, and repeat it while the server is unavailable. It may be executed twice.

    Blocks: up to `within_s` and a time limit of the connection. Errors: redis-py's, if the outage
    lasts longer or the error does not pass.
    """
    attempts = Attempts(within_s, connection=connection, outage=outage, passes=passes)
    pause_s = PAUSE_S
    while True:
        try:
            result = do()
        except Exception as error:  # noqa: BLE001 - `fail` raises it if it does not pass
            attempts.fail(error)
            pause(pause_s, connection)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if outage is not None and attempts.have_failed:
                outage.end()
            return result


def pause(seconds: float, connection: Redis | None = None) -> None:
    """Sleep: as the connection does, if it has a way of its own."""
    getattr(connection, "pause", time.sleep)(seconds)


def shorten_wait(seconds: float, connection: Redis) -> float:
    """Return how long a blocking read may wait, so that it does not count as one that failed."""
    limit_s = connection.connection_pool.connection_kwargs.get("socket_timeout")
    return min(seconds, limit_s / 2) if limit_s else seconds


def do_or_leave_to_others(do: Callable[[], object], connection: Redis) -> None:
    """Do what follows a change that the server has made, unless it becomes unavailable.

    Maintenance then does the same later, so the caller must not get an error: the change was made.
    Blocks: up to `MAX_WAIT_S` if the connection is lost; a server that refuses is not waited for,
    beyond what the connection itself waits. Errors: any but those of an unavailable server.
    """

    def is_lost(error: Exception) -> bool:
        return is_passing(error) and not is_refusal(error)

    try:
        retry_while_unavailable(do, MAX_WAIT_S, connection=connection, passes=is_lost)
    except RedisError as error:
        if not is_passing(error):
            raise


class RetryWhileRefused(Retry):
    """Makes each command of a connection wait while the server refuses (`Redis.set_retry`).

    A refused command was not executed, so it can be sent again. A lost connection is an error: the
    command may have been executed, and it is unknown here whether it may be executed twice.
    """

    def __init__(self, outage: Outage, within_s: float = MAX_WAIT_S) -> None:
        super().__init__(NoBackoff(), 0)
        self.within_s = within_s
        self.outage = outage
        self._is_waiting = False

    def wait_at_most(self, within_s: float) -> float:
        """Set how long a command waits; return the previous value."""
        before, self.within_s = self.within_s, within_s
        return before

    def __deepcopy__(self, memo: object) -> Self:
        """Return this object: connections copy it, and all share one outage."""
        return self

    def call_with_retry(self, do: Any, fail: Any, *args: Any, **options: Any) -> Any:
        """Do as redis-py's, repeatedly while the server refuses; reconnect each time."""
        call = partial(super().call_with_retry, do, fail, *args, **options)
        if self._is_waiting or not self.within_s:  # this call is part of one that waits
            return call()

        def call_and_hang_up() -> Any:
            try:
                return call()
            except ResponseError as error:
                if is_refusal(error):  # reconnect: another server may have taken the address
                    fail(error, 1) if options.get("with_failure_count") else fail(error)
                raise

        self._is_waiting = True
        try:
            return self.apply(call_and_hang_up)
        finally:
            self._is_waiting = False

    def apply(
        self, do: Callable[[], Result], passes: Callable[[Exception], bool] = is_refusal
    ) -> Result:
        """Call `do`, and repeat it while its error passes, for up to `within_s`.

        After it has given up once, it does not wait again: the caller may have to clean up.
        """
        try:
            return retry_while_unavailable(do, self.within_s, outage=self.outage, passes=passes)
        except Exception as error:
            if passes(error):
                self.within_s = 0.0
            raise


def refuse_unusable(connection: Redis) -> None:
    """Refuse a client of `redis.asyncio`, and one that decodes responses: RQ stores bytes.

    Errors: UsageError.
    """
    if any(each.__module__.startswith("redis.asyncio") for each in type(connection).__mro__):
        raise UsageError(
            "this is a client of redis.asyncio, whose commands must be awaited: pass it to the "
            "functions of flowq.aio, or pass a redis.Redis here"
        )
    if not hasattr(connection, "get_encoder"):
        raise UsageError(
            f"connection= takes a redis.Redis, and in functions of flowq a URL, not {connection!r}"
        )
    if connection.get_encoder().decode_responses:
        raise UsageError(
            "a connection with decode_responses=True cannot be used: RQ keeps bytes in Redis"
        )


# Many reads ---------------------------------------------------------------------------------


IDS_PER_READ = 500
"""Keeps one round trip well below 20 ms on the server."""


def read_each(
    ids: Iterable[str], connection: Redis, ask: Callable[[Pipeline, str], object]
) -> Iterator[tuple[str, list[Any]]]:
    """Yield each id with the answers to what `ask` asks about it, a page of ids in one round trip.

    `ask` adds the same number of commands to the pipeline for each id.
    """
    wanted = list(ids)
    for first in range(0, len(wanted), IDS_PER_READ):
        page = wanted[first : first + IDS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for each in page:
                ask(pipeline, each)
            answers = pipeline.execute()
        count = len(answers) // len(page)
        for at, each in enumerate(page):
            yield each, answers[at * count : (at + 1) * count]


# The clock of the server --------------------------------------------------------------------


MAX_DIFFERENCE_S = 5.0
"""The difference between the clocks of host and server that is tolerated."""


def read_clock(connection: Redis) -> float:
    """Return the server's clock in epoch seconds."""
    seconds, microseconds = connection.time()
    return float(seconds + microseconds / 1e6)


def clock_warning(theirs_s: float, before_s: float, after_s: float) -> str:
    """Return a warning if this host's clock differs from the server's; "" otherwise.

    `theirs_s` was read from the server, between the other two instants, which were read here.
    """
    difference_s = max(before_s - theirs_s, theirs_s - after_s)
    if difference_s <= MAX_DIFFERENCE_S:
        return ""
    how = "ahead of" if before_s > theirs_s else "behind"
    return (
        f"the clock of this host is {difference_s:.0f} s {how} the server's, which decides what is "
        "due; correct it (NTP): RQ's own tools and the displayed times use this host's clock"
    )
