"""`start_when` and `cancel_rest` in runs: marks, expressions, groups, workflows, retries."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from redis import Redis
from rq.job import JobStatus

from flowq.errors import WrongState
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import approvals, keys, retry, runs, scripts, steps
from flowq.runtime.explain import explain
from flowq.runtime.job import Job, get_job
from flowq.runtime.maintenance import examine
from tests.reading import parse_workflow
from tests.runtime.language import RUN, Runs

Work = Callable[..., None]
Tidy = Callable[[], None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit(run: Runs, text: str) -> None:
    workflow = parse_workflow(text, "first.yaml")
    runs.submit(make_plan(build_graph(workflow), {}, RUN), run.connection)


def end(run: Runs, name: str, status: JobStatus) -> None:
    get_job(f"{RUN}-{name}", run.connection).set_status(status)


BAD = 'call: "language_jobs:fail"'
GOOD = 'call: "language_jobs:my_id"'


@pytest.mark.parametrize(
    ("rule", "jobs", "state", "reason", "after"),
    [
        ("one_success", [GOOD, GOOD], "finished", "", "finished"),
        ("one_success", [BAD, GOOD], "finished", "", "finished"),
        ("one_success", [BAD, BAD], "skipped", "b failed", "skipped"),
        ("one_success", [f"{GOOD}, if: false", BAD], "skipped", "b failed", "skipped"),
        (
            *("one_success", [f"{BAD}, continue_on_error: true", f"{GOOD}, if: false"]),
            *("skipped", "no job before it succeeded", "finished"),
        ),
        (
            *("one_success", [f"{GOOD}, for_each: []", f"{GOOD}, if: false"]),
            *("skipped", "no job before it succeeded", "finished"),
        ),
        ("one_success", [f"{GOOD}, for_each: [1, 2]", BAD], "finished", "", "finished"),
        ("one_failed", [GOOD, BAD], "finished", "", "skipped"),
        ("one_failed", [GOOD, GOOD], "skipped", "no job before it failed", "finished"),
        (
            *("one_failed", [GOOD, f"{BAD}, continue_on_error: true"]),
            *("skipped", "no job before it failed", "finished"),
        ),
        ("one_failed", [GOOD, "workflow: bad"], "finished", "", "skipped"),
        ("one_failed", [BAD, f"{GOOD}, needs: a"], "finished", "", "skipped"),
    ],
)
def test_what_the_jobs_before_it_do_decides(
    rule: str, jobs: list[str], state: str, reason: str, after: str, run: Runs, work: Work
) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{jobs[0]}}}
          b: {{{jobs[1]}}}
          first: {{needs: [a, b], start_when: {rule}, {GOOD}}}
          after: {{needs: first, {GOOD}}}
        workflows: {{bad: {{jobs: {{x: {{{BAD}}}}}}}}}
        """,
    )
    work()
    assert (run.states["first"], run.reason("first")) == (state, reason)
    assert run.states["after"] == after
    assert run.state == (
        "failed"
        if ("failed" in {*run.states.values()} - {"tolerated"} and BAD in jobs)
        or "workflow: bad" in jobs
        else "succeeded"
    )


def test_an_expression_sees_what_was_so_when_it_started(
    run: Runs, work: Work, connection: Redis
) -> None:
    """Also in later attempts, when the others have ended."""
    submit(
        run,
        """
        jobs:
          a: {call: "language_jobs:give", with: {value: 1}}
          b: {call: "language_jobs:give", with: {value: 2}}
          c: {call: "language_jobs:fail"}
          many: {for_each: [1, 2], call: "language_jobs:give", with: {value: "${{ item }}"}}
          seen:
            needs: [a, b, c, many]
            start_when: one_success
            call: "language_jobs:give"
            with:
              value:
                - ${{ jobs.a.result or jobs.b.result }}
                - ${{ jobs.b.result if jobs.b.status == 'finished' else 'none' }}
                - ${{ jobs.a.status }}
                - ${{ jobs.b.status }}
                - ${{ jobs.c.status }}
                - ${{ jobs.c.error }}
                - ${{ jobs.many.results }}
                - ${{ jobs.many.status }}
                - ${{ jobs.many.outcomes | map('status') }}
                - ${{ jobs.many.by_key }}
        """,
    )
    work(max_jobs=1)
    assert run.states["seen"] == "queued"
    work()
    seen = [1, "none", "finished", "running", "running", None, [None, None], "running"]
    expected = [*seen, ["running", "running"], {"0": None, "1": None}]
    assert run.result("seen") == expected
    assert (run.states["b"], run.states["c"]) == ("finished", "failed")
    connection.hset(keys.run(RUN), "state", "failed")
    retry.retry(RUN, connection, "seen")
    work()
    assert run.result("seen") == expected


def test_the_rest_is_skipped_and_the_run_succeeds(
    run: Runs, work: Work, tidy: Tidy, connection: Redis
) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{BAD}}}
          many: {{for_each: [1, 2], {BAD}}}
          part: {{workflow: bad}}
          shared: {{{GOOD}}}
          first:
            needs: [a, b, many, part, shared]
            start_when: one_success
            cancel_rest: true
            {GOOD}
          after: {{needs: first, {GOOD}}}
          other: {{needs: shared, {GOOD}}}
        workflows: {{bad: {{jobs: {{x: {{{BAD}}}}}}}}}
        """,
    )
    end(run, "a", JobStatus.FINISHED)
    tidy()
    work()
    states = run.states
    skipped = {name for name, state in states.items() if state == "skipped"}
    assert {"b", "part"} <= skipped
    assert run.reason("b") == "not needed: first has started"
    assert {states[name] for name in ("first", "after", "other", "shared")} == {"finished"}
    assert run.state == "succeeded"
    with pytest.raises(WrongState, match="has succeeded"):
        retry.retry(RUN, connection)


@pytest.mark.parametrize("if_", ["true", "always()"])
def test_what_another_job_waits_for_goes_on(run: Runs, work: Work, tidy: Tidy, if_: str) -> None:
    """Also where that ignores its failure; but not where only jobs under `finally` wait."""
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{GOOD}, blocks: {{report: {{on_failure: ignore}}}}}}
          c: {{{GOOD}}}
          first: {{needs: [a, b, c], start_when: one_success, cancel_rest: true, {GOOD}}}
          report:
            if: {if_}
            call: "language_jobs:give"
            with: {{value: "${{{{ jobs.b.status }}}}"}}
        finally:
          one: {{{GOOD}}}
          each: {{for_each: [1], {GOOD}}}
          inside: {{workflow: w}}
        workflows: {{w: {{jobs: {{x: {{{GOOD}}}}}}}}}
        """,
    )
    end(run, "a", JobStatus.FINISHED)
    tidy()
    work()
    assert (run.states["b"], run.states["c"], run.state) == ("finished", "skipped", "succeeded")
    assert run.result("report") == "finished"


@pytest.mark.parametrize("is_named", [False, True])
def test_a_retry_does_not_run_it_again(
    run: Runs, work: Work, connection: Redis, is_named: bool
) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{call: "language_jobs:fail"}}
          first: {{needs: [a, b], start_when: one_success, {GOOD}}}
          after: {{needs: first, {GOOD}}}
          last: {{needs: b, {GOOD}}}
        """,
    )
    work()
    assert run.state == "failed"
    before = run.status.jobs
    again = retry.retry(RUN, connection, "b" if is_named else None)
    assert set(again) == {f"{RUN}-b", f"{RUN}-last"}
    work()
    assert run.status.jobs["first"] == before["first"]
    assert run.states == {
        "a": "finished",
        "b": "failed",
        "first": "finished",
        "after": "finished",
        "last": "skipped",
    }


def test_a_retry_runs_it_again_if_it_failed_without_waiting(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{BAD}}}
          first: {{needs: [a, b], start_when: one_success, {BAD}}}
        """,
    )
    work()
    assert set(retry.retry(RUN, connection)) == {f"{RUN}-b", f"{RUN}-first"}
    assert run.states["first"] == "queued"
    work()
    assert run.states["first"] == "failed"


def test_a_canceled_rest_can_be_retried_by_its_name(
    run: Runs, work: Work, tidy: Tidy, connection: Redis
) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{GOOD}}}
          first: {{needs: [a, b], start_when: one_success, cancel_rest: true, {GOOD}}}
        """,
    )
    work(max_jobs=1)
    tidy()
    work()
    assert run.states == {"a": "finished", "b": "skipped", "first": "finished"}
    retry.retry(RUN, connection, "b")
    work()
    assert run.states == dict.fromkeys(("a", "b", "first"), "finished")


def test_explain_says_when_it_starts(run: Runs, connection: Redis) -> None:
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{GOOD}}}
          c: {{{GOOD}}}
          first: {{needs: [a, b, c], start_when: one_success, {GOOD}}}
        """,
    )
    end(run, "b", JobStatus.FAILED)
    said = str(explain(f"{RUN}-first", connection))
    assert "it starts at the first success; 2 undecided: a, c" in said
    end(run, "c", JobStatus.FINISHED)
    said = str(explain(f"{RUN}-first", connection))
    assert said.endswith("\n  - the first success has started it: c finished")


def test_an_end_that_an_older_worker_has_noted_is_found(run: Runs, connection: Redis) -> None:
    """Its scripts count the end, and know nothing of the policy."""
    submit(
        run,
        f"""
        jobs:
          a: {{{GOOD}}}
          b: {{{GOOD}}}
          first: {{needs: [a, b], start_when: one_failed, {GOOD}}}
        """,
    )
    future = f"{RUN}-first"
    connection.hset(keys.edges(future), f"{RUN}-a", "failed")  # as lua/edges.lua of 0.1 did
    connection.hincrby(keys.future(future), "pending", -1)
    connection.hincrby(keys.future(future), "bad", 1)
    assert run.states["first"] == "deferred"
    examine(connection)
    assert run.states["first"] == "queued"


# What keeps it when it is decided ----------------------------------------------------------------


KEPT = f"""
max_parallel: 2
jobs:
  a: {{{GOOD}}}
  b: {{{GOOD}, continue_on_error: true}}
  first: {{needs: [a, b], start_when: one_success, cancel_rest: true, MORE, {GOOD}}}
  after: {{needs: first, {GOOD}}}
"""


def decide(run: Runs, more: str) -> Job:
    """Return `b`, which runs when `a` has decided that `first` may start."""
    submit(run, KEPT.replace("MORE", more))
    b = take(run, "b")
    end(run, "a", JobStatus.FINISHED)
    assert run.connection.hexists(keys.future(f"{RUN}-first"), "decided")
    return b


def is_ending(job: Job) -> bool:
    return bool(job.connection.hexists(job.key, "flowq_ends_as"))


@pytest.mark.parametrize(
    "more", ["approval: true", "if: jobs.a.status == 'finished', approval: true"]
)
@pytest.mark.parametrize("word", ["approve", "reject"])
def test_the_rest_goes_on_until_it_is_approved(
    run: Runs, work: Work, tidy: Tidy, more: str, word: str
) -> None:
    b = decide(run, more)
    work()  # judges the `if`
    tidy()
    assert not is_ending(b)
    getattr(approvals, word)(RUN, "first", run.connection)
    assert is_ending(b) == (word == "approve")
    b.set_status(JobStatus.FAILED)
    work()
    assert run.states["b"] == ("skipped" if word == "approve" else "failed")
    assert run.states["first"] == ("finished" if word == "approve" else "canceled")


@pytest.mark.parametrize("is_true", [False, True])
def test_the_rest_goes_on_if_its_own_if_is_false(
    run: Runs, work: Work, tidy: Tidy, is_true: bool
) -> None:
    b = decide(run, f"if: jobs.a.status == {'finished' if is_true else 'failed'!r}")
    tidy()
    assert not is_ending(b)
    work()
    assert is_ending(b) is is_true
    assert run.states["first"] == ("finished" if is_true else "skipped")


def test_the_rest_goes_on_until_it_has_a_slot(run: Runs, connection: Redis) -> None:
    submit(run, KEPT.replace("max_parallel: 2", "max_parallel: 1").replace("MORE", "timeout: 60"))
    assert [run.states[name] for name in ("a", "b")] == ["queued", "deferred"]
    end(run, "a", JobStatus.FINISHED)  # and `b` has the slot
    assert run.states == {"a": "finished", "b": "queued", "first": "deferred", "after": "deferred"}
    end(run, "b", JobStatus.FINISHED)
    assert run.states["first"] == "queued"


# What runs when it is not needed any more --------------------------------------------------------


def take(run: Runs, name: str) -> Job:
    """Begin to execute a job that is queued."""
    job = get_job(f"{RUN}-{name}", run.connection)
    assert run.connection.lrem(keys.queue("default"), 1, job.id)
    job.set_status(JobStatus.STARTED)
    return job


RACE = f"""
jobs:
  a: {{{GOOD}}}
  b: {{call: "language_jobs:my_id", retries: 3}}
  first: {{needs: [a, b], start_when: one_success, cancel_rest: true, {GOOD}}}
"""


@pytest.mark.parametrize("order", ["decision first", "end first", "end between"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (JobStatus.FINISHED, "finished"),
        (JobStatus.FAILED, "failed"),
        (JobStatus.STOPPED, "stopped"),
    ],
)
def test_the_rest_ends_around_the_decision(
    order: str, status: JobStatus, expected: str, run: Runs, tidy: Tidy, work: Work
) -> None:
    """What has ended before the decision counts; after it, only a success does."""
    submit(run, RACE)
    b = take(run, "b")
    if order == "end first":
        b.set_status(status)
    end(run, "a", JobStatus.FINISHED)
    if order == "end between":  # before the step that would stop it
        b.set_status(status)
    with patch.object(steps, "send_stop_job_command"):
        tidy()
    if order == "decision first":
        b.set_status(status)
    is_needless = order != "end first" and status is not JobStatus.FINISHED
    work()
    assert run.states["first"] == "finished"
    assert run.states["b"] == ("skipped" if is_needless else expected)
    assert run.state == ("succeeded" if is_needless or expected == "finished" else "failed")


def test_explain_has_the_word_of_the_run_for_what_was_stopped(run: Runs) -> None:
    submit(run, RACE)
    b = take(run, "b")
    end(run, "a", JobStatus.FINISHED)
    b.set_status(JobStatus.STOPPED)
    assert run.states["b"] == "skipped"
    said = explain(b.id, run.connection)
    assert (said.state, said.reasons[0].text) == (
        "skipped",
        "it was stopped while it ran: not needed: first has started",
    )


def test_what_is_not_needed_is_not_tried_again(run: Runs, tidy: Tidy) -> None:
    submit(run, RACE)
    b = take(run, "b")
    end(run, "a", JobStatus.FINISHED)
    assert scripts.MAY_RETRY.call(run.connection, b.key, b.id, "", "", 0, 1) == [b"0", b""]
    b.set_status(JobStatus.QUEUED)  # by a worker that had decided before
    scripts.TELL_ABOUT.call(run.connection, b.key, b.id, "again", "")
    tidy()
    assert run.states["b"] == "skipped"


def test_a_retry_of_what_was_not_needed_runs_it_as_any_other(run: Runs, tidy: Tidy) -> None:
    submit(run, RACE)
    b = take(run, "b")
    end(run, "a", JobStatus.FINISHED)
    b.set_status(JobStatus.FAILED)
    tidy()
    end(run, "first", JobStatus.FINISHED)
    assert (run.state, run.states["b"]) == ("succeeded", "skipped")
    retry.retry(RUN, run.connection, "b")
    take(run, "b").set_status(JobStatus.FAILED)
    assert (run.state, run.states["b"], run.states["first"]) == ("failed", "failed", "finished")


def test_a_retry_of_one_that_nothing_can_start_is_refused(run: Runs, work: Work) -> None:
    submit(run, f"jobs: {{a: {{{BAD}}}, first: {{needs: a, start_when: one_success, {GOOD}}}}}")
    work()
    with pytest.raises(WrongState, match="a before it did not succeed; retry a, and first runs"):
        retry.retry(RUN, run.connection, "first")
    assert set(retry.retry(RUN, run.connection, "a")) == {f"{RUN}-a", f"{RUN}-first"}
