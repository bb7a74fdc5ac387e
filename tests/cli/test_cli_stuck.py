"""A job that waits for a failed blocker to succeed: what is said of it, and what is done then."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from flowq import client
from flowq.status import STUCK
from tests.cli.commands import Flowq, Said
from tests.cli.terminal import run_on_terminal

Call = Callable[..., Said]


def _next_note(process: subprocess.Popen[str]) -> str:
    """Return what `flowq run` says next of a job that waits."""
    assert process.stderr is not None
    return next(line for line in process.stderr if "to succeed; " in line)


def _requeue(note: str) -> None:
    """Do what the note says runs the blocker again."""
    words = shlex.split(note.split("run it again with: ")[1].partition(";")[0])
    rq = str(Path(sys.executable).with_name(words[0]))
    subprocess.run([rq, *words[1:]], check=True, capture_output=True, timeout=60)


def test_a_run_says_who_waits_for_which_failed_job_and_its_command_gets_it_going_again(
    flowq: Flowq, folder: Path
) -> None:
    process = flowq.start("run", "stuck.yaml")
    note = _next_note(process)
    run_id = note.split("flowq retry ")[1].strip()
    assert note.startswith("flowq: join waits for shut (failed) to succeed; ")
    assert f"flowq cancel {run_id}, " in note

    status = flowq("status", run_id).stdout
    assert f"deferred, {STUCK}: shut failed" in status
    assert status.endswith(f"\nwhat to do: flowq explain {run_id}\n")
    assert json.loads(flowq("status", run_id, "--json").stdout)["status"] == "waiting"
    explained = flowq("explain", run_id).stdout
    assert f"rq requeue --queue run.{run_id} {run_id}-shut --url " in explained
    assert " runs it again; or delete it; or " in explained
    assert f"flowq cancel {run_id}, then flowq retry {run_id}\n" in explained

    _requeue(note)  # in vain
    assert _next_note(process) == note
    (folder / "gate").touch()
    _requeue(note)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.count(f"join deferred: {STUCK}: shut failed\n") == 2
    assert "join finished" in out
    assert flowq("status", run_id).stdout.splitlines()[-1].startswith("✓ join")


def test_the_other_way_out_is_to_cancel_the_run_and_to_retry_it(flowq: Flowq, folder: Path) -> None:
    process = flowq.start("run", "stuck.yaml", "--quiet")
    run_id = _next_note(process).split("flowq retry ")[1].strip()
    assert flowq("cancel", run_id).returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 1
    (folder / "gate").touch()
    assert flowq("retry", run_id, "--quiet").returncode == 0


def test_what_a_requeue_does_not_help_is_not_requeued(flowq: Flowq, folder: Path) -> None:
    jobs = "  join: {needs: between, on_blocker_failure: wait, run: echo joined}\n"
    jobs += "  between: {needs: shut, run: echo between}\n  shut: {call: kitchen:pass_gate}\n"
    (folder / "skipped.yaml").write_text(f"name: skipped\njobs:\n{jobs}")
    process = flowq.start("run", "skipped.yaml")
    note = _next_note(process)
    assert note.startswith("flowq: join waits for between (skipped) to succeed; end the run with:")
    flowq("cancel", note.split("flowq retry ")[1].strip())
    process.communicate(timeout=60)


def test_it_is_said_above_the_table_of_a_terminal(flowq: Flowq, folder: Path) -> None:
    canceled: list[str] = []

    def cancel(written: str) -> None:
        run_ids = re.findall(r"flowq retry (\w{12})", written)
        if run_ids and not canceled:
            canceled.append(flowq("cancel", run_ids[0]).stdout)

    code, written = run_on_terminal(["run", "stuck.yaml"], folder, flowq.env, 400, 20, cancel)
    assert code == 1
    assert written.count("join waits for shut (failed) to succeed; ") == 1


def test_who_watches_is_told_as_well(
    flowq: Flowq, call: Call, connection: Redis, redis_url: str
) -> None:
    url = ("--redis-url", redis_url)
    running = flowq.start("run", "stuck.yaml", *url, "-c", "1")
    said = _next_note(running)
    (run,) = client.list_runs(connection, 1)
    assert f"flowq retry {run.run_id} --redis-url {shlex.quote(redis_url)}\n" in said
    watching = flowq.start("watch", run.run_id, *url)
    assert _next_note(watching) == said
    call("cancel", run.run_id, *url)
    watching.communicate(timeout=60)
    running.communicate(timeout=60)
