"""`run_inline` and a worker on a server: the same states, results, attempts and outputs.

Both execute the same scripts, in different servers and by different workers. By hand, with more:
`python -m tests.property.test_inline_is_real 1000 300`, the first seed and how many.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import redis
import yaml

from flowq import server
from flowq.client import Run, submit
from flowq.compiling import compile_plan, find_problems
from flowq.spec import Workflow
from flowq.testing import run_inline
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.property.running_workflows import make
from tests.reading import parse_workflow


def read(seed: int) -> Workflow:
    text = yaml.safe_dump(make(seed), sort_keys=False)
    workflow = parse_workflow(text, f"seed-{seed}.yaml")
    errors = [each for each in find_problems(workflow) if each.severity == "error"]
    assert not errors, f"{errors[0]} in\n{text}"
    return workflow


def describe(run: Run) -> dict[str, Any]:
    status = run.status()
    jobs = {name: (job.state, job.attempts) for name, job in status.jobs.items()}
    results = run.results()
    for name, result in results.items():  # in both, those of groups are lists of those of items
        items = status.groups & {name} and [job.name for job in status.jobs.values() if job.is_item]
        own = [each for each in items or () if each.partition("[")[0] == name]
        assert not own or len(result) == len(own)
        assert run.results([name]) == {name: result}
    return {"": status.state, **jobs, "results": results, "outputs": run.outputs()}


def run_really(workflows: Iterable[Workflow], connection: redis.Redis) -> list[dict[str, Any]]:
    """Run all of these at once, by a worker with children, and describe how they ended."""
    runs = [submit(compile_plan(each, {}), connection) for each in workflows]
    worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
    worker.work(burst=True, logging_level="CRITICAL")
    return [describe(run) for run in runs]


def test_random_workflows_end_in_process_as_on_a_server(connection: redis.Redis) -> None:
    compare(range(6), connection)


def compare(seeds: range, connection: redis.Redis) -> None:
    workflows = [read(seed) for seed in seeds]
    for seed, workflow, real in zip(
        seeds, workflows, run_really(workflows, connection), strict=True
    ):
        inline = run_inline(workflow)
        assert describe(inline.run) == real, f"seed {seed}"
        assert list(inline.results.items()) == list(real["results"].items()), f"seed {seed}"
        executed = {name for name, job in inline.status().jobs.items() if job.attempts}
        assert executed >= set(inline.order), f"seed {seed}"


if __name__ == "__main__":
    sys.path.insert(0, str(JOBS_FOLDER))
    first, number = map(int, sys.argv[1:])
    with server.temporary() as started:
        for seed in range(first, first + number, 10):
            compare(range(seed, seed + 10), started.connect())
            print(seed)
    print("all the same")
