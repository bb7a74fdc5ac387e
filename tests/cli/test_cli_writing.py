"""The commands that write files for people: export, init, schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from flowq.declare.yaml import read_workflow
from tests.cli.commands import Said
from tests.reading import parse_workflow

Call = Callable[..., Said]


def test_export_writes_the_same_workflow(call: Call, folder: Path) -> None:
    done = call("export", "sandwich.yaml")
    assert done.code == 0
    assert parse_workflow(done.out, "sandwich.yaml") == read_workflow(folder / "sandwich.yaml")


def test_export_to_python_is_code_that_declares_it(call: Call, folder: Path) -> None:
    done = call("export", "sandwich.yaml", "--to", "python")
    assert done.code == 0
    (folder / "as_python.py").write_text(done.out)
    again = call("export", "as_python.py")
    assert again.out == call("export", "sandwich.yaml").out


def test_code_with_a_nested_workflow_has_one_that_is_meant(call: Call, folder: Path) -> None:
    (folder / "outer.yaml").write_text(
        "workflows: {inner: {jobs: {a: {run: date}}}}\njobs: {one: {workflow: inner}}\n"
    )
    (folder / "outer_flow.py").write_text(call("export", "outer.yaml", "--to", "python").out)
    assert call("export", "outer_flow.py").out == call("export", "outer.yaml").out


def test_export_of_what_is_wrong_says_so(call: Call) -> None:
    done = call("export", "wrong.yaml")
    assert done.code == 3
    assert "FQ" in done.err
    assert done.out == ""


def test_schema_is_json(call: Call) -> None:
    schema = json.loads(call("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "for_each" in schema["$defs"]["job"]["properties"]


def test_init_writes_a_workflow_that_is_right(call: Call, folder: Path) -> None:
    done = call("init", "report")
    assert done.code == 0
    assert "flowq run report.yaml" in done.out
    text = (folder / "report.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=flowq.schema.json\n")
    assert json.loads((folder / "flowq.schema.json").read_text("utf-8"))["title"]
    checked = call("check", "report.yaml")
    assert (checked.code, checked.out) == (0, "report.yaml: ok, 3 jobs\n")


def test_init_overwrites_nothing(call: Call, folder: Path) -> None:
    (folder / "report_tasks.py").write_text("mine")
    done = call("init", "report")
    assert (done.code, done.out) == (2, "")
    assert "report_tasks.py is there already" in done.err
    assert not (folder / "report.yaml").exists()
    assert (folder / "report_tasks.py").read_text() == "mine"


def test_init_refuses_what_is_no_module(call: Call) -> None:
    done = call("init", "my-report")
    assert done.code == 2
    assert "letters, digits and _ only" in done.err
