"""The YAML front: what a text means, and where its problems are."""

from __future__ import annotations

import math
import pickle
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from flowq.checks import check
from flowq.declare import python
from flowq.declare.nodes import resolve
from flowq.declare.yaml import read_workflow
from flowq.errors import Where, WorkflowInvalid
from flowq.graph import build_graph
from flowq.spec import Block, Defaults, Input, JobSpec, Retry, Workflow
from tests.reading import parse_partly, parse_workflow

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


def with_job(keys: str, others: str = "") -> str:
    return f"jobs:\n  a:\n    call: m:f\n    {keys}\n{textwrap.indent(others, '  ')}"


def job_of(keys: str, others: str = "") -> JobSpec:
    return parse(with_job(keys, others)).jobs[0]


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


# finally -----------------------------------------------------------------------------------------


def test_jobs_under_finally_are_jobs_and_have_their_places() -> None:
    text = "jobs:\n  a: {run: make}\nfinally:\n  end:\n    run: ls\n    if: run.status == 'x'\n"
    workflow = parse_workflow(text, "f.yaml")
    assert [(job.name, job.is_final) for job in workflow.jobs] == [("a", False), ("end", True)]
    where = workflow.places.find("jobs", "end", "if")
    assert where is not None
    assert (where.line, where.column) == (6, 9)


@pytest.mark.parametrize(
    ("finally_", "code"),
    [
        ("[a]", "FQ105"),
        ("{end: {run: ls, ru: x}}", "FQ103"),
        ("{end: }", "FQ106"),
        ("{end: {run: ls, at_front: 3}}", "FQ105"),
    ],
)
def test_what_is_wrong_under_finally_is_told(finally_: str, code: str) -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        parse_workflow(f"jobs:\n  a: {{run: make}}\nfinally: {finally_}\n", "f.yaml")
    assert code in {problem.code for problem in caught.value.problems}


def test_an_empty_finally_is_none() -> None:
    assert len(parse_workflow("jobs: {a: {run: make}}\nfinally:\n", "f.yaml").jobs) == 1


MERGED = """\
x-base: &base {retries: 3, timeout: half, x-note: seen by nobody}
x-more: &more {timeout: 5s, env: {A: ${{ inputs.none }}}}
jobs:
  a: {<<: *base, run: x}
  b: {<<: [*more, *base], run: x, cwd: y}
  c:
    <<: *base
    run: x
    timeout: 1s
"""


def test_a_merge_takes_over_what_a_map_has_not_and_the_first_of_several_wins() -> None:
    workflow, problems = parse_partly(MERGED.replace("{A: ${{ inputs.none }}}", "{A: b}"), "x.yaml")
    a, b, c = workflow.jobs
    assert (a.retries, b.retries, c.retries) == (Retry(3), Retry(3), Retry(3))
    assert (b.timeout_s, b.env, b.cwd, c.timeout_s) == (5, {"A": "b"}, "y", 1)
    assert [str(problem) for problem in problems] == [
        "x.yaml:1:37: FQ110 timeout must be a duration, not 'half'\n"
        "    write it as 500ms, 30s, 10m, 2h, 1d, or in seconds\n"
        "    merged in line 4"
    ]


def test_a_problem_in_merged_text_is_told_once_with_all_lines_that_merge_it() -> None:
    text = MERGED.replace("5s", "5 bananas").replace("${{ inputs.none }}", "'${{ inputs.none }}'")
    workflow, problems = parse_partly(text.replace("timeout: 1s", "description: x"), "x.yaml")
    assert [(p.where, p.where.merged_in) for p in problems if p.where] == [
        (Where("x.yaml", 1, 37), (4, 7)),
        (Where("x.yaml", 2, 25), (5,)),
    ]
    (unknown,) = check(workflow, build_graph(workflow))
    assert (unknown.where, unknown.code) == (Where("x.yaml", 2, 50), "FQ205")
    assert str(unknown).endswith("merged in line 5")


@pytest.mark.parametrize(
    "bomb", ["{{<<: *a{0}, a: *a{0}, b: *a{0}}}", f"{'[' * 40}*a{{0}}{']' * 40}"]
)
def test_merges_and_deep_aliases_stay_bounded(bomb: str) -> None:
    keys = "".join(f"x-{i}: &a{i} {bomb.format(i - 1)}\n" for i in range(1, 40))
    with pytest.raises(WorkflowInvalid) as caught:
        parse_workflow(f"x-0: &a0 {{k: 1}}\n{keys}jobs: {{a: {{call: m:f}}}}", "x.yaml")
    assert caught.value.problems[0].code == "FQ111"


def test_keys_that_begin_with_x_are_free_wherever_keys_are_fixed() -> None:
    text = """\
x-anything: [1, {a: b}]
inputs: {size: {type: int, default: 1, x-unit: mm}}
defaults: {timeout: 1m, x-why: slow}
concurrency: {group: a, x-b: c}
jobs:
  x-1: {call: m:f, x-owner: ann, retries: {max: 3, x-y: z}, approval: {message: go, x-y: z}}
"""
    plain = re.sub(r",? x-[a-z]+: [a-z]+", "", text.partition("\n")[2])
    assert parse_workflow(text, "x.yaml") == parse_workflow(plain, "x.yaml")
    flow = python.Workflow(
        "x",
        inputs={"size": {"type": "int", "default": 1, "x-unit": "mm"}},
        defaults={"timeout": "1m", "x-why": "slow"},
        concurrency={"group": "a", "x-b": "c"},
    )
    flow.call("x-1", "m:f", retries={"max": 3, "x-y": "z"}, approval={"message": "go", "x-y": "z"})
    assert flow.spec() == parse_workflow(text, "x.yaml")


@pytest.mark.parametrize(
    ("written", "text"),
    [("90", "90"), ("1e6", "1000000"), ("0.0000001", "0.0000001"), ("1e-10", "0"), ("10m", "10m")],
)
def test_a_number_of_seconds_to_sleep_is_kept_as_text_that_can_be_read(
    written: str, text: str
) -> None:
    job = parse_workflow(f"jobs: {{a: {{sleep: {written}}}}}", "w.yaml").jobs[0]
    assert job.sleep == text
    assert parse_workflow(f'jobs: {{a: {{sleep: "{job.sleep}"}}}}', "w.yaml").jobs[0] == job
