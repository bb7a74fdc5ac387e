"""Metrics in the text format of Prometheus: of queues, jobs, runs and workers of one server.

`flowq metrics` prints them, and the page serves them. The scripts that end jobs count them
(`lua/metrics.lua`), and a scrape is one script call, whose cost depends on the number of queues
only. No label has unbounded values: 100 queues are named, and all others are `other`.

The extra `metrics` (prometheus-client) is imported here and nowhere else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowq.errors import UsageError
from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from redis import Redis

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `render_metrics` returns, for a response over HTTP."""

BOUNDS: Mapping[str, Sequence[float]] = {
    "job": (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30, 60, 300, 1800, 3600),
    "join": (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
}
"""The upper bounds of the buckets of both histograms, in seconds. The script has the same."""

_STATES = ("queued", "started", "deferred", "scheduled")
_RUN_STATES = ("staged", "running", "succeeded", "failed", "canceled")
_PER_QUEUE = len(_STATES) + 3


@dataclass(slots=True)
class _Read:
    """What the server has answered.

    Shape: `jobs` by queue and state, `workers` and `oldest_s` by queue, `runs` by state, `counts`
    by the fields of lua/metrics.lua.
    """

    counts: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_RUN_STATES, 0))
    jobs: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    workers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    oldest_s: dict[str, float] = field(default_factory=dict)


def render_metrics(connection: Redis | None) -> str:
    """Return the metrics of a server, as Prometheus scrapes them; of none, those of an empty one.

    Errors: UsageError where prometheus-client is not installed; those of the redis client.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise UsageError(
            "metrics need prometheus-client: pip install 'rq-flowq[metrics]'"
        ) from None
    found = _read(connection) if connection is not None else _Read()

    class Collector:
        def collect(self) -> Iterator[Metric]:
            return _make_metrics(found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    text: str = generate_latest(registry).decode()
    return text


def _read(connection: Redis) -> _Read:
    now, counts, runs, queues = scripts.READ_METRICS.call(connection, keys.METRICS)
    found = _Read(
        {name: int(value) for name, value in _pairs(counts) if not name.startswith("queue:")},
        {state: int(number) for state, number in _pairs(runs)},
    )
    for at in range(0, len(queues), _PER_QUEUE):
        queue, *numbers, workers, since = queues[at : at + _PER_QUEUE]
        label = _text(queue)
        for state, number in zip(_STATES, numbers, strict=True):
            found.jobs[label, state] += int(number)
        found.workers[label] += int(workers)
        waited_s = _seconds_between(_text(since), _text(now))
        found.oldest_s[label] = max(found.oldest_s.get(label, 0.0), waited_s)
    return found


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        yield _text(name), value


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="replace")


def _seconds_between(since: str, now: str) -> float:
    """Return how long ago an instant is; 0 if there is none."""
    try:
        waited = datetime.fromisoformat(now) - datetime.fromisoformat(since)
    except ValueError:
        return 0.0
    return max(0.0, waited.total_seconds())


def _make_metrics(found: _Read) -> Iterator[Metric]:
    from prometheus_client.core import (  # noqa: PLC0415 - an extra
        CounterMetricFamily,
        GaugeMetricFamily,
    )

    jobs = GaugeMetricFamily("flowq_jobs", "Jobs now, by RQ's state.", labels=["queue", "state"])
    for (queue, state), number in found.jobs.items():
        jobs.add_metric([queue, state], number)
    yield jobs
    ended = CounterMetricFamily(
        "flowq_jobs_ended",
        "Ends of jobs; a job that runs again ends again.",
        labels=["queue", "state"],
    )
    for (queue, state), number in sorted(_read_ends(found.counts).items()):
        ended.add_metric([queue, state], number)
    yield ended
    runs = GaugeMetricFamily("flowq_runs", "Runs that the server has.", labels=["state"])
    for state, number in found.runs.items():
        runs.add_metric([state], number)
    yield runs
    runs_ended = CounterMetricFamily("flowq_runs_ended", "Ends of runs.", labels=["state"])
    for state in ("succeeded", "failed", "canceled"):
        runs_ended.add_metric([state], found.counts.get(f"run:{state}", 0))
    yield runs_ended
    yield _make_histogram("job", "How long jobs ran, of those that have ended.", found.counts)
    yield _make_histogram(
        "join", "From when nothing held a future job until a worker took it.", found.counts
    )
    oldest = GaugeMetricFamily(
        "flowq_queue_oldest_seconds", "How long the oldest queued job waits.", labels=["queue"]
    )
    for queue, seconds in found.oldest_s.items():
        oldest.add_metric([queue], seconds)
    yield oldest
    workers = GaugeMetricFamily("flowq_workers", "Workers that listen.", labels=["queue"])
    for queue, number in found.workers.items():
        workers.add_metric([queue], number)
    yield workers
    lost = "Jobs that were lost with their worker, or were nowhere to be found."
    yield CounterMetricFamily("flowq_lost", lost, value=found.counts.get("lost", 0))


def _read_ends(counts: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return how many jobs have ended, by queue and state; two names may look the same here."""
    ends: dict[tuple[str, str], int] = defaultdict(int)
    for name, count in counts.items():
        kind, _, rest = name.partition(":")
        if kind == "ended":
            state, _, queue = rest.partition(":")
            ends[queue, state] += count
    return ends


def _make_histogram(kind: str, says: str, counts: Mapping[str, int]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - an extra

    so_far, buckets = 0, list[tuple[str, float]]()
    for bound in BOUNDS[kind]:
        so_far += counts.get(f"{kind}:{bound:g}", 0)
        buckets.append((f"{float(bound)}", so_far))
    buckets.append(("+Inf", so_far + counts.get(f"{kind}:inf", 0)))
    total_s = counts.get(f"{kind}_us", 0) / 1e6
    return HistogramMetricFamily(f"flowq_{kind}_seconds", says, buckets, total_s)
