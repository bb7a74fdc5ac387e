"""`flowq explain`: what it calls a job, and the commands that it names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq.command import send_stop_job_command

from flowq.cli.display import Silent
from flowq.cli.own_workers import OwnWorkers
from flowq.client import Run
from flowq.workers import Worker, start
from tests.cli.commands import Said

Call = Callable[..., Said]
WaitUntil = Callable[..., None]

ITEMS = """
name: items
jobs:
  n: {for_each: "${{ [0, 1] }}", run: 'exit ${{ 1 - item }}'}
  shut: {run: exit 3}
  skipped: {needs: n, run: echo 1}
  after: {needs: n, run: echo 1, on_blocker_failure: wait}
  ask: {approval: true, run: echo 1, if: always(), needs: shut}
  last: {needs: [ask, shut], run: echo 1, if: always()}
  away: {run: echo 1, queue: far}
"""
LONG = """
name: long
jobs:
  slow: {run: exec sleep 60}
  last: {needs: slow, run: echo 1}
"""
NESTED = """
name: nested
workflows:
  chain: {jobs: {big: {run: exit 3}, small: {needs: big, run: echo 1}}}
jobs:
  chain: {workflow: chain, continue_on_error: true}
  n: {for_each: [1, 2], run: "echo ${{ item }}"}
"""
MANY = """
name: many
workflows:
  chain: {jobs: {big: {run: exit 3}}}
jobs:
  work: {matrix: {n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}, run: "echo ${{ matrix.n }}"}
  zip: {workflow: chain}
  last: {needs: [work, zip], run: echo 1}
"""


@pytest.fixture(autouse=True)
def texts(folder: Path) -> None:
    """The workflows of these tests."""
    (folder / "items.yaml").write_text(ITEMS)
    (folder / "long.yaml").write_text(LONG)
    (folder / "nested.yaml").write_text(NESTED)
    (folder / "many.yaml").write_text(MANY)


def test_jobs_are_called_by_the_names_that_displays_use(
    call: Call, redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "items.yaml", "--detach", *url).out.strip()
    Worker(["default"], connection=connection, mode="warm").work(burst=True, logging_level="ERROR")

    item = call("explain", run_id, "n[0]", *url).out
    assert item.startswith(f"n[0] ({run_id}-n--0) has failed\n  - it was executed, and failed\n")
    assert f"flowq show {run_id} 'n[0]' --redis-url" in item
    assert "  - n[0] did not succeed (failed)\n" in call("explain", run_id, "after", *url).out
    assert call("explain", f"{run_id}-n--0", *url).out == item
    last = call("explain", run_id, "last", *url).out
    assert f"  - it waits for ask\n    look at the first one: flowq explain {run_id} ask " in last
    for text in (item, last):
        assert f"{run_id}-" not in text.partition("\n")[2]


def test_of_what_went_wrong_before_a_job_the_failure_comes_first(
    call: Call, redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "nested.yaml", "--detach", *url).out.strip()
    Worker(["default"], connection=connection, mode="warm").work(burst=True, logging_level="ERROR")

    assert "because of chain.big, chain.small;" in call("explain", run_id, "chain", *url).out
    group = call("explain", run_id, "n", *url).out
    assert group.startswith(f"n ({run_id}-n) has finished\n  - all of its 2 items have ended")
    whole = call("explain", run_id, *url).out
    assert whole == f"run {run_id} (succeeded): no job is waiting, and no failure counts\n"
    shown = call("show", run_id, "chain.big", *url).out
    assert "\nerror:\n  flowq.errors.ShellFailed: `exit 3` ended with exit code 3\n" in shown


def test_each_command_that_it_names_talks_to_the_server_that_was_named(
    call: Call, redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "items.yaml", "--detach", *url).out.strip()
    queued = call("explain", run_id, *url).out
    Worker(["default"], connection=connection, mode="warm").work(burst=True, logging_level="ERROR")
    told = queued + call("explain", run_id, *url).out
    names = ("n[0]", "shut", "skipped", "after", "ask", "last", "away")
    told += "".join(call("explain", run_id, name, *url).out for name in names)
    held = call("run", "items.yaml", "--detach", "--hold", *url).out.strip()
    told += call("explain", held, "shut", *url).out
    connection.delete(f"rq:job:{run_id}-away")
    told += call("explain", run_id, "away", *url).out

    verbs = ("worker far", "show", "explain", "cancel", "retry", "release", "doctor")
    for verb in verbs:
        assert f"flowq {verb}" in told
    commands = re.findall(r"\b(?:flowq|rq) (?:worker|show|explain|cancel|re\w+|doctor).*", told)
    for line in commands:
        one_each = re.split(r" (?:and|then|or) (?=flowq|rq)", line)
        assert all(
            f" --redis-url {redis_url}" in one or f" --url {redis_url}" in one
            for one in (part.replace("'", "") for part in one_each)
        ), line


def test_what_holds_several_jobs_is_said_once(call: Call, redis_url: str) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "items.yaml", "--detach", "--hold", *url).out.strip()
    held = call("explain", run_id, *url).out
    assert held.count("its run is held") == 1
    assert f"shut ({run_id}-shut), " in held.splitlines()[0]
    call("release", run_id, *url)
    assert call("explain", run_id, *url).out.count("no worker listens on the queue default") == 1


@pytest.mark.parametrize("is_canceled", [True, False])
def test_it_says_why_a_job_was_stopped(
    call: Call, redis_url: str, connection: Redis, wait_until: WaitUntil, is_canceled: bool
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "long.yaml", "--detach", *url).out.strip()
    worker = start(url=redis_url, mode="warm")
    try:
        wait_until(lambda: _state(run_id, "slow", connection) == "started", 20)
        if is_canceled:
            call("cancel", run_id, *url)
        else:
            send_stop_job_command(connection, f"{run_id}-slow")
        wait_until(lambda: Run(run_id, connection).status().is_ended, 20)
    finally:
        worker.kill()
        worker.wait()
    why = "because the run was canceled" if is_canceled else "by RQ's stop command"
    assert f"  - it was stopped while it ran, {why}\n" in call("explain", run_id, "slow", *url).out
    last = call("explain", run_id, "last", *url).out
    assert ("slow was stopped" in last) != is_canceled


def _state(run_id: str, name: str, connection: Redis) -> str:
    return Run(run_id, connection).status().jobs[name].state


def test_of_many_blockers_one_of_each_declaration_is_named_first(
    call: Call, redis_url: str
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "many.yaml", "--detach", *url).out.strip()
    told = call("explain", run_id, "last", *url).out
    assert "  - it waits for work[0], zip, work[1], work[2], work[3] and 8 more\n" in told
    ids = json.loads(call("explain", run_id, "last", "--json", *url).out)["jobs"][0]["reasons"][0]
    items = [f"{run_id}-work--{number}" for number in range(12)]
    assert ids["job_ids"] == [items[0], f"{run_id}-zip", *items[1:]]

    group = call("show", run_id, "work", "-f", *url)
    says = "work is a group; name one of its items, such as work[0]\n"
    assert (group.code, group.out) == (2, "")
    assert group.err.endswith(says)


def test_no_workers_are_started_for_a_run_that_has_ended_since_it_was_last_shown(
    call: Call, redis_url: str, connection: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    url = ("--redis-url", redis_url)
    run = Run(call("run", "many.yaml", "--detach", *url).out.strip(), connection)
    workers = OwnWorkers.__new__(OwnWorkers)  # without processes of its own
    workers._run, workers._started_at = run, []
    workers._process = subprocess.Popen([sys.executable, "-c", ""])
    workers._process.wait()
    before = run.status()
    call("cancel", run.run_id, *url)
    assert not before.is_ended
    workers.look(before, Silent(sys.stdout))
    assert capfd.readouterr().err == ""
