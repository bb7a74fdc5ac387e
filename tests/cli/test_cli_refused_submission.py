"""A server that refuses, or is gone, while a command submits a run or changes one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq import client
from flowq.cli import place
from flowq.client import Run
from flowq.compiling import compile_plan, load
from flowq.runtime import approvals, planned, retry, runs
from flowq.runtime.connections import Outage, RetryWhileRefused
from flowq.runtime.maintenance import tidy
from tests.cli.commands import Flowq, Said
from tests.workers.real_servers import REFUSALS

Call = Callable[..., Said]
Do = Callable[[], object]
OOM = REFUSALS["OOM"]


@pytest.fixture
def when_half_staged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Do], None]:
    """`when_half_staged(do)`: do that once the first job of a run is staged. Nobody waits long."""
    batches = planned.batches

    def set_up(do: Do) -> None:
        def interrupted(enqueues: object) -> Iterator[object]:
            first, *others = batches(enqueues, 1)  # type: ignore[arg-type]
            assert others
            yield first
            do()
            yield from others

        monkeypatch.setattr(planned, "batches", interrupted)

    hurried = RetryWhileRefused(Outage(place.note, place.note), 0.2)
    monkeypatch.setattr(place, "make_retry", lambda: hurried)
    return set_up


def kill(connection: redis.Redis) -> None:
    os.kill(int(connection.info("server")["process_id"]), signal.SIGKILL)


@pytest.mark.parametrize("answer", REFUSALS)
@pytest.mark.parametrize("option", ["-q", "--detach", "--hold"])
def test_a_run_that_could_not_be_submitted_is_named_and_said_not_to_start(
    call: Call,
    operator: redis.Redis,
    url: str,
    when_half_staged: Callable[[Do], None],
    answer: str,
    option: str,
) -> None:
    begin, end = REFUSALS[answer]
    when_half_staged(lambda: begin(operator))
    done = call("run", "ask.yaml", option, "--redis-url", url, "-c", "1")
    end(operator)
    (record,) = client.list_runs(operator)
    assert record.state == "staged"
    assert (done.code, done.out) == (4, "")
    *_, waits, error = done.err.splitlines()
    assert "cannot be used" in waits
    assert f"run {record.run_id} is not submitted, and nothing starts: submit it again" in error
    assert "goes on" not in done.err
    assert operator.llen("rq:queue:default") == 0


def test_a_run_that_is_submitted_by_half_cannot_be_released(
    call: Call, operator: redis.Redis, url: str, when_half_staged: Callable[[Do], None]
) -> None:
    when_half_staged(lambda: OOM[0](operator))
    call("run", "ask.yaml", "--detach", "--redis-url", url)
    OOM[1](operator)
    (record,) = client.list_runs(operator)
    done = call("release", record.run_id, "--redis-url", url)
    assert done.code == 5
    assert "is still being submitted; if its submitter has died, it will be removed" in done.err
    assert Run(record.run_id, operator).record().state == "staged"


def test_a_run_whose_server_is_gone_while_it_is_submitted_is_named_too(
    call: Call, operator: redis.Redis, url: str, when_half_staged: Callable[[Do], None]
) -> None:
    when_half_staged(lambda: kill(operator))
    done = call("run", "ask.yaml", "--detach", "--redis-url", url)
    assert done.code == 4
    assert "is not submitted, and nothing starts: submit it again" in done.err


def test_a_run_is_submitted_if_the_refusal_is_short(
    call: Call,
    operator: redis.Redis,
    url: str,
    when_half_staged: Callable[[Do], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, end = OOM
    retry = RetryWhileRefused(Outage(lambda text: end(operator), place.note))
    when_half_staged(lambda: begin(operator))
    monkeypatch.setattr(place, "make_retry", lambda: retry)
    done = call("run", "ask.yaml", "--hold", "-q", "--redis-url", url)
    assert done.code == 0, done.err
    assert Run(done.out.strip(), operator).record().state == "waiting"


def test_a_commit_without_an_answer_leaves_open_whether_the_run_is_submitted(
    operator: redis.Redis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = runs.scripts.COMMIT

    class Commit:
        def call(self, *words: object) -> object:
            kill(operator)
            return commit.call(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(runs.scripts, "COMMIT", Commit())
    plan = compile_plan(load(f"{folder}/ask.yaml"))
    with pytest.raises(redis.ConnectionError) as lost:
        client.submit(plan, operator)
    assert lost.value.__notes__ == [
        f"whether run {plan.run_id} is submitted is not known: look at its status"
    ]


def test_a_submitter_that_was_away_for_longer_than_its_lease_is_told_to_submit_again(
    operator: redis.Redis, folder: Path, when_half_staged: Callable[[Do], None]
) -> None:
    plan = compile_plan(load(f"{folder}/ask.yaml"))
    when_half_staged(lambda: runs.remove(plan.run_id, operator))
    with pytest.raises(client.RunNotFound, match="took too long; submit it again"):
        client.submit(plan, operator)
    assert operator.keys("rq:job:*") == []


@pytest.mark.parametrize("verb", ["approve", "release", "retry"])
def test_a_change_that_the_server_has_made_counts_though_it_refuses_what_follows(
    operator: redis.Redis, folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    plan = compile_plan(load(f"{folder}/ask.yaml"))
    run = client.submit(plan, operator, is_held=verb == "release")
    if verb == "retry":
        run.cancel()
    module = retry if verb == "retry" else approvals
    leave = module.do_or_leave_to_others

    def refuse(do: Do, connection: redis.Redis) -> None:
        OOM[0](operator)
        leave(do, connection)
        OOM[1](operator)

    monkeypatch.setattr(module, "do_or_leave_to_others", refuse)
    asked = {"approve": ("publish",)}
    assert getattr(run, verb)(*asked.get(verb, ()))
    monkeypatch.undo()
    tidy(operator)
    assert operator.llen("rq:queue:default") == 1
    assert run.record().state == "running"


def test_a_second_interrupt_during_a_refusal_does_not_say_that_a_run_may_go_on(
    flowq: Flowq, operator: redis.Redis, url: str, wait_until: Callable[..., None]
) -> None:
    jobs = "".join(f"  j{number}: {{call: 'time:time'}}\n" for number in range(3_000))
    (flowq.folder / "many.yaml").write_text(f"name: many\njobs:\n{jobs}")
    process = flowq.start("run", "many.yaml", "--redis-url", url)
    wait_until(lambda: client.list_runs(operator), within_s=40)
    OOM[0](operator)
    assert process.stderr is not None
    assert any("cannot be used" in line for line in process.stderr)
    (record,) = client.list_runs(operator)
    assert record.state == "staged"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, stderr = process.communicate(timeout=60)
    assert "exiting; no run was submitted" in stderr
