"""What is wrong with the text and what is wrong with the graph are reported in one round.

What could not be read is known to be there, so nothing is said of what it would have told.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq.checks import check
from flowq.compiling import load
from flowq.declare.nodes import MapNode, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.yaml_text import read_document
from flowq.errors import Problem, WorkflowInvalid
from flowq.graph import build_graph
from tests.reading import parse_partly

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "workflows").glob("*.yaml")), ROOT / "tests/property/everything.yaml"]


@pytest.fixture
def problems_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`problems_of(text, **others)`: what `load` says of a file, with other files beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def find(text: str, **others: str) -> list[Problem]:
        for name, other in others.items():
            (tmp_path / f"{name}.yaml").write_text(textwrap.dedent(other), encoding="utf-8")
        file = tmp_path / "main.yaml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        with pytest.raises(WorkflowInvalid) as caught:
            load(str(file), imports=True)
        return list(caught.value.problems)

    return find


@pytest.fixture
def codes_of(problems_of):
    """`codes_of(text, **others)`: the line and the code of each problem, in order."""

    def find(text: str, **others: str) -> list[str]:
        found = problems_of(text, **others)
        return [f"{each.where.line}:{each.code}" for each in found if each.where]

    return find


JOB = "call: os.path:basename, with: {p: x}"


def test_problems_of_the_text_of_the_graph_and_of_functions_come_together(codes_of) -> None:
    assert codes_of(
        f"""\
        jobs:
          a: {{{JOB}, timeuot: 3}}
          b: {{{JOB}, needs: nobody}}
          c: {{call: os.path:basename, needs: d}}
          d: {{call: os.path:base_name, needs: c}}
          e: {{{JOB}, if: 'inputs.x &&'}}
        """
    ) == ["2:FQ103", "3:FQ201", "4:FQ504", "4:FQ203", "5:FQ501", "6:FQ301", "6:FQ205"]


def test_a_job_that_could_not_be_read_is_known_by_its_name(codes_of) -> None:
    assert codes_of(
        f"""\
        jobs:
          a: os.path:basename
          b:
          c: {{{JOB}, needs: [a, b, d], if: jobs.a.result}}
        """
    ) == ["2:FQ105", "3:FQ106", "4:FQ201"]


def test_what_is_right_of_a_job_with_a_problem_is_checked_too(codes_of) -> None:
    assert codes_of(
        """\
        jobs:
          a:
            call: os.path:basename
            timeuot: 3
            needs: nobody
            with: {p: "${{ jobs.none.result }}", y: "${{ inputs.z }}", q: "${{ a && b }}"}
        """
    ) == ["4:FQ103", "5:FQ201", "6:FQ204", "6:FQ503", "6:FQ205", "6:FQ503", "6:FQ301"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("a: {run: x, for_eech: [1], env: {A: '${{ item }}'}}", ["FQ103"]),
        ("a: {run: x, matrix: 3, env: {A: '${{ matrix.os }}'}}", ["FQ105"]),
        ("a: {run: x, for_each: 3}\nb: {run: y, env: {A: '${{ jobs.a.results }}'}}", ["FQ105"]),
        ("a: {run: x, deferred: true}\nb: {run: y, block: a}", ["FQ103"]),
        ("a: {run: x, deferred: true}\nb: {run: y, blocks: {a: x}}", ["FQ105"]),
        ("a: {run: x, matrix: {os: linux}}", ["FQ105"]),
        ("a: {cal: os.path:basename}", ["FQ504", "FQ103"]),
        ("a: {call: os.path:basename, with_: {p: x}}", ["FQ103"]),
        ("a: {call: os.path.basename}", ["FQ114"]),
        ("a-: {run: x}\na b: {run: y}", ["FQ109"]),
        ("a: {<<: x}", ["FQ106", "FQ112"]),
        ("a: {<<: {run: x, nedes: b}}", ["FQ103", "FQ201"]),
        ("a: {run: x}\na: {run: y, blocks: b}\nb: {run: z, deferred: true}", ["FQ104"]),
        ("a: {workflow: 3.yaml}\nb: {workflow: 3.yaml}", ["FQ119"]),
        ("a: {run: x, on_blocker_failure: run, nedes: b}", ["FQ103", "FQ201"]),
    ],
)
def test_nothing_is_missed_that_could_not_be_read(codes_of, text: str, codes: list[str]) -> None:
    found = codes_of(f"jobs:\n{textwrap.indent(text, '  ')}\n")
    assert [each.partition(":")[2] for each in found] == codes


def keys_of(node: MapNode) -> Iterator[ScalarNode]:
    """Yield the keys of a workflow, of its inputs, and of its jobs."""
    yield from node.key_by_key.values()
    for section in ("inputs", "jobs"):
        entries = node.node_by_key.get(section)
        for entry in entries.node_by_key.values() if isinstance(entries, MapNode) else ():
            yield from entry.key_by_key.values() if isinstance(entry, MapNode) else ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_key_with_a_wrong_name_is_one_problem_whatever_it_would_have_told(file: Path) -> None:
    text = file.read_text("utf-8")
    document = read_document(text, Problems("x"))
    assert isinstance(document, MapNode)
    lines = text.split("\n")
    for key in keys_of(document):
        line, at = lines[key.line - 1], key.column - 1
        renamed = [*lines]
        renamed[key.line - 1] = f"{line[:at]}zzzz{line[at + len(key.text) :]}"
        assert (key.text, *codes_in("\n".join(renamed), file)) == (
            key.text,
            *(["FQ106"] if key.text == "jobs" else []),
            f"FQ103 in line {key.line}",
        )


def codes_in(text: str, file: Path) -> list[str]:
    workflow, problems = parse_partly(text, str(file))
    problems += [p for p in check(workflow, build_graph(workflow)) if p.severity == "error"]
    return [
        each.code if each.code == "FQ106" else f"{each.code} in line {each.where.line}"
        for each in problems
        if each.where
    ]


@pytest.mark.parametrize("inputs", ["inputs: [a]", "input: {a: {}}", "inputs: {a b: 1, a: {}}"])
def test_nothing_is_missed_of_inputs_that_could_not_be_read(codes_of, inputs: str) -> None:
    found = codes_of(f"{inputs}\njobs: {{a: {{run: 'x ${{{{ inputs.a }}}}'}}}}\n")
    assert {each.partition(":")[0] for each in found} == {"1"}


def test_warnings_wait_until_all_can_be_read(codes_of) -> None:
    text = "inputs: {a: {}}\njobs: {b: {run: x, max_parallel: 2, on_blocker_failure: run%s}}\n"
    assert codes_of(text % ", timeuot: 3") == ["2:FQ103"]


def test_the_problems_of_other_files_come_behind_those_of_the_first(problems_of) -> None:
    found = problems_of(
        """\
        jobs:
          a: {workflow: ./a_first.yaml, with: {x: 1, y: [2]}}
          b: {run: y, env: {A: "${{ jobs.a.result.z }}"}}
          c: {run: y, needs: nobody}
        """,
        a_first="""\
        inputs: {y: {}, u: int}
        outputs: {z: '${{ jobs.one.result }}'}
        jobs:
          one: {run: x, needs: two, timeuot: 3}
        """,
    )
    where = [(Path(each.where.file).stem, each.where.line, each.code) for each in found]
    assert where == [
        ("main", 2, "FQ218"),
        ("main", 2, "FQ218"),
        ("main", 4, "FQ201"),
        ("a_first", 1, "FQ105"),
        ("a_first", 4, "FQ201"),
        ("a_first", 4, "FQ103"),
    ]


def test_a_text_that_is_no_yaml_has_that_problem_alone(codes_of) -> None:
    assert codes_of("jobs:\n  a: {run: x, needs: b\n") == ["2:FQ102"]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("for_each: inptus.photos", "FQ302"),
        ("with: {x: [{y: '${{ a && b }}'}]}", "FQ301"),
        ("matrix: {a: [1], include: [{a: '${{ x }}'}]}", "FQ302"),
        ("env: {A: 'x ${{ '}", "FQ301"),
    ],
)
def test_an_expression_that_cannot_be_read_is_found_where_it_stands(codes_of, key, code) -> None:
    what = "call: os.path:basename" if key.startswith("with") else "run: x"
    assert f"4:{code}" in codes_of(f"jobs:\n  a:\n    {what}\n    {key}\n    nedes: b\n")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("a: {run: x, timeout: 3 x, env: {A: '${{ item }}'}}", ["FQ110", "FQ213"]),
        ("a: {run: x, retries: -1, matrix: {os: [1]}, cwd: '${{ matrix.o }}'}", ["FQ105", "FQ216"]),
        ("a: {timeout: x, needs: []}", ["FQ106", "FQ110"]),
        ("a: {run: [], call: 'os:getcwd'}", ["FQ105", "FQ117"]),
        ("a: {call: os.path:basename, queue: []}", ["FQ504", "FQ105"]),
        ("a: {run: x, for_each: 3, key: 1 +}", ["FQ105", "FQ301"]),
        ("a: {call: os.path:basename, with: {p: *x, q: 1}}", ["FQ112", "FQ503"]),
        ("a: {run: x, nedes: nobody}", ["FQ103", "FQ201"]),
        ("a: {run: x, timeuot: soon}", ["FQ103", "FQ110"]),
        ("a: {run: x, max_parallel: 0, if: 'success() and inputs.x'}", ["FQ105", "FQ205"]),
    ],
)
def test_a_bad_value_hides_no_problem_beside_it(codes_of, text: str, codes: list[str]) -> None:
    found = codes_of(f"jobs:\n{textwrap.indent(text, '  ')}\n")
    assert [each.partition(":")[2] for each in found] == codes


def test_a_second_document_hides_nothing_of_the_first(codes_of) -> None:
    assert codes_of("jobs: {a: {run: x, needs: b}}\n---\njobs: {}\n") == ["1:FQ201", "2:FQ113"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("inputs: {n: int}\njobs: {a: {run: 'x ${{ inputs.n }}'}}\n", "write n: {type: int}"),
        ("inputs: {n: string}\njobs: {a: {run: 'x ${{ inputs.n }}'}}\n", "write n: {type: str}"),
        ("jobs: {a: {run: x}, b: {run: 'y ${{ a.result }}'}}\n", "write jobs.a.result"),
        ("inputs: {n: {}}\njobs: {b: {run: 'y ${{ n }} ${{ inputs.n }}'}}\n", "write inputs.n"),
    ],
)
def test_advice_names_what_was_meant(text: str, hint: str) -> None:
    workflow, problems = parse_partly(text, "main.yaml")
    (problem,) = [*problems, *check(workflow, build_graph(workflow))]
    assert hint in problem.hint


def test_names_in_one_text_are_checked_too(codes_of) -> None:
    assert codes_of("jobs: {a: {run: x}, b: {run: y, needs: 'a, c'}}\n") == ["1:FQ105", "1:FQ201"]
