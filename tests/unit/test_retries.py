"""`retries` as it is declared: what both fronts read, what is refused, and what is shown."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

import flowq
from flowq.callables import find_callable, names_of_exception
from flowq.checks import check, check_calls
from flowq.compiling import find_problems
from flowq.declare.export_python import export_python
from flowq.declare.export_yaml import export_yaml
from flowq.declare.python import Workflow as Flow
from flowq.errors import ShellFailed, UsageError, WorkflowInvalid
from flowq.functions import read_options
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.render.plan_text import render_plan
from flowq.runtime.attempts import Failure, shorten
from flowq.runtime.views import Shown
from flowq.spec import Defaults, JobSpec, Retry, Workflow
from tests.reading import parse_workflow

POLICY = Retry(
    5, 2, 2, 300, 0.2, 3600, ("ConnectionError", "137", "1-3"), ("json.decoder:JSONDecodeError",)
)
TEXT = """
jobs:
  a:
    call: time:time
    retries:
      max: 5
      backoff: 2s
      factor: 2
      max_backoff: 5m
      jitter: 20%
      within: 1h
      on: [ConnectionError, 137, 1-3]
      never_on: json.decoder:JSONDecodeError
"""


def problems_of(retries: Retry, **more: Any) -> list[str]:
    job = JobSpec("a", "time:time", retries=retries)
    workflow = Workflow("w", (job,), **more)
    graph = build_graph(workflow)
    found = [*check(workflow, graph), *check_calls(workflow, graph, find_callable)]
    return [f"{each.code} {each.message}: {each.hint}" for each in found]


def test_yaml_python_and_both_exports_say_the_same() -> None:
    workflow = parse_workflow(TEXT, "w.yaml")
    (job,) = workflow.jobs
    assert job.retries == POLICY
    flow = Flow("w")
    said = {"max": 5, "backoff": "2s", "factor": 2, "max_backoff": "5m", "jitter": "20%"}
    causes = {"on": [ConnectionError, 137, "1-3"], "never_on": "json.decoder:JSONDecodeError"}
    flow.call("a", "time:time", retries={**said, "within": "1h", **causes})
    assert flow.spec().jobs[0].retries == POLICY
    assert parse_workflow(export_yaml(workflow), "w.yaml").jobs[0].retries == POLICY
    namespace: dict[str, Any] = {"__file__": __file__, "__name__": __name__}
    exec(compile(export_python(workflow), __file__, "exec"), namespace)
    assert namespace["flow"].spec().jobs[0].retries == POLICY


def test_the_plan_shows_all_of_it() -> None:
    plan = render_plan(make_plan(build_graph(parse_workflow(TEXT, "w.yaml")), {}, "r1"))
    assert (
        "retries=5 every 2s factor=2 max_backoff=300s jitter=0.2 within=3600s "
        "on=ConnectionError,137,1-3 never_on=json.decoder:JSONDecodeError" in plan
    )


@pytest.mark.parametrize(
    ("retries", "code"),
    [
        (1001, "FQ125"),
        ({"max": 1001}, "FQ125"),
        ({"max": 1, "factor": 0.5}, "FQ125"),
        ({"max": 1, "jitter": 2}, "FQ125"),
        ({"max": 1, "jitter": True}, "FQ125"),
        ({"max": 1, "on": "a.b.C"}, "FQ126"),
        ({"max": 1, "on": "ConectionError"}, "FQ126"),
        ({"max": 1, "on": 256}, "FQ126"),
        ({"max": 1, "on": "3-1"}, "FQ126"),
        ({"max": 1, "never_on": [None]}, "FQ126"),
        ({"max": 1, "within": 0}, "FQ110"),
    ],
)
def test_both_fronts_refuse_the_same_with_the_same_code(retries: Any, code: str) -> None:
    flow = Flow("w")
    flow.call("a", "time:time", retries=retries)
    with pytest.raises(WorkflowInvalid) as in_python:
        flow.spec()
    with pytest.raises(WorkflowInvalid) as in_yaml:
        parse_workflow(
            f"jobs: {{a: {{call: 'time:time', retries: {_as_yaml(retries)}}}}}", "w.yaml"
        )
    assert [in_python.value.problems[0].code, in_yaml.value.problems[0].code] == [code, code]
    with pytest.raises(UsageError):
        read_options({"retries": retries})


def _as_yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    words = {id(True): "true", id(None): "null"}
    return words.get(id(value), str(value))


def test_a_class_that_workers_cannot_name_is_refused() -> None:
    class Local(Exception): ...

    with pytest.raises(UsageError, match="defined inside a function"):
        read_options({"retries": {"max": 1, "on": Local}})


@pytest.mark.parametrize(
    ("retries", "said"),
    [
        (Retry(1, on=("ConnectionError", "137")), None),
        (Retry(1, on=("redis:ConnectionError",)), None),
        (Retry(1, never_on=("flowq:ShellFailed",)), None),
        (Retry(1, on=("asyncio.exceptions:Nothing",)), "FQ507 `on` of job a names asyncio"),
        (Retry(1, never_on=("nothing.here:Error",)), "FQ507 `never_on` of job a names nothing"),
        (Retry(1, on=("time:time",)), "which is not an exception class: name the class of the exc"),
        (
            Retry(1, on=("os:error",)),
            "FQ507 `on` of job a names os:error, which is another name of OSError: write OSError",
        ),
        (Retry(1, factor=2), "FQ240 the retries of job a say how waits grow"),
        (Retry(1, 10, max_backoff_s=5), "FQ240 the retries of job a have a `max_backoff`"),
        (Retry(1, 10, within_s=5), "FQ240 the retries of job a never happen"),
        (
            Retry(1, on=("OSError",), never_on=("OSError",)),
            "FQ240 the retries of job a name OSError",
        ),
        (Retry(1, on=("3",)), "FQ240 job a calls a function, which has no exit code: 3 under `on`"),
    ],
)
def test_what_is_said_is_checked(retries: Retry, said: str | None) -> None:
    found = problems_of(retries)
    assert len(found) == (said is not None)
    assert not found or said in found[0]


def test_the_defaults_are_checked_too() -> None:
    found = problems_of(Retry(1), defaults=Defaults(retries=Retry(1, on=("os:error",))))
    assert [each.partition(":")[0] for each in found] == ["FQ507 `on` of the defaults names os"]


@pytest.mark.parametrize("place", ["with", "env", "run", "cwd"])
def test_attempt_has_a_value_where_the_job_runs(place: str) -> None:
    said = {"with": "{call: 'json:dumps', with: {obj: '${{ attempt }}'}}"}
    for key in ("env", "cwd"):
        value = "{N: '${{ attempt }}'}" if key == "env" else "'x${{ attempt }}'"
        said[key] = f"{{run: 'true', {key}: {value}}}"
    said["run"] = "{run: 'echo ${{ attempt }}'}"
    workflow = parse_workflow(f"jobs: {{a: {said[place]}}}", "w.yaml")
    assert [each.code for each in find_problems(workflow)] == []


@pytest.mark.parametrize(
    "job",
    [
        "{run: 'true', if: attempt > 1}",
        "{run: 'true', for_each: '${{ range(attempt) }}'}",
        "{workflow: inner, with: {n: '${{ attempt }}'}}",
    ],
)
def test_elsewhere_it_has_none(job: str) -> None:
    inner = (
        "workflows: {inner: {inputs: {n: {type: int}}, jobs: {x: {run: 'echo ${{ inputs.n }}'}}}}"
    )
    keeps = "b: {workflow: inner, with: {n: 1}}"
    workflow = parse_workflow(f"jobs: {{a: {job}, {keeps}}}\n{inner}\n", "w.yaml")
    assert [each.code for each in find_problems(workflow)] == ["FQ213"]


def test_the_names_of_a_class_are_those_by_which_it_is_passed_on() -> None:
    assert list(names_of_exception(flowq.RetryLater)) == [
        "flowq.errors:RetryLater",
        "flowq:RetryLater",
    ]
    assert list(names_of_exception(KeyError)) == ["KeyError"]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "3", True, 10**12])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="RetryLater takes seconds"):
        flowq.RetryLater(seconds)


@pytest.mark.skipif(os.name == "nt", reason="there are no signals")
@pytest.mark.parametrize(
    ("code", "how"),
    [
        (3, "exit code 3"),
        (128, "exit code 128"),
        (137, "exit code 137 (killed by SIGKILL)"),
        (139, "exit code 139 (killed by SIGSEGV)"),
        (143, "exit code 143 (killed by SIGTERM)"),
        (255, "exit code 255"),
        (-9, "signal 9 (SIGKILL)"),
    ],
)
def test_an_end_by_a_signal_is_called_so_wherever_it_is_told(code: int, how: str) -> None:
    assert str(ShellFailed("make", code)) == f"`make` ended with {how}"
    if code > 0:
        assert Failure(exit_code=code).brief == how


def test_a_failure_is_written_as_text_that_every_reader_of_json_accepts() -> None:
    """Bytes that are no text, and halves of surrogate pairs, are escapes; Lua refuses them."""
    strange = type("Bad", (ValueError,), {"__module__": "x\udcff"})
    failure = Failure.of(strange("cannot read x\udcff, \ud800 and é"))
    assert failure.error == r"Bad: cannot read x\udcff, \ud800 and é"
    assert Failure.of(ValueError("x\udcff")).error == r"ValueError: x\xff"
    assert Failure.read(failure.write()) == failure
    assert Failure.read(failure.write_cause()) == replace(failure, error="")
    told = Failure.read('{"names": ["A\\udcff"], "error": "x\\udcff"}')
    assert told == Failure(("A\\xff",), error="x\\xff")
    assert failure.names[0] == r"x\xff:Bad"
    shown = Shown(error=shorten("x\udcff"))
    assert json.loads(shown.at_end("failed")) == {"error": r"x\xff"}
