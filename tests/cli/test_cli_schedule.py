"""`flowq schedule`: what it says before it watches the clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.cli.schedule import _Watched, find_scheduled
from flowq.client import list_schedules
from flowq.scheduling import Scheduler
from flowq.spec import Workflow
from tests.cli.commands import Flowq, Said


def test_a_schedule_says_when_it_is_due_and_that_nobody_would_run_it(
    flowq: Flowq, folder: Path, redis_url: str
) -> None:
    (folder / "nightly.yaml").write_text(
        "schedule: {cron: '30 2 * * *', timezone: UTC}\n"
        "jobs:\n  a: {run: date, queue: reports}\n  b: {run: date}\n"
    )
    process = flowq.start("schedule", "nightly.yaml", "--redis-url", redis_url)
    assert process.stderr is not None

    ours = (line.strip() for line in process.stderr if line.startswith("flowq: "))
    due, workers = islice((line for line in ours if "warning" not in line), 2)

    assert due.startswith("flowq: the next run of nightly is due at ")
    assert due.endswith(" 02:30 UTC")
    start = "no worker listens yet; start one: flowq worker default reports --redis-url "
    assert workers.startswith(f"flowq: {start}")


def test_a_workflow_without_a_schedule_is_refused(
    call: Callable[..., Said], redis_url: str
) -> None:
    said = call("schedule", "sandwich.yaml", "--redis-url", redis_url)
    assert said.code == 2
    assert "add one, as in `schedule: {cron:" in said.err


DAILY = (
    "inputs: {day: {type: str}, size: 3}\n"
    "schedule: {cron: '30 2 * * *', inputs: {day: '${{ run.due_at[:10] }}'}}\n"
    "jobs:\n  a: {run: [echo, '${{ inputs.day }}']}\n"
)


def test_a_backfill_names_its_runs_and_submits_what_is_missing(
    call: Callable[..., Said], folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "daily.yaml").write_text(DAILY)
    monkeypatch.setenv("FLOWQ_INPUT_DAY", "never")  # what the schedule declares counts
    monkeypatch.setenv("FLOWQ_INPUT_SIZE", "7")
    url = ("--redis-url", redis_url)
    first = call("backfill", "daily.yaml", "--from", "2026-01-30", "--to", "2026-02-01", *url)
    assert (first.code, len(first.out.splitlines())) == (0, 3)
    assert first.out.startswith("2026-01-30T02:30:00+00:00  ")
    assert "no worker listens yet" in first.err
    assert first.err.endswith("flowq: 3 runs submitted\n")
    more = call("backfill", "daily.yaml", "--from", "2026-01-30", "--to", "2026-02-02", *url)
    assert more.out.startswith("2026-02-02T02:30:00+00:00  ")
    assert more.err.endswith("flowq: 1 run submitted, 3 submitted before\n")
    run_id = more.out.split()[1]
    shown = call("show", run_id, *url).out
    assert "  due       2026-02-02T02:30:00+00:00\n" in shown
    assert "  input     day = '2026-02-02'\n  input     size = 7\n" in shown
    listed = json.loads(call("runs", "--json", *url).out)["runs"]
    assert listed[0]["due_at"] == "2026-02-02T02:30:00.000000Z"
    hour = ("--from", "2026-02-01T03:00", "--to", "2026-02-01T04:00")
    none = call("backfill", "daily.yaml", *hour, *url)
    assert (none.code, none.out) == (0, "")
    assert none.err == "flowq: daily was never due from 2026-02-01T03:00 to 2026-02-01T04:00\n"
    back = call("backfill", "daily.yaml", "--from", "2026-02-02", "--to", "2026-02-01", *url)
    assert back.code == 2
    assert "it ends before it begins: '2026-02-01' is before '2026-02-02'" in back.err
    wrong = call("backfill", "daily.yaml", "--from", "today", "--to", "2026-02-01", *url)
    assert (wrong.code, "'today' is not a date" in wrong.err) == (2, True)


def test_a_schedule_is_paused_and_goes_on(
    call: Callable[..., Said], folder: Path, redis_url: str
) -> None:
    (folder / "daily.yaml").write_text(DAILY)
    words = ("schedule", "daily.yaml", "--redis-url", redis_url)
    paused = call(*words, "--pause")
    assert (paused.code, paused.out) == (0, "the schedule of daily is paused\n")
    assert "let it go on with: flowq schedule daily.yaml --resume --redis-url" in paused.err
    assert call(*words, "--resume").out == "the schedule of daily is not paused any more\n"
    assert call(*words, "--resume").out == "the schedule of daily is not paused\n"
    both = call(*words, "--pause", "--resume")
    assert (both.code, "exclude each other" in both.err) == (2, True)


def test_a_folder_has_the_schedules_of_its_files_without_those_that_cannot_be_used(
    call: Callable[..., Said], folder: Path, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "flows" / "more").mkdir(parents=True)
    (folder / "flows" / "daily.yaml").write_text(DAILY)
    (folder / "flows" / "more" / "other.yml").write_text(DAILY)
    (folder / "flows" / "unscheduled.yaml").write_text("jobs: {a: {run: date}}\n")
    (folder / "flows" / "wrong.yaml").write_text(
        "schedule: {cron: hourly}\njobs: {a: {run: date}}\n"
    )
    found = find_scheduled(str(folder / "flows"))
    assert [workflow.name for workflow in found.values()] == ["daily", "other"]
    assert "FQ220" in (said := capfd.readouterr().err)
    assert "wrong.yaml is left out: it has problems" in said
    needy = "inputs: {day: {type: str}}\nschedule: '0 0 * * *'\njobs: {a: {run: date}}\n"
    for name in ("needy", "needed"):
        (folder / "lacking").mkdir(exist_ok=True)
        (folder / "lacking" / f"{name}.yaml").write_text(needy)
    lacking = call("schedule", "lacking", "--redis-url", redis_url)
    assert lacking.err.count("FQ402") == lacking.err.count("is left out: it has problems") == 2
    assert lacking.err.endswith("flowq: no workflow in lacking can be scheduled\n")
    given = call("schedule", "flows", "-i", "day=x", "--redis-url", redis_url)
    assert (given.code, "under `schedule`: `inputs`" in given.err) == (2, True)
    (folder / "flows" / "twice.yaml").write_text(f"name: other\n{DAILY}")
    twice = call("schedule", "flows", "--redis-url", redis_url)
    assert (twice.code, "are both named other" in twice.err) == (2, True)
    (folder / "empty").mkdir()
    empty = call("schedule", "empty", "--redis-url", redis_url)
    assert (empty.code, empty.err) == (2, "flowq: no workflow in empty has a schedule\n")


def test_files_that_change_are_read_again_and_one_with_problems_keeps_its_version(
    folder: Path, connection: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    flows = folder / "flows"
    flows.mkdir()
    daily, inner, other = flows / "daily.yaml", flows / "inner.yaml", flows / "other.yaml"
    daily.write_text(DAILY + "  b: {workflow: inner.yaml}\n")
    inner.write_text("jobs: {x: {run: date}}\n")

    def make(workflow: Workflow, inputs: Any, defaults: Any) -> Scheduler:
        return Scheduler(workflow, inputs, connection, said.append, defaults)

    def refresh() -> str:
        watched.refresh()
        return capfd.readouterr().err

    said: list[str] = []
    found = find_scheduled(str(flows))
    first = {file: make(workflow, {}, {}) for file, workflow in found.items()}
    watched = _Watched(str(flows), make, first)
    assert refresh() == ""
    [scheduler] = watched.schedulers
    scheduler.tick()

    daily.write_text(daily.read_text().replace("30 2", "45 3"))
    assert "daily.yaml was read again; the next run of daily is due at " in (said_now := refresh())
    assert " 03:45 UTC" in said_now
    assert (watched.schedulers, scheduler.workflow.schedules[0].cron) == ([scheduler], "45 3 * * *")
    scheduler.tick()
    assert list_schedules(connection)[0].schedules[0].cron == "45 3 * * *"

    good = daily.read_text()
    daily.write_text(good.replace("45 3", "hourly"))
    assert "FQ220" in (said_now := refresh())
    assert "cannot be used: the version before it stays scheduled" in said_now
    assert (scheduler.workflow.schedules[0].cron, refresh()) == ("45 3 * * *", "")
    daily.write_text(good)
    assert "was read again" in refresh()
    inner.write_text("jobs: {x: {run: date}, y: {run: date}}\n")
    assert "daily.yaml was read again" in refresh()
    assert len(scheduler.workflow.workflows["inner.yaml"].jobs) == 2

    other.write_text(f"name: daily\n{DAILY}")
    assert "it is left out" in (said_now := refresh())
    assert "daily.yaml is named daily, too" in said_now
    other.write_text(DAILY)
    assert "the next run of other is due" in refresh()
    assert [each.workflow.name for each in watched.schedulers] == ["daily", "other"]
    daily.unlink()
    assert refresh() == "flowq: daily is not scheduled any more\n"
    assert [each.workflow.name for each in watched.schedulers] == ["other"]
