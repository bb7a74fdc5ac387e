"""The commands that look at workflows and at runs; most of them within this process."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from flowq.cli.main import COMMANDS
from flowq.metrics import render_metrics
from flowq.server.state import find
from tests.cli.commands import Flowq, Said

Call = Callable[..., Said]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run"], 2, "Missing argument 'TARGET'"),
        (["run", "sandwich.yaml", "--colour"], 2, "No such option"),
        (["rum", "sandwich.yaml"], 2, "did you mean 'run'?"),
        (["sandwich.yaml"], 2, "flowq run sandwich.yaml"),
        (["run", "sandwich.yaml", "-i", "slices"], 2, "is not name=value"),
        (["run", "sandwich.yaml", "-i", "a=1", "-i", "a=2"], 2, "given twice"),
        (["run", "sandwich.yaml", "-c", "0"], 2, "0 is not in the range"),
        (["run", "sandwich.yaml", "-i", "slices=many"], 3, "slices"),
        (["run", "sandwich.yaml", "-i", "slice=1"], 3, "slices"),
        (["run", "wrong.yaml"], 3, "3 problems"),
        (["graph", "cycle.yaml"], 3, "a → b → a"),
        (["run", "sandwiches.yaml"], 5, "there is no such file"),
        (["run", "nothing:flow"], 5, "there is no module nothing"),
        (["run", "sandwich"], 5, "did you mean sandwich.yaml?"),
        (["run", "kitchen:cut"], 5, "kitchen has no workflow cut"),
        (["run", ":flow"], 5, "it names no module"),
        (["run", "sandwich.yaml", "--redis-url", "redis://u:secret@localhost:1/0"], 4, "***"),
        (["run", "sandwich.yaml", "--redis-url", "localhost"], 4, "redis://HOST"),
        (["status", "k3v9x0q2m5ab"], 5, "there are no runs in"),
        (["watch", "k3v9x0q2m5ab"], 5, "there are no runs in"),
        (["cancel", "k3v9x0q2m5ab"], 5, "there are no runs in"),
        (["show", "k3v9x0q2m5ab"], 5, "there are no runs in"),
        (["worker"], 5, "there are no runs in"),
    ],
)
def test_mistakes_have_an_exit_code_and_a_sentence_and_leave_nothing_behind(
    call: Call, folder: Path, words: list[str], code: int, said: str
) -> None:
    (folder / "cycle.yaml").write_text(
        "name: c\njobs:\n"
        "  a: {call: kitchen:serve, needs: b}\n"
        "  b: {call: kitchen:serve, needs: a}\n"
    )

    done = call(*words)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "secret" not in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 8
    assert not find(folder).path.exists()


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ("runs", "no runs\n"),
        ("runs --json", '{\n  "v": 1,\n  "kind": "runs",\n  "runs": []\n}\n'),
        ("wip", "no job is being executed\n"),
        ("wip --watch", "no job is being executed\n"),
        ("workers", "no workers\n"),
        ("events", ""),
        ("schedule --list", "no schedules\n"),
        ("schedule --list --json", '{\n  "v": 1,\n  "kind": "schedules",\n  "schedules": []\n}\n'),
        ("metrics", render_metrics(None)),
        ("doctor", "nothing to repair\n"),
        ("doctor --uninstall", "nothing to remove\n"),
        ("worker --burst", ""),
    ],
)
def test_where_nothing_ever_ran_there_is_nothing_to_do_which_is_no_mistake(
    call: Call, folder: Path, words: str, out: str
) -> None:
    done = call(*words.split())
    assert (done.code, done.out) == (0, out)
    assert done.err.startswith(f"flowq: there are no runs in {folder}: ")
    assert "flowq run starts one with workers; " in done.err
    assert "--redis-url" in done.err
    assert not find(folder).path.exists()


def test_check_tells_every_problem_with_its_place_and_a_hint(call: Call) -> None:
    done = call("check", "wrong.yaml")

    assert (done.code, done.err) == (3, "")
    lines = done.out.splitlines()
    assert sum(line.startswith("wrong.yaml:") for line in lines) == 3
    assert any(line.startswith("    ") for line in lines)
    assert lines[-1] == "3 problems"


def test_check_says_that_all_is_well(call: Call) -> None:
    assert call("check", "sandwich.yaml") == Said(0, "sandwich.yaml: ok, 3 jobs\n", "")


def test_check_as_json_has_the_problems_with_their_places(call: Call) -> None:
    done = call("check", "wrong.yaml", "--json")

    document = json.loads(done.out)
    assert done.code == 3
    assert document["target"] == "wrong.yaml"
    places = [(each["file"], each["line"], each["severity"]) for each in document["problems"]]
    assert ("wrong.yaml", 5, "error") in places
    assert places == sorted(places)
    assert json.loads(call("check", "sandwich.yaml", "--json").out)["problems"] == []


def test_check_without_imports_asks_for_less(call: Call) -> None:
    assert "1 problem\n" in call("check", "wrong.yaml", "--no-import").out


def test_a_graph_is_drawn_in_each_format_and_to_files_by_their_ending(
    call: Call, folder: Path
) -> None:
    assert "● cut" in call("graph", "sandwich.yaml").out
    assert call("graph", "sandwich.yaml", "--format", "mermaid").out.count("-->") >= 2
    assert call("graph", "sandwich.yaml", "--format", "dot").out.startswith("digraph")
    edges = json.loads(call("graph", "sandwich.yaml", "-f", "json").out)["edges"]
    assert {"blocker": "cut", "future": "spread", "on_failure": None} in edges

    assert call("graph", "sandwich.yaml", "-o", str(folder / "s.dot")) == Said(0, "", "")
    assert (folder / "s.dot").read_text().startswith("digraph")
    assert call("graph", "sandwich.yaml", "-o", str(folder / "no" / "s.dot")).code == 2
    for ending, start in ((".svg", b"<svg"), (".html", b"<!doctype html>"), (".png", b"\x89PNG")):
        file = folder / f"s{ending}"
        assert call("graph", "sandwich.yaml", "-o", str(file)) == Said(0, "", "")
        assert file.read_bytes().startswith(start)


def test_an_ending_that_stands_for_no_format_is_refused_and_nothing_written(
    call: Call, folder: Path
) -> None:
    for name, said in (
        ("s.pdf", "the extension '.pdf' is not a known format"),
        ("s", "its extension names no format"),
    ):
        done = call("graph", "sandwich.yaml", "-o", str(folder / name))
        assert done.code == 2
        assert said in done.err
        assert "use one of .txt, .mmd, .dot, .svg, .png, .html, .json, or --format" in done.err
        assert not (folder / name).exists()
    assert call("graph", "sandwich.yaml", "-o", str(folder / "s.pdf"), "-f", "svg").code == 0


def test_a_graph_can_be_limited_to_what_is_near_a_job_or_to_levels(call: Call) -> None:
    document = json.loads(call("graph", "sandwich.yaml", "--focus", "cut", "-f", "json").out)
    assert "cut" in {job["name"] for job in document["jobs"]}
    done = call("graph", "sandwich.yaml", "--focus", "cutt")
    assert done.code == 2
    assert "did you mean 'cut'?" in done.err
    assert call("graph", "sandwich.yaml", "--levels").out.startswith("level 1")


def test_a_graph_opens_in_the_browser(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    assert call("graph", "sandwich.yaml", "--open").code == 0
    page = Path(url2pathname(urlparse(opened[0]).path))
    assert page.read_text().startswith("<!doctype html>")
    assert call("graph", "sandwich.yaml", "-o", str(folder / "s.svg"), "--open").code == 0
    assert opened[1].endswith("/s.svg")
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert "no browser was found; open " in call("graph", "sandwich.yaml", "--open").err


def test_a_part_of_a_workflow_is_planned_drawn_and_submitted(call: Call, redis_url: str) -> None:
    plan = call("plan", "sandwich.yaml", "--only", "cut, spread").out
    assert [
        line for line in plan.splitlines() if "left out of this run" in line and "serve" in line
    ]
    drawn = json.loads(call("graph", "gate.yaml", "--from", "open", "--skip", "last", "--json").out)
    statuses = {job["name"]: job.get("status") for job in drawn["jobs"]}
    assert statuses == {"last": "skipped", "shut": "skipped", "open": None}
    words = ("--redis-url", redis_url, "--detach", "--json")
    run = json.loads(call("run", "gate.yaml", "--only", "open", "--only", "last", *words).out)
    operations = json.loads(call("plan", "gate.yaml", "--skip", "shut", "--json").out)["operations"]
    assert [each["name"] for each in operations if each.get("if_") is False] == ["shut"]
    assert run["jobs"]["shut"]["reason"] == "left out of this run"
    for command in ("run", "plan", "graph"):
        refused = call(command, "sandwich.yaml", "--only", "serve")
        assert (refused.code, refused.out) == (2, "")
        assert "job serve reads jobs.spread.result in its `with`, but spread" in refused.err
    both = call("graph", "--run", "last", "--only", "open")
    assert (both.code, both.out) == (2, "")
    assert "a run shows what it left out" in both.err


def test_a_plan_as_json_has_its_operations(call: Call) -> None:
    document = json.loads(call("plan", "sandwich.yaml", "--json").out)

    verbs = [operation["do"] for operation in document["operations"]]
    assert verbs == ["enqueue"] * 3 + ["commit"] + ["release"] * 2


def test_the_runs_of_a_server_are_listed_shown_and_canceled(call: Call, redis_url: str) -> None:
    url = ("--redis-url", redis_url)
    assert call("runs", *url).out == "no runs\n"
    run_id = call("run", "sandwich.yaml", "--detach", *url).out.strip()

    assert run_id in call("runs", *url).out
    assert 'flowq_runs{state="running"} 1.0\n' in call("metrics", *url).out
    assert "queued" in call("status", run_id, *url).out
    assert "slices = 2" in call("show", run_id, *url).out
    assert "kitchen:cut(slices=2)" in call("show", run_id, "cut", *url).out
    assert call("wip", *url).out == "no job is being executed\n"
    misspelt = call("show", run_id, "cud", *url)
    assert (misspelt.code, "did you mean 'cut'?" in misspelt.err) == (5, True)

    assert call("cancel", run_id, *url).out == f"run {run_id} is canceled\n"
    assert json.loads(call("status", run_id, "--json", *url).out)["status"] == "canceled"
    again = call("cancel", run_id, *url)
    assert (again.code, again.err) == (5, f"flowq: run {run_id} has ended: canceled\n")
    assert call("watch", run_id, *url).code == 1
    assert call("status", "nope", *url).code == 5


def test_every_command_has_help_with_an_example(call: Call) -> None:
    overview = call("--help")
    assert overview.code == 0
    for name, line in COMMANDS.items():
        assert f"{name} " in overview.out
        done = call(name, "--help")
        assert done.code == 0
        assert f"  flowq {name}" in done.out, name
        assert line.rstrip(".").split()[0] in done.out


def test_help_of_run_lists_the_inputs_of_the_workflow(call: Call) -> None:
    out = call("run", "sandwich.yaml", "--help").out

    assert "-i slices=INT" in out
    assert "how many  [default: 2]" in out


def find_modules(flowq: Flowq, *words: str) -> tuple[set[str], str]:
    """Return the modules that a command has loaded at its end, and what it printed."""
    code = (
        "import sys\n"
        "from flowq.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=flowq.env, capture_output=True, text=True, check=True)
    return set(done.stderr.split()), done.stdout


SLOW = {"networkx", "yaml", "pydantic", "jinja2", "rich", "graphlay", "resvg_py", "webbrowser"}


def test_help_loads_nothing_that_takes_long(flowq: Flowq) -> None:
    loaded, printed = find_modules(flowq, "--help")

    slow = SLOW | {"rq", "redis", "logging", "asyncio", "flowq.pictures"}
    assert "Usage: flowq" in printed
    assert not slow & loaded


def test_the_status_of_a_run_loads_only_what_reads_and_shows_it(
    flowq: Flowq, call: Call, redis_url: str
) -> None:
    detached = call("run", "sandwich.yaml", "--detach", "--redis-url", redis_url)
    assert detached.code == 0

    loaded, printed = find_modules(flowq, "status", "last", "--redis-url", redis_url)

    rooms = {"pictures", "workers", "functions", "planner", "checks", "graph", "declare"}
    rooms |= {"commands", "expressions", "plan", "spec", "inputs", "render.json"}
    rooms |= {f"runtime.{name}" for name in ("job", "queue", "planned", "results", "explain")}
    assert "sandwich" in printed
    assert not (SLOW | {f"flowq.{name}" for name in rooms}) & loaded


def test_the_status_of_a_large_run_is_drawn_from_its_counts(
    call: Call, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ("--redis-url", redis_url)
    assert call("run", "sandwich.yaml", "--detach", *url).code == 0
    folded = call("status", "last", *url).out.splitlines()
    monkeypatch.setattr("flowq.runtime.counts.FEW_EVENTS", 0)
    monkeypatch.setattr("flowq.runtime.runs.get_status", None)  # which folds the events

    counted = call("status", "last", *url).out.splitlines()
    assert len(counted) == 4
    assert counted[1:] == folded[1:]  # the first line has how long the run takes


def test_the_version_is_told(call: Call) -> None:
    assert call("--version").out.startswith("flowq, version ")


def test_a_mistake_of_ours_is_one_line_and_a_traceback_on_request(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(target: str, imports: bool) -> None:
        raise LookupError("no such drawer")

    monkeypatch.setattr("flowq.cli.check.load", break_down)

    brief, long = call("check", "sandwich.yaml"), call("check", "sandwich.yaml", "-v")

    assert (brief.code, long.code) == (1, 1)
    assert "unexpected LookupError: no such drawer" in brief.err
    assert "please report it" in brief.err
    assert "Traceback" not in brief.err
    assert "Traceback" in long.err


def test_outputs_are_shown_at_the_end_of_a_run_and_later(flowq: Flowq, folder: Path) -> None:
    (folder / "counted.yaml").write_text(
        "outputs:\n"
        "  words: ${{ jobs.count.result }}\n"
        "  bad: ${{ jobs.count.result.x }}\n"
        "jobs:\n"
        "  count: {run: echo 12, result: json}\n"
        "  last: {needs: count, run: echo no output}\n"
    )
    done = flowq("run", "counted.yaml", "--json")

    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["outputs"] == {"words": 12, "bad": None}
    for text in (done.stderr, flowq("status", document["run"]).stdout):
        lines = text.splitlines()
        assert "  words = 12" in lines
        assert [line for line in lines if line.startswith("  bad has no value: FQ305 ")]
        assert "no output" not in text
    again = flowq("status", document["run"], "--json")
    assert json.loads(again.stdout)["outputs"] == document["outputs"]
    assert "output bad has no value: FQ305" in again.stderr


def test_a_run_is_explained_by_its_jobs(call: Call, redis_url: str) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "sandwich.yaml", "--detach", *url).out.strip()

    explained = call("explain", run_id, *url).out
    assert explained.splitlines()[0] == f"cut ({run_id}-cut) is queued"
    assert f"serve ({run_id}-serve) is deferred\n  - it waits for spread\n" in explained
    assert "Traceback" not in explained
    misspelt = call("explain", run_id, "cud", *url)
    assert (misspelt.code, misspelt.err) == (
        5,
        f"flowq: there is no job cud in run {run_id}; did you mean 'cut'?\n",
    )
    assert call("runs", "-n", "99999999999999999999", *url).code == 2
    call("cancel", run_id, *url)
    assert "the run was canceled" in call("explain", run_id, *url).out
    assert call("explain", "nope", *url).code == 5


def test_a_job_that_its_own_condition_skipped_is_explained_by_it(
    flowq: Flowq, folder: Path
) -> None:
    (folder / "iffy.yaml").write_text(
        "inputs: {publish: {type: bool, default: false}}\n"
        "jobs:\n  build: {run: echo 1}\n"
        "  publish: {needs: build, if: inputs.publish, run: echo 2}\n"
    )
    run_id = json.loads(flowq("run", "iffy.yaml", "--json").stdout)["run"]

    why = "its `if` is false: inputs.publish"
    explained = flowq("explain", run_id).stdout
    assert explained == f"publish ({run_id}-publish) is skipped\n  - {why}\n"
    assert f"skipped, {why}\n" in flowq("status", run_id).stdout
