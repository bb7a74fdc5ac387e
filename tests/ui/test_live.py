"""Events for open pages: true, few, and enough to go on from anywhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

import httpx
import pytest
import uvicorn
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import flowq.ui
from flowq.client import Run
from flowq.render.tally import Tally, walk
from flowq.runtime import keys, runs
from flowq.spec import ALL_TOLERATED, Approval
from flowq.ui import live
from flowq.ui.application import make_app
from flowq.ui.live import Follower, Live, TooManyViewers, Viewer, stream_frames
from flowq.ui.live_counts import LiveCounts, Position, read_declared
from flowq.ui.site import Site
from tests.runtime.language import RUN, Runs, each, job

Frames = list[tuple[str, str, dict[str, Any]]]
"""Events of a stream: kind, id, data."""


def submit_mixed(connection: Redis) -> None:
    """A run with a group, items that fail, a tolerated failure, a branch not taken, an approval."""
    Runs(connection).submit(
        job("items_", "make_list", with_={"count": 4}),
        job(
            "part",
            "fail_if",
            with_={"value": "${{ item }}", "bad": 2},
            for_each=each("${{ jobs.items_.result }}"),
        ),
        job("soft", "fail", with_={"message": "never mind"}, continue_on_error=ALL_TOLERATED),
        job("after", "give", with_={"value": "${{ jobs.part.result }}"}),
        job("gate", "give", with_={"value": 1}, approval=Approval()),
    )


def entries_of(connection: Redis, after: str = "-") -> list[Any]:
    """The run's events as the server tells them."""
    found: Any = connection.xrange(keys.run_events(RUN), after)
    return [[event_id, [*chain(*fields.items())]] for event_id, fields in found]


def apply(shown: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    """What a page shows after a frame."""
    return {**shown, **frame, "jobs": {**shown.get("jobs", {}), **frame["jobs"]}}


def truth(connection: Redis) -> dict[str, Any]:
    """The same as a frame, from a fold of all events."""
    status = runs.get_status(RUN, connection)
    parts = {part.path: part for part in walk(Tally(status).parts)}
    looks = {name: part.state for name, part in parts.items()}
    counts = Counter(status.count_by_state())
    for one in status.declared():
        if one.is_tolerated:
            counts["tolerated"] += 1
            counts["failed"] -= 1
            looks[one.name] = "tolerated"
    return {"status": status.state, "counts": +counts, "jobs": looks}


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_add_up_to_what_a_fold_of_all_events_says(
    connection: Redis, work: Callable[..., None], step: int
):
    submit_mixed(connection)
    work()
    counts, shown = LiveCounts(read_declared(RUN, connection)), dict[str, Any]()
    entries = entries_of(connection)
    for first in range(0, len(entries), step):
        before = counts.position if first else None
        counts.add(entries[first : first + step])
        shown = apply(shown, json.loads(counts.write_frame(before)))

    expected = truth(connection)
    assert shown["status"] == expected["status"] == "waiting"
    assert shown["counts"] == expected["counts"]
    assert {name: each["status"] for name, each in shown["jobs"].items()} == expected["jobs"]
    assert shown["jobs"]["part"]["counts"] == {"finished": 3, "failed": 1}
    assert shown["jobs"]["gate"]["reason"] == "waits for approval"
    assert shown["failures"] == [{"name": "part[2]", "error": "ValueError: 2 is bad"}]


def test_a_frame_has_only_what_has_changed_since_a_position(
    connection: Redis, work: Callable[..., None]
):
    submit_mixed(connection)
    work()
    counts = LiveCounts(read_declared(RUN, connection))
    counts.add(entries_of(connection))
    before = counts.position
    Run(RUN, connection).approve("gate", by="ada")
    counts.add(entries_of(connection, f"({before}"))

    frame = json.loads(counts.write_frame(before))
    assert [*frame["jobs"]] == ["gate"]
    assert "failures" not in frame
    assert json.loads(counts.write_frame(counts.position))["jobs"] == {}


def test_frames_have_no_items_however_many_there_are(connection: Redis, work: Callable[..., None]):
    Runs(connection).submit(
        job("page", "fail_if", with_={"value": "${{ item }}", "bad": 7}, for_each=each([7] * 300))
    )
    work()
    counts = LiveCounts(read_declared(RUN, connection))
    counts.add(entries_of(connection))

    text = counts.write_frame(None)
    assert json.loads(text)["jobs"] == {"page": {"status": "failed", "counts": {"failed": 300}}}
    assert len(json.loads(text)["failures"]) == 20
    assert len(text) < 2_500


def test_counting_an_event_of_a_large_group_costs_no_more_than_of_a_small_one(
    connection: Redis,
    work: Callable[..., None],
    count_operations: Callable[[Callable[[], object]], int],
):
    costs = []
    for size in (10, 300):
        connection.flushall()
        Runs(connection).submit(job("page", "give", with_={"value": 1}, for_each=each([1] * size)))
        work()
        counts = LiveCounts(read_declared(RUN, connection))
        *others, one, _ = entries_of(connection)
        counts.add(others)

        def add(counts: LiveCounts = counts, one: Any = one) -> None:
            before = counts.position
            counts.add([one])
            counts.write_frame(before)

        costs.append(count_operations(add))
    assert abs(costs[0] - costs[1]) < 20


def test_a_retried_job_is_no_failure_any_more(connection: Redis, work: Callable[..., None]):
    Runs(connection).submit(job("a", "fail"), job("b", "give", with_={"value": 1}, needs=("a",)))
    work()
    counts = LiveCounts(read_declared(RUN, connection))
    counts.add(entries_of(connection))
    assert counts.is_ended
    assert len(json.loads(counts.write_frame(None))["failures"]) == 1

    before = counts.position
    Run(RUN, connection).retry()
    counts.add(entries_of(connection, f"({before}"))
    frame = json.loads(counts.write_frame(before))
    assert (frame["status"], frame["failures"]) == ("running", [])


# Followers ------------------------------------------------------------------------------------


def read_events(data: bytes) -> Frames:
    """Parse a stream, without its comments and settings."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            data_ = json.loads(fields["data"])
            found.append((fields["event"], fields.get("id", ""), data_))
    return found


class Reader:
    """A viewer in this event loop that keeps what it gets."""

    def __init__(self, lives: Live, after: str | None = None) -> None:
        self.viewer = Viewer(Position.find(after))
        self.follower = lives.join(RUN, self.viewer)
        self._chunks = stream_frames(lives, self.follower, self.viewer)
        self.got: Frames = []

    async def until(self, is_enough: Callable[[Frames], object]) -> Frames:
        async with asyncio.timeout(60):
            while not is_enough(self.got):
                self.got += read_events(await anext(self._chunks))
        return self.got

    async def rest(self) -> Frames:
        async with asyncio.timeout(60):
            async for chunk in self._chunks:
                self.got += read_events(chunk)
        return self.got

    async def leave(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def followers(connection: Redis, **options: Any) -> AsyncIterator[Live]:
    lives = Live(connection, **options)
    yield lives
    for follower in [*lives.followers.values()]:
        follower.close()


def has_frame(got: Frames) -> bool:
    return bool(got)


def test_a_viewer_gets_a_snapshot_then_changes_then_the_end(
    connection: Redis, work: Callable[..., None]
):
    async def look() -> Frames:
        async with followers(connection) as lives:
            reader = Reader(lives)
            await reader.until(has_frame)
            work()
            await asyncio.to_thread(Run(RUN, connection).approve, "gate", by="ada")
            work()
            return await reader.rest()

    submit_mixed(connection)
    got = asyncio.run(look())

    assert got[0][0] == "snapshot"
    assert {kind for kind, _, _ in got[1:-1]} == {"frame"}
    assert got[-1] == ("end", "", {"v": 1, "run": RUN, "status": "failed"})
    shown: dict[str, Any] = {}
    for _, _, frame in got[:-1]:
        shown = apply(shown, frame)
    assert shown["counts"] == truth(connection)["counts"]
    assert got[-2][1] == entries_of(connection)[-1][0].decode()


def test_who_comes_back_gets_what_was_missed_in_one_frame(
    connection: Redis, work: Callable[..., None]
):
    async def look() -> tuple[Frames, Frames]:
        async with followers(connection) as lives:
            reader = Reader(lives)
            first = await reader.until(has_frame)
            await reader.leave()
            work(2)
            work()
            again = Reader(lives, after=first[-1][1])
            assert again.follower is reader.follower  # it has gone on
            newest = entries_of(connection)[-1][0].decode()
            return first, await again.until(lambda got: got and got[-1][1] == newest)

    submit_mixed(connection)
    first, missed = asyncio.run(look())

    assert [kind for kind, _, _ in missed] == ["frame"] * len(missed)
    shown = first[-1][2]
    for _, _, frame in missed:
        shown = apply(shown, frame)
    assert shown["counts"] == truth(connection)["counts"]
    assert any("items_" in frame["jobs"] for _, _, frame in missed)


@pytest.mark.parametrize("after", ["9999999999999-0", "nonsense", "0", ""])
def test_a_position_that_is_not_known_gets_a_snapshot(
    connection: Redis, monkeypatch: pytest.MonkeyPatch, after: str
):
    monkeypatch.setattr(live, "LATE_S", 0.0)

    async def look() -> Frames:
        async with followers(connection) as lives:
            return await Reader(lives, after).until(has_frame)

    submit_mixed(connection)
    assert [kind for kind, _, _ in asyncio.run(look())] == ["snapshot"]


def test_a_slow_viewer_holds_up_nobody_and_gets_the_difference_in_one_frame(
    connection: Redis, work: Callable[..., None], wait_until: Callable[..., None]
):
    async def look() -> tuple[Frames, Frames]:
        async with followers(connection) as lives:
            slow, quick = Reader(lives), Reader(lives)
            await slow.until(has_frame)
            await quick.until(has_frame)
            for _ in range(4):  # the slow one reads nothing of these
                seen = len(quick.got)
                work(1)
                await quick.until(lambda got, seen=seen: len(got) > seen)
            await asyncio.to_thread(Run(RUN, connection).cancel)
            work()
            await quick.rest()
            return await slow.rest(), quick.got

    submit_mixed(connection)
    slow, quick = asyncio.run(look())

    assert [kind for kind, _, _ in slow] == ["snapshot", "frame", "end"]
    assert len(quick) > 5
    shown = apply(slow[0][2], slow[1][2])
    assert shown["counts"] == truth(connection)["counts"]
    assert slow[1][1] == quick[-2][1]


def test_viewers_of_a_run_share_a_follower_and_its_frames(
    connection: Redis, work: Callable[..., None]
):
    async def look() -> tuple[Follower, int, int]:
        async with followers(connection) as lives:
            readers = [Reader(lives) for _ in range(50)]
            for reader in readers:
                await reader.until(has_frame)
            before, threads = readers[0].follower.frames_written, threading.active_count()
            work(1)
            got = [
                await reader.until(lambda got: len(got) > 1 and got[-1][2]["counts"]["finished"])
                for reader in readers
            ]
            assert len(lives.followers) == 1
            written = readers[0].follower.frames_written - before
            assert written <= max(len(each) for each in got)
            return readers[0].follower, written, threads

    submit_mixed(connection)
    _, written, threads = asyncio.run(look())
    assert written < 10
    assert threads < 50


def test_there_is_room_for_so_many_viewers_only(connection: Redis):
    async def look() -> None:
        async with followers(connection, max_viewers=2) as lives:
            first = Reader(lives)
            Reader(lives)
            with pytest.raises(TooManyViewers):
                Reader(lives)
            await first.until(has_frame)
            await first.leave()
            Reader(lives)

    submit_mixed(connection)
    asyncio.run(look())


def test_a_follower_ends_some_time_after_its_last_viewer(
    connection: Redis, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
):
    monkeypatch.setattr(live, "LINGER_S", 0.2)

    async def look() -> None:
        async with followers(connection) as lives:
            reader = Reader(lives)
            await reader.until(has_frame)
            await reader.leave()
            connection.xadd(keys.run_events(RUN), {"job": "", "name": "", "state": "running"})
            await asyncio.to_thread(wait_until, lambda: not lives.followers)
            assert reader.follower.closed_as
            again = Reader(lives)
            assert again.follower is not reader.follower
            await again.until(has_frame)

    submit_mixed(connection)
    asyncio.run(look())


def test_the_end_of_a_follower_ends_its_streams(connection: Redis):
    async def look() -> list[Frames]:
        async with followers(connection) as lives:
            readers = [Reader(lives) for _ in range(3)]
            for reader in readers:
                await reader.until(has_frame)
            rests = [asyncio.create_task(reader.rest()) for reader in readers]
            await asyncio.sleep(0)
            readers[0].follower.close()
            return [await rest for rest in rests]

    submit_mixed(connection)
    assert all("end" not in [kind for kind, _, _ in got] for got in asyncio.run(look()))


def test_a_run_that_is_removed_ends_its_streams(connection: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "WAIT_S", 0.05)

    async def look() -> Frames:
        async with followers(connection) as lives:
            reader = Reader(lives)
            await reader.until(has_frame)
            await asyncio.to_thread(runs.remove, RUN, connection)
            return await reader.rest()

    submit_mixed(connection)
    assert asyncio.run(look())[-1][2]["status"] == "removed"


def test_a_follower_whose_server_is_away_keeps_no_connection_to_it(connection: Redis):
    connection.ping()
    pool: Any = connection.connection_pool
    follower = Follower(RUN, connection, lambda _: False)

    follower._be_away()

    assert pool._available_connections
    assert not any(each._sock for each in pool._available_connections)


def test_a_follower_waits_for_a_server_that_is_away(
    connection: Redis, work: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "WAIT_S", 0.05)
    is_away = threading.Event()
    read = Follower._read_entries

    def read_or_fail(*arguments: Any) -> Any:
        if is_away.is_set():
            raise RedisConnectionError("it is away")
        return read(*arguments)

    monkeypatch.setattr(Follower, "_read_entries", read_or_fail)

    async def look() -> Frames:
        async with followers(connection) as lives:
            reader = Reader(lives)
            await reader.until(has_frame)
            is_away.set()
            await reader.until(lambda got: got[-1][0] == "away")
            work(1)
            is_away.clear()
            return await reader.until(lambda got: got[-1][0] == "frame")

    submit_mixed(connection)
    got = asyncio.run(look())
    away = [data["since"] for kind, _, data in got if kind == "away"]
    assert away[0]
    assert got[-1][2]["counts"]["finished"] == 1


# The route ------------------------------------------------------------------------------------


def test_the_stream_of_an_ended_run_is_its_counts_and_its_end(
    connection: Redis, work: Callable[..., None]
):
    site = Site(connection)
    page = TestClient(make_app(site, lambda _: "ada"))
    Runs(connection).submit(job("a", "give", with_={"value": 1}))
    work()

    reply = page.get(f"/api/runs/{RUN}/events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    (kind, position, frame), end = read_events(reply.content)
    assert (kind, frame["status"], frame["jobs"]["a"]) == (
        "snapshot",
        "succeeded",
        {"status": "finished"},
    )
    assert end[0] == "end"

    # Who has seen all of it gets the end, and no follower is started for it.
    followers = live.live_of(site).followers
    followers.clear()
    for options in ({"params": {"after": position}}, {"headers": {"Last-Event-ID": position}}):
        reply = page.get(f"/api/runs/{RUN}/events", **options)  # type: ignore[arg-type]
        assert [kind for kind, _, _ in read_events(reply.content)] == ["end"]
    assert not followers


def test_a_full_process_says_when_to_come_again(connection: Redis):
    site = Site(connection)
    page = TestClient(make_app(site, lambda _: "ada"))
    submit_mixed(connection)
    live.live_of(site).max_viewers = 0

    reply = page.get(f"/api/runs/{RUN}/events")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")


def test_events_of_an_unknown_run_are_not_found(page: TestClient):
    assert page.get("/api/runs/nope/events").status_code == 404


def test_open_streams_of_a_mounted_page_end_with_the_server_as_the_documentation_says(
    connection: Redis, wait_until: Callable[..., None]
):
    """Uvicorn tells it nothing before its streams have ended, and so has to cut them off."""
    submit_mixed(connection)
    mounted = flowq.ui.app(connection=connection, authorize=lambda _: "ada")
    outer = Starlette(routes=[Mount("/jobs", mounted)])
    config = uvicorn.Config(
        outer, port=0, log_config=None, log_level="critical", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/jobs/api/runs/{RUN}/events"
    wait_until(lambda: server.started)
    with suppress(httpx.RemoteProtocolError), httpx.stream("GET", url) as reply:
        for line in reply.iter_lines():
            if line == "event: snapshot":
                server.should_exit = True
    wait_until(lambda: not thread.is_alive())
    assert server.should_exit
