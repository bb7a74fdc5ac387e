"""A client that submits one graph after the other, over a slow network, until somebody kills it."""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from chaos_jobs import append, work
from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import RedisError
from rq.job import Retry

from flowq import client
from flowq.compiling import compile_plan
from flowq.errors import FlowqError
from flowq.runtime import runs
from flowq.runtime.holds import Edge
from flowq.runtime.job import Job
from flowq.runtime.planned import batches
from flowq.runtime.queue import Queue
from tests.chaos.evidence import read_lines
from tests.chaos.shapes import QUEUE, Graph, Node, arguments, make_graph, make_workflow

LEASE_S = 5.0
JOBS_PER_CALL = 2
EXPIRES_S = 10
KEPT_S = 86_400  # until the judge has looked
RETRIED = 0.3
"""How often we look for a failed run to retry, after a submission."""

NEWEST = 6


class SlowConnection(UnixDomainSocketConnection):
    """Takes its time before every command, so that a kill finds it between any two."""

    delay_s = 0.0

    def send_packed_command(self, *args: object, **kwargs: object) -> None:
        """Send it, later."""
        time.sleep(random.uniform(0, 2 * self.delay_s))
        super().send_packed_command(*args, **kwargs)


class Submitter:
    """Submits the graphs with the numbers `first`, `first + step`, …"""

    def __init__(self, socket: str, journal: str, seed: int, interval_s: float) -> None:
        SlowConnection.delay_s = min(0.1, interval_s * 0.04)
        pool = ConnectionPool(connection_class=SlowConnection, path=socket)
        self.connection = Redis(connection_pool=pool)
        self.journal, self.seed, self.interval_s = journal, seed, interval_s
        lines = read_lines(Path(journal))  # of our earlier lives, and of others
        retried = {line["graph"] for line in lines if line["what"] == "retry"}
        self.submitted = [
            line["graph"]
            for line in lines
            if line["what"] == "submitted" and line["graph"] not in retried
        ]

    def work(self, first: int, step: int) -> None:
        """Go on for ever."""
        number = first
        while True:
            self.submit(make_graph(self.seed, number))
            if random.random() < RETRIED:
                self.retry_one()
            time.sleep(random.uniform(0, self.interval_s))
            number += step

    def tell(self, what: str, graph_id: str, text: str = "", **more: object) -> None:
        """Write what we do, or have done, into the journal."""
        line = {"what": what, "graph": graph_id, "at": time.monotonic(), "text": text, **more}
        append(self.journal, {**line, "pid": os.getpid()})

    def submit(self, graph: Graph) -> None:
        """Submit one graph; an error of the server's is noted, and the graph is given up."""
        self.tell("begun", graph.id, number=graph.number)
        try:
            self.enqueue(graph) if graph.is_plain else self.start_run(graph)
        except (RedisError, FlowqError, OSError) as error:
            self.tell("refused", graph.id, f"{type(error).__name__}: {error}")
        else:
            self.tell("submitted", graph.id)
            self.submitted.append(graph.id)

    def start_run(self, graph: Graph) -> None:
        """Submit a graph as a run."""
        plan = compile_plan(make_workflow(graph), run_id=graph.id, imports=False)
        client.submit(plan, self.connection)

    def enqueue(self, graph: Graph) -> None:
        """Submit a graph job by job: the last ones first, the releases in the end."""
        queue = Queue(QUEUE, connection=self.connection)
        jobs: dict[str, Job] = {}
        for node in reversed(graph.nodes):
            jobs[node.name] = self._enqueue(queue, graph, node, jobs)
        for node in graph.nodes:
            if graph.is_future(node):
                jobs[node.name].release()

    def _enqueue(self, queue: Queue, graph: Graph, node: Node, jobs: dict[str, Job]) -> Job:
        blocks = [
            Edge(jobs[after.name], "ignore" if node.name in after.ignores else None)
            for after in graph.after(node.name)
        ]
        future = {
            "deferred": True,
            "on_blocker_failure": node.policy,
            "expires": EXPIRES_S,  # a killed client releases nothing
        }
        given = arguments(graph, node)
        if node.retries:
            given["retry"] = Retry(node.retries, interval=node.backoff_s)
        job = queue.enqueue(
            work,
            job_id=graph.job_id(node.name),
            blocked_by=blocks or None,
            result_ttl=KEPT_S,
            failure_ttl=KEPT_S,
            **given,
            **(future if graph.is_future(node) else {}),
        )
        assert isinstance(job, Job)
        return job

    def retry_one(self) -> None:
        """Retry one of the last runs if it has failed."""
        for run_id in self.submitted[-NEWEST:]:
            with suppress(RedisError, FlowqError, OSError):
                if client.get_run(run_id, self.connection).record().state == "failed":
                    self.submitted.remove(run_id)  # once
                    self.tell("retry", run_id)
                    client.get_run(run_id, self.connection).retry()
                    self.tell("retried", run_id)
                    return


def main(words: list[str]) -> None:
    """Run with SOCKET JOURNAL SEED INTERVAL_S FIRST STEP."""
    runs.LEASE_S = LEASE_S  # type: ignore[misc]  # so that nobody waits half a minute for it
    runs.batches = partial(batches, size=JOBS_PER_CALL)  # more places to be killed at
    socket, journal, seed, interval_s, first, step = words
    Submitter(socket, journal, int(seed), float(interval_s)).work(int(first), int(step))


if __name__ == "__main__":
    main(sys.argv[1:])
