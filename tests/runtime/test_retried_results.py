"""What expressions read of a job that a retry has made run again, and that then did not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.runtime import approvals, keys, retry
from flowq.runtime.job import get_job
from flowq.runtime.maintenance import tidy
from flowq.spec import Approval, JobSpec, Shell, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
WAITS = Approval()


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def after(*needs: str, **values: str) -> JobSpec:
    """A job that returns what it reads, however those before it have ended."""
    return job("after", "give", with_={"value": values}, needs=needs, if_="always()")


def approve(run: Runs, name: str, work: Work) -> None:
    work()
    approvals.approve(RUN, name, run.connection)
    work()


def retry_and_reject(run: Runs, name: str, work: Work) -> None:
    retry.retry(RUN, run.connection, name)
    work()
    approvals.reject(RUN, name, run.connection)
    work()


def test_the_result_of_an_earlier_attempt_is_gone(run: Runs, work: Work) -> None:
    ship = job("ship", "give", with_={"value": "shipped"}, approval=WAITS)
    run.submit(ship, after("ship", result="${{ jobs.ship.result }}"))
    approve(run, "ship", work)
    assert run.result("after") == {"result": "shipped"}
    retry_and_reject(run, "ship", work)
    assert run.states["ship"] == "canceled"
    assert run.result("after") == {"result": None}
    assert "ship" not in Run(RUN, run.connection).results()
    history = get_job(f"{RUN}-ship", run.connection).results()
    assert [each.return_value for each in history] == ["shipped"]  # RQ's own keeps all


def test_the_result_comes_back_when_it_succeeds_once_more(run: Runs, work: Work) -> None:
    ship = job("ship", "give", with_={"value": "shipped"}, approval=WAITS)
    run.submit(ship, after("ship", result="${{ jobs.ship.result }}"))
    approve(run, "ship", work)
    retry_and_reject(run, "ship", work)
    retry.retry(RUN, run.connection, "ship")
    approve(run, "ship", work)
    assert run.result("after") == {"result": "shipped"}


def test_the_exit_code_of_an_earlier_attempt_is_gone(run: Runs, work: Work) -> None:
    ship = JobSpec("ship", run=Shell("echo shipped"), approval=WAITS)
    code = "${{ jobs.ship.exit_code }}"
    run.submit(ship, after("ship", code=code, result="${{ jobs.ship.result }}"))
    approve(run, "ship", work)
    assert run.result("after") == {"code": 0, "result": "shipped"}
    retry_and_reject(run, "ship", work)
    assert run.result("after") == {"code": None, "result": None}
    assert Run(RUN, run.connection).views(["ship"])["ship"].arguments == {}


def test_an_item_that_was_rejected_has_no_result_of_an_earlier_attempt(
    run: Runs, work: Work
) -> None:
    ship = JobSpec("ship", run=Shell("echo ${{ item }}"), for_each=each(["a", "b"]), approval=WAITS)
    run.submit(ship, after("ship", all="${{ jobs.ship.outcomes }}"))
    approve(run, "ship", work)
    retry_and_reject(run, "ship[1]", work)
    first, second = run.result("after")["all"]
    assert (first["result"], first["exit_code"]) == ("a", 0)
    assert (second["status"], second["result"], second["exit_code"]) == ("canceled", None, None)


def test_a_nested_workflow_that_was_rejected_has_no_outputs(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("x", "my_id"),), outputs={"word": "shipped"})
    run.submit(
        JobSpec("ship", workflow="inner", approval=WAITS),
        after("ship", result="${{ jobs.ship.result }}"),
        workflows={"inner": inner},
    )
    approve(run, "ship", work)
    assert run.result("after") == {"result": {"word": "shipped"}}
    retry_and_reject(run, "ship", work)
    assert run.result("after") == {"result": None}


def test_the_outputs_of_the_run_do_not_have_it_either(run: Runs, work: Work) -> None:
    ship = job("ship", "give", with_={"value": "shipped"}, approval=WAITS)
    run.submit(ship, outputs={"word": "${{ jobs.ship.result }}"})
    approve(run, "ship", work)
    assert Run(RUN, run.connection).outputs() == {"word": "shipped"}
    retry_and_reject(run, "ship", work)
    assert Run(RUN, run.connection).outputs() == {"word": None}


def test_a_skipped_job_has_no_result_of_an_earlier_attempt(
    run: Runs, work: Work, tmp_path: Any
) -> None:
    first = job("first", "fail_unless", with_={"path": str(tmp_path / "gate")})
    second = job("second", "give", with_={"value": "shipped"}, needs=("first",))
    (tmp_path / "gate").touch()
    run.submit(first, second, after("second", result="${{ jobs.second.result }}"))
    work()
    assert run.result("after") == {"result": "shipped"}
    (tmp_path / "gate").unlink()
    retry.retry(RUN, run.connection, "first")
    work()
    assert run.states["second"] == "skipped"
    assert run.result("after") == {"result": None}


def test_the_error_of_an_earlier_attempt_is_gone(run: Runs, work: Work) -> None:
    ship = job("ship", "fail", approval=Approval(expires_s=60))
    run.submit(ship, after("ship", error="${{ jobs.ship.error.message }}"))
    approve(run, "ship", work)
    assert run.error("ship").startswith("Traceback")
    retry.retry(RUN, run.connection, "ship")
    work()
    run.connection.zadd(keys.EXPIRING, {f"{RUN}-ship": 1}, xx=True)
    tidy(run.connection)
    work()
    assert run.states["ship"] == "failed"
    assert run.error("ship") == run.reason("ship") == "it expired before it was approved"
    assert run.result("after") == {"error": "it expired before it was approved"}
