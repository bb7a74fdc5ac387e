"""The merging of edges, and the orders that the graph gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowq.errors import CycleError
from flowq.graph import Graph, build_graph
from flowq.spec import Block, JobSpec, Workflow


def _graph(*jobs: JobSpec) -> Graph:
    return build_graph(Workflow("flow", jobs))


def _job(name: str, *needs: str, blocks: tuple[Block, ...] = (), **with_: object) -> JobSpec:
    return JobSpec(name, "tasks:run", with_, needs, blocks)


def _ends(graph: Graph) -> list[tuple[str, str]]:
    return [(edge.blocker, edge.future) for edge in graph.edges]


def test_needs_is_an_edge_from_the_named_job() -> None:
    assert _ends(_graph(_job("a"), _job("b", "a"))) == [("a", "b")]


def test_blocks_is_an_edge_to_the_named_job() -> None:
    assert _ends(_graph(_job("a", blocks=(Block("b"),)), _job("b"))) == [("a", "b")]


def test_a_reference_to_a_result_is_an_edge_wherever_it_stands_in_the_arguments() -> None:
    graph = _graph(_job("b", deep=[{"x": "sum ${{ jobs.a.result }}"}]), _job("a"))

    assert _ends(graph) == [("a", "b")]
    assert graph.edges[0].said[0].path == ("jobs", "b", "with", "deep", 0, "x")


def test_an_edge_that_is_said_in_three_places_is_one_edge() -> None:
    graph = _graph(_job("a", blocks=(Block("b"),)), _job("b", "a", x="${{ jobs.a.result }}"))

    [edge] = graph.edges
    assert [saying.path for saying in edge.said] == [
        ("jobs", "a", "blocks", 0),
        ("jobs", "b", "needs", 0),
        ("jobs", "b", "with", "x"),
    ]


def test_the_policy_of_an_edge_survives_the_places_that_do_not_name_it() -> None:
    graph = _graph(_job("a", blocks=(Block("b", "ignore"),)), _job("b", "a"))

    assert [edge.on_failure for edge in graph.edges] == ["ignore"]


def test_unknown_names_make_no_edges() -> None:
    graph = _graph(_job("a", "nobody", blocks=(Block("no"),), x="${{ jobs.none.result }}"))

    assert graph.edges == ()


def test_jobs_and_edges_keep_the_order_of_declaration() -> None:
    graph = _graph(_job("z", "m", "a"), _job("m", "a"), _job("a"))

    assert [job.name for job in graph] == ["z", "m", "a"]
    assert _ends(graph) == [("m", "z"), ("a", "z"), ("a", "m")]


def test_equal_workflows_have_equal_graphs() -> None:
    assert _graph(_job("a"), _job("b", "a")) == _graph(_job("a"), _job("b", "a"))
    assert _graph(_job("a"), _job("b", "a")) != _graph(_job("a"), _job("b"))


def test_the_topological_order_follows_the_declaration_where_it_can() -> None:
    graph = _graph(_job("last", "c", "a"), _job("c", "b"), _job("b"), _job("a"), _job("alone"))

    assert graph.topological_order == ("b", "c", "a", "last", "alone")


def test_neighbours_are_in_the_order_of_declaration() -> None:
    graph = _graph(_job("a"), _job("b", "a"), _job("c", "a"), _job("d", "c", "b"), _job("e"))

    assert graph.predecessors("d") == ("b", "c")
    assert [edge.future for edge in graph.outgoing("a")] == ["b", "c"]


def test_future_jobs_are_those_with_a_blocker_and_those_that_stand_alone() -> None:
    graph = _graph(_job("a"), _job("b", "a"), _job("alone"))

    assert [job.name for job in graph if graph.is_future(job.name)] == ["b", "alone"]


def test_levels_count_the_longest_way() -> None:
    graph = _graph(_job("d", "a", "c"), _job("c", "b"), _job("b", "a"), _job("a"), _job("e"))

    assert dict(graph.level_by_name) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 0}


def test_a_workflow_without_jobs_has_empty_orders() -> None:
    graph = _graph()

    assert (graph.topological_order, dict(graph.level_by_name)) == ((), {})
    assert graph.find_cycles() == ()


def test_a_cycle_names_its_first_job_at_both_ends() -> None:
    graph = _graph(_job("x"), _job("a", "c", "x"), _job("b", "a"), _job("c", "b"))

    assert graph.find_cycles() == (("a", "b", "c", "a"),)


def test_of_two_ways_round_the_shorter_one_is_the_cycle() -> None:
    graph = _graph(_job("a", "d", "b"), _job("b", "a"), _job("c", "b"), _job("d", "c"))

    assert graph.find_cycles()[0] == ("a", "b", "a")


def test_each_cycle_is_found_once() -> None:
    graph = _graph(
        _job("a", "b", "c"), _job("b", "a"), _job("c", "a"), _job("p", "q"), _job("q", "p")
    )

    assert set(graph.find_cycles()) == {("a", "b", "a"), ("a", "c", "a"), ("p", "q", "p")}
    assert len(graph.find_cycles()) == 3


def test_a_cycle_is_found_beside_another_one_that_shares_a_job_with_it() -> None:
    graph = _graph(_job("a", "b"), _job("b", "a", "c"), _job("c", "b"))

    assert set(graph.find_cycles()) == {("a", "b", "a"), ("b", "c", "b")}


def test_orders_of_a_cyclic_graph_raise_with_the_cycle_spelt_out() -> None:
    graph = _graph(_job("a", "b"), _job("b", "a"))

    with pytest.raises(CycleError, match="a → b → a"):
        _ = graph.topological_order
    with pytest.raises(CycleError):
        _ = graph.level_by_name


def test_a_job_that_waits_for_itself_is_a_cycle_of_one() -> None:
    graph = _graph(_job("a", "a"))

    with pytest.raises(CycleError, match="a → a"):
        _ = graph.topological_order
    assert graph.find_cycles() == ()


def test_of_two_jobs_with_one_name_the_first_counts() -> None:
    graph = _graph(JobSpec("a", "tasks:first"), JobSpec("a", "tasks:second"))

    assert [job.call for job in graph] == ["tasks:first"]


def test_ten_times_the_jobs_cost_about_ten_times_the_work(
    count_operations: Callable[[Callable[[], object]], int],
) -> None:
    def operations(count: int) -> int:
        jobs = [_job(f"j{i}", *(f"j{k}" for k in range(max(0, i - 3), i))) for i in range(count)]

        def look() -> None:
            graph = _graph(*jobs)
            assert len(graph.topological_order) == count
            assert graph.level_by_name[f"j{count - 1}"] == count - 1

        return count_operations(look)

    operations(10)  # what is imported once
    assert operations(3_000) < 12 * operations(300)  # a quadratic step would cost 100 times as much
