"""Compares what `flowq wip` lists with the processes that really execute jobs, one of whose workers
is killed.

    python -m tests.workers.wip_samples --samples 1000

starts a server and, in each mode, workers; it prints how often the two differed. The test in
`test_wip_is_true.py` does the same, in short.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from flowq import server
from flowq.runtime.queue import Queue
from flowq.runtime.wip import InProgress, read_wip
from flowq.workers import start
from tests import JOBS_FOLDER

MODES = ("warm", "fork", "multiprocessing")
LIMIT_S = 600.0
"""How long looks go on when what they wait for does not happen."""


@dataclass(frozen=True)
class Sample:
    """What was listed by a look between these two instants."""

    begin: float
    end: float
    wip: InProgress


@dataclass
class Execution:
    """One execution as the job wrote it down; `end` is infinite when it was killed."""

    job_id: str
    pid: int
    begin: float
    end: float = float("inf")


@dataclass
class Comparison:
    """The differences of all samples that are older than `slack_s`."""

    samples: int = 0
    listed: int = 0
    handed: int = 0
    lost: int = 0
    surplus: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    not_lost: list[str] = field(default_factory=list)
    wrong_pids: list[str] = field(default_factory=list)


class Sampler:
    """Two workers of one mode, the first of which is killed, and looks at the registry.

    `late_s` is the longest that a look took, with the pause behind it, beyond that pause: a machine
    that keeps the looks waiting also keeps the workers waiting.
    """

    def __init__(self, url: str, connection: redis.Redis, mode: str, folder: Path) -> None:
        self.connection = connection
        self.file = folder / f"{mode}.log"
        self.samples: list[Sample] = []
        self.killed_at = float("inf")
        self.late_s = 0.0
        options = {"url": url, "mode": mode, "paths": [JOBS_FOLDER], "lease_s": 1.0}
        options["preload"] = ["marking_jobs"]  # the look at a job begins when its process does
        self.first = start(**options, name="first", concurrency=2, quiet=True)
        self.second = start(**options, name="second", concurrency=2, quiet=True)

    def enqueue(self, jobs: int, longest_s: float, chosen: random.Random) -> None:
        """Enqueue short jobs, which are handed over in batches, and some that take longer."""
        queue = Queue(connection=self.connection)
        for index in range(jobs):
            for_s = chosen.uniform(0.2, 1.0) * longest_s if index % 8 == 0 else 0.0
            queue.enqueue("marking_jobs.mark", str(self.file), for_s, job_timeout=60)

    def enqueue_long(self, jobs: int) -> None:
        """Enqueue jobs that nobody waits for."""
        queue = Queue(connection=self.connection)
        for _ in range(jobs):
            queue.enqueue("marking_jobs.mark", str(self.file), 60.0)

    def look_until(self, is_over: Callable[[Sampler], bool], every_s: float) -> None:
        """Look again and again."""
        deadline = time.monotonic() + LIMIT_S
        while not is_over(self):
            assert time.monotonic() < deadline, f"only {len(self.samples)} looks at {self.counts()}"
            begin = time.time()
            wip = read_wip(self.connection, limit=None)
            self.samples.append(Sample(begin, time.time(), wip))
            time.sleep(every_s)
            self.late_s = max(self.late_s, time.time() - begin - every_s)

    def counts(self) -> tuple[int, int]:
        """Return how many executions have begun so far, and how many have ended."""
        executions = read_executions(self.file)
        return len(executions), sum(each.end < float("inf") for each in executions)

    def has_lost(self) -> bool:
        """Whether executions were listed as lost."""
        return any(sample.wip.counts.get("lost") for sample in self.samples)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the first worker, as a crash of its machine does."""
        process.kill()
        process.wait()
        self.killed_at = time.time()

    def end(self) -> None:
        """End both workers."""
        for process in (self.first, self.second):
            process.kill()
            process.wait()

    def compare(self, slack_s: float) -> Comparison:
        """Return how the samples differ from what the jobs wrote down."""
        result = Comparison(samples=len(self.samples))
        self._surplus_since: dict[str, float] = {}
        executions = read_executions(self.file)
        for sample in self.samples:
            self._compare(sample, executions, slack_s, result)
        return result

    def _compare(
        self, sample: Sample, executions: list[Execution], slack_s: float, result: Comparison
    ) -> None:
        listed = {each.job_id: each for each in sample.wip.executions}
        really = {
            each.job_id: each
            for each in executions
            if each.begin <= sample.end and sample.begin <= each.end
        }
        steadily = {
            each.job_id
            for each in executions
            if each.begin + slack_s < sample.begin and sample.end < each.end
        }
        result.listed += len(listed)
        result.handed += sample.wip.counts.get("handed", 0)
        result.lost += sample.wip.counts.get("lost", 0)
        surplus: dict[str, float] = {}
        for job_id, execution in listed.items():
            real = really.get(job_id)
            if execution.state == "started" and real is None:
                since = self._surplus_since.get(execution.execution_id, sample.begin)
                surplus[execution.execution_id] = since
                if sample.begin - since > slack_s:
                    result.surplus.append(f"{job_id} of {execution.worker}")
            if execution.state == "started" and real is not None and execution.pid:
                result.wrong_pids += [job_id] if execution.pid != real.pid else []
            is_dead = execution.worker == "first" and sample.begin > self.killed_at + slack_s
            if is_dead and execution.state != "lost":
                late_s = sample.begin - self.killed_at
                result.not_lost.append(f"{job_id} is {execution.state} after {late_s} s")
        self._surplus_since = surplus
        for job_id in steadily:
            is_listed = job_id in listed and listed[job_id].state in ("started", "lost")
            is_dead = sample.end > self.killed_at
            if not is_listed and not is_dead:
                result.missing.append(job_id)


def read_executions(file: Path) -> list[Execution]:
    """Return what the jobs have written down so far."""
    by_key: dict[tuple[str, int], Execution] = {}
    if not file.exists():
        return []
    for line in file.read_text("utf-8").splitlines():
        word, job_id, pid, at = line.split()
        if word == "begins":
            by_key[job_id, int(pid)] = Execution(job_id, int(pid), float(at))
        else:
            by_key[job_id, int(pid)].end = float(at)
    return list(by_key.values())


def main() -> None:
    """Take the samples, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--slack", type=float, nargs="*", default=[0.05, 0.25], help="seconds")
    arguments = parser.parse_args()
    for_each = -(-arguments.samples // len(MODES))
    with server.temporary() as started, tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            connection = started.connect()
            connection.flushall()
            sampler = Sampler(started.url, connection, mode, Path(folder))
            try:
                sampler.enqueue_long(2)
                sampler.enqueue(for_each * 8, 1.0, random.Random(mode))
                sampler.look_until(lambda it: it.counts()[0] > 0, 0.02)
                sampler.look_until(lambda it: len(it.samples) >= for_each // 2, 0.02)
                sampler.kill(sampler.first)
                sampler.look_until(lambda it: len(it.samples) >= for_each, 0.02)
            finally:
                sampler.end()
            for slack_s in arguments.slack:
                print(mode, f"older than {slack_s} s:", sampler.compare(slack_s), flush=True)


if __name__ == "__main__":
    main()
