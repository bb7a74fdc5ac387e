"""The rules of the graph and of calls: what each one finds, where, and what it advises."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import pytest

from flowq.callables import find_callable
from flowq.checks import MAX_NAME_LENGTH, check, check_calls
from flowq.errors import Problem, Where
from flowq.graph import build_graph
from flowq.spec import Block, Input, JobSpec, Path, Places, Workflow
from tests.reading import parse_workflow


def _job(name: str, *needs: str, blocks: tuple[Block, ...] = (), **with_: object) -> JobSpec:
    return JobSpec(name, "tasks:run", with_, needs, blocks)


def _flow(*jobs: JobSpec, inputs: tuple[Input, ...] = (), places: Places | None = None) -> Workflow:
    return Workflow("flow", jobs, inputs, places=places or Places())


def _check(*jobs: JobSpec, inputs: tuple[Input, ...] = ()) -> list[Problem]:
    workflow = _flow(*jobs, inputs=inputs)
    return check(workflow, build_graph(workflow))


def _only(problems: list[Problem], code: str) -> Problem:
    assert [problem.code for problem in problems] == [code]
    return problems[0]


def _places(line_by_path: Mapping[Path, int]) -> Places:
    return Places({path: Where("flow.yaml", line) for path, line in line_by_path.items()})


# The graph.


def test_a_sound_workflow_has_no_problems() -> None:
    jobs = _job("a", x="${{ inputs.n }}"), _job("b", "a"), _job("c", y="${{ jobs.a.result }}")

    assert _check(*jobs, inputs=(Input("n"),)) == []


def test_an_unknown_job_in_needs_gets_the_nearest_name() -> None:
    problem = _only(_check(_job("gallery"), _job("publish", "galery")), "FQ201")

    assert "publish needs galery" in problem.message
    assert "gallery" in problem.hint


def test_an_unknown_job_in_blocks_gets_the_nearest_name() -> None:
    problem = _only(_check(_job("gallery"), _job("photo", blocks=(Block("galery"),))), "FQ201")

    assert "photo blocks galery" in problem.message
    assert "gallery" in problem.hint


def test_the_nearest_name_is_never_the_job_itself() -> None:
    problem = _only(_check(_job("publish", "pub1ish"), _job("other")), "FQ201")

    assert "did you mean" not in problem.hint


def test_a_job_that_needs_itself_is_one_problem() -> None:
    assert "a waits for itself" in _only(_check(_job("a", "a")), "FQ202").message


def test_a_job_that_uses_its_own_result_waits_for_itself() -> None:
    _only(_check(_job("a", x="${{ jobs.a.result }}")), "FQ202")


def test_a_cycle_is_spelt_out() -> None:
    problem = _only(_check(_job("a", "c"), _job("b", "a"), _job("c", "b")), "FQ203")

    assert "a → b → c → a" in problem.message
    assert problem.hint


def test_a_cycle_that_closes_over_a_result_is_a_cycle() -> None:
    problem = _only(_check(_job("a", "b"), _job("b", x="${{ jobs.a.result }}")), "FQ203")

    assert "a → b → a" in problem.message


def test_two_cycles_are_two_problems() -> None:
    problems = _check(_job("a", "b"), _job("b", "a"), _job("p", "q"), _job("q", "p"))

    assert [problem.code for problem in problems] == ["FQ203", "FQ203"]


def test_an_unknown_job_in_an_expression_gets_the_nearest_name() -> None:
    problem = _only(_check(_job("count"), _job("report", n="${{ jobs.cuont.result }}")), "FQ204")

    assert "jobs.cuont.result" in problem.message
    assert "count" in problem.hint


def test_an_unknown_input_gets_the_nearest_name() -> None:
    jobs = _job("a", x="${{ inputs.foldr }}", y="${{ inputs.folder }}")
    problem = _only(_check(jobs, inputs=(Input("folder"),)), "FQ205")

    assert "inputs.foldr" in problem.message
    assert "folder" in problem.hint


def test_an_input_of_a_workflow_without_inputs_says_how_to_declare_it() -> None:
    problem = _only(_check(_job("a", x="${{ inputs.size }}")), "FQ205")

    assert "inputs: {size:" in problem.hint


def test_a_future_job_that_nothing_blocks_is_a_problem() -> None:
    jobs = JobSpec("gallery", "tasks:run", deferred=True), _job("photo")
    problem = _only(_check(*jobs), "FQ206")

    assert "`blocks: gallery`" in problem.hint


def test_a_future_job_with_a_blocker_is_none() -> None:
    jobs = JobSpec("gallery", "tasks:run", deferred=True), _job("photo", blocks=(Block("gallery"),))

    assert _check(*jobs) == []


def test_two_policies_for_one_edge_are_a_problem() -> None:
    blocks = (Block("b"), Block("b", "ignore"))
    problem = _only(_check(_job("a", blocks=blocks), _job("b")), "FQ207")

    assert "a → b" in problem.message


def test_needs_says_nothing_about_the_policy_and_contradicts_none() -> None:
    assert _check(_job("a", blocks=(Block("b", "ignore"),)), _job("b", "a")) == []


def test_a_name_that_is_declared_twice_is_one_problem() -> None:
    assert "declared 3 times" in _only(_check(*[_job("a")] * 3), "FQ208").message


@pytest.mark.parametrize("name", ["a b", "1st", "", "naïve", "a--0", "a.b", "x" * 300])
def test_names_that_make_no_job_id_are_refused(name: str) -> None:
    _only(_check(_job(name)), "FQ209")


@pytest.mark.parametrize("name", ["a", "_a", "A-b_3", "x" * MAX_NAME_LENGTH])
def test_names_that_make_a_job_id_are_accepted(name: str) -> None:
    assert _check(_job(name)) == []


def test_a_workflow_without_jobs_is_a_problem() -> None:
    _only(_check(), "FQ210")


def test_an_input_that_nothing_uses_is_a_warning() -> None:
    problem = _only(_check(_job("a"), inputs=(Input("size"),)), "FQ211")

    assert problem.severity == "warning"
    assert "size" in problem.message


def test_an_expression_that_cannot_be_read_is_a_problem_where_it_stands() -> None:
    places = _places({("jobs", "b", "with", "x", 0): 7})
    workflow = _flow(_job("a"), _job("b", x=["${{ jobs.a.reslt }}"]), places=places)

    problem = _only(check(workflow, build_graph(workflow)), "FQ303")

    assert problem.where == Where("flow.yaml", 7)
    assert "jobs.a.result" in problem.hint


def test_all_problems_come_at_once_in_the_order_of_the_text() -> None:
    places = _places(
        {
            ("jobs", "a", "needs", 0): 9,
            ("jobs", "b", "with", "x"): 3,
            ("jobs", "c", "needs", 0): 6,
        }
    )
    workflow = _flow(
        _job("a", "nobody"), _job("b", x="${{ inputs.n }}"), _job("c", "c"), places=places
    )

    problems = check(workflow, build_graph(workflow))

    assert [(p.code, p.where.line) for p in problems if p.where] == [
        ("FQ205", 3),
        ("FQ202", 6),
        ("FQ201", 9),
    ]


@pytest.mark.parametrize("key", ["blocks", "blocked_by"])
@pytest.mark.parametrize("part", [(0,), ("nobody",), ()])
def test_a_problem_with_a_blocked_job_stands_where_that_job_is_named(
    key: str, part: tuple[str | int, ...]
) -> None:
    places = _places({("jobs", "a"): 1, ("jobs", "a", key): 2, ("jobs", "a", key, *part): 3})
    workflow = _flow(_job("a", blocks=(Block("nobody"),)), places=places)

    problem = _only(check(workflow, build_graph(workflow)), "FQ201")

    assert problem.where == Where("flow.yaml", 3)


def test_a_misspelt_name_among_ten_thousand_jobs_does_not_take_long() -> None:
    jobs = [_job(f"job_{i}", f"jbo_{i}") for i in range(10_000)]

    assert len(_check(*jobs)) == 10_000


# Calls.


def _thumbnail(path: str, size: int = 256, *, quality: int = 80) -> str:
    return f"{path}{size}{quality}"


def _anything(**kwargs: object) -> None: ...


def _by_position(path: str, /, size: int = 1) -> None: ...


_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "tasks:thumbnail": _thumbnail,
    "tasks:anything": _anything,
    "tasks:by_position": _by_position,
    "tasks:partial": functools.partial(_thumbnail, "a.jpg"),
    "tasks:builtin": print,
}


def _calls(
    call: str,
    with_: Mapping[str, object],
    find: Callable[[str], Callable[..., object]] = _FUNCTIONS.__getitem__,
) -> list[Problem]:
    workflow = _flow(JobSpec("job", call, with_))
    return check_calls(workflow, build_graph(workflow), find)


@pytest.mark.parametrize(
    ("call", "with_"),
    [
        ("tasks:thumbnail", {"path": "a"}),
        ("tasks:thumbnail", {"path": "a", "size": 1, "quality": 2}),
        ("tasks:anything", {"whatever": 1}),
        ("tasks:partial", {"size": 1}),
        ("tasks:builtin", {"end": ""}),
    ],
)
def test_arguments_that_fit_are_no_problem(call: str, with_: Mapping[str, object]) -> None:
    assert _calls(call, with_) == []


def test_a_module_that_does_not_exist_is_named() -> None:
    problem = _only(_calls("no_such_module_here:f", {}, find_callable), "FQ501")

    assert "no_such_module_here" in problem.message
    assert "current folder" in problem.hint


def test_a_function_that_does_not_exist_gets_the_nearest_name() -> None:
    problem = _only(_calls("textwrap:indnt", {}, find_callable), "FQ501")

    assert "indnt" in problem.message
    assert "indent" in problem.hint


@pytest.mark.parametrize("error", [ZeroDivisionError("at import"), SystemExit(3), SyntaxError("x")])
def test_a_module_that_raises_when_imported_is_a_problem_with_its_reason(
    error: BaseException,
) -> None:
    def find(call: str) -> object:
        raise error

    assert type(error).__name__ in _only(_calls("tasks:f", {}, find), "FQ501").message


def test_a_module_is_imported_once_for_all_jobs_that_call_it() -> None:
    calls: list[str] = []
    workflow = _flow(JobSpec("a", "tasks:f"), JobSpec("b", "tasks:f"))

    check_calls(workflow, build_graph(workflow), lambda call: calls.append(call) or _anything)

    assert calls == ["tasks:f"]


def test_what_is_no_function_cannot_be_called() -> None:
    assert "type float" in _only(_calls("math:pi", {}, find_callable), "FQ502").message


def test_an_unknown_argument_gets_the_nearest_name() -> None:
    problem = _only(_calls("tasks:thumbnail", {"path": "a", "sizze": 3}), "FQ503")

    assert "sizze" in problem.message
    assert "size" in problem.hint


@pytest.mark.parametrize(
    ("name", "shown"),
    [("gone", "gone"), ("", "''"), ("a\tb", "'a\\tb'"), ("x" * 300, f"'{'x' * 79}'…")],
)
def test_a_name_that_looks_like_none_stands_in_quotes(name: str, shown: str) -> None:
    (problem,) = _check(_job("a", name))
    assert problem.code == "FQ201"
    assert f"needs {shown}, but no job" in problem.message


def test_missing_arguments_are_one_problem() -> None:
    problem = _only(_calls("tasks:thumbnail", {"size": 3}), "FQ504")

    assert "does not pass path" in problem.message


def test_an_unknown_and_a_missing_argument_are_two_problems() -> None:
    problems = _calls("tasks:thumbnail", {"pth": "a"})

    assert sorted(problem.code for problem in problems) == ["FQ503", "FQ504"]


@pytest.mark.parametrize("with_", [{}, {"path": "a"}])
def test_arguments_by_position_cannot_be_passed(with_: Mapping[str, object]) -> None:
    assert "path by position" in _only(_calls("tasks:by_position", with_), "FQ505").message


@pytest.mark.parametrize(
    ("called", "call", "advice"),
    [
        (math.factorial, "math:factorial", "call a function of your own"),
        (lambda path, /: path, "tasks:own", "take the / out"),
    ],
)
def test_the_advice_fits_whether_the_function_can_be_changed(
    called: Callable[..., object], call: str, advice: str
) -> None:
    workflow = _flow(JobSpec("a", call, {}))
    (problem,) = check_calls(workflow, build_graph(workflow), {call: called}.__getitem__)
    assert problem.code == "FQ505"
    assert advice in problem.hint


def test_a_problem_with_an_argument_stands_where_the_argument_is() -> None:
    places = _places(
        {("jobs", "a", "call"): 2, ("jobs", "a", "with"): 3, ("jobs", "a", "with", "pth"): 4}
    )
    workflow = _flow(JobSpec("a", "tasks:thumbnail", {"pth": 1}), places=places)

    problems = check_calls(workflow, build_graph(workflow), _FUNCTIONS.__getitem__)

    assert [(p.code, p.where.line) for p in problems if p.where] == [("FQ504", 3), ("FQ503", 4)]


def test_thousands_of_mistakes_among_thousands_of_jobs_are_told_in_time(
    count_operations: Callable[[Callable[[], object]], int],
) -> None:
    def operations(count: int) -> int:
        jobs = [_job(f"fetch_part_{n}", f"fetch_prat_{n}") for n in range(count)]
        problems: list[Problem] = []
        total = count_operations(lambda: problems.extend(_check(*jobs)))
        assert len(problems) == count
        return total

    operations(10)  # what is imported once
    assert operations(1_500) < 5 * operations(500)  # with a hint for each it would be 9
    assert "fetch_part_1" in _check(_job("fetch_part_1"), _job("b", "fetch_prat_1"))[0].hint


def test_a_circle_of_very_many_jobs_is_shown_in_part() -> None:
    jobs = [_job(f"j{n}", f"j{(n - 1) % 5_000}") for n in range(5_000)]
    problem = _only(_check(*jobs), "FQ203")

    assert "j0 → j1 → " in problem.message
    assert " → … 4,981 more … → " in problem.message
    assert problem.message.endswith(" → j4998 → j4999 → j0")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: §", "name"),
        ("description: §", "description"),
        ("inputs: {i: {type: str, default: a, description: §}}", "description of i"),
        ("jobs: {a: {call: 'time:time', description: §}}", "description of a"),
        ("jobs: {a: {call: 'time:time', approval: {message: §}}}", "message of a"),
    ],
)
def test_a_text_for_people_has_a_length(text: str, name: str) -> None:
    rest = "" if text.startswith("jobs") else "\njobs: {a: {call: 'time:time'}}"
    for length, is_refused in ((200, False), (2_001, True)):
        workflow = parse_workflow(text.replace("§", "x" * length) + rest, "flow.yaml")
        found = [each for each in check(workflow, build_graph(workflow)) if each.code == "FQ241"]
        assert bool(found) is is_refused
        if is_refused:
            assert found[0].message.startswith(f"the {name} has 2,001 characters")
            assert found[0].where is not None
