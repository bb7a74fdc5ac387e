"""Everything that YAML can say has its form in Python, and gives the same value."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from flowq.declare.handles import Handle
from flowq.declare.python import Workflow
from flowq.errors import Problem, WorkflowInvalid
from flowq.spec import Workflow as Spec
from tests.reading import parse_workflow


def list_photos(folder: str = "") -> list[str]:
    return [folder]


def thumb(item: str, size: int = 1) -> str:
    return item * size


def train(rate: float, seed: int) -> float:
    return rate * seed


def build(**arguments: Any) -> None: ...


def yaml(text: str) -> Spec:
    called = textwrap.dedent(text).replace("CALL", __name__)
    return parse_workflow(called, "twin.yaml")


def problems_of(flow: Workflow) -> tuple[Problem, ...]:
    with pytest.raises(WorkflowInvalid) as caught:
        flow.spec()
    return caught.value.problems


def test_a_gallery_is_the_same_in_both() -> None:
    flow = Workflow("twin", inputs={"folder": "photos", "publish": False}, max_parallel=20)
    gallery = flow.deferred(build, name="gallery")
    found = flow.job(list_photos, with_={"folder": flow.inputs.folder})
    thumbs = flow.job(
        thumb,
        for_each=found.result,
        key="item",
        blocks=gallery,
        max_parallel=8,
        fail_fast=True,
        continue_on_error="20%",
        if_empty="skip",
    )
    gallery.bind(thumbs=thumbs.results, ended=thumbs.outcomes, run=flow.run_id)
    flow.shell(
        "publish",
        f'rsync -a out/ "$DEST" # {flow.inputs.folder}',
        needs=gallery,
        if_=flow.inputs.publish,
        approval={"message": "Look first", "expires": "2d"},
        env={"DEST": flow.env.DEST, "N": 3, "V": True},
        shell="bash",
        result="lines",
    )
    flow.job(
        build,
        name="notify",
        needs=[gallery, "publish"],
        if_="always()",
        on_crash="fail",
        secret_results="refuse",
    )
    assert flow.spec() == yaml(
        """
        name: twin
        max_parallel: 20
        inputs: {folder: {default: photos}, publish: {type: bool, default: false}}
        jobs:
          gallery:
            deferred: true
            call: CALL:build
            with:
              thumbs: ${{ jobs.thumb.results }}
              ended: ${{ jobs.thumb.outcomes }}
              run: ${{ run.id }}
          list_photos: {call: "CALL:list_photos", with: {folder: "${{ inputs.folder }}"}}
          thumb:
            for_each: jobs.list_photos.result
            key: ${{ item }}
            call: CALL:thumb
            with: {item: "${{ item }}"}
            blocks: gallery
            max_parallel: 8
            fail_fast: true
            continue_on_error: 20%
            if_empty: skip
          publish:
            needs: gallery
            if: ${{ inputs.publish }}
            approval: {message: Look first, expires: 2d}
            run: 'rsync -a out/ "$DEST" # ${{ inputs.folder }}'
            env: {DEST: "${{ env.DEST }}", N: 3, V: true}
            shell: bash
            result: lines
          notify:
            needs: [gallery, publish]
            if: always()
            call: "CALL:build"
            on_crash: fail
            secret_results: refuse
        """
    )


def test_a_sweep_is_the_same_in_both() -> None:
    flow = Workflow("twin", inputs={"seeds": [1, 2]})
    flow.job(
        train,
        matrix={"rate": [0.1, 0.01], "seed": flow.inputs.seeds},
        stop_when="result < 0.1",
        include=[{"rate": 1, "seed": 0}],
        exclude={"rate": 0.1, "seed": 2},
        at_front=True,
        expires="1h",
        cwd=f"out/{flow.matrix.rate}",
    )
    flow.outputs(best="x", losses="y")
    assert flow.spec() == yaml(
        """
        name: twin
        inputs: {seeds: {type: list, default: [1, 2]}}
        outputs: {best: x, losses: y}
        jobs:
          train:
            matrix: {rate: [0.1, 0.01], seed: "${{ inputs.seeds }}"}
            include: [{rate: 1, seed: 0}]
            exclude: [{rate: 0.1, seed: 2}]
            stop_when: result < 0.1
            call: CALL:train
            with: {rate: "${{ matrix.rate }}", seed: "${{ matrix.seed }}"}
            at_front: true
            expires: 1h
            cwd: out/${{ matrix.rate }}
        """
    )


def test_a_crawl_on_a_schedule_is_the_same_in_both() -> None:
    flow = Workflow(
        "twin",
        schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
        concurrency={"group": "crawl", "cancel_in_progress": True},
        env={"LANG": "C"},
    )
    flow.job(
        thumb,
        for_each=["a", "b"],
        more=flow.result["links"],
        key="item.url",
        max_items=9,
        stop_when="index > 5",
    )
    assert flow.spec() == yaml(
        """
        name: twin
        schedule: {cron: 0 3 * * *, timezone: Europe/Berlin}
        concurrency: {group: crawl, cancel_in_progress: true}
        env: {LANG: C}
        jobs:
          thumb:
            for_each: [a, b]
            more: result["links"]
            key: item.url
            max_items: 9
            stop_when: index > 5
            call: CALL:thumb
            with: {item: "${{ item }}"}
        """
    )


def test_a_nested_workflow_is_the_same_in_both() -> None:
    photo = Workflow("photo", inputs={"path": str})
    photo.outputs(thumb=photo.job(thumb, with_={"item": photo.inputs.path}).result)
    flow = Workflow("twin")
    one = flow.workflow("one", photo, for_each=["a", "b"]).bind(path=flow.item)
    flow.job(build, with_={"thumbs": one.results})
    assert flow.spec() == yaml(
        """
        name: twin
        workflows:
          photo:
            inputs: {path: {type: str}}
            outputs: {thumb: "${{ jobs.thumb.result }}"}
            jobs:
              thumb: {call: "CALL:thumb", with: {item: "${{ inputs.path }}"}}
        jobs:
          one: {workflow: photo, for_each: [a, b], with: {path: "${{ item }}"}}
          build: {call: "CALL:build", with: {thumbs: "${{ jobs.one.results }}"}}
        """
    )


def test_a_nested_file_is_looked_for_beside_the_code(tmp_path: Path) -> None:
    (tmp_path / "photo.yaml").write_text("jobs: {a: {run: date}}")
    flow = Workflow("twin")
    flow.workflow("one", tmp_path / "photo.yaml")
    flow.workflow("two", "./nowhere.yaml")
    (problem,) = problems_of(flow)
    assert problem.code == "FQ119"
    assert problem.where
    assert problem.where.file == __file__


def test_a_workflow_that_contains_itself_is_refused() -> None:
    flow = Workflow("twin")
    flow.workflow("again", flow)
    assert "FQ120" in {problem.code for problem in problems_of(flow)}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"for_each": "photos"}, "FQ105", "not 'photos'"),
        ({"for_each": 3}, "FQ105", "not 3"),
        ({"more": "result.links"}, "FQ118", "for_each"),
        ({"for_each": [1], "key": "${{ a }} ${{ b }}"}, "FQ105", "one expression"),
        ({"matrix": {"a": 1}}, "FQ105", "must be a list"),
        ({"matrix": {"a-b": [1]}}, "FQ109", "a-b"),
        ({"matrix": {"a": [1]}, "exclude": [1]}, "FQ105", "list of maps"),
        ({"max_parallel": 0}, "FQ105", "from 1"),
        ({"fail_fast": 1}, "FQ105", "true or false"),
        ({"continue_on_error": "200%"}, "FQ105", "percentage"),
        ({"description": f"{Handle('inputs.x')}"}, "FQ105", "without handles"),
        ({"approval": {"message": [3]}}, "FQ105", "text"),
        ({"approval": {"inputs": {"x": {"kind": 3}}}}, "FQ103", "kind"),
        ({"approval": 3}, "FQ105", "map"),
        ({"approval": {"msg": 3}}, "FQ103", "msg"),
        ({"env": {"A-B": "x"}}, "FQ109", "A-B"),
        ({"env": {"A": [1]}}, "FQ105", "text"),
        ({"if_": [3]}, "FQ105", "text"),
        ({"if_": 3}, "FQ105", "text"),
        ({"if_empty": "fail"}, "FQ105", "run, skip"),
        ({"on_crash": "fail me"}, "FQ105", "requeue, fail"),
        ({"secret_results": "keep"}, "FQ105", "mask, refuse"),
        ({"expires": "soon"}, "FQ110", "duration"),
        ({"shell": "bash"}, "FQ118", "shell"),
    ],
)
def test_a_wrong_option_is_a_problem(options: dict[str, Any], code: str, words: str) -> None:
    flow = Workflow("twin")
    flow.job(build, **options)
    (problem,) = problems_of(flow)
    assert problem.code == code
    assert words in problem.message
    assert problem.where
    assert problem.where.file == __file__


@pytest.mark.parametrize("known", [True, False])
def test_a_flag_that_a_program_knows_is_a_condition(known: bool) -> None:
    flow = Workflow("twin")
    flow.job(build, if_=known)
    text = f"jobs: {{build: {{call: 'm:f', if: {str(known).lower()}}}}}"
    (job,), (twin,) = flow.spec().jobs, parse_workflow(text, "twin.yaml").jobs
    assert job.if_ == twin.if_ == str(known).lower()


def test_choices_that_are_no_texts_are_named() -> None:
    flow = Workflow("twin", inputs={"size": {"type": "enum", "choices": ["a", 2]}})
    flow.job(build)
    (problem, *_) = problems_of(flow)
    assert (problem.code, problem.message) == (
        "FQ105",
        "choices must be a list of texts, and one of them is 2",
    )


def test_a_command_may_hold_braces() -> None:
    flow = Workflow("twin")
    flow.shell("a", "echo ${{ not mine }} ${HOME}")
    (job,) = flow.spec().jobs
    assert job.run
    assert job.run.command == "echo $${{ not mine }} ${HOME}"


def test_a_command_is_a_list_of_texts_numbers_flags_paths_and_handles() -> None:
    flow = Workflow("x", inputs={"out": "a"})
    items = ["tar", flow.inputs.out, f"--x={flow.secrets['db-password']}", 3, True, Path("a b")]
    flow.shell("pack", items)
    (job,) = flow.spec().jobs
    assert job.run is not None
    assert job.run.command == (
        "tar",
        "${{ inputs.out }}",
        '--x=${{ secrets["db-password"] }}',
        "3",
        "true",
        "a b",
    )


@pytest.mark.parametrize("command", [[], ["ls", None], ["ls", ["x"]], ["", "x"], ["ls", object()]])
def test_a_command_that_is_no_list_of_arguments_is_a_problem(command: Any) -> None:
    flow = Workflow("x")
    flow.shell("pack", command)
    with pytest.raises(WorkflowInvalid, match=r"FQ105 .*run"):
        flow.spec()


def test_an_open_job_is_declared_with_its_own_decorator() -> None:
    flow = Workflow("x")
    options: dict[str, Any] = {"deferred": True}
    flow.job(build, name="a", **options)
    with pytest.raises(WorkflowInvalid, match=r"write @flow\.deferred"):
        flow.spec()
