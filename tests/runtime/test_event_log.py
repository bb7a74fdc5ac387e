"""Events of one run, and of all runs: each is read once, from any position on."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import flowq
from flowq import aio, server
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.errors import RunNotFound, UsageError
from flowq.event import Event
from flowq.runtime import event_log, keys, runs
from flowq.runtime.connections import Outage
from flowq.runtime.event_log import Position
from tests.reading import parse_workflow
from tests.runtime.server_processes import end, kill, pid_of

FLOW = """
name: flow
jobs:
  good: {call: "json:dumps", with: {obj: 1}}
  bad: {call: "json:loads", with: {s: "{"}, needs: good}
"""

ADD_EVENTS = """
for i = 1, tonumber(ARGV[1]) do
  redis.call('XADD', KEYS[1], '*', 'job', ARGV[2], 'name', ARGV[3], 'state', ARGV[4], 'reason', '')
end
"""
"""All in one call, so many have the same instant."""


def add(
    connection: redis.Redis, run_id: str, count: int = 1, name: str = "a", state: str = "started"
) -> None:
    """Write events as workers of the first version did."""
    job = f"{run_id}-{name}"
    connection.eval(ADD_EVENTS, 1, keys.run_events(run_id), count, job, name, state)


def make_run(connection: redis.Redis, run_id: str, state: str = "running") -> None:
    connection.hset(keys.run(run_id), "state", state)
    connection.zadd(keys.RUNS, {run_id: time.time()})


def ids(events: Iterator[Event] | Sequence[Event]) -> list[str]:
    return [event.id for event in events]


def read(run: str | None, connection: redis.Redis, after: str | None = None) -> list[Event]:
    return list(flowq.events(run, after=after, connection=connection))


@pytest.fixture
def run(connection: redis.Redis, work: Callable[..., None]) -> Run:
    """A run that has failed."""
    submitted = submit(compile_plan(parse_workflow(FLOW, "flow.yaml"), {}), connection)
    work()
    return submitted


class Stopped(Exception):
    """The test is over."""


class Reader(threading.Thread):
    """Follows a run, or all runs, in another thread, which ends with the test."""

    def __init__(self, run_id: str | None, connection: redis.Redis, after: str) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self.error: Exception | None = None
        self.is_stopped = False
        self._connection = connection
        given: Any = self
        self._read = event_log.read(run_id, given, after=after, is_following=True)
        self.start()

    def __getattr__(self, name: str) -> Any:
        """Stand for the connection."""
        if self.is_stopped:
            raise Stopped
        return getattr(self._connection, name)

    def run(self) -> None:
        try:
            for event in self._read:
                self.events.append(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, a test looks at it
            self.error = error


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    """`follow(run_id, connection, after="0")`: read what happens, at the side."""
    readers: list[Reader] = []

    def begin(run_id: str | None, connection: redis.Redis, after: str = "0") -> Reader:
        readers.append(Reader(run_id, connection, after))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.is_stopped = True
        reader.join(60)


# One run ------------------------------------------------------------------------------------------


def test_the_events_of_a_run_have_its_jobs_and_its_end(run: Run) -> None:
    events = list(flowq.events(run))
    assert [event.event for event in events if event.name == "good"][-1] == "finished"
    assert (events[-1].event, events[-1].status, events[-1].name) == ("failed", "failed", "")
    assert {event.run for event in events} == {run.run_id}
    (failed,) = (event for event in events if event.name == "bad" and event.event == "failed")
    assert failed.error is not None
    assert failed.error.type == "JSONDecodeError"
    assert failed.duration_s is not None
    assert failed.duration_s >= 0
    assert failed.started_at is not None
    assert failed.started_at.utcoffset() is not None


def test_events_are_immutable(run: Run) -> None:
    event = next(flowq.events(run))
    with pytest.raises(AttributeError):
        event.name = "other"  # type: ignore[misc]


def test_following_a_run_that_has_ended_ends(run: Run, connection: redis.Redis) -> None:
    followed = list(flowq.events(run.run_id, follow=True, connection=connection))
    assert followed == list(flowq.events(run))
    assert list(flowq.events(run, after=followed[-1], follow=True)) == []


def test_following_ends_with_the_last_event_of_a_run(
    connection: redis.Redis, wait_until: Callable[..., None], follow: Callable[..., Reader]
) -> None:
    make_run(connection, "one")
    reader = follow("one", connection)
    add(connection, "one", 3)
    wait_until(lambda: len(reader.events) == 3)
    connection.hset(keys.run("one"), "state", "succeeded")
    add(connection, "one", name="", state="succeeded")
    reader.join(60)
    assert not reader.is_alive()
    assert [event.event for event in reader.events] == ["started"] * 3 + ["succeeded"]


def test_following_goes_on_over_the_retry_of_a_run(
    connection: redis.Redis, wait_until: Callable[..., None], follow: Callable[..., Reader]
) -> None:
    make_run(connection, "one")
    add(connection, "one", name="", state="failed")
    add(connection, "one", name="", state="running")
    reader = follow("one", connection)
    wait_until(lambda: len(reader.events) == 2)
    assert reader.is_alive()
    connection.hset(keys.run("one"), "state", "succeeded")
    add(connection, "one", name="", state="succeeded")
    reader.join(60)
    assert reader.events[-1].event == "succeeded"


def test_a_run_that_never_existed_is_not_found(connection: redis.Redis) -> None:
    with pytest.raises(RunNotFound, match="nowhere"):
        read("nowhere", connection)


@pytest.mark.parametrize("is_following", [True, False])
def test_a_run_that_is_removed_while_it_is_read_is_said_to_be(
    run: Run, connection: redis.Redis, is_following: bool
) -> None:
    events = flowq.events(run, follow=is_following)
    next(events)
    runs.remove(run.run_id, connection)
    with pytest.raises(RunNotFound, match="it was removed while its events were read"):
        list(events)


@pytest.mark.parametrize(
    "after", ["x", "1-2-3", "-1", "1-x", "$", "1@", "1-99999999999999999999", "1 - 2"]
)
def test_what_is_no_position_is_refused_at_once(connection: redis.Redis, after: str) -> None:
    with pytest.raises(UsageError, match="is no position: give the id of an event"):
        flowq.events("any", after=after, connection=connection)


def test_now_leaves_out_what_was_before(
    connection: redis.Redis, wait_until: Callable[..., None], follow: Callable[..., Reader]
) -> None:
    make_run(connection, "one")
    add(connection, "one", 3)
    assert read("one", connection, "now") == []
    assert read(None, connection, "now") == []
    reader = follow("one", connection, "now")
    all_runs = follow(None, connection, "now")

    def has_come() -> bool:  # the readers may have begun after an event
        add(connection, "one", name="b")
        return bool(reader.events and all_runs.events)

    wait_until(has_come)
    assert {event.name for event in reader.events + all_runs.events} == {"b"}


def test_a_run_of_100000_events_is_read_page_by_page(connection: redis.Redis) -> None:
    make_run(connection, "large")
    add(connection, "large", 100_000)
    connection.config_resetstat()
    events = flowq.events("large", connection=connection)
    next(events)
    assert connection.info("commandstats")["cmdstat_xread"]["calls"] == 1
    assert sum(1 for _ in events) == 99_999
    assert connection.info("commandstats")["cmdstat_xread"]["calls"] == 101


def test_events_of_later_versions_are_given_as_they_are(connection: redis.Redis) -> None:
    make_run(connection, "one")
    add(connection, "one", state="teleported")
    (event,) = read("one", connection)
    assert (event.event, event.status) == ("teleported", "teleported")


# All runs -----------------------------------------------------------------------------------------


def fill_runs(connection: redis.Redis, seed: int) -> random.Random:
    """Make some runs with events at random, many at the same instant."""
    chance = random.Random(seed)
    names = [f"run{number}" for number in range(chance.randint(1, 6))]
    for name in chance.sample(names, len(names)):
        make_run(connection, name)
    for _ in range(30):
        add(connection, chance.choice(names), chance.choice([1, 2, 3, 200]))
    return chance


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_all", [True, False])
def test_reading_in_parts_gives_each_event_once(
    connection: redis.Redis, seed: int, is_all: bool
) -> None:
    """A reader that dies at any event, and goes on behind the last one that it was given."""
    chance = fill_runs(connection, seed)
    run = None if is_all else "run0"
    whole = ids(read(run, connection))
    assert len(set(whole)) == len(whole)
    parts: list[str] = []
    while part := ids(
        islice(
            event_log.read(run, connection, after=parts[-1] if parts else "0"),
            chance.choice([1, 7, 120, 999, 1_000, 1_001]) + len(whole) // 5,
        )
    ):
        parts += part
    assert parts == whole


def test_the_events_of_all_runs_are_those_of_each(connection: redis.Redis) -> None:
    fill_runs(connection, 7)
    events = read(None, connection)
    assert ids(events) == sorted(ids(events), key=Position.read)
    for run_id in {event.run for event in events}:
        own = ids([event for event in events if event.run == run_id])
        assert own == [f"{each}@{run_id}" for each in ids(read(run_id, connection))]


def test_a_position_of_all_runs_serves_for_one_and_the_other_way_round(
    connection: redis.Redis,
) -> None:
    for name in ("a", "b"):
        make_run(connection, name)
        add(connection, name, 2)
    whole = read(None, connection)
    for at, event in enumerate(whole):
        for run_id in ("a", "b"):
            left = [each for each in whole[at + 1 :] if each.run == run_id]
            assert len(read(run_id, connection, event.id)) == len(left)
    of_b = read("b", connection)
    position = Position.read(of_b[0].id)
    left = [each for each in whole if Position.read(each.id) > position]
    assert read(None, connection, of_b[0].id) == left


def test_a_follower_of_all_runs_sees_new_runs_and_old_ones_that_go_on(
    connection: redis.Redis, wait_until: Callable[..., None], follow: Callable[..., Reader]
) -> None:
    make_run(connection, "old", "failed")
    add(connection, "old")
    reader = follow(None, connection)
    wait_until(lambda: len(reader.events) == 1)
    make_run(connection, "new")
    add(connection, "new", 2)
    wait_until(lambda: len(reader.events) == 3)
    add(connection, "old")
    wait_until(lambda: len(reader.events) == 4)
    assert [event.run for event in reader.events] == ["old", "new", "new", "old"]
    assert ids(reader.events) == ids(read(None, connection))


def test_runs_share_the_memory_for_events(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if all of them have many, of the same time."""
    monkeypatch.setattr(event_log, "MOST_KEPT", 30)
    read_entry, in_memory, most = event_log.read_entry, 0, 0

    def note_entry(*each: Any) -> Any:
        nonlocal in_memory, most
        in_memory += 1
        most = max(most, in_memory)
        return read_entry(*each)

    monkeypatch.setattr(event_log, "read_entry", note_entry)
    for name in range(10):
        make_run(connection, f"run{name}")
        add(connection, f"run{name}", 40)
    count = 0
    for _ in flowq.events(connection=connection):
        in_memory -= 1
        count += 1
    assert count == 400
    assert most <= 30 + 10


def test_a_follower_waits_no_longer_than_its_connection(
    connection: redis.Redis, redis_url: str
) -> None:
    make_run(connection, "run")
    add(connection, "run")
    told: list[str] = []
    outage = Outage(told.append, told.append)
    with redis.Redis.from_url(redis_url, socket_timeout=0.4, retry=None) as hasty:
        following = event_log.read("run", hasty, is_following=True, outage=outage)
        next(following)
        timer = threading.Timer(0.9, add, (connection, "run"))
        timer.start()
        assert next(following).event == "started"
        timer.join()
    assert told == []


def test_a_user_who_may_only_look_reads_the_events_of_all_runs(
    run: Run, connection: redis.Redis, redis_url: str
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER looks "))
    connection.execute_command(*line.replace("ANOTHER-ONE", "no-secret").split())
    try:
        with redis.Redis.from_url(redis_url, username="looks", password="no-secret") as looking:
            assert len(read(None, looking)) == len(read(run.run_id, looking)) > 2
            with pytest.raises(redis.exceptions.NoPermissionError):
                looking.set(keys.run("x"), 1)
    finally:
        connection.acl_deluser("looks")


def test_a_look_at_10000_runs_takes_22_commands(connection: redis.Redis) -> None:
    names = {f"run{number}": time.time() for number in range(10_000)}
    connection.zadd(keys.RUNS, names)
    add(connection, "run77")
    connection.config_resetstat()
    assert [event.run for event in read(None, connection)] == ["run77"]
    stats = connection.info("commandstats")
    commands = ("xread", "zrange", "time")
    assert {name: stats[f"cmdstat_{name}"]["calls"] for name in commands} == {
        "xread": 20,
        "zrange": 1,
        "time": 1,
    }


def test_nothing_is_given_that_another_event_can_still_come_before(
    connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    follow: Callable[..., Reader],
    wait_until: Callable[..., None],
) -> None:
    """Two runs may get events at the same instant, one after the other."""
    monkeypatch.setattr(event_log, "SETTLED_MS", 10_000_000)
    make_run(connection, "one")
    add(connection, "one")
    reader = follow(None, connection)
    connection.config_resetstat()
    wait_until(lambda: connection.info("commandstats").get("cmdstat_xread", {}).get("calls", 0) > 1)
    assert reader.events == []


def test_positions_are_in_the_order_of_events() -> None:
    texts = ["0", "5", "5-1@a", "5-1@b", "5-1", "5-2@a", "6-0@a"]
    assert sorted(texts, key=Position.read) == texts
    assert Position.read("5-1@b").within("a") == "5-1"
    assert Position.read("5-1@b").within("c") == "5-0"
    assert Position.read("5-0@b").within("c") == f"4-{2**64 - 1}"


# Servers that go, and asyncio ---------------------------------------------------------------------


def test_a_follower_goes_on_when_the_server_was_killed_and_is_back(
    tmp_path: Path, wait_until: Callable[..., None], follow: Callable[..., Reader]
) -> None:
    started = server.ensure(tmp_path)
    try:
        with started.connect() as first:
            make_run(first, "one")
            add(first, "one", 2_500)
            reader = follow("one", first)
            wait_until(lambda: len(reader.events) == 2_500)
            wait_until(lambda: first.info("persistence")["aof_pending_bio_fsync"] == 0)
            kill(pid_of(started))
            server.ensure(tmp_path)
            with started.connect() as again:
                add(again, "one", 10)
                again.hset(keys.run("one"), "state", "succeeded")
                add(again, "one", name="", state="succeeded")
                reader.join(60)
                assert reader.error is None
                assert ids(reader.events) == ids(event_log.read("one", again))
                assert len(reader.events) == 2_511
    finally:
        end(tmp_path)


def test_asyncio_reads_the_same_without_threads(
    connection: redis.Redis, test_server: server.Server
) -> None:
    make_run(connection, "one")
    add(connection, "one", 1_500)
    make_run(connection, "two")
    add(connection, "two", 3)

    async def read_all() -> list[list[str]]:
        path = connection.connection_pool.connection_kwargs["path"]
        client = redis.asyncio.Redis(unix_socket_path=path)
        before = threading.active_count()
        found = []
        for run in ("one", None):
            found.append([event.id async for event in aio.events(run, connection=client)])
        followed = []
        async for event in aio.events("two", follow=True, connection=client):
            followed.append(event.id)
            if len(followed) == 3:
                connection.hset(keys.run("two"), "state", "succeeded")
                add(connection, "two", name="", state="succeeded")
        assert threading.active_count() == before
        await client.aclose()
        return [*found, followed]

    one, both, two = asyncio.run(read_all())
    assert one == ids(read("one", connection))
    assert both == ids(read(None, connection))[:-1]
    assert two == ids(read("two", connection))
