"""The memory budget of a run, where RQ's own code writes the ends: see decision 013."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from flowq.client import Run
from flowq.runtime import keys, maintenance
from flowq.runtime.views import LARGE_BYTES, NO_MEMORY
from tests.runtime.language import RUN, Runs, job

Work = Callable[..., None]
JOBS = [job(f"j{at}", "give", with_={"value": "x" * 3_000}) for at in range(6)]


@pytest.fixture
def run(connection: Redis) -> Run:
    Runs(connection).submit(
        *JOBS, outputs={name: f"${{{{ jobs.{name}.result * 7 }}}}" for name in ("j0", "j1", "j2")}
    )
    return Run(RUN, connection)


def test_views_of_results_and_outputs_count_and_what_does_not_fit_is_left_out(
    run: Run, connection: Redis, work: Work
) -> None:
    connection.hset(keys.run(RUN), keys.BUDGET_FIELD, 65_000)
    work()

    ends = [view.result for view in run.views().values()]
    outputs = run.kept_outputs().views
    assert [NO_MEMORY in ends, len(ends)] == [False, 6]
    assert [view == NO_MEMORY for view in outputs.values()] == [False, True, True]
    used = int(connection.hget(keys.printed(RUN), "used") or 0)
    assert 6 * 3_000 + 21_000 < used <= 65_000
    assert run.outputs()["j2"] == "x" * 21_000, "what is not shown is not lost"


def test_of_a_large_view_that_does_not_fit_little_is_kept(
    run: Run, connection: Redis, work: Work
) -> None:
    connection.hset(keys.run(RUN), keys.BUDGET_FIELD, 0)
    work()

    views = [connection.hget(keys.job(f"{RUN}-j{at}"), keys.VIEW_FIELD) for at in range(6)]
    assert all(0 < len(view or "") < LARGE_BYTES for view in views)
    assert not connection.exists(keys.printed(RUN))


def test_what_a_run_printed_goes_with_it_also_if_an_older_version_removes_it(
    run: Run, connection: Redis, work: Work
) -> None:
    work()
    assert connection.exists(keys.printed(RUN))
    connection.zadd(keys.PRINTING, {RUN: 0})
    maintenance.tidy(connection)
    assert connection.exists(keys.printed(RUN)), "the run is there"
    assert connection.zscore(keys.PRINTING, RUN)

    connection.delete(keys.run(RUN))  # an older version does not know the rest
    connection.zadd(keys.PRINTING, {RUN: 0})
    maintenance.tidy(connection)
    assert not connection.exists(keys.printed(RUN), keys.PRINTING)


def test_nothing_is_left_of_a_run_that_this_version_removes(
    run: Run, connection: Redis, work: Work
) -> None:
    work()
    run.remove()
    assert not connection.exists(keys.printed(RUN), keys.PRINTING)
