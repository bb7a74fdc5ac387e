"""Runs in OpenTelemetry: the real SDK, and its exporter to a small server of OTLP over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import mmap
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import redis.asyncio
from rq.timeouts import JobTimeoutException

import flowq
from flowq import aio
from flowq.runtime import keys
from flowq.runtime.queue import Queue
from flowq.runtime.tracing import META, as_span, read_context, trace_id_of
from flowq.workers.child import spans

pytest.importorskip("opentelemetry.sdk", reason=".ci/opentelemetry installs it, and runs these")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="likewise")

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

CONSUMER, ERROR = 5, 2


@dataclass(frozen=True)
class Span:
    """One span as the collector got it; ids in hexadecimal digits."""

    name: str
    id: str
    trace: str
    parent: str
    links: tuple[str, ...]
    kind: int
    status: int
    attributes: dict[str, Any]
    events: tuple[dict[str, Any], ...]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class Collector:
    """What was sent to a local server by OTLP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Span]:
        return [
            Span(
                each.name,
                each.span_id.hex(),
                each.trace_id.hex(),
                each.parent_span_id.hex(),
                tuple(link.span_id.hex() for link in each.links if link.trace_id == each.trace_id),
                each.kind,
                each.status.code,
                _values(each.attributes),
                tuple(_values(event.attributes) for event in each.events),
            )
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for each in scope.spans
        ]

    def jobs(self, attempt: int = 1) -> dict[str, Span]:
        """Return the spans of that attempt of the jobs of runs, by the jobs' names."""
        found = [each for each in self.spans if each.attributes.get("flowq.attempt") == attempt]
        by_name = {each.attributes["flowq.job"]: each for each in found}
        assert len(by_name) == len(found), found
        return by_name


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A local server that takes what the SDK exports; the SDK is told by a variable."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_packed = self.headers.get("Content-Encoding") == "gzip"
            collector.bodies.append(gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")  # only what is flushed arrives
    yield collector
    server.shutdown()
    server.server_close()


@pytest.fixture
def set_provider(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Set the provider of the tests' own process; the SDK itself allows that once only."""
    return lambda provider: monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


class Submitter:
    """A program that traces what it does, in the tests' own process."""

    def __init__(self, connection: redis.Redis, folder: Path, set_provider: Any) -> None:
        self._connection, self._folder, self._set = connection, folder, set_provider
        self.exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def write(self, text: str) -> str:
        """Write a workflow, and return its path."""
        path = self._folder / "flow.yaml"
        path.write_text(text)
        return str(path)

    def submit(self, text: str, *, is_traced: bool = True) -> str:
        """Submit a workflow, in a request if it is traced; return the run's id."""
        with self.request() if is_traced else nullcontext():
            # Without imports, which would set up the SDK in this process.
            return flowq.submit(self.write(text), connection=self._connection, imports=False).id

    @contextmanager
    def request(self) -> Iterator[None]:
        """A span `request`, with baggage."""
        self._set(self._provider)
        with self._provider.get_tracer("program").start_as_current_span("request"):
            token = context.attach(baggage.set_baggage("customer", "c 7"))
            yield
            context.detach(token)
        self._set(None)

    @property
    def trace(self) -> str:
        return f"{self.span('request').context.trace_id:032x}"

    def span(self, name: str) -> Any:
        """Return the only span of that name."""
        [found] = [each for each in self.exporter.get_finished_spans() if each.name == name]
        return found


@pytest.fixture
def submitter(
    connection: redis.Redis, tmp_path: Path, set_provider: Callable[[Any], None]
) -> Submitter:
    return Submitter(connection, tmp_path, set_provider)


FLOW = """
jobs:
  first: {call: "otel_jobs:work"}
  baggage: {call: "otel_jobs:tell_baggage"}
  plain: {call: "otel_jobs:enqueue_plain"}
  unsteady:
    call: otel_jobs:fail_once
    with: {attempt: "${{ attempt }}", token: "${{ secrets.TOKEN }}"}
    retries: 1
  dies: {call: "otel_jobs:die_once", with: {attempt: "${{ attempt }}"}, retries: 1}
  page:
    for_each: ${{ jobs.first.result }}
    call: otel_jobs:work
    with: {n: "${{ item }}"}
  adds: {call: "otel_jobs:add_one", needs: page, blocks: join}
  join:
    call: otel_jobs:work
    deferred: true
    needs: [first, unsteady, dies]
  inner: {workflow: part, needs: join}
workflows:
  part:
    jobs:
      deep: {call: "otel_jobs:work"}
"""


def test_all_jobs_of_a_run_are_in_the_trace_of_its_submitter(
    submitter: Submitter,
    connection: redis.Redis,
    drain: Callable[..., Any],
    collector: Collector,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-Zq9XkLm")
    run_id = submitter.submit(FLOW)
    drain(mode=mode, preload=["otel_jobs"])
    run = flowq.get_run(run_id, connection=connection)
    assert run.status().state == "succeeded"
    assert run.result("baggage") == {"customer": "c 7"}

    submit = submitter.span("submit flow")
    assert submit.parent.span_id == submitter.span("request").context.span_id
    assert submit.attributes["flowq.run"] == run_id
    jobs, again = collector.jobs(), collector.jobs(2)
    assert {each.trace for each in collector.spans} == {submitter.trace}
    assert {each.parent for each in jobs.values()} == {f"{submit.context.span_id:016x}"}
    assert {each.kind for each in jobs.values()} == {CONSUMER}
    assert [each.name for each in jobs.values()].count("page") == 2
    assert {"inner.deep", "adds--0-0", "page[0]", "page[1]"} <= {*jobs}
    assert jobs["join"].attributes["flowq.workflow"] == "flow"
    assert jobs["join"].attributes["messaging.message.id"] == f"{run_id}-join"

    # Two attempts are two spans. The process that was killed took the first span of `dies` along.
    assert {*again} == {"unsteady", "dies"}
    assert "dies" not in jobs
    assert (jobs["unsteady"].status, again["unsteady"].status) == (ERROR, 0)
    [error] = jobs["unsteady"].events
    assert error["exception.type"] == jobs["unsteady"].attributes["error.type"] == "LookupError"
    assert error["exception.message"] == "LookupError: no ***"
    assert all(b"hunter2" not in body for body in collector.bodies)

    before = {jobs["first"].id, again["unsteady"].id, again["dies"].id, jobs["adds"].id}
    assert {*jobs["join"].links} == {*before, jobs["adds--0-0"].id}
    assert {jobs["page[0]"].id, jobs["page[1]"].id} < {*jobs["adds"].links}
    [inner] = [each for each in collector.spans if each.parent == jobs["join"].id]
    assert inner.name == "inner"
    [plain] = [each for each in collector.spans if each.parent == jobs["plain"].id]
    assert plain.attributes["messaging.message.id"] == run.result("plain")
    assert "has started threads" not in caplog.text


@pytest.mark.parametrize("mode", ["warm", "fork"])
def test_a_worker_that_traces_writes_the_span_of_a_killed_attempt(
    submitter: Submitter,
    connection: redis.Redis,
    drain: Callable[..., Any],
    collector: Collector,
    set_provider: Callable[[Any], None],
    mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The processes of its jobs inherit its provider; so it is with `opentelemetry-instrument`."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    submitter.submit(
        """
        jobs:
          dies: {call: "otel_jobs:die_once", with: {attempt: "${{ attempt }}"}, retries: 1}
          last: {call: "otel_jobs:work", needs: dies}
        """
    )
    set_provider(provider)
    drain(mode=mode)
    set_provider(None)
    provider.shutdown()
    jobs, again = collector.jobs(), collector.jobs(2)["dies"]
    first, last = jobs["dies"], jobs["last"]
    assert (first.status, again.status, last.links) == (ERROR, 0, (again.id,))
    assert first.trace == submitter.trace
    assert "SIGKILL" in first.events[0]["exception.stacktrace"]
    assert [each.name for each in collector.spans if each.parent == first.id] == ["inner"]
    assert "has started threads" not in caplog.text


HOSTILE: tuple[Any, ...] = (
    *("{", "[]", "7", '"x"', "null", "[" * 9_000, '{"traceparent": 7}', '{"traceparent": {}}'),
    '{"traceparent": "00-0-0-01"}',
    '{"traceparent": "00-00000000000000000000000000000000-0000000000000000-01"}',
    '{"traceparent": "00-' + "zz" * 16 + "-" + "zz" * 8 + '-01", "tracestate": "="}',
    '{"traceparent": "' + "0" * 20_000 + '"}',
    '{"baggage": "' + "=%%%,;;" * 1_000 + '"}',
    *(None, 7, {"a": 1}, b"\xff\xfe"),
)


@pytest.mark.parametrize("written", HOSTILE, ids=lambda value: repr(value)[:30])
def test_what_is_no_context_is_read_as_an_empty_one(written: Any) -> None:
    assert not trace.get_current_span(read_context(written)).get_span_context().is_valid


def test_a_run_without_a_context_has_one_trace_too(
    submitter: Submitter,
    queue: Queue,
    drain: Callable[..., Any],
    collector: Collector,
) -> None:
    """The submitter does not trace, or something has put rubbish where the contexts are."""
    text = """
    jobs:
      a: {call: "otel_jobs:work"}
      b: {call: "otel_jobs:work", needs: a}
    """
    untraced = submitter.submit(text, is_traced=False)
    hostile = submitter.submit(text)
    assert not queue.connection.hexists(keys.run(untraced), keys.TRACE_FIELD)
    queue.connection.hset(keys.run(hostile), keys.TRACE_FIELD, b"\xff" + b"{" * 100)
    plain = queue.enqueue("otel_jobs.work", meta={META: {"traceparent": [1]}})
    drain(preload=["otel_jobs"])
    for name in (untraced, hostile, plain.id):
        about = [each for each in collector.spans if name in each.attributes.values()]
        assert {(each.trace, each.parent) for each in about} == {(f"{trace_id_of(name):032x}", "")}
        assert [each.status for each in about] == [0] * len(about)
        if name != plain.id:
            first, second = sorted(about, key=lambda each: each.attributes["flowq.job"])
            assert second.links == (first.id,)


def commands(connection: redis.Redis, do: Callable[[], object]) -> dict[str, int]:
    """Return how often the server executes each command meanwhile, those of scripts included."""
    connection.config_resetstat()
    do()
    counted: Any = connection.info("commandstats")
    return {name: each["calls"] for name, each in counted.items() if name != "cmdstat_info"}


def test_a_program_that_does_not_trace_stores_and_sends_nothing_more(
    submitter: Submitter, connection: redis.Redis, queue: Queue, drain: Callable[..., Any]
) -> None:
    """OpenTelemetry's API is loaded, as libraries load it, and has no provider."""
    assert "opentelemetry.trace" in sys.modules
    text = """
    jobs:
      a: {call: "builtins:dict", with: {a: 1}}
      b: {call: "builtins:dict", with: {a: 1}, needs: a}
    """
    submitter.submit(text, is_traced=False)
    counted = [
        commands(connection, lambda each=each: submitter.submit(text, is_traced=each))
        for each in (False, True)
    ]
    assert counted[0] == counted[1]  # a traced run has one more field, and no more commands
    job = queue.enqueue("operator.neg", 1)
    assert META not in flowq.Job.fetch(job.id, connection).meta

    seen = []
    for module in ("operator", "otel_jobs"):
        before = connection.info("stats")["total_connections_received"]
        drain(preload=[module])
        seen.append(connection.info("stats")["total_connections_received"] - before)
        queue.enqueue("operator.neg", 1)
        submitter.submit(text, is_traced=False)
    assert seen[0] + 1 == seen[1]  # a child that does not trace need not even connect


def test_submitting_with_await_is_in_the_trace_of_the_coroutine(
    submitter: Submitter, connection: redis.Redis, set_provider: Callable[[Any], None]
) -> None:
    """flowq runs in a greenlet there, which has the context of the coroutine."""
    path = submitter.write('jobs: {a: {call: "builtins:dict"}}')
    place = connection.connection_pool.connection_kwargs["path"]

    async def submit() -> None:
        async with redis.asyncio.Redis(unix_socket_path=place) as client:
            with submitter.request():
                await aio.submit(path, connection=client, imports=False)

    asyncio.run(submit())
    parent = submitter.span("submit flow").parent
    assert parent.span_id == submitter.span("request").context.span_id


class Broken(SpanProcessor):
    """A plugin of OpenTelemetry of any kind, which raises `error` where it is asked to."""

    def __init__(self, where: str) -> None:
        self.error: type[BaseException] | None = None
        setattr(self, where, self._fail)

    def _fail(self, *_: Any, **__: Any) -> Any:
        if self.error:
            raise self.error("a broken plugin")

    def is_trace_id_random(self) -> bool:
        return False


@pytest.fixture
def broken(
    request: pytest.FixtureRequest,
    set_provider: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Broken:
    plugin: Any = Broken(request.param)
    provider = TracerProvider()
    provider.add_span_processor(plugin)
    if request.param == "should_sample":
        provider.sampler = plugin
    elif request.param == "generate_span_id":
        provider.id_generator = plugin
        plugin.generate_trace_id = lambda: 7
    elif request.param in {"inject", "extract"}:
        monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", plugin)
        plugin.inject = getattr(plugin, "inject", lambda carrier: carrier.update(traceparent="x"))
    elif request.param == "get_tracer":
        provider.get_tracer = plugin.get_tracer  # type: ignore[method-assign]
    set_provider(provider)
    return plugin


@pytest.mark.parametrize(
    "broken",
    ["on_start", "on_end", "should_sample", "generate_span_id", "inject", "extract", "get_tracer"],
    indirect=True,
)
def test_broken_plugins_of_opentelemetry_change_no_submission_and_no_job(
    submitter: Submitter, queue: Queue, drain: Callable[..., Any], broken: Broken
) -> None:
    path = submitter.write(
        """
        jobs:
          a: {call: "builtins:dict", with: {a: 1}}
          b: {call: "builtins:dict", with: {a: 1}, needs: a}
          fails: {call: "builtins:open", with: {file: ""}}
        """
    )
    # A current span, as in a request: so that a context is written.
    current = trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(current)))
    broken.error = RuntimeError
    run = flowq.submit(path, connection=queue.connection, imports=False)
    plain = queue.enqueue("operator.neg", 1)
    context.detach(token)
    assert run.status().state == "running"
    for error in (RuntimeError, SystemExit):
        broken.error = error
        drain(max_jobs=2)
    drain()
    states = {name: job.state for name, job in run.status().jobs.items()}
    assert states == {"a": "finished", "b": "finished", "fails": "failed"}
    assert plain.return_value() == -1
    assert len(flowq.runs(connection=queue.connection)) == 1


@pytest.mark.parametrize("broken", ["on_end"], indirect=True)
def test_what_submitting_raises_passes_a_broken_plugin(broken: Broken) -> None:
    plan: Any = SimpleNamespace(run_id="r", workflow="w", enqueues=[])

    def submit(_: Any, error: type[BaseException] | None = None) -> None:
        if error:
            raise error

    broken.error = RuntimeError
    as_span(submit)(plan)
    for error in (LookupError, KeyboardInterrupt, JobTimeoutException):
        with pytest.raises(error):
            as_span(submit)(plan, error)
    broken.error = JobTimeoutException  # of a job that submits: it comes once
    with pytest.raises(JobTimeoutException):
        as_span(submit)(plan)


def test_a_collector_that_does_not_answer_holds_no_job_up(
    submitter: Submitter,
    connection: redis.Redis,
    drain: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        run_id = submitter.submit('jobs: {a: {call: "otel_jobs:work"}}')
        # Shared with the processes of the worker, and not with the other tests.
        monkeypatch.setattr(spans, "_brief_until", memoryview(mmap.mmap(-1, 8)).cast("d"))
        monkeypatch.setattr(spans, "BRIEF_FOR_S", 3_600.0)
        drain(mode="fork", preload=["otel_jobs"])
        # From now on no process waits for long: the next ones would wait without a limit.
        monkeypatch.setattr(spans, "FLUSH_S", None)
        again = submitter.submit('jobs: {a: {call: "otel_jobs:work"}}')
        drain(mode="fork", preload=["otel_jobs"])
    for each in (run_id, again):
        assert flowq.get_run(each, connection=connection).status().state == "succeeded"


def test_all_that_was_collected_is_sent_at_the_end_although_a_part_fails(
    set_provider: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def fail() -> None:
        sent.append("spans")
        raise SystemExit

    monkeypatch.setitem(
        sys.modules,
        "opentelemetry.metrics",
        SimpleNamespace(
            get_meter_provider=lambda: SimpleNamespace(force_flush=lambda: sent.append("metrics"))
        ),
    )
    set_provider(SimpleNamespace(force_flush=fail))
    spans.flush()
    assert sent == ["spans", "metrics"]
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    spans.flush()
