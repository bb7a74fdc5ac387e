"""Results that are no JSON, in the expressions of the jobs after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import value_jobs

from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime.results import get_errors, get_results
from flowq.status import JobStatus

Work = Callable[..., None]
GIVERS = "".join(
    f'  {name}: {{call: "value_jobs:get", with: {{name: {name}}}}}\n' for name in value_jobs.VALUES
)


def run_jobs(text: str, folder: Path, connection: redis.Redis, work: Work) -> Run:
    file = folder / "flow.yaml"
    file.write_text(f"name: flow\njobs:\n{GIVERS}{text}")
    run = submit(compile_plan(load(str(file)), {}), connection)
    work()
    return run


def result_of(run: Run, name: str) -> Any:
    return get_results([f"{run.run_id}-{name}"], run.connection).get(f"{run.run_id}-{name}")


def error_of(run: Run, name: str) -> str:
    return get_errors([f"{run.run_id}-{name}"], run.connection).get(f"{run.run_id}-{name}", "")


def status_of(run: Run, name: str) -> JobStatus:
    return run.status().jobs[name]


def test_values_reach_conditions_arguments_commands_and_variables(
    tmp_path: Path, connection: redis.Redis, work: Work
) -> None:
    text = """
  if_true: {call: "value_jobs:tell", if: jobs.yes.result}
  if_false: {call: "value_jobs:tell", if: jobs.no.result}
  if_int: {call: "value_jobs:tell", if: "jobs.int.result > 5 and jobs.level.result == 7"}
  whole: {call: "value_jobs:tell", with: {value: "${{ jobs.int.result }}"}}
  array2: {call: "value_jobs:tell", with: {value: "${{ jobs.array.result }}"}}
  sum: {call: "value_jobs:tell", with: {value: "${{ jobs.price.result * 2 + jobs.int.result }}"}}
  x: {call: "value_jobs:tell", with: {value: "${{ jobs.point.result.x }}"}}
  texts: {run: "echo ${{ jobs.int.result }} ${{ jobs.yes.result }} ${{ jobs.colour.result }}
    ${{ jobs.colour.result.value }} ${{ jobs.price.result }} ${{ jobs.level.result }}
    ${{ jobs.point.result }}"}
  variables:
    run: echo "$N $P $L $F $C"
    env:
      N: ${{ jobs.int.result }}
      P: ${{ jobs.price.result }}
      L: ${{ jobs.numbers.result }}
      F: ${{ jobs.flag.result }}
      C: ${{ jobs.colour.result }}
"""
    run = run_jobs(text, tmp_path, connection, work)
    assert status_of(run, "if_true").state == "finished"
    assert status_of(run, "if_false").state == "skipped"
    assert status_of(run, "if_int").state == "finished"
    assert result_of(run, "whole") == ["int", "7"]
    assert result_of(run, "array2") == ["ndarray", "[3 1 2]"]
    assert result_of(run, "sum") == ["Decimal", "9.20"]
    assert result_of(run, "x") == ["int", "4"]
    assert result_of(run, "texts") == '7 true Colour.RED red 1.10 7 {"x": 4}'
    assert result_of(run, "variables") == "7 1.10 [3, 3, 1] True Colour.RED"


def test_what_cannot_be_decided_or_written_fails_the_job_and_says_why(
    tmp_path: Path, connection: redis.Redis, work: Work
) -> None:
    text = """
  if_array: {call: "value_jobs:tell", if: jobs.array.result}
  if_colour: {call: "value_jobs:tell", if: "jobs.colour.result == 'red'"}
  text: {run: "echo ${{ jobs.array.result }}"}
  variable: {run: "true", env: {A: "${{ jobs.array.result }}"}}
  mixed: {call: "value_jobs:tell", with: {value: "${{ jobs.price.result * 1.5 }}"}}
  stops: {for_each: [1], call: "value_jobs:get", with: {name: array}, stop_when: result}
"""
    run = run_jobs(text, tmp_path, connection, work)
    assert error_of(run, "if_array") == (
        "flowq.errors.WorkflowInvalid: FQ305 `${{ jobs.array.result }}`: an ndarray is neither "
        "true nor false; pass it as a whole, or let its job return plain data, as .tolist() or "
        ".to_dict() do; `is none` can be asked"
    )
    assert "nothing can be computed with Colour.RED; write .value" in error_of(run, "if_colour")
    assert "`${{ jobs.array.result }}`: nothing can be computed with" in error_of(run, "text")
    assert "`env.A`: nothing can be computed with an ndarray" in error_of(run, "variable")
    assert "a float is not exact; write float(…)" in error_of(run, "mixed")
    assert "`${{ result }}`: an ndarray is neither true nor false" in error_of(run, "stops--0")


def test_groups_are_made_of_such_values_and_named_by_them(
    tmp_path: Path, connection: redis.Redis, work: Work
) -> None:
    text = """
  arrays: {for_each: "${{ jobs.array.result }}", call: "value_jobs:tell",
    with: {value: "${{ item + 1 }}"}}
  keyed: {for_each: "${{ jobs.numbers.result }}", key: item, call: "value_jobs:tell",
    with: {value: "${{ item }}"}}
  sets: {for_each: "${{ jobs.set.result }}", call: "value_jobs:tell", with: {value: "${{ item }}"}}
  priced: {for_each: "${{ jobs.prices.result }}", key: item, call: "value_jobs:tell",
    with: {value: "${{ item }}"}}
  fields: {for_each: "${{ jobs.points.result }}", key: item.x, call: "value_jobs:tell",
    with: {value: "${{ item.x * 2 }}"}}
  more: {for_each: [1], key: item, more: "[result]", call: "value_jobs:count"}
  stops: {for_each: [1, 2], max_parallel: 1, call: "value_jobs:count", stop_when: "result == 1"}
  after:
    call: value_jobs:tell
    with:
      value:
        - ${{ jobs.arrays.results }}
        - ${{ jobs.keyed.by_key[3] }}
        - ${{ jobs.keyed.outcomes[1].key }}
        - ${{ jobs.priced.by_key["2.20"] }}
        - ${{ jobs.fields.by_key[2][1] }}
"""
    run = run_jobs(text, tmp_path, connection, work)
    assert result_of(run, "arrays--0") == ["int", "4"]
    assert result_of(run, "keyed--1") == ["int", "1"]
    assert [result_of(run, f"sets--{at}")[1] for at in range(3)] == ["a", "b", "c"]
    assert result_of(run, "priced--1") == ["Decimal", "2.20"]
    assert status_of(run, "stops(list)").state == "finished"
    told = result_of(run, "after")[1]
    assert told == (
        "[[['int', '4'], ['int', '2'], ['int', '3']], ['int', '3'], '1', ['Decimal', '2.20'], '4']"
    )
