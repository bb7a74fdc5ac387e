"""`flowq approve`, `reject` and `release`, and `flowq run --hold`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from flowq.runtime.queue import Queue
from tests.cli.commands import Flowq, Said

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
    assert f"flowq approve {run_id} publish" in line
    approved = flowq("approve", run_id, "publish")
    assert approved.returncode == 0
    out, _ = following.communicate(timeout=60)
    assert following.returncode == 0, out
    status = json.loads(flowq("status", run_id, "--json").stdout)
    assert status["jobs"]["publish"].pop("approval")["status"] == "approved"
    [attempt] = status["jobs"]["publish"].pop("attempts")
    times = ("queued_at", "started_at", "ended_at", "duration_s")
    assert status["jobs"]["publish"] == {
        "status": "finished",
        "ids": [f"{run_id}-publish"],
        "reason": None,
        "tolerated": False,
        **{time: attempt[time] for time in times},
        "error": None,
        "result": "published",
    }


def test_who_watches_a_run_is_asked_as_well(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--detach").stdout.strip()
    watching = flowq.start("watch", run_id)
    assert watching.stderr is not None
    assert any(f"flowq approve {run_id} publish" in line for line in watching.stderr)
    flowq("approve", run_id, "publish")
    watching.communicate(timeout=60)
    assert watching.returncode == 0


def test_what_asks_for_nothing_is_refused(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--hold").stdout.strip()
    refused = flowq("approve", run_id, "build")
    assert refused.returncode == 5
    assert "does not ask for an approval" in refused.stderr


def test_a_job_of_a_held_run_can_be_approved_before_the_run_is_started(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--hold").stdout.strip()
    approved = flowq("approve", run_id, "publish")
    assert approved.returncode == 0
    assert f"the run is held; start it with: flowq release {run_id}\n" in approved.stderr
    started = flowq("release", run_id)
    assert started.returncode == 0
    assert "succeeded" in started.stdout


def test_who_watches_a_held_run_hears_that_it_is_held(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--hold").stdout.strip()
    watching = flowq.start("watch", run_id)
    assert watching.stderr is not None
    held = f"flowq: the run is held; release it with: flowq release {run_id}\n"
    assert any(line.endswith(held.removeprefix("flowq: ")) for line in watching.stderr)


def test_a_run_that_waits_for_its_turn_says_for_which_run(flowq: Flowq, folder: Path) -> None:
    text = "concurrency: {group: g}\njobs:\n  a: {run: echo a"
    (folder / "asks.yaml").write_text(f"{text}, approval: true}}\n")
    (folder / "turn.yaml").write_text(f"{text}}}\n")
    first = flowq("run", "asks.yaml", "--detach").stdout.strip()
    second = flowq.start("run", "turn.yaml")
    assert second.stderr is not None
    turn = next(line for line in second.stderr if "its turn" in line)
    assert f"after {first}; it starts when these have ended" in turn
    assert flowq("cancel", first).returncode == 0
    second.communicate(timeout=60)
    assert second.returncode == 0


def test_all_commands_agree_that_a_run_waits(flowq: Flowq) -> None:
    process = flowq.start("run", ASK)
    assert process.stderr is not None
    line = next(line for line in process.stderr if "waits for an approval" in line)
    run_id = line.split()[-2]
    assert json.loads(flowq("status", run_id, "--json").stdout)["status"] == "waiting"
    assert flowq("runs").stdout.splitlines()[1].split()[2] == "waiting"
    assert "state     waiting" in flowq("show", run_id).stdout
    flowq("approve", run_id, "publish")
    process.communicate(timeout=60)
    assert flowq("runs").stdout.splitlines()[1].split()[2] == "succeeded"


def test_a_future_job_of_no_run_is_released_by_its_id(
    call: Callable[..., Said], redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    at = f"--redis-url '{redis_url}'"
    queue = Queue("mails", connection=connection)
    future = queue.enqueue("time.time", deferred=True, job_id="future")
    blocker = queue.enqueue("time.time", blocks=future, job_id="blocker")
    assert (
        f"flowq release future {at} closes the declaration" in call("explain", "future", *url).out
    )
    assert f"flowq release future {at} frees its blockers" in call("explain", "blocker", *url).out
    said = call("release", "future", *url)
    assert (said.code, said.err.splitlines()[0]) == (0, "flowq: job future is released")
    assert "no worker listens on the queue mails; start one with: flowq worker mails" in said.err
    assert blocker.get_status() == "queued"
    assert "job future was already released" in call("release", "future", *url).err
    refused = call("release", "blocker", *url)
    assert (refused.code, "is not a future job" in refused.err) == (2, True)


def test_a_job_that_asks_for_approval_is_released_by_its_id_too(
    call: Callable[..., Said], redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", ASK, "--detach", *url).out.strip()
    said = call("release", f"{run_id}-publish", *url)
    assert said.code == 0
    told, then = said.err.splitlines()[-2:]
    assert told == f"flowq: job publish of run {run_id} is approved"
    assert then.startswith(f"flowq: follow it with: flowq watch {run_id}")


def test_a_job_that_is_taken_for_a_run_is_named(
    call: Callable[..., Said], redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    Queue(connection=connection).enqueue("time.time", job_id="alone")
    run_id = call("run", ASK, "--detach", *url).out.strip()
    for words in (["cancel"], ["status"], ["show"], ["watch"], ["retry"]):
        said = call(*words, "alone", *url)
        assert (
            said.code,
            "alone is a job outside of runs; look at it with flowq explain" in said.err,
        ) == (5, True)
    for words in (["cancel"], ["watch"], ["retry"]):
        said = call(*words, f"{run_id}-build", *url)
        what = f"{run_id}-build is job build of run {run_id}"
        assert (said.code, f"{what}; look at it with flowq explain" in said.err) == (5, True)
    for words in (["show"], ["status"], ["explain"]):  # those of a job take its id as well
        assert call(*words, f"{run_id}-build", *url).code == 0


def test_the_old_words_for_an_approval_still_work_and_name_the_new_ones(flowq: Flowq) -> None:
    run_id = flowq("run", ASK, "--hold").stdout.strip()
    released = flowq("release", run_id, "publish")
    assert released.returncode == 0
    assert f"write: flowq approve {run_id} publish\n" in released.stderr
    assert f"job publish of run {run_id} is approved\n" in released.stderr


def test_an_answer_gives_values_and_is_shown(flowq: Flowq, folder: Path) -> None:
    (folder / "ship.yaml").write_text(
        "jobs:\n  ship:\n    approval:\n      message: Ship to ${{ run.workflow }}?\n"
        "      inputs: {host: {type: str}, percent: {type: int, default: 10}}\n"
        "    run: echo ${{ approval.host }} ${{ approval.percent }}\n"
    )
    process = flowq.start("run", "ship.yaml")
    assert process.stderr is not None
    line = next(line for line in process.stderr if "waits for an approval" in line)
    run_id = line.split()[-4]
    assert f"(Ship to ship?); give it with: flowq approve {run_id} ship -i host=…" in line
    assert "-i host=…" in flowq("explain", run_id, "ship").stdout
    missing = flowq("approve", run_id, "ship")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "the input host is required" in missing.stderr
    approved = flowq("approve", run_id, "ship", "-i", "host=blue", "--note", "seen")
    assert approved.returncode == 0
    process.communicate(timeout=60)
    told = json.loads(flowq("status", run_id, "--json").stdout)["jobs"]["ship"]
    assert told["result"] == "blue 10"
    approval = told["approval"]
    assert (approval["status"], approval["message"]) == ("approved", "Ship to ship?")
    assert (approval["note"], approval["inputs"]) == ("seen", {"host": "blue", "percent": 10})
    assert "@" in approval["by"]
    late = flowq("approve", run_id, "ship", "-i", "host=green")
    assert (late.returncode, late.stderr.count("\n")) == (5, 1)
    assert "was already approved with other values" in late.stderr
    shown = flowq("show", run_id, "ship").stdout
    assert "executes  echo " in shown
    assert "note      seen" in shown
    assert "given     percent = 10" in shown


def test_a_rejected_job_is_canceled_and_a_retry_asks_again(flowq: Flowq) -> None:
    process = flowq.start("run", ASK)
    assert process.stderr is not None
    line = next(line for line in process.stderr if "waits for an approval" in line)
    run_id = line.split()[-2]
    assert flowq("reject", run_id, "publish", "--reason", "not today").returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 1
    told = json.loads(flowq("status", run_id, "--json").stdout)["jobs"]["publish"]
    assert (told["status"], told["approval"]["status"]) == ("canceled", "rejected")
    assert "canceled: rejected: not today" in flowq("show", run_id, "publish").stdout
    again = flowq("reject", run_id, "publish")
    assert (again.returncode, "already rejected" in again.stderr) == (0, True)
    assert "retry asks again" in flowq("approve", run_id, "publish").stderr
