"""What commands print with --json is what the published schema says, key by key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from rq.job import Job

from flowq.cli.schedule import find_scheduled
from flowq.render.json import MAX_RESULTS, load_schema
from flowq.render.lines import format_duration
from flowq.runtime.approvals import say_who
from flowq.runtime.queue import Queue
from flowq.scheduling import Scheduler
from flowq.workers.redis_side import Capacity, RedisSide
from tests.cli.commands import Said

Call = Callable[..., Said]
Ask = Callable[..., Any]

FLOW = """
name: größe
inputs: {who: {default: "漢字"}}
outputs: {said: "${{ jobs.say.result }}", bad: "${{ 1 / jobs.zero.result }}"}
jobs:
  zero: {run: "echo 0", result: json}
  say: {run: "echo hallo ${{ inputs.who }}"}
  flaky: {run: "echo once; test $FLOWQ_ATTEMPT = 2 || exit 7", retries: 1, needs: say}
  bad: {run: "echo oben; exit 3", continue_on_error: true}
  each: {call: "json:dumps", for_each: "${{ range(120) }}", with: {obj: "${{ item }}"}}
  inner: {workflow: inner.yaml, needs: [bad]}
  inners: {workflow: inner.yaml, for_each: [1, 2]}
"""

INNER = """
name: inner
jobs:
  one: {run: "true"}
  two: {run: "true", needs: one}
"""


EXTENDED = ("job", "checked", "picture")
"""Definitions that others add keys to, in an `allOf`."""


def make_strict(schema: Any, *, is_part: bool = False) -> Any:
    """Refuse keys that the schema does not name, so that none is printed undocumented."""
    if isinstance(schema, list):
        return [make_strict(each, is_part=is_part) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref", "").rpartition("/")[2] in EXTENDED and not is_part:
        return {"allOf": [schema], "unevaluatedProperties": False}
    strict = {
        key: {
            name: make_strict(each, is_part=key == "$defs" and name in EXTENDED)
            for name, each in value.items()
        }
        if key in ("properties", "$defs")
        else make_strict(value, is_part=key == "allOf")
        for key, value in schema.items()
    }
    if ("properties" in strict or "allOf" in strict) and not is_part:
        strict["unevaluatedProperties"] = False
    return strict


SCHEMA = load_schema()
STRICT = make_strict(SCHEMA)
OPEN_ENDED = ("server", "plan")
"""Documents with parts that the schema leaves open."""
DEFINITION_BY_KIND = {"job": "show_job", "error": "failure"}


def check(document: Any) -> None:
    kind = document["kind"]
    if kind in OPEN_ENDED:
        Draft202012Validator(SCHEMA).validate(document)
        return
    of_kind = {**STRICT, "$ref": f"#/$defs/{DEFINITION_BY_KIND.get(kind, kind)}"}
    del of_kind["oneOf"]
    for error in Draft202012Validator(of_kind).iter_errors(document):
        raise AssertionError(f"{list(error.absolute_path)}: {error.message[:500]}")
    Draft202012Validator(SCHEMA).validate(document)


@pytest.fixture
def ask(call: Call, redis_url: str) -> Ask:
    """`ask(*words)`: the document that a command prints, which the schema allows."""

    def run(*words: str, code: int = 0, url: bool = True) -> Any:
        said = call(*words, "--json", *(("--redis-url", redis_url) if url else ()))
        assert said.code == code, said.err
        document = json.loads(said.out)
        check(document)
        return document

    return run


@pytest.fixture
def flow(folder: Path) -> str:
    (folder / "flow.yaml").write_text(FLOW, encoding="utf-8")
    (folder / "inner.yaml").write_text(INNER)
    return "flow.yaml"


def find_instants(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if (key.endswith("_at") or key == "at") and value is not None:
                yield value
            else:
                yield from find_instants(value)
    elif isinstance(document, list):
        for each in document:
            yield from find_instants(each)


def test_the_schema_is_valid_and_published(call: Call) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(call("schema", "output").out) == SCHEMA
    assert files("flowq.render").joinpath("output.schema.json").is_file()


def test_a_run_says_everything_in_words_that_all_commands_share(
    ask: Ask, call: Call, flow: str, redis_url: str, connection: redis.Redis
) -> None:
    run = ask("run", flow, "-c", "1")
    jobs, run_id = run["jobs"], run["run"]
    assert (run["workflow"], run["inputs"], run["status"]) == (
        "größe",
        {"who": "漢字"},
        "succeeded",
    )
    assert run["outputs"] == {"said": "hallo 漢字", "bad": None}
    assert "zero" in run["output_errors"]["bad"]
    first, second = jobs["flaky"]["attempts"]
    assert (first["status"], first["retried"], first["error"]["exit_code"]) == ("failed", True, 7)
    assert (second["status"], second["attempt"], second["error"]) == ("finished", 2, None)
    assert first["worker_pid"] == second["worker_pid"]
    bad = jobs["bad"]
    assert (bad["status"], bad["tolerated"]) == ("failed", True)
    assert bad["error"]["exit_code"] == 3
    assert bad["error"]["type"] == "ShellFailed"
    assert {"blocker": "say", "future": "flaky", "on_failure": None} in run["edges"]
    each = jobs["each"]
    assert each["counts"] == {"finished": 120}
    assert len(each["ids"]) == 120
    assert (len(each["items"]), each["items_omitted"]) == (MAX_RESULTS, 20)
    assert all(len(item["attempts"]) == 1 for item in each["items"])
    assert (len(each["results"]), each["results_omitted"]) == (MAX_RESULTS, 20)
    assert each["results"][3] == "3"
    assert jobs["inner"]["attempts"] == []
    assert jobs["inner"]["duration_s"] > 0
    assert all(at.endswith("Z") and datetime.fromisoformat(at) for at in find_instants(run))

    again = ask("status", run_id)
    assert again == ask("show", run_id) == ask("watch", run_id)
    assert {key: again[key] for key in run} == run
    whole = ask("status", run_id, "--results", "--nested")
    assert len(whole["jobs"]["each"]["results"]) == 120
    assert len(whole["jobs"]["each"]["items"]) == 120
    assert not {"results_omitted", "items_omitted"} & set(whole["jobs"]["each"])
    inner = whole["jobs"]["inner"]["jobs"]
    assert {name: len(job["attempts"]) for name, job in inner.items()} == {"one": 1, "two": 1}
    assert inner["one"]["started_at"] == whole["jobs"]["inner"]["started_at"] or (
        inner["one"]["started_at"] > whole["jobs"]["inner"]["started_at"]
    )
    inners = whole["jobs"]["inners"]["items"]
    assert [list(item["jobs"]) for item in inners] == [["one", "two"]] * 2
    ids = [*inner["one"]["ids"], *inners[1]["jobs"]["two"]["ids"]]
    assert ids == [
        ask("show", run_id, name)["job"]["ids"][0] for name in ("inner.one", "inners[1].two")
    ]
    assert all(Job.exists(job_id, connection) for job_id in ids), "RQ calls them so"
    shown = call("show", run_id, "inners", "--redis-url", redis_url).out.splitlines()
    for item in inners:
        assert [format_duration(item["duration_s"])] == [
            line.split()[2] for line in shown if line.startswith(f"✓ {item['name']} ")
        ]
    assert list(ask("status", run_id, "say")["jobs"]) == ["say"]

    shown = ask("show", run_id, "bad")["job"]
    assert shown["traceback"][-1].endswith("exit code 3: oben") or shown["traceback"]
    assert shown["arguments"]["command"] == "echo oben; exit 3"
    assert ask("show", run_id, "each[5]")["job"]["result"] == "5"
    assert ask("show", run_id, "each")["job"]["counts"] == {"finished": 120}
    [listed] = ask("runs")["runs"]
    assert listed["run"] == run_id
    assert listed["submitted_at"] == run["submitted_at"]
    assert listed["submitted_by"] == run["submitted_by"] == say_who()
    assert ask("explain", run_id)["jobs"] == []
    assert ask("graph", "--run", run_id)["edges"] == run["edges"]
    [why] = ask("explain", run_id, "bad")["jobs"]
    assert (why["name"], why["status"]) == ("bad", "failed")
    told = call("status", run_id, "--json", "--redis-url", redis_url).out
    assert "größe" in told
    assert "漢字" in told


def test_lines_of_json_are_the_events_and_then_the_run(
    ask: Ask, call: Call, flow: str, redis_url: str
) -> None:
    said = call("run", flow, "-c", "1", "--json-lines", "--redis-url", redis_url)
    *events, run = [json.loads(line) for line in said.out.splitlines()]
    for document in (*events, run):
        check(document)
    assert {event["kind"] for event in events} == {"event"}
    assert (run["kind"], run["status"]) == ("run", "succeeded")
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert ids == sorted(ids)
    flaky = [event for event in events if event.get("name") == "flaky"]
    assert [event["event"] for event in flaky] == [
        *("queued", "started", "queued", "started", "finished"),
    ]
    assert flaky[2]["error"]["exit_code"] == 7
    assert flaky[2]["duration_s"] == run["jobs"]["flaky"]["attempts"][0]["duration_s"]
    again = call("watch", run["run"], "--json-lines", "--redis-url", redis_url).out
    assert [json.loads(line) for line in again.splitlines()] == [*events, run]


def test_a_run_that_is_submitted_and_one_that_waits(ask: Ask, folder: Path) -> None:
    text = (
        "name: w\njobs:\n  a: {run: 'true', approval: {message: ok?, inputs: {n: {type: int}}}}\n"
    )
    (folder / "wait.yaml").write_text(text)
    run = ask("run", "wait.yaml", "--detach")
    assert run["jobs"]["a"]["approval"]["status"] == "waiting"
    assert run["ended_at"] is None
    [told] = ask("explain", run["run"])["jobs"]
    assert [reason["kind"] for reason in told["reasons"]] == ["approval"]
    for command in ("show", "status", "explain"):
        error = ask(command, run["run"], "b", code=5)["error"]
        assert error["message"].startswith(f"there is no job b in run {run['run']}")


def test_what_looks_at_workflows_only(ask: Ask, flow: str) -> None:
    assert ask("check", flow, url=False)["problems"] == []
    assert len(ask("check", "wrong.yaml", code=3, url=False)["problems"]) == 3
    assert len(ask("check", flow, "none.yaml", code=5, url=False)["targets"]) == 2
    assert ask("plan", flow, url=False)["operations"][-1]["do"] == "release"
    graph = ask("graph", flow, url=False)
    assert {job["name"] for job in graph["jobs"]} >= {"say", "each"}
    assert ask("server", "status", url=False)["kind"] == "server"


def test_schedules_are_listed(ask: Ask, call: Call, folder: Path, redis_url: str) -> None:
    assert ask("schedule", "--list")["schedules"] == []
    assert call("schedule", "--list", "--redis-url", redis_url).out == "no schedules\n"
    (folder / "daily.yaml").write_text(
        "schedule: {cron: '30 2 * * *', timezone: Asia/Tokyo}\njobs: {a: {run: date}}\n"
    )
    connection = redis.Redis.from_url(redis_url)
    (workflow,) = find_scheduled(str(folder / "daily.yaml")).values()
    Scheduler(workflow, {}, connection).tick()
    (daily,) = ask("schedule", "--list")["schedules"]
    assert (daily["workflow"], daily["paused"], daily["runs"]) == ("daily", False, [])
    assert daily["schedules"] == [
        {"cron": "30 2 * * *", "timezone": "Asia/Tokyo", "catch_up": "none"}
    ]
    assert daily["next_due_at"].endswith("T17:30:00.000000Z")
    table = call("schedule", "--list", "--redis-url", redis_url).out.splitlines()
    assert table[0].split()[:4] == ["WORKFLOW", "SCHEDULE", "NEXT", "DUE"]
    assert "30 2 * * * (Asia/Tokyo)" in table[1]
    call("schedule", "daily.yaml", "--pause", "--redis-url", redis_url)
    assert ask("schedule", "--list")["schedules"][0]["paused"] is True
    for words in (["--json", "daily.yaml"], ["--list", "--pause"], []):
        assert call("schedule", *words, "--redis-url", redis_url).code == 2


def test_what_looks_at_workers(ask: Ask, connection: redis.Redis) -> None:
    assert ask("wip")["jobs"] == []
    assert ask("workers")["workers"] == []
    queue = Queue(connection=connection)
    queue.enqueue("operator.neg", 1)
    side = RedisSide(connection, "w", ["default"], 30)
    [claim] = side.turn([], Capacity(1, 1, 1)).claims
    side.beat(60, 60, [(claim, False)])
    [job] = ask("wip")["jobs"]
    assert (job["job_id"], job["worker"], job["run"]) == (claim.job_id, "w", None)
    assert job["status"] == "lost", "nobody of that name is connected"
    assert ask("doctor")["findings"] == []


def test_workers_are_listed_with_their_hosts(
    ask: Ask, call: Call, connection: redis.Redis, redis_url: str
) -> None:
    from flowq.workers import Worker

    worker = Worker(["mails", "default"], connection=connection, name="w")
    worker.register_birth()  # type: ignore[no-untyped-call]
    [told] = ask("workers")["workers"]
    assert (told["worker"], told["queues"]) == ("w", ["mails", "default"])
    assert (told["host"], told["worker_pid"]) == (worker.hostname, worker.pid)
    shown = call("workers", "--redis-url", redis_url).out
    assert "mails, default" in shown


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["status", "k3v9x0q2m5ab"], 5, "RunNotFound"),
        (["show", "last"], 5, "NotFound"),
        (["run", "none.yaml"], 5, "WorkflowNotFound"),
        (["run", "wrong.yaml"], 3, "WorkflowInvalid"),
        (["plan", "wrong.yaml"], 3, "WorkflowInvalid"),
        (["runs", "--state", "ready"], 2, "UsageError"),
        (["explain"], 2, "UsageError"),
    ],
)
def test_an_error_is_a_document_too(
    call: Call, redis_url: str, words: list[str], code: int, kind: str
) -> None:
    url = () if words[0] == "plan" else ("--redis-url", redis_url)
    said = call(*words, "--json", *url)
    document = json.loads(said.out)
    check(document)
    assert said.code == document["error"]["exit_code"] == code
    assert document["error"]["type"] == kind
    assert said.err, "people read it there"
    assert bool(document.get("problems")) == (kind == "WorkflowInvalid")


def test_the_items_of_a_group_in_one_state_are_listed_in_pages(
    ask: Ask, call: Call, folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "odd.yaml").write_text(
        "name: odd\njobs:\n"
        "  page: {run: 'exit ${{ item % 2 }}', for_each: '${{ range(12) }}'}\n"
        "  other: {run: 'true'}\n"
    )
    run_id = ask("run", "odd.yaml", "-c", "1", code=1)["run"]
    odd = [f"page[{number}]" for number in range(1, 12, 2)]

    def list_items(*words: str) -> list[str]:
        job = ask("show", run_id, "page", *words)["job"]
        assert job["counts"] == {"finished": 6, "failed": 6}
        assert len(job["items"]) + job["items_omitted"] == 12
        return [item["name"] for item in job["items"]]

    def show(*words: str) -> Said:
        return call("show", run_id, *words, "--redis-url", redis_url)

    assert list_items("--state", "failed") == odd
    assert list_items("--state", "failed", "-n", "4") == odd[:4]
    assert list_items("--state", "failed", "-n", "4", "--after", odd[3]) == odd[4:]
    assert list_items("--state", "failed", "--after", "page[4]") == odd[2:]
    assert list_items("--state", "skipped") == []

    first = show("page", "--state", "failed", "-n", "4")
    assert [name in first.out for name in odd] == [True] * 4 + [False] * 2
    assert "6 finished, 6 failed" in first.out
    assert "page[0]" not in first.out
    words = first.out.partition("more: flowq ")[2].split(" --redis-url")[0]
    assert words == f"show {run_id} page --state failed --after 'page[7]' -n 4"
    second = show("page", "--state", "failed", "-n", "4", "--after", odd[3])
    assert [name in second.out for name in odd] == [False] * 4 + [True] * 2
    assert "more:" not in second.out
    assert "no item is skipped" in show("page", "--state", "skipped").out

    def tell() -> list[str]:
        pages = [show("page", "--state", state, "-n", "4") for state in ("finished", "skipped")]
        return [*(each.out for each in pages), call("status", run_id, "page", *url).out]

    url = ("--redis-url", redis_url)
    told = tell()
    monkeypatch.setattr("flowq.runtime.counts.FEW_EVENTS", 0)  # so that it is read from counts
    assert tell() == told
    assert show("page", "--state", "failed", "-n", "4").out == first.out

    for words, code, said in (
        (["other", "--state", "failed"], 2, "other is not a group"),
        (["page[1]", "--state", "failed"], 2, "page[1] is not a group"),
        (["pages", "--state", "failed"], 5, "no job pages"),
        (["--state", "failed"], 2, "flowq show RUN GROUP --state failed"),
        (["page", "--state", "failed", "-f"], 2, "flowq show RUN GROUP"),
        (["page", "--state", "failed", "--after", "page[12]"], 5, "no job page[12]"),
        (["page", "-n", "4"], 2, "need --state"),
    ):
        for json_too in ([], ["--json"]) if "-f" not in words else ([],):
            done = show(*words, *json_too)
            assert (done.code, said in done.out + done.err) == (code, True), done
