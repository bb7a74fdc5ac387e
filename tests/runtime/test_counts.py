"""The counts of a run are those that folding its events gives, and reading them costs little.

`Runs.status` compares the two in all tests of this folder; here it is known that there are some.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq import runtime
from flowq.render.groups import as_one, counted_as_one, find_declared
from flowq.render.lines import Line
from flowq.render.progress import progress
from flowq.render.tally import Tally
from flowq.runtime import counts, keys, retry, runs, scripts
from flowq.runtime.counts import GroupCounts, read_counted, read_page
from flowq.spec import ALL_TOLERATED, Approval, JobSpec, Matrix, Retry, Workflow
from flowq.status import PROGRESSED, STATE_BY_EVENT
from tests.runtime.calls import count_calls
from tests.runtime.counting import check_counts
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLOSE = timedelta(seconds=0.5)
"""A status forgets when an attempt began whose job waits for another one; counts do not."""


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
    return ["".join(words for words, _ in line).rstrip() for line in lines]


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"\s+([\d.]+(ms|s|m|h|d)\b)?\s*", " ", line).strip() for line in lines]


def compare(run: Runs) -> bool:
    """Compare the table that is drawn from counts, if it is, without times."""
    status = run.status
    counted = check_counts(status, run.connection)
    assert counted is not None
    tally = Tally.of_counted(counted)
    if tally is not None:
        tables = (
            shown(progress(counted.status, NOW, 100, tally=tally)),
            shown(progress(status, NOW, 100)),
        )
        found, expected = map(without_times, tables)
        assert found == expected
        rows = Tally(status).parts
        for name in {each.name for each in counted.groups} & set(tally.parts):
            declared = find_declared(status, name)
            assert declared is not None
            whole = as_one(declared, status.started_at)
            one = counted_as_one(tally.parts[name])
            assert (one.name, one.state, one.reason) == (whole.name, whole.state, whole.reason)
        for name, part in tally.parts.items():
            for at, known in (
                (part.started_at, rows[name].started_at),
                (part.ended_at, rows[name].ended_at),
            ):
                assert known is None or (at is not None and abs(at - known) < CLOSE)
    return tally is not None


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


def test_the_table_of_plain_groups_is_drawn_from_the_counts(run: Runs, work: Work) -> None:
    inner = Workflow(
        "inner",
        (
            job("a", "give", with_={"value": 1}),
            job("g", "give", with_={"value": 1}, for_each=each([1, 2])),
        ),
    )
    run.submit(
        job("list", "give", with_={"value": list(range(5))}),
        job("page", "fail", for_each=each("${{ jobs.list.result }}"), if_="item != 3"),
        JobSpec("w", workflow="inner"),
        job("still", "fail", for_each=each([0, 1]), continue_on_error=ALL_TOLERATED),
        job("after", "give", needs=("page",), with_={"value": 1}),
        workflows={"inner": inner},
    )
    assert compare(run)
    for _ in range(20):
        work(max_jobs=1)
        assert compare(run)


def test_they_are_in_a_run_that_is_retried_and_then_canceled(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit_much(run)
    work()
    runs.cancel(RUN, connection)
    compare(run)
    retry.retry(RUN, connection)
    compare(run)
    for _ in range(8):
        work(max_jobs=1)
        compare(run)
    runs.cancel(RUN, connection)
    compare(run)


def test_events_are_counted_a_page_at_a_time_and_each_once(
    run: Runs, work: Work, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "EVENTS_PER_CALL", 3)
    submit_much(run)
    work()
    compare(run)
    connection.xadd(keys.run_events(RUN), event("bad[0]", "queued"))
    connection.config_resetstat()
    compare(run)
    stats: Any = connection.info("commandstats")
    assert stats["cmdstat_zadd"]["calls"] == 1


def event(name: str, state: str, reason: str = "") -> dict[Any, Any]:
    job_id = f"{RUN}-{name}".replace("[", "--").replace("]", "")
    return {"job": job_id, "name": name, "state": state, "reason": reason}


def test_what_an_older_version_writes_between_two_looks_is_counted_too(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("bad", "fail", for_each=each([0, 1, 2])), job("other", "square", with_={"n": 2}))
    work()
    compare(run)
    for state in ("deferred", "queued", "started", "finished"):  # a retry by its own scripts
        for index in range(3):
            connection.xadd(keys.run_events(RUN), event(f"bad[{index}]", state))
    counted = read_counted(RUN, connection)
    assert counted is not None
    group = next(each for each in counted.groups if each.name == "bad")
    assert group.failed == ()
    assert group.counts == {("item", "finished"): 3}
    compare(run)


def report(connection: Redis, job_id: str, done: int) -> None:
    text = f'{{"done":{done},"total":9,"message":""}}'
    scripts.PROGRESS.call(connection, keys.job(job_id), "worker", job_id, "", "", text)


@pytest.mark.parametrize("seed", range(2))
def test_items_and_single_jobs_that_report_their_progress_are_counted(
    run: Runs, work: Work, connection: Redis, seed: int
) -> None:
    """A report replaces the one before, also when that has been counted."""
    run.submit(
        job("page", "give", for_each=each([1, 2, 3, 4]), with_={"value": 1}),
        *(job(name, "give", with_={"value": 1}) for name in "abc"),
    )
    work(max_jobs=1)  # which makes the list
    names = ["a", "b", "c", *(f"page[{number}]" for number in range(4))]
    steps = {name: ["started", *[""] * 9, "finished"] for name in names}
    id_by_name = {name: each.job_id for name, each in run.status.jobs.items()}
    order = random.Random(seed)
    while steps:
        name = order.choice(list(steps))
        told, job_id = event(name, steps[name].pop(0)), id_by_name[name]
        if told["state"]:
            connection.hset(keys.job(job_id), "status", told["state"])
            connection.xadd(keys.run_events(RUN), told | {"job": job_id})
        else:
            report(connection, job_id, len(steps[name]))
        if order.random() < 0.3:
            assert compare(run)
        if not steps[name]:
            del steps[name]
    assert compare(run)
    assert {run.states[name] for name in names} == {"finished"}


def test_a_job_that_reports_for_long_is_counted_with_little_memory(
    run: Runs, connection: Redis
) -> None:
    run.submit(job("a", "give", with_={"value": 1}))
    connection.hset(keys.job(f"{RUN}-a"), "status", "started")
    used = []
    for _ in range(3):
        for number in range(20):
            report(connection, f"{RUN}-a", number)
            assert read_counted(RUN, connection) is not None
        counted = connection.memory_usage(keys.run_counts(RUN))
        used.append((counted, connection.xlen(keys.run_events(RUN))))
    assert used[0] == used[1] == used[2]


@pytest.mark.parametrize("lost", ["counts", "states", "both", "an item"])
def test_what_is_lost_of_them_is_counted_anew(
    run: Runs, work: Work, connection: Redis, lost: str
) -> None:
    submit_much(run)
    work(max_jobs=12)
    compare(run)
    if lost in ("counts", "both"):
        connection.delete(keys.run_counts(RUN))
    if lost in ("states", "both"):
        connection.delete(keys.run_states(RUN))
    if lost == "an item":
        connection.zrem(keys.run_states(RUN), "bad[0]")
    compare(run)


def test_they_are_not_those_of_an_earlier_run_of_the_same_id(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("page", "give", for_each=each([1, 2, 3]), with_={"value": 1}))
    work()
    compare(run)
    left = [(key, connection.dump(key)) for key in (keys.run_counts(RUN), keys.run_states(RUN))]
    runs.remove(RUN, connection)
    for key, value in left:  # as an older version leaves them
        connection.restore(key, 60_000, value)
    run.submit(job("page", "give", for_each=each([1]), with_={"value": 1}))
    compare(run)


def test_reading_them_takes_as_many_commands_for_ten_items_as_for_a_thousand(
    run: Runs, work: Work, connection: Redis
) -> None:
    costs = {}
    for count in (10, 1_000):
        run.submit(job("page", "give", for_each=each(list(range(count))), with_={"value": 1}))
        work(max_jobs=5)
        assert read_counted(RUN, connection) is not None
        connection.config_resetstat()
        assert read_counted(RUN, connection) is not None
        sent_bytes = connection.info("stats")["total_net_output_bytes"]
        costs[count] = count_calls(connection), sent_bytes
        runs.remove(RUN, connection)
    assert costs[1_000][0] < costs[10][0] + 5 < 60
    assert costs[1_000][1] < costs[10][1] + 5_000  # with answers to the guardian's questions


def test_no_call_of_a_first_count_reads_or_writes_more_than_a_page(
    run: Runs, work: Work, connection: Redis
) -> None:
    """Whether the jobs were declared with the run, or added to it."""
    page, count = 20, 120
    axes = {"at": list(range(count))}
    run.submit(
        job("leg", "give", matrix=Matrix(axes), with_={"value": 1}),
        job("page", "give", for_each=each(list(range(count))), with_={"value": 1}),
    )
    while connection.hget(keys.group(f"{RUN}-page"), "complete") is None:
        work(max_jobs=100)  # the list comes behind all legs
    connection.delete(keys.run_counts(RUN), keys.run_states(RUN))
    calls: list[int] = []
    moved: list[int] = []
    answer = [b"more"]
    while answer[0] == b"more":
        before = connection.zcard(keys.run_states(RUN))
        connection.config_resetstat()
        answer = scripts.COUNT.call(connection, keys.run(RUN), RUN, page)
        calls.append(count_calls(connection))
        moved.append(connection.zcard(keys.run_states(RUN)) - before)
    assert answer[0] == b"all"
    assert sum(moved) == 2 * count
    assert max(moved) <= page
    assert max(calls) <= page + 40, calls
    compare(run)


def test_the_items_in_a_state_are_listed_in_pages_and_in_their_order(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job(
            "page",
            "give",
            for_each=each(list(range(12)), key="item ~ '.x'"),  # names of items may be any text
            if_="item % 2 == 0",
            with_={"value": 1},
        )
    )
    work()

    def find(state: str, after: str = "", limit: int = 100) -> list[str]:
        counted = read_counted(RUN, connection)
        assert counted is not None
        found = read_page(counted, "page", state, connection, after=after, limit=limit)
        assert found is not None
        assert found == [jobs[job.name] for job in found]  # to the last field
        return [job.name for job in found]

    jobs = run.status.jobs

    even = [f"page[{number}.x]" for number in range(0, 12, 2)]
    assert {run.states[name] for name in even} == {"finished"}
    assert find("finished") == even
    assert find("finished", limit=4) == even[:4]
    assert find("finished", after=even[3]) == even[4:]
    assert len(find("skipped")) == 6
    assert find("failed") == []
    counted = read_counted(RUN, connection)
    assert counted is not None
    assert read_page(counted, "no_group", "failed", connection, limit=1) == []
    assert read_page(counted, "page", "failed", connection, after="page[0]", limit=1) is None
    both = GroupCounts("page", {("item", "failed"): 1, ("item", "tolerated"): 1})
    assert (
        read_page(replace(counted, groups=(both,)), "page", "failed", connection, limit=1) is None
    )


def test_there_are_none_of_many_single_jobs_or_for_a_server_that_takes_no_changes(
    run: Runs, connection: Redis
) -> None:
    run.submit(*(job(f"a{number}", "square", with_={"n": 1}) for number in range(1_100)))
    assert read_counted(RUN, connection) is None
    assert read_counted(RUN, connection) is None
    runs.remove(RUN, connection)
    run.submit(job("page", "give", for_each=each([1, 2, 3]), with_={"value": 1}))
    connection.config_set("maxmemory", 1)
    try:
        assert read_counted(RUN, connection) is None
    finally:
        connection.config_set("maxmemory", 0)
    compare(run)


def test_there_are_none_for_a_user_who_may_only_look(
    run: Runs, work: Work, connection: Redis, redis_url: str
) -> None:
    run.submit(job("page", "give", for_each=each([1, 2, 3]), with_={"value": 1}))
    rules = ["%R~rq:*", "+@read", "+@connection", "-@dangerous"]
    connection.execute_command("ACL", "SETUSER", "looks", "on", ">no-secret", *rules)
    try:
        with Redis.from_url(redis_url, username="looks", password="no-secret") as looking:
            assert read_counted(RUN, looking) is None
            assert runs.get_status(RUN, looking).state == "running"
    finally:
        connection.acl_deluser("looks")


def test_nothing_of_them_is_left_of_a_run_that_is_removed(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit_much(run)
    work()
    compare(run)
    written = (keys.run_counts(RUN), keys.run_states(RUN))
    assert connection.exists(*written) == 2
    assert all(0 < connection.pttl(key) <= 3_600_000 for key in written)
    runs.remove(RUN, connection)
    assert connection.exists(*written) == 0


def test_the_script_and_its_reader_have_one_table_of_states() -> None:
    text = (Path(runtime.__file__).parent / "lua" / "counts.lua").read_text("utf-8")
    table_of_script = text.partition("CODES = {")[2].partition("}")[0]
    codes = {name: int(code) for name, code in re.findall(r"(\w+) = (\d+)", table_of_script)}
    assert codes == {name: at for at, name in enumerate(counts.STATES, start=1)}
    events = re.search(r"STATE_OF = \{(.*?)\}", text)
    assert events is not None
    known = dict(re.findall(r"(\w+) = '(\w+)'", events[1]))
    assert known | {PROGRESSED: "started"} == STATE_BY_EVENT  # in the log that is a `started`
