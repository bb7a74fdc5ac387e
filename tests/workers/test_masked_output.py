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
from flowq.runtime.printed import HEAD_BYTES, TAIL_BYTES, Printed, read_printed
from flowq.runtime.queue import Queue
from flowq.spec import JobSpec, Shell, Workflow
from flowq.workers import output
from flowq.workers.claims import Claim
from flowq.workers.output import HALF_BYTES, WITHHELD, Scratch, Secrets
from flowq.workers.shared_state import SharedState
from tests import JOBS_FOLDER

TOKEN = "hunter2/Zq9 'Xk\"Lm+é=="
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----"
KEPT_BYTES = HEAD_BYTES + TAIL_BYTES
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


def printed_by(connection: redis.Redis, *job_ids: str) -> str:
    found = read_printed("r1", job_ids, connection).values()
    texts = [each.head + each.tail for attempts in found for each in attempts.values()]
    return b"".join(texts).decode()


SUBMITTED = ("say", "pem", "fail", "failpem", "derived", "shell", "list", "own", "cwd")


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
    connection: redis.Redis, drain: Callable[..., Any], mode: str
) -> None:
    submit_all(connection)
    drain(mode=mode)
    check_all(connection, printed_by(connection, *(f"r1-{name}" for name in SUBMITTED)))


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
    go = tmp_path / "go"
    submit(
        connection,
        job("slow", "say_slowly", given={"go": str(go)}),
        job("die", "say_and_die"),
        job("both", "say_and_die", "PEM"),
    )
    start_worker(mode=mode, concurrency=2)
    wait_until(lambda: printed_by(connection, "r1-slow") == "begins\n", 20)
    wait_until(lambda: printed_by(connection, "r1-both"), 20)
    go.touch()
    wait_until(lambda: runs.get_status("r1", connection).state == "failed", 20)
    assert printed_by(connection, "r1-slow") == "begins\n***\nends\n"
    for name in ("die", "both"):
        text = printed_by(connection, f"r1-{name}")
        assert text.endswith("\nlast *** and ***")
        assert KEPT_BYTES - 5_000 < len(text) <= KEPT_BYTES
        assert "last *** and ***" in error(connection, name)
    everything = printed_by(connection, "r1-slow", "r1-die", "r1-both") + kept_in(connection)
    assert find_leaks(everything) == []


@pytest.mark.parametrize("mode", ["fork", "warm"])
def test_what_a_job_has_left_behind_is_masked_in_the_output_of_the_next_one(
    connection: redis.Redis, drain: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    go = tmp_path / "go"
    given = {"token": "${{ secrets.TOKEN }}", "go": str(go)}
    submit_plainly(
        connection,
        JobSpec("leave", "secret_jobs:leave", given),
        JobSpec("next", "secret_jobs:let_go", {"go": str(go)}, needs=("leave",)),
    )
    drain(mode=mode)
    assert printed_by(connection, "r1-next") == "left ***\n"


# Where the supervisor moves it -------------------------------------------------------------------


def claim_of(number: int) -> Claim:
    raw = [b"flowq_run", b"r1"]
    return Claim(number, "j", "e", "default", raw, "kind", None)


def text_of(claim: Claim) -> str:
    found = claim.printed or Printed()
    return (found.head + found.tail).decode()


def test_nothing_is_taken_before_all_secrets_that_the_child_has_told_are_known(
    tmp_path: Path,
) -> None:
    shared, secrets = SharedState(multiprocessing.get_context("spawn")), Secrets()
    scratch, claim = Scratch(str(tmp_path)), claim_of(1)
    printed = tmp_path / "child-7.out"
    shared.allow(1, 2)
    assert shared.begin(1, 7)
    printed.write_bytes(f"before {TOKEN[:9]}".encode())
    shared.count_secrets(2)
    scratch.take_so_far(7, shared, claim, secrets)
    assert text_of(claim) == ""
    secrets.add([TOKEN])
    scratch.take_so_far(7, shared, claim, secrets)
    assert text_of(claim) == ""
    secrets.add([PEM])
    scratch.take_so_far(7, shared, claim, secrets)
    assert text_of(claim) == "before "
    with printed.open("a") as file:
        file.write(f"{TOKEN[9:]} after")
    assert scratch.take_rest(7, shared, claim, secrets) == "before *** after"
    assert text_of(claim) == "before *** after"
    printed.write_bytes(TOKEN.encode())
    shared.count_secrets(1)
    assert scratch.take_rest(7, shared, claim, secrets) == WITHHELD.decode()
    assert text_of(claim) == "before *** after" + WITHHELD.decode()


@pytest.mark.parametrize("step", [0, 1, 7, 10_000])
def test_a_secret_is_hidden_wherever_head_and_tail_begin_and_end(tmp_path: Path, step: int) -> None:
    shared, secrets = SharedState(multiprocessing.get_context("spawn")), Secrets()
    secrets.add([TOKEN])
    shared.count_secrets(1)
    shared.allow(1, 100)
    scratch, data, printed = Scratch(str(tmp_path)), TOKEN.encode(), tmp_path / "child-7.out"
    for shift in range(len(data) + 2):
        number = shift + 1
        claim = claim_of(number)
        assert shared.begin(number, 7)
        head = b"x" * (HEAD_BYTES - shift) + data
        end = data + b"z" * (TAIL_BYTES - shift)
        printed.write_bytes(head + b"y" * 300_000 + end)
        scratch.take_so_far(7, shared, claim, secrets)
        with printed.open("ab") as file:
            file.write(b"w" * step + data[: shift // 2])
        scratch.take_so_far(7, shared, claim, secrets)
        with printed.open("ab") as file:
            file.write(data[shift // 2 :] + b" and on")
        scratch.take_rest(7, shared, claim, secrets)
        text = text_of(claim)
        assert find_leaks(text) == [], shift
        assert not any(data[at : at + 4].decode(errors="ignore") in text for at in range(12)), shift
        assert text.endswith("*** and on")


def test_output_without_end_is_not_cut_in_the_middle_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "RUNAWAY_BYTES", 700_000)
    shared, secrets = SharedState(multiprocessing.get_context("spawn")), Secrets()
    secrets.add([TOKEN])
    shared.count_secrets(1)
    scratch = Scratch(str(tmp_path))
    data, printed = TOKEN.encode(), tmp_path / "child-7.out"
    for shift in range(len(data) + 1):
        printed.write_bytes(b"x" * (HALF_BYTES - shift) + data + b"y" * 300_000)
        scratch.trim(7, shared, None, secrets)
        with printed.open("ab") as file:
            file.write(b" and on")
        claim = claim_of(1)
        assert "hunter2" not in scratch.take_rest(7, shared, claim, secrets)
        assert "hunter2" not in text_of(claim)


def test_a_file_that_is_cut_costs_no_words_that_were_printed_before(tmp_path: Path) -> None:
    shared, secrets = SharedState(multiprocessing.get_context("spawn")), Secrets()
    scratch, claim = Scratch(str(tmp_path)), claim_of(shared.begun)
    (tmp_path / "child-7.out").write_bytes(b"x" * 2_000_000 + b"the end")
    scratch.trim(7, shared, claim, secrets)
    scratch.take_rest(7, shared, claim, secrets)
    assert claim.printed is not None
    assert claim.printed.size == 2_000_007
    assert claim.printed.tail == b"x" * (TAIL_BYTES - 7) + b"the end"
