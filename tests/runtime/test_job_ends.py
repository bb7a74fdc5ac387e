"""`jobs.NAME.error`, `.exit_code` and `.attempts`: how one job ended, as data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import retry
from flowq.runtime.job import get_job
from flowq.runtime.results import MAX_MESSAGE, JobEnd, read_end
from flowq.spec import ALL_TOLERATED, JobSpec, Retry, Shell, Workflow
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
HEAD = "Traceback (most recent call last):"
LOOK = {"value": "${{ [jobs.a.error, jobs.a.error.type, jobs.a.error.message, jobs.a.attempts] }}"}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def own_work(connection: Redis) -> Work:
    def run() -> None:
        worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
        worker.work(burst=True, logging_level="CRITICAL")

    return run


def shell(name: str, command: str, **more: Any) -> JobSpec:
    return JobSpec(name, run=Shell(command), **more)


def test_an_error_has_a_type_and_a_message(run: Runs, work: Work) -> None:
    run.submit(
        job("a", "fail", with_={"message": "the disk is full\nsecond line"}),
        job("look", "give", if_="failure()", with_=LOOK),
    )
    work()
    error = {"type": "ValueError", "message": "the disk is full\nsecond line"}
    assert run.result("look") == [error, *error.values(), 1]


@pytest.mark.parametrize("text", ["half \ud83d", "caf\udce9"])
def test_an_error_that_is_no_utf8_is_kept_by_a_worker_of_rq_too(
    text: str, run: Runs, work: Work
) -> None:
    run.submit(
        job("cause", "fail_with_literal", with_={"text": ascii(text)}),
        job("look", "give", if_="failure()", with_={"value": "${{ jobs.cause.error.message }}"}),
    )
    work()
    assert run.states["cause"] == "failed"
    assert run.result("look") == ascii(text)[1:-1].replace("udce9", "xe9")


@pytest.mark.parametrize(("condition", "attempts"), [(None, 1), ("false", 0)])
def test_where_nothing_went_wrong_there_is_no_error(
    condition: str | None, attempts: int, run: Runs, work: Work
) -> None:
    run.submit(job("a", "my_id", if_=condition), job("look", "give", with_=LOOK))
    work()
    assert run.result("look") == [None, None, None, attempts]


def test_a_job_that_never_began_has_no_attempts(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "fail"),
        job("a", "my_id", needs=("first",)),
        job("look", "give", if_="always()", with_=LOOK),
    )
    work()
    assert run.result("look") == [None, None, None, 0]


@pytest.mark.parametrize("command", ["exit 7", "kill -9 $$", "true"])
def test_a_command_has_an_exit_code(command: str, run: Runs, work: Work) -> None:
    run.submit(
        shell("a", command),
        job("look", "give", if_="always()", with_={"value": "${{ jobs.a.exit_code }}"}),
        job("judged", "my_id", if_="always() and jobs.a.exit_code == 7"),
    )
    work()
    code = {"exit 7": 7, "kill -9 $$": 137, "true": 0}[command]
    assert run.result("look") == code
    assert run.states["judged"] == ("finished" if code == 7 else "skipped")
    if code:
        assert read_end(f"{RUN}-a", run.connection).error_type == "ShellFailed"


def test_a_command_that_did_not_run_has_none(run: Runs, work: Work) -> None:
    run.submit(
        shell("a", "true", if_="false"),
        job("look", "give", with_={"value": "${{ jobs.a.exit_code }}"}),
    )
    work()
    assert run.result("look") is None


@pytest.mark.parametrize("is_ours", [False, True])
def test_attempts_count_every_start(
    is_ours: bool, run: Runs, work: Work, own_work: Work, tmp_path: Path
) -> None:
    run.submit(
        job("a", "fail_twice", with_={"log": f"{tmp_path}/log"}, retries=Retry(2)),
        shell("b", "exit 3"),
        job("look", "give", needs=("b",), if_="always()", with_=LOOK),
    )
    (own_work if is_ours else work)()
    assert run.result("look") == [None, None, None, 3]
    assert read_end(f"{RUN}-b", run.connection).exit_code == 3


def test_attempts_go_on_when_the_run_is_retried(run: Runs, work: Work, tmp_path: Path) -> None:
    run.submit(
        job("a", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        job("look", "give", if_="always()", with_=LOOK),
    )
    work()
    assert run.result("look")[3] == 1
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.result("look") == [None, None, None, 2]
    assert run.status.jobs["a"].attempts == 2


def test_a_tolerated_failure_has_its_error(run: Runs, work: Work) -> None:
    run.submit(job("a", "fail", continue_on_error=ALL_TOLERATED), job("look", "give", with_=LOOK))
    work()
    assert run.result("look")[1:] == ["ValueError", "it broke", 1]


def test_a_workflow_has_the_error_of_what_failed_inside(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("one", "fail"),))
    run.submit(
        JobSpec("a", workflow="inner"),
        job("look", "give", if_="always()", with_=LOOK),
        workflows={"inner": inner},
    )
    work()
    assert run.result("look")[1:3] == ["ValueError", "a.one failed: it broke"]


def test_the_items_of_a_group_have_it_in_outcomes(run: Runs, work: Work) -> None:
    run.submit(
        shell("group", "exit ${{ item }}", for_each=each([0, 3])),
        job("look", "give", if_="always()", with_={"value": "${{ jobs.group.outcomes }}"}),
    )
    work()
    good, bad = run.result("look")
    assert (good["error"], good["error_type"], good["exit_code"]) == (None, None, 0)
    assert (bad["error_type"], bad["exit_code"], bad["attempts"]) == ("ShellFailed", 3, 1)
    assert bad["error"].startswith("flowq.errors.ShellFailed: ")


def test_a_long_message_is_cut(run: Runs, work: Work) -> None:
    run.submit(job("a", "fail", with_={"message": "x" * 5_000}))
    work()
    assert len(read_end(f"{RUN}-a", run.connection).message or "") == MAX_MESSAGE


def test_a_secret_is_hidden_in_the_error(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "open sesame")
    run.submit(
        job("a", "fail", with_={"message": "no: ${{ secrets.A_TOKEN }}"}),
        job("look", "give", if_="failure()", with_=LOOK),
    )
    work()
    assert run.result("look")[2] == "no: ***"


@pytest.mark.parametrize(
    ("text", "error_type", "message"),
    [
        ("Moved to FailedJobRegistry, due to X, at noon", None, None),
        ("Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ", None, None),
        (f"{HEAD}\n  File 'x', line 1\n    f()\nKeyError", "KeyError", ""),
        (
            f"{HEAD}\n  File 'x', line 1\na.b.Broken: one\n  two\nthree: 3",
            "Broken",
            "one\n  two\nthree: 3",
        ),
        (f"{HEAD}\n  F\nKeyError: 1\n\nThen:\n\n{HEAD}\n  F\nOSError: [2]", "OSError", "[2]"),
    ],
)
def test_the_type_is_read_from_the_end_of_a_traceback(
    text: str, error_type: str | None, message: str | None, run: Runs
) -> None:
    run.submit(job("a", "my_id"))
    found = get_job(f"{RUN}-a", run.connection)
    with run.connection.pipeline() as pipeline:
        found._handle_failure(text, pipeline)
        pipeline.execute()
    run.connection.hset(found.key, mapping={"flowq_outcome": "failed", "started_at": "now"})
    end = read_end(f"{RUN}-a", run.connection)
    assert (end.error_type, end.message) == (error_type, text if message is None else message)


def test_a_job_that_is_gone_has_nothing(connection: Redis) -> None:
    assert read_end("nobody", connection) == JobEnd()
