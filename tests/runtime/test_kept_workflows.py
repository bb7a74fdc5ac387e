"""What a run keeps of its workflow: the picture, the workflow, and its place in the index."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from flowq.client import Run, heal, list_runs, submit
from flowq.compiling import compile_plan, load
from flowq.documents import run_json
from flowq.errors import UsageError, WorkflowInvalid
from flowq.graph import build_graph
from flowq.pictures.picture import Picture, draw
from flowq.pictures.report import RunReport, render_report
from flowq.pictures.stored import read_picture, read_workflow
from flowq.planner import make_plan
from flowq.runtime import keys, run_lists, runs
from flowq.runtime.connections import read_each
from flowq.runtime.maintenance import tidy
from flowq.spec import Block, Input, JobSpec, Shell, Workflow
from flowq.targets import find_changes
from tests.reading import parse_workflow
from tests.runtime.calls import count_calls
from tests.runtime.language import each, job

Work = Callable[..., None]

SHIP = Workflow(
    "ship", (job("pack", "make_list", with_={"count": 1}), job("send", "my_id", needs=("pack",)))
)
SHOP = Workflow(
    "shop",
    (
        job("orders", "make_list", with_={"count": "${{ inputs.orders }}"}),
        job(
            "bill",
            "square",
            with_={"number": "${{ item }}"},
            for_each=each("${{ jobs.orders.result }}"),
        ),
        JobSpec("ask", run=Shell("echo $KEY"), env={"KEY": "${{ secrets.SHOP_KEY }}"}),
        job("tell", "give", with_={"value": 1}, needs=("bill",), if_="inputs.orders > 1"),
    ),
    inputs=(Input("orders", "int"), Input("note", default="", required=False)),
    description="Bills.",
)


EDITED = """
description: Edited
defaults: {timeout: 5m}
jobs:
  a: {run: echo 1}
  b: {for_each: [1, [2, 3]], needs: a, run: "echo ${{ item }}"}
  d: {matrix: {x: [1, 2], include: [{x: 3}]}, env: {K: v}, retries: 1, run: "echo ${{ matrix.x }}"}
  n: {workflow: w}
schedule: [{cron: "0 0 * * *"}, {cron: "1 0 * * *"}]
workflows: {w: {jobs: {z: {run: echo z}}}}
"""


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("", "", None),
        ("jobs:", "# a comment\njobs:  ", None),
        ("description: Edited", "description: Again", ()),
        ("timeout: 5m", "timeout: 6m", ()),
        ("echo 1", "echo 2", ("a",)),
        ("x: 3", "x: 4", ("d",)),
        ("echo z", "echo y", ("n",)),
        ("  a: {run: echo 1}\n  b: {", "  c: {run: echo 1}\n  b: {", ("c", "b", "a")),
        ("{run: echo z}", "[", ()),
        ("jobs:", "- jobs:", ()),
    ],
)
def test_what_has_changed_in_the_file_of_a_run(
    tmp_path: Path, before: str, after: str, changed: tuple[str, ...] | None
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(EDITED)
    source = compile_plan(load(str(file)), imports=False).source
    text = EDITED.replace(before, after, 1)
    if changed and "c" in changed:
        text = text.replace("needs: a", "needs: c")
    file.write_text(text)
    path = [*sys.path]
    assert find_changes(source) == changed
    assert sys.path == path
    # Another version of flowq may write the same declarations in other words.
    found = find_changes(replace(source, digest="other"))
    assert found == changed
    assert find_changes(replace(source, digest="other", workflow="")) == ()
    assert find_changes(replace(source, digest="")) in (None, ())
    for unknown in ("", str(tmp_path), str(tmp_path / "no.yaml"), str(tmp_path / "w.py")):
        assert find_changes(replace(source, file=unknown)) is None
    fifo = tmp_path / "pipe.yaml"
    os.mkfifo(fifo)
    assert find_changes(replace(source, file=str(fifo))) is None


def submitted(workflow: Workflow, connection: redis.Redis, **inputs: Any) -> Run:
    return submit(compile_plan(workflow, inputs, imports=False), connection)


def states(picture: Picture) -> dict[str, str]:
    return {box.name: box.state for box in picture.boxes}


def test_a_run_keeps_the_picture_and_the_workflow(connection: redis.Redis) -> None:
    run = submitted(SHOP, connection, orders=3)
    source = runs.read_source(run.run_id, connection)
    assert read_picture(source) == draw(build_graph(SHOP))
    assert read_workflow(source) == SHOP
    again = runs.read_source(submitted(SHOP, connection, orders=4).run_id, connection)
    other = replace(SHOP, description="Other bills.")
    assert again.digest == source.digest
    assert runs.read_source(submitted(other, connection, orders=4).run_id, connection).digest != (
        source.digest
    )


def test_what_is_kept_names_the_file_and_does_not_need_it(
    connection: redis.Redis, tmp_path: Path
) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("name: one\njobs:\n  a: {run: echo a}\n")
    run = submitted(load(str(file)), connection)
    file.unlink()
    assert run.source().file == run.record().file == str(file)
    assert run.source().digest == run.record().digest
    assert states(run.picture()) == {"a": "queued"}


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such file names")
def test_a_workflow_may_have_a_path_that_is_not_utf8(
    connection: redis.Redis, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    inner = folder / os.fsdecode(b"v\xff.yaml")
    inner.write_text("jobs:\n  a: {run: echo a}\n")
    run = submitted(load(str(inner)), connection)
    assert run.source().file == rf"{tmp_path}/d\xff/v\xff.yaml"
    assert run.record().workflow == r"v\xff"
    assert run.record().folders == (str(folder),)
    assert listed(connection, r"v\xff") == [run.run_id]
    shown = render_report(
        RunReport(run.record(), run.status(), run.picture(), {}, {}, datetime.now(UTC))
    )
    assert shown.encode().count(rb"v\xff.yaml") == 1


def test_neither_secrets_nor_inputs_are_in_what_is_kept(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "hunter2 hunter2")
    run = submitted(SHOP, connection, orders=3, note="a private note")
    source = runs.read_source(run.run_id, connection)
    kept = repr((read_picture(source), read_workflow(source)))
    assert "secrets.SHOP_KEY" in kept
    assert "hunter2" not in kept
    assert "a private note" not in kept


def test_the_submission_needs_no_more_commands_than_the_index(
    connection: redis.Redis,
) -> None:
    plan = compile_plan(SHOP, {"orders": 3}, imports=False)
    bare = make_plan(build_graph(SHOP), {"orders": 3, "note": ""}, "bare")

    def count(of: Any) -> int:
        before = count_calls(connection)
        runs.submit(of, connection)
        return count_calls(connection) - before

    runs.submit(make_plan(build_graph(SHOP), {"orders": 3, "note": ""}, "first"), connection)

    assert count(plan) == count(bare)


def test_the_picture_of_a_run_has_its_states(connection: redis.Redis, work: Work) -> None:
    run = submitted(SHOP, connection, orders=3)
    work()
    picture = run.picture()
    bill = next(box for box in picture.boxes if box.name == "bill")
    assert (bill.state, bill.how_far, dict(bill.counts)) == ("finished", "3/3", {"finished": 3})
    assert states(picture)["tell"] == "finished"
    assert picture.state == run.status().state


def test_jobs_that_code_adds_are_in_the_picture_with_their_edges(
    connection: redis.Redis, work: Work, tmp_path: Path
) -> None:
    visit = JobSpec(
        "visit",
        "addition_jobs:visit",
        {"log": str(tmp_path / "log"), "depth": 1, "width": 3},
        blocks=(Block("last"),),
    )
    last = JobSpec("last", "addition_jobs:finish", {"log": str(tmp_path / "log")}, deferred=True)
    run = submitted(Workflow("walk", (visit, last)), connection)
    work()
    picture = run.picture()
    added = [box for box in picture.boxes if box.name not in ("visit", "last")]
    assert len(added) == 3
    assert {box.state for box in added} == {"finished"}
    assert all("visit" in box.description for box in added)
    blockers = picture.blockers_by_name()["last"]
    assert sorted(blockers) == sorted(["visit", *(box.name for box in added)])
    assert picture.boxes[-1].name == "last"


def test_nested_workflows_have_states_of_their_own(connection: redis.Redis, work: Work) -> None:
    outer = Workflow(
        "outer",
        (JobSpec("one", workflow="ship"), JobSpec("many", workflow="ship", for_each=each([1, 2]))),
        workflows={"ship": SHIP},
    )
    broken = replace(SHIP, jobs=(SHIP.jobs[0], job("send", "fail", needs=("pack",))))
    run = submitted(replace(outer, workflows={"ship": broken}), connection)
    work()
    one, many = run.picture().boxes
    assert one.inside is not None
    assert many.inside is not None
    assert states(one.inside) == {"pack": "finished", "send": "failed"}
    assert (one.inside.job, one.inside.state) == ("one", "failed")
    assert [dict(box.counts) for box in many.inside.boxes] == [{"finished": 2}, {"failed": 2}]


def test_a_report_shows_failures_without_secrets(
    connection: redis.Redis, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "hunter2 hunter2")
    leaks = job("leaks", "fail", with_={"message": "no entry with ${{ secrets.SHOP_KEY }}"})
    run = submitted(Workflow("leaky", (leaks,)), connection)
    work()
    page = run.report()
    assert "no entry with" in page
    assert "hunter2" not in page


def test_a_run_without_a_picture_is_drawn_from_its_jobs(connection: redis.Redis) -> None:
    plan = make_plan(build_graph(SHOP), {"orders": 3, "note": ""}, "old")
    run = submit(plan, connection)
    assert not run.source().picture
    picture = run.picture()
    assert {box.name for box in picture.boxes} == {"orders", "bill", "ask", "tell"}
    assert {(arrow.blocker, arrow.future) for arrow in picture.arrows} == {
        ("orders", "bill"),
        ("bill", "tell"),
    }


def test_a_run_with_a_picture_of_a_newer_version_is_shown_like_one_without(
    connection: redis.Redis,
) -> None:
    run = submitted(SHOP, connection, orders=3)
    connection.hset(keys.run(run.run_id), "picture", "zstd:whatever")
    assert {box.name for box in run.picture().boxes} == {"orders", "bill", "ask", "tell"}
    assert "orders" in run.report()
    document = json.loads(run_json(run))
    edges = {(edge["blocker"], edge["future"]) for edge in document["edges"]}
    assert edges == {("orders", "bill"), ("bill", "tell")}


# The index ---------------------------------------------------------------------------------------


def listed(connection: redis.Redis, workflow: str) -> list[str]:
    return [record.run_id for record in list_runs(connection, workflow=workflow)]


def test_runs_of_a_workflow_are_found_without_reading_others(connection: redis.Redis) -> None:
    shops = [submitted(SHOP, connection, orders=1).run_id for _ in range(2)]
    ships = [submitted(replace(SHIP, name=f"ship {n}"), connection) for n in range(20)]
    assert listed(connection, "shop") == shops[::-1]
    assert listed(connection, "ship 7") == [ships[7].run_id]
    assert listed(connection, "nothing") == []
    before = connection.info("commandstats")["cmdstat_hmget"]["calls"]
    listed(connection, "shop")
    assert connection.info("commandstats")["cmdstat_hmget"]["calls"] - before == len(shops)


def test_a_run_that_is_removed_leaves_the_index(connection: redis.Redis) -> None:
    run = submitted(SHOP, connection, orders=1)
    runs.remove(run.run_id, connection)
    assert listed(connection, "shop") == []
    assert not connection.exists(keys.runs_of("shop"))


def test_runs_of_older_versions_are_listed_by_workflow(connection: redis.Redis) -> None:
    old = submitted(SHOP, connection, orders=1).run_id
    connection.delete(keys.runs_of("shop"))  # as an older version leaves it
    new = submitted(SHOP, connection, orders=1).run_id
    assert listed(connection, "shop") == [new, old]


def test_doctor_puts_the_index_right(connection: redis.Redis) -> None:
    first, second = (submitted(SHOP, connection, orders=1).run_id for _ in range(2))
    connection.zrem(keys.runs_of("shop"), second)  # one that an older version has submitted
    connection.zadd(keys.runs_of("shop"), {"gone": 1})  # and one that it has removed
    assert listed(connection, "shop") == [first]
    heal(connection)
    assert listed(connection, "shop") == [second, first]
    assert connection.zcard(keys.runs_of("shop")) == 2


def test_the_index_is_put_right_in_few_round_trips(connection: redis.Redis) -> None:
    connection.zadd(keys.runs_of("shop"), {f"gone{number}": number for number in range(2_000)})
    before = connection.info("stats")["total_reads_processed"]
    run_lists.index_runs(connection)
    assert connection.info("stats")["total_reads_processed"] - before < 100
    assert not connection.exists(keys.runs_of("shop"))


def test_a_run_that_is_removed_while_the_index_is_put_right_leaves_it(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(SHOP, connection, orders=1)

    def read_and_remove(*arguments: Any) -> list[Any]:
        answers = list(read_each(*arguments))
        runs.remove(run.run_id, connection)
        return answers

    monkeypatch.setattr(run_lists, "read_each", read_and_remove)
    run_lists.index_runs(connection)
    assert not connection.exists(keys.runs_of("shop"))


# Labels ------------------------------------------------------------------------------------------


def labeled(connection: redis.Redis, **labels: str) -> list[str]:
    return [record.run_id for record in list_runs(connection, labels=labels)]


def test_runs_with_labels_are_found_without_reading_others(connection: redis.Redis) -> None:
    shop = replace(SHOP, labels={"team": "data", "orders": "${{ inputs.orders }}"})
    one, two = (submitted(shop, connection, orders=n).run_id for n in (1, 2))
    plan = compile_plan(SHIP, imports=False, labels={"team": "data", "day": "ü=x y"})
    third = submit(plan, connection).run_id
    for n in range(20):
        submitted(replace(SHIP, name=f"ship {n}"), connection)
    assert labeled(connection, team="data") == [third, two, one]
    assert labeled(connection, team="data", orders="2") == [two]
    assert labeled(connection, team="dat", orders="2") == []
    assert labeled(connection, day="ü=x y") == [third]
    both = list_runs(connection, workflow="shop", labels={"team": "data"})
    assert [record.run_id for record in both] == [two, one]
    assert Run(two, connection).record().labels == {"team": "data", "orders": "2"}
    before = connection.info("commandstats")["cmdstat_hmget"]["calls"]
    labeled(connection, team="data", orders="1")
    assert connection.info("commandstats")["cmdstat_hmget"]["calls"] - before == 1


def test_a_run_that_is_removed_leaves_the_lists_of_its_labels(connection: redis.Redis) -> None:
    plan = compile_plan(SHIP, imports=False, labels={"team": "data", "day": "ü=x"})
    run = submit(plan, connection)
    assert connection.zcard(keys.LABELED) == 1
    runs.remove(run.run_id, connection)
    assert not connection.keys("rq:flowq:1:label*")


def test_what_an_older_version_has_removed_leaves_the_lists_later(connection: redis.Redis) -> None:
    old, left = (
        submit(compile_plan(SHIP, imports=False, labels={"team": "data"}), connection).run_id
        for _ in range(2)
    )
    connection.hdel(keys.run(old), "labels")  # which an older version does not read
    runs.remove(old, connection)
    assert connection.zcard(keys.runs_with("team", "data")) == 2
    assert labeled(connection, team="data") == [left]
    tidy(connection)
    assert connection.zcard(keys.LABELED) == 2  # their time has not come
    for entry, _ in connection.zscan_iter(keys.LABELED):
        connection.zadd(keys.LABELED, {entry: 1})
    tidy(connection)
    assert connection.zcard(keys.LABELED) == connection.zcard(keys.runs_with("team", "data")) == 1
    connection.zadd(keys.runs_with("team", "x"), {"gone": 1})
    connection.zadd(keys.LABELED, {'gone {"team": "x"}': 9e12})
    heal(connection)  # looks at all of them
    assert not connection.exists(keys.runs_with("team", "x"))
    assert connection.zcard(keys.LABELED) == 1


def test_a_run_that_a_job_submits_has_the_labels_of_its_run_too(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = submit(
        compile_plan(SHIP, imports=False, labels={"team": "data", "day": "1"}), connection
    )
    monkeypatch.setenv("FLOWQ_RUN", outer.run_id)  # as in a job of it
    inner = submit(compile_plan(SHIP, imports=False, labels={"day": "2"}), connection)
    assert inner.record().labels == {"team": "data", "day": "2"}
    monkeypatch.setenv("FLOWQ_RUN", "gone")
    assert submitted(SHIP, connection).record().labels == {}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"a b": "x"}, "cannot be the name of a label: it consists of"),
        ({"a" * 101: "x"}, "it has 101 characters"),
        ({"a": "x" * 201}, "value of the label a cannot be used: it has 201 characters"),
        ({"a": "x\ny"}, "one line"),
        ({"a": 3}, "are texts, not 'a': 3"),
        ({f"a{n}": "x" for n in range(33)}, "33 labels are given, and 32 are allowed"),
        (["a=b"], "labels are a mapping"),
    ],
)
def test_labels_beyond_the_limits_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compile_plan(SHIP, imports=False, labels=labels)


def test_an_empty_value_removes_a_label_and_a_bad_one_is_a_problem_with_its_place() -> None:
    text = """\
inputs: {note: {type: str, default: ""}, n: {type: list, default: [1]}}
labels: {team: data, note: "${{ inputs.note }}", n: "${{ inputs.n }}", is: on, r: "${{ run.id }}"}
jobs: {a: {run: date}}
"""
    workflow = parse_workflow(text, "x.yaml")
    plan = compile_plan(workflow, run_id="r1", labels={"team": ""})
    assert plan.labels == {"n": "[1]", "is": "on", "r": "r1"}
    with pytest.raises(WorkflowInvalid) as refused:
        compile_plan(workflow, {"note": "x" * 300})
    (problem,) = refused.value.problems
    assert (problem.code, problem.where and problem.where.line) == ("FQ131", 2)
