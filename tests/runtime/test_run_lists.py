"""Lists of runs by pages, a workflow over time, and who has done what to a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.utils import as_text

from flowq.client import (
    Run,
    RunFilter,
    find_run,
    heal,
    list_runs,
    read_run_page,
    read_workflow_history,
    submit,
)
from flowq.errors import RunNotFound, WrongState
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.render.events import event_line
from flowq.render.lines import plain
from flowq.render.narrator import Narrator
from flowq.runtime import keys, run_lists, runs
from flowq.runtime.approvals import say_who
from flowq.runtime.runs import read_events
from flowq.spec import Concurrency, Input, Retry, Workflow
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.runtime.calls import calls_per_command, count_calls
from tests.runtime.language import each, job

Work = Callable[..., None]
STATES = ("staged", "running", "succeeded", "failed", "canceled")


def submitted(connection: Redis, name: str = "demo", *, word: str = "hi", **more: object) -> str:
    given = dict(more)
    labels = given.pop("labels", {})
    is_held, by = bool(given.pop("is_held", False)), given.pop("by", None)
    jobs = given.pop("jobs", (job("only", "give", with_={"value": 1}),))
    workflow = Workflow(name, jobs, (Input("word"),), **given)  # type: ignore[arg-type]
    run_id = f"r{connection.zcard(keys.RUNS)}{name.replace(' ', '')}"
    plan = make_plan(build_graph(workflow), {"word": word}, run_id)
    return submit(replace(plan, labels=labels), connection, is_held=is_held, by=by).run_id


def listed_in(run_id: str, connection: Redis) -> list[str]:
    return [state for state in STATES if connection.zscore(keys.runs_in(state), run_id)]


# Pages -------------------------------------------------------------------------------------------


def test_pages_list_each_run_once_also_if_others_are_submitted_or_removed_meanwhile(
    connection: Redis,
) -> None:
    ids = [submitted(connection) for _ in range(7)]
    connection.zadd(keys.RUNS, {ids[3]: connection.zscore(keys.RUNS, ids[4]) or 0})  # one instant
    first = read_run_page(connection, 3)
    assert [each.run_id for each in first.runs] == ids[:3:-1]
    submitted(connection)
    runs.remove(ids[6], connection)
    second = read_run_page(connection, 3, after=first.after)
    assert [each.run_id for each in second.runs] == ids[3:0:-1]
    third = read_run_page(connection, 3, after=second.after)
    assert ([each.run_id for each in third.runs], third.after) == ([ids[0]], "")
    assert read_run_page(connection, 0).runs == ()
    runs.remove(first.after, connection)
    with pytest.raises(RunNotFound, match="begin it anew"):
        read_run_page(connection, 3, after=first.after)


def test_runs_are_selected_by_text_in_ids_names_labels_and_inputs(connection: Redis) -> None:
    by_input = submitted(connection, word="Zürich 2026-11")
    by_label = submitted(connection, labels={"team": "data"})
    by_name = submitted(connection, "nightly report")
    for text, expected in {
        "ZÜRICH": [by_input],
        "word=z": [by_input],
        "team=da": [by_label],
        "night": [by_name],
        by_label[:4]: [by_label],
        "": [by_name, by_label, by_input],
        "*": [],
    }.items():
        page = read_run_page(connection, 5, RunFilter(text=text))
        assert [each.run_id for each in page.runs] == expected, text


def test_a_rare_text_is_looked_for_in_a_bounded_number_of_runs_at_a_time(
    connection: Redis,
) -> None:
    rare = submitted(connection, word="needle")
    ids = [submitted(connection) for _ in range(5)]
    page = read_run_page(connection, 2, RunFilter(text="needle"), most=3)
    assert (page.runs, page.after) == ((), ids[2])
    page = read_run_page(connection, 2, RunFilter(text="needle"), after=page.after, most=3)
    assert [each.run_id for each in page.runs] == [rare]


def test_a_page_costs_the_same_however_many_runs_there_are(connection: Redis, work: Work) -> None:
    failed = submitted(connection, jobs=(job("bad", "give"),))  # an argument is missing
    work()
    ids = [submitted(connection) for _ in range(3)]
    wanted = RunFilter(state="failed")
    fields = connection.hgetall(keys.run(ids[0]))

    def cost() -> int:
        before = count_calls(connection)
        assert [each.run_id for each in read_run_page(connection, 2, wanted).runs] == [failed]
        assert len(read_run_page(connection, 2, after=ids[2]).runs) == 2
        return count_calls(connection) - before

    few = cost()
    many = {f"x{number}": number for number in range(3_000)}
    connection.zadd(keys.RUNS, many)
    connection.zadd(keys.runs_in("succeeded"), many)
    with connection.pipeline() as pipeline:
        for each in many:
            pipeline.hset(keys.run(each), mapping=fields)
        pipeline.execute()
    assert cost() <= few + 3


# States ------------------------------------------------------------------------------------------


def test_runs_are_listed_by_their_states(connection: Redis, work: Work) -> None:
    bad = submitted(connection, jobs=(job("bad", "give"),))
    held = submitted(connection, is_held=True)
    assert listed_in(bad, connection) == listed_in(held, connection) == ["running"]
    assert [each.run_id for each in list_runs(connection, state="waiting")] == [held]
    assert [each.run_id for each in list_runs(connection, state="running")] == [bad]
    work()
    assert listed_in(bad, connection) == ["failed"]
    Run(bad, connection).retry()
    assert listed_in(bad, connection) == ["running"]
    Run(held, connection).cancel()
    assert listed_in(held, connection) == ["canceled"]
    work()
    assert [each.run_id for each in list_runs(connection, state="failed")] == [bad]
    for run_id in (bad, held):
        runs.remove(run_id, connection)
    assert not any(connection.exists(keys.runs_in(state)) for state in STATES)


def test_runs_of_older_versions_are_listed_by_state_and_doctor_puts_the_lists_right(
    connection: Redis, work: Work
) -> None:
    old = submitted(connection)
    work()
    connection.delete(keys.runs_in("succeeded"))
    assert [each.run_id for each in list_runs(connection, state="succeeded")] == [old]
    new = submitted(connection)
    connection.zadd(
        keys.runs_in("failed"), {old: 1, "gone": 1}
    )  # an older version changed it since
    heal(connection)
    assert (listed_in(old, connection), listed_in(new, connection)) == (["succeeded"], ["running"])
    assert not connection.exists(keys.runs_in("failed"))


def test_a_run_that_ends_while_the_lists_are_put_right_is_listed_as_ended(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submitted(connection)
    read_each = run_lists.read_each

    def read_and_cancel(*arguments: object) -> list[object]:
        answers = list(read_each(*arguments))  # type: ignore[arg-type]
        if find_run(run_id, connection).record().state == "running":
            Run(run_id, connection).cancel()
            connection.zadd(keys.runs_in("running"), {run_id: 1})
        return answers

    monkeypatch.setattr(run_lists, "read_each", read_and_cancel)
    run_lists.index_runs(connection)
    assert listed_in(run_id, connection) == ["canceled"]


def listed(connection: Redis) -> dict[str, list[str]]:
    ids = map(as_text, connection.zrange(keys.RUNS, 0, -1))
    return {run_id: listed_in(run_id, connection) for run_id in ids}


def spoil(connection: Redis, work: Work) -> dict[str, str]:
    """Leave the lists as older versions would; return what is right."""
    failed = submitted(connection, jobs=(job("bad", "fail"),))
    ended, unlisted = submitted(connection), submitted(connection)
    work()
    running, new = submitted(connection), submitted(connection)
    score = {run_id: connection.zscore(keys.RUNS, run_id) for run_id in (failed, ended, running)}
    for right, wrong, run_id in (
        ("succeeded", "running", ended),  # it has ended
        ("running", "failed", running),  # it runs again
        ("failed", "succeeded", failed),
    ):
        connection.zrem(keys.runs_in(right), run_id)
        connection.zadd(keys.runs_in(wrong), {run_id: score[run_id]})
    for run_id in (unlisted, new):  # submitted
        connection.zrem(keys.runs_of("demo"), run_id)
        for state in STATES:
            connection.zrem(keys.runs_in(state), run_id)
    for state in STATES:  # removed
        connection.zadd(keys.runs_in(state), {f"gone{state}": 1})
    return {
        failed: "failed",
        ended: "succeeded",
        unlisted: "succeeded",
        running: "running",
        new: "running",
    }


def test_workers_put_lists_right_that_older_versions_leave_wrong(
    connection: Redis, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = spoil(connection, work)
    connection.delete(keys.MARKS)
    assert run_lists.sweep(connection) == 0  # nobody needs them yet
    connection.hset(keys.MARKS, "since", 1)
    monkeypatch.setattr("flowq.runtime.run_lists.RUNS_PER_SWEEP", 3)
    steps = 0
    while run_lists.sweep(connection) == 1:  # the next step is due in a second
        connection.hset(keys.MARKS, "sweep_at", 0)
        steps += 1
    assert steps > 3
    assert listed(connection) == {run_id: [state] for run_id, state in right.items()}
    assert sum(connection.zcard(keys.runs_in(state)) for state in STATES) == len(right)
    assert connection.zcard(keys.runs_of("demo")) == len(right)
    assert 0 < run_lists.sweep(connection) <= 60

    # A minute later only the lists of runs that have not ended are looked at.
    connection.zadd(keys.runs_in("running"), {"gone": 1})
    connection.zadd(keys.runs_in("failed"), {"removed": 1})
    connection.hset(keys.MARKS, "sweep_at", 0)
    while run_lists.sweep(connection) == 1:
        connection.hset(keys.MARKS, "sweep_at", 0)
    assert (listed_in("gone", connection), listed_in("removed", connection)) == ([], ["failed"])


def test_the_first_worker_after_a_deployment_puts_the_lists_right(
    connection: Redis, work: Work
) -> None:
    right = spoil(connection, work)
    Worker(["nothing"], connection=connection, paths=[JOBS_FOLDER], mode="warm").work(burst=True)
    assert listed(connection) == {run_id: [state] for run_id, state in right.items()}
    assert connection.zcard(keys.runs_in("staged")) == 0


@pytest.mark.parametrize("state", ["running", "succeeded", "failed"])
def test_wrong_lists_are_not_believed(connection: Redis, work: Work, state: str) -> None:
    right = spoil(connection, work)
    wanted = [run_id for run_id, of in reversed(right.items()) if of == state]
    assert [each.run_id for each in list_runs(connection, state=state)] == wanted


def test_whoever_reads_a_list_puts_right_what_is_wrong_in_it(connection: Redis, work: Work) -> None:
    """The page and `flowq runs --state` read like that."""
    failed = submitted(connection, jobs=(job("bad", "fail"),))
    work()
    running, unlisted = submitted(connection), submitted(connection)
    connection.zrem(keys.runs_in("failed"), failed)
    connection.zadd(keys.runs_in("running"), {failed: 1})
    connection.zrem(keys.runs_in("running"), unlisted)
    connection.zadd(keys.runs_in("running"), {"gone": 1})  # as many entries as runs
    assert [each.run_id for each in list_runs(connection, state="running")] == [running]
    assert listed(connection) == {failed: ["failed"], running: ["running"], unlisted: []}
    assert listed_in("gone", connection) == []
    found = [each.run_id for each in list_runs(connection, state="running")]
    assert found == [unlisted, running]  # it is missed, so all are read
    connection.zadd(keys.runs_of("demo"), {"gone": 1})
    list_runs(connection, workflow="demo")
    assert connection.zscore(keys.runs_of("demo"), "gone") is None


def test_a_reader_that_may_not_write_reads_all_the_same(connection: Redis, work: Work) -> None:
    run_id = submitted(connection)
    work()
    connection.zrem(keys.runs_in("succeeded"), run_id)
    connection.zadd(keys.runs_in("running"), {run_id: 1})
    connection.execute_command("ACL", "SETUSER", "default", "-@write", "-@scripting")
    try:
        assert list_runs(connection, state="running") == []
    finally:
        connection.execute_command("ACL", "SETUSER", "default", "+@all")
    assert listed_in(run_id, connection) == ["running"]


# Over time ---------------------------------------------------------------------------------------


def test_a_workflow_over_time_names_flaky_jobs_and_folds_each_run_once(
    connection: Redis, work: Work, tmp_path: Path
) -> None:
    for number in range(3):
        gate = tmp_path / "gate"
        jobs = (
            job("good", "give", with_={"value": 1}),
            job(
                "flaky",
                "fail_twice",
                with_={"log": str(tmp_path / f"log{number}")},
                retries=Retry(2),
            ),
            job("gated", "fail_unless", with_={"path": str(gate)}),
            job("each", "square", with_={"number": "${{ item }}"}, for_each=each((1, 2))),
        )
        run_id = submitted(connection, jobs=jobs)
        work()
        gate.touch()
    waits = submitted(connection, is_held=True)
    history = read_workflow_history("demo", connection)
    assert [(each.record.state, each.is_counted) for each in history.runs] == [
        ("waiting", False),
        ("succeeded", True),
        ("succeeded", True),
        ("failed", True),
    ]
    assert history.runs[0].record.run_id == waits
    assert [each.took_s is None for each in history.runs] == [True, False, False, False]
    found = {each.name: (each.runs, each.failed, each.retried) for each in history.jobs}
    assert found == {"good": (3, 0, 0), "flaky": (3, 0, 3), "gated": (3, 1, 0), "each": (3, 0, 0)}
    assert {each.name for each in history.jobs if each.is_flaky} == {"flaky", "gated"}
    assert all(each.median_s is not None and each.median_s >= 0 for each in history.jobs)

    before = calls_per_command(connection).get("cmdstat_xread", 0)
    assert read_workflow_history("demo", connection) == history
    assert calls_per_command(connection).get("cmdstat_xread", 0) == before
    Run(run_id, connection).retry("good")
    work()
    again = {each.name: each.runs for each in read_workflow_history("demo", connection).jobs}
    assert again["good"] == 3
    assert calls_per_command(connection)["cmdstat_xread"] > before


def test_a_workflow_over_time_revives_no_run_that_is_removed_meanwhile(
    connection: Redis, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submitted(connection)
    work()
    key = keys.run(run_id)
    assert read_workflow_history("demo", connection, keeps=False).runs[0].is_counted
    assert not connection.hexists(key, "history")
    look = Redis.hexists

    def look_and_lose(asked: Redis, name: str, field: str) -> Any:
        found = look(asked, name, field)
        connection.delete(key)
        return found

    monkeypatch.setattr(Redis, "hexists", look_and_lose)
    assert read_workflow_history("demo", connection).runs[0].is_counted
    assert not connection.exists(key)


def test_a_large_run_is_left_out_of_a_workflow_over_time(
    connection: Redis, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = submitted(connection)
    work()
    monkeypatch.setattr("flowq.runtime.over_time.MOST_EVENTS", 2)
    history = read_workflow_history("demo", connection)
    (run,) = history.runs
    assert (run.record.run_id, run.is_counted, history.jobs) == (small, False, ())


# Acts --------------------------------------------------------------------------------------------


def acts(run_id: str, connection: Redis) -> list[tuple[str, str, str]]:
    events = Run(run_id, connection).events()
    return [(each.act, each.by, each.status) for each in events if each.by]


def test_who_has_released_canceled_and_retried_a_run_is_in_its_events(
    connection: Redis, work: Work
) -> None:
    last = job("last", "give", with_={"value": 1}, needs=("bad",), if_="always()")
    jobs = (job("bad", "give"), last)
    run = Run(submitted(connection, is_held=True, jobs=jobs), connection)
    assert run.release(by="ann@web")
    assert not run.release(by="bob@web")
    work()
    run.retry(by="bob@web")
    run.cancel(by="eve@web")
    run.cancel(by="dan@web")  # which changes nothing
    work()
    run.retry()
    run.cancel(now=True, by="é" * 300)
    found = acts(run.run_id, connection)
    assert found[:3] == [
        ("release", "ann@web", "running"),
        ("retry", "bob@web", "running"),
        ("cancel", "eve@web", "running"),
    ]
    assert (found[3][0], found[3][1] != "") == ("retry", True)
    assert found[4:] == [("cancel", "é" * 100, "running")]
    assert run.status().state == "canceled"


def test_a_run_keeps_who_submitted_it(connection: Redis) -> None:
    for by, kept in ((None, say_who()), ("ann@web", "ann@web"), ("é" * 300, "é" * 100)):
        assert Run(submitted(connection, by=by), connection).record().submitted_by == kept


def test_a_run_that_has_ended_is_told_of_no_cancel(connection: Redis, work: Work) -> None:
    run = Run(submitted(connection), connection)
    work()
    with pytest.raises(WrongState, match="has ended: succeeded"):
        run.cancel(by="eve@web")
    with pytest.raises(RunNotFound):
        Run("nothing", connection).cancel()
    assert acts(run.run_id, connection) == []
    assert run.status().state == "succeeded"


def test_a_run_that_waits_for_its_turn_tells_who_has_begun_and_canceled_it(
    connection: Redis, work: Work
) -> None:
    group = Concurrency("deploy", cancel_in_progress=True)
    first = submitted(connection, concurrency=Concurrency("deploy"))
    held = Run(submitted(connection, concurrency=Concurrency("deploy"), is_held=True), connection)
    held.release(by="ann@web")
    assert acts(held.run_id, connection) == [("release", "ann@web", "waiting")]
    last = submitted(connection, concurrency=group)
    assert acts(held.run_id, connection)[1:] == [("cancel", f"run {last}", "running")]
    assert acts(first, connection) == [("cancel", f"run {last}", "running")]
    work()
    assert Run(last, connection).status().state == "succeeded"


def test_acts_are_shown_by_events_and_not_told_twice_by_followers(connection: Redis) -> None:
    run = Run(submitted(connection, is_held=True), connection)
    run.release(by="ann\x1b[2J@web")
    run.cancel(by="eve@web")
    shown = [plain(event_line(each)).partition(" run ")[2] for each in run.events()]
    assert "running: release by ann@web" in shown
    assert "running: cancel by eve@web" in shown
    told = Narrator(UTC).tell(read_events(run.run_id, connection))
    states = [plain(line).partition(" run ")[2] for line in told if " run " in plain(line)]
    assert states == ["waiting: it is held", "running", "was canceled", "canceled"]
