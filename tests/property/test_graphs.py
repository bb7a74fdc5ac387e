"""Random graphs: what holds for every plan and for every drawing, whatever depends on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from flowq.checks import check
from flowq.graph import build_graph
from flowq.pictures.lanes import Row, draw_lanes
from flowq.pictures.picture import draw
from flowq.plan import Commit, Enqueue, Operation, Plan, Release
from flowq.planner import make_plan
from flowq.render.lines import find_mark
from flowq.spec import Block, JobSpec, Workflow

Edges = set[tuple[str, str]]


@st.composite
def _workflows(draw: st.DrawFn, max_jobs: int = 12) -> tuple[Workflow, Edges]:
    """Return an acyclic workflow, declared in any order, each edge said in one of three ways."""
    count = draw(st.integers(1, max_jobs))
    names = [f"j{index}" for index in range(count)]
    pairs = [(names[a], names[b]) for b in range(count) for a in range(b)]
    edges = set(draw(st.lists(st.sampled_from(pairs), unique=True))) if pairs else set()
    way_by_edge = {
        edge: draw(st.sampled_from(["needs", "blocks", "with"])) for edge in sorted(edges)
    }
    jobs = [_declared(name, way_by_edge) for name in draw(st.permutations(names))]
    return Workflow("random", tuple(jobs)), edges


def _declared(name: str, way_by_edge: dict[tuple[str, str], str]) -> JobSpec:
    before = {a: way for (a, b), way in way_by_edge.items() if b == name}
    after = {b: way for (a, b), way in way_by_edge.items() if a == name}
    return JobSpec(
        name,
        "tasks:run",
        {a: f"${{{{ jobs.{a}.result }}}}" for a, way in before.items() if way == "with"},
        tuple(a for a, way in before.items() if way == "needs"),
        tuple(Block(b) for b, way in after.items() if way == "blocks"),
    )


class _Model:
    """The rules of future jobs, as small as they can be said: who may run, and has run."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.blocked_by: dict[str, set[str]] = {}
        self.gated_by: dict[str, set[str]] = {}
        self.ran: list[str] = []

    def do(self, operation: Operation) -> None:
        if isinstance(operation, Enqueue):
            self._enqueue(operation)
        elif isinstance(operation, Release):
            assert operation.job_id in self.open, "a release of what is not open"
            self.open.remove(operation.job_id)

    def _enqueue(self, enqueue: Enqueue) -> None:
        assert enqueue.job_id not in self.blocked_by, "enqueued twice"
        self.blocked_by[enqueue.job_id] = set()
        self.gated_by[enqueue.job_id] = {block.name for block in enqueue.blocks}
        if enqueue.deferred:
            self.open.add(enqueue.job_id)
        for block in enqueue.blocks:
            assert block.name in self.open, "a blocker of what is no open future job"
            self.blocked_by[block.name].add(enqueue.job_id)

    def runnable(self) -> list[str]:
        return sorted(
            job_id
            for job_id in self.blocked_by
            if job_id not in self.ran
            and job_id not in self.open
            and not (self.gated_by[job_id] & self.open)
            and self.blocked_by[job_id] <= set(self.ran)
        )


def _plan(workflow: Workflow) -> Plan:
    return make_plan(build_graph(workflow), {}, "r")


@given(_workflows())
def test_the_edges_of_the_graph_are_those_that_were_said(sample: tuple[Workflow, Edges]) -> None:
    workflow, edges = sample

    assert {(edge.blocker, edge.future) for edge in build_graph(workflow).edges} == edges


@given(_workflows())
def test_an_acyclic_workflow_has_no_problems(sample: tuple[Workflow, Edges]) -> None:
    workflow, _ = sample

    assert check(workflow, build_graph(workflow)) == []


@given(_workflows(), st.data())
def test_an_edge_against_the_order_is_found_as_a_cycle(
    sample: tuple[Workflow, Edges], data: st.DataObject
) -> None:
    workflow, edges = sample
    graph = build_graph(workflow)
    before: dict[str, list[str]] = {}
    for name in graph.topological_order:
        direct = graph.predecessors(name)
        before[name] = sorted({*direct, *(each for other in direct for each in before[other])})
    waiting = [name for name, ancestors in before.items() if ancestors]
    if not waiting:
        return
    last = data.draw(st.sampled_from(waiting))
    first = data.draw(st.sampled_from(before[last]))
    jobs = [
        JobSpec(job.name, job.call, job.with_, job.needs, (*job.blocks, Block(first)))
        if job.name == last
        else job
        for job in workflow.jobs
    ]

    cycle, *_ = build_graph(Workflow("cyclic", tuple(jobs))).find_cycles()

    assert cycle[0] == cycle[-1]
    assert set(pairwise(cycle)) <= edges | {(last, first)}


@given(_workflows())
def test_every_job_is_enqueued_once_and_behind_the_future_jobs_that_it_blocks(
    sample: tuple[Workflow, Edges],
) -> None:
    workflow, edges = sample
    place = {enqueue.job_id: index for index, enqueue in enumerate(_plan(workflow).enqueues)}

    assert set(place) == {f"r-{job.name}" for job in workflow}
    assert len(_plan(workflow).enqueues) == len(place)
    for enqueue in _plan(workflow).enqueues:
        assert all(place[block.name] < place[enqueue.job_id] for block in enqueue.blocks)
        assert {(enqueue.name, block.name.removeprefix("r-")) for block in enqueue.blocks} == {
            edge for edge in edges if edge[0] == enqueue.name
        }


@given(_workflows())
def test_nothing_can_run_before_the_commit_however_far_the_plan_got(
    sample: tuple[Workflow, Edges],
) -> None:
    model = _Model()
    for operation in _plan(sample[0]):
        model.do(operation)
        assert isinstance(operation, Release) or model.runnable() == []


@given(_workflows())
def test_every_future_job_is_released_exactly_once_after_the_commit(
    sample: tuple[Workflow, Edges],
) -> None:
    plan = _plan(sample[0])
    commit = plan.operations.index(Commit("r"))
    futures = {enqueue.job_id for enqueue in plan.enqueues if enqueue.deferred}

    assert all(isinstance(operation, Enqueue) for operation in plan.operations[:commit])
    assert Counter(plan.operations[commit + 1 :]) == Counter(map(Release, futures))


@given(_workflows(), st.data())
def test_every_job_runs_exactly_once_and_after_all_of_its_predecessors(
    sample: tuple[Workflow, Edges], data: st.DataObject
) -> None:
    workflow, edges = sample
    model = _Model()
    for operation in _plan(workflow):
        model.do(operation)
        while (ready := model.runnable()) and data.draw(
            st.booleans()
        ):  # jobs run while releases go on
            model.ran.append(data.draw(st.sampled_from(ready)))
    while ready := model.runnable():
        model.ran.append(data.draw(st.sampled_from(ready)))

    place = {job_id.removeprefix("r-"): index for index, job_id in enumerate(model.ran)}
    assert set(place) == {job.name for job in workflow}
    assert len(place) == len(model.ran)
    assert all(place[before] < place[after] for before, after in edges)


@given(_workflows(max_jobs=16), st.booleans())
@settings(max_examples=200)
def test_a_drawing_shows_the_edges_and_no_others(
    sample: tuple[Workflow, Edges], unicode: bool
) -> None:
    workflow, edges = sample

    mark = find_mark("", unicode)
    rows = [_written(row, mark) for row in draw_lanes(draw(build_graph(workflow)), unicode)]

    assert _read(rows, mark) == edges


def _written(row: Row, mark: str) -> str:
    return f"{row.before}{mark}{row.after} {row.box.name}" if row.box else row.before


def _read(rows: Iterable[str], mark: str) -> Edges:
    """Return the edges that a reader sees who follows the strokes with a finger."""
    edges: Edges = set()
    owners: dict[int, str] = {}
    above = ""
    for row in rows:
        if mark in row:
            at, name = row.index(mark), row.split()[-1]
            for column, owner in owners.items():
                if _cell(row, column) in "├┤┼└┘┴+'" or (column == at and _runs_on(above, at)):
                    edges.add((owner, name))
            owners = {column: owner for column, owner in owners.items() if _runs_on(row, column)}
            owners[at] = name
        above = row
    return edges


def _runs_on(row: str, column: int) -> bool:
    return _cell(row, column) in "│├┤┼|+"


def _cell(row: str, column: int) -> str:
    return row[column] if column < len(row) else " "
