"""What jobs print is in the server: soon, once, whole within its bounds, for each attempt."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs

from flowq import server
from flowq.client import Run
from flowq.render.job_output import output_lines
from flowq.runtime import keys
from flowq.runtime.printed import HEAD_BYTES, TAIL_BYTES, Printed, read_printed
from flowq.runtime.queue import Queue
from flowq.status import ENDED
from flowq.workers import children, monitor, periodic
from flowq.workers.worker import SECOND_SIGNAL_S
from tests.workers.real_servers import REFUSALS
from tests.workers.test_true_times import start_run

Start = Callable[..., Any]
Wait = Callable[..., None]

KEPT_BYTES = HEAD_BYTES + TAIL_BYTES


def call(name: str, **given: Any) -> dict[str, Any]:
    return {"call": f"worker_jobs:{name}", "with": given}


def start(connection: redis.Redis, jobs: dict[str, Any]) -> Run:
    return start_run(connection, json.dumps({"name": "printing", "jobs": jobs}))


def read(run: Run, name: str = "a") -> dict[int, Printed]:
    return read_printed("r", [f"r-{name}"], run.connection).get(f"r-{name}", {})


def text_of(run: Run, name: str = "a", attempt: int = 1) -> bytes:
    found = read(run, name).get(attempt, Printed())
    assert not found.left_out
    return found.head + found.tail


def has_ended(run: Run, name: str = "a") -> bool:
    return run.status().jobs[name].state in ENDED


def check_bounded(found: Printed, text: bytes) -> None:
    assert found.size == len(text)
    assert found.head == text[:HEAD_BYTES]
    assert found.tail == text[max(HEAD_BYTES, len(text) - TAIL_BYTES) :]


def test_what_jobs_print_is_in_the_server_while_they_run_and_once_however_they_end(
    connection: redis.Redis, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    go, last, begun = tmp_path / "go", tmp_path / "last", tmp_path / "begun"
    jobs = {
        "a": call("print_around", before="one\n", go=str(go), after="two\n"),
        "killed": call("print_wait_die", text="first\n", go=str(last)),
        "stopped": {"run": f"echo words; touch {begun}; sleep 60"},
    }
    run = start(connection, jobs)
    worker = start_worker(mode=mode, concurrency=2)
    wait_until(lambda: text_of(run) == b"one\n", 15)
    wait_until(lambda: text_of(run, "killed") == b"first\n", 15)
    assert not has_ended(run)
    assert not has_ended(run, "killed")
    go.touch()
    wait_until(lambda: has_ended(run), 10)
    assert text_of(run) == b"one\ntwo\n"
    last.touch()
    wait_until(lambda: has_ended(run, "killed"), 10)
    assert text_of(run, "killed") == b"first\nthe last words"
    assert "first\nthe last words" in run.failures()["killed"].traceback

    # The worker is told twice to stop, and kills what runs.
    wait_until(begun.exists, 15)
    worker.terminate()
    wait_until(lambda: connection.hexists(*noted_stop(connection)), 10)
    told_at = time.monotonic()
    wait_until(lambda: time.monotonic() > told_at + SECOND_SIGNAL_S, 5)
    worker.terminate()
    assert worker.wait(60) == 0
    assert text_of(run, "stopped") == b"words\n"
    assert connection.hget(keys.job("r-stopped"), "status") == b"queued"


def noted_stop(connection: redis.Redis) -> tuple[bytes, str]:
    [key] = connection.smembers("rq:workers")
    return key, "shutdown_requested_date"


def test_of_a_job_that_prints_very_much_head_and_tail_are_there_while_it_runs(
    connection: redis.Redis, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    before, after = "a" * 2_000_000, "b" * 3_000_000
    run = start(connection, {"a": call("print_around", before=before, go=str(go), after=after)})
    start_worker()
    wait_until(lambda: read(run) and read(run)[1].size == len(before), 15)
    check_bounded(read(run)[1], before.encode())
    go.touch()
    wait_until(lambda: has_ended(run), 10)
    check_bounded(read(run)[1], (before + after).encode())


@pytest.mark.parametrize(("concurrency", "seeds"), [(1, range(8)), (2, range(7, 15))])
def test_no_byte_is_lost_or_doubled_however_often_the_supervisor_reads(
    connection: redis.Redis,
    drain: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    concurrency: int,
    seeds: range,
) -> None:
    monkeypatch.setattr(children, "LONG_S", 0.0)
    monkeypatch.setattr(monitor, "READ_S", 0.0)
    monkeypatch.setattr(periodic, "PRINTED_S", 0.0)
    run = start(connection, {f"j{seed}": call("print_chunks", seed=seed) for seed in seeds})
    drain(mode=mode, concurrency=concurrency)
    for seed in seeds:
        check_bounded(read(run, f"j{seed}")[1], b"".join(worker_jobs.chunks_of(seed)))


def test_a_gigabyte_costs_the_server_head_and_tail(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    run = start(connection, {"a": call("print_much", megabytes=300)})
    drain()
    found = read(run)[1]
    assert found.tail.endswith(b"x" * 1_000 + b"the end")
    assert len(found.head) + len(found.tail) == KEPT_BYTES
    assert connection.hstrlen(keys.printed("r"), "r-a:1") < 2_000


def test_each_attempt_has_its_own_output_and_a_job_of_no_run_prints_where_the_worker_does(
    connection: redis.Redis,
    drain: Callable[..., Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    mode: str,
) -> None:
    n = tmp_path / "n"
    shell = f"echo this is try $(cat {n} 2>/dev/null || echo 1); echo 2 > {n}; exit 3"
    run = start(
        connection,
        {
            "a": {"run": shell, "retries": {"max": 1, "backoff": "10ms"}},
            "b": {"run": "printf 'caf\\303\\251 \\377\\000\\033[31m\\n'; sleep 0.3; kill -9 $PPID"},
            "quiet": call("nothing"),
        },
    )
    Queue(connection=connection).enqueue(worker_jobs.print_much, 0)
    capfd.readouterr()
    drain(mode=mode, echoes=False)
    assert capfd.readouterr().out == "the end"
    assert connection.keys("rq:flowq:1:printed:*") == [keys.printed("r").encode()]
    assert text_of(run, "a", 1) == b"this is try 1\n"
    assert text_of(run, "a", 2) == b"this is try 2\n"
    assert text_of(run, "b") == b"caf\xc3\xa9 \\xff\x00\x1b[31m\n"
    assert read(run, "quiet") == {}


def test_what_an_attempt_of_a_lost_worker_had_printed_stays(
    connection: redis.Redis, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    run = start(connection, {"a": call("print_around", before="one\n", go=str(go), after="two\n")})
    lost = start_worker(lease_s=2)
    wait_until(lambda: text_of(run) == b"one\n", 15)
    lost.kill()
    start_worker(lease_s=2)
    wait_until(lambda: text_of(run, attempt=2) == b"one\n", 40)
    go.touch()
    wait_until(lambda: has_ended(run), 10)
    assert output_lines(read(run)) == ["one", "--- attempt 2 ---", "one", "two"]


# The budget --------------------------------------------------------------------------------------


def test_successes_leave_a_quarter_of_the_budget_to_failures_and_all_goes_with_the_run(
    connection: redis.Redis, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_RUN_BUDGET_MB", "0.045")
    shown = "head -c 6000 /dev/urandom | base64 -w 0 >&2"
    jobs = {f"good{at}": {"run": f"{shown}; true"} for at in range(7)}
    jobs |= {f"bad{at}": {"run": f"{shown}; false"} for at in range(3)}
    jobs["small"] = {"run": "echo a line"}
    run = start(connection, jobs)
    drain(concurrency=1)
    dropped = {name: read(run, name)[1].dropped for name in run.status().jobs if read(run, name)}
    kept = {name for name, why in dropped.items() if not why}
    assert kept == {*(f"good{at}" for at in range(5)), "bad0", "bad1", "small"}
    assert read(run, "good5")[1].size == 8_000
    [line] = output_lines(read(run, "good5"))
    assert line == "[output dropped, 8,000 bytes: the run's budget of 0.045 MB is used up]"
    stored = connection.hgetall(keys.printed("r"))
    used = int(stored.pop(b"used"))
    assert used >= sum(map(len, stored.values()))
    assert used <= 45_000 + 64 * len(stored)
    run.remove()
    assert not connection.exists(keys.printed("r"))
    assert connection.keys("rq:flowq:1:*:r*") == []


def test_large_views_count_in_the_budget_and_the_exit_code_stays(
    connection: redis.Redis, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_RUN_BUDGET_MB", "0.01")
    jobs = {f"j{at}": {"run": "printf y%.0s $(seq 3000)"} for at in range(6)}
    run = start(connection, jobs)
    drain()
    views = run.views()
    texts = [json.dumps(view.result) for view in views.values()]
    kept = [text for text in texts if "the memory budget of the run is used up" not in text]
    assert 1 <= len(kept) < 6
    assert all(end.exit_code == 0 for end in run.ends([f"r-{name}" for name in jobs]))
    assert all(len(value) >= 2_000 for value in run.results().values())


# The server refuses ------------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[server.Server]:
    """A server of the test's own, which may be left in any state."""
    with server.temporary() as started:
        yield started


@pytest.mark.parametrize(("answer", "retries"), [("NOREPLICAS", 0), ("READONLY", 1)])
def test_a_server_that_refuses_fails_no_job_for_its_output_and_that_is_said(
    own: server.Server,
    start_worker: Start,
    wait_until: Wait,
    tmp_path: Path,
    answer: str,
    retries: int,
) -> None:
    go, (begin, end) = tmp_path / "go", REFUSALS[answer]
    wait = f"while [ ! -e {go} ]; do sleep 0.02; done; echo done; echo > {go}.ended"
    with closing(own.connect()) as connection:
        run = start(connection, {"a": {"run": f"echo begun; {wait}", "retries": retries}})
        start_worker(url=own.url)
        wait_until(lambda: text_of(run) == b"begun\n", 15)
        begin(connection)
        go.touch()
        wait_until(Path(f"{go}.ended").exists, 10)
        begun = count_refusals(connection)
        wait_until(lambda: count_refusals(connection) > begun + 3, 15)
        end(connection)
        wait_until(lambda: has_ended(run), 20)
        assert run.status().jobs["a"].state == "finished"
        assert output_lines(read(run)) == [
            "[output dropped, 11 bytes: the server refused to store it]"
        ]


def count_refusals(connection: redis.Redis) -> int:
    return sum(each["count"] for each in connection.info("errorstats").values())


def test_a_job_that_prints_costs_one_write_more_and_a_quiet_one_no_command(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    given = {"go": "/", "after": ""}
    jobs = {f"loud{at}": call("print_around", before="a line\n", **given) for at in range(10)}
    start(connection, jobs | {f"quiet{at}": call("nothing") for at in range(10)})
    with connection.monitor() as monitor:
        drain()
        connection.echo("the end")
        told = iter(lambda: str(monitor.next_command()["command"]), "ECHO the end")
        commands = [each for each in told if "rq:flowq:1:printed:r" in each]
    writes = [each for each in commands if each.startswith("HSET ")]
    assert len(writes) == 10
    assert all(f" r-loud{at}:1 " in "".join(writes) for at in range(10))
    assert {each.split()[0] for each in commands} <= {"HSET", "HGET"}
