"""Whatever is declared, both fronts give the same value, and literals stay literals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowq.declare.handles import Handle
from flowq.declare.python import Workflow
from flowq.declare.yaml import parse_workflow
from flowq.expressions import escape, evaluate
from flowq.spec import Block

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
        "on_crash": st.sampled_from(["requeue", "fail"]),
        "secret_results": st.sampled_from(["mask", "refuse"]),
        "expires": durations,
        "at_front": st.booleans(),
        "env": st.dictionaries(st.sampled_from(["A", "b_1"]), st.integers() | texts),
        "cwd": texts.filter(str.strip),
    }
    said: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=optional))
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
