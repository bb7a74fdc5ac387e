"""`flowq run`: what it prints, and the exit code that scripts rely on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from redis import Redis
from rq.serializers import JSONSerializer

from flowq import Queue, client
from flowq.server.state import find
from tests.cli.commands import Flowq


def test_a_workflow_runs_on_a_private_server_and_its_run_can_be_looked_at_later(
    flowq: Flowq, folder: Path
) -> None:
    done = flowq("run", "sandwich.yaml", "-i", "slices=3")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[1:3] for line in lines if "started" in line] == [
        ["cut", "started"],
        ["spread", "started"],
        ["serve", "started"],
    ]
    assert lines[-2].startswith("✓ sandwich succeeded in ")
    assert lines[-1] == "  serve = '3 on a plate'"
    assert stat.S_IMODE(find(folder).path.stat().st_mode) == 0o700
    assert {file.name for file in folder.iterdir() if file.name.startswith(".")} == set()

    run_id = lines[-2].split()[-1]
    status = flowq("status", run_id, "--json")
    assert json.loads(status.stdout)["jobs"]["serve"]["result"] == "3 on a plate"
    assert run_id in flowq("runs").stdout
    assert "cutting 3 slices" in flowq("show", run_id, "cut").stdout


def test_json_is_alone_on_stdout_also_when_the_users_modules_print(
    flowq: Flowq, folder: Path
) -> None:
    (folder / "kitchen.py").write_text(
        "import os\nprint('imported')\nos.system('echo a child of it')\n"
        + (folder / "kitchen.py").read_text().replace("from __future__ import annotations", "")
    )

    done = flowq("run", "sandwich.yaml", "--json")

    assert done.returncode == 0
    document = json.loads(done.stdout)
    times = ["submitted_by", "submitted_at", "started_at", "ended_at", "duration_s"]
    facts = ["inputs", "labels", "counts", "jobs", "edges"]
    assert list(document) == ["v", "kind", "run", "workflow", "status", *times, *facts]
    assert (document["workflow"], document["status"]) == ("sandwich", "succeeded")
    [attempt] = document["jobs"]["cut"].pop("attempts")
    assert (attempt["status"], attempt["retried"], attempt["error"]) == ("finished", False, None)
    times = ("queued_at", "started_at", "ended_at", "duration_s")
    assert document["jobs"]["cut"] == {
        "status": "finished",
        "ids": [f"{document['run']}-cut"],
        "reason": None,
        "tolerated": False,
        **{time: attempt[time] for time in times},
        "error": None,
        "result": ["slice 1", "slice 2"],
    }
    assert "imported" in done.stderr
    assert "a child of it" in done.stderr
    assert "cut started" in done.stderr


def test_a_failed_run_shows_the_users_own_lines_and_how_to_see_the_rest(flowq: Flowq) -> None:
    done = flowq("run", "burnt.yaml")

    assert done.returncode == 1
    assert "✗ burnt failed in " in done.stdout
    assert "1 failed, 1 finished, 1 skipped" in done.stdout
    assert "ValueError: rye is black" in done.stdout
    assert 'raise ValueError(f"{toast} is black")' in done.stdout
    assert "site-packages" not in done.stdout
    assert "  | minute 30" in done.stdout
    assert "  | minute 10\n" not in done.stdout, "the last 20 lines are enough"
    assert "Traceback" not in done.stdout + done.stderr

    hint = done.stdout.splitlines()[-1]
    assert hint.startswith("the rest: flowq show ")
    shown = flowq(*hint.split()[3:])
    assert "Traceback (most recent call last):" in shown.stdout
    assert "runtime/rq.py" not in shown.stdout
    assert "frames of flowq and RQ left out; -v shows all)" in shown.stdout
    assert "runtime/rq.py" in flowq(*hint.split()[3:], "-v").stdout
    assert "  minute 1\n" in shown.stdout


def test_verbose_shows_what_jobs_print_with_their_names(flowq: Flowq) -> None:
    done = flowq("run", "sandwich.yaml", "-v")

    assert "cut | cutting 2 slices\n" in done.stdout
    assert "serve | served\n" in done.stdout


def test_quiet_says_nothing_about_a_success(flowq: Flowq) -> None:
    done = flowq("run", "sandwich.yaml", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [["run", "--dry-run"], ["plan"]])
def test_a_dry_run_prints_the_plan_and_leaves_nothing_behind(
    flowq: Flowq, folder: Path, words: list[str]
) -> None:
    done = flowq(*words, "sandwich.yaml", "-i", "slices=4")

    assert done.returncode == 0
    assert "slices = 4" in done.stdout
    assert "release  serve" in done.stdout
    assert not find(folder).path.exists()


def test_inputs_come_from_a_file_and_from_options_which_win(flowq: Flowq, folder: Path) -> None:
    (folder / "inputs.yaml").write_text("slices: 5\ntopping: honey\n")

    done = flowq("plan", "sandwich.yaml", "--inputs", "inputs.yaml", "-i", "topping=a=b")

    assert "slices = 5" in done.stdout
    assert "topping = 'a=b'" in done.stdout


def test_inputs_come_from_the_environment_too_and_all_else_wins(flowq: Flowq, folder: Path) -> None:
    flowq.env.update(FLOWQ_INPUT_SLICES="7", FLOWQ_INPUT_TOPPING="jam", FLOWQ_INPUT_OTHER="x")

    done = flowq("plan", "sandwich.yaml", "-i", "topping=honey")

    assert "slices = 7" in done.stdout
    assert "topping = 'honey'" in done.stdout


def test_detach_prints_the_id_and_the_run_goes_on_to_its_end(flowq: Flowq, folder: Path) -> None:
    started = flowq("run", "door.yaml", "-i", f"file={folder}/key", "--detach")
    run_id = started.stdout.strip()
    assert (started.returncode, len(run_id)) == (0, 12)

    (folder / "key").touch()
    watched = flowq("watch", run_id)

    assert watched.returncode == 0
    assert "wait finished" in watched.stdout
    assert "✓ door succeeded" in watched.stdout


MEETING = """
name: meeting
jobs:
  meet:
    for_each: ${{ range(3) }}
    timeout: 20s
    run: touch here-${{ item }}; until [ -e here-0 -a -e here-1 -a -e here-2 ]; do sleep 0.02; done
"""


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_group_gets_as_many_workers_as_were_asked_for(
    flowq: Flowq, folder: Path, redis_url: str, is_shared: bool
) -> None:
    (folder / "meeting.yaml").write_text(MEETING)
    server = ["--redis-url", redis_url] if is_shared else []
    done = flowq("run", "meeting.yaml", "-c", "3", *server)
    assert done.returncode == 0, done.stdout


def test_with_a_url_and_workers_of_its_own_the_run_needs_nobody_else(
    flowq: Flowq, redis_url: str, connection: Redis
) -> None:
    done = flowq("run", "sandwich.yaml", "--redis-url", redis_url, "-c", "1")

    assert done.returncode == 0
    assert [record.state for record in client.list_runs(connection)] == ["succeeded"]


def test_a_worker_and_a_run_find_each_other_by_the_variable(flowq: Flowq, redis_url: str) -> None:
    detached = flowq("run", "burnt.yaml", "--detach", FLOWQ_REDIS_URL=redis_url)
    assert "no worker listens on: default" in detached.stderr

    worker = flowq("worker", "--burst", FLOWQ_REDIS_URL=redis_url)
    watched = flowq("watch", detached.stdout.strip(), FLOWQ_REDIS_URL=redis_url)

    assert worker.returncode == 0
    assert watched.returncode == 1
    assert "toast failed" in watched.stdout


def test_a_worker_reads_jobs_that_were_serialized_as_json(
    flowq: Flowq, redis_url: str, connection: Redis
) -> None:
    queue = Queue(connection=connection, serializer=JSONSerializer)
    job = queue.enqueue("kitchen.cut", slices=2)

    worker = flowq("worker", "--burst", "--serializer", "json", "--redis-url", redis_url)

    assert worker.returncode == 0
    assert job.return_value() == ["slice 1", "slice 2"]


def test_no_import_leaves_the_code_to_the_workers(flowq: Flowq, folder: Path) -> None:
    (folder / "kitchen.py").unlink()

    assert flowq("plan", "sandwich.yaml").returncode == 3
    assert flowq("plan", "sandwich.yaml", "--no-import").returncode == 0


def test_functions_beside_a_nested_file_are_importable_too(flowq: Flowq, folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "beside.py").write_text("def say(word):\n    return word * 2\n")
    (folder / "inner" / "photo.yaml").write_text(
        "inputs: {word: {}}\noutputs: {said: '${{ jobs.say.result }}'}\n"
        "jobs: {say: {call: 'beside:say', with: {word: '${{ inputs.word }}'}}}\n"
    )
    (folder / "outer.yaml").write_text(
        "outputs: {said: '${{ jobs.one.result.said }}'}\n"
        "jobs: {one: {workflow: ./inner/photo.yaml, with: {word: tick}}}\n"
    )

    done = flowq("run", "outer.yaml")

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "  said = 'ticktick'")


def test_a_module_that_workers_cannot_import_is_named(flowq: Flowq, folder: Path) -> None:
    (folder / "away.yaml").write_text(
        "inputs: {word: {default: tick}}\n"
        "jobs:\n"
        "  first: {run: echo a}\n"
        "  one: {call: 'nowhere:say', with: {word: '${{ jobs.first.result }}'}}\n"
    )

    done = flowq("run", "away.yaml", "--no-import")

    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'nowhere'" in done.stdout
    run_id = flowq("runs").stdout.splitlines()[1].split()[0]
    told = flowq("explain", run_id, "one").stdout.splitlines()
    assert told[-2:] == ["  - it was executed, and failed", f"    flowq show {run_id} one"]


def test_names_that_are_not_utf8_are_shown_everywhere(flowq: Flowq, folder: Path) -> None:
    (folder / "in").mkdir()
    latin = os.fsdecode(b"caf\xe9.txt")
    (folder / "in" / latin).write_text("found")
    (folder / "files.yaml").write_text(
        "inputs: {word: {type: str}}\n"
        "jobs:\n"
        "  ls: {run: 'ls in; echo note >&2', result: lines}\n"
        "  cat: {for_each: '${{ jobs.ls.result }}', key: item, run: 'cat in/${{ item }}'}\n"
        "  odd: {run: 'cat in/${{ inputs.word }}; exit 1', needs: [cat]}\n"
        "outputs: {names: '${{ jobs.ls.result }}'}\n"
    )

    done = flowq("run", "files.yaml", "-i", f"word={latin}", "--json")

    document = json.loads(done.stdout)
    assert document["outputs"]["names"] == [latin]
    assert document["jobs"]["cat"]["results"] == ["found"]
    assert r"cat[caf\xe9.txt] finished" in done.stderr
    for encoding in ("utf-8", "ascii"):
        shown = flowq("show", document["run"], r"cat[caf\xe9.txt]", PYTHONIOENCODING=encoding)
        assert "'found'" in shown.stdout
        shown = flowq("show", document["run"], "ls", PYTHONIOENCODING=encoding)
        assert r"  caf\xe9.txt" in shown.stdout
        assert "  note" in shown.stdout
        assert repr(latin) in shown.stdout
        shown = flowq("show", document["run"], PYTHONIOENCODING=encoding)
        assert repr(latin) in shown.stdout
