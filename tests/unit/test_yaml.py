"""The YAML front: what a text means, and where its problems are."""

from __future__ import annotations

import math
import pickle
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from flowq.declare.problems import RULES
from flowq.declare.scalars import resolve
from flowq.declare.yaml import parse_workflow, read_workflow
from flowq.errors import Problem, Where, WorkflowInvalid, WorkflowNotFound
from flowq.spec import Block, Defaults, Input, JobSpec, Retry, Workflow

GALLERY = """\
name: gallery
description: Thumbnails of a folder
inputs:
  folder: {type: path, default: photos}
  size: {type: int, description: Of the longer side}
defaults: {queue: images, timeout: 10m, retries: 1}
jobs:
  gallery:
    deferred: true
    call: gallery.tasks:build_page
    with:
      title: Holidays
      photos: ${{ jobs.list_photos.result }}
    on_blocker_failure: run
  list_photos:
    call: gallery.tasks:list_photos
    with: {folder: "${{ inputs.folder }}"}
    blocked_by: gallery
    timeout: 30s
    retries: {max: 3, backoff: 2s}
    queue: fast
    description: Look into the folder
  publish:
    needs: [gallery]
    call: gallery.tasks:publish
"""


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


# What a text means


def test_a_workflow_is_read_whole() -> None:
    assert parse_workflow(GALLERY, "gallery.yaml") == Workflow(
        name="gallery",
        description="Thumbnails of a folder",
        inputs=(
            Input("folder", "path", "photos", required=False),
            Input("size", "int", description="Of the longer side"),
        ),
        defaults=Defaults("images", 600, Retry(1)),
        jobs=(
            JobSpec(
                "gallery",
                "gallery.tasks:build_page",
                {"title": "Holidays", "photos": "${{ jobs.list_photos.result }}"},
                deferred=True,
                on_blocker_failure="run",
            ),
            JobSpec(
                "list_photos",
                "gallery.tasks:list_photos",
                {"folder": "${{ inputs.folder }}"},
                blocks=(Block("gallery"),),
                queue="fast",
                timeout_s=30,
                retries=Retry(3, 2),
                description="Look into the folder",
            ),
            JobSpec("publish", "gallery.tasks:publish", needs=("gallery",)),
        ),
    )


def test_a_workflow_survives_pickle_with_its_positions() -> None:
    workflow = parse_workflow(GALLERY, "gallery.yaml")
    again = pickle.loads(pickle.dumps(workflow))
    assert again == workflow
    assert again.places.find("jobs", "publish") == Where("gallery.yaml", 23, 3)


def test_the_name_is_the_stem_and_the_folder_is_absolute(tmp_path: Path) -> None:
    file = tmp_path / "nightly.flow.yaml"
    file.write_text("jobs: {a: {call: m:f}}", "utf-8")
    workflow = read_workflow(file)
    assert workflow.name == "nightly.flow"
    assert workflow.folder == str(tmp_path)
    assert parse("jobs: {a: {call: m:f}}").folder == str(Path.cwd())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("3.10", 3.1),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-1", -1),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("-", "-"),
        ("1.2.3", "1.2.3"),
        ("'3.10'", "3.10"),
        ('"true"', "true"),
        ("!!str 3.10", "3.10"),
    ],
)
def test_scalars_mean_what_they_say(text: str, value: Any) -> None:
    found = job_of(f"with:\n      x: {text}").with_["x"] if text != "-" else resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(job_of("with: {x: .nan}").with_["x"])


def test_where_text_is_wanted_a_number_keeps_its_text() -> None:
    workflow = parse(
        """\
        name: 3.10
        description: 0777
        inputs:
          version: {default: 3.10}
          python: {choices: [3.10, 3.9], default: 3.10}
          on: {type: path, default: 007}
        jobs:
          no: {call: m:f, queue: 1.0, with: {1: a, 3.10: b, true: c}}
        """
    )
    assert (workflow.name, workflow.description) == ("3.10", "0777")
    assert [one.default for one in workflow.inputs] == ["3.10", "3.10", "007"]
    assert workflow.inputs[1].choices == ("3.10", "3.9")
    assert workflow.jobs[0].name == "no"
    assert workflow.jobs[0].queue == "1.0"
    assert workflow.jobs[0].with_ == {"1": "a", "3.10": "b", "true": "c"}


def test_arguments_are_plain_data_and_aliases_repeat_them() -> None:
    job = job_of("with: {a: &x [1, {b: null}], c: *x, d: {}, e: []}")
    assert job.with_ == {"a": [1, {"b": None}], "c": [1, {"b": None}], "d": {}, "e": []}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("90", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert job_of(f"timeout: {text}").timeout_s == seconds
    assert job_of(f"retries: {{max: 1, backoff: {text}}}").retries == Retry(1, seconds)


@pytest.mark.parametrize("text", ["needs: b", "needs: [b]", "needs: [b, b]", "needs:\n      - b"])
def test_needs_is_a_name_or_a_list(text: str) -> None:
    assert job_of(text, "b: {call: m:f}").needs == ("b",)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("blocks: b", (Block("b"),)),
        ("blocks: [b, c]", (Block("b"), Block("c"))),
        ("blocks: {b: {on_failure: ignore}, c: }", (Block("b", "ignore"), Block("c"))),
        ("blocks: [b]\n    blocked_by: c", (Block("b"), Block("c"))),
        ("blocks: b\n    blocked_by: [b]", (Block("b"),)),
        ("blocks: b\n    blocked_by: {b: {on_failure: ignore}}", (Block("b", "ignore"),)),
        ("blocks: {b: {on_failure: ignore}}\n    blocked_by: b", (Block("b", "ignore"),)),
        ("blocks:", ()),
    ],
)
def test_blocks_and_blocked_by_are_one(text: str, blocks: tuple[Block, ...]) -> None:
    others = "b: {call: m:f, deferred: true}\nc: {call: m:f, deferred: true}"
    assert job_of(text, others).blocks == blocks


def test_inputs_are_required_unless_they_say_otherwise() -> None:
    workflow = parse(
        """\
        inputs:
          a:
          b: {default: null}
          c: {required: false, type: int}
          d: {required: true}
          e: {type: json, default: {x: [1, 2.5, "${"]}}
          f: {type: list, default: "a, b"}
          g: {type: float, default: 1}
        jobs: {a: {call: m:f}}
        """
    )
    assert workflow.inputs == (
        Input("a"),
        Input("b", required=False),
        Input("c", "int", required=False),
        Input("d"),
        Input("e", "json", {"x": [1, 2.5, "${"]}, required=False),
        Input("f", "list", ["a", "b"], required=False),
        Input("g", "float", 1.0, required=False),
    )


def test_descriptions_may_show_what_an_expression_looks_like() -> None:
    assert job_of("description: uses ${{ inputs.x }}").description == "uses ${{ inputs.x }}"
    assert job_of("description:").description == ""


def test_a_byte_order_mark_and_carriage_returns_are_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfjobs:\r\n  a:\r\n    call: m:f\r\n")
    assert read_workflow(file).places.find("jobs", "a", "call") == Where(str(file), 3, 11)


# Positions


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ((), 1, 1),
        (("name",), 1, 7),
        (("inputs", "size"), 5, 9),
        (("inputs", "size", "type"), 5, 16),
        (("jobs", "gallery"), 8, 3),
        (("jobs", "gallery", "call"), 10, 11),
        (("jobs", "gallery", "with"), 11, 5),
        (("jobs", "gallery", "with", "photos"), 13, 15),
        (("jobs", "list_photos", "with", "folder"), 17, 20),
        (("jobs", "publish", "needs", 0), 24, 13),
        (("jobs", "publish", "needs", 7), 24, 12),
        (("jobs", "publish", "nowhere"), 23, 3),
    ],
)
def test_everything_has_a_position(path: tuple[str | int, ...], line: int, column: int) -> None:
    places = parse_workflow(GALLERY, "g.yaml").places
    assert places.find(*path) == Where("g.yaml", line, column)


def test_positions_are_a_mapping_of_what_was_written() -> None:
    positions = parse("jobs: {a: {call: m:f, needs: [b]}, b: {call: m:f}}").places.where_by_path
    assert list(positions) == [
        (),
        ("jobs",),
        ("jobs", "a"),
        ("jobs", "a", "call"),
        ("jobs", "a", "needs"),
        ("jobs", "a", "needs", 0),
        ("jobs", "b"),
        ("jobs", "b", "call"),
    ]
    assert len(positions) == 8
    assert ("jobs", "a", "needs", 1) not in positions


def test_a_problem_of_a_key_points_to_the_key_and_one_of_a_value_to_the_value() -> None:
    unknown, wrong = problems_of(with_job("timeuot: 3\n    timeout: soon"))
    assert unknown.where == Where("flow.yaml", 4, 5)
    assert wrong.where == Where("flow.yaml", 5, 14)


def test_a_column_counts_characters() -> None:
    (problem,) = problems_of("jobs: {a: {call: m:f, with: {é: 'ü', x: '${{ ö }}'}}}")
    assert problem.where == Where("flow.yaml", 1, 41)


# Problems


def test_all_problems_are_reported_at_once_in_the_order_of_the_text() -> None:
    found = problems_of(
        """\
        nmae: x
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
        (with_job("for_each: [1]"), "FQ107", "not supported yet"),
        (with_job("call: m:g"), "FQ104", "line 3"),
        (with_job("with: {a: 1, a: 2}"), "FQ104", "second time"),
        (with_job("timeout: 10 minutes"), "FQ110", "10m"),
        (with_job("timeout: .inf"), "FQ110", "duration"),
        (with_job("timeout: true"), "FQ110", "duration"),
        (with_job("timeout: 99999d"), "FQ110", "3650d"),
        (with_job("retries: true"), "FQ105", "not true"),
        (with_job("retries: 1.5"), "FQ105", "not 1.5"),
        (with_job("deferred: 1"), "FQ105", "true or false"),
        (with_job("queue: ''"), "FQ105", "not ''"),
        (with_job("queue: ${{ inputs.q }}"), "FQ105", "under `with`"),
        (with_job("with: {x: '${{ inptus.a }}'}"), "FQ302", "did you mean 'inputs'?"),
        (with_job("with: {x: [{y: '${{ a && b }}'}]}"), "FQ301", "`and`"),
        (with_job("with: {'${{ a }}': 1}"), "FQ105", "key"),
        (with_job("needs: [a, [b]]"), "FQ105", "not a list"),
        (with_job("needs: b, c"), "FQ105", "[b, c]"),
        (with_job("blocks: {b: {on_failure: run}}"), "FQ105", "ignore"),
        (with_job("blocks: {b: {on_error: ignore}}"), "FQ103", "on_failure"),
        (with_job("blocked_by: b", "b: {call: m:f}"), "FQ115", "`needs: b`"),
        (with_job("blocked_by: b", "b: {call: m:f, deferred: false}"), "FQ115", "before b"),
        (with_job("with: {a: *b}"), "FQ112", "no anchor"),
        (with_job("<<: {a: 1}"), "FQ112", "YAML 1.2"),
        (with_job("with: !!python/none {}"), "FQ112", "tag"),
        (with_job("with: {x: " + "9" * 5000 + "}"), "FQ111", "4,000"),
        (with_job("? [x]\n    : 1"), "FQ105", "cannot be a key"),
        (with_job("?\n    : 1"), "FQ105", "key is missing"),
        ("jobs: {a: {call: m:f}, 'b--c': {call: m:f}}", "FQ109", "single -"),
        ("jobs: {a: {call: 'm:f()'}}", "FQ114", "m:f"),
        ("jobs: {a: {call: m}}", "FQ114", "for example"),
        ("inputs: {a: {type: strng}}\njobs: {a: {call: m:f}}", "FQ105", "write str"),
        ("inputs: {a: {pattern: x}}\njobs: {a: {call: m:f}}", "FQ107", "pattern"),
        ("inputs: [a]\njobs: {a: {call: m:f}}", "FQ105", "map of names"),
        ("inputs: {a: {type: bool, default: maybe}}\njobs: {a: {call: m:f}}", "FQ116", "maybe"),
        ("jobs: {a: {call: m:f}", "FQ102", "opened with {"),
        ("x: %y", "FQ102", "cannot begin with '%'"),
        ("a: \ud800", "FQ101", "U+D800"),
        ("[", "FQ102", "a value is missing"),
        ("42", "FQ113", "not 42"),
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
def test_a_deep_text_is_refused_at_once(opening: str) -> None:
    begin = time.perf_counter()
    assert set(codes_of(opening * 100_000)) <= {"FQ111", "FQ102"}
    assert time.perf_counter() - begin < 2  # the parser alone would take minutes


def test_aliases_cannot_stand_for_more_than_a_limit() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert codes_of("\n".join(rows)) == ["FQ111"]


def test_every_code_has_one_line() -> None:
    assert all(code.startswith("FQ1") and "\n" not in title for code, title in RULES.items())
