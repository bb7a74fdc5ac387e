"""`flowq events`: what happens in runs, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from flowq.cli import events
from flowq.cli.completion import complete_run
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.event import read_entry
from flowq.render.events import event_line
from flowq.render.json import load_schema
from flowq.render.lines import plain
from flowq.runtime import keys, runs
from tests.cli.commands import Flowq, Said
from tests.reading import parse_workflow

Call = Callable[..., Said]

FLOW = """
name: flow
jobs:
  good: {call: "json:dumps", with: {obj: 1}}
  bad: {call: "json:loads", with: {s: "{"}, needs: good}
"""


def start(connection: redis.Redis) -> Run:
    return submit(compile_plan(parse_workflow(FLOW, "flow.yaml"), {}), connection)


def write(connection: redis.Redis, run: Run, name: str, state: str, **fields: Any) -> None:
    """Write an event as a worker does."""
    entry = {"job": f"{run.run_id}-{name}", "name": name, "state": state, **fields}
    connection.xadd(keys.run_events(run.run_id), entry)


@pytest.fixture
def ended(connection: redis.Redis) -> Run:
    """A run in which a job reports its progress and fails."""
    run = start(connection)
    progress = '{"done":30,"total":120,"message":"page 30"}'
    write(connection, run, "bad", "started", worker="w", progress=progress)
    began_at = "2026-11-29T12:00:00.000000Z"
    error = {"error": "ValueError: no \x1b[2Jway", "exit_code": ""}
    write(connection, run, "bad", "failed", began_at=began_at, took_ms="1200", reason="", **error)
    write(connection, run, "", "failed")
    connection.hset(keys.run(run.run_id), "state", "failed")
    return run


def test_events_are_lines_with_the_reason(call: Call, redis_url: str, ended: Run) -> None:
    said = call("events", "last", "--redis-url", redis_url)
    assert said.code == 0
    lines = [
        re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", each) for each in said.out.splitlines()
    ]
    assert lines[0] == "run running"
    assert lines[-3:] == [
        "bad progressed 30/120 (25%): page 30",
        "bad failed (1.2s): ValueError: no way",
        "run failed",
    ]


def test_events_of_all_runs_name_their_run(
    call: Call, redis_url: str, ended: Run, connection: redis.Redis
) -> None:
    other = start(connection)
    said = call("events", "--redis-url", redis_url)
    assert f" {ended.run_id} bad failed" in said.out
    assert f" {other.run_id} run running" in said.out
    assert len(said.out.splitlines()) == sum(len(list(run.events())) for run in (ended, other))


def test_json_lines_are_what_the_schema_says_and_resume(
    call: Call, redis_url: str, ended: Run
) -> None:
    check = Draft202012Validator(load_schema()).validate
    for words in (["last"], []):
        lines = call("events", *words, "--json-lines", "--redis-url", redis_url).out.splitlines()
        documents = [json.loads(line) for line in lines]
        for document in documents:
            check(document)
        assert documents[-2]["error"] == {
            "type": "ValueError",
            "message": "no \x1b[2Jway",
            "exit_code": None,
        }
        assert documents[-3]["progress"] == {"done": 30, "total": 120, "message": "page 30"}
        for at in (0, len(lines) // 2, len(lines) - 1):
            rest = call(
                *("events", *words, "--json-lines", "--after", documents[at]["id"]),
                *("--redis-url", redis_url),
            )
            assert rest.out.splitlines() == lines[at + 1 :]


def test_watch_and_events_print_the_same_lines(call: Call, redis_url: str, ended: Run) -> None:
    events = call("events", "last", "-f", "--json-lines", "--redis-url", redis_url)
    watched = call("watch", "last", "--json-lines", "--redis-url", redis_url)
    assert (events.code, watched.code) == (0, 1)
    assert watched.out.splitlines()[:-1] == events.out.splitlines()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], 5, "nowhere"),
        (
            ["last", "--after", "yesterday"],
            2,
            "'yesterday' is no position: give the id of an event",
        ),
        (["last", "bad"], 2, "unexpected extra argument"),
    ],
)
def test_what_cannot_be_read_is_said(
    call: Call, redis_url: str, ended: Run, words: list[str], code: int, says: str
) -> None:
    said = call("events", *words, "--redis-url", redis_url)
    assert said.code == code
    assert says in said.err
    assert "Traceback" not in said.err


def test_where_no_run_ever_was_there_is_nothing(call: Call) -> None:
    said = call("events")
    assert (said.code, said.out) == (0, "")
    assert "there are no runs in" in said.err


def test_a_reader_that_was_killed_goes_on_behind_its_last_line(
    flowq: Flowq, redis_url: str, connection: redis.Redis
) -> None:
    run = start(connection)
    words = ("events", run.run_id, "-f", "--json-lines", "--redis-url", redis_url)
    reader = flowq.start(*words)
    assert reader.stdout is not None
    first = [reader.stdout.readline() for _ in range(2)]
    reader.kill()
    reader.wait()
    for number in range(5):
        write(connection, run, f"job{number}", "started")
    write(connection, run, "", "succeeded")
    connection.hset(keys.run(run.run_id), "state", "succeeded")
    rest = flowq(*words, "--after", json.loads(first[-1])["id"])
    assert rest.returncode == 0, rest.stderr
    given = [json.loads(line)["id"] for line in [*first, *rest.stdout.splitlines()]]
    assert given == [entry.id for entry in runs.read_events(run.run_id, connection)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
@pytest.mark.parametrize("words", [[], ["last"]])
def test_ctrl_c_ends_it_without_a_word(
    flowq: Flowq, redis_url: str, connection: redis.Redis, words: list[str]
) -> None:
    start(connection)
    reader = flowq.start("events", *words, "--follow", "--redis-url", redis_url)
    assert reader.stdout is not None
    reader.stdout.readline()
    reader.send_signal(signal.SIGINT)
    _, err = reader.communicate(timeout=60)
    assert (reader.returncode, err) == (130, "")


def test_a_reader_that_stops_early_is_no_error(
    flowq: Flowq, redis_url: str, connection: redis.Redis
) -> None:
    run = start(connection)
    for _ in range(3_000):
        write(connection, run, "job", "started")
    reader = flowq.start("events", run.run_id, "--redis-url", redis_url)
    assert reader.stdout is not None
    reader.stdout.readline()
    reader.stdout.close()
    assert reader.stderr is not None
    assert (reader.wait(60), reader.stderr.read()) == (0, "")


def test_completion_offers_runs() -> None:
    (run,) = (each for each in events.command.params if each.name == "run_id")
    assert run._custom_shell_complete is complete_run


def test_a_line_has_no_control_characters(connection: redis.Redis) -> None:
    run = start(connection)
    write(connection, run, "a\x1b[2Jb", "failed", reason="x\ny\x07")
    *_, entry = runs.read_events(run.run_id, connection)
    assert plain(event_line(read_entry(run.run_id, entry))).isprintable()
