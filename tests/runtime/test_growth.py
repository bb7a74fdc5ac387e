"""`more`, `key` and `max_items`: a finished item adds items to its own group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import groups, keys, retry
from flowq.runtime.job import get_job
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def crawl(**more: Any) -> Any:
    options = {"key": "item", "more": "result.links"} | more
    return job(
        "crawl",
        "children_of",
        for_each=each([1], **options),
        with_={"number": "${{ item }}", "limit": "${{ inputs.limit }}"},
    )


SITE = job("site", "give", with_={"value": "${{ jobs.crawl.results }}"})


def test_pages_discover_pages_and_the_last_job_runs_once_after_all_of_them(
    run: Runs, work: Work
) -> None:
    run.submit(SITE, crawl(), inputs={"limit": 20})
    work()
    assert run.state == "succeeded"
    assert sorted(found["page"] for found in run.result("site")) == list(range(1, 21))
    assert run.status.jobs["site"].attempts == 1
    assert run.states["crawl[20]"] == "finished"


def test_a_key_that_was_seen_is_dropped(run: Runs, work: Work) -> None:
    run.submit(SITE, crawl(key="item % 3"), inputs={"limit": 20})
    work()
    assert run.state == "succeeded"
    assert [found["page"] for found in run.result("site")] == [1, 2, 3]


def test_without_a_key_every_item_counts(run: Runs, work: Work) -> None:
    run.submit(SITE, crawl(key=None), inputs={"limit": 7})
    work()
    assert sorted(found["page"] for found in run.result("site")) == [1, 2, 3, 4, 5, 6, 7]
    assert run.states["crawl[6]"] == "finished"


def test_a_group_that_grows_too_large_fails_and_says_so(run: Runs, work: Work) -> None:
    run.submit(SITE, crawl(max_items=5), inputs={"limit": 100})
    work()
    assert run.state == "failed"
    assert run.states["site"] == "skipped"
    failed = next(found for found in run.status.jobs.values() if found.state == "failed")
    error = run.error(failed.job_id.removeprefix(f"{RUN}-"))
    assert "crawl has found more than 5 items, its max_items" in error


def test_a_list_that_is_too_long_is_refused_as_a_whole(run: Runs, work: Work) -> None:
    run.submit(job("items", "give", for_each=each([1, 2, 3], max_items=2), with_={"value": 1}))
    work()
    assert run.states == {"items(list)": "failed"}
    assert "more than 2 items" in run.error("items")


def test_no_item_that_was_found_is_added_if_a_later_one_cannot_be(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ITEMS_PER_CALL", 2)
    found = "item and [] or [1, 2, 3, 4]"
    value = {"value": "${{ 12 // (4 - item) }}"}
    run.submit(job("a", "give", for_each=each([0], more=found), with_=value))
    work()
    assert run.states == {"a(list)": "finished", "a[0]": "failed"}
    assert "FQ305" in run.error("a--0")


def test_an_item_that_dies_after_adding_doubles_nothing(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch, connection: Redis
) -> None:
    real = groups.add_all
    died = []

    def add_and_die(enqueues: Any, *rest: Any) -> None:
        real(enqueues, *rest)
        if any(enqueue.name == "crawl[4]" for enqueue in enqueues) and not died:
            died.append(True)
            raise RuntimeError("killed")

    monkeypatch.setattr(groups, "add_all", add_and_die)
    run.submit(SITE, crawl(), inputs={"limit": 9})
    work()
    assert run.state == "failed"
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert sorted(found["page"] for found in run.result("site")) == list(range(1, 10))
    assert len(get_job(f"{RUN}-site", connection).blockers) == 10
    assert run.status.jobs["crawl[4]"].attempts == 1


def test_an_item_that_dies_before_adding_what_it_was_promised_adds_it_in_the_end(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch, connection: Redis
) -> None:
    real = groups.add_all
    died = []

    def die_first(enqueues: Any, *rest: Any) -> None:
        if any(enqueue.name == "crawl[4]" for enqueue in enqueues) and not died:
            died.append(True)
            raise RuntimeError("killed")
        real(enqueues, *rest)

    monkeypatch.setattr(groups, "add_all", die_first)
    run.submit(SITE, crawl(), inputs={"limit": 9})
    work()
    assert run.state == "failed"
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert sorted(found["page"] for found in run.result("site")) == list(range(1, 10))


def test_nothing_of_a_group_is_left_when_its_run_is_removed(
    run: Runs, work: Work, connection: Redis
) -> None:
    from flowq.runtime import runs

    run.submit(SITE, crawl(), inputs={"limit": 9}, max_parallel=2)
    work()
    runs.remove(RUN, connection)
    left: Any = connection.keys(f"*{RUN}*")
    assert left == []
    assert connection.exists(keys.group(f"{RUN}-crawl")) == 0
