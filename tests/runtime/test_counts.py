"""The counts that scripts keep of a run are those of its events, and cost nothing to read.

`Runs.status` compares the two in all tests of this folder; here it is known that there are some.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq import runtime
from flowq.render.counted import table
from flowq.render.lines import Line
from flowq.render.progress import progress
from flowq.runtime import counts, keys, retry, runs, steps
from flowq.runtime.counts import list_jobs, read_counted, read_tallies
from flowq.spec import Approval, JobSpec, Retry, Workflow
from tests.runtime.language import RUN, Runs, each, job
from tests.runtime.tallies import check_tallies

Work = Callable[..., None]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit_much(run: Runs, count: int = 4) -> None:
    """A run with something of every kind: groups, nested workflows, approvals, failures."""
    inner = Workflow(
        "inner",
        (
            job("a", "give", with_={"value": 1}),
            job("b", "fail", needs=("a",)),
            job("c", "give", with_={"value": 1}, for_each=each([1, 2])),
        ),
    )
    run.submit(
        job("list", "give", with_={"value": list(range(count))}),
        job(
            "page",
            "give",
            for_each=each("${{ jobs.list.result }}"),
            with_={"value": "${{ item }}"},
        ),
        job("bad", "fail", for_each=each([0, 1]), retries=Retry(1)),
        job("none", "give", for_each=each([]), with_={"value": 1}),
        job("after", "give", needs=("bad",), with_={"value": 1}),
        job("ask", "give", approval=Approval(), with_={"value": 1}),
        job("asks", "give", approval=Approval(), for_each=each([0, 1]), with_={"value": 1}),
        JobSpec("w", workflow="inner", retries=Retry(1)),
        JobSpec("ws", workflow="inner", for_each=each([0, 1])),
        workflows={"inner": inner},
    )


def shown(lines: list[Line]) -> list[str]:
    """The words of a table, without durations, and without why jobs wait."""
    texts = ["".join(words for words, _ in line) for line in lines]
    texts = [re.sub(r"deferred, (?!waits for approval).*", "deferred", text) for text in texts]
    return [re.sub(r"\s+([\d.]+(ms|s|m|h|d)\b)?\s*", " ", text).strip() for text in texts]


def compare(run: Runs) -> None:
    status = run.status
    assert check_tallies(status, run.connection)
    counted = read_counted(RUN, run.connection)
    assert counted is not None
    assert counted.status.state == status.state
    assert shown(table(counted, NOW, 100)) == shown(progress(status, NOW, 100))


def test_after_each_job_the_counts_and_the_table_are_those_of_the_events(
    run: Runs, work: Work
) -> None:
    submit_much(run)
    compare(run)
    for _ in range(40):
        work(max_jobs=1)
        compare(run)
    work()
    compare(run)


def test_they_are_in_a_run_that_is_retried_and_then_canceled(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit_much(run)
    work()
    runs.cancel(RUN, connection)
    compare(run)
    retry.retry(RUN, connection)
    compare(run)
    work(max_jobs=5)
    compare(run)
    runs.cancel(RUN, connection)
    compare(run)


def test_reading_them_takes_as_many_commands_for_ten_items_as_for_a_thousand(
    run: Runs, work: Work, connection: Redis
) -> None:
    commands = {}
    for count in (10, 1_000):
        run.submit(job("page", "give", for_each=each(list(range(count))), with_={"value": 1}))
        work(max_jobs=5)
        connection.config_resetstat()
        assert read_counted(RUN, connection) is not None
        stats: Any = connection.info("commandstats")
        commands[count] = sum(each["calls"] for name, each in stats.items())
        runs.remove(RUN, connection)
    assert commands[1_000] < commands[10] + 5 < 50  # pages of what is added differ


def test_the_items_in_a_state_are_listed_in_pages_and_in_their_order(
    run: Runs, work: Work, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "PAGE", 3)
    run.submit(
        job("page", "give", for_each=each(list(range(12))), if_="item % 2 == 0",
            with_={"value": 1}),
    )  # fmt: skip
    work()
    group = f"{RUN}-page"
    even = [f"{group}--{index}" for index in range(0, 12, 2)]
    assert list(list_jobs(group, "finished", connection)) == even
    assert len(list(list_jobs(group, "skipped", connection))) == 6
    assert list(list_jobs(group, "finished", connection, after=even[2])) == even[3:]
    assert list(list_jobs(group, "failed", connection)) == []


@pytest.mark.parametrize("missed", ["an end", "a job"])
def test_there_are_none_where_an_older_version_has_taken_part(
    run: Runs, work: Work, connection: Redis, missed: str
) -> None:
    run.submit(job("page", "give", for_each=each([1, 2, 3]), with_={"value": 1}))
    work(max_jobs=2)
    assert read_tallies(RUN, connection) is not None
    if missed == "an end":
        connection.hdel(keys.unended(RUN), f"{RUN}-page--2")
    else:
        connection.lpush(keys.run_jobs(RUN), f"{RUN}-page--3")
    assert read_tallies(RUN, connection) is None
    assert read_counted(RUN, connection) is None


def test_there_are_none_for_a_user_who_may_only_look(
    run: Runs, work: Work, connection: Redis, redis_url: str
) -> None:
    run.submit(job("page", "give", for_each=each([1, 2, 3]), with_={"value": 1}))
    rules = ["%R~rq:*", "+@read", "+@connection", "-@dangerous"]
    connection.execute_command("ACL", "SETUSER", "looks", "on", ">no-secret", *rules)
    try:
        with Redis.from_url(redis_url, username="looks", password="no-secret") as looking:
            assert read_tallies(RUN, looking) is None
            assert read_counted(RUN, looking) is None
            assert runs.get_status(RUN, looking).state == "running"
    finally:
        connection.acl_deluser("looks")


def test_nothing_of_them_is_left_of_a_run_that_is_removed(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit_much(run)
    work()
    assert connection.exists(keys.states(f"{RUN}-page"), keys.states(f"{RUN}-w")) == 2
    runs.remove(RUN, connection)
    steps.work_off(connection)
    assert [key for key in connection.keys("*") if b":states:" in key] == []


def test_the_script_and_its_reader_have_one_table_of_states() -> None:
    text = (Path(runtime.__file__).parent / "lua" / "tally.lua").read_text("utf-8")
    table_of_script = text.partition("CODES = {")[2].partition("}")[0]
    codes = {name: int(code) for name, code in re.findall(r"(\w+) = (\d+)", table_of_script)}
    assert codes == {name: at for at, name in enumerate(counts.STATES, start=1)}
