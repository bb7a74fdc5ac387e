"""Retrying an ended run from the points where it failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import JobStatus

from flowq.errors import RunNotFound, WrongState
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import keys, results, retry, runs
from flowq.runtime.job import get_job
from flowq.spec import Block, BlockerPolicy

RUN = "r1"
JOBS = "runtime_jobs"
Work = Callable[..., None]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def enqueue(
    name: str, call: str, *, blocks: Sequence[str] = (), future: bool = False, **more: Any
) -> Enqueue:
    policy: BlockerPolicy = more.pop("policy", "skip")
    return Enqueue(
        f"{RUN}-{name}",
        name,
        Call(f"{JOBS}:{call}", more),
        deferred=future,
        blocks=tuple(Block(f"{RUN}-{block}") for block in blocks),
        on_blocker_failure=policy,
    )


def submit(connection: Redis, *enqueues: Enqueue) -> None:
    releases = [Release(each.job_id) for each in reversed(enqueues) if each.deferred]
    plan = Plan(RUN, "demo", {}, (*enqueues, Commit(RUN), *releases))
    runs.submit(plan, connection)


def states(connection: Redis) -> dict[str, str]:
    return {name: job.state for name, job in runs.get_status(RUN, connection).jobs.items()}


def submit_diamond(connection: Redis, work: Work, log: Path, gate: Path) -> None:
    """good → last ← middle ← bad, where bad fails until `gate` exists."""
    submit(
        connection,
        enqueue("last", "note", future=True, path=str(log), text="last"),
        enqueue("middle", "note", future=True, blocks=["last"], path=str(log), text="middle"),
        enqueue("good", "note", blocks=["last"], path=str(log), text="good"),
        enqueue("bad", "fail_unless", blocks=["middle"], path=str(gate)),
    )
    work()


def test_what_failed_and_what_is_downstream_runs_again_and_the_rest_keeps_its_result(
    connection: Redis, work: Work, log: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    submit_diamond(connection, work, log, gate)
    assert runs.get_record(RUN, connection).state == "failed"
    assert states(connection) == {
        "bad": "failed",
        "good": "finished",
        "middle": "skipped",
        "last": "skipped",
    }
    gate.touch()
    again = retry.retry(RUN, connection)
    assert set(again) == {f"{RUN}-{name}" for name in ("last", "middle", "bad")}
    work()
    assert runs.get_record(RUN, connection).state == "succeeded"
    assert set(states(connection).values()) == {"finished"}
    assert log.read_text().split() == ["good", "middle", "last"]
    assert results.get_result(f"{RUN}-bad", connection) == "recovered"


def test_a_retry_that_fails_again_can_be_retried_again(
    connection: Redis, work: Work, log: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    submit_diamond(connection, work, log, gate)
    retry.retry(RUN, connection)
    work()
    assert runs.get_record(RUN, connection).state == "failed"
    gate.touch()
    retry.retry(RUN, connection)
    work()
    assert runs.get_record(RUN, connection).state == "succeeded"
    assert log.read_text().split() == ["good", "middle", "last"]


def test_a_finished_job_downstream_of_a_failure_runs_again(
    connection: Redis, work: Work, log: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    submit(
        connection,
        enqueue("always", "note", future=True, policy="run", path=str(log), text="always"),
        enqueue("bad", "fail_unless", blocks=["always"], path=str(gate)),
    )
    work()
    assert states(connection) == {"bad": "failed", "always": "finished"}
    assert runs.get_record(RUN, connection).state == "failed"
    gate.touch()
    retry.retry(RUN, connection)
    work()
    assert log.read_text().split() == ["always", "always"]
    assert runs.get_record(RUN, connection).state == "succeeded"


def test_a_late_end_of_the_earlier_attempt_changes_nothing(
    connection: Redis, work: Work, log: Path, tmp_path: Path
) -> None:
    submit_diamond(connection, work, log, tmp_path / "gate")
    late = get_job(f"{RUN}-bad", connection)
    retry.retry(RUN, connection)
    edges = connection.hgetall(keys.edges(f"{RUN}-middle"))
    with connection.pipeline() as pipeline:
        late.set_status(JobStatus.FINISHED, pipeline=pipeline)
        assert pipeline.execute()[-1] == b"late"
    assert (
        connection.hgetall(keys.edges(f"{RUN}-middle"))
        == edges
        == {f"{RUN}-bad".encode(): b"pending"}
    )


def test_a_canceled_run_goes_on_where_it_was_canceled(
    connection: Redis, work: Work, log: Path
) -> None:
    submit(
        connection,
        enqueue("last", "note", future=True, path=str(log), text="last"),
        enqueue("first", "note", blocks=["last"], path=str(log), text="first"),
    )
    runs.cancel(RUN, connection)
    assert runs.get_record(RUN, connection).state == "canceled"
    work()
    retry.retry(RUN, connection)
    work()
    assert runs.get_record(RUN, connection).state == "succeeded"
    assert log.read_text().split() == ["first", "last"]


def test_a_blocker_that_succeeded_after_its_join_was_canceled_counts_in_the_retry(
    connection: Redis, work: Work, log: Path
) -> None:
    submit(
        connection,
        enqueue("last", "note", future=True, path=str(log), text="last"),
        enqueue("first", "note", blocks=["last"], path=str(log), text="first"),
        enqueue("second", "note", blocks=["last"], path=str(log), text="second"),
    )
    get_job(f"{RUN}-last", connection).cancel()
    work()
    assert states(connection) == {"first": "finished", "second": "finished", "last": "canceled"}
    retry.retry(RUN, connection)
    work()
    assert log.read_text().split() == ["first", "second", "last"]
    assert runs.get_record(RUN, connection).state == "succeeded"


def test_any_process_finishes_a_retry_that_was_begun(
    connection: Redis, work: Work, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowq.runtime.maintenance import tidy

    gate = tmp_path / "gate"
    submit_diamond(connection, work, log, gate)
    gate.touch()
    monkeypatch.setattr(retry, "finish", lambda *_: [])
    retry.retry(RUN, connection)
    tidy(connection)
    work()
    assert runs.get_record(RUN, connection).state == "succeeded"


def test_declared_retries_count_from_the_beginning(
    connection: Redis, work: Work, tmp_path: Path
) -> None:
    from flowq.spec import Retry

    job = Enqueue(f"{RUN}-bad", "bad", Call(f"{JOBS}:fail"), deferred=True, retries=Retry(max=2))
    submit(connection, job)
    work()
    assert runs.get_status(RUN, connection).jobs["bad"].attempts == 3
    retry.retry(RUN, connection)
    work()
    assert runs.get_status(RUN, connection).jobs["bad"].attempts == 6


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_a_run_that_is_active_or_has_succeeded_is_not_retried(
    connection: Redis, work: Work, log: Path, state: str
) -> None:
    submit(connection, enqueue("only", "note", future=True, path=str(log), text="x"))
    if state == "succeeded":
        work()
    before = _dump(connection)
    with pytest.raises(WrongState, match=state if state == "running" else "nothing to retry"):
        retry.retry(RUN, connection)
    assert _dump(connection) == before


def test_a_run_that_does_not_exist_is_not_retried(connection: Redis, work: Work) -> None:
    with pytest.raises(RunNotFound):
        retry.retry("nope", connection)


def test_a_removed_run_leaves_no_key_after_a_retry(
    connection: Redis, work: Work, log: Path, tmp_path: Path
) -> None:
    submit_diamond(connection, work, log, tmp_path / "gate")
    retry.retry(RUN, connection)
    work()
    runs.remove(RUN, connection)
    left = {key for key in connection.scan_iter() if RUN.encode() in key}
    assert not left
    assert connection.zcard(keys.TODO) == 0


def _dump(connection: Redis) -> dict[bytes, Any]:
    dump: Callable[[bytes], Any] = connection.dump
    return {key: dump(key) for key in connection.scan_iter()}


def test_what_is_canceled_with_its_blockers_after_a_retry_takes_all_of_them_again(
    connection: Redis,
) -> None:
    """How far the first cancel had come with the blockers is no place to go on from."""
    submit(
        connection,
        enqueue("last", "note", future=True),
        enqueue("middle", "note", future=True, blocks=["last"]),
        enqueue("both", "note", blocks=["last", "middle"]),
    )
    for again in (True, False):
        get_job(f"{RUN}-last", connection).cancel(blockers=True)
        assert set(states(connection).values()) == {"canceled"}
        if again:
            retry.retry(RUN, connection)
            assert states(connection)["both"] == "queued"
