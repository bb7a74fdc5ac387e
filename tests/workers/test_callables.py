"""What `flowq check` accepts a worker can call, and what it refuses a worker could not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import callable_jobs
import pytest
from rq.job import JobStatus

import flowq
from flowq import client, compiling
from flowq.callables import explain_unimportable, find_callable, name_call
from flowq.errors import WorkflowInvalid
from flowq.runtime.queue import Queue
from flowq.spec import JobSpec, Workflow

Drain = Callable[..., Any]

RESULT_BY_PATH = {
    "plain": 7,
    "nameless": [7],
    "instance": 12,
    "instance.method": 35,
    "partial": 7,
    "without_name": 7,
    "with_name": 7,
    "cached": 7,
    "coroutine": 7,
    "returns_coroutine": 7,
    "Maker.of_class": "Maker 7",
    "Maker.static": 7,
    "Derived.of_class": "Derived 7",
    "Maker.Inner.deep": -7,
    "Maker.Inner.Innermost.deepest": "Maker.Inner.Innermost 7",
}

CODE_BY_PATH = {
    "generator": "FQ506",
    "async_generator": "FQ506",
    "partial_generator": "FQ506",
    "generating_instance": "FQ506",
    "constant": "FQ502",
    "Maker.Inner": "FQ503",
    "Maker.method": "FQ504",
    "missing": "FQ501",
    "Maker.missing": "FQ501",
    "Maker.Inner.missing": "FQ501",
}


def name(path: str) -> str:
    return f"callable_jobs:{path}"


def flow_of(paths: Any, **options: Any) -> Workflow:
    jobs = [JobSpec(path.replace(".", "_"), name(path), {"x": 7}, **options) for path in paths]
    return Workflow("kinds", tuple(jobs))


@pytest.mark.parametrize("options", [{}, {"if_": "1 == 1"}], ids=["plain", "with if"])
def test_workers_call_whatever_the_check_accepts(
    queue: Queue, drain: Drain, options: dict[str, Any]
) -> None:
    flow = flow_of(RESULT_BY_PATH, **options)
    assert compiling.find_problems(flow) == []
    run = client.submit(compiling.compile_plan(flow, {}), queue.connection)
    drain()
    expected = {path.replace(".", "_"): result for path, result in RESULT_BY_PATH.items()}
    assert run.results() == expected


def test_workers_fail_what_the_check_refuses(queue: Queue, drain: Drain) -> None:
    flow = flow_of(CODE_BY_PATH)
    problems = compiling.find_problems(flow)
    found = {problem.message.split()[1]: problem.code for problem in problems}
    assert found == {path.replace(".", "_"): code for path, code in CODE_BY_PATH.items()}
    run = client.submit(compiling.compile_plan(flow, {}, imports=False), queue.connection)
    drain()
    assert {job.state for job in run.status().jobs.values()} == {"failed"}


@pytest.mark.parametrize("path", RESULT_BY_PATH)
def test_a_plain_queue_takes_the_same_names(queue: Queue, drain: Drain, path: str) -> None:
    job = queue.enqueue(f"callable_jobs.{path}", x=7)
    drain()
    assert job.return_value() == RESULT_BY_PATH[path]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (callable_jobs.nameless, "a lambda has no name that workers could import"),
        (callable_jobs.without_name, "inner is defined inside undecorated, where workers"),
        ("callable_jobs.missing", "module 'callable_jobs' has no attribute 'missing'"),
        ("nowhere.missing", "No module named 'nowhere'"),
        ("callable_jobs.constant", "'int' object is not callable"),
    ],
)
def test_what_a_plain_queue_takes_and_nobody_can_call_fails_with_the_reason(
    queue: Queue, drain: Drain, function: Any, words: str
) -> None:
    job = queue.enqueue(function, x=7)  # as RQ does: the name is looked for by the worker
    drain()
    assert job.get_status() is JobStatus.FAILED
    result = job.latest_result()
    assert result is not None
    assert words in str(result.exc_string)


def test_a_generator_is_no_coroutine(queue: Queue, drain: Drain) -> None:
    job = queue.enqueue(callable_jobs.generator, 7)
    drain()
    assert job.get_status() is JobStatus.FINISHED  # as with RQ, from Python 3.12 on
    assert job.return_value() == "Unserializable return value"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (callable_jobs.nameless, "lambda"),
        (callable_jobs.without_name, "inside undecorated"),
        (callable_jobs.instance, "no name"),
        (callable_jobs.instance.method, "belongs to one object"),
        (callable_jobs.partial, "no name"),
    ],
)
def test_a_declared_function_that_workers_could_not_find_is_refused(
    function: Any, words: str
) -> None:
    flow = flowq.Workflow("kinds")
    flow.job(function, name="job")
    with pytest.raises(WorkflowInvalid, match=words) as caught:
        flow.spec()
    assert [problem.code for problem in caught.value.problems] == ["FQ601"]


@pytest.mark.parametrize(
    "function",
    [
        callable_jobs.plain,
        callable_jobs.with_name,
        callable_jobs.cached,
        callable_jobs.coroutine,
        callable_jobs.Maker,
        callable_jobs.Maker.static,
        callable_jobs.Maker.Inner.deep,
        callable_jobs.Derived.of_class,
        len,
    ],
)
def test_the_name_of_a_function_leads_back_to_it(function: Any) -> None:
    assert explain_unimportable(function) is None
    found = find_callable(name_call(function))
    assert found == function or found is getattr(callable_jobs, function.__name__)
    assert find_callable(name_call(function).replace(":", ".")) == found


def test_a_module_that_another_one_misses_is_named(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needy_package").mkdir()
    (tmp_path / "needy_package" / "__init__.py").touch()
    (tmp_path / "needy_package" / "needy.py").write_text("import not_there_at_all\n")
    for given in ("needy_package.needy:f", "needy_package.needy.f"):
        with pytest.raises(ModuleNotFoundError, match="No module named 'not_there_at_all'"):
            find_callable(given)
