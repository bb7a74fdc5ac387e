"""Graphs as published scientific workflows have them: compiled with thousands of jobs, and run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import redis
from rq import SimpleWorker

import flowq
from flowq.client import Run, submit
from flowq.compiling import compile_plan, find_problems
from flowq.plan import Commit, Enqueue, Plan, Release
from tests.property.scientific_shapes import SHAPES, Needs, of_size, write
from tests.reading import parse_workflow

THOUSANDS = 3_000
SOME = 60


class QuietWorker(SimpleWorker):
    """Without the thread that listens for commands, whose end takes up to a second."""

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(connection: redis.Redis) -> Callable[[Plan], Run]:
    """Run a plan to its end, with RQ's worker in this process."""

    def to_its_end(plan: Plan) -> Run:
        submitted = submit(plan, connection)
        worker = QuietWorker(
            ["default"], connection=connection, job_class=flowq.Job, queue_class=flowq.Queue
        )
        worker.work(burst=True, logging_level="CRITICAL")
        return submitted

    return to_its_end


def edges_of(needs: Needs) -> set[tuple[str, str]]:
    return {(before, name) for name, others in needs.items() for before in others}


def test_thousands_of_jobs_compile_to_a_plan_with_each_edge_once(shape: str) -> None:
    needs = of_size(shape, THOUSANDS)
    workflow = parse_workflow(write(needs), "shape.yaml")

    assert find_problems(workflow) == []
    plan = compile_plan(workflow, run_id="r1")

    names = [job_id.removeprefix("r1-") for job_id in plan.order]
    place = {name: at for at, name in enumerate(names)}
    assert sorted(names) == sorted(needs)
    assert all(place[before] < place[name] for before, name in edges_of(needs))
    blocks = Counter((e.job_id, block.name) for e in plan.enqueues for block in e.blocks)
    assert blocks == Counter((f"r1-{before}", f"r1-{name}") for before, name in edges_of(needs))
    assert_futures(plan, needs)


def assert_futures(plan: Plan, needs: Needs) -> None:
    """Jobs that wait are future jobs, which are there before their blockers, and released last."""
    futures = {f"r1-{name}" for name, before in needs.items() if before}
    assert {enqueue.job_id for enqueue in plan.enqueues if enqueue.deferred} == futures
    *added, commit = [op for op in plan if isinstance(op, Enqueue | Commit)]
    assert isinstance(commit, Commit)
    there: set[str] = set()
    for enqueue in added:
        assert isinstance(enqueue, Enqueue)
        assert there.issuperset(block.name for block in enqueue.blocks)
        there.add(enqueue.job_id)
    released = [op.job_id for op in plan if isinstance(op, Release)]
    assert released == [job_id for job_id in plan.order if job_id in futures]


def test_every_job_starts_once_and_after_all_that_it_needs(
    shape: str, run: Callable[[Plan], Run]
) -> None:
    needs = of_size(shape, SOME)
    plan = compile_plan(parse_workflow(write(needs), "shape.yaml"))

    _, events = next(run(plan).observe())

    at = {(event.name, event.state): place for place, event in enumerate(events)}
    starts = Counter(event.name for event in events if event.state == "started")
    assert starts == Counter([*needs])
    assert all(at[before, "finished"] < at[name, "queued"] for before, name in edges_of(needs))
    assert (events[-1].name, events[-1].state) == ("", "succeeded")


def test_ten_times_the_jobs_cost_about_ten_times_the_work(
    shape: str, count_operations: Callable[[Callable[[], object]], int]
) -> None:
    def operations(jobs: int) -> int:
        text = write(of_size(shape, jobs))
        return count_operations(lambda: compile_plan(parse_workflow(text, "shape.yaml")))

    operations(10)  # what is imported once
    assert operations(600) < 15 * operations(60)  # squared, it would be 100
