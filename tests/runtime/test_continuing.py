"""Runs that continue an ended one with an edited workflow, and keep what is unchanged."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.utils import as_text

import flowq
from flowq import aio
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.continuing import plan_continuation
from flowq.errors import RunNotFound, UsageError, WrongState
from flowq.runtime import keys
from flowq.runtime.maintenance import examine, tidy
from tests.reading import parse_workflow
from tests.runtime.counting import check_counts

Work = Callable[..., None]


@pytest.fixture
def begin(connection: Redis, work: Work) -> Callable[..., Run]:
    """`begin(text, inputs)`: the ended run of a workflow."""

    def run(text: str, inputs: Mapping[str, Any] | None = None) -> Run:
        run = submit(
            compile_plan(parse_workflow(text, "w.yaml"), inputs, imports=False), connection
        )
        work()
        assert run.status().is_ended
        return run

    return run


@pytest.fixture
def go_on(connection: Redis, work: Work) -> Callable[..., Run]:
    """`go_on(run, text, inputs, again=…)`: the ended run that continues another one."""

    def run(
        before: Run, text: str, inputs: Mapping[str, Any] | None = None, again: str = ""
    ) -> Run:
        edited = parse_workflow(text, "edited.yaml")
        plan = plan_continuation(before, edited, inputs, again=again.split(), imports=False).plan
        run = submit(plan, connection)
        work()
        status = run.status()
        assert status.is_ended
        check_counts(status, connection)
        return run

    return run


def kept(run: Run) -> set[str]:
    before = run.record().continues
    assert before
    return {
        name for name, job in run.status().jobs.items() if f"kept from run {before}" in job.reason
    }


KINDS = """
inputs: {size: 2}
jobs:
  first: {call: language_jobs:make_list, with: {count: 3}}
  sized: {call: language_jobs:give, with: {value: "${{ inputs.size }}"}}
  group:
    for_each: "${{ jobs.first.result }}"
    call: language_jobs:square
    with: {number: "${{ item }}"}
  legs:
    needs: first
    matrix: {x: [1, 2]}
    call: language_jobs:give
    with: {value: "${{ matrix.x }}"}
  nested: {workflow: w, with: {names: "${{ jobs.group.results }}"}}
  chains:
    for_each: "${{ jobs.first.result }}"
    workflow: w
    with: {names: ["${{ item }}"]}
  no: {needs: first, if: inputs.size > 5, call: language_jobs:fail}
  late: {needs: first, if: "jobs.first.result[0] > 5", call: language_jobs:fail}
  hurt: {needs: first, continue_on_error: true, call: language_jobs:fail}
  some:
    for_each: [1, 2, 3]
    continue_on_error: 1
    call: language_jobs:fail_if
    with: {value: "${{ item }}", bad: 2}
  nap: {sleep: 0s}
  nothing: {call: builtins:dict, for_each: "${{ [] }}"}
  last:
    needs: [chains, no, late, hurt, nap, nothing]
    call: language_jobs:FAIL
    with:
      value:
        - ${{ jobs.sized.result }}
        - ${{ jobs.group.results }}
        - ${{ jobs.legs.results }}
        - ${{ jobs.nested.result }}
        - ${{ jobs.some.outcomes | map('status') }}
  after: {needs: last, call: language_jobs:give, with: {value: "${{ jobs.chains.results }}"}}
finally:
  clean: {call: language_jobs:give, with: {value: "${{ jobs.hurt.status }}"}}
workflows:
  w:
    inputs: {names: {type: list}}
    jobs:
      each:
        for_each: "${{ inputs.names }}"
        call: language_jobs:give
        with: {value: "${{ item }}"}
      sum: {call: language_jobs:give, with: {value: "${{ jobs.each.results }}"}}
    outputs: {all: "${{ jobs.sum.result }}"}
"""
RESULT = [2, [0, 1, 4], [1, 2], {"all": [0, 1, 4]}, ["finished", "failed", "finished"]]


def test_all_kinds_of_jobs_are_kept_with_their_results(
    begin: Callable[..., Run], go_on: Callable[..., Run], connection: Redis, work: Work
) -> None:
    old = begin(KINDS.replace("FAIL", "fail_if"))
    assert old.status().state == "failed"
    run = go_on(old, KINDS.replace("FAIL", "give"))
    status = run.status()
    assert status.state == "succeeded", status
    ran = {name for name, job in status.jobs.items() if name not in kept(run)}
    assert ran == {"last", "after", "clean"}
    assert status.jobs.keys() == old.status().jobs.keys()
    old.remove()
    assert run.result("last") == RESULT
    assert run.result("after") == [{"all": [0]}, {"all": [1]}, {"all": [2]}]
    assert run.status().jobs["clean"].state == "finished"
    # What was added by code of the other run can run again here: an item, and what comes after it.
    run.retry("chains[1].sum")
    work()
    assert run.result("after") == [{"all": [0]}, {"all": [1]}, {"all": [2]}]
    assert not connection.keys(f"*{old.run_id}*")


RACE = """
jobs:
  GROUP
  near: {call: language_jobs:NEAR, continue_on_error: true}
  far: {call: language_jobs:my_id, continue_on_error: true}
  inside: {workflow: w, continue_on_error: true}
  first:
    needs: [near, far, inside]
    start_when: one_success
    cancel_rest: true
    call: language_jobs:FIRST
    with: {value: "${{ jobs.near.result or jobs.far.status }}"}
  last: {needs: first, call: language_jobs:LAST, with: {value: 1, bad: 1}}
finally:
  clean: {call: language_jobs:my_id}
workflows:
  w:
    jobs:
      x: {call: language_jobs:my_id}
"""


def race(
    near: str = "my_id", first: str = "give", last: str = "fail_if", *, has_group: bool = False
) -> str:
    """With a group, its list is made before `near` ends, and its items would run after that."""
    text = RACE.replace("NEAR", near).replace("FIRST", first).replace("LAST", last)
    if last == "give":
        text = text.replace(", bad: 1", "")
    if has_group:
        far = "  far: {call: language_jobs:my_id, continue_on_error: true}\n"
        text = text.replace(far, "").replace(
            "  GROUP\n", far.replace("my_id", "my_id, for_each: [1, 2]")
        )
    return text.replace("  GROUP\n", "")


@pytest.mark.parametrize("has_group", [False, True])
def test_what_was_not_needed_runs_if_what_comes_after_it_does(
    begin: Callable[..., Run], go_on: Callable[..., Run], has_group: bool
) -> None:
    """It has done nothing: so it is kept only with the job that did not need it."""
    old = begin(race(has_group=has_group))
    states = {name: job.state for name, job in old.status().jobs.items()}
    rest = {"far[0]", "far[1]"} if has_group else {"far"}
    assert {states[name] for name in {*rest, "inside"}} == {"skipped"}
    last = go_on(old, race(last="give", has_group=has_group))
    assert kept(last) >= {"near", "inside", "first", *rest}
    # Also what was kept there has done nothing.
    again = go_on(last, race(near="fail", last="give", has_group=has_group))
    assert (again.status().state, kept(again)) == ("succeeded", set())
    states = {name: job.state for name, job in again.status().jobs.items()}
    assert [states[name] for name in ("near", "first", "last")] == [
        "failed",
        "finished",
        "finished",
    ]
    assert "finished" in {states[name] for name in rest}


def test_what_started_early_is_kept_with_what_it_knew(
    begin: Callable[..., Run], go_on: Callable[..., Run], connection: Redis, work: Work
) -> None:
    old = begin(race())
    run = go_on(old, race(last="give"))
    assert "the first success has started it: near finished" in str(run.explain("first"))
    edges: Any = connection.hgetall(keys.edges(f"{run.run_id}-first"))
    expected: Any = connection.hgetall(keys.edges(f"{old.run_id}-first"))
    new, known = run.run_id.encode(), old.run_id.encode()
    assert edges == {name.replace(known, new): how for name, how in expected.items()}
    assert b"pending" in edges.values()
    assert set(run.retry("far")) == {"far", "clean"}
    work()
    assert run.status().jobs["far"].state == "finished"
    assert set(run.retry("first")) == {"first", "last", "clean"}
    work()
    assert run.status().state == "succeeded"


def test_why_what_was_not_needed_runs_is_said(begin: Callable[..., Run]) -> None:
    old = begin(race())
    edited = parse_workflow(race().replace("far.status", "far.result"), "w.yaml")
    choice = plan_continuation(old, edited, imports=False).choice
    why = f"was not needed in run {old.run_id}, and first runs again"
    assert choice.reasons["far"].text == choice.reasons["inside"].text == why


SMALL = """
inputs: {count: 2, word: a}
labels: {team: data}
outputs: {all: "${{ jobs.last.result }}"}
jobs:
  first: {call: language_jobs:make_list, with: {count: "${{ inputs.count }}"}}
  note: {call: language_jobs:note, with: {path: PATH, text: "${{ inputs.word }}"}}
  ask: {needs: note, approval: {message: "Go on?", inputs: {size: 1}}, call: builtins:dict}
  each:
    for_each: "${{ jobs.first.result }}"
    call: language_jobs:give
    with: {value: "${{ item }}"}
  last:
    call: language_jobs:fail_unless
    with: {path: /none, value: "${{ [jobs.each.results, jobs.ask.approval.size] }}"}
"""


@dataclass
class Failed:
    """A run whose last job has failed, and its workflow with that job mended."""

    run: Run
    edited: str
    log: Path


@pytest.fixture
def failed(connection: Redis, work: Work, tmp_path: Path) -> Callable[[], Failed]:
    def begin() -> Failed:
        log = tmp_path / "log"
        text = SMALL.replace("PATH", str(log))
        plan = compile_plan(parse_workflow(text, "w.yaml"), imports=False, labels={"by": "me"})
        run = submit(plan, connection)
        work()
        run.approve("ask", {"size": 7}, by="somebody")
        work()
        assert run.status().state == "failed"
        return Failed(run, text.replace("/none", "/"), log)

    return begin


def test_inputs_approvals_labels_and_outputs_go_over(
    failed: Callable[[], Failed], go_on: Callable[..., Run], connection: Redis, work: Work
) -> None:
    begun = failed()
    run = go_on(begun.run, begun.edited)
    assert (run.outputs(), begun.log.read_text()) == ({"all": [[0, 1], 7]}, "a\n")
    record, decision = run.record(), run.job_records()["ask"].decision
    assert (record.labels, decision and decision.by) == ({"team": "data", "by": "me"}, "somebody")
    assert kept(run) == {"first", "note", "ask", "each(list)", "each[0]", "each[1]"}
    assert run.views()["note"].result == "a"
    assert [job.state for job in run.status().jobs.values()] == ["finished"] * 7

    # The list is another one, so the group is made anew; nobody is asked again.
    longer = go_on(run, begun.edited, {"count": "3"})
    assert kept(longer) == {"note", "ask"}
    assert longer.outputs() == {"all": [[0, 1, 2], 7]}
    other = plan_continuation(longer, parse_workflow(begun.edited, "w.yaml"), {"word": "b"})
    counted = connection.hgetall(keys.METRICS)
    assert other.others == ()
    edited = parse_workflow(
        begun.edited.replace("count: 2, word: a", "count: 2, word: c"), "w.yaml"
    )
    again = plan_continuation(longer, edited, again=["last"])
    assert again.others == (("word", "a", "c"),)
    asks = submit(other.plan, connection)
    assert connection.hgetall(keys.METRICS) == counted
    work()
    assert asks.status().jobs["ask"].is_asking
    assert begun.log.read_text() == "a\nb\n"
    with pytest.raises(WrongState, match=rf"^run {asks.run_id} is waiting; cancel it first"):
        plan_continuation(asks, parse_workflow(begun.edited, "w.yaml"))
    asks.cancel()
    after_cancel = plan_continuation(asks, parse_workflow(begun.edited, "w.yaml"))
    assert after_cancel.choice.kept == ("first", "note", "each")


def test_what_is_kept_is_as_if_it_had_run_here(
    failed: Callable[[], Failed], go_on: Callable[..., Run], connection: Redis, work: Work
) -> None:
    """RQ's tools find it finished, with its result; and it can be retried, alone or with others."""
    begun = failed()
    run = go_on(begun.run, begun.edited)
    begun.run.remove()
    job = RQJob.fetch(f"{run.run_id}-note", connection)
    assert (job.get_status(), job.return_value()) == ("finished", "a")
    assert job.id in RQQueue("default", connection=connection).finished_job_registry.get_job_ids()
    assert examine(connection) == []
    for name, names in {
        "each[1]": {"each[1]", "last"},
        "note": {"note", "ask", "last"},
        "first": {"first", "each(list)", "last"},
    }.items():
        assert set(run.retry(name)) == names
        work()
        if name == "note":
            run.approve("ask", {"size": 8})
            work()
        assert run.status().state == "succeeded"
    assert run.outputs() == {"all": [[0, 1], 8]}
    assert begun.log.read_text() == "a\na\n"
    assert kept(run) == set()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        ({"spec": ""}, "does not keep its workflow, because an older version of flowq has submitt"),
        ({"state": "running"}, "is running; cancel it first"),
    ],
)
def test_a_run_that_cannot_be_continued_is_refused(
    failed: Callable[[], Failed], connection: Redis, break_it: Mapping[Any, Any], message: str
) -> None:
    begun = failed()
    connection.hset(keys.run(begun.run.run_id), mapping=dict(break_it))
    with pytest.raises(WrongState, match=message):
        plan_continuation(begun.run, parse_workflow(begun.edited, "w.yaml"))


def test_a_job_without_a_result_runs_again(failed: Callable[[], Failed], connection: Redis) -> None:
    begun = failed()
    workflow = parse_workflow(begun.edited, "w.yaml")
    connection.delete(keys.results(f"{begun.run.run_id}-note"))
    connection.delete(keys.job(f"{begun.run.run_id}-each--1"))
    draft = plan_continuation(begun.run, workflow)
    said = {name: reason.text for name, reason in draft.choice.reasons.items()}
    assert said == {
        "note": f"has no result any more in run {begun.run.run_id}",
        "ask": "after note",
        "each": f"was deleted in run {begun.run.run_id}",
        "last": "its `with` has changed",
    }


# Crashes and removals ----------------------------------------------------------------------------


class Counting(Redis):
    """Does something before its n-th command, or round trip."""

    at, sent = -1, 0
    act: Callable[[], object] = staticmethod(lambda: None)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.count()
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        self.count()
        return super().pipeline(transaction, shard_hint)

    def count(self) -> None:
        Counting.sent += 1
        if Counting.sent == self.at:
            Counting.at = -1
            Counting.act()


def arm(at: int, act: Callable[[], object]) -> None:
    Counting.at, Counting.sent, Counting.act = at, 0, staticmethod(act)


def leftovers(connection: Redis, run_id: str) -> list[str]:
    return [key for key in map(as_text, connection.keys("*")) if run_id in key]


def test_a_submitter_that_dies_leaves_nothing_half_done(
    failed: Callable[[], Failed], redis_url: str, connection: Redis, work: Work
) -> None:
    begun = failed()
    ends = set()
    for at in range(1, 60, 2):
        plan = plan_continuation(begun.run, parse_workflow(begun.edited, "w.yaml")).plan
        child = os.fork()
        if not child:
            arm(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            submit(plan, Counting.from_url(redis_url))
            os._exit(0)
        is_killed = bool(os.waitpid(child, 0)[1])
        is_committed = connection.hexists(keys.run(plan.run_id), "committed_at")
        ends.add((is_killed, is_committed))
        if is_committed:
            tidy(connection)
            work()
            assert Run(plan.run_id, connection).outputs() == {"all": [[0, 1], 7]}
        elif connection.exists(keys.run(plan.run_id)):
            connection.zadd(keys.STAGED, {plan.run_id: 0})
            tidy(connection)
            assert leftovers(connection, plan.run_id) == []
        if not is_killed:
            break
    assert ends >= {(True, False), (True, True), (False, True)}
    assert begun.log.read_text() == "a\n"


@pytest.mark.parametrize("how", ["remove", "retry"])
def test_a_run_that_is_taken_away_meanwhile_is_refused_as_a_whole(
    failed: Callable[[], Failed], redis_url: str, connection: Redis, work: Work, how: str
) -> None:
    ends = set()
    begun = failed()
    for at in range(1, 80, 3):
        if how == "remove":
            begun = failed()
        plan = plan_continuation(begun.run, parse_workflow(begun.edited, "w.yaml")).plan
        arm(at, getattr(begun.run, how))
        message = ""
        try:
            submit(plan, Counting.from_url(redis_url))
        except WrongState as error:
            message = str(error)
        work()
        if message:
            ends.add("refused")
            assert message.startswith(f"run {begun.run.run_id} cannot be continued: meanwhile, it")
            assert leftovers(connection, plan.run_id) == []
        else:
            ends.add("kept")
            assert Run(plan.run_id, connection).outputs() == {"all": [[0, 1], 7]}
        if Counting.at > 0:
            break
    assert ends == {"refused", "kept"}


# Programs ----------------------------------------------------------------------------------------


def test_a_program_continues_a_run(
    failed: Callable[[], Failed], connection: Redis, redis_url: str, work: Work, tmp_path: Path
) -> None:
    begun, file = failed(), tmp_path / "edited.yaml"
    file.write_text(begun.edited)
    run = flowq.submit(file, continue_from=begun.run, connection=connection)
    work()
    assert run.wait(60)
    assert kept(run) == {
        "first",
        "note",
        "ask",
        "each(list)",
        "each[0]",
        "each[1]",
    }
    asked = flowq.submit(file, continue_from=run.id, from_="each", connection=connection)
    assert kept(asked) == {"first", "note", "ask"}
    work()

    async def submit_soon() -> str:
        async with AsyncRedis.from_url(redis_url) as client:
            before = await aio.get_run(asked.id, connection=client)
            soon = {"count": 3}
            return (await aio.submit(file, soon, continue_from=before, connection=client)).id

    again = Run(asyncio.run(submit_soon()), connection)
    work()
    assert (again.outputs(), kept(again)) == ({"all": [[0, 1, 2], 7]}, {"note", "ask"})

    with pytest.raises(UsageError, match="continues another one has no `only` and no `skip`"):
        flowq.submit(file, continue_from=run, skip="note", connection=connection)
    with pytest.raises(UsageError, match="continue_from takes a run, or the id of one, not 3"):
        flowq.submit(file, continue_from=3, connection=connection)  # type: ignore[arg-type]
    with pytest.raises(RunNotFound):
        flowq.submit(file, continue_from="nobody", connection=connection)


def test_jobs_that_code_has_added_are_added_again(
    begin: Callable[..., Run], go_on: Callable[..., Run], tmp_path: Path
) -> None:
    """Who added them is not known: all jobs before the open one run again."""
    text = f"""
      jobs:
        first: {{call: language_jobs:make_list, with: {{count: 1}}}}
        explore:
          call: addition_jobs:visit
          with: {{log: {tmp_path / "log"}, depth: 1, width: 2}}
          blocks: report
        report: {{deferred: true, call: addition_jobs:finish, with: {{log: {tmp_path / "log"}}}}}
        after: {{needs: [report, first], call: language_jobs:fail}}
    """
    old = begin(text)
    run = go_on(old, text.replace("language_jobs:fail", "builtins:dict"))
    assert (run.status().state, kept(run)) == ("succeeded", {"first"})
    assert (tmp_path / "log").read_text().split() == 2 * [
        "visit",
        "1",
        "visit",
        "0",
        "visit",
        "0",
        "last",
    ]


def test_what_blocks_nothing_is_not_executed_again(
    begin: Callable[..., Run], go_on: Callable[..., Run], connection: Redis, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    arguments = f'{{path: {log}, text: "${{{{ item }}}}"}}'
    text = f"""
      jobs:
        each: {{for_each: [1, 2, 3], call: language_jobs:note, with: {arguments}}}
        bad: {{call: language_jobs:fail}}
    """
    old = begin(text)
    plan = plan_continuation(old, parse_workflow(text.replace(":fail", ":my_id"), "w.yaml")).plan
    run = submit(plan, connection, is_held=True)
    assert connection.llen(keys.queue("default")) == 0
    run.release()
    assert connection.llen(keys.queue("default")) == 1
    assert go_on(old, text.replace(":fail", ":my_id")).status().state == "succeeded"
    assert log.read_text() == "1\n2\n3\n"


@pytest.mark.parametrize("seed", range(6))
def test_in_random_graphs_each_job_is_executed_until_it_succeeds_and_never_again(
    begin: Callable[..., Run], go_on: Callable[..., Run], tmp_path: Path, seed: int
) -> None:
    dice, log = random.Random(seed), tmp_path / "log"
    names = [f"j{number}" for number in range(8)]
    before = {
        name: dice.sample(names[:at], min(at, dice.randint(0, 2))) for at, name in enumerate(names)
    }
    kinds = {
        name: dice.choice(["", "for_each: [1, 2]", "matrix: {x: [1, 2]}", "workflow"])
        for name in names
    }
    bad = dice.sample(names, 2)

    def write(bad: list[str]) -> str:
        lines = ["jobs:"]
        for name in names:
            call = f"call: language_jobs:note, with: {{path: {log}, text: {name}}}"
            if name in bad:
                call = "call: language_jobs:fail"
            what = "workflow: w" if kinds[name] == "workflow" and name not in bad else call
            kind = f"{kinds[name]}, " if ":" in kinds[name] else ""
            lines.append(f"  {name}: {{needs: [{', '.join(before[name])}], {kind}{what}}}")
        inner = f"call: language_jobs:note, with: {{path: {log}, text: inner}}"
        return "\n".join([*lines, f"workflows: {{w: {{jobs: {{a: {{{inner}}}}}}}}}"])

    run = begin(write(bad))
    for left in ([bad[0]], []):
        run = go_on(run, write(left))
    assert run.status().state == "succeeded"
    counts = Counter(log.read_text().split())
    nested = sum(kind == "workflow" for kind in kinds.values())
    assert counts.pop("inner", 0) == nested
    assert counts == {
        name: 2 if ":" in kind else 1 for name, kind in kinds.items() if kind != "workflow"
    }
