"""A second turn behind the first: the server does not wait, and nothing is lost or doubled."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq.job import JobStatus

from flowq.runtime import keys
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.workers import supervisor
from flowq.workers.children import MAX_UNREAD_BYTES, Child, Pool
from flowq.workers.claims import Claim
from flowq.workers.estimates import Estimates
from flowq.workers.redis_side import Capacity, RedisSide, Turn
from flowq.workers.supervisor import Supervisor
from flowq.workers.turns import Turns

Drain = Callable[..., Any]
COUNT = 60
PAUSE_MS = 10
"""How long the server does nothing while a turn waits for it, so that the children are faster."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the jobs say that they have run."""
    return tmp_path / "runs"


@pytest.fixture
def slow_server(connection: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let each first turn wait; return how many were under way whenever one had been sent."""
    counts: list[int] = []
    send = RedisSide.send

    def pause_and_send(self: RedisSide, *arguments: Any) -> None:
        if not self.open_turns:
            connection.client_pause(PAUSE_MS)
        send(self, *arguments)
        counts.append(self.open_turns)

    monkeypatch.setattr(RedisSide, "send", pause_and_send)
    return counts


@pytest.fixture
def supervisors(monkeypatch: pytest.MonkeyPatch) -> list[Supervisor]:
    """The supervisors of the workers that have begun."""
    begun: list[Supervisor] = []
    run = Supervisor.run

    def note_and_run(self: Supervisor) -> None:
        begun.append(self)
        run(self)

    monkeypatch.setattr(Supervisor, "run", note_and_run)
    return begun


@pytest.fixture
def short_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is short, and every child quick, however busy the machine is with other things."""
    learn = Estimates.learn
    monkeypatch.setattr(Estimates, "learn", lambda self, kind, _: learn(self, kind, 0.0001))
    monkeypatch.setattr("flowq.workers.monitor.BATCH_S", inf)
    monkeypatch.setattr("flowq.workers.child.main.FLUSH_S", inf)


@pytest.fixture
def turns_taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Claim], list[Claim]]]:
    """The ends that each answered turn told, and the jobs that it brought."""
    turns: list[tuple[list[Claim], list[Claim]]] = []
    send, receive, told = RedisSide.send, RedisSide.receive, deque[list[Claim]]()

    def send_and_note(self: RedisSide, ends: list[Claim], capacity: Capacity) -> None:
        if not self.open_turns:
            told.clear()
        send(self, ends, capacity)
        told.append(ends)

    def receive_and_note(self: RedisSide) -> Turn:
        turn = receive(self)
        turns.append((told.popleft(), turn.claims))
        return turn

    monkeypatch.setattr(RedisSide, "send", send_and_note)
    monkeypatch.setattr(RedisSide, "receive", receive_and_note)
    return turns


def _cut(side: RedisSide) -> None:
    """Break the connection on which the answers arrive."""
    side.socket.shutdown(socket.SHUT_RDWR)


def _enqueue(queue: Queue, path: Path, count: int = COUNT) -> list[Job]:
    data = [Queue.prepare_data(worker_jobs.append_id, (str(path),)) for _ in range(count)]
    return queue.enqueue_many(data)


def _wait_for_both(connection: redis.Redis) -> None:
    """Return after the server has answered the two turns that it has got."""
    for _ in range(3):
        connection.ping()


def _assert_each_ran_once(jobs: list[Job], path: Path) -> None:
    assert {job.get_status() for job in jobs} == {JobStatus.FINISHED}
    assert {len(job.results()) for job in jobs} == {1}
    assert sorted(path.read_text().split()) == sorted(job.id for job in jobs)
    [connection] = {job.connection for job in jobs}
    assert connection.zcard(f"{keys.PREFIX}:wip:default") == 0


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_second_turn_follows_the_first_and_no_third(
    queue: Queue,
    drain: Drain,
    slow_server: list[int],
    path: Path,
    batches: bool,
    concurrency: int,
) -> None:
    jobs = _enqueue(queue, path)
    drain(batches=batches, concurrency=concurrency)
    assert max(slow_server) == 2
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
@pytest.mark.parametrize("is_applied", [True, False])
def test_a_connection_that_breaks_under_two_turns_costs_nothing(
    queue: Queue,
    connection: redis.Redis,
    drain: Drain,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_applied: bool,
) -> None:
    receive, broken = RedisSide.receive, []

    def break_once(self: RedisSide) -> Any:
        if self.open_turns == 2 and not broken:
            broken.append(True)
            if is_applied:  # and only the answers are lost
                connection.client_unpause()
                _wait_for_both(connection)
                self.socket.recv(1 << 24)
            _cut(self)
        return receive(self)

    monkeypatch.setattr(RedisSide, "receive", break_once)
    jobs = _enqueue(queue, path)
    drain()
    assert broken
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
def test_an_answer_that_was_read_counts_though_the_connection_has_ended_behind_it(
    queue: Queue,
    drain: Drain,
    path: Path,
    turns_taken: list[tuple[list[Claim], list[Claim]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_answer, hand_over, broken = RedisSide.has_answer, Pool.hand_over, []
    taken: list[list[Claim]] = []

    def hand_over_and_note(self: Pool, claims: list[Claim], *rest: Any, **options: Any) -> None:
        if options:  # else they are those that a child has given back
            taken.append(claims)
        hand_over(self, claims, *rest, **options)

    def break_once(self: RedisSide) -> bool:
        if not broken:
            broken.append(True)
            _cut(self)
            raise redis.ConnectionError("connection closed by server")
        return has_answer(self)

    monkeypatch.setattr(RedisSide, "has_answer", break_once)
    monkeypatch.setattr(Pool, "hand_over", hand_over_and_note)
    jobs = _enqueue(queue, path)
    drain()
    assert broken
    assert taken == [claimed for _, claimed in turns_taken]
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
def test_a_worker_that_ends_now_takes_in_both_answers_that_are_there(
    queue: Queue,
    connection: redis.Redis,
    drain: Drain,
    path: Path,
    supervisors: list[Supervisor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, forced = Turns.go_on, []

    def go_on_and_stop(self: Turns) -> None:
        go_on(self)
        if self.redis_side.open_turns == 2 and not forced:
            forced.append(True)
            connection.client_unpause()
            _wait_for_both(connection)
            supervisors[0].stop()
            supervisors[0].stop()

    monkeypatch.setattr(Turns, "go_on", go_on_and_stop)
    jobs = _enqueue(queue, path, 5 * COUNT)
    drain(concurrency=2, batches=False)
    assert forced
    assert not supervisors[0].turns.is_under_way
    finished = [job for job in jobs if job.get_status() is JobStatus.FINISHED]
    assert len(finished) + queue.count == 5 * COUNT
    assert connection.zcard(f"{keys.PREFIX}:wip:default") == 0


def test_what_a_turn_claims_whose_answer_does_not_come_in_time_is_put_back_at_the_end(
    queue: Queue,
    connection: redis.Redis,
    drain: Drain,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain()  # so that the server has our functions
    send, run = RedisSide.send, Supervisor.run

    def pause_and_send(self: RedisSide, *arguments: Any) -> None:
        connection.client_pause(200)
        send(self, *arguments)

    def send_a_turn_and_end(self: Supervisor) -> None:
        self.pool.fill()
        self.turns.go_on()
        self.stop()
        self.stop()
        run(self)

    monkeypatch.setattr(RedisSide, "send", pause_and_send)
    monkeypatch.setattr(Turns, "receive", lambda _: None)  # it would wait for the answer
    monkeypatch.setattr(Supervisor, "run", send_a_turn_and_end)
    monkeypatch.setattr(supervisor, "LAST_ANSWER_S", 0.0)
    _enqueue(queue, path)
    drain()
    assert queue.count == COUNT
    assert connection.zcard(f"{keys.PREFIX}:wip:default") == 0


@pytest.mark.usefixtures("slow_server")
def test_a_server_that_has_lost_its_functions_gets_them_back_under_two_turns(
    queue: Queue, drain: Drain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, flushed = RedisSide.send, []

    def flush_and_send(self: RedisSide, *arguments: Any) -> None:
        if self.open_turns and len(flushed) < 3:
            queue.connection.function_flush()
            flushed.append(True)
        send(self, *arguments)

    monkeypatch.setattr(RedisSide, "send", flush_and_send)
    jobs = _enqueue(queue, path)
    drain()
    assert flushed
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
@pytest.mark.parametrize("concurrency", [1, 2])
def test_long_jobs_among_short_ones_are_not_lost_between_two_turns(
    queue: Queue, drain: Drain, path: Path, concurrency: int
) -> None:
    jobs = []
    for _ in range(4):
        jobs += _enqueue(queue, path, 30)
        queue.enqueue(worker_jobs.sleep, 0.03)
    drain(concurrency=concurrency)
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
def test_a_worker_that_finds_nothing_more_is_woken_whichever_answer_said_so(
    queue: Queue, drain: Drain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Turns.go_on
    deaf: list[bool] = []

    def go_on_and_look(self: Turns) -> None:
        go_on(self)
        if not self.is_under_way and self.are_queues_empty and self.wants_claims():
            deaf.append(not self.wakeup.is_armed)

    monkeypatch.setattr(Turns, "go_on", go_on_and_look)
    for _ in range(4):
        _enqueue(queue, path, 30)
        drain()
    assert deaf
    assert not any(deaf)


@pytest.mark.usefixtures("slow_server")
def test_what_has_ended_is_said_before_an_answer_that_is_there_is_taken_in(
    queue: Queue,
    drain: Drain,
    path: Path,
    supervisors: list[Supervisor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hear, send, has_answer = Turns.receive, RedisSide.send, RedisSide.has_answer
    were_answered: list[bool] = []

    def hear_and_rest(self: Turns) -> None:
        hear(self)
        for child in self.pool.children if self.is_answered else []:  # it does it meanwhile
            assert not child.claims or child.channel.poll(5)

    def note_and_send(self: RedisSide, *arguments: Any) -> None:
        were_answered.append(supervisors[0].turns.is_answered)
        send(self, *arguments)

    def await_answer(self: RedisSide) -> bool:
        return has_answer(self) or bool(select.select([self.socket], [], [], 5)[0])

    monkeypatch.setattr(Turns, "receive", hear_and_rest)
    monkeypatch.setattr(RedisSide, "send", note_and_send)
    monkeypatch.setattr(RedisSide, "has_answer", await_answer)
    jobs = _enqueue(queue, path)
    drain(batches=False)
    assert any(were_answered)
    _assert_each_ran_once(jobs, path)


@pytest.mark.usefixtures("slow_server")
def test_two_turns_together_claim_no_more_jobs_than_may_be(
    queue: Queue, drain: Drain, path: Path
) -> None:
    jobs = _enqueue(queue, path)
    drain(max_jobs=COUNT - 30)
    finished = [job for job in jobs if job.get_status() is JobStatus.FINISHED]
    _assert_each_ran_once(finished, path)
    assert len(finished) == COUNT - 30
    assert queue.count == 30


@pytest.mark.usefixtures("short_jobs")
def test_the_last_ends_do_not_wait_for_each_other(
    queue: Queue, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    receive = Pool.receive

    def receive_and_note(self: Pool, child: Child) -> None:
        before = len(self.ends)
        receive(self, child)
        sizes.append(len(self.ends) - before)

    monkeypatch.setattr(Pool, "receive", receive_and_note)
    data = [Queue.prepare_data(worker_jobs.nothing) for _ in range(5 * COUNT)]
    queue.enqueue_many(data)
    drain()
    sizes = [size for size in sizes if size]
    assert max(sizes) > 4
    assert sizes[-1] == 1
    assert sum(sizes) == len(data)


def test_what_the_last_end_queues_is_claimed_with_it(
    queue: Queue, drain: Drain, turns_taken: list[tuple[list[Claim], list[Claim]]]
) -> None:
    future = queue.enqueue(worker_jobs.add, 1, 2, deferred=True)
    data = [Queue.prepare_data(worker_jobs.nothing, blocked_by=future) for _ in range(COUNT)]
    queue.enqueue_many(data)
    future.release()
    drain()
    assert future.return_value() == 3
    [ended] = [
        ended for ended, claimed in turns_taken if future.id in [claim.job_id for claim in claimed]
    ]
    assert ended, "another turn had to look for it"


def test_a_child_that_takes_short_jobs_only_does_not_ask_again_and_again_for_them(
    queue: Queue, drain: Drain, turns_taken: list[tuple[list[Claim], list[Claim]]]
) -> None:
    for seconds in [0.0] * 100 + [0.2]:
        queue.enqueue(worker_jobs.sleep, seconds)
    queue.enqueue(worker_jobs.nothing)  # nobody knows yet that it is short
    drain()
    assert turns_taken.count(([], [])) < 10


def test_jobs_that_are_too_large_to_wait_in_a_child_are_not_claimed_again_and_again(
    queue: Queue, drain: Drain, turns_taken: list[tuple[list[Claim], list[Claim]]]
) -> None:
    for _ in range(COUNT):
        queue.enqueue(worker_jobs.sleep_with, 0.001, os.urandom(MAX_UNREAD_BYTES))
    drain()
    assert sum(len(claimed) for _, claimed in turns_taken) < 2.5 * COUNT
