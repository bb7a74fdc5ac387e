"""How runs are named on the command line: by id, by its beginning, as `last`; and how found."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from flowq.render.lines import format_age
from flowq.runtime import keys, run_lists
from flowq.runtime.queue import Queue
from tests.cli.commands import Said

Call = Callable[..., Said]

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def url(redis_url: str) -> tuple[str, str]:
    """The option that names the server."""
    return "--redis-url", redis_url


def submit(call: Call, url: tuple[str, str], target: str = "sandwich.yaml") -> str:
    return call("run", target, "--detach", *url).out.strip()


def shown(call: Call, *words: str) -> str:
    """The run that `status --json` finds."""
    said = call("status", *words, "--json")
    assert said.code == 0, said.err
    return str(json.loads(said.out)["run"])


def test_a_run_is_named_by_its_id_or_the_beginning_of_it(call: Call, url: tuple[str, str]) -> None:
    run_ids = [submit(call, url) for _ in range(3)]
    for run_id in run_ids:
        unique = next(
            run_id[:length]
            for length in range(3, len(run_id) + 1)
            if sum(other.startswith(run_id[:length]) for other in run_ids) == 1
        )
        assert shown(call, unique, *url) == run_id
        assert shown(call, run_id, *url) == run_id


def test_last_is_the_newest_run_and_numbers_count_back(call: Call, url: tuple[str, str]) -> None:
    none = call("status", "last", *url)
    assert (none.code, none.err) == (5, "flowq: there are no runs\n")
    first, second = submit(call, url), submit(call, url)
    assert shown(call, "last", *url) == shown(call, "-1", *url) == second
    assert shown(call, "-2", *url) == first
    assert call("status", "-3", *url).err == "flowq: there are no 3 runs\n"
    assert call("cancel", "-2", *url).out == f"run {first} is canceled\n"
    assert "No such option" in call("runs", "-2", *url).err


def test_a_beginning_that_several_ids_have_is_refused_with_them(
    call: Call, url: tuple[str, str], connection: redis.Redis
) -> None:
    run_id = submit(call, url)
    connection.zadd(keys.RUNS, {f"{run_id[:4]}other": 1})
    said = call("cancel", run_id[:4], *url)
    assert said.code == 5
    assert f"2 runs begin with {run_id[:4]}: " in said.err
    assert run_id in said.err
    assert shown(call, run_id, *url) == run_id


@pytest.mark.parametrize("word", ["*", "?", "[a-z]*", "", "^", "\\", "nosuch", "last:0", "-0"])
def test_what_is_no_beginning_names_no_run(call: Call, url: tuple[str, str], word: str) -> None:
    submit(call, url)
    said = call("cancel", word, *url)
    assert said.code in (2, 5)
    assert said.out == ""


def test_a_slip_of_the_finger_names_no_run(call: Call, url: tuple[str, str]) -> None:
    run_id = submit(call, url)
    for word in (run_id[:1], run_id[:2]):
        said = call("cancel", word, *url)
        assert said.code == 5
        assert "write 3 letters of its id, or more" in said.err
    assert shown(call, run_id[:3], *url) == run_id


def test_the_id_of_a_job_goes_before_the_beginning_of_a_run(
    call: Call, url: tuple[str, str], connection: redis.Redis
) -> None:
    run_id = submit(call, url)
    job_id = run_id[:4]
    queue = Queue("other", connection=connection)
    future = queue.enqueue("kitchen.say", "done", deferred=True, job_id=job_id)
    assert f"job {job_id} is released" in call("release", job_id, *url).err
    assert future.get_status() == "queued"
    assert job_id in call("explain", job_id, *url).out
    assert run_id not in call("explain", job_id, *url).out
    said = call("show", job_id, *url)
    assert (said.code, "a job outside of runs" in said.err) == (5, True)
    assert call("cancel", job_id, *url).code == 5


def test_a_job_is_named_with_its_run_in_one_word(call: Call, url: tuple[str, str]) -> None:
    run_id = submit(call, url)
    expected = call("show", run_id, "cut", *url).out
    assert f"{run_id}-cut" in expected
    for word in (f"{run_id}-cut", f"{run_id[:8]}-cut", "last-cut"):
        assert call("show", word, *url).out == expected
        assert call("explain", word, *url).out == call("explain", run_id, "cut", *url).out
        assert call("status", word, *url).out == call("status", run_id, "cut", *url).out
    misspelt = call("show", "last-cud", *url)
    assert (misspelt.code, "did you mean 'cut'?" in misspelt.err) == (5, True)


def test_the_status_of_one_job_is_one_line(call: Call, url: tuple[str, str]) -> None:
    run_id = submit(call, url)
    said = call("status", run_id, "cut", *url)
    assert [line.split()[1] for line in said.out.splitlines()] == ["cut"]
    document = json.loads(call("status", run_id, "cut", "--json", *url).out)
    assert (document["run"], list(document["jobs"])) == (run_id, ["cut"])
    assert call("status", run_id, "nosuch", *url).code == 5


def test_runs_are_filtered_by_state_workflow_and_time(
    call: Call, url: tuple[str, str], connection: redis.Redis
) -> None:
    old, canceled, new = (submit(call, url) for _ in range(3))
    gate = submit(call, url, "gate.yaml")
    call("cancel", canceled, *url)
    before = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    connection.hset(keys.run(old), "created_at", before.replace("+00:00", "Z"))

    def listed(*words: str) -> set[str]:
        return {
            each["run"] for each in json.loads(call("runs", "--json", *words, *url).out)["runs"]
        }

    assert listed("--state", "canceled") == {canceled}
    assert listed("--workflow", "gate") == {gate}
    assert listed("--workflow", "sandwich", "--state", "canceled") == {canceled}
    assert old not in listed("--since", "1d")
    assert listed("--since", "9999-01-01") == set()
    assert listed("--since", "2020-01-01T00:00") == {old, canceled, new, gate}
    assert "neither a duration" in call("runs", "--since", "yesterday", *url).err


def test_a_filter_reads_as_many_runs_as_it_needs(
    call: Call, url: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lists, "RUNS_PER_READ", 2)
    first = submit(call, url)
    call("cancel", first, *url)
    for _ in range(5):
        submit(call, url)
    found = json.loads(call("runs", "--json", "--state", "canceled", *url).out)["runs"]
    assert [each["run"] for each in found] == [first]
    assert len(json.loads(call("runs", "--json", "-n", "4", *url).out)["runs"]) == 4


def test_words_of_other_tools_lead_to_the_command_that_is_meant(call: Call) -> None:
    for word, command in (("logs", "flowq show RUN JOB"), ("ps", "flowq wip"), ("lint", "check")):
        said = call(word)
        assert (said.code, command in said.err) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (1, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (7_200, "2 h ago"),
        (86_400 * 40, "40 d ago"),
    ],
)
def test_ages_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert format_age(NOW - timedelta(seconds=seconds), NOW) == text


def test_runs_are_found_by_their_labels_which_are_shown(
    call: Call, url: tuple[str, str], folder: Path
) -> None:
    (folder / "labeled.yaml").write_text(
        "inputs: {day: {type: str}}\n"
        'labels: {team: data, day: "${{ inputs.day }}"}\njobs: {a: {run: date}}\n'
    )
    words = ("labeled.yaml", "-i", "day=sunday", "--label", "ticket=OPS-1", "--label", "team=ops")
    planned = call("plan", "labeled.yaml", "-i", "day=x")
    assert "  label team=data\n  label day=x\n" in planned.out
    assert json.loads(call("run", *words, "--dry-run", "--json").out)["labels"]["team"] == "ops"
    run_id = call("run", *words, "--detach", *url).out.strip()
    submit(call, url)
    labels = {"team": "ops", "day": "sunday", "ticket": "OPS-1"}
    found = call("runs", "--label", "team=ops", "--label", "day=sunday", "--json", *url)
    assert [(each["run"], each["labels"]) for each in json.loads(found.out)["runs"]] == [
        (run_id, labels)
    ]
    assert json.loads(call("runs", "--label", "team=data", "--json", *url).out)["runs"] == []
    line = "team=ops day=sunday ticket=OPS-1"
    assert line in call("runs", *url).out
    assert f"labels: {line}\n" in call("status", run_id, *url).out
    assert f"  labels    {line}\n" in call("show", run_id, *url).out
    assert json.loads(call("status", run_id, "--json", *url).out)["labels"] == labels
    report = folder / "report.html"
    call("report", run_id, "-o", str(report), *url)
    assert "<dt>label ticket</dt><dd>OPS-1</dd>" in report.read_text("utf-8")
    refused = call("run", "labeled.yaml", "-i", "day=x", "--label", "a b=c", *url)
    assert (refused.code, "cannot be the name of a label" in refused.err) == (2, True)
    assert "is not name=value" in call("runs", "--label", "team", *url).err
