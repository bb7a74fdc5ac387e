"""What a server may answer instead of doing what it was asked, and what is waited for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from redis.exceptions import OutOfMemoryError

from flowq import server
from flowq.runtime.connections import (
    ANSWERS,
    Answer,
    Outage,
    RetryWhileRefused,
    describe,
    find_answer,
    is_passing,
    is_refusal,
    retry_while_unavailable,
)

ROOT = Path(__file__).parents[2]
TEXT_BY_WORD = {"MOVED": "MOVED 7 127.0.0.1:1", "ASK": "ASK 7 127.0.0.1:1"}


def raised(connection: redis.Redis, line: str) -> redis.RedisError:
    """The error of redis-py for that line of the protocol, from the server's own mouth."""
    with pytest.raises(redis.RedisError) as caught:
        connection.eval("return redis.error_reply(ARGV[1])", 0, line)
    return caught.value


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.word)
def test_each_answer_is_known_whatever_redis_py_makes_of_it(
    connection: redis.Redis, answer: Answer
) -> None:
    error = raised(connection, TEXT_BY_WORD.get(answer.word, answer.word))
    if answer.word not in ("NOAUTH", "WRONGPASS"):  # redis-py has one class for both
        assert find_answer(error) is answer
    assert is_passing(error) == is_refusal(error) == answer.is_waited_for
    assert describe(error) == answer.meaning or not answer.is_waited_for


def test_an_answer_is_known_in_a_pipeline_and_in_a_script_of_redis_6(
    connection: redis.Redis,
) -> None:
    connection.config_set("min-replicas-to-write", 1)
    try:
        with (
            connection.pipeline(transaction=False) as pipeline,
            pytest.raises(redis.ResponseError) as caught,
        ):
            pipeline.set("key", "value").execute()
    finally:
        connection.config_set("min-replicas-to-write", 0)
    assert is_refusal(caught.value)
    wrapped = (
        "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command"
    )
    assert is_refusal(raised(connection, wrapped))


@pytest.mark.parametrize("text", ["WRONGTYPE Operation", "BUSYGROUP exists", "ERR no OOM here"])
def test_other_answers_are_mistakes_which_no_waiting_mends(
    connection: redis.Redis, text: str
) -> None:
    assert not is_passing(raised(connection, text))
    assert not is_refusal(ValueError("OOM is no answer of a server here"))


def test_a_lost_connection_passes_but_may_have_done_what_was_asked() -> None:
    for error in (redis.ConnectionError("gone"), redis.TimeoutError("late")):
        assert is_passing(error)
        assert not is_refusal(error)


def test_the_production_guide_shows_the_table() -> None:
    text = (ROOT / "docs" / "production.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z][^`]*)` \| (.*) \| (.*) \|$", text, re.MULTILINE)
    says = {True: "waits", False: "reports an error"}
    assert rows == [
        (
            each.word,
            each.meaning,
            "continues" if each.word == "NOSCRIPT" else says[each.is_waited_for],
        )
        for each in ANSWERS
    ]


# --- waiting ---


@dataclass
class Full:
    """A server whose memory is full, and what is said of it; it gets room when it says so."""

    connection: redis.Redis
    operator: redis.Redis
    said: list[str] = field(default_factory=list)

    @property
    def mended(self) -> Outage:
        """Somebody sees to it when it begins."""

        def make_room(text: str) -> None:
            self.said.append(text)
            self.operator.config_set("maxmemory", 0)

        return Outage(make_room, self.said.append)

    @property
    def left_alone(self) -> Outage:
        """Nobody does."""
        return Outage(self.said.append, self.said.append)


@pytest.fixture
def full() -> Iterator[Full]:
    with (
        server.temporary() as started,
        closing(started.connect()) as connection,
        closing(started.connect()) as operator,
    ):
        operator.config_set("maxmemory", 1)
        yield Full(connection, operator)


def test_a_refusal_is_told_when_it_begins_and_when_it_is_over(full: Full) -> None:
    assert retry_while_unavailable(lambda: full.connection.incr("number"), outage=full.mended) == 1
    assert len(full.said) == 2
    assert full.said[0].startswith("the server cannot be used: its memory is full")
    assert full.said[1].startswith("the server can be used again")


def test_every_command_of_a_patient_connection_waits_and_connects_anew(full: Full) -> None:
    connection = full.connection
    connection.set_retry(RetryWhileRefused(full.mended))
    before = connection.client_id()
    assert connection.incr("number") == 1
    assert connection.client_id() != before
    full.operator.config_set("maxmemory", 1)
    with connection.pipeline() as pipeline:
        assert pipeline.incr("number").execute() == [2]
    assert len(full.said) == 4


def test_a_patient_connection_gives_up_with_the_answer_of_the_server(full: Full) -> None:
    retry = RetryWhileRefused(full.left_alone, within_s=0.1)
    full.connection.set_retry(retry)
    with pytest.raises(OutOfMemoryError):
        full.connection.incr("number")
    assert retry.within_s == 0.0  # what is left to do is tidying up
    assert full.connection.get("number") is None
    assert len(full.said) == 1


def test_a_server_that_comes_and_goes_is_one_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    outage = Outage(said.append, said.append)
    for _ in range(50):
        outage.meet(redis.ConnectionError("gone"))
        outage.check()
    assert len(said) == 1
    monkeypatch.setattr("flowq.runtime.connections.CALM_S", 0.0)
    outage.check()
    outage.check()
    assert len(said) == 2


def test_a_server_without_room_for_a_client_is_connected_to_when_it_has_some() -> None:
    with server.temporary() as started, closing(started.connect()) as operator:
        said: list[str] = []

        def make_room(text: str) -> None:
            said.append(text)
            operator.config_set("maxclients", 100)

        operator.config_set("maxclients", 1)
        retry = RetryWhileRefused(Outage(make_room, said.append))
        with closing(server.connect(started.url, retry=retry)) as connection:
            assert connection.ping()
        assert len(said) == 2
