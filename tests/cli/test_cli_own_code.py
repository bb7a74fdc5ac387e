"""Whose code, folder and environment the jobs of a run get while other runs wait beside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowq.client import Run, count_left_alone, list_runs, submit
from flowq.compiling import compile_plan, load
from flowq.runtime.queue import Queue
from tests.cli.commands import Flowq, Said
from tests.cli.own_runs import OwnRuns, find_supervisors

GATED = """
name: gated
jobs:
  before: {call: "tasks:f"}
  gate: {needs: before, approval: true, call: "tasks:f"}
"""
GATES = """
name: gates
jobs:
  first: {approval: true, call: "tasks:f"}
  second: {needs: first, approval: true, call: "tasks:f"}
"""
PLAIN = """
name: plain
jobs:
  one: {call: "tasks:f"}
  two: {for_each: [1, 2, 3], call: "tasks:f"}
"""


@pytest.fixture
def own_runs(flowq: Flowq, folder: Path) -> Iterator[OwnRuns]:
    """A folder with a workflow that waits in its middle, and one that does not."""
    (folder / "gated.yaml").write_text(GATED)
    (folder / "plain.yaml").write_text(PLAIN)
    (folder / "tasks.py").write_text("import helper\n\n\ndef f():\n    return helper.VALUE\n")
    _write(folder, "first")
    runs = OwnRuns(flowq)
    yield runs
    runs.connection.close()


def _write(folder: Path, value: str) -> None:
    """Edit what the jobs' module imports."""
    (folder / "helper.py").write_text(f"VALUE = {value!r}\n")


def _run(flowq: Flowq, file: str, **env: str) -> dict[str, Any]:
    said = flowq("run", file, "--json", **env)
    jobs = json.loads(said.stdout)["jobs"]
    return {
        name: job.get("result", job.get("results", job["status"])) for name, job in jobs.items()
    }


def test_a_module_beside_the_workflow_goes_before_one_of_that_name_in_the_current_folder(
    flowq: Flowq, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / "tasks.py").write_text("def f():\n    return 'current folder'\n")
    (folder / "sub" / "tasks.py").write_text("def f():\n    return 'beside the workflow'\n")
    (folder / "sub" / "w.yaml").write_text("name: w\njobs:\n  one: {call: 'tasks:f'}\n")
    (folder / "sub" / "w.py").write_text(
        "import flowq\nimport tasks\n\nflow = flowq.Workflow('w')\nflow.job(tasks.f, name='one')\n"
    )
    assert _run(flowq, "sub/w.yaml") == {"one": "beside the workflow"}
    assert _run(flowq, "sub/w.py") == {"one": "beside the workflow"}


def test_code_that_was_edited_while_runs_wait_is_what_new_and_released_runs_execute(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    waiting = own_runs.start()
    _write(folder, "second")
    assert _run(flowq, "plain.yaml") == {"one": "second", "two": ["second"] * 3}
    released = flowq("release", waiting.run_id, "gate")
    assert released.returncode == 0, released.stderr
    assert own_runs.results(waiting) == {"before": "first", "gate": "second"}
    shown = flowq("show", waiting.run_id).stdout
    assert "helper.py changed during the run, between before and gate (" in shown
    assert "  code " in flowq("show", waiting.run_id, "gate").stdout


def test_a_retry_executes_the_code_of_its_time(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    own_runs.start()
    (folder / "tasks.py").write_text("import missing_module\n")
    failed = json.loads(flowq("run", "plain.yaml", "--no-import", "--json").stdout)
    assert failed["status"] == "failed"
    (folder / "tasks.py").write_text("def f():\n    return 'mended'\n")
    again = json.loads(flowq("retry", failed["run"], "--json").stdout)
    assert again["jobs"]["one"]["result"] == "mended"


def test_a_run_has_the_folder_of_its_workflow_although_one_of_another_waits(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "flow.yaml").write_text(GATED if name == "a" else PLAIN)
        (folder / name / "tasks.py").write_text("import inside.deep\n\nf = inside.deep.f\n")
        (folder / name / "inside").mkdir()
        (folder / name / "inside" / "deep.py").write_text(f"def f():\n    return {name!r}\n")
    (folder / "tasks.py").unlink()
    waiting = own_runs.start("a/flow.yaml")
    assert _run(flowq, "b/flow.yaml") == {"one": "b", "two": ["b"] * 3}
    flowq("release", waiting.run_id, "gate")
    assert own_runs.results(waiting) == {"before": "a", "gate": "a"}


def test_a_run_has_the_environment_of_its_own_command(flowq: Flowq, own_runs: OwnRuns) -> None:
    folder = flowq.folder
    (folder / "gated.yaml").write_text(
        GATED.replace('call: "tasks:f"', "run: 'echo $TARGET $(python -c \"import lib\")'")
    )
    (folder / "plain.yaml").write_text('name: p\njobs:\n  one: {call: "lib:f"}\n')
    for name in ("staging", "prod"):
        (folder / name).mkdir()
        (folder / name / "lib.py").write_text(f"print({name!r})\ndef f(): return {name!r}\n")

    def env(name: str) -> dict[str, str]:
        return {"TARGET": name, "PYTHONPATH": str(folder / name)}

    waiting = own_runs.start(**env("staging"))
    assert _run(flowq, "plain.yaml", **env("prod")) == {"one": "prod"}
    flowq("release", waiting.run_id, "gate", **env("other"))
    results = {"before": "staging staging", "gate": "staging staging"}
    assert own_runs.results(waiting) == results


def test_a_job_that_a_job_adds_to_its_run_is_executed_there_and_one_of_no_run_is_told_of(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    (folder / "tasks.py").write_text(
        "import flowq\n"
        "from rq import get_current_job\n"
        "def f(): return 'f'\n"
        "def add(future):\n"
        "    mails = flowq.Queue('mails', connection=get_current_job().connection)\n"
        "    mails.enqueue(f, blocks=future, job_id='added')\n"
        "    mails.enqueue(f, job_id='alone')\n"
    )
    (folder / "plain.yaml").write_text(
        "name: adding\njobs:\n"
        '  one: {call: "tasks:add", with: {future: "${{ run.id }}-two"}}\n'
        '  two: {needs: one, call: "tasks:f", deferred: true}\n'
    )
    said = flowq("run", "plain.yaml", "--json")
    document = json.loads(said.stdout)
    assert (document["status"], document["jobs"]["added"]["result"]) == ("succeeded", "f")
    assert "1 job outside of runs waits on the queue mails" in said.stderr
    assert "flowq worker --burst mails" in said.stderr
    assert "mails" in flowq("show", document["run"], "added").stdout
    flowq("worker", "mails", "--burst")
    assert own_runs.connection.hget("rq:job:alone", "status") == b"finished"
    assert own_runs.connection.smembers("rq:queues") == {b"rq:queue:mails"}


def test_a_run_whose_waiting_workers_were_killed_goes_on_when_it_is_released(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    waiting = own_runs.start()
    (supervisor,) = find_supervisors(waiting)
    os.kill(supervisor, signal.SIGKILL)
    own_runs.wait_until(lambda: not waiting.is_served())
    _write(folder, "second")
    assert flowq("release", waiting.run_id, "gate").returncode == 0
    assert own_runs.results(waiting) == {"before": "first", "gate": "second"}


def test_an_answer_starts_no_second_supervisor_where_one_lives(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    (folder / "gates.yaml").write_text(GATES)
    waiting = own_runs.start("gates.yaml")
    (supervisor,) = find_supervisors(waiting)
    assert flowq("approve", waiting.run_id, "first").returncode == 0
    assert find_supervisors(waiting) == [supervisor]
    own_runs.wait_until(lambda: waiting.status().jobs["first"].state == "finished")
    assert flowq("approve", waiting.run_id, "second").returncode == 0
    assert own_runs.results(waiting) == {"first": "first", "second": "first"}


def test_a_run_whose_command_and_workers_were_killed_can_be_let_go_on(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    (folder / "long.yaml").write_text("name: long\njobs:\n  one: {run: read line < pipe}\n")
    os.mkfifo(folder / "pipe")
    command = flowq.start("run", "long.yaml")
    own_runs.wait_until(lambda: list_runs(own_runs.connection))
    run = Run(list_runs(own_runs.connection)[0].run_id, own_runs.connection)
    own_runs.wait_until(lambda: run.status().count_by_state() == {"started": 1})
    command.kill()
    os.kill(find_supervisors(run)[0], signal.SIGKILL)
    own_runs.wait_until(lambda: not run.is_served())
    sentence = (
        f"no worker executes the jobs of this run; resume it with: flowq release {run.run_id}"
    )
    for command_word in ("status", "show"):
        assert sentence in flowq(command_word, run.run_id).stdout
    watching = flowq.start("watch", run.run_id)
    assert watching.stderr is not None
    note = watching.stderr.readline()
    assert sentence in note
    going_on = flowq.start("release", run.run_id)
    own_runs.wait_until(lambda: run.status().jobs["one"].attempts == 2)
    (folder / "pipe").write_text("on\n")
    going_on.communicate(timeout=60)
    watching.communicate(timeout=60)
    assert run.status().state == "succeeded"


def test_a_run_that_shared_its_queues_gets_its_own_when_it_is_released_or_retried(
    flowq: Flowq, folder: Path, own_runs: OwnRuns
) -> None:
    """As an older version submitted it, or a schedule."""
    plan = compile_plan(load(str(folder / "gated.yaml")), {}, imports=False)
    run = submit(plan, own_runs.connection)
    other = Queue(connection=own_runs.connection).enqueue("tasks.f")
    assert run.job_records()["before"].origin == "default"
    going_on = flowq.start("release", run.run_id)
    own_runs.wait_until(lambda: run.status().jobs["gate"].is_asking)
    assert {(job.queue, job.origin) for job in run.job_records().values()} == {
        ("default", f"run.{run.run_id}")
    }
    flowq("cancel", run.run_id)
    going_on.communicate(timeout=60)
    retried = flowq.start("retry", run.run_id)
    own_runs.wait_until(lambda: run.status().jobs["gate"].is_asking)
    flowq("release", run.run_id, "gate")
    retried.communicate(timeout=60)
    assert run.status().state == "succeeded"
    assert other.get_status() == "queued"


def test_a_scheduled_run_without_workers_has_one_remedy_and_is_not_outside_of_runs(
    flowq: Flowq, folder: Path, own_runs: OwnRuns, call: Callable[..., Said]
) -> None:
    (folder / "daily.yaml").write_text("schedule: '30 2 * * *'\njobs: {one: {call: 'tasks:f'}}\n")
    submitted = call("backfill", "daily.yaml", "--from", "2026-09-01", "--to", "2026-09-01").out
    run = Run(submitted.split()[1], own_runs.connection)
    remedy = "start one: flowq worker default\n"
    for word in ("status", "show", "explain"):
        said = call(word, run.run_id).out
        assert (remedy in said, "flowq release" in said) == (True, False), said
    assert count_left_alone(own_runs.connection) == {}
    Queue(connection=own_runs.connection).enqueue("time.time")
    assert count_left_alone(own_runs.connection) == {"default": 1}
    released = flowq("release", run.run_id)
    assert f"run {run.run_id} was already released; executing it here\n" in released.stderr
    assert (released.returncode, run.results()) == (0, {"one": "first"})
