"""What flowq does, in a minute, with nothing but its own dependencies: for their lowest versions.

python tests/lowest/smoke.py: raises when something does not work. `.ci/lowest` says with what.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import flowq
from flowq import server
from flowq.server.connection import make_client

ROOT = Path(__file__).parents[2]
SCHEDULED = """\
name: nightly
schedule: {cron: "*/15 3 * * 1-5", timezone: Europe/Berlin}
jobs: {only: {run: "true"}}
"""


def command(*arguments: str, url: str) -> str:
    """Run a command of flowq in `workflows/`, and return what it prints."""
    with tempfile.TemporaryDirectory() as state:
        done = subprocess.run(
            [sys.executable, "-m", "flowq", *arguments],
            cwd=ROOT / "workflows",
            env={**os.environ, "FLOWQ_REDIS_URL": url, "XDG_STATE_HOME": state},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    if done.returncode:
        raise SystemExit(f"flowq {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def check_commands(url: str) -> None:
    """Check, draw, plan, export and run examples, and look at the runs."""
    for example in ("sandwich", "etl", "gallery", "sweep"):
        command("check", f"{example}.yaml", url=url)
    for verb in ("graph", "plan", "export", "schema"):
        assert command(verb, *(["sandwich.yaml"] if verb != "schema" else []), url=url)
    with tempfile.TemporaryDirectory() as folder:
        scheduled = Path(folder) / "nightly.yaml"
        scheduled.write_text(SCHEDULED)
        command("check", str(scheduled), url=url)
    printed = command("run", "sandwich.yaml", "--json", "--workers", "1", url=url)
    assert json.loads(printed)["status"] == "succeeded", printed
    assert "sandwich" in command("runs", url=url)


def check_workers(url: str, mode: str) -> None:
    """Run a future job with blockers, and a job that fails, in children of that kind."""
    connection = make_client(url)
    queue = flowq.Queue(connection=connection)
    report = queue.enqueue("operator.add", 1, 2, deferred=True)
    for number in range(20):
        queue.enqueue("math.factorial", number, blocked_by=report)
    many = [flowq.Queue.prepare_data("math.factorial", (3,), blocked_by=report)] * 5
    queue.enqueue_many(many)
    failing = queue.enqueue("math.factorial", -1, retry=flowq.Retry(1))
    report.release()
    command("worker", "--burst", "--mode", mode, url=url)
    assert report.return_value() == 3, report.get_status()
    assert failing.is_failed
    assert "ValueError" in failing.latest_result().exc_string


def main() -> None:
    """Do all of it on a server of its own."""
    with server.temporary() as started:
        check_commands(started.url)
        for mode in ("fork", "warm", "multiprocessing"):
            check_workers(started.url, mode)
    print("the lowest versions work")


if __name__ == "__main__":
    main()
