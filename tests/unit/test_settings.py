"""Settings that are expressions: `queue`, `timeout`, `max_parallel`, `retries.max`, tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import flowq
from flowq.compiling import compile_plan, find_problems
from flowq.declare.export_yaml import export_yaml
from flowq.errors import WorkflowInvalid
from flowq.plan import Enqueue, Expansion, Plan
from flowq.problems import BAD_SETTING, NO_VALUE_HERE, QUEUE_FROM_RESULT
from flowq.runtime.planned import call_of
from flowq.runtime.wire import FORMAT, KEY, SETTINGS_FORMAT
from flowq.spec import Tolerance
from flowq.testing import run_inline
from tests.reading import parse_workflow


def plan(text: str, inputs: Mapping[str, Any] | None = None) -> Plan:
    return compile_plan(parse_workflow(text, "w.yaml"), inputs, run_id="r", imports=False)


def jobs(text: str, inputs: Mapping[str, Any] | None = None) -> dict[str, Enqueue]:
    return {each.name: each for each in plan(text, inputs).enqueues}


def refusals(text: str) -> list[tuple[str, int]]:
    """Return the codes of a workflow's problems with their lines."""
    found = find_problems(parse_workflow(text, "w.yaml"), imports=False)
    return [(each.code, each.where.line if each.where else 0) for each in found]


WHOLE = """
inputs: {n: {type: int, default: 3}, q: {type: str, default: far}}
defaults: {queue: "${{ inputs.q }}", retries: {max: "${{ inputs.n }}", backoff: 1s}}
jobs:
  single: {run: echo, timeout: "${{ inputs.n }}m", continue_on_error: "${{ inputs.n > 2 }}"}
  group:
    matrix: {os: [linux, mac]}
    run: echo
    queue: q-${{ matrix.os }}
    max_parallel: ${{ inputs.n }}
    retries: "${{ 1 if matrix.os == 'mac' else 0 }}"
    continue_on_error: ${{ matrix.os == 'mac' }}
    timeout: ${{ 10 if matrix.os == 'mac' else 20 }}
  share: {matrix: {os: [a, b]}, run: echo, continue_on_error: "${{ inputs.n * 10 }}%"}
"""


def test_settings_over_inputs_and_combinations_have_values_in_the_plan() -> None:
    made = jobs(WHOLE)
    single, linux, mac = made["single"], made["group[linux]"], made["group[mac]"]
    assert (single.queue, single.timeout_s, single.is_tolerated) == ("far", 180, True)
    assert single.retries
    assert (single.retries.max, single.retries.backoff_s) == (3, 1)
    assert (linux.queue, linux.timeout_s, linux.is_tolerated) == ("q-linux", 20, False)
    assert (mac.queue, mac.timeout_s, mac.is_tolerated) == ("q-mac", 10, True)
    assert [each.retries and each.retries.max for each in (linux, mac)] == [0, 1]
    group, share = plan(WHOLE, {"n": 1}).groups
    assert (group.max_parallel, group.tolerance) == (1, None)
    assert share.tolerance == Tolerance(percent=10)


def test_both_exports_and_handles_declare_the_same() -> None:
    workflow = parse_workflow(WHOLE, "w.yaml")
    assert parse_workflow(export_yaml(workflow), "w.yaml").jobs == workflow.jobs
    flow = flowq.Workflow("w", inputs={"n": 3}, defaults={"queue": flowq.Workflow.inputs.n})
    flow.shell("a", "echo", timeout=f"{flow.inputs.n}m", retries={"max": flow.inputs.n})
    spec = flow.spec()
    assert spec.defaults.settings == {"queue": "${{ inputs.n }}"}
    assert spec.jobs[0].settings == {
        "timeout": "${{ inputs.n }}m",
        "retries.max": "${{ inputs.n }}",
    }
    flow.shell("b", "echo", queue="${{ inputs.n }}")  # a text of a program is no template
    with pytest.raises(WorkflowInvalid, match="fixed text"):
        flow.spec()


@pytest.mark.parametrize(
    ("keys", "inputs", "message"),
    [
        ("timeout: ${{ inputs.n }}", {"n": 0}, "timeout of job a must be more than zero"),
        ("timeout: ${{ inputs.n }}d", {"n": 4000}, "timeout of job a must be at most 3650d"),
        ("queue: ${{ inputs.q }}", {"q": ""}, "queue of job a must not be empty"),
        ("retries: ${{ inputs.n }}", {"n": 10**9}, "retries.max of job a must be at most 1,000"),
        (
            "max_parallel: ${{ inputs.n }}\n    matrix: {os: [a]}",
            {"n": 0},
            "max_parallel of job a must be a whole number from 1, not 0",
        ),
        (
            "continue_on_error: ${{ matrix.n }}\n    matrix: {n: [3]}",
            {},
            "continue_on_error of job a must be true or false for each job, not 3",
        ),
        (
            "timeout: ${{ item }}\n    for_each: [1m, soon]",
            {},
            "timeout of job a[1] must be a duration, not 'soon'",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(
    keys: str, inputs: Mapping[str, Any], message: str
) -> None:
    text = f"""
inputs: {{n: {{type: int, default: 1}}, q: {{type: str, default: x}}}}
jobs:
  a:
    run: echo ${{{{ inputs.q }}}} ${{{{ inputs.n }}}}
    {keys}
"""
    with pytest.raises(WorkflowInvalid) as raised:
        plan(text, inputs)
    (problem,) = raised.value.problems
    assert problem.code == BAD_SETTING
    assert problem.message.startswith(message)
    assert problem.where
    assert problem.where.line == 6


def test_names_without_a_value_and_types_that_never_fit_are_refused_by_check() -> None:
    assert refusals("""
inputs: {t: {type: bool, default: true}}
defaults: {timeout: "${{ matrix.n }}"}
jobs:
  a: {run: echo, max_parallel: "${{ inputs.t }}", for_each: [1]}
  b: {run: echo, max_parallel: "${{ item }}", for_each: [1]}
  c: {run: echo, timeout: "${{ jobs.a.status }}"}
  d: {run: echo, timeout: "${{ 0 }}"}
  e: {run: echo, timeout: "${{ secrets.T }}"}
""") == [
        (NO_VALUE_HERE, 3),
        (BAD_SETTING, 5),
        (NO_VALUE_HERE, 6),
        (NO_VALUE_HERE, 7),
        (BAD_SETTING, 8),
        (NO_VALUE_HERE, 9),
    ]


def test_no_result_names_a_queue_on_any_way() -> None:
    assert refusals("""
jobs:
  l: {run: echo, result: json}
  item: {for_each: "${{ jobs.l.result }}", queue: "${{ item }}", run: echo}
  part: {for_each: "${{ jobs.l.result }}", queue: "q-${{ item.os }}", run: echo}
  more: {for_each: [a], more: result, queue: "${{ item }}", run: echo}
  axis: {matrix: {q: "${{ jobs.l.result }}"}, queue: "${{ matrix.q }}", run: echo}
  added: {include: [{q: "${{ jobs.l.result }}"}], queue: "${{ matrix.q }}", run: echo}
  passed: {workflow: inner, with: {q: "x-${{ jobs.l.result }}"}}
  asked: {workflow: inner, with: {q: "${{ approval.q }}"}, approval: {inputs: {q: {type: str}}}}
  env: {workflow: inner, with: {q: "${{ env.Q }}"}}
  whole: {matrix: {a: [1], q: "${{ jobs.l.result }}"}, queue: "${{ str(matrix) }}", run: echo}
  deep: {workflow: outer, with: {names: "${{ jobs.l.result }}"}}
  fine: {workflow: listed, with: {q: "${{ jobs.l.result }}"}}
  other: {matrix: {q: [a, b], n: "${{ jobs.l.result }}"}, queue: "${{ matrix.q }}", run: echo}
workflows:
  inner: {inputs: {q: {type: str}}, jobs: {a: {queue: "${{ inputs.q }}", run: echo}}}
  listed:
    inputs: {q: {type: enum, choices: [a, b]}}
    jobs: {a: {queue: "${{ inputs.q }}", run: echo}}
  outer:
    inputs: {names: {type: list}}
    workflows: {inner: {inputs: {q: {type: str}}, jobs: {a: {queue: "${{ inputs.q }}", run: echo}}}}
    jobs: {a: {for_each: "${{ inputs.names }}", workflow: inner, with: {q: "${{ item }}"}}}
""") == [(QUEUE_FROM_RESULT, line) for line in range(4, 14)]


LATE = """
jobs:
  l: {call: m:f}
  each:
    for_each: ${{ jobs.l.result }}
    call: m:g
    with: {n: "${{ item }}"}
    timeout: ${{ item }}
    continue_on_error: ${{ item == 2 }}
  nested: {workflow: inner, for_each: [1, 2], timeout: "${{ item }}m", with: {n: "${{ item }}"}}
  all: {call: m:f, needs: [each, nested]}
workflows:
  inner:
    inputs: {n: {type: int}}
    jobs: {a: {call: m:f, timeout: "${{ inputs.n }}m", retries: "${{ inputs.n }}"}}
"""


def test_settings_of_items_are_evaluated_when_they_are_added() -> None:
    fails_at_2 = {"g": lambda n: 1 // (n - 2)}
    calls = {"l": [1, 2], "each": fails_at_2["g"], "nested": {}, "all": "ran"}
    ran = run_inline(parse_workflow(LATE, "w.yaml"), replace=calls)
    assert ran.results["all"] == "ran"
    ran = run_inline(parse_workflow(LATE, "w.yaml"), replace={**calls, "l": [3, 0]})
    assert ran.state == "failed"
    assert "timeout of job each[1] must be more than zero" in str([*ran.errors.values()])


def test_older_workers_refuse_what_they_would_misread() -> None:
    assert FORMAT >= SETTINGS_FORMAT > 3
    made = jobs(LATE)
    assert isinstance(made["each(list)"].does, Expansion)
    for name in ("each(list)", "nested(list)"):
        assert call_of(made[name])[1][0][KEY] == SETTINGS_FORMAT
    plain = jobs("jobs: {a: {for_each: [1], run: echo}}")["a(list)"]
    assert call_of(plain)[1][0][KEY] < SETTINGS_FORMAT


MATRIX = """
jobs:
  l: {call: m:f}
  m:
    matrix: {n: "${{ jobs.l.result }}", os: [linux, mac]}
    include: [{n: 9, os: bsd}]
    exclude: [{n: 2, os: mac}]
    call: m:g
    with: {n: "${{ matrix.n }}", os: "${{ matrix.os }}"}
  all: {call: m:h, with: {r: "${{ jobs.m.by_key }}"}}
"""


def test_a_matrix_may_be_made_of_results() -> None:
    def run(axis: Any) -> flowq.testing.InlineRun:
        calls = {"l": axis, "m": lambda n, os: f"{n}{os}", "all": lambda r: r}
        return run_inline(parse_workflow(MATRIX, "w.yaml"), replace=calls)

    assert run([1, 2]).results["all"] == {
        "1,linux": "1linux",
        "1,mac": "1mac",
        "2,linux": "2linux",
        "9,bsd": "9bsd",
    }
    assert run([]).results["all"] == {"9,bsd": "9bsd"}
    assert "10,002 combinations: at most 10,000" in str(run([*range(5001)]).errors)
    assert "n in the matrix of m needs a list, but got int 3" in str(run(3).errors)
