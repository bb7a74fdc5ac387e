"""`for_each`: jobs whose number is known only while the run runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.binding import bind_item
from flowq.runtime import groups, keys, maintenance, retry
from flowq.runtime.job import get_job
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

SQUARES = {"number": "${{ item }}"}
COLLECT = {"value": "${{ jobs.squares.results }}"}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def test_the_items_of_a_result_run_before_the_job_that_collects_them(run: Runs, work: Work) -> None:
    run.submit(
        job("total", "give", with_=COLLECT),
        job("numbers", "make_list", with_={"count": 5}),
        job("squares", "square", for_each=each("${{ jobs.numbers.result }}"), with_=SQUARES),
    )
    work()
    assert run.state == "succeeded"
    assert run.result("total") == [0, 1, 4, 9, 16]
    assert run.states["squares[3]"] == "finished"
    assert run.result("squares") == 5


@pytest.mark.parametrize("items", [[2, 3], "${{ inputs.wanted }}", ["${{ 1 + 1 }}", 3]])
def test_a_list_that_is_known_and_one_that_is_an_input_are_alike(
    items: Any, run: Runs, work: Work
) -> None:
    run.submit(
        job("total", "give", with_=COLLECT),
        job("squares", "square", for_each=each(items), with_=SQUARES),
        inputs={"wanted": [2, 3]},
    )
    work()
    assert run.result("total") == [4, 9]


def test_results_are_in_the_order_of_the_items_whatever_ran_first(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("total", "give", with_=COLLECT),
        job("squares", "square", for_each=each([1, 2, 3]), with_=SQUARES),
    )
    work(max_jobs=1)
    queue = "rq:queue:default"
    for job_id in reversed(connection.lrange(queue, 0, -1)):
        connection.rpush(queue, connection.lrem(queue, 1, job_id) and job_id)
    work()
    started = [event for event in run.status.jobs.values() if event.name.startswith("squares[")]
    assert sorted(started, key=lambda each: str(each.started_at))[0].name == "squares[2]"
    assert run.result("total") == [1, 4, 9]


@pytest.mark.parametrize(("if_empty", "state"), [("run", "finished"), ("skip", "skipped")])
def test_an_empty_list_obeys_what_the_job_behind_it_says(
    if_empty: Any, state: str, run: Runs, work: Work
) -> None:
    run.submit(
        job("total", "give", with_=COLLECT, if_empty=if_empty),
        job("squares", "square", for_each=each([]), with_=SQUARES),
        job("after", "my_id", needs=("total",)),
    )
    work()
    assert run.state == "succeeded"
    assert run.states == {"total": state, "squares(list)": "finished", "after": "finished"}


def test_a_group_that_nothing_follows_is_part_of_the_run(run: Runs, work: Work) -> None:
    run.submit(job("squares", "square", for_each=each([1, 2]), with_=SQUARES))
    work(max_jobs=2)
    assert run.state == "running"
    work()
    assert run.state == "succeeded"
    assert run.states == {
        "squares(list)": "finished",
        "squares[0]": "finished",
        "squares[1]": "finished",
    }


def test_a_failed_item_keeps_the_job_behind_it_from_running(run: Runs, work: Work) -> None:
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.items.results }}"}),
        job("items", "fail_if", for_each=each([1, 2, 3]), with_={"value": "${{ item }}", "bad": 2}),
    )
    work()
    assert run.state == "failed"
    assert run.states["total"] == "skipped"
    assert run.reason("total") == "items[1] failed"


@pytest.mark.parametrize("value", [5, "text", {"a": 1}, None])
def test_what_is_no_list_is_refused_in_words(value: Any, run: Runs, work: Work) -> None:
    run.submit(
        job("value", "give", with_={"value": value}),
        job("squares", "square", for_each=each("${{ jobs.value.result }}"), with_=SQUARES),
    )
    work()
    assert run.state == "failed"
    assert "the for_each of squares needs a list" in run.error("squares")


def test_items_are_named_by_their_key_and_found_by_it(run: Runs, work: Work) -> None:
    cities = [{"city": "Lima"}, {"city": "Oslo"}, {"city": "Lima"}]
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.cities.by_key['Oslo'] }}"}),
        job(
            "cities",
            "give",
            for_each=each(cities, key="item.city"),
            with_={"value": "${{ item.city ~ index }}"},
        ),
    )
    work()
    assert set(run.states) == {"total", "cities(list)", "cities[Lima]", "cities[Oslo]"}
    assert run.result("total") == "Oslo1"


def test_outcomes_tell_how_each_item_ended(run: Runs, work: Work) -> None:
    run.submit(
        job("report", "give", with_={"value": "${{ jobs.items.outcomes }}"}, if_="always()"),
        job("items", "fail_if", for_each=each([7, 8]), with_={"value": "${{ item }}", "bad": 8}),
    )
    work()
    good: dict[str, Any] = {"error": None, "error_type": None, "exit_code": None, "attempts": 1}
    bad = good | {"error": "ValueError: 8 is bad", "error_type": "ValueError"}
    assert run.result("report") == [
        {"item": 7, "key": "0", "status": "finished", "result": 7, **good},
        {"item": 8, "key": "1", "status": "failed", "result": None, **bad},
    ]
    assert run.state == "failed"


def test_an_expansion_that_dies_in_its_middle_lets_nothing_run_early_and_doubles_nothing(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ITEMS_PER_CALL", 2)
    added = []

    def add_and_die(enqueues: Any, *rest: Any) -> None:
        real(enqueues, *rest)
        added.append(enqueues)
        if len(added) == 2:
            raise RuntimeError("killed")

    real = groups.add_all
    monkeypatch.setattr(groups, "add_all", add_and_die)
    run.submit(
        job("total", "give", with_=COLLECT),
        job("squares", "square", for_each=each([1, 2, 3, 4, 5]), with_=SQUARES),
    )
    work()
    assert run.state == "failed"
    assert run.states["total"] == "skipped"
    assert run.states["squares[3]"] == "finished"
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert run.result("total") == [1, 4, 9, 16, 25]
    assert len(get_job(f"{RUN}-total", run.connection).blockers) == 6
    assert run.status.jobs["squares[0]"].attempts == 1


def test_a_retry_of_the_run_keeps_the_list(run: Runs, work: Work, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.items.results }}"}),
        job(
            "items",
            "fail_unless",
            for_each=each([str(tmp_path), str(gate)]),
            with_={"path": "${{ item }}", "value": "${{ index }}"},
        ),
    )
    work()
    assert run.state == "failed"
    gate.touch()
    assert retry.retry(RUN, run.connection) == (f"{RUN}-total", f"{RUN}-items--1")
    work()
    assert run.state == "succeeded"
    assert run.result("total") == [0, 1]
    assert run.status.jobs["items(list)"].attempts == run.status.jobs["items[0]"].attempts == 1


def test_many_items_are_added_in_bounded_steps(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(
        job("total", "give", with_={"value": "${{ len(jobs.items.results) }}"}),
        job("items", "give", for_each=each("${{ range(2000) }}"), with_={"value": "${{ item }}"}),
    )
    connection.config_set("slowlog-log-slower-than", 200_000)  # about 20 ms on an idle machine
    connection.slowlog_reset()
    work(max_jobs=1)
    assert connection.llen(keys.queue("default")) == 2_000
    assert connection.slowlog_get() == []
    left: Any = connection.hget(keys.run(RUN), "left")
    assert int(left) == 2_001


def test_items_that_nothing_waits_for_are_missed_by_their_run(
    run: Runs, work: Work, work_plainly: Work, connection: Redis
) -> None:
    """A worker without our classes ends one, somebody deletes another."""
    run.submit(job("squares", "square", for_each=each([1, 2, 3]), with_=SQUARES))
    work(max_jobs=1)
    work_plainly(max_jobs=1)
    connection.lpop(keys.queue("default"))
    connection.delete(keys.job(f"{RUN}-squares--1"))
    maintenance.examine(connection)
    assert run.states == {
        "squares(list)": "finished",
        "squares[0]": "finished",
        "squares[1]": "deleted",
        "squares[2]": "queued",
    }
    work()
    assert run.state == "failed"
    maintenance.examine(connection)
    assert connection.exists(keys.WATCHED) == 0


def test_an_expansion_that_fails_is_not_taken_for_an_empty_list(run: Runs, work: Work) -> None:
    run.submit(
        job("items", "give", for_each=each("${{ 3 + inputs.n }}"), with_={"value": 1}),
        job("total", "my_id", needs=("items",), if_empty="skip"),
        job("last", "my_id", needs=("total",)),
        inputs={"n": 1},
    )
    work()
    assert run.states == {"items(list)": "failed", "total": "skipped", "last": "skipped"}
    assert run.reason("total") == "items(list) failed"


def test_a_long_list_is_not_cut_off_by_the_time_that_one_job_may_take(
    run: Runs, connection: Redis, work: Work
) -> None:
    run.submit(job("many", "square", for_each=each([1, 2]), with_={"number": "${{ item }}"}))
    assert connection.hget(f"rq:job:{RUN}-many", "timeout") == b"3600"
    work()
    assert connection.hget(f"rq:job:{RUN}-many--0", "timeout") == b"180"


@pytest.mark.parametrize(
    ("options", "more", "says"),
    [
        ({}, {"settings": {"retries.max": "${{ 2 - item }}"}}, "FQ242 retries.max of job a[3]"),
        ({"key": "12 // (3 - item)"}, {}, "FQ305"),
        ({}, {"with_": {"value": "${{ 12 // (3 - index) }}"}}, "FQ305"),
        ({}, {"env": {"N": "${{ 12 // (3 - item) }}"}}, "FQ305"),
        ({}, {"if_": "12 // (3 - item)"}, "FQ305"),
        ({"max_items": 3}, {}, "more than 3 items"),
    ],
)
def test_no_item_is_added_if_a_later_one_cannot_be(
    options: Any,
    more: Any,
    says: str,
    run: Runs,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "ITEMS_PER_CALL", 2)
    more = {"with_": {"value": "${{ item }}"}} | more
    run.submit(
        job("found", "give", with_={"value": [0, 1, 2, 3, 4]}),
        job("a", "give", for_each=each("${{ jobs.found.result }}", **options), **more),
    )
    work()
    assert run.states == {"found": "finished", "a(list)": "failed"}
    assert says in run.error("a")


def test_a_template_is_tried_before_only_if_an_item_could_have_no_job(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ITEMS_PER_CALL", 2)
    bound: list[int] = []

    def bind_and_note(template: Any, item: Any, group_id: str) -> Any:
        bound.append(item.index)
        return bind_item(template, item, group_id)

    monkeypatch.setattr(groups, "bind_item", bind_and_note)
    run.submit(job("a", "give", for_each=each([0, 1, 2]), with_={"value": "${{ item }}"}))
    work()
    assert (run.state, bound) == ("succeeded", [0, 1, 2])
