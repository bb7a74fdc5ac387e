"""What is refused in a YAML workflow: with a code, at its position, with advice."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq.declare.yaml import read_workflow
from flowq.errors import Problem, Where, WorkflowInvalid, WorkflowNotFound
from flowq.spec import Block, JobSpec, Workflow
from tests.reading import parse_workflow


def parse(text: str) -> Workflow:
    return parse_workflow(textwrap.dedent(text), "flow.yaml")


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(WorkflowInvalid) as caught:
        parse(text)
    return caught.value.problems


def with_job(keys: str, others: str = "") -> str:
    return f"jobs:\n  a:\n    call: m:f\n    {keys}\n{textwrap.indent(others, '  ')}"


def job_of(keys: str, others: str = "") -> JobSpec:
    return parse(with_job(keys, others)).jobs[0]


def codes_of(text: str) -> list[str]:
    return [problem.code for problem in problems_of(text)]


def test_a_problem_of_a_key_points_to_the_key_and_one_of_a_value_to_the_value() -> None:
    unknown, wrong = problems_of(with_job("timeuot: 3\n    timeout: soon"))
    assert unknown.where == Where("flow.yaml", 4, 5)
    assert wrong.where == Where("flow.yaml", 5, 14)


def test_a_column_counts_characters() -> None:
    (problem,) = problems_of("jobs: {a: {call: m:f, with: {é: 'ü', x: 1, x: 2}}}")
    assert problem.where == Where("flow.yaml", 1, 44)


def test_all_problems_are_reported_at_once_in_the_order_of_the_text() -> None:
    found = problems_of(
        """\
        jbos: x
        jobs:
          a b: {call: m:f}
          c: {call: m.f, needs: {}, queue: }
          d:
        """
    )
    assert [problem.code for problem in found] == [
        "FQ103",
        "FQ109",
        "FQ114",
        "FQ105",
        "FQ105",
        "FQ106",
    ]
    lines = [problem.where.line for problem in found if problem.where]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (with_job("tineout: 3"), "FQ103", "did you mean 'timeout'?"),
        (with_job("runs-on: x"), "FQ108", "queue"),
        (with_job("for_each: 3"), "FQ105", "range(3)"),
        *(
            (with_job(f"{key}: ''"), "FQ105", f"{key} must not be empty")
            for key in ("cwd", "workflow")
        ),
        ("jobs: {a: {run: ''}}", "FQ105", "run must not be empty"),
        ("name: ''\njobs: {a: {run: x}}", "FQ105", "name must not be empty"),
        ("inputs: {'': {type: str}}\njobs: {a: {run: x}}", "FQ109", "as in NAME"),
        (with_job("for_each: {a: 1}"), "FQ105", "must be a list"),
        (with_job("for_each: photos"), "FQ105", "jobs.photos.result"),
        (with_job("more: result.links"), "FQ118", "for_each"),
        (with_job("include: {a: 1}\n    matrix: {a: 1}"), "FQ105", "[1]"),
        (with_job("matrix: [a]"), "FQ105", "map of names"),
        (with_job("matrix: {a-b: [1]}"), "FQ109", "axis"),
        (with_job("matrix: {a: [1], include: [1]}"), "FQ105", "list of maps"),
        (with_job("max_parallel: 0"), "FQ105", "from 1"),
        (with_job("max_parallel: true"), "FQ105", "not true"),
        (with_job("fail_fast: yes"), "FQ105", "true or false"),
        (with_job("if: ''"), "FQ105", "if must not be empty"),
        (with_job("if: ${{ a }} and ${{ b }}"), "FQ105", "one expression"),
        (with_job("if: !inputs.a"), "FQ112", "not inputs.a"),
        (with_job("continue_on_error: 120%"), "FQ105", "20%"),
        (with_job("continue_on_error: -1"), "FQ105", "-1"),
        (with_job("approval: maybe"), "FQ105", "true"),
        (with_job("approval: {inputs: {x: {type: enum}}}"), "FQ106", "choices"),
        (with_job("approval: {inputs: [x]}"), "FQ105", "map of names"),
        (with_job("approval: {msg: x}"), "FQ103", "message"),
        (with_job("approval: {expires: 0}"), "FQ110", "more than zero"),
        (with_job("poll: {until: result, every: 0s}"), "FQ110", "leave it out for the default"),
        (with_job("env: [A]"), "FQ105", "map of variables"),
        (with_job("env: {A: [1]}"), "FQ105", "must be text"),
        (with_job("env: {A-B: 1}"), "FQ109", "variable"),
        (with_job("shell: bash"), "FQ118", "`run`"),
        (with_job("if_empty: fail"), "FQ105", "run, skip"),
        (with_job("on_crash: restart"), "FQ105", "requeue, fail"),
        (with_job("secret_results: keep"), "FQ105", "mask, refuse"),
        (with_job("expires: soon"), "FQ110", "1d"),
        (with_job("timeout-minutes: 3"), "FQ108", "timeout: 10m"),
        (with_job("working-directory: x"), "FQ108", "cwd"),
        ("schedule: daily\njobs: {a: {call: m:f}}", "FQ105", "cron"),
        ("schedule: {timezone: UTC}\njobs: {a: {call: m:f}}", "FQ106", "cron"),
        ("concurrency: {}\njobs: {a: {call: m:f}}", "FQ106", "group"),
        ("outputs: [a]\njobs: {a: {call: m:f}}", "FQ105", "map of names"),
        ("workflows: [a]\njobs: {a: {call: m:f}}", "FQ105", "map of names"),
        ("workflows: {b: ./b.yaml}\njobs: {a: {call: m:f}}", "FQ105", "in the job"),
        (with_job("call: m:g"), "FQ104", "line 3"),
        (with_job("with: {a: 1, a: 2}"), "FQ104", "second time"),
        (with_job("timeout: 10 minutes"), "FQ110", "10m"),
        (with_job("timeout: .inf"), "FQ110", "duration"),
        (with_job("timeout: true"), "FQ110", "duration"),
        (with_job("timeout: 99999d"), "FQ110", "3650d"),
        (with_job("retries: true"), "FQ105", "not true"),
        (with_job("retries: 1.5"), "FQ105", "not 1.5"),
        (with_job("deferred: 1"), "FQ105", "true or false"),
        (with_job("queue: ''"), "FQ105", "queue must not be empty"),
        ("name: ${{ inputs.q }}\njobs: {a: {call: m:f}}", "FQ105", "under `with`"),
        (with_job("with: {'${{ a }}': 1}"), "FQ105", "key"),
        (with_job("needs: [a, [b]]"), "FQ105", "not a list"),
        (with_job("needs: b, c"), "FQ105", "[b, c]"),
        (with_job("needs: ${{ inputs.x }}"), "FQ105", "write the names out"),
        (with_job("blocks: {b: {on_failure: run}}"), "FQ105", "ignore"),
        (with_job("blocks: {b: {on_error: ignore}}"), "FQ103", "on_failure"),
        (with_job("blocked_by: b", "b: {call: m:f}"), "FQ115", "`needs: b`"),
        (with_job("blocked_by: b", "b: {call: m:f, deferred: false}"), "FQ115", "before b"),
        (with_job("with: {a: *b}"), "FQ112", "no anchor"),
        (with_job("<<: a"), "FQ112", "<<: *NAME"),
        (with_job("<<: [{timeout: 3}, [a]]"), "FQ112", "each item"),
        (with_job("<<: {}\n    <<: {}"), "FQ104", "[*a, *b]"),
        ("defaults: {needs: a}\njobs: {a: {call: m:f}}", "FQ108", "between two jobs"),
        ("defaults: {for_each: [1]}\njobs: {a: {call: m:f}}", "FQ108", "group"),
        ("defaults: {approval: true}\njobs: {a: {call: m:f}}", "FQ108", "about one job"),
        ("defaults: {cdw: x}\njobs: {a: {call: m:f}}", "FQ103", "cwd"),
        (with_job("with: !!python/none {}"), "FQ112", "tag"),
        (with_job("with: {x: " + "9" * 5000 + "}"), "FQ111", "4,000"),
        (with_job("? [x]\n    : 1"), "FQ105", "cannot be a key"),
        (with_job("?\n    : 1"), "FQ105", "key is missing"),
        ("jobs: {a: {call: m:f}, 'b--c': {call: m:f}}", "FQ109", "single -"),
        ("jobs: {a: {call: 'm:f()'}}", "FQ114", "m:f"),
        ("jobs: {a: {call: m}}", "FQ114", "for example"),
        ("inputs: {a: {type: stri}}\njobs: {a: {call: m:f}}", "FQ105", "write str"),
        ("inputs: {a: {pattern: '['}}\njobs: {a: {call: m:f}}", "FQ105", "cannot be used"),
        ("inputs: {a: {type: int, pattern: x}}\njobs: {a: {call: m:f}}", "FQ105", "type: str"),
        ("inputs: [a]\njobs: {a: {call: m:f}}", "FQ105", "map of names"),
        ("inputs: {a: {type: bool, default: maybe}}\njobs: {a: {call: m:f}}", "FQ116", "maybe"),
        ("jobs: {a: {call: m:f}", "FQ102", "opened with {"),
        ("x: %y", "FQ102", "cannot begin with '%'"),
        ("a: | text\n", "FQ102", "begin the text in the next line"),
        ("a: b\n\tc: d\n", "FQ102", "indented with spaces"),
        ("a: |\n\tb\n", "FQ102", "indented with spaces"),
        ("a: 'b\n---\n", "FQ102", "never closed"),
        ("a: 'b' c\n", "FQ102", "put all of it in quotes"),
        ("a: >0\n  b\n", "FQ102", "remove it"),
        ("% x\na: b\n", "FQ102", "cannot begin with '%'"),
        ("a: ? b\n", "FQ102", "put the text in quotes"),
        ("a: !<b c\n", "FQ102", "put the text in quotes"),
        ("shell: sh\njobs: {a: {call: m:f}}", "FQ108", "or under `defaults`"),
        ("needs: b\njobs: {a: {call: m:f}}", "FQ108", "belongs to a job"),
        (with_job("finally: {}"), "FQ108", "belongs to the workflow"),
        (with_job("if: [a]"), "FQ105", "in quotes"),
        (with_job("if: null"), "FQ105", "leave the key out"),
        (with_job("for_each: null"), "FQ105", "write [a, b, c]"),
        (with_job("for_each: true"), "FQ105", "write [a, b, c]"),
        (with_job("matrix: {a: null}"), "FQ105", "write [a, b, c]"),
        ("inputs: {a: {type: int, default: [1]}}\njobs: {a: {call: m:f}}", "FQ116", "not a list"),
        ("a: \ud800", "FQ101", "0xed"),
        ("[", "FQ102", "a value is missing"),
        ("42", "FQ113", "not text"),
    ],
)
def test_a_problem_has_a_code_and_says_what_to_do(text: str, code: str, words: str) -> None:
    (problem,) = problems_of(text)
    assert problem.code == code
    assert words in f"{problem.message} {problem.hint}"
    assert problem.where is not None


def test_blocked_by_an_unknown_job_is_left_to_the_checks_of_the_graph() -> None:
    assert job_of("blocked_by: nobody").blocks == (Block("nobody"),)


def test_a_file_that_cannot_be_read_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, "nul\0.yaml"):
        with pytest.raises(WorkflowNotFound):
            read_workflow(path)


@pytest.mark.parametrize(
    ("data", "line", "column"), [(b"a: 1\nb: \xff", 2, 4), ("jobs: {}".encode("utf-16"), 1, 1)]
)
def test_bytes_that_are_no_utf8_have_a_position(
    tmp_path: Path, data: bytes, line: int, column: int
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    with pytest.raises(WorkflowInvalid) as caught:
        read_workflow(file)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("FQ101", Where(str(file), line, column))


@pytest.mark.parametrize("opening", ["[", "a: {b: ", "? ", "- [", "{a: ["])
def test_a_deep_text_is_refused_at_once(
    opening: str, count_operations: Callable[[Callable[[], object]], int]
) -> None:
    codes: list[str] = []
    operations = count_operations(lambda: codes.extend(codes_of(opening * 100_000)))
    assert set(codes) <= {"FQ111", "FQ102"}
    assert operations < 10_000  # the parser alone would take minutes


def test_aliases_cannot_stand_for_more_than_a_limit() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert codes_of("\n".join(rows)) == ["FQ111"]


def test_text_with_an_expression_in_braces_is_to_be_quoted_whole() -> None:
    problem = problems_of("jobs: {a: {run: echo ${{ inputs.x }}}}")[0]

    assert (problem.code, "the whole text in quotes" in problem.hint) == ("FQ102", True)
    problem = problems_of("jobs: {a: {run: 'echo ${{ inputs.x }}' queue: b}}")[0]
    assert "commas" in problem.hint
