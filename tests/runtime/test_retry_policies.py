"""`retries`: when a job that has failed is tried again, after which failures, and how often."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import language_jobs
import pytest
import rq
from redis import Redis

import flowq
from flowq.client import Run
from flowq.errors import ShellFailed
from flowq.runtime import keys, retry, scripts, steps
from flowq.runtime.attempts import TIMED_OUT, Failure
from flowq.runtime.explain import explain
from flowq.runtime.job import get_job
from flowq.runtime.policies import to_rq_retry, write_policy
from flowq.runtime.queue import Queue
from flowq.spec import ALL_TOLERATED, JobSpec, Retry, Shell
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture(params=["rq", "flowq"])
def any_work(request: pytest.FixtureRequest, work: Work, connection: Redis) -> Work:
    """Work off all jobs: RQ's worker with our classes, and ours."""
    if request.param == "rq":
        return work

    return lambda: drain_in_children(connection)


def drain_in_children(connection: Redis) -> None:
    worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
    worker.work(burst=True, logging_level="CRITICAL")


def ask(
    connection: Redis, retries: Retry, failure: Failure | None, *, used: int = 0, age_s: float = 0
) -> tuple[float, str]:
    """Return the seconds to wait, and -1 with the reason where it is not tried again."""
    told = failure.write() if failure else ""
    answer = scripts.MAY_RETRY.call(
        connection, "rq:job:x", "x", write_policy(retries), told, used, age_s
    )
    is_due, said, *_ = (part.decode() for part in answer)
    return (float(said or 0), "") if is_due == "1" else (-1, said)


# The rule ----------------------------------------------------------------------------------------

BROKEN = Failure.of(language_jobs.Broken())
EXIT = Failure.of(ShellFailed("make", 3))
KILLED = Failure(exit_code=137)


@pytest.mark.parametrize(
    ("on", "never_on", "failure", "why_not"),
    [
        (("ConnectionError",), (), BROKEN, ""),
        (("OSError",), (), BROKEN, ""),
        (("language_jobs:Broken",), (), BROKEN, ""),
        (("ValueError",), (), BROKEN, "`on` does not name language_jobs:Broken"),
        (("ValueError", "ConnectionError"), (), BROKEN, ""),
        ((), ("ConnectionError",), BROKEN, "`never_on` names ConnectionError"),
        (("OSError",), ("ConnectionError",), BROKEN, "`never_on` names ConnectionError"),
        (("3",), (), EXIT, ""),
        (("1-3",), (), EXIT, ""),
        (("4-9", "flowq.errors:ShellFailed"), (), EXIT, ""),
        (("flowq:ShellFailed",), (), EXIT, ""),
        (("4-9",), (), EXIT, "`on` does not name exit code 3"),
        ((), ("2-4",), EXIT, "`never_on` names 2-4"),
        (("137",), (), KILLED, ""),
        (("ValueError",), (), KILLED, "`on` does not name exit code 137"),
        (("rq.timeouts:JobTimeoutException",), (), TIMED_OUT, ""),
        (("ValueError",), (), None, ""),  # nobody knows, so only the number counts
        (("ValueError",), (), Failure.of(flowq.RetryLater(0)), ""),
        ((), ("flowq:RetryLater",), Failure.of(flowq.RetryLater(0)), "`never_on` names flowq:"),
        ((), (), Failure.of(language_jobs.Gone()), "it raised language_jobs:Gone, which is final"),
    ],
)
def test_on_and_never_on_name_classes_with_their_subclasses_and_exit_codes(
    connection: Redis,
    on: tuple[str, ...],
    never_on: tuple[str, ...],
    failure: Failure | None,
    why_not: str,
) -> None:
    wait_s, said = ask(connection, Retry(3, 1, on=on, never_on=never_on), failure)
    assert (wait_s < 0) == bool(why_not)
    assert why_not in said


def test_half_of_a_surrogate_pair_in_what_is_written_of_a_failure_changes_no_decision(
    connection: Redis,
) -> None:
    """As older versions write it for a byte that is no text. A text may also spell an escape."""
    policy = write_policy(Retry(3, 1, never_on=("OSError",)))
    for error in (r"x\udcff", r"\\ud800 \ud83d\ude00 \ud800", r"\udcff\\"):
        for name, is_due in (("OSError", b"0"), ("ValueError", b"1")):
            told = f'{{"names": ["{name}"], "error": "{error}"}}'
            answer = scripts.MAY_RETRY.call(connection, "rq:job:x", "x", policy, told, 0, 0)
            assert answer[0] == is_due


@pytest.mark.parametrize(
    ("retries", "waits_s"),
    [
        (Retry(9, 2, factor=3), [2, 6, 18, 54]),
        (Retry(9, 2, factor=3, max_backoff_s=10), [2, 6, 10, 10]),
        (Retry(9, 2, max_backoff_s=10), [2, 2, 2, 2]),
        (Retry(9, 50_000, factor=2), [50_000, 86_400, 86_400, 86_400]),
        (Retry(9, 100_000, factor=2), [100_000] * 4),
        (Retry(9, within_s=60), [0, 0, 0, 0]),
    ],
)
def test_waits_grow_up_to_the_longest_one_and_rq_is_told_the_same(
    connection: Redis, retries: Retry, waits_s: list[float]
) -> None:
    assert [ask(connection, retries, BROKEN, used=n)[0] for n in range(4)] == waits_s
    told = to_rq_retry(retries)
    assert told is not None
    assert (told.intervals * 4)[:4] == waits_s


def test_very_many_attempts_do_not_overflow(connection: Redis) -> None:
    assert ask(connection, Retry(1_000, 1, factor=100), BROKEN, used=999)[0] == 86_400
    told = to_rq_retry(Retry(1_000, 1, factor=100))
    assert told is not None
    assert len(told.intervals) <= 20


def test_jitter_adds_up_to_its_share_and_never_more_than_the_longest_wait(
    connection: Redis,
) -> None:
    policy = Retry(9, 100, factor=2, max_backoff_s=230, jitter=0.2)
    first = [ask(connection, policy, BROKEN)[0] for _ in range(50)]
    assert 100 <= min(first) < max(first) <= 120
    second = [ask(connection, policy, BROKEN, used=1)[0] for _ in range(50)]
    assert 230 / 1.2 - 0.001 <= min(second) < max(second) <= 230


def test_no_attempt_begins_later_than_within_allows(connection: Redis) -> None:
    policy = Retry(9, 20, within_s=60)
    assert ask(connection, policy, BROKEN, age_s=39)[0] == 20
    wait_s, why_not = ask(connection, policy, BROKEN, age_s=41)
    assert (wait_s, why_not.endswith("later than `within` allows, 1m")) == (-1, True)
    later = Failure.of(flowq.RetryLater(61))
    assert ask(connection, policy, later)[0] == -1


def test_within_counts_from_the_first_attempt_by_the_clock_of_the_server(
    run: Runs, any_work: Work, connection: Redis, tmp_path: Path
) -> None:
    arguments = {"kind": "value", "log": f"{tmp_path}/log", "times": 9}
    run.submit(job("a", "fail_as", with_=arguments, retries=Retry(9, 30, within_s=50)))
    any_work()
    since = float(connection.hget(keys.job(f"{RUN}-a"), "flowq_since") or 0)
    assert abs(since - connection.time()[0]) < 30
    connection.hset(keys.job(f"{RUN}-a"), "flowq_since", since - 25)
    queue_now(connection)
    any_work()
    assert run.states["a"] == "failed"
    assert "`within`" in run.reason("a")


def queue_now(connection: Redis) -> None:
    """As if the time of all that is scheduled had come."""
    for job_id in connection.zrange(keys.scheduled("default"), 0, -1):
        connection.zadd(keys.scheduled("default"), {job_id: 1})
    scripts.DUE.call(connection, "rq:x", 100, "default")


# Runs --------------------------------------------------------------------------------------------


def fail_as(name: str, kind: str, path: Path, retries: Any, **more: Any) -> JobSpec:
    arguments = {"kind": kind, "log": f"{path}/{name}", "times": more.pop("times", 1)}
    return job(name, "fail_as", with_=arguments, retries=retries, **more)


def test_an_error_that_is_no_text_is_kept_and_decided_like_any_other(
    run: Runs, connection: Redis, tmp_path: Path
) -> None:
    """RQ's own worker cannot store such an error."""
    run.submit(
        fail_as("counted", "no text", tmp_path, Retry(2), times=9),
        fail_as("named", "no text", tmp_path, Retry(2, on=("ValueError",)), times=9),
        fail_as("never", "no text", tmp_path, Retry(2, never_on=("ValueError",)), times=9),
    )
    drain_in_children(connection)
    _, attempts_by_name = Run(RUN, connection).history()
    error = r"ValueError: cannot read x\xff"
    found = {name: [each.error for each in some] for name, some in attempts_by_name.items()}
    assert found == {"counted": [error] * 3, "named": [error] * 3, "never": [error]}


def test_jobs_are_tried_again_as_their_failures_tell(
    run: Runs, any_work: Work, tmp_path: Path
) -> None:
    run.submit(
        fail_as("again", "broken", tmp_path, Retry(2, on=("OSError",)), times=2),
        fail_as("never", "broken", tmp_path, Retry(2, never_on=("OSError",))),
        fail_as("gone", "gone", tmp_path, Retry(2)),
        fail_as("asks", "at once", tmp_path, Retry(2, on=("OSError",))),
        fail_as("asks_too_often", "at once", tmp_path, Retry(2), times=9),
        fail_as("cannot_ask", "at once", tmp_path, None),
        JobSpec("code", run=Shell("exit 3"), retries=Retry(2, on=("1-3",))),
        JobSpec("other_code", run=Shell("exit 4"), retries=Retry(2, on=("1-3",))),
        fail_as("let", "gone", tmp_path, Retry(2), continue_on_error=ALL_TOLERATED),
    )
    any_work()
    states = {name: (each.state, each.attempts) for name, each in run.status.jobs.items()}
    assert states == {
        "again": ("finished", 3),
        "never": ("failed", 1),
        "gone": ("failed", 1),
        "asks": ("finished", 2),
        "asks_too_often": ("failed", 3),
        "cannot_ask": ("failed", 1),
        "code": ("failed", 3),
        "other_code": ("failed", 1),
        "let": ("failed", 1),
    }
    assert run.reason("never") == "not tried again: `never_on` names OSError"
    (told,) = explain(f"{RUN}-never", run.connection, RUN).reasons
    assert told.text == f"it was executed, and failed; {run.reason('never')}"
    assert run.reason("gone") == "not tried again: it raised language_jobs:Gone, which is final"
    assert run.reason("let") == f"tolerated: {run.reason('gone')}"
    assert run.reason("other_code") == "not tried again: `on` does not name exit code 4"


def test_what_asks_for_another_attempt_in_vain_is_told_why(
    run: Runs, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        fail_as("none", "at once", tmp_path, None),
        fail_as("left", "at once", tmp_path, Retry(1), times=2),
    )
    worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
    worker.work(burst=True, logging_level="CRITICAL")
    assert run.error("none").endswith("it is not tried again: no `retries` are declared\n")
    assert run.error("left").endswith("it is not tried again: no `retries` are left\n")


def test_an_attempt_is_never_earlier_than_the_code_has_said(
    run: Runs, any_work: Work, connection: Redis, tmp_path: Path
) -> None:
    before_s = float(connection.time()[0])
    run.submit(fail_as("a", "later", tmp_path, Retry(2, 5, max_backoff_s=10, jitter=0.1)))
    any_work()
    assert run.reason("a") == "attempt 1 failed: RetryLater; again in 10m"
    due_s = connection.zscore(keys.scheduled("default"), f"{RUN}-a") or 0
    assert before_s + 600 <= due_s <= connection.time()[0] + 602


def test_a_wait_is_told(run: Runs, any_work: Work, tmp_path: Path) -> None:
    run.submit(fail_as("a", "value", tmp_path, Retry(2, 90)))
    any_work()
    assert run.states["a"] == "scheduled"
    assert run.reason("a") == "attempt 1 failed: ValueError; again in 90s"


def test_items_are_tried_again_each_for_itself(run: Runs, any_work: Work, tmp_path: Path) -> None:
    group = fail_as("group", "${{ item }}", tmp_path, Retry(1, on=("OSError",)))
    arguments = {**group.with_, "log": f"{tmp_path}/${{{{ index }}}}"}
    run.submit(
        job(
            "group",
            "fail_as",
            with_=arguments,
            retries=group.retries,
            for_each=each(["broken", "value"]),
        )
    )
    any_work()
    jobs = run.status.jobs
    assert (jobs["group[0]"].state, jobs["group[0]"].attempts) == ("finished", 2)
    assert (jobs["group[1]"].state, jobs["group[1]"].attempts) == ("failed", 1)


@pytest.mark.parametrize("retries", [Retry(3), Retry(3, on=("Exception",)), Retry(3, 600)])
def test_in_a_canceled_run_nothing_is_tried_again(
    run: Runs, any_work: Work, connection: Redis, tmp_path: Path, retries: Retry
) -> None:
    with_ = {"log": f"{tmp_path}/log", "then": "ask for later"}
    run.submit(job("a", "cancel_my_run", with_=with_, retries=retries))
    any_work()
    assert (run.state, run.status.jobs["a"].attempts) == ("canceled", 1)
    assert connection.zcard(keys.scheduled("default")) == 0


@pytest.mark.parametrize("kind", ["value", "at once", "later"])
def test_a_cancel_between_the_decision_and_the_end_wins(
    run: Runs,
    work: Work,
    connection: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    decide = scripts.MAY_RETRY.call

    def decide_and_cancel(*arguments: Any) -> Any:
        answer = decide(*arguments)
        connection.hset(keys.run(RUN), "canceling", 1)
        steps.finish(connection, f"cancel:{RUN}")
        return answer

    monkeypatch.setattr(scripts.MAY_RETRY, "call", decide_and_cancel)
    run.submit(fail_as("a", kind, tmp_path, Retry(2, on=("Exception",)), times=9))
    work()
    assert (run.state, run.states["a"]) == ("canceled", "canceled")
    assert (tmp_path / "a").read_text() == "start\n"
    assert connection.zcard(keys.scheduled("default")) == 0


def test_a_retry_of_the_run_begins_to_count_anew(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(fail_as("a", "value", tmp_path, Retry(1, within_s=600), times=3))
    work()
    assert (run.state, run.status.jobs["a"].attempts) == ("failed", 2)
    connection.hset(keys.job(f"{RUN}-a"), "flowq_since", 1)
    retry.retry(RUN, connection)
    work()
    assert (run.state, run.status.jobs["a"].attempts) == ("succeeded", 4)


# The plain API -----------------------------------------------------------------------------------


def test_a_decorated_function_has_a_policy(
    connection: Redis, any_work: Work, tmp_path: Path
) -> None:
    options = {"max": 2, "on": [language_jobs.Broken, "TimeoutError", 137]}
    declare = flowq.job(retries=options, connection=connection)
    function = declare(language_jobs.fail_as)
    good = function.enqueue("broken", f"{tmp_path}/good")
    bad = function.enqueue("value", f"{tmp_path}/bad")
    any_work()
    assert get_job(good.id, connection).return_value() == 2
    assert get_job(bad.id, connection).get_status() == "failed"
    assert (tmp_path / "bad").read_text() == "start\n"


def test_plain_jobs_ask_too_and_rqs_pauses_are_kept(
    queue: Queue, any_work: Work, connection: Redis, tmp_path: Path
) -> None:
    retry = rq.Retry(max=2, interval=[100, 200])
    call = language_jobs.fail_as
    asks = queue.enqueue(call, "later", f"{tmp_path}/a", retry=retry)
    gone = queue.enqueue(call, "gone", f"{tmp_path}/b", retry=retry)
    fails = queue.enqueue(call, "value", f"{tmp_path}/c", retry=retry)
    now_s = time.time()
    any_work()
    due_by_id = dict(connection.zrange(keys.scheduled("default"), 0, -1, withscores=True))
    assert due_by_id.keys() == {asks.id.encode(), fails.id.encode()}
    assert now_s + 600 <= due_by_id[asks.id.encode()] < now_s + 660
    assert now_s + 100 <= due_by_id[fails.id.encode()] < now_s + 160
    assert get_job(asks.id, connection).retries_left == 1
    assert get_job(gone.id, connection).get_status() == "failed"


def test_rqs_own_classes_do_what_a_plain_number_says(
    connection: Redis, work_plainly: Work, tmp_path: Path
) -> None:
    declare = flowq.job(retries={"max": 2, "on": "OSError"}, connection=connection)
    job = declare(language_jobs.fail_as).enqueue("value", f"{tmp_path}/log", 2)
    work_plainly()
    assert get_job(job.id, connection).return_value() == 3


def test_a_policy_is_read_from_the_hash_as_it_was_written(connection: Redis) -> None:
    policy = Retry(5, 2, 2, 60, 0.5, 600, ("OSError", "137"), ("a.b:C",))
    assert json.loads(write_policy(policy)) == {
        "max": 5,
        "backoff": 2,
        "factor": 2,
        "max_backoff": 60,
        "jitter": 0.5,
        "within": 600,
        "within_words": "10m",
        "on": ["OSError", "137"],
        "never_on": ["a.b:C"],
    }
    assert write_policy(Retry(5, 2)) == ""


@pytest.mark.parametrize("text", ['{"names": [], "exit_code": 1e999}', "[" * 100_000, "[]", "{"])
def test_a_failure_that_makes_no_sense_is_none(text: str) -> None:
    assert Failure.read(text) is None
