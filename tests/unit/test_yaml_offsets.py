"""A problem within a text points to the line and the column where it is in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from flowq.compiling import compile_plan, find_problems
from flowq.declare.positions import find_offsets
from flowq.declare.yaml import read_workflow
from flowq.errors import Problem, WorkflowInvalid
from tests.reading import parse_workflow

_FRAME = "jobs:\n  a:\n    run: {}\n"


def places_of(text: str, name: str = "inputs.nope") -> list[tuple[int, int]]:
    """Return the positions of the problems of a text, and where the name is in it."""
    found = find_problems(parse_workflow(text, "flow.yaml"), imports=False)
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    stands = [
        (number, line.index(name, at) + 1)
        for number, line in enumerate(lines, 1)
        for at in _starts(line, name)
    ]
    told = [(each.where.line, each.where.column) for each in found if each.where]
    assert told == stands, [str(each) for each in found]
    return told


def _starts(line: str, name: str) -> list[int]:
    return [at for at in range(len(line)) if line.startswith(name, at)]


@pytest.mark.parametrize(
    "text",
    [
        "|\n      echo one\n      echo ${{ inputs.nope }}\n",
        "|-\n      echo one\n\n\n      echo ${{ inputs.nope }}\n\n",
        "|+\n\n      echo one\n        echo ${{ inputs.nope }}\n\n\n",
        "|2\n        echo one\n      echo ${{ inputs.nope }}\n",
        "|3-  # a comment\n        \techo ${{ inputs.nope }}\n",
        ">\n      echo one\n      two\n\n      three ${{ inputs.nope }}\n",
        ">-\n      echo one\n        two\n\n      three\n      ${{ inputs.nope }}\n",
        '"echo \\"one\\" \\\n      \\u00e9 ${{ inputs.nope }}"',
        '"echo one\n\n      \\x41 ${{ inputs.nope }}"',
        "'echo ''its''\n      ${{ inputs.nope }}'",
        "echo one\n      two ${{ inputs.nope }}",
        "&text |\n      echo ${{ inputs.nope }}\n",
        "!!str |\n      echo ${{ inputs.nope }}\n",
        "|\n      echo \t${{ inputs.nope }}\n",
        "|\n      echo 漢字 e\u0301 😀 ${{ inputs.nope }}\n",
        "|\n      e ${{ inputs.nope }} '$${{' ${{ inputs.nope }}\n      a ${{ inputs.nope }}\n",
        "|\n      a ${{ 'inputs.x' ~\n          inputs.nope }}\n",
    ],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_name_in_a_command_is_found_in_every_style(text: str, line_break: str, mark: str) -> None:
    assert places_of(mark + _FRAME.format(text).replace("\n", line_break))


@pytest.mark.parametrize(
    "text",
    [
        "jobs: {a: {call: m:f, with: {x: [1, 'é ${{ inputs.nope }}']}}}",
        'jobs: {"a": {"call": "m:f", "env": {"A": "${{ inputs.nope | upper }}"}}}',
        "jobs:\n  a:\n    call: m:f\n    if: run.id == 'a' and\n      inputs.nope\n",
        "jobs:\n  a:\n    call: m:f\n    for_each: >-\n      ${{ inputs.nope\n      | sort }}\n",
        "jobs:\n  a:\n    call: m:f\n    matrix:\n      x: [1]\n      include: [{x: 2, y: "
        "'${{ inputs.nope }}'}]\n",
        "outputs:\n  x: |\n    ${{ inputs.nope }}\njobs: {a: {call: m:f}}\n",
        "concurrency: {group: 'g-${{ inputs.nope }}'}\njobs: {a: {call: m:f}}\n",
        "jobs: {b: {workflow: n}}\nworkflows:\n  n:\n    jobs:\n      a:\n        run: |\n"
        "          echo ${{ inputs.nope }}\n",
    ],
)
def test_a_name_is_found_wherever_expressions_stand(text: str) -> None:
    assert places_of(text)


def test_a_text_behind_an_alias_is_pointed_to_where_it_is_written() -> None:
    text = "env: {X: &x 'a ${{ inputs.nope }}'}\njobs:\n  a: {call: m:f, with: {x: *x}}\n"
    found = find_problems(parse_workflow(text, "flow.yaml"), imports=False)
    assert [str(each.where) for each in found] == ["flow.yaml:1:20"] * 2


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("${{ nope }}", "nope"),
        ("${{ 1 | nope }}", "nope"),
        ("${{ nope(1) }}", "nope"),
        ("${{ 1 is nope }}", "nope"),
        ("${{ inputs['nope'] }}", "inputs['nope']"),
        ("${{ jobs.nope.result }}", "jobs.nope"),
        ("${{ jobs['no-pe'].result }}", "jobs['no-pe']"),
        ("${{ jobs.no-pe.result.x }}", "jobs.no-pe"),
        ("${{ jobs.a.results }}", "jobs.a"),
        ("${{ jobs.a.outputs }}", "jobs.a"),
        ("${{ run.nope }}", "run.nope"),
        ("${{ matrix.x }}", "matrix.x"),
        ("${{ item }}", "item"),
        ("${{ failure() }}", "failure"),
        ("${{ cancelled() }}", "${{ cancelled"),
        ("${{ 1 + }}", "${{ 1 + }}"),
        ("${{ 1 / 0 }}", "${{ 1"),
        ("${{ 'a' && 'b' }}", "${{ 'a'"),
        ("${{ 'a", "${{ 'a"),
    ],
)
def test_what_is_wrong_with_an_expression_is_pointed_to(expression: str, names: str) -> None:
    run = f"|\n      echo one\n      echo {expression}\n"
    text = f"jobs:\n  a: {{call: m:f}}\n  b:\n    needs: a\n    run: {run}"
    found = find_problems(parse_workflow(text, "flow.yaml"), imports=False)
    column = len("      echo ") + expression.index(names) + 1
    assert {str(each.where) for each in found} == {f"flow.yaml:7:{column}"}


def test_quotes_are_pointed_to_at_the_expression_that_stands_in_them() -> None:
    text = _FRAME.format("|\n      echo ${{ run.id }}\n      echo '${{ run.id }}'\n")
    (problem,) = find_problems(parse_workflow(text, "flow.yaml"), imports=False)
    assert (problem.code, str(problem.where)) == ("FQ228", "flow.yaml:5:13")


def test_an_expression_that_is_not_closed_hides_no_other() -> None:
    text = _FRAME.format("|\n      echo ${{ inputs.nope }}\n      echo ${{ inputs.x }\n")
    found = find_problems(parse_workflow(text, "flow.yaml"), imports=False)
    assert [(each.code, str(each.where)) for each in found] == [
        ("FQ205", "flow.yaml:4:16"),
        ("FQ301", "flow.yaml:5:12"),
        ("FQ205", "flow.yaml:5:16"),
    ]


def test_values_that_fail_when_a_run_is_planned_are_all_found_where_they_stand() -> None:
    text = (
        "inputs: {n: {type: int}}\njobs:\n  a:\n    run: ls\n    cwd: |\n"
        "      one/${{ 1 / inputs.n }}\n    env:\n      A: ${{ 2 / inputs.n }}\n"
        "      B: >-\n        ${{ 3 / inputs.n }}\n"
    )
    with pytest.raises(WorkflowInvalid) as caught:
        compile_plan(parse_workflow(text, "flow.yaml"), {"n": 0})
    assert [str(each.where) for each in caught.value.problems] == [
        "flow.yaml:6:11",
        "flow.yaml:8:10",
        "flow.yaml:10:9",
    ]


def test_a_file_with_a_mark_and_carriage_returns_has_the_same_positions(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    text = _FRAME.format("|\r\n      echo one\r\n      echo ${{ inputs.nope }}\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\n").replace("\n", "\r\n").encode())
    (problem,) = find_problems(read_workflow(file), imports=False)
    assert problem.where
    assert (problem.where.line, problem.where.column) == (5, 16)


# Any scalar.


_ATOMS = ["a", "é", "漢", "e\u0301", " ", "  ", "\n", "\n\n", "\n  ", "${{ x }}", "'", '"', "\\"]
_TEXTS = st.lists(st.sampled_from([*_ATOMS, "\t", ":x", "#", "-", "😀", " \n"]), max_size=12)


@given(
    st.builds("".join, _TEXTS),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.fixed_dictionaries(
        {
            "allow_unicode": st.booleans(),
            "width": st.sampled_from([10, 20, 80]),
            "line_break": st.sampled_from(["\n", "\r\n", "\r"]),
            "indent": st.sampled_from([2, 4, 7]),
        }
    ),
)
@example(" a\n b\n\n", "|", {"indent": 4})
def test_each_character_of_a_scalar_is_found_in_its_text(
    value: str, style: str | None, options: dict[str, Any]
) -> None:
    text = yaml.dump({"k": {"x": [value, 1]}}, default_style=style, **options)
    events = (event for event in yaml.parse(text) if isinstance(event, yaml.ScalarEvent))
    for event in events:
        offsets = find_offsets(text, event.start_mark.index, event.value)
        assert offsets is not None
        for character, index in zip(event.value, offsets, strict=True):
            assert text[index] == character or text[index] in "\\\r\n"


def test_a_text_with_very_many_problems_is_read_in_time() -> None:
    run = "".join(f"      echo ${{{{ inputs.n{n} }}}} >x\n" for n in range(500))
    problems: list[Problem] = find_problems(
        parse_workflow(_FRAME.format("|\n" + run), "flow.yaml"), imports=False
    )
    assert [each.where.line for each in problems if each.where] == list(range(4, 504))
