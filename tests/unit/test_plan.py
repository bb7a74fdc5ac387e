"""The compiler: from a checked graph and resolved inputs to ordered operations."""

from __future__ import annotations

import pytest

from flowq.errors import CycleError, Where, WorkflowInvalid
from flowq.expressions import evaluate
from flowq.graph import build_graph
from flowq.plan import Commit, Enqueue, Plan, Release, Start
from flowq.planner import make_plan
from flowq.spec import Block, Defaults, Input, JobSpec, Matrix, Places, Retry, Workflow


def _job(name: str, *needs: str, blocks: tuple[Block, ...] = (), **with_: object) -> JobSpec:
    return JobSpec(name, "tasks:run", with_, needs, blocks)


def _plan(*jobs: JobSpec, inputs: dict[str, object] | None = None, **options: object) -> Plan:
    given = inputs or {}
    workflow = Workflow("flow", jobs, tuple(Input(name) for name in given), **options)  # type: ignore[arg-type]
    return make_plan(build_graph(workflow), given, "r1")


def _enqueue(plan: Plan, name: str) -> Enqueue:
    return next(enqueue for enqueue in plan.enqueues if enqueue.name == name)


def test_the_last_jobs_are_enqueued_first_and_released_last() -> None:
    plan = _plan(_job("a"), _job("b", "a"), _job("c", "b"))

    assert [enqueue.job_id for enqueue in plan.enqueues] == ["r1-c", "r1-b", "r1-a"]
    assert plan.operations[3:] == (Commit("r1"), Release("r1-b"), Release("r1-c"))


def test_every_edge_becomes_a_block_with_its_policy() -> None:
    plan = _plan(_job("a", blocks=(Block("c", "ignore"),)), _job("b", "a"), _job("c"))

    assert _enqueue(plan, "a").blocks == (Block("r1-b"), Block("r1-c", "ignore"))


def test_a_job_without_an_edge_is_a_future_job_and_is_released() -> None:
    plan = _plan(_job("alone"))

    assert _enqueue(plan, "alone").deferred
    assert plan.operations[1:] == (Commit("r1"), Release("r1-alone"))


def test_a_job_that_only_blocks_is_held_by_what_it_blocks() -> None:
    plan = _plan(_job("a"), _job("b", "a"))

    assert not _enqueue(plan, "a").deferred
    assert Release("r1-a") not in plan.operations


def test_inputs_are_filled_in_and_keep_their_types() -> None:
    plan = _plan(
        _job("a", n="${{ inputs.n }}", text="${{ inputs.n }} times"), inputs={"n": 3, "unused": 1}
    )

    enqueue = _enqueue(plan, "a")
    assert enqueue.does.kwargs == {"n": 3, "text": "3 times"}
    assert (enqueue.result_of, enqueue.inputs) == ({}, {})


def test_a_result_is_left_to_be_filled_in_where_the_job_runs() -> None:
    plan = _plan(_job("count"), _job("report", n="${{ jobs.count.result }}"))

    enqueue = _enqueue(plan, "report")
    assert enqueue.result_of == {"count": "r1-count"}
    assert "jobs.count.result" in enqueue.does.kwargs["n"]


def test_an_expression_that_mixes_both_gets_the_inputs_that_it_needs_and_no_others() -> None:
    plan = _plan(
        _job("count"),
        _job("report", n="${{ jobs.count.result + inputs.more }}", other="${{ inputs.other }}"),
        inputs={"more": 1, "other": 2},
    )

    enqueue = _enqueue(plan, "report")
    assert enqueue.inputs == {"more": 1}
    assert enqueue.does.kwargs["other"] == 2


def test_an_input_that_looks_like_an_expression_is_data_and_never_evaluated() -> None:
    text = "${{ jobs.count.result }}"
    plan = _plan(
        _job("count"),
        _job("plain", text="${{ inputs.text }}", escaped="$${{ x }}"),
        _job("mixed", text="${{ inputs.text }}", n="${{ jobs.count.result }}"),
        inputs={"text": text},
    )

    assert _enqueue(plan, "plain").does.kwargs == {"text": text, "escaped": "${{ x }}"}
    assert _enqueue(plan, "plain").result_of == {}
    mixed = _enqueue(plan, "mixed").does.kwargs
    assert evaluate(mixed, results={"count": 3}) == {"text": text, "n": 3}


def test_expressions_without_a_value_are_all_reported_where_they_stand() -> None:
    places = Places({("jobs", "b", "with", "x"): Where("flow.yaml", 5)})
    jobs = _job("a", x="${{ inputs.n / 0 }}"), _job("b", x="${{ inputs.n / 0 }}")

    with pytest.raises(WorkflowInvalid) as caught:
        _plan(*jobs, inputs={"n": 1}, places=places)

    assert [str(problem.where or "") for problem in caught.value.problems] == ["", "flow.yaml:5:1"]


def test_only_results_that_are_used_are_asked_for() -> None:
    plan = _plan(_job("a"), _job("b"), _job("c", "a", "b", x="${{ jobs.b.result }}"))

    assert _enqueue(plan, "c").result_of == {"b": "r1-b"}


def test_defaults_hold_for_jobs_that_do_not_say_otherwise() -> None:
    defaults = Defaults("slow", 60, Retry(2))
    own = JobSpec("own", "tasks:run", queue="fast", timeout_s=5, retries=Retry(0))
    plan = _plan(_job("plain"), own, defaults=defaults)

    plain, own_enqueue = _enqueue(plan, "plain"), _enqueue(plan, "own")
    assert (plain.queue, plain.timeout_s, plain.retries) == ("slow", 60, Retry(2))
    assert (own_enqueue.queue, own_enqueue.timeout_s, own_enqueue.retries) == ("fast", 5, Retry(0))


def test_jobs_of_a_workflow_are_skipped_when_a_blocker_fails_unless_they_say_otherwise() -> None:
    always = JobSpec("always", "tasks:run", on_blocker_failure="run")
    plan = _plan(_job("a"), always)

    assert _enqueue(plan, "a").on_blocker_failure == "skip"
    assert _enqueue(plan, "always").on_blocker_failure == "run"


def test_a_description_is_the_declared_one_or_the_call() -> None:
    named = JobSpec("named", "tasks:run", description="Counts words")
    plan = _plan(_job("a"), _job("b", n=3, text="x" * 500, r="${{ jobs.a.result }}"), named)

    assert _enqueue(plan, "named").description == "Counts words"
    assert _enqueue(plan, "a").description == "tasks:run()"
    description = _enqueue(plan, "b").description
    assert description.startswith("tasks:run(n=3, text='xxx")
    assert description.endswith("r=…)")
    assert len(description) < 100


def test_the_plan_knows_its_run_and_workflow() -> None:
    plan = _plan(_job("a"), inputs={"n": 1}, folder="somewhere")

    assert (plan.run_id, plan.workflow, plan.inputs, plan.folders) == (
        "r1",
        "flow",
        {"n": 1},
        ("somewhere",),
    )


def test_the_environment_of_a_workflow_is_filled_in_before_it_goes_on_to_a_nested_one() -> None:
    nested = Workflow("inner", (_job("b"),))
    plan = _plan(
        JobSpec("a", workflow="inner"),
        JobSpec("c", "tasks:run", env={"B": "own"}),
        inputs={"folder": "${{ data"},
        env={"A": "${{ inputs.folder }}", "B": "all"},
        workflows={"inner": nested},
    )

    start = _enqueue(plan, "a(start)")
    assert isinstance(start.does, Start)
    assert evaluate(start.does.nested.env) == {"A": "${{ data", "B": "all"}
    assert evaluate(_enqueue(plan, "c").env) == {"A": "${{ data", "B": "own"}


def test_a_text_of_the_environment_without_a_value_is_reported_once_and_where_it_stands() -> None:
    where = Where("flow.yaml", 2, 6)
    with pytest.raises(WorkflowInvalid) as caught:
        _plan(
            _job("a"),
            _job("b"),
            env={"A": "${{ inputs.n.m }}"},
            inputs={"n": 1},
            places=Places({("env",): where}),
        )

    assert [(problem.code, problem.where) for problem in caught.value.problems] == [
        ("FQ305", where)
    ]


def test_equal_workflows_and_inputs_make_equal_plans() -> None:
    assert _plan(_job("a"), _job("b", "a")) == _plan(_job("a"), _job("b", "a"))


def test_a_cyclic_graph_makes_no_plan() -> None:
    with pytest.raises(CycleError):
        _plan(_job("a", "b"), _job("b", "a"))


def test_the_blockers_of_one_future_job_are_added_and_shown_as_declared() -> None:
    plan = _plan(_job("last"), *(_job(f"b{i}", blocks=(Block("last"),)) for i in range(5)))

    names = [enqueue.name for enqueue in plan.enqueues]
    assert names == ["last", "b0", "b1", "b2", "b3", "b4"]
    assert [job_id.partition("-")[2] for job_id in plan.order] == [*names[1:], "last"]


def test_an_expression_of_constants_is_filled_in_and_one_without_a_value_has_a_place() -> None:
    where = Where("flow.yaml", 3, 4)
    places = Places({("jobs", "a", "with", "x"): where})
    with pytest.raises(WorkflowInvalid) as caught:
        _plan(_job("a", x="${{ [1][5] }}"), places=places)

    assert _enqueue(_plan(_job("a", x="${{ 1 + 1 }}")), "a").does.kwargs == {"x": 2}
    assert [problem.where for problem in caught.value.problems] == [where]


def test_a_matrix_that_its_inputs_make_too_large_is_refused_before_it_is_made() -> None:
    axes = {"a": "${{ inputs.n }}", "b": "${{ inputs.n }}", "c": "${{ inputs.n }}"}
    with pytest.raises(WorkflowInvalid, match=r"FQ214 .* has 1,000,000,000 "):
        _plan(JobSpec("a", "tasks:run", matrix=Matrix(axes)), inputs={"n": list(range(1000))})


def test_a_nested_workflow_is_carried_with_the_positions_of_its_expressions_alone() -> None:
    lines = {
        ("jobs", "b"): 1,
        ("jobs", "b", "with", "x"): 2,
        ("jobs", "b", "with", "y"): 3,
        ("outputs", "z"): 4,
    }
    inner = Workflow(
        "inner",
        (_job("b", x="${{ jobs.c.result }}", y="plain"), _job("c")),
        outputs={"z": "${{ jobs.b.result }}"},
        places=Places({path: Where("flow.yaml", line) for path, line in lines.items()}),
    )
    outer = Workflow("outer", (JobSpec("o", workflow="inner"),), workflows={"inner": inner})
    plan = _plan(JobSpec("a", workflow="outer"), workflows={"outer": outer})

    start = _enqueue(plan, "a(start)")
    assert isinstance(start.does, Start)
    carried = start.does.nested.workflow.workflows["inner"]
    assert carried == inner
    assert carried.places.find("jobs", "b", "with", "x") == Where("flow.yaml", 2)
    assert carried.places.find("outputs", "z") == Where("flow.yaml", 4)
    assert carried.places.find("jobs", "c") is None
