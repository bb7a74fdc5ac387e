"""The verbs of a program: find a workflow, check it, compile it, submit it, observe and end its run.

The command line is a thin layer over this module; what it can do, a program can do.

    workflow = load("workflows/sandwich.yaml")
    plan = compile_plan(workflow, {"slices": 4})
    run = submit(plan, connection)
    status = run.wait()
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from flowq.checks import check, check_calls
from flowq.errors import Problem, RunFailed, WorkflowInvalid
from flowq.graph import build_graph
from flowq.inputs import resolve_inputs
from flowq.plan import Plan, make_plan
from flowq.runtime import outcomes, runs
from flowq.runtime.maintenance import tidy
from flowq.runtime.outcomes import Failure
from flowq.runtime.runs import RunRecord
from flowq.spec import Workflow
from flowq.status import RunStatus, fold
from flowq.targets import find_callable, load

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "Failure",
    "Run",
    "RunRecord",
    "compile_plan",
    "find_problems",
    "get_run",
    "list_runs",
    "load",
    "submit",
]

RUN_ID_LENGTH = 12
POLL_S = 0.5


def find_problems(workflow: Workflow, *, imports: bool = True) -> list[Problem]:
    """Return everything that is wrong with a workflow, warnings too, in the order of its text.

    With `imports` the functions are imported and their signatures looked at; without, the code may
    live with the workers only.
    """
    graph = build_graph(workflow)
    problems = list(check(workflow, graph))
    if imports:
        problems += check_calls(workflow, graph, find_callable)
    return problems


def compile_plan(
    workflow: Workflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    imports: bool = True,
) -> Plan:
    """Check a workflow and its inputs, and compile them to a plan; nothing is enqueued.

    Errors: WorkflowInvalid with all problems.
    """
    problems = find_problems(workflow, imports=imports)
    try:
        values = resolve_inputs(workflow, inputs or {})
    except WorkflowInvalid as invalid:
        problems += invalid.problems
    if any(problem.severity == "error" for problem in problems):
        raise WorkflowInvalid(problems)
    return make_plan(build_graph(workflow), values, run_id or make_run_id())


def make_run_id() -> str:
    """Return a new run id: 12 of a–z and 0–9."""
    letters = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(letters) for _ in range(RUN_ID_LENGTH))


def submit(plan: Plan, connection: Redis, *, retention_s: float = runs.RETENTION_S) -> Run:
    """Submit a plan; once this returns the run reaches its end without this process.

    Atomic: an error, or a crash, before the commit leaves nothing that runs.
    """
    runs.submit(plan, connection, retention_s=retention_s)
    return Run(plan.run_id, connection)


def get_run(run_id: str, connection: Redis) -> Run:
    """Return a run by its id. Errors: RunNotFound."""
    runs.get_record(run_id, connection)
    return Run(run_id, connection)


def list_runs(connection: Redis, limit: int = 50) -> list[RunRecord]:
    """Return the records of the newest runs, newest first."""
    return runs.list_runs(connection, limit)


@dataclass(frozen=True)
class Run:
    """A handle to one run; everything about it is in Redis."""

    run_id: str
    connection: Redis

    def record(self) -> RunRecord:
        """Return what is kept about the run beside its jobs. Errors: RunNotFound."""
        return runs.get_record(self.run_id, self.connection)

    def status(self) -> RunStatus:
        """Return where the run is. Errors: RunNotFound."""
        return runs.get_status(self.run_id, self.connection)

    def follow(self, poll_s: float = POLL_S) -> Iterator[RunStatus]:
        """Yield the status now, and again whenever something happened or `poll_s` has passed.

        Ends after the status in which the run has ended. Blocks. While it follows it goes on with
        steps that others left, so that a run never waits for a maintenance pass.
        """
        status = self.status()
        yield status
        while not status.is_ended:
            events = list(
                runs.read_events(self.run_id, self.connection, status.last_event_id, poll_s)
            )
            status = fold(status, events)
            if not events:
                tidy(self.connection)
                self.record()  # raises when the run was removed
            yield status

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """Block until the run has ended, and return its status.

        Errors: TimeoutError; RunFailed when it did not succeed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.follow():
            if status.is_ended:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.run_id} has not ended within {timeout_s} s")
        if status.state != "succeeded":
            failed = [job.name for job in status.jobs.values() if job.state == "failed"]
            raise RunFailed(self.run_id, failed)
        return status

    def results(self) -> dict[str, Any]:
        """Return the results of the jobs that have one, by name."""
        name_by_id = {job.job_id: job.name for job in self.status().jobs.values()}
        results = outcomes.get_results(name_by_id, self.connection)
        return {name_by_id[job_id]: value for job_id, value in results.items()}

    def failures(self) -> dict[str, Failure]:
        """Return why jobs failed, by name."""
        failed = [job for job in self.status().jobs.values() if job.state in ("failed", "stopped")]
        failures = outcomes.get_failures((job.job_id for job in failed), self.connection)
        return {job.name: failures[job.job_id] for job in failed if job.job_id in failures}

    def cancel(self) -> None:
        """End the run: what has not started is called off, what runs gets RQ's stop command.

        Errors: RunNotFound; WrongState when it has ended.
        """
        runs.cancel(self.run_id, self.connection)

    def remove(self) -> None:
        """Remove the run with everything that belongs to it."""
        runs.remove(self.run_id, self.connection)


def is_reachable(connection: Redis) -> bool:
    """Whether the server answers right now."""
    try:
        return bool(connection.ping())
    except (RedisError, OSError):
        return False
