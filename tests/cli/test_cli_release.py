"""`flowq release` and `flowq run --hold`."""

from __future__ import annotations

import json
from pathlib import Path

from commands import Flowq

ASK = str(Path(__file__).with_name("ask.yaml"))


def test_a_run_that_was_held_starts_waits_for_its_approval_and_is_finished(flowq: Flowq) -> None:
    held = flowq("run", ASK, "--hold")
    run_id = held.stdout.strip()
    assert f"flowq release {run_id}" in held.stderr
    assert json.loads(flowq("status", run_id, "--json").stdout)["status"] == "waiting"
    following = flowq.start("release", run_id)
    assert following.stderr is not None
    for line in following.stderr:
        if "waits for an approval" in line:
            break
    assert f"flowq release {run_id} publish" in line
    approved = flowq("release", run_id, "publish")
    assert approved.returncode == 0
    out, _ = following.communicate(timeout=40)
    assert following.returncode == 0, out
    status = json.loads(flowq("status", run_id, "--json").stdout)
    assert status["jobs"]["publish"] == {
        "status": "finished",
        "ids": [f"{run_id}-publish"],
        "result": "published",
    }


def test_who_watches_a_run_is_asked_as_well(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--detach").stdout.strip()
    watching = flowq.start("watch", run_id)
    assert watching.stderr is not None
    assert any(f"flowq release {run_id} publish" in line for line in watching.stderr)
    flowq("release", run_id, "publish")
    watching.communicate(timeout=40)
    assert watching.returncode == 0


def test_what_asks_for_nothing_is_refused(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--hold").stdout.strip()
    refused = flowq("release", run_id, "build")
    assert refused.returncode == 5
    assert "asks for no approval" in refused.stderr
