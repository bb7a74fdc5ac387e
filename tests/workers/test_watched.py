"""Sentry's and Datadog's own integrations with RQ see what our workers do."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import runs
from flowq.runtime.queue import Queue
from flowq.spec import JobSpec, Workflow
from tests import JOBS_FOLDER

pytest.importorskip("sentry_sdk")


class Inbox:
    """What was sent to a local server by HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return the items of that kind in Sentry's envelopes."""
        found = []
        for body in self.bodies:
            lines = [line for line in body.split(b"\n") if line]
            for head, content in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(head).get("type") == kind:
                    found.append(json.loads(content))
        return found


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """A local server that takes what Sentry's SDK sends; the SDK is told by a variable."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_packed = self.headers.get("Content-Encoding") == "gzip"
            inbox.bodies.append(gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TEST_DSN", f"http://key@127.0.0.1:{server.server_port}/1")
    yield inbox
    server.shutdown()
    server.server_close()


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=JOBS_FOLDER,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def names(inbox: Inbox) -> list[str]:
    return sorted(item["transaction"] for item in inbox.items("transaction"))


def check(inbox: Inbox, failed_id: str) -> None:
    """One event for the job that failed, with what Sentry knows of it, and one span for each."""
    [event] = inbox.items("event")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["exception"]["values"][-1]["mechanism"]["type"] == "rq"
    assert event["extra"]["rq-job"]["job_id"] == failed_id
    assert names(inbox) == ["watched_jobs.add", "watched_jobs.fail"]


def test_sentry_in_the_module_of_the_jobs_sees_each_job_once(
    queue: Queue, drain: Callable[..., Any], inbox: Inbox, mode: str
) -> None:
    added = queue.enqueue("watched_jobs.add", 1, 2)
    failed = queue.enqueue("watched_jobs.fail")
    drain(mode=mode)
    assert added.return_value() == 3
    check(inbox, failed.id)


def test_sentry_in_the_script_of_a_worker_sees_each_job_once(
    queue: Queue, redis_url: str, inbox: Inbox, mode: str
) -> None:
    queue.enqueue("watched_jobs.add", 1, 2)
    failed = queue.enqueue("watched_jobs.fail")
    printed = run(sys.executable, "watching_worker.py", redis_url, mode)
    assert "ValueError: no" in printed
    check(inbox, failed.id)


def test_sentry_in_the_settings_of_rqs_command_sees_each_job_once(
    queue: Queue, redis_url: str, inbox: Inbox, tmp_path: Path
) -> None:
    (tmp_path / "watched_settings.py").write_text("import watched_jobs\n")
    queue.enqueue("watched_jobs.add", 1, 2)
    failed = queue.enqueue("watched_jobs.fail")
    program = "from rq.cli import main; main()"
    options = ["-u", redis_url, "-c", "watched_settings", "-w", "flowq.Worker", "--burst"]
    path = os.pathsep.join([str(tmp_path), JOBS_FOLDER])
    run(sys.executable, "-c", program, "worker", *options, PYTHONPATH=path)
    check(inbox, failed.id)


def test_a_job_that_is_to_be_retried_is_no_event_of_sentry(
    queue: Queue, drain: Callable[..., Any], inbox: Inbox
) -> None:
    from rq import Retry

    queue.enqueue("watched_jobs.fail", retry=Retry(1))
    drain(mode="fork")
    assert len(inbox.items("event")) == 1
    assert names(inbox) == ["watched_jobs.fail"] * 2


def test_sentry_hears_no_secret_and_gets_the_run_and_the_job_as_tags(
    connection: redis.Redis,
    drain: Callable[..., Any],
    inbox: Inbox,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-Zq9XkLm")
    given = {"token": "${{ secrets.TOKEN }}"}
    workflow = Workflow("secrets", (JobSpec("a", "watched_jobs:report", given),))
    runs.submit(make_plan(build_graph(workflow), {}, "r1"), connection)
    drain(mode=mode)
    [transaction] = inbox.items("transaction")
    *_, event = inbox.items("event")
    for each in (transaction, event):
        assert each["transaction"] == "watched_jobs.report"
        assert each["tags"] == {"flowq.run": "r1", "flowq.job": "a", "flowq.attempt": "1"}
    assert event["exception"]["values"][-1]["value"] == "no ***"
    assert "about {'token': ['***']}" in json.dumps(event["breadcrumbs"])
    assert all(b"hunter2" not in body for body in inbox.bodies)


SENTRY_ENQUEUES = """
import sys, flowq, sentry_sdk
from flowq.server.connection import make_client
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0)
queue = flowq.Queue(connection=make_client(sys.argv[1]))
data = queue.prepare_data("operator.add", (1, 2))
with sentry_sdk.start_transaction(name="request"):
    plain = queue.enqueue("operator.add", 1, 2)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 2, blocked_by=future)
    many = queue.enqueue_many([data])
    made = queue.enqueue_job(queue.create_job("operator.add", (1, 2)))
    future.release()
for job in (plain, future, blocker, made):
    assert "_sentry_trace_headers" in flowq.Job.fetch(job.id, queue.connection).meta, job
print(len(queue))
"""


def test_enqueueing_works_and_is_traced_with_sentry(
    connection: redis.Redis, redis_url: str
) -> None:
    assert run(sys.executable, "-c", SENTRY_ENQUEUES, redis_url).splitlines()[-1] == "4"


# Datadog -----------------------------------------------------------------------------------------


def test_datadog_in_the_module_of_the_jobs_sees_each_job_once(
    queue: Queue,
    drain: Callable[..., Any],
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ddtrace")
    traces = tmp_path / "traces"
    monkeypatch.setenv("TEST_TRACES", str(traces))
    monkeypatch.setenv("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    added = queue.enqueue("traced_jobs.add", 1, 2)
    queue.enqueue("traced_jobs.fail")
    workflow = Workflow("traced", (JobSpec("a", "traced_jobs:add", {"a": 1, "b": 2}),))
    runs.submit(make_plan(build_graph(workflow), {}, "r1"), queue.connection)
    drain(mode=mode)
    assert added.return_value() == 3
    spans = [json.loads(line) for line in traces.read_text().splitlines()]
    assert sorted(spans, key=repr) == [
        ["rq.job.perform", "traced_jobs.add", 0, None, None],
        ["rq.job.perform", "traced_jobs.add", 0, None, None],
        ["rq.job.perform", "traced_jobs.fail", 1, None, None],
        ["rq.worker.perform_job", "traced_jobs.add", 0, "finished", "a"],
        ["rq.worker.perform_job", "traced_jobs.add", 0, "finished", None],
        ["rq.worker.perform_job", "traced_jobs.fail", 1, "failed", None],
    ]


DATADOG_ENQUEUES = """
import sys, flowq
from flowq.server.connection import make_client
import traced_jobs
queue = flowq.Queue(connection=make_client(sys.argv[1]))
data = queue.prepare_data("operator.add", (1, 2))
plain = queue.enqueue("operator.add", 1, 2)
future = queue.enqueue("operator.add", 1, 2, deferred=True)
blocker = queue.enqueue("operator.add", 1, 2, blocked_by=future)
queue.enqueue_many([data])
future.release()
assert queue.fetch_job(blocker.id) == blocker
for job in (plain, future, blocker):
    assert "x-datadog-trace-id" in flowq.Job.fetch(job.id, queue.connection).meta, job
print(len(queue))
"""


def test_enqueueing_works_and_is_traced_with_datadog(redis_url: str, tmp_path: Path) -> None:
    pytest.importorskip("ddtrace")
    traces = tmp_path / "traces"
    settings = {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_RQ_DISTRIBUTED_TRACING_ENABLED": "true",
        "TEST_TRACES": str(traces),
    }
    printed = run(sys.executable, "-c", DATADOG_ENQUEUES, redis_url, **settings)
    assert printed.splitlines()[-1] == "3"
    assert traces.read_text().count('"rq.queue.enqueue_job"') == 3
