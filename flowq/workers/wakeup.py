"""Wakes an idle worker when a job arrives, and receives RQ's commands.

The server tracks the queues' keys (`CLIENT TRACKING`, Redis 6 and Valkey) and notifies a
subscription when one of them changes. This pops nothing, works for any number of queues and any
client that pushes, and does not disturb a busy worker, which does not enable tracking. If the
server does not support tracking, the worker polls at short intervals.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq.utils import as_text

from flowq.runtime.connections import Outage, is_passing
from flowq.workers.address import Address

TRUST_S = 1.0
"""How long a request to be woken counts. Asking again every second costs little."""

BLIND_S = 0.1
"""How often a worker checks the queues if it has no connections for this."""

ANEW_S = 1.0
"""How often it tries to open them."""

CHANNEL = b"__redis__:invalidate"
log = logging.getLogger("rq.worker")


class Wakeup:
    """A subscription, and a connection that enables tracking.

    `open`, `arm`, `watch_schedules`, `listen` and `ask_for_sign` raise redis-py's errors.

    Attributes:
        can_notify: the server tracks keys.
        is_set: there may be jobs in the queues.
    """

    def __init__(
        self,
        address: Address,
        channel: str,
        queue_keys: Sequence[str],
        schedule_keys: Sequence[str] = (),
    ) -> None:
        self._address = address
        self._channel = channel.encode()
        self._queue_keys = list(queue_keys)
        self._schedule_keys = list(schedule_keys)
        self._watched_at = 0.0
        self._on_schedule: Callable[[], None] = lambda: None
        self._asking: Any = None
        self._subscription: Any = None
        self._armed_at = 0.0
        self._asked_at: float | None = None
        self._opens_at = self._looks_at = 0.0
        self.outage = Outage(log.error, log.warning)
        self.can_notify = False
        self.is_set = True

    def open(self) -> None:
        """Subscribe. Idempotent.

        If the server refuses for now (it may have no room for more clients), the worker goes on
        without: it polls the queues and receives no commands.
        """
        if self._subscription is not None or time.monotonic() < self._opens_at:
            return
        try:
            self._open()
        except RedisError as error:
            if not is_passing(error):
                raise
            self.close()
            self.outage.meet(error)
            self._opens_at = time.monotonic() + ANEW_S

    def _open(self) -> None:
        self._subscription = Redis(connection_pool=self._pool()).pubsub()  # type: ignore[no-untyped-call]
        self._subscription.execute_command("CLIENT", "ID")
        client_id = self._subscription.connection.read_response()
        self._subscription.subscribe(self._channel, CHANNEL)
        self._asking = self._pool().get_connection()
        try:
            self._ask(("CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "OPTIN"))
            self.can_notify = True
        except ResponseError as error:
            log.warning(
                "the server sends no wake-ups (%s); checking the queues every few milliseconds",
                error,
            )
            self.can_notify = False
        self._armed_at, self.is_set = 0.0, True
        self._watched_at = 0.0
        self._asked_at = None

    def set(self) -> None:
        """Note that there may be jobs."""
        self.is_set = True

    def clear(self) -> None:
        """Note that jobs are being requested: only later changes count."""
        self.is_set = False

    def call_on_schedule(self, function: Callable[[], None]) -> None:
        """Set the function to call when a schedule has changed."""
        self._on_schedule = function

    @property
    def is_armed(self) -> bool:
        """Whether the server will wake us; after TRUST_S this is not relied on any more."""
        return time.monotonic() - self._armed_at < TRUST_S

    def _pool(self) -> ConnectionPool:
        # RESP2: a subscription gets invalidations as messages. With RESP3 redis-py would handle the
        # pushes itself. No retries: a new subscription would be another client, to which the
        # server sends no invalidations. No health checks: their answers would mix with messages.
        return self._address.make_pool(
            protocol=2, retry=Retry(NoBackoff(), 0), health_check_interval=0
        )

    def _ask(self, *commands: tuple[Any, ...]) -> Any:
        # A client of redis-py would use any connection of its pool.
        self._asking.send_packed_command(self._asking.pack_commands(commands))
        return [self._asking.read_response() for _ in commands][-1]

    def arm(self) -> bool:
        """Ask to be woken when a queue changes; False if there are jobs already, or may be."""
        if self._asking is None:
            self.is_set = time.monotonic() >= self._looks_at
            if self.is_set:
                self._looks_at = time.monotonic() + BLIND_S
            return not self.is_set
        exists = ("EXISTS", *self._queue_keys)
        count = (
            self._ask(("CLIENT", "CACHING", "YES"), exists)
            if self.can_notify
            else self._ask(exists)
        )
        self._armed_at = time.monotonic() if self.can_notify and count == 0 else 0.0
        self.is_set = bool(count)
        return not count

    def watch_schedules(self) -> None:
        """Ask to be notified when a schedule changes (see `call_on_schedule`)."""
        is_watched = time.monotonic() - self._watched_at < TRUST_S
        if is_watched or self._asking is None or not self.can_notify or not self._schedule_keys:
            return
        self._ask(("CLIENT", "CACHING", "YES"), ("EXISTS", *self._schedule_keys))
        self._watched_at = time.monotonic()

    @property
    def socket(self) -> Any:
        """The socket of the subscription; None while there is none."""
        connection = getattr(self._subscription, "connection", None)
        return getattr(connection, "_sock", None)

    def listen(self) -> list[dict[str, Any]]:
        """Return the commands that have arrived.

        A change of a queue sets `is_set`; one of a schedule calls the function of
        `call_on_schedule`.
        """
        commands = []
        while (message := self._subscription.get_message(timeout=0)) is not None:
            self._asked_at = None
            if message["type"] != "message":
                continue
            if message["channel"] == CHANNEL:
                self._note_change(message["data"])
            else:
                commands += _parse(message["data"])
        return commands

    def _note_change(self, changed: list[bytes] | None) -> None:
        """Note which keys have changed; None means all, after a flush."""
        names = {as_text(key) for key in changed or ()}
        is_schedule = not changed or not names.isdisjoint(self._schedule_keys)
        if is_schedule:
            self._watched_at = 0.0
            self._on_schedule()
        if not changed or not names.issubset(self._schedule_keys):
            self._armed_at, self.is_set = 0.0, True

    def ask_for_sign(self) -> None:
        """Ping on the subscription, or check that the last ping was answered (`listen` reads it).

        A subscription only reads, so without pings it would never notice a lost connection.
        Errors: redis-py's TimeoutError if there is no answer.
        """
        if self._subscription is None:
            return
        if self._asked_at is None:
            self._subscription.ping()
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > self._subscription.connection.socket_timeout:
            raise RedisTimeoutError("the subscription does not answer")

    def close(self) -> None:
        """Close both connections. Idempotent."""
        with suppress(RedisError, OSError):  # they may be broken
            if self._subscription is not None:
                self._subscription.close()
            if self._asking is not None:
                self._asking.disconnect()
        self._subscription = self._asking = None
        self._armed_at, self.can_notify, self.is_set = 0.0, False, True


def _parse(data: bytes) -> list[dict[str, Any]]:
    try:
        command = json.loads(data)
    except ValueError:
        return []
    return [command] if isinstance(command, dict) else []
