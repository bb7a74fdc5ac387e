"""`flowq retry`, `explain` and `doctor`: what to do when a run did not succeed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from rq.job import Job as RQJob

from flowq.runtime.queue import Queue
from tests.cli.commands import Flowq, Said

Call = Callable[..., Said]


def test_retry_runs_the_rest_of_a_failed_run_and_follows_it(flowq: Flowq, folder: Path) -> None:
    failed = json.loads(flowq("run", "gate.yaml", "--json").stdout)
    assert (failed["status"], failed["jobs"]["last"]["status"]) == ("failed", "skipped")
    run_id = failed["run"]

    explained = flowq("explain", run_id, "last")
    assert explained.stdout.splitlines() == [
        f"last ({run_id}-last) is skipped",
        "  - shut failed",
        f"    look at it: flowq explain {run_id} shut",
    ]

    (folder / "gate").touch()
    done = flowq("retry", run_id, "--json")
    assert done.returncode == 0, done.stderr
    assert f"2 jobs of run {run_id} run again" in done.stderr
    document = json.loads(done.stdout)
    assert {job["status"] for job in document["jobs"].values()} == {"finished"}
    assert document["jobs"]["shut"]["result"] == "passed"

    again = flowq("retry", run_id)
    assert (again.returncode, again.stdout) == (5, "")
    assert again.stderr.startswith(f"flowq: run {run_id} has succeeded; there is nothing to retry.")

    assert "has changed" not in done.stderr + again.stderr
    file = folder / "gate.yaml"
    file.write_text(
        file.read_text().replace("text: done", "text: edited") + "description: Edited\n"
    )
    one = flowq("retry", run_id, "shut", "--json")
    assert one.returncode == 0, one.stderr
    assert f"2 jobs of run {run_id} run again" in one.stderr
    assert f"{file} has changed since run {run_id} was submitted (last); a retry" in one.stderr
    wrong = flowq("retry", run_id, "shot")
    assert (wrong.returncode, wrong.stdout) == (5, "")
    assert wrong.stderr.endswith(f"there is no job shot in run {run_id}; did you mean 'shut'?\n")


def test_a_retry_does_not_tell_again_what_happened_before(flowq: Flowq, folder: Path) -> None:
    run_id = json.loads(flowq("run", "gate.yaml", "--json").stdout)["run"]
    (folder / "gate").touch()
    lines = flowq("retry", run_id).stdout.splitlines()
    assert not [line for line in lines if "failed" in line or "open" in line]
    assert [line for line in lines if "shut finished" in line]


def test_retry_continues_with_an_edited_file_and_says_before_what_it_keeps(
    flowq: Flowq, call: Call, folder: Path
) -> None:
    run_id = json.loads(flowq("run", "gate.yaml", "--json").stdout)["run"]
    text = (folder / "gate.yaml").read_text()
    (folder / "edited.yaml").write_text(text.replace("pass_gate", "say\n    with: {text: ah}"))
    expected = [
        f"keeps of run {run_id}: open",
        "runs shut: its `call` has changed (edited.yaml:7:11)",
        "runs after these: last",
    ]
    edited = ("--file", "edited.yaml")
    assert call("retry", run_id, *edited, "--dry-run").out.splitlines() == expected
    document = json.loads(call("retry", run_id, *edited, "--dry-run", "--json").out)
    assert (document["continues"], document["kept"]) == (run_id, ["open"])

    done = flowq("retry", run_id, *edited, "--json")
    assert done.returncode == 0, done.stderr
    said = [line.removeprefix("flowq: ") for line in done.stderr.splitlines()]
    assert said[:3] == expected
    document, new_id = json.loads(done.stdout), json.loads(done.stdout)["run"]
    assert (document["continues"], document["status"]) == (run_id, "succeeded")
    assert document["jobs"]["open"]["reason"] == f"kept from run {run_id}"
    listed = json.loads(call("runs", "--json").out)["runs"]
    assert [run.get("continues") for run in listed] == [run_id, None]
    assert f"continues run {run_id}" in call("show", new_id).out

    vain = call("retry", new_id, *edited)
    assert (vain.code, vain.out) == (2, "")
    assert f"no job would run: all that run {new_id} has done is kept" in vain.err
    refused = call("retry", run_id, "-i", "size=3")
    assert (refused.code, refused.out) == (2, "")
    assert "need --file" in refused.err


def test_explain_names_what_holds_a_job(call: Call, connection: Redis, redis_url: str) -> None:
    queue = Queue(connection=connection)
    report = queue.enqueue("time.time", deferred=True, job_id="report")
    queue.enqueue("time.time", blocks=report, job_id="count")
    url = ("--redis-url", redis_url)

    held = call("explain", "report", *url).out
    assert "report is deferred\n  - it has not been released\n" in held
    assert "it waits for count" in held
    assert "it blocks report, not released yet" in call("explain", "count", *url).out

    report.release()
    assert "no worker listens on the queue default" in call("explain", "count", *url).out
    assert call("explain", "nothing", *url) == Said(
        5, "", "flowq: there is no job nothing on this server\n"
    )


def test_doctor_puts_right_what_ended_unnoticed(
    call: Call, connection: Redis, redis_url: str
) -> None:
    url = ("--redis-url", redis_url)
    assert "nothing to repair" in call("doctor", *url).out

    queue = Queue(connection=connection)
    report = queue.enqueue("time.time", deferred=True, job_id="report")
    queue.enqueue("time.time", blocks=report, job_id="count")
    report.release()
    RQJob.fetch("count", connection).delete()

    said = call("doctor", *url).out
    assert "count was deleted; report does not wait for it any more\nrepaired: 1\n" in said
    assert report.is_queued
    assert "warning: the server keeps nothing on disk" in said
