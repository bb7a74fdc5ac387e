"""What runs, and is not needed any more, is stopped: by `cancel_rest` and by `fail_fast`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from redis import Redis
from rq.job import JobStatus

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import runs, steps
from flowq.runtime.job import get_job
from flowq.status import RunStatus
from tests.reading import parse_workflow
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
RUN = "r1"


def submit(connection: Redis, text: str) -> Callable[[], RunStatus]:
    workflow = parse_workflow(text, "first.yaml")
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection)
    return lambda: runs.get_status(RUN, connection)


def states(status: RunStatus) -> dict[str, str]:
    return {name: job.state for name, job in status.jobs.items()}


def test_jobs_that_run_are_stopped_and_the_run_succeeds(
    connection: Redis, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    status = submit(
        connection,
        f"""
        jobs:
          fast:
            call: "worker_jobs:touch_and_wait"
            with: {{began: {tmp_path}/x, go: {tmp_path}/go}}
          slow: {{call: "worker_jobs:sleep", with: {{seconds: 600}}, retries: 3}}
          many:
            for_each: [600, 601]
            call: "worker_jobs:sleep"
            with: {{seconds: "${{{{ item }}}}"}}
          part: {{workflow: inner, retries: 2}}
          first:
            needs: [fast, slow, many, part]
            start_when: one_success
            cancel_rest: true
            call: "worker_jobs:nothing"
        workflows:
          inner: {{jobs: {{x: {{call: "worker_jobs:sleep", with: {{seconds: 600}}}}}}}}
        """,
    )
    start_worker(concurrency=8)
    running = {"fast", "slow", "many[0]", "many[1]", "part.x"}
    wait_until(lambda: running <= {n for n, s in states(status()).items() if s == "started"}, 15)
    (tmp_path / "go").touch()
    wait_until(lambda: status().is_ended, 15)
    ended = states(status())
    assert status().state == "succeeded", ended
    assert {ended[name] for name in ("fast", "first")} == {"finished"}
    assert {ended[name] for name in ("slow", "many[0]", "many[1]", "part", "part.x")} == {"skipped"}
    assert status().jobs["slow"].reason == "not needed: first has started"


def test_fail_fast_stops_the_siblings_that_run(
    connection: Redis, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    status = submit(
        connection,
        f"""
        jobs:
          part:
            for_each: ["{tmp_path}/never", "{tmp_path}/never", "{tmp_path}/go"]
            fail_fast: true
            run: until [ -e ${{{{ item }}}} ]; do sleep 0.05; done; exit 3
        """,
    )
    start_worker(concurrency=4)
    wait_until(lambda: [*states(status()).values()].count("started") == 3, 15)
    (tmp_path / "go").touch()
    wait_until(lambda: status().is_ended, 15)
    ended = states(status())
    assert [ended[f"part[{index}]"] for index in range(3)] == ["canceled", "canceled", "failed"]
    assert status().jobs["part[0]"].reason == "part[2] failed"
    assert status().state == "failed"


def test_whoever_decides_dies_before_it_has_told_the_others(
    connection: Redis, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    """The first start is not lost, and what runs is told again, or ends with its worker."""
    status = submit(
        connection,
        f"""
        jobs:
          fast:
            call: "worker_jobs:touch_and_wait"
            with: {{began: {tmp_path}/x, go: {tmp_path}/go}}
          slow: {{call: "worker_jobs:sleep", with: {{seconds: 600}}}}
          first:
            needs: [fast, slow]
            start_when: one_success
            cancel_rest: true
            call: "worker_jobs:hang_once"
            with: {{key: runs}}
        """,
    )
    first = start_worker(concurrency=3)
    wait_until(lambda: states(status())["slow"] == "started" and (tmp_path / "x").exists(), 15)
    (tmp_path / "go").touch()
    wait_until(lambda: connection.get("runs") == b"1", 15)
    first.kill()
    start_worker(concurrency=3)
    wait_until(lambda: status().is_ended, 20)
    assert status().state == "succeeded"
    assert states(status()) == {"fast": "finished", "slow": "skipped", "first": "finished"}


def test_a_stop_that_is_lost_is_sent_again(
    connection: Redis, start_worker: Start, wait_until: Wait
) -> None:
    """The process that made the step has died before it sent the command."""
    status = submit(
        connection,
        """
        jobs:
          fast: {call: "worker_jobs:nothing", queue: elsewhere}
          slow: {call: "worker_jobs:sleep", with: {seconds: 600}}
          first:
            needs: [fast, slow]
            start_when: one_success
            cancel_rest: true
            call: "worker_jobs:nothing"
        """,
    )
    start_worker(concurrency=2)
    wait_until(lambda: states(status())["slow"] == "started", 15)
    get_job(f"{RUN}-fast", connection).set_status(JobStatus.FINISHED)
    with patch.object(steps, "send_stop_job_command"):
        steps.run_steps(connection)
    wait_until(lambda: status().is_ended, 20)
    assert states(status()) == {"fast": "finished", "slow": "skipped", "first": "finished"}
