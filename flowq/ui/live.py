"""Events for open pages: one follower for each run that somebody looks at, frames for each viewer.

A follower waits in a thread of its own for the events of its run, and counts them. At most four
times a second it writes one frame with what has changed, which all viewers get that have had the
frame before. A viewer that was slower, or comes back, gets the difference to what it has had, in
one frame. So nothing is queued for anybody, and no viewer waits for another one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from anyio import to_thread
from redis import Redis
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from flowq.errors import RunNotFound
from flowq.runtime import keys, runs
from flowq.runtime.connections import LONGEST_PAUSE_S, PAUSE_S, is_passing, shorten_wait
from flowq.status import RUN_ENDED
from flowq.ui.live_counts import (
    BEGINNING,
    Entry,
    LiveCounts,
    Position,
    as_text,
    read_declared,
)
from flowq.ui.site import Site, site_of

FRAME_S = 0.25
"""The shortest time between two frames, and between two reads of a follower."""

FRAME_PER_VIEWER_S = 0.02
"""Above 12 viewers, there are fewer frames the more there are, so that they take no more time."""

LINGER_S = 30.0
"""How long a follower goes on without a viewer: a page that is loaded again finds it."""

WAIT_S = 15.0
"""The longest read of a follower, and the longest silence of a stream: proxies end silent ones."""

MAX_VIEWERS = 100
"""Of all runs, in one process."""

RETRY_MS = 2_000
"""After so long, a browser opens a stream again that has broken."""

LATE_S = 2.0
"""How long a viewer is waited for that has seen more than its follower."""

PAGE = 1_000

log = logging.getLogger("flowq")


@dataclass(eq=False, slots=True)
class Viewer:
    """One open stream. `position` is that of the last frame that it got; None before."""

    position: Position | None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def has_seen(self, position: Position) -> bool:
        """Whether it has had everything up to a position."""
        return self.position is not None and self.position >= position

    def is_ahead_of(self, position: Position) -> bool:
        """Whether it has had more than what there is up to a position."""
        return self.position is not None and self.position > position

    def tell(self) -> None:
        """Wake the stream up, from any thread."""
        with suppress(RuntimeError):  # its loop has ended
            self.loop.call_soon_threadsafe(self.news.set)


@dataclass(frozen=True, slots=True)
class _Published:
    """Where a follower is. `frame` is the difference since `since`."""

    position: Position
    status: str
    is_ended: bool
    since: Position
    frame: bytes


class Follower:
    """Follows one run, in a thread, until it has had no viewers for a while.

    `published` is None before all events so far are counted. `away_since` is when the server became
    unavailable, as ISO text, or empty. `closed_as` is not empty once no frames come any more:
    `removed`, if the run does not exist, else `closed`.
    """

    def __init__(
        self,
        run_id: str,
        connection: Redis,
        may_end: Callable[[Follower], bool],
    ) -> None:
        self.run_id = run_id
        self.viewers = set[Viewer]()
        self.published: _Published | None = None
        self.away_since = ""
        self.closed_as = ""
        self.left_at = time.monotonic()
        self.frames_written = 0
        self._connection = connection
        # redis-py takes longer to make mappings of events than it takes to count them.
        self._raw: Any = Redis(connection_pool=connection.connection_pool)
        self._raw.response_callbacks.pop("XREAD", None)
        self._may_end = may_end
        self._counts: LiveCounts | None = None
        self._lock = threading.Lock()  # of the counts: a slow viewer's frame is written elsewhere
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, name=f"follower of {run_id}", daemon=True
        )

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self, why: str = "closed") -> None:
        """End all streams at once. Idempotent. The thread ends when its read returns."""
        self.closed_as = self.closed_as or why
        self._stopped.set()
        self._tell_viewers()

    def write_frame(self, since: Position | None) -> tuple[Position, bytes]:
        """Return where the counts are, and what has changed since a position, as an event."""
        with self._lock:
            assert self._counts is not None
            position, viewers = self._counts.position, len(self.viewers)
            text = self._counts.write_frame(since, viewers)
            self.frames_written += 1
        return position, _event("snapshot" if since is None else "frame", text, position)

    # In the thread ------------------------------------------------------------------------------

    def _follow(self) -> None:
        pause_s = PAUSE_S
        while not self._stopped.is_set():
            try:
                self._read()
                is_over = self._may_end(self)
            except RunNotFound:
                self.close("removed")
            except Exception as error:  # noqa: BLE001 - a thread has nobody to raise it to
                if not is_passing(error):
                    log.warning("cannot follow run %s: %s", self.run_id, error)
                    self.close()
                    break
                self._be_away()
                self._stopped.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = PAUSE_S
                if is_over:
                    self.close()
                self._stopped.wait(max(FRAME_S, FRAME_PER_VIEWER_S * len(self.viewers)))
        self._may_end(self)

    def _read(self) -> None:
        """Wait for events, count all there are, and publish what has changed."""
        if self._counts is None:
            self._counts = LiveCounts(read_declared(self.run_id, self._connection))
        before = self._counts.position
        wait_s: float | None = WAIT_S if self.viewers else LINGER_S / 2
        if self.published is None or self.away_since:
            wait_s = None
        while not self._stopped.is_set():
            entries = self._read_entries(self._counts.position, wait_s)
            if entries:
                with self._lock:
                    self._counts.add(entries)
            if len(entries) < PAGE:
                break
            wait_s = None
        was_away, self.away_since = self.away_since, ""
        if self._counts.position != before or self.published is None:
            self._publish(before)
        else:
            runs.get_record(self.run_id, self._connection)  # raises when it was removed
        if was_away:
            self._tell_viewers()

    def _read_entries(self, after: Position, wait_s: float | None) -> list[Entry]:
        if wait_s is not None:
            wait_s = shorten_wait(wait_s, self._connection)
        block = () if wait_s is None else ("BLOCK", max(1, int(wait_s * 1000)))
        words = ("COUNT", PAGE, *block, "STREAMS", keys.run_events(self.run_id), str(after))
        answer: Any = self._raw.execute_command("XREAD", *words) or {}
        streams = answer.items() if isinstance(answer, dict) else answer  # RESP3, or RESP2
        return [entry for _, entries in streams for entry in entries]

    def _publish(self, since: Position) -> None:
        assert self._counts is not None
        frame = self.write_frame(since)[1] if self.viewers else b""
        counts = self._counts
        self.published = _Published(
            counts.position, counts.status, counts.is_ended, since if frame else BEGINNING, frame
        )
        self._tell_viewers()

    def _be_away(self) -> None:
        if not self.away_since:
            self.away_since = datetime.now(UTC).isoformat(timespec="seconds")
            self._tell_viewers()
        self._connection.connection_pool.disconnect(inuse_connections=False)

    def _tell_viewers(self) -> None:
        for viewer in tuple(self.viewers):
            viewer.tell()


class TooManyViewers(Exception):
    """There is no room for another stream."""


class Live:
    """The followers of one application."""

    def __init__(self, connection: Redis, max_viewers: int = MAX_VIEWERS) -> None:
        self.followers = dict[str, Follower]()
        self.max_viewers = max_viewers
        self._connection = connection
        self._lock = threading.Lock()

    @property
    def viewer_count(self) -> int:
        """How many streams are open."""
        return sum(len(each.viewers) for each in tuple(self.followers.values()))

    def join(self, run_id: str, viewer: Viewer) -> Follower:
        """Return the follower of a run, which the viewer hears from now on.

        Errors: TooManyViewers.
        """
        with self._lock:
            if self.viewer_count >= self.max_viewers:
                raise TooManyViewers
            found = self.followers.get(run_id)
            if found is None or found.closed_as:
                found = Follower(run_id, self._connection, self._may_end)
                self.followers[run_id] = found
                found.viewers.add(viewer)
                found.start()
            else:
                found.viewers.add(viewer)
            return found

    def leave(self, follower: Follower, viewer: Viewer) -> None:
        """Let a viewer go. Idempotent."""
        with self._lock:
            follower.viewers.discard(viewer)
            follower.left_at = time.monotonic()

    def _may_end(self, follower: Follower) -> bool:
        """Whether a follower has had no viewers for a while; or it has ended, and is forgotten."""
        with self._lock:
            is_left = not follower.viewers and time.monotonic() - follower.left_at >= LINGER_S
            if not (is_left or follower.closed_as):
                return False
            if self.followers.get(follower.run_id) is follower:
                del self.followers[follower.run_id]
            return True


def live_of(site: Site) -> Live:
    """Return the followers of a site."""
    found = _live_by_site.get(site)
    if found is None:
        found = _live_by_site[site] = Live(site.connection)
    return found


_live_by_site: WeakKeyDictionary[Site, Live] = WeakKeyDictionary()


# The route ------------------------------------------------------------------------------------


async def follow(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/events` with a stream that ends after the end of the run.

    `Last-Event-ID`, or `?after=`, is the position that the page shows.
    """
    run_id: str = request.path_params["run"]
    connection, live = site_of(request).connection, live_of(site_of(request))
    after = request.headers.get("last-event-id") or request.query_params.get("after")
    position = Position.find(after)
    ended_as = await site_of(request).light.run(
        lambda _: _find_end(run_id, position, connection), request
    )
    if ended_as:
        stream = _end_at_once(run_id, ended_as)
    else:
        viewer = Viewer(position)
        try:
            follower = live.join(run_id, viewer)
        except TooManyViewers:
            return PlainTextResponse("too many open pages\n", 503, {"Retry-After": "5"})
        stream = stream_frames(live, follower, viewer)
    headers = {"X-Accel-Buffering": "no"}  # nginx would keep frames until there are many
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _find_end(run_id: str, position: Position | None, connection: Redis) -> str:
    """Return how a run has ended if the page shows its end already, else ''. Errors: RunNotFound.

    So an open page of an ended run can ask now and then whether it goes on, at no cost.
    """
    state = runs.get_record(run_id, connection).state
    if position is None or state not in RUN_ENDED:
        return ""
    newest: Any = connection.xrevrange(keys.run_events(run_id), count=1)
    return state if newest and Position.find(as_text(newest[0][0])) == position else ""


async def _end_at_once(run_id: str, status: str) -> AsyncIterator[bytes]:
    yield _end(run_id, status)


async def stream_frames(live: Live, follower: Follower, viewer: Viewer) -> AsyncIterator[bytes]:
    """Yield the events of one stream, until the run has ended or the viewer has gone."""
    try:
        yield b"retry: %d\n\n" % RETRY_MS
        late_at, told_away, has_sent = time.monotonic() + LATE_S, "", False
        while True:
            viewer.news.clear()
            now, wait_s = follower.published, WAIT_S
            if follower.away_since != told_away:
                told_away = follower.away_since
                yield _event("away", f'{{"since":"{told_away}"}}')
            if now is not None and not has_sent and viewer.is_ahead_of(now.position):
                wait_s = FRAME_S
                if time.monotonic() > late_at:
                    viewer.position = None  # the server has lost events, or it was a wrong one
            if now is not None and not viewer.has_seen(now.position):
                if viewer.position == now.since and now.frame:
                    viewer.position, frame = now.position, now.frame
                else:
                    viewer.position, frame = await to_thread.run_sync(
                        follower.write_frame, viewer.position
                    )
                has_sent = True
                yield frame
            elif now is not None and now.is_ended:
                yield _end(follower.run_id, now.status)
                return
            elif follower.closed_as:
                if follower.closed_as == "removed":
                    yield _end(follower.run_id, "removed")
                return
            elif not await _wait(viewer, wait_s) and wait_s == WAIT_S:
                yield b":\n\n"
    finally:
        live.leave(follower, viewer)


async def _wait(viewer: Viewer, seconds: float) -> bool:
    try:
        await asyncio.wait_for(viewer.news.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _event(kind: str, data: str, position: Position | None = None) -> bytes:
    place = f"id: {position}\n" if position is not None else ""
    return f"event: {kind}\n{place}data: {data}\n\n".encode()


def _end(run_id: str, status: str) -> bytes:
    return _event("end", f'{{"v":1,"run":"{run_id}","status":"{status}"}}')


ROUTES: list[BaseRoute] = [Route("/api/runs/{run}/events", follow)]
