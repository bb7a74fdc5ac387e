"""Whatever is declared, both fronts give the same value, and literals stay literals.

The last tests send good and bad values of every key of the table through both: one verdict, and the
same spec.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowq.declare.export_yaml import emit, export_yaml
from flowq.declare.handles import Handle
from flowq.declare.input_shapes import INPUT
from flowq.declare.keys import DEFAULTS, JOB, WORKFLOW
from flowq.declare.options import (
    CallOptions,
    JobOptions,
    NestedOptions,
    ShellOptions,
    SleepOptions,
)
from flowq.declare.python import Workflow
from flowq.errors import Problem
from flowq.expressions import escape, evaluate
from flowq.spec import Block
from flowq.spec import Workflow as Spec
from tests.reading import parse_partly, parse_workflow

NAMES = [f"job_{letter}" for letter in "abcdef"]
CALL = f"{__name__}:function"

pieces = st.sampled_from(
    ["${{", "$", "{{", " inputs.size ", "}}", "é", "'", '"', "\\", ": ", " #", "-"]
)
texts = st.lists(pieces, max_size=5).map("".join)
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1e-7]) | texts
literals = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=5,
)
durations = st.sampled_from(["500ms", "30s", "10m", "2h", 45, 0.5])


@st.composite
def jobs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    others = st.lists(st.sampled_from([n for n in NAMES if n != name]), max_size=3, unique=True)
    optional = {
        "needs": others | st.sampled_from(NAMES),
        "blocks": others | others.map(lambda names: {n: {"on_failure": "ignore"} for n in names}),
        "queue": st.sampled_from(["default", "high"]),
        "timeout": durations,
        "retries": st.integers(0, 5)
        | st.just({"max": 2, "backoff": "1s"})
        | st.just(
            {
                "max": 2,
                "backoff": "1s",
                "factor": 2,
                "jitter": "10%",
                "within": "1h",
                "on": [3, "OSError"],
            }
        ),
        "description": st.sampled_from(["", "What it does"]),
        "on_blocker_failure": st.sampled_from(["wait", "skip", "run"]),
        "for_each": st.lists(literals, max_size=3),
        "max_parallel": st.integers(1, 9),
        "fail_fast": st.booleans(),
        "continue_on_error": st.sampled_from([True, False, 3, "20%", "12.5%"]),
        "approval": st.booleans()
        | st.sampled_from(
            [{"message": "x"}, {"expires": "2d"}, {"inputs": {"x": {"type": "int", "default": 3}}}]
        ),
        "if_empty": st.sampled_from(["run", "skip"]),
        "start_when": st.sampled_from(["one_success", "one_failed"]),
        "cancel_rest": st.booleans(),
        "on_crash": st.sampled_from(["requeue", "fail"]),
        "secret_results": st.sampled_from(["mask", "refuse"]),
        "expires": durations,
        "at_front": st.booleans(),
        "env": st.dictionaries(st.sampled_from(["A", "b_1"]), st.integers() | texts),
        "cwd": texts.filter(str.strip),
    }
    said: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=optional))
    if said.keys() & {"for_each", "on_blocker_failure", "if_empty"}:
        said.pop("start_when", None)
    if "start_when" not in said:
        said.pop("cancel_rest", None)
    said["deferred"] = draw(st.booleans())
    said["literals"] = draw(st.dictionaries(st.sampled_from("lmn"), literals, max_size=2))
    said["handles"] = draw(
        st.dictionaries(st.sampled_from("opq"), st.sampled_from(NAMES), max_size=2)
    )
    return said


declarations = st.fixed_dictionaries({}, optional={name: jobs(name) for name in NAMES})


def function(**arguments: Any) -> None: ...


def declare(said_by_name: Mapping[str, Mapping[str, Any]]) -> Workflow:
    flow = Workflow("twin", inputs={"size": 3, "folder": str}, defaults={"timeout": "1m"})
    for name, said in said_by_name.items():
        words = {k: v for k, v in said.items() if k not in ("deferred", "literals", "handles")}
        job = (flow.deferred if said["deferred"] else flow.job)(function, name=name, **words)
        job.bind(**said["literals"])
        for argument, other in said["handles"].items():
            handle = Handle(f"jobs.{other}.result")  # the other job may not be declared yet
            job.bind(**{argument: f"{handle} of {flow.inputs.size}"})
    return flow


def write(said_by_name: Mapping[str, Mapping[str, Any]]) -> str:
    written = {}
    for name, said in said_by_name.items():
        words = {k: v for k, v in said.items() if k not in ("literals", "handles")}
        words |= {k: escape(words[k]) for k in ("for_each", "env", "cwd") if k in words}
        with_ = escape(said["literals"]) | {
            argument: f"${{{{ jobs.{other}.result }}}} of ${{{{ inputs.size }}}}"
            for argument, other in said["handles"].items()
        }
        written[name] = {"call": CALL, **words, "with": with_}
    document = {
        "name": "twin",
        "inputs": {"size": {"type": "int", "default": 3}, "folder": {"type": "str"}},
        "defaults": {"timeout": "1m"},
        "jobs": written,
    }
    return json.dumps(document, ensure_ascii=False)


@given(declarations.filter(bool))
def test_both_fronts_give_equal_workflows(said: dict[str, dict[str, Any]]) -> None:
    python = declare(said).spec()
    assert python == parse_workflow(write(said), "twin.yaml")
    assert all(isinstance(block, Block) for job in python for block in job.blocks)


@given(st.dictionaries(st.sampled_from("lmn"), literals))
def test_bound_literals_reach_the_function_as_they_are(arguments: dict[str, Any]) -> None:
    flow = Workflow("literal")
    flow.job(function).bind(**arguments)
    assert evaluate(flow.spec().jobs[0].with_) == arguments


# One verdict on every key ------------------------------------------------------------------------

VALUES: list[Any] = [
    *(True, False, 0, 1, 3, -1, 1_001, 2_000_000_000, 0.5, 1e-7, float("nan"), float("inf")),
    *("", "x", "a-b", "b, c", "3", "yes", "20%", "200%", "30s", "0s", "9999d", "fail", "wait"),
    *("json", "skip", "mask", "a.b", "m:f", "0 6 * * *", "look first", "${{ inputs.n }}", "item"),
    *("a ${{ inputs.n }} b", "inputs.n > 1", "${{ a }} ${{ b }}", "x" * 50),
    *([], ["a", "a"], [None], [1, [2]], ["", "x"], [{"a": 1}], ["${{ inputs.n }}"]),
    *({}, {"a": 1}, {"a-b": "x"}, {"a": [1, 2]}, {"a": None}, {"a": {"on_failure": "ignore"}}),
    *({"b": {"on_failure": "wait"}}, {"${{ x }}": 1}, {"max": 3, "backof": 1}, {"max": 2_000}),
    *({"backoff": 1}, {"max": 2, "factor": 0}, {"max": 2, "on": ["nonsense", 3, "1-3"]}),
    *({"message": 3, "expires": "2d"}, {"msg": "x"}, {"inputs": {"a-b": {"type": "int"}}}),
    *({"group": "x", "cancel_in_progress": 1}, {"cron": "0 6 * * *", "tz": "UTC"}, {"x-mine": 1}),
    *({"inputs": {"v": {"type": "int", "default": "many", "required": True}}},),
]
EXAMPLES = [
    example
    for kind in (JOB, WORKFLOW, INPUT)
    for key in kind.keys.values()
    for example in key.examples
]
anything = st.sampled_from([*VALUES, *EXAMPLES]) | st.recursive(
    st.sampled_from(VALUES), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
BESIDE = {"for_each": [1], "matrix": {"a": [1]}, "run": "date"}
OPTION_BY_KEY = {"if": "if_", "with": "with_"}


def as_python(value: Any) -> Any:
    """Return a value of YAML as a program has it: with handles in place of expressions."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\$\{\{ ([^}]*) \}\}", value)
        if whole:
            return Handle(whole[1])
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: str(Handle(found[1])), value)
    if isinstance(value, dict):  # in a description nothing is filled in: it is the text it is
        return {
            as_python_key(key): item if key == "description" else as_python(item)
            for key, item in value.items()
        }
    return tuple(map(as_python, value)) if isinstance(value, list) else value


def as_python_key(key: str) -> str:
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: str(Handle(found[1])), key)


def assert_same(one: Spec, other: Spec) -> None:
    """Compare as text where they differ as values: NaN is not equal to itself."""
    if one != other:
        assert repr(replace(one, folder=None)) == repr(replace(other, folder=None))


# A message about a number, flag or None of a program where a text is meant.
_IS_NO_TEXT = re.compile(
    r"must be (text, not|a job's name, or a list of names, not"
    r"|a list of texts, and one of them is) "
    r"(True|False|None|nan|-?inf|-?[0-9.]+(e-?[0-9]+)?)$"
)


def compare(document: dict[str, Any], flow: Workflow) -> None:
    """Compare what both fronts say: the same codes, and where there are none the same workflow."""
    from_yaml, in_yaml = parse_partly(emit(document), "twin.yaml")
    from_python, in_python = flow.spec_partly()
    if any(_IS_NO_TEXT.search(problem.message) for problem in in_python):
        return  # values of Python have types; in a file, where text is meant, `3` and `true` are it
    assert codes(in_yaml) == codes(in_python), [*map(str, in_yaml), *map(str, in_python)]
    assert all(problem.where and problem.where.file == __file__ for problem in in_python)
    if not in_yaml:
        assert_same(from_yaml, from_python)
        assert_same(parse_workflow(export_yaml(from_python), "twin.yaml"), from_python)


def codes(problems: list[Problem]) -> list[str]:
    return sorted({problem.code for problem in problems})


@pytest.mark.parametrize("key", [key for key in JOB.keys if key != "workflow"])
@settings(max_examples=60, deadline=None)
@given(value=anything)
def test_both_fronts_have_one_verdict_on_each_key_of_a_job(key: str, value: Any) -> None:
    needed = JOB.keys[key].needs[:1]
    job = {word: BESIDE.get(word) or JOB.keys[word].examples[0] for word in needed}
    if key not in ("call", "run") and "run" not in job:
        job["call"] = CALL
    job[key] = value
    flow = Workflow("twin")
    said = {OPTION_BY_KEY.get(word, word): given for word, given in as_python(job).items()}
    if "run" in job:
        flow.shell("a", said.pop("run"), **said)
    else:
        flow.call("a", said.pop("call"), **said)
    compare({"name": "twin", "jobs": {"a": job}}, flow)


@pytest.mark.parametrize(
    "key", ["description", "env", "max_parallel", "timeout", "concurrency", "schedule", "labels"]
)
@settings(max_examples=60, deadline=None)
@given(value=anything)
def test_both_fronts_have_one_verdict_on_each_key_of_a_workflow(key: str, value: Any) -> None:
    flow = Workflow("twin", **as_python({key: value}))
    flow.call("a", CALL)
    compare({"name": "twin", key: value, "jobs": {"a": {"call": CALL}}}, flow)


@pytest.mark.parametrize("key", DEFAULTS.keys)
@settings(max_examples=40, deadline=None)
@given(value=anything)
def test_both_fronts_have_one_verdict_on_each_default(key: str, value: Any) -> None:
    flow = Workflow("twin", defaults={key: as_python(value)})
    flow.call("a", CALL)
    compare({"name": "twin", "defaults": {key: value}, "jobs": {"a": {"call": CALL}}}, flow)


@pytest.mark.parametrize("key", INPUT.keys)
@settings(max_examples=60, deadline=None)
@given(value=anything, kind=st.sampled_from(["str", "int", "bool", "list", "json", "enum"]))
def test_both_fronts_have_one_verdict_on_each_key_of_an_input(
    key: str, value: Any, kind: str
) -> None:
    said = {"type": kind, key: value}
    flow = Workflow("twin", inputs={"n": as_python(said)})
    flow.call("a", CALL)
    compare({"name": "twin", "inputs": {"n": said}, "jobs": {"a": {"call": CALL}}}, flow)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["a", "9a", "a--b", "a b", "ä", "", "_", "a-"]))
def test_both_fronts_have_one_verdict_on_names(name: str) -> None:
    flow = Workflow("twin", inputs={name: {"type": "str"}})
    flow.call(name, CALL)
    document = {"inputs": {name: {"type": "str"}}, "jobs": {name: {"call": CALL}}}
    compare({"name": "twin", **document}, flow)


def test_the_decorators_take_the_keys_of_the_table() -> None:
    options = (JobOptions, CallOptions, ShellOptions, NestedOptions, SleepOptions)
    taken = {option.rstrip("_") for each in options for option in each.__annotations__}
    assert taken - {"name", "finally"} == JOB.keys.keys() - {"call", "run", "workflow", "sleep"}
    nested = {option.rstrip("_") for option in NestedOptions.__annotations__}
    meaningless = {word for word, key in JOB.keys.items() if "workflow" in key.not_for}
    assert nested.isdisjoint(meaningless)
