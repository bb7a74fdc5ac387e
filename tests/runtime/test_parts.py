"""Runs of a part of a workflow: what is left out is skipped, and keeps nothing else waiting."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

import flowq
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.errors import UsageError, WrongState
from flowq.graph import LEFT_OUT
from flowq.render.groups import by_declaration
from flowq.selecting import make_selection
from flowq.status import RunStatus
from tests.reading import parse_workflow
from tests.runtime.language import job

Work = Callable[..., None]


@pytest.fixture
def part(connection: Redis, work: Work) -> Callable[..., Run]:
    """`part(text, only=…)`: the ended run of a part of a workflow."""

    def run(text: str, only: str = "", from_: str = "", skip: str = "") -> Run:
        selection = make_selection(only.split(), from_.split(), skip.split())
        workflow = parse_workflow(text, "w.yaml")
        plan = compile_plan(workflow, imports=False, selection=selection)
        run = submit(plan, connection)
        work()
        assert run.status().is_ended
        return run

    return run


def ran(status: RunStatus) -> set[str]:
    for each in status.jobs.values():
        # The join of a workflow that is left out follows its start, and says nothing.
        assert each.state != "skipped" or each.reason in (LEFT_OUT, ""), each
    return {name for name, each in status.jobs.items() if each.state == "finished"}


KINDS = """
inputs: {pause: no time}
jobs:
  first: {call: builtins:dict}
  group: {for_each: [1, 2], needs: first, call: builtins:dict}
  legs: {needs: first, matrix: {x: [1, 2]}, queue: nobody, call: builtins:dict}
  nested: {needs: group, workflow: w}
  asks: {needs: nested, approval: true, expires: 1s, queue: nobody, call: builtins:dict}
  pause: {needs: asks, sleep: "${{ inputs.pause }}"}
  open: {needs: legs, deferred: true, call: builtins:dict}
  last: {needs: [pause, open], if: jobs.asks.status == "skipped", call: builtins:dict}
finally:
  clean: {call: builtins:dict, with: {x: "${{ jobs.first.result }}"}}
  tell: {call: builtins:dict}
outputs: {x: "${{ jobs.first.result }}"}
workflows: {w: {jobs: {inner: {call: builtins:dict}}}}
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"only": "last"}, {"last", "clean", "tell"}),
        ({"from_": "open", "skip": "tell"}, {"open", "last", "clean"}),
        (
            {"skip": "legs asks pause first"},
            {
                *("group(list)", "group[0]", "group[1]", "nested(start)", "nested", "nested.inner"),
                *("open", "last", "clean", "tell"),
            },
        ),
        ({"only": "first", "skip": "clean tell"}, {"first"}),
    ],
)
def test_what_is_left_out_is_skipped_whatever_kind_of_job_it_is(
    part: Callable[..., Run], choice: dict[str, str], expected: set[str]
) -> None:
    """It asks nobody, waits for no time, and needs no worker on its queue."""
    run = part(KINDS, **choice)
    status = run.status()
    assert (status.state, ran(status)) == ("succeeded", expected)
    assert run.outputs() == {"x": {} if "first" in expected else None}


FAILING = """
jobs:
  bad: {call: "builtins:int", with: {x: 1}}
  between: {needs: bad, %s, call: builtins:dict}
  after: {needs: between, call: builtins:dict}
  asks: {needs: between, if: failure(), call: builtins:dict}
"""


@pytest.mark.parametrize("key", ["on_blocker_failure: wait", "if: always()", "expires: 1d"])
def test_a_failure_counts_through_what_is_left_out(part: Callable[..., Run], key: str) -> None:
    status = part(FAILING % key, skip="between").status()
    assert status.state == "failed"
    assert {name: each.state for name, each in status.jobs.items()} == {
        "bad": "failed",
        "between": "skipped",
        "after": "skipped",
        "asks": "finished",
    }


def test_a_retry_keeps_leaving_out_what_was_left_out(
    part: Callable[..., Run], work: Work, connection: Redis
) -> None:
    run = part(KINDS, only="first")
    with pytest.raises(WrongState, match=r"^job nested was left out of this run \(.*start a new"):
        run.retry("nested")
    with pytest.raises(WrongState, match=r"^job legs was left out"):
        run.retry("legs")
    run.retry("first")
    work()
    assert ran(run.status()) == {"first", "clean", "tell"}


def test_a_program_runs_a_part(connection: Redis, work: Work, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(KINDS)
    target = tmp_path / "w.yaml"
    run = flowq.submit(target, only="last", skip=["tell"], connection=connection)
    work()
    assert ran(run.status()) == {"last", "clean"}
    before = len(flowq.runs(connection=connection))
    with pytest.raises(UsageError, match="has no job lats; did you mean 'last'"):
        flowq.run(target, from_="lats", connection=connection)
    assert len(flowq.runs(connection=connection)) == before
    flow = flowq.Workflow("few")
    flow.job(name="a")(job)
    with pytest.raises(UsageError, match=r"write flowq.submit\(workflow, \{…\}, skip=…\)"):
        flow.submit(skip="a")


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_run_what_is_chosen_and_has_no_failure_before_it(
    part: Callable[..., Run], seed: int
) -> None:
    """Failures count through jobs that are left out, of any kind; nothing else keeps a job back."""
    dice = random.Random(seed)
    names = [f"j{number}" for number in range(8)]
    before = {name: dice.sample(names[:at], min(at, 2)) for at, name in enumerate(names)}
    bad, skip = dice.sample(names, 2), dice.sample(names, 4)
    lines = []
    for name in names:
        call = "builtins:int, with: {x: 1}" if name in bad else "builtins:dict"
        kind = dice.choice(["", "", "matrix: {x: [1, 2]}, ", "for_each: [1, 2], "])
        lines.append(f"  {name}: {{needs: [{', '.join(before[name])}], {kind}call: {call}}}")
    status = part("jobs:\n" + "\n".join(lines), skip=" ".join(skip)).status()
    failing: dict[str, bool] = {}
    expected = {}
    for name in names:
        is_doomed = any(failing[each] for each in before[name])
        failing[name] = is_doomed or (name in bad and name not in skip)
        ran = "failed" if name in bad else "finished"
        expected[name] = "skipped" if is_doomed or name in skip else ran
    assert {name: each.state for name, each in by_declaration(status).items()} == expected
