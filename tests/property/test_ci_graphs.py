"""The graphs of CI files, moved over to flowq: they compile, and run as somebody would expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import yaml
from rq import SimpleWorker

import flowq
from flowq.checks import check
from flowq.client import submit
from flowq.compiling import compile_plan
from flowq.graph import build_graph
from flowq.spec import Workflow
from tests.property.ci_jobs import Jobs, convert
from tests.reading import parse_workflow

GRAPHS: dict[str, Jobs] = yaml.safe_load(
    (Path(__file__).parent / "ci_graphs.yaml").read_text("utf-8")
)
LEGS = {
    ("python-library", "tests"): 12,
    ("rust-tool", "test"): 9,
    ("compiler", "build"): 3,
    ("wheels", "wheels"): 5,
    ("deep-learning", "test"): 20,
}


class QuietWorker(SimpleWorker):
    """Without the thread that listens for commands, whose end takes up to a second."""

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...


@pytest.fixture
def outcome(connection: redis.Redis) -> Callable[..., dict[str, str]]:
    """`outcome(graph, **inputs)`: the state of each job at the end, and of the run as ""."""

    def run(graph: str, **inputs: object) -> dict[str, str]:
        submitted = submit(compile_plan(moved(graph), inputs), connection)
        worker = QuietWorker(
            ["default"], connection=connection, job_class=flowq.Job, queue_class=flowq.Queue
        )
        worker.work(burst=True, logging_level="CRITICAL")
        status = submitted.status()
        return {"": status.state, **{job.name: job.state for job in status.jobs.values()}}

    return run


def moved(graph: str) -> Workflow:
    return parse_workflow(convert(graph, GRAPHS[graph]), f"{graph}.yaml")


def needs_of(job: dict[str, object]) -> list[str]:
    needs = job.get("needs", [])
    return needs if isinstance(needs, list) else [str(needs)]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_of_a_ci_file_has_no_problems_and_the_same_edges(graph: str) -> None:
    workflow = moved(graph)
    made = build_graph(workflow)

    assert check(workflow, made) == []
    edges = {(edge.blocker, edge.future) for edge in made.edges}
    assert edges == {(n, name) for name, job in GRAPHS[graph].items() for n in needs_of(job)}
    place = {name: at for at, name in enumerate(made.topological_order)}
    assert all(place[blocker] < place[future] for blocker, future in edges)


@pytest.mark.parametrize(("graph", "job"), LEGS)
def test_a_matrix_makes_the_jobs_that_it_made_there(graph: str, job: str) -> None:
    plan = compile_plan(moved(graph), run_id="r1", imports=False)
    legs = [enqueue for enqueue in plan.enqueues if enqueue.group == f"r1-{job}"]
    assert len(legs) == LEGS[graph, job]


@pytest.mark.parametrize("graph", ["rust-tool", "container-image", "nightly", "phone-app"])
def test_a_graph_without_failures_runs_all_but_what_asks_for_one(
    graph: str, outcome: Callable[..., dict[str, str]]
) -> None:
    states = outcome(graph)

    assert states[""] == "succeeded"
    asking = {
        name for name, job in GRAPHS[graph].items() if job.get("if") not in (None, "always()")
    }
    assert {name for name, state in states.items() if state == "skipped"} == asking


def test_a_failure_skips_what_comes_after_it_and_always_runs_nevertheless(
    outcome: Callable[..., dict[str, str]],
) -> None:
    states = outcome("rust-tool", broken=["clippy", "miri"])

    assert (states["clippy"], states["docs"], states["ci-success"]) == (
        "failed",
        "skipped",
        "finished",
    )
    assert states[""] == "failed"


def test_a_tolerated_failure_changes_nothing(outcome: Callable[..., dict[str, str]]) -> None:
    states = outcome("container-image", broken=["scan"])

    assert (states["scan"], states["sign"], states[""]) == ("failed", "finished", "succeeded")


def test_what_asks_for_a_failure_runs_after_one(outcome: Callable[..., dict[str, str]]) -> None:
    states = outcome("nightly", broken=["memory"])

    assert (states["open-issue"], states["clean"], states["publish-nightly"]) == (
        "finished",
        "finished",
        "skipped",
    )
    assert states[""] == "failed"


def test_a_condition_on_what_started_the_run_decides(
    outcome: Callable[..., dict[str, str]],
) -> None:
    skipped = outcome("phone-app")["store"]
    released = outcome("phone-app", ref="refs/tags/v1.2")["store"]

    assert (skipped, released) == ("skipped", "finished")
