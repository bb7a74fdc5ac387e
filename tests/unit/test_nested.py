"""Workflows inside workflows: found beside, around and in files, each once, never in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowq.checks import check, check_calls
from flowq.compiling import find_problems
from flowq.declare.yaml import read_workflow
from flowq.errors import Problem, WorkflowInvalid
from flowq.graph import build_graph
from flowq.spec import Workflow
from flowq.targets import load
from tests.reading import parse_workflow


def write(folder: Path, **text_by_name: str) -> Path:
    for name, text in text_by_name.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(text_by_name))}.yaml"


def problems_of(file: Path) -> tuple[Problem, ...]:
    with pytest.raises(WorkflowInvalid) as caught:
        read_workflow(file)
    return caught.value.problems


def found_in(workflow: Workflow) -> list[str]:
    return [problem.code for problem in check(workflow, build_graph(workflow))]


def test_a_file_is_found_beside_the_one_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    main = write(tmp_path, main="jobs: {one: {workflow: parts/photo.yaml}}")
    write(tmp_path / "parts", photo="jobs: {a: {workflow: ./inner.yml}}")
    (tmp_path / "parts" / "inner.yml").write_text("jobs: {b: {run: date}}")
    workflow = read_workflow(main)
    photo = workflow.workflows["parts/photo.yaml"]
    inner = photo.workflows["./inner.yml"]
    assert (photo.name, inner.name) == ("photo", "inner")
    assert inner.folder == str(tmp_path / "parts")


def test_a_file_that_two_jobs_name_is_read_once(tmp_path: Path) -> None:
    jobs = "{one: {workflow: ./photo.yaml}, two: {workflow: ./photo.yaml}}"
    main = write(tmp_path, main=f"jobs: {jobs}", photo="jobs: {a: {cal: m:f}}")
    assert [problem.code for problem in problems_of(main)] == ["FQ103"]


def test_problems_of_a_nested_file_have_its_name(tmp_path: Path) -> None:
    text = "jobs: {one: {workflow: ./photo.yaml}, two: {}}"
    first, second = problems_of(write(tmp_path, main=text, photo="jobs:\n  a: {call: x}"))
    assert first.where
    assert Path(first.where.file).name == "main.yaml"
    assert second.where
    assert (Path(second.where.file).name, second.where.line) == ("photo.yaml", 2)


def test_a_circle_through_files_is_found(tmp_path: Path) -> None:
    a, b = "jobs: {x: {workflow: ./b.yaml}}", "jobs: {y: {workflow: ./a.yaml}}"
    (problem,) = problems_of(write(tmp_path, a=a, b=b))
    assert problem.code == "FQ120"
    assert "a.yaml → b.yaml → ./a.yaml" in problem.message
    assert problem.where
    assert problem.where.file.endswith("b.yaml")


def test_a_very_deep_nest_is_refused(tmp_path: Path) -> None:
    texts = {f"f{i}": f"jobs: {{x: {{workflow: ./f{i + 1}.yaml}}}}" for i in range(30)}
    (problem,) = problems_of(write(tmp_path, **texts))
    assert problem.code == "FQ111"


def test_a_long_chain_of_names_is_refused_as_well() -> None:
    chain = "".join(f"  w{i}: {{jobs: {{x: {{workflow: w{i + 1}}}}}}}\n" for i in range(2_000))
    with pytest.raises(WorkflowInvalid) as caught:
        parse_workflow(f"workflows:\n{chain}jobs: {{one: {{workflow: w0}}}}\n", "main.yaml")
    assert {problem.code for problem in caught.value.problems} == {"FQ111"}


def test_a_workflow_inside_sees_those_around_it() -> None:
    workflow = parse_workflow(
        "workflows:\n"
        "  resize: {jobs: {a: {run: date}}}\n"
        "  photo: {jobs: {b: {workflow: resize}}}\n"
        "jobs: {one: {workflow: photo}}\n",
        "main.yaml",
    )
    assert list(workflow.workflows) == ["photo"]
    assert list(workflow.workflows["photo"].workflows) == ["resize"]
    assert "FQ223" not in found_in(workflow)


def test_one_that_nobody_names_is_a_warning() -> None:
    text = "workflows: {photo: {jobs: {b: {run: date}}}}\njobs: {one: {run: date}}\n"
    assert "FQ223" in found_in(parse_workflow(text, "main.yaml"))


def test_one_of_its_own_comes_before_one_around_it() -> None:
    workflow = parse_workflow(
        "workflows:\n"
        "  clock: {jobs: {around: {run: date}}}\n"
        "  photo:\n"
        "    workflows: {clock: {jobs: {own: {run: date}}}}\n"
        "    jobs: {b: {workflow: clock}}\n"
        "jobs: {one: {workflow: photo}}\n",
        "main.yaml",
    )
    inner = workflow.workflows["photo"].workflows["clock"]
    assert [job.name for job in inner] == ["own"]


def test_what_is_wrong_inside_is_found_with_its_place() -> None:
    workflow = parse_workflow(
        "workflows:\n  photo:\n    jobs:\n      a: {run: date, needs: b}\n"
        "jobs: {one: {workflow: photo}}\n",
        "main.yaml",
    )
    (problem,) = [p for p in check(workflow, build_graph(workflow)) if p.code == "FQ201"]
    assert str(problem.where) == "main.yaml:4:29"


def test_functions_of_nested_workflows_are_looked_at() -> None:
    workflow = parse_workflow(
        "workflows: {photo: {jobs: {a: {call: 'm:f'}}}}\njobs: {one: {workflow: photo}}\n", "x.yaml"
    )
    problems = check_calls(workflow, build_graph(workflow), {}.__getitem__)
    assert [problem.code for problem in problems] == ["FQ501"]


def test_functions_beside_a_nested_file_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", ["/nowhere"])
    (tmp_path / "parts").mkdir()
    main = write(tmp_path, main="jobs: {one: {workflow: parts/photo.yaml}}")
    write(tmp_path / "parts", photo="jobs: {a: {run: date}}")
    load(str(main))
    import sys

    assert sys.path.index(str(tmp_path)) < sys.path.index(str(tmp_path / "parts"))


def test_the_concurrency_of_a_file_that_is_a_job_is_warned_about(tmp_path: Path) -> None:
    photo = "concurrency: deploy\nschedule: {cron: '0 6 * * *'}\njobs: {a: {run: date}}"
    workflow = read_workflow(
        write(tmp_path, main="jobs: {one: {workflow: photo.yaml}}", photo=photo)
    )
    (problem,) = check(workflow, build_graph(workflow))
    assert (problem.code, problem.severity) == ("FQ227", "warning")
    assert problem.where is not None
    assert (problem.where.line, problem.where.column) == (1, 24)


@pytest.mark.parametrize(
    ("wanted", "passed", "reason"),
    [
        ("{type: str}", "'${{ inputs.year }}'", "inputs.year is a whole number"),
        ("{type: str}", "'${{ inputs.flag }}'", "inputs.flag is true or false"),
        ("{type: path}", "'${{ inputs.all }}'", "inputs.all is a list"),
        ("{type: int}", "'${{ inputs.share }}'", "inputs.share is a number"),
        ("{type: int}", "'${{ inputs.all }}'", "inputs.all is a list"),
        ("{type: bool}", "'${{ inputs.year }}'", "inputs.year is a whole number"),
        ("{type: enum, choices: [x]}", "'${{ inputs.colour }}'", "not one of red, green"),
        ("{type: enum, choices: [1]}", "'${{ inputs.year }}'", "inputs.year is a whole number"),
        ("{type: int}", "'${{ item }}'", "which item can be"),
        ("{type: int}", "'${{ 1 / 2 }}'", "whole number, not 0.5"),
        ("{type: str}", "['${{ inputs.text }}']", "text, not a list"),
        ("{type: list}", "{a: '${{ inputs.text }}'}", "a list, not a map"),
        ("{type: str, pattern: '[a-z]+'}", "3", "must match"),
        ("{type: str}", "[1]", "must be text"),
    ],
)
def test_what_is_passed_is_checked_with_the_types_that_are_known(
    wanted: str, passed: str, reason: str
) -> None:
    (problem,) = errors_of_passing(wanted, passed)
    assert problem.code == "FQ218"
    assert reason in problem.message


@pytest.mark.parametrize(
    ("wanted", "passed"),
    [
        ("{type: str}", "'${{ inputs.text }}'"),
        ("{type: str}", "'${{ str(inputs.year) }}'"),
        ("{type: str}", "'in ${{ inputs.year }}'"),
        ("{type: float}", "'${{ inputs.year }}'"),
        ("{type: int}", "'${{ inputs.text }}'"),
        ("{type: int}", "'${{ 1 + 1 }}'"),
        ("{type: json}", "'${{ inputs.all }}'"),
        ("{type: list}", "'${{ inputs.any }}'"),
        ("{type: list}", "['${{ inputs.year }}']"),
        ("{type: enum, choices: [green, blue]}", "'${{ inputs.colour }}'"),
        ("{type: enum, choices: ['1']}", "1"),
        ("{type: str, pattern: '[0-9.]+'}", "3.10"),
        ("{type: str, default: null}", "null"),
        ("{type: int}", "'${{ jobs.first.result }}'"),
    ],
)
def test_what_may_fit_is_passed(wanted: str, passed: str) -> None:
    assert errors_of_passing(wanted, passed) == []


def errors_of_passing(wanted: str, passed: str) -> list[Problem]:
    return [each for each in find_problems(passing(wanted, passed)) if each.severity == "error"]


def passing(wanted: str, passed: str) -> Workflow:
    inputs = (
        "{year: {type: int}, share: {type: float}, flag: {type: bool}, all: {type: list}, "
        "any: {type: json}, text: {}, colour: {choices: [red, green]}}"
    )
    return parse_workflow(
        f"""\
inputs: {inputs}
workflows: {{inner: {{inputs: {{x: {wanted}}}, jobs: {{say: {{run: "echo ${{{{inputs.x}}}}"}}}}}}}}
jobs:
  first: {{run: echo 1}}
  one:
    workflow: inner
    for_each: [a, b]
    with: {{x: {passed}}}
""",
        "flow.yaml",
    )


@pytest.mark.parametrize("kind", ["str", "path"])
@pytest.mark.parametrize("written", ["3.10", "0x10", "true", "1e3", "007"])
def test_a_text_that_is_passed_keeps_what_was_written(kind: str, written: str) -> None:
    (_, job) = passing(f"{{type: {kind}}}", written).jobs
    assert job.with_ == {"x": written}
