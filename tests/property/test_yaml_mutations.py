"""A workflow text with anything done to it is read or refused, always with a position."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowq.checks import check
from flowq.compiling import compile_plan
from flowq.declare.input_shapes import INPUT
from flowq.declare.keys import JOB, WORKFLOW
from flowq.errors import Problem, WorkflowInvalid
from flowq.graph import build_graph
from flowq.inputs import EXAMPLE_BY_TYPE
from flowq.spec import Workflow
from tests.reading import parse_partly

ROOT = Path(__file__).parents[2]
EVERYTHING = (Path(__file__).parent / "everything.yaml").read_text("utf-8")
TEXTS = [
    *(path.read_text("utf-8") for path in sorted((ROOT / "workflows").glob("*.yaml"))),
    *[EVERYTHING] * 4,
    """\
jobs:
  last: &last
    deferred: true
    call: a.b:c
    with:
      text: "x ${{ inputs.folder }} y ${{ len(jobs.first.result) + 1 }}"
      data: {a: [1, ~, true], "b": |
          several
          lines
        }
  first:
    call: a.b:d
    blocks: last
    with: {again: [*last]}
""",
]
WORDS = [*JOB.keys, *WORKFLOW.keys, *INPUT.keys]
PIECES = [
    *(chr(code) for code in range(32, 127)),
    *("\n", "\t", "\r", "\0", "\x85", "\ufeff", "\ud800", "é", "  ", ": ", "- ", "? ", "${{", "}}"),
    *("&a ", "*a", "<<: ", "!!int ", "---\n", "...\n", "%YAML 9.9\n", "| \n", ">-\n", "''", '"'),
    *("null", "true", ".nan", "1e999", "0x", "jobs", "call", "needs: ", "for_each: ", "[[[[", "{}"),
    *(
        "item",
        "index",
        "matrix.os",
        "result",
        "env.KEY",
        "secrets.KEY",
        "always()",
        "jobs.page.results",
        "20%",
    ),
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            ["delete", "double", "swap", "cut", "insert", "replace", "remove", "rename"]
        ),
        st.floats(0, 0.999),
        st.floats(0, 0.999),
        st.sampled_from([*PIECES, *WORDS]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1_000, deadline=None)
@given(st.sampled_from(TEXTS), EDITS)
def test_a_mutation_is_read_or_refused_with_a_position(
    text: str, edits: list[tuple[str, float, float, str]]
) -> None:
    for edit in edits:
        text = mutate(text, *edit)
    assert_read_or_refused(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@example("!: : ")
def test_rubbish_is_read_or_refused_with_a_position(text: str) -> None:
    assert_read_or_refused(text)


DOCUMENTS = [yaml.safe_load(text) for text in TEXTS[:-1]]
ODD_VALUES = [
    *(None, True, 0, -1, 3.5, float("inf"), float("nan"), 10**3_000, "", "x" * 300, [], {}, [[]]),
    *("${{", "$${{ x }}", "${{ item }}", "${{ [1][5] }}", "${{ 1 // 0 }}", "${{ jobs.a.result }}"),
    *("always()", "failure()", "inputs.x", "a-b", "20%", "2s", "./x.yaml", "m:f", {"a": {"b": []}}),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.randoms(use_true_random=False))
def test_a_document_with_parts_in_wrong_places_is_read_or_refused(
    document: dict[str, Any], dice: random.Random
) -> None:
    document = copy.deepcopy(document)
    for _ in range(dice.randint(1, 4)):
        if places := list(places_in(document)):
            misplace(*dice.choice(places), dice)
    assert_read_or_refused(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or map of a document with each of its keys."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from places_in(node[key])


def misplace(around: Any, key: Any, dice: random.Random) -> None:
    """Change one place of a document: another value, a part of any workflow, nothing, a new key."""
    match dice.randint(0, 3):
        case 0:
            around[key] = copy.deepcopy(dice.choice(ODD_VALUES))
        case 1:
            other, at = dice.choice(list(places_in(dice.choice(DOCUMENTS))))
            around[key] = copy.deepcopy(other[at])
        case 2 if isinstance(around, dict):
            around[dice.choice(WORDS)] = around.pop(key)
        case _:
            del around[key]


def assert_read_or_refused(text: str) -> None:
    try:
        workflow, problems = parse_partly(text, "x.yaml")
        problems += check(workflow, build_graph(workflow))
        if all(problem.severity == "warning" for problem in problems):
            compile_plan(workflow, example_inputs(workflow), imports=False)
    except WorkflowInvalid as invalid:
        problems = [*invalid.problems]
    for problem in problems:
        assert_placed(problem, text)


def example_inputs(workflow: Workflow) -> dict[str, str]:
    """Return a value of each input that has to be given, as somebody would type it."""
    return {
        each.name: (each.choices or (EXAMPLE_BY_TYPE.get(each.type, ""),))[0]
        for each in workflow.inputs
        if each.required
    }


def assert_placed(problem: Problem, text: str) -> None:
    assert problem.where is not None
    lines = text.splitlines() or [""]
    assert 1 <= problem.where.line <= len(lines) + 1
    assert problem.where.column >= 1
    assert problem.message


def mutate(text: str, kind: str, at: float, to: float, piece: str) -> str:
    lines = text.split("\n")
    line, other = int(at * len(lines)), int(to * len(lines))
    place = int(at * len(text))
    if kind == "delete":
        del lines[line]
    elif kind == "double":
        lines.insert(other, lines[line])
    elif kind == "swap":
        lines[line], lines[other] = lines[other], lines[line]
    elif kind == "cut":
        lines[line] = lines[line][int(to * len(lines[line])) :]
    elif kind == "rename":  # one key becomes another that the language has
        lines[line] = re.sub(r"[a-z_]+(?=:)", lambda _: piece.strip(), lines[line], count=1)
    elif kind == "insert":
        return text[:place] + piece + text[place:]
    elif kind == "replace":
        return text[:place] + piece + text[place + 1 :]
    else:
        return text[:place] + text[place + 1 :]
    return "\n".join(lines)
