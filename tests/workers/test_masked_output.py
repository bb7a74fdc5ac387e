"""Secrets of a job are in nothing that is shown or kept of it, however it prints them."""

from __future__ import annotations

import multiprocessing
import zlib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import SimpleWorker

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import results, runs
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.spec import JobSpec, Shell, Workflow
from flowq.workers import output
from flowq.workers.output import HALF_BYTES, LOG_BYTES, WITHHELD, Scratch, Secrets
from flowq.workers.shared_state import SharedState
from tests import JOBS_FOLDER

TOKEN = "hunter2/Zq9 'Xk\"Lm+é=="
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----"
PARTS = (
    "hunter2/Zq",
    "hunter2%2FZq",
    "Zq9 'Xk",
    "aHVudGVyMi9",
    "MIIEvQIB",
    "AQEFAASC",
    "TUlJRXZRS",
)


def job(name: str, call: str, secret: str = "TOKEN", **more: Any) -> JobSpec:
    given = {"token": f"${{{{ secrets.{secret} }}}}", **more.pop("given", {})}
    return JobSpec(name, f"secret_jobs:{call}", given, **more)


def submit(connection: redis.Redis, *jobs: JobSpec) -> None:
    submit_plainly(connection, *jobs, env={"GIVEN": "${{ secrets.TOKEN }}"})


def submit_plainly(connection: redis.Redis, *jobs: JobSpec, **more: Any) -> None:
    workflow = Workflow("secrets", jobs, **more)
    runs.submit(make_plan(build_graph(workflow), {}, "r1"), connection)


def error(connection: redis.Redis, name: str) -> str:
    return results.get_failures([f"r1-{name}"], connection)[f"r1-{name}"].traceback


def find_leaks(text: str) -> list[str]:
    return [text[max(0, at - 30) : at + 40] for part in PARTS if (at := text.find(part)) >= 0]


def kept_in(connection: redis.Redis, *but: str) -> str:
    """All that the server keeps, but for the results of these jobs, which other jobs get."""
    found = []
    for key in connection.keys("*"):
        if key.decode() in [f"rq:results:r1-{name}" for name in but]:
            continue
        kind = connection.type(key)
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"hash": connection.hgetall,
            b"stream": connection.xrange,
            b"string": connection.get,
        }
        found.append(str(read[kind](key) if kind in read else connection.dump(key)))
        if key.startswith(b"rq:results:"):
            for _, entry in connection.xrange(key):
                if packed := entry.get(b"exc_string"):
                    found.append(zlib.decompress(b64decode(packed)).decode())
    return "\n".join(found)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("PEM", PEM)


def submit_all(connection: redis.Redis) -> None:
    submit(
        connection,
        job("say", "say"),
        job("pem", "say", "PEM"),
        job("fail", "fail"),
        job("failpem", "fail", "PEM"),
        JobSpec("derived", "secret_jobs:say", {"token": "${{ (secrets.TOKEN | upper) ~ '!' }}"}),
        JobSpec("shell", run=Shell('echo "$GIVEN" | tee /dev/stderr; exit 3')),
        JobSpec("list", run=Shell(("no-such-program-4711", "${{ secrets.PEM }}"))),
        JobSpec("own", "secret_jobs:say", {"token": "${{ int(secrets.TOKEN) }}"}),
        JobSpec("cwd", run=Shell("true"), cwd="/nowhere/${{ secrets.TOKEN }}"),
    )


def check_all(connection: redis.Redis, printed: str) -> None:
    assert "\nthe end" in printed
    assert printed.count("***") > 100
    assert find_leaks(printed) == []
    assert "HUNTER2/ZQ" not in printed
    assert find_leaks(kept_in(connection)) == []
    for name in ("fail", "failpem"):
        text = error(connection, name)
        assert "Command '['curl', '-u', '***']' returned" in text
        assert "Odd: odd ***" in text
        assert "group ***" in text
        assert "note ***" in text
        assert "context ***" in text
    assert "ended with exit code 3: ***" in error(connection, "shell")
    assert "int does not work with the text '***'" in error(connection, "own")
    assert "`cwd`" in error(connection, "cwd")


@pytest.mark.parametrize("mode", ["fork", "multiprocessing"])
def test_no_way_to_print_or_raise_a_secret_shows_it(
    connection: redis.Redis, drain: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    submit_all(connection)
    drain(mode=mode, log_folder=str(tmp_path))
    check_all(connection, "".join(log.read_text() for log in tmp_path.iterdir()))


def test_neither_under_a_worker_of_rqs_nor_where_the_worker_itself_prints(
    connection: redis.Redis,
    drain: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(JOBS_FOLDER)
    submit_all(connection)
    SimpleWorker(["default"], connection=connection).work(burst=True, logging_level="WARNING")
    printed = capfd.readouterr()
    check_all(connection, printed.out + printed.err)
    for captures in (True, False):
        for queued in Job.fetch_many(["r1-say", "r1-fail"], connection):
            assert queued is not None
            Queue(connection=connection).enqueue_job(queued)
        drain(mode="warm", captures=captures)
        printed = capfd.readouterr()
        assert "\nthe end" in printed.out
        assert find_leaks(printed.out + printed.err) == []


@pytest.mark.parametrize("mode", ["fork", "warm"])
def test_what_is_printed_in_two_halves_or_by_a_killed_process_is_masked_as_well(
    connection: redis.Redis,
    start_worker: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
    mode: str,
) -> None:
    go, logs = tmp_path / "go", tmp_path / "logs"
    submit(
        connection,
        job("slow", "say_slowly", given={"go": str(go)}),
        job("die", "say_and_die"),
        job("both", "say_and_die", "PEM"),
    )
    start_worker(mode=mode, log_folder=str(logs), concurrency=2)
    slow = logs / "r1-slow.log"
    wait_until(lambda: slow.exists() and slow.read_text() == "begins\n", 20)
    wait_until((logs / "r1-both.log").exists, 20)
    go.touch()
    wait_until(lambda: runs.get_status("r1", connection).state == "failed", 20)
    assert slow.read_text() == "begins\n***\nends\n"
    for name in ("die", "both"):
        text = (logs / f"r1-{name}.log").read_text()
        assert text.endswith("\nlast *** and ***")
        assert LOG_BYTES - 50_000 < len(text) < LOG_BYTES + 100
        assert "last *** and ***" in error(connection, name)
    everything = "".join(log.read_text() for log in logs.iterdir()) + kept_in(connection)
    assert find_leaks(everything) == []


@pytest.mark.parametrize("mode", ["fork", "warm"])
def test_what_a_job_has_left_behind_is_masked_in_the_output_of_the_next_one(
    connection: redis.Redis, drain: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    go, logs = tmp_path / "go", tmp_path / "logs"
    given = {"token": "${{ secrets.TOKEN }}", "go": str(go)}
    submit_plainly(
        connection,
        JobSpec("leave", "secret_jobs:leave", given),
        JobSpec("next", "secret_jobs:let_go", {"go": str(go)}, needs=("leave",)),
    )
    drain(mode=mode, log_folder=str(logs))
    assert (logs / "r1-next.log").read_text() == "left ***\n"


# Where the supervisor moves it -------------------------------------------------------------------


def test_nothing_is_moved_before_all_secrets_that_the_child_has_told_are_known(
    tmp_path: Path,
) -> None:
    shared, secrets, logs = (
        SharedState(multiprocessing.get_context("spawn")),
        Secrets(),
        tmp_path / "logs",
    )
    scratch = Scratch(str(tmp_path), str(logs))
    printed, log = tmp_path / "child-7.out", logs / "j.log"
    shared.allow(1, 2)
    assert shared.begin(1, 7)
    printed.write_bytes(f"before {TOKEN[:9]}".encode())
    shared.count_secrets(2)
    scratch.pass_on(7, shared, 1, "j", secrets)
    assert not log.exists()
    secrets.add([TOKEN])
    scratch.pass_on(7, shared, 1, "j", secrets)
    assert not log.exists()
    secrets.add([PEM])
    scratch.pass_on(7, shared, 1, "j", secrets)
    assert log.read_text() == "before "
    with printed.open("a") as file:
        file.write(f"{TOKEN[9:]} after")
    assert scratch.take(7, shared, "j", secrets) == "before *** after"
    assert log.read_text() == "before *** after"
    printed.write_bytes(TOKEN.encode())
    shared.count_secrets(1)
    assert scratch.take(7, shared, "j", secrets) == WITHHELD.decode()
    assert log.read_text() == "before *** after" + WITHHELD.decode()


def test_output_without_end_is_not_cut_in_the_middle_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "RUNAWAY_BYTES", 700_000)
    shared, secrets = SharedState(multiprocessing.get_context("spawn")), Secrets()
    secrets.add([TOKEN])
    scratch = Scratch(str(tmp_path), str(tmp_path / "logs"))
    data, printed = TOKEN.encode(), tmp_path / "child-7.out"
    for shift in range(len(data) + 1):
        printed.write_bytes(b"x" * (HALF_BYTES - shift) + data + b"y" * 300_000)
        scratch.trim(7, secrets)
        with printed.open("ab") as file:
            file.write(b" and on")
        assert "hunter2" not in scratch.take(7, shared, "j", secrets)
