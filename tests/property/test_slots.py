"""Random orders of what can happen to jobs with limits across runs, on the real server.

However jobs end, no more of a group are executed than its limit allows, none waits while there is
room, and nothing is left at the end.
"""

from __future__ import annotations

import os
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq.job import Job as RQJob

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import keys, maintenance, runs
from flowq.runtime.steps import run_steps
from flowq.spec import Concurrency, JobSpec, Workflow
from flowq.workers.messages import End
from flowq.workers.redis_side import Capacity, RedisSide

GROUPS = {"one": 1, "two": 2}
LIMITS = {f"shared:{group}": most for group, most in GROUPS.items()}

WAYS_TO_DIE = ["cancel", "remove", "delete", "lose", "look"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit"] * 4
            + ["claim"] * 3
            + ["end"] * 3
            + ["cancel", "remove", "delete", "lose", "look"]
        ),
        st.integers(0, 99),
    ),
    min_size=5,
    max_size=25,
)


class Machine:
    """The server, and what is being executed."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self.runs: list[str] = []
        self.claims: list[Any] = []
        self.count = 0
        self.side = RedisSide(connection, "w", ["default"], 30)

    def do(self, what: str, number: int) -> None:
        getattr(self, what)(number)
        while run_steps(self.connection):
            pass
        self.check()

    def submit(self, number: int) -> None:
        self.count += 1
        run_id, group = f"r{self.count}", list(GROUPS)[number % 2]
        limit = Concurrency(group, limit=GROUPS[group])
        names = ["a", "b"][: 1 + number % 3 % 2]
        jobs = tuple(JobSpec(name, "os:getpid", concurrency=limit) for name in names)
        workflow = Workflow("w", jobs, max_parallel=1 if number % 5 == 0 else None)
        runs.submit(make_plan(build_graph(workflow), {}, run_id), self.connection)
        self.runs.append(run_id)

    def claim(self, number: int) -> None:
        count = 1 + number % 3
        self.claims += self.side.turn([], Capacity(count, count, count)).claims

    def end(self, number: int) -> None:
        if self.claims:
            claim = self.claims.pop(number % len(self.claims))
            at, status = time.time(), "failed" if number % 4 == 0 else "finished"
            claim.end = End(1, status, started_at=at, ended_at=at, ttl="-1")
            self.side.turn([claim], Capacity(0, 0, 0))

    def lose(self, number: int) -> None:
        """The worker dies with all that it has; another one finds that."""
        del number
        RedisSide(self.connection, "other", ["default"], 30).recover("w", 9)
        self.claims.clear()
        self.side = RedisSide(self.connection, "w", ["default"], 30)

    def cancel(self, number: int) -> None:
        if self.runs:
            run_id = self.runs.pop(number % len(self.runs))
            if runs.get_record(run_id, self.connection).ended_at is None:
                runs.cancel(run_id, self.connection)

    def remove(self, number: int) -> None:
        if self.runs:
            runs.remove(self.runs.pop(number % len(self.runs)), self.connection)

    def delete(self, number: int) -> None:
        """A tool of RQ's deletes a job of a run."""
        if self.runs:
            job_id = f"{self.runs[number % len(self.runs)]}-a"
            if RQJob.exists(job_id, self.connection):
                RQJob.fetch(job_id, self.connection).delete()
            self.look(number)

    def look(self, number: int) -> None:
        del number
        maintenance.examine(self.connection)

    def check(self) -> None:
        statuses: dict[str, tuple[str, str]] = {}
        for raw in self.connection.keys("rq:job:*"):  # type: ignore[union-attr]
            status, slots = self.connection.hmget(raw, "status", "flowq_slots")
            if slots:
                statuses[raw.decode().removeprefix("rq:job:")] = status.decode(), slots.decode()
        for limit, most in LIMITS.items():
            members = {raw.decode() for raw in self.connection.smembers(keys.slots(limit))}  # type: ignore[union-attr]
            waiting = [raw.decode() for raw in self.connection.zrange(keys.waiting(limit), 0, -1)]  # type: ignore[union-attr]
            of_limit = {job: status for job, (status, slots) in statuses.items() if limit in slots}
            busy = {job for job, status in of_limit.items() if status in ("queued", "started")}
            assert len(members) <= most
            assert busy <= members
            assert not waiting or len(members) == most

    def drain(self) -> None:
        """Execute what is left; nobody waits for ever, and no key of a limit stays."""
        for _ in range(2 * self.count + 2):
            self.do("look", 0)
            self.do("claim", 2)
            while self.claims:
                self.do("end", 1)
        left = [run_id for run_id in self.runs if self.state(run_id) == "running"]
        assert left == []
        assert self.connection.keys("*shared:*") == []

    def state(self, run_id: str) -> str:
        return runs.get_record(run_id, self.connection).state


@settings(
    max_examples=100 if os.environ.get("FLOWQ_LONG") else 12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
def test_slots_across_runs_keep_their_promises(
    connection: Redis, steps: list[tuple[str, int]]
) -> None:
    connection.flushdb()
    machine = Machine(connection)
    for what, number in steps:
        machine.do(what, number)
    machine.drain()
