"""Short words for running a workflow that a test has declared as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import results, runs
from flowq.spec import ForEach, JobSpec, Workflow
from flowq.status import RunStatus
from tests.runtime.counting import check_counts

RUN = "r1"


def job(name: str, call: str = "", **more: Any) -> JobSpec:
    """`job("a", "square", with_={…})`: a call of a function in `language_jobs`."""
    return JobSpec(name, f"language_jobs:{call}" if call else "", **more)


def each(items: Any, **more: Any) -> ForEach:
    return ForEach(items, **more)


@dataclass
class Runs:
    """One run on a server."""

    connection: Redis

    def submit(self, *jobs: JobSpec, inputs: Mapping[str, Any] | None = None, **more: Any) -> None:
        workflow = Workflow("demo", jobs, **more)
        runs.submit(make_plan(build_graph(workflow), inputs or {}, RUN), self.connection)

    @property
    def status(self) -> RunStatus:
        status = runs.get_status(RUN, self.connection)
        check_counts(status, self.connection)
        return status

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def states(self) -> dict[str, str]:
        return {name: each.state for name, each in self.status.jobs.items()}

    def reason(self, name: str) -> str:
        return self.status.jobs[name].reason

    def result(self, name: str) -> Any:
        return results.get_result(f"{RUN}-{name}", self.connection)

    def error(self, name: str) -> str:
        job_id = f"{RUN}-{name}"
        return results.get_failures([job_id], self.connection)[job_id].traceback
