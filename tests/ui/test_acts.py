"""What changes runs: each act, the same again, what it refuses, and what may be submitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from starlette.testclient import TestClient

import flowq
from flowq.client import get_run
from flowq.spec import Approval, Input
from flowq.ui import offered
from flowq.ui.address import Address
from flowq.ui.application import make_app
from flowq.ui.site import Site
from tests.runtime.language import RUN, Runs, job

BEARER = {"Authorization": "Bearer of-the-application-around"}
HELLO = """\
name: hello
description: Greet somebody.
inputs: {who: {type: str}, times: {type: int, default: 2}}
jobs: {greet: {run: echo hello}}
"""


def open_page(connection: Redis, **options: Any) -> TestClient:
    page = make_app(Site(connection, **options), lambda _: "ada", Address())
    return TestClient(page, headers=BEARER)


@pytest.fixture
def program(connection: Redis) -> TestClient:
    """A program that acts for `ada`."""
    return open_page(connection)


def act(program: TestClient, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    reply = program.post(path, json=body or {})
    return reply.status_code, reply.json()


def acts_of_run(connection: Redis) -> set[tuple[str, str]]:
    events = get_run(RUN, connection).events()
    return {(event.act, event.by) for event in events if event.act}


def test_a_job_is_approved_once_with_values_and_a_note(connection: Redis, program: TestClient):
    host = Input("host")
    asking = job("a", "square", with_={"number": 2}, approval=Approval("go?", inputs=(host,)))
    Runs(connection).submit(asking)
    path = f"/api/runs/{RUN}/jobs/a/approve"

    code, refused = act(program, path, {"note": "without its input"})
    assert (code, refused["error"]["type"]) == (400, "UsageError")
    assert refused["error"]["message"] == "the input host is required and was not given"
    assert [each["input"] for each in refused["problems"]] == ["host"]
    assert act(program, path, {"inputs": {"host": "web1", "port": 1}})[0] == 400
    code, first = act(program, path, {"inputs": {"host": "web1"}, "note": "seen"})
    again, second = act(program, path, {"inputs": {"host": "web1"}})

    assert (code, first["changed"], first["act"], first["by"]) == (200, True, "approve", "ada")
    assert (again, second["changed"]) == (200, False)
    assert first["unattended_queues"] == ["default"]
    decision = get_run(RUN, connection).job_records()["a"].decision
    assert decision is not None
    assert (decision.by, decision.note, decision.inputs) == ("ada", "seen", {"host": "web1"})
    assert acts_of_run(connection) == {("approve", "ada")}


def test_a_job_is_rejected_once_and_runs_again(connection: Redis, program: TestClient):
    Runs(connection).submit(job("a", "square", with_={"number": 2}, approval=Approval("go?")))
    path = f"/api/runs/{RUN}/jobs/a/reject"

    code, first = act(program, path, {"reason": "red"})
    _, second = act(program, path, {"reason": "red"})

    assert (code, first["changed"], first["status"]) == (200, True, "failed")
    assert second["changed"] is False
    assert act(program, f"/api/runs/{RUN}/jobs/a/approve")[0] == 409
    code, again = act(program, f"/api/runs/{RUN}/jobs/a/retry")
    assert (code, again["message"]) == (200, "run again: a; no worker listens on default")
    assert act(program, f"/api/runs/{RUN}/retry")[0] == 409  # it runs
    assert {act for act, _ in acts_of_run(connection)} >= {"retry"}


def test_a_run_is_canceled_once(connection: Redis, program: TestClient, work: Callable[..., None]):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    code, first = act(program, f"/api/runs/{RUN}/cancel", {"now": True})
    again, second = act(program, f"/api/runs/{RUN}/cancel")

    assert (code, first["changed"], first["status"]) == (200, True, "canceled")
    assert (again, second["changed"]) == (200, False)
    assert acts_of_run(connection) == {("cancel", "ada")}
    assert act(program, f"/api/runs/{RUN}/retry")[0] == 200
    work()
    code, late = act(program, f"/api/runs/{RUN}/cancel")
    assert (code, late["error"]["type"]) == (409, "WrongState")


def test_a_held_run_is_released_once(connection: Redis, tmp_path: Path):
    (tmp_path / "hello.yaml").write_text(HELLO)
    program = open_page(connection, workflows=tmp_path)
    body = {"workflow": "hello", "inputs": {"who": "you"}, "hold": True, "labels": {"team": "x"}}

    code, held = act(program, "/api/runs", body)
    path = f"/api/runs/{held['run']}/release"

    assert (code, held["changed"], held["unattended_queues"]) == (201, True, [])
    run = get_run(held["run"], connection)
    assert (run.record().state, run.record().labels) == ("waiting", {"team": "x"})
    assert act(program, path)[1]["changed"] is True
    assert act(program, path)[1]["changed"] is False
    assert run.record().inputs == {"who": "you", "times": 2}


@pytest.mark.parametrize(
    "body",
    [
        {"now": "yes"},
        {"now": 1},
        {"later": True},
        {"note": ["x"]},
    ],
)
def test_fields_that_nobody_knows_are_refused(
    connection: Redis, program: TestClient, body: dict[str, Any]
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    code, told = act(program, f"/api/runs/{RUN}/cancel", body)

    assert (code, told["kind"]) == (400, "error")
    assert get_run(RUN, connection).record().state == "running"


@pytest.mark.parametrize("run", ["nope", "..", "%2e%2e", "r1%2f..", "r1:jobs", "%00", "%ff", "*"])
@pytest.mark.parametrize("verb", ["cancel", "retry", "release", "jobs/a/approve"])
def test_ids_that_are_none_are_not_found(
    connection: Redis, program: TestClient, run: str, verb: str
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    assert program.post(f"/api/runs/{run}/{verb}", json={}).status_code in (404, 405)
    assert get_run(RUN, connection).record().state == "running"


# Submitting -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with workflows, and what must not be reached from it."""
    folder = tmp_path / "workflows"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "hello.yaml").write_text(HELLO)
    (folder / "sub" / "deep.yml").write_text(HELLO.replace("hello", "deep"))
    (folder / "twin1.yaml").write_text(HELLO.replace("hello", "twin"))
    (folder / "twin2.yaml").write_text(HELLO.replace("hello", "twin"))
    (folder / "broken.yaml").write_text("name: broken\njobs: {a: {needs: [b], run: echo}}\n")
    (folder / "other.yaml").write_text("fruit: [apple]\n")
    (folder / ".hidden" / "x.yaml").write_text(HELLO.replace("hello", "hidden"))
    (folder / "code.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "outside.yaml").write_text(HELLO.replace("hello", "outside"))
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    (folder / "up").symlink_to(tmp_path)
    return folder


def test_the_workflows_of_the_folder_are_listed_with_their_inputs(connection: Redis, folder: Path):
    told = open_page(connection, workflows=folder).get("/api/workflows").json()
    found = {each["name"]: each for each in told["workflows"]}

    assert found.keys() == {"hello", "deep", "twin", "broken"}
    assert found["deep"]["file"] == "sub/deep.yml"
    assert [each["name"] for each in found["hello"]["inputs"]] == ["who", "times"]
    assert found["hello"]["inputs"][1]["default"] == 2
    assert "FQ" in found["broken"]["problems"][0]
    assert open_page(connection).get("/api/workflows").json()["workflows"] == []


def test_other_files_hide_no_workflow_and_too_many_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for number in range(20):
        (folder / f"a{number}.txt").touch()
        (folder / ".hidden" / f"a{number}.yaml").touch()
    monkeypatch.setattr(offered, "MAX_LOOKED_AT", 10, raising=False)
    monkeypatch.setattr(offered, "MAX_FILES", 7)

    assert {each.name for each in offered.list_offered(folder)} > {"hello", "deep"}
    assert not caplog.records
    monkeypatch.setattr(offered, "MAX_FILES", 1)
    for _ in range(3):
        assert len(offered.list_offered(folder)) == 1
    assert [record.args for record in caplog.records] == [(folder, 1)]


@pytest.mark.parametrize(
    "name",
    [
        *("", "nope", "outside", "hidden", "hello.yaml", "../outside", "../outside.yaml", "code"),
        *("sub/../hello", "sub/deep.yml", "/etc/passwd", "code.py:flow", "os:system", "-", "x\0y"),
        *("up/outside", "link", HELLO, "file:///etc/passwd", "language_jobs:square", "hello\n"),
    ],
)
def test_a_path_or_a_text_is_no_name(connection: Redis, folder: Path, name: str):
    body = {"workflow": name, "inputs": {"who": "x"}}

    code, told = act(open_page(connection, workflows=folder), "/api/runs", body)

    assert (code, told["kind"]) == (404, "error")
    assert flowq.runs(connection=connection) == []


def test_what_cannot_run_is_not_submitted(connection: Redis, folder: Path):
    program = open_page(connection, workflows=folder)

    assert act(program, "/api/runs", {"workflow": "twin", "inputs": {"who": "x"}})[0] == 400
    code, told = act(program, "/api/runs", {"workflow": "hello", "inputs": {"times": "many"}})
    assert [each["severity"] for each in told["problems"]] == ["error"] * 2
    assert (code, [each["input"] for each in told["problems"]]) == (400, ["who", "times"])
    assert told["error"]["message"] == (
        "the input who is required and was not given\n"
        "the input times must be a whole number, not 'many'"
    )
    assert "no job uses" not in told["error"]["message"]  # a warning, which refuses nothing
    code, told = act(program, "/api/runs", {"workflow": "broken"})
    assert (code, told["problems"][0]["file"]) == (400, "broken.yaml")
    assert told["error"]["message"].startswith("broken.yaml:2:")
    listed = program.get("/api/workflows").text + program.get("/submit?workflow=broken").text
    assert str(folder) not in listed
    assert act(program, "/api/runs", {"workflow": 3})[0] == 400
    assert act(program, "/api/runs", {"workflow": "hello", "inputs": {"who": "x"}, "file": "y"})[
        0
    ] == (400)
    bad = {"workflow": "hello", "inputs": {"who": "x"}, "labels": {"a": 1}}
    assert act(program, "/api/runs", bad)[0] == 400
    assert act(open_page(connection), "/api/runs", {"workflow": "hello"})[0] == 404
    assert flowq.runs(connection=connection) == []


def test_a_run_is_submitted_again_as_it_was_with_other_inputs(connection: Redis, folder: Path):
    program = open_page(connection, workflows=folder)
    body = {"workflow": "hello", "inputs": {"who": "x"}, "labels": {"team": "data"}}
    first = get_run(act(program, "/api/runs", body)[1]["run"], connection)
    path = f"/api/runs/{first.run_id}/again"
    (folder / "hello.yaml").unlink()  # the run keeps its workflow

    code, told = act(program, path, {"inputs": {"who": "y", "times": "3"}})

    assert (code, told["act"], told["by"]) == (201, "submit", "ada")
    again, before = get_run(told["run"], connection).record(), first.record()
    assert again.run_id != before.run_id
    assert (again.submitted_by, before.submitted_by) == ("ada", "ada")
    assert again.inputs == {"who": "y", "times": 3}
    assert (again.labels, again.folders) == ({"team": "data"}, before.folders)
    other = {"inputs": {"who": "z"}, "labels": {"stage": "test"}, "hold": True}
    held = get_run(act(program, path, other)[1]["run"], connection).record()
    assert (held.labels, held.state) == ({"stage": "test"}, "waiting")
    assert (again.file, again.digest) == (before.file, before.digest)
    for refused in ({}, {"inputs": {"who": "y", "times": "many"}}, {"inputs": {"which": 1}}):
        assert act(program, path, refused)[0] == 400
    assert act(program, path, {"inputs": {"who": "z"}, "labels": {"a": 1}})[0] == 400
    assert len(flowq.runs(connection=connection)) == 3


def test_a_run_that_keeps_no_workflow_is_not_submitted_again(
    connection: Redis, program: TestClient
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    assert act(program, f"/api/runs/{RUN}/again")[0] == 409


def test_on_the_private_server_acts_start_workers(connection: Redis, folder: Path):
    started: list[str] = []
    program = open_page(
        connection, workflows=folder, start_workers=lambda run: started.append(run.run_id)
    )

    _, told = act(program, "/api/runs", {"workflow": "hello", "inputs": {"who": "x"}})
    assert started == [told["run"]]
    assert get_run(told["run"], connection).record().queue  # of its own
    act(program, "/api/runs", {"workflow": "hello", "inputs": {"who": "x"}, "hold": True})
    assert started == [told["run"]]


# Read-only ------------------------------------------------------------------------------------


def test_a_read_only_page_has_no_acts_at_all(connection: Redis):
    Runs(connection).submit(job("a", "square", with_={"number": 2}, approval=Approval("go?")))
    program = open_page(connection, is_read_only=True)
    acts = ["cancel", "retry", "release", "jobs/a/approve", "jobs/a/reject", "jobs/a/retry"]

    codes = {program.post(f"/api/runs/{RUN}/{each}", json={}).status_code for each in acts}

    assert codes <= {404, 405}
    assert program.post("/api/runs", json={"workflow": "x"}).status_code == 405
    for path in ("/", f"/runs/{RUN}", f"/runs/{RUN}/jobs/a"):
        assert 'method="post"' not in program.get(path).text
    assert 'method="post"' in open_page(connection).get(f"/runs/{RUN}").text
    assert get_run(RUN, connection).record().state == "waiting"
    assert f'/runs/{RUN}#approvals">1 approval waits</a>' in program.get("/").text
    described = program.get("/api/openapi.json").json()["paths"]
    assert {method for path in described.values() for method in path} == {"get"}
