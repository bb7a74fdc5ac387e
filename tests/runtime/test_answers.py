"""What approvals carry: a message, values, and who said what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import UsageError, WrongState
from flowq.runtime import keys, retry
from flowq.spec import Approval, Input, JobSpec, Matrix, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
HOST = Input("host", "enum", choices=("blue", "green"))
PERCENT = Input("percent", "int", 10, required=False)
GIVEN = {"value": "${{ approval.host }} ${{ approval.percent }}"}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def answered(connection: Redis) -> Run:
    return Run(RUN, connection)


def message(answered: Run, name: str) -> str:
    return answered.job_records()[name].message


def ship(text: str = "Ship?", **more: object) -> JobSpec:
    asks = Approval(text, None, (HOST, PERCENT))
    return job("ship", "give", with_=GIVEN, approval=asks, **more)


def test_values_are_seen_by_the_job_and_by_those_after_it(
    run: Runs, work: Work, answered: Run
) -> None:
    seen = {"value": "${{ jobs.ship.approval.host }}"}
    run.submit(ship(), job("tell", "give", with_=seen))
    work()
    assert answered.approve("ship", {"host": "blue", "percent": "20"}, note="yes", by="ann@home")
    work()
    assert (run.result("ship"), run.result("tell")) == ("blue 20", "blue")
    decision = answered.job_records()["ship"].decision
    assert decision is not None
    assert (decision.is_approved, decision.by, decision.note) == (True, "ann@home", "yes")
    assert decision.inputs == {"host": "blue", "percent": 20}
    assert decision.at is not None


def test_a_second_approval_says_when_its_values_come_too_late(
    run: Runs, work: Work, answered: Run
) -> None:
    run.submit(ship())
    work()
    assert answered.approve("ship", {"host": "blue", "percent": "20"})
    assert not answered.approve("ship", {"host": "blue", "percent": "20"})
    work()
    assert not answered.approve("ship", {"host": "blue", "percent": "20"})
    with pytest.raises(WrongState, match="was already approved with other values, which stay"):
        answered.approve("ship", {"host": "green", "percent": "20"})
    assert run.result("ship") == "blue 20"


def test_a_group_that_was_approved_keeps_its_values(run: Runs, work: Work, answered: Run) -> None:
    run.submit(ship(for_each=each([1, 2])))
    assert answered.approve("ship", {"host": "blue"})
    for name in ("ship", "ship[0]"):
        work()
        with pytest.raises(WrongState, match="with other values"):
            answered.approve(name, {"host": "green"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "the input host is required"),
        ({"host": "red"}, "must be one of blue, green"),
        ({"host": "blue", "percent": "much"}, "must be a whole number"),
        ({"host": "blue", "per": 3}, "the approval of ship has no input 'per'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_approved(
    given: dict[str, object], told: str, run: Runs, work: Work, answered: Run
) -> None:
    run.submit(ship())
    work()
    with pytest.raises(UsageError, match=told):
        answered.approve("ship", given)
    assert run.state == "waiting"


def test_values_for_a_job_that_asks_for_none_are_refused(
    run: Runs, work: Work, answered: Run
) -> None:
    run.submit(job("plain", "my_id", approval=Approval()))
    with pytest.raises(UsageError, match="it has no inputs"):
        answered.approve("plain", {"x": 1})


def test_an_empty_text_is_refused_where_one_is_required(run: Runs, answered: Run) -> None:
    accepted = (Input("why", "str", "", required=False), Input("code", "str", pattern="[a-z]*"))
    asks = Approval("", None, (Input("who", "str"), *accepted))
    run.submit(job("ask", "my_id", approval=asks))
    with pytest.raises(UsageError, match="the input who is required and the given text is empty"):
        answered.approve("ask", {"who": "", "why": "", "code": ""})
    assert answered.approve("ask", {"who": "Ann", "why": "", "code": ""})


def test_values_and_notes_are_bounded(run: Runs, answered: Run) -> None:
    data = Input("data", "json")
    run.submit(job("big", "my_id", approval=Approval("", None, (data,))))
    with pytest.raises(UsageError, match="at most 65,536 are kept"):
        answered.approve("big", {"data": ["x" * 70_000]})
    with pytest.raises(UsageError, match="at most 4,000 are stored"):
        answered.approve("big", {"data": "1"}, note="x" * 4_001)


def test_a_message_shows_results_inputs_and_the_item(
    run: Runs, work: Work, answered: Run, connection: Redis
) -> None:
    text = "${{ jobs.pack.result }} to ${{ inputs.env }}?"
    items = {"for_each": each(["a", "b"]), "with_": {"value": "${{ item }}"}}
    per_item = Approval("${{ item }}: ${{ jobs.pack.result }}?")
    run.submit(
        job("pack", "give", with_={"value": "v1"}),
        ship(text),
        job("items", "give", approval=per_item, **items),
        job("legs", "my_id", matrix=Matrix({"n": [7]}), approval=Approval("${{ matrix.n }}?")),
        job("now", "my_id", approval=Approval("to ${{ inputs.env }}?")),
        inputs={"env": "prod"},
    )
    work()
    assert message(answered, "ship") == "v1 to prod?"
    assert message(answered, "items[1]") == "b: v1?"
    assert message(answered, "legs[7]") == "7?"
    assert message(answered, "now") == "to prod?"
    assert run.status.jobs["ship"].attempts == run.status.jobs["now"].attempts == 0
    answered.approve("items[1]")
    work()
    assert run.states["items[0]"] == "deferred"
    assert run.states["items[1]"] == "finished"


def test_a_long_message_is_cut(run: Runs, work: Work, answered: Run) -> None:
    run.submit(job("long", "give", with_={"value": "x" * 5_000}), ship("${{ jobs.long.result }}"))
    work()
    assert len(message(answered, "ship")) == 4_000


def test_a_message_that_has_no_value_fails_the_job(run: Runs, work: Work) -> None:
    run.submit(job("pack", "give", with_={"value": {}}), ship("${{ jobs.pack.result.name }}"))
    work()
    assert run.states["ship"] == "failed"
    assert "name" in run.error("ship")


def test_a_rejected_job_is_canceled_with_the_reason(run: Runs, work: Work, answered: Run) -> None:
    after = {"value": "${{ jobs.ship.approval.host }}"}
    run.submit(
        ship(),
        job("after", "my_id", needs=("ship",)),
        job("always", "give", with_=after, needs=("ship",), if_="canceled()"),
    )
    work()
    assert answered.reject("ship", "not on a Friday", by="ann@home") is True
    assert answered.reject("ship") is False
    work()
    assert run.states == {"ship": "canceled", "after": "skipped", "always": "finished"}
    assert run.reason("ship") == "rejected: not on a Friday"
    assert run.result("always") is None
    with pytest.raises(WrongState, match="was already rejected"):
        answered.approve("ship", {"host": "blue"})
    retry.retry(RUN, run.connection)
    assert run.status.jobs["ship"].is_asking
    assert answered.job_records()["ship"].decision is None
    assert answered.approve("ship", {"host": "green"})
    work()
    assert run.result("ship") == "green 10"


def test_what_has_not_asked_cannot_be_rejected(run: Runs, answered: Run) -> None:
    run.submit(job("first", "my_id"), ship(needs=("first",)))
    with pytest.raises(WrongState, match="has not asked yet"):
        answered.reject("ship")
    with pytest.raises(WrongState, match="does not ask for an approval"):
        answered.reject("first")


def test_a_whole_group_is_rejected_also_what_is_still_to_come(
    run: Runs, work: Work, answered: Run
) -> None:
    start = {"number": "${{ item }}", "limit": 7}
    more = each([1, 2], more="result.links")
    run.submit(job("pages", "children_of", for_each=more, with_=start, approval=Approval()))
    work()
    answered.approve("pages[0]")
    assert answered.reject("pages", "enough") is True
    work()
    states = run.states
    assert states.pop("pages(list)") == states.pop("pages[0]") == "finished"
    assert states == dict.fromkeys(["pages[1]", "pages[2]", "pages[3]"], "canceled")
    assert run.reason("pages[3]") == "rejected: enough"
    assert run.state == "failed"


def test_a_workflow_takes_values_and_passes_them_on(run: Runs, work: Work, answered: Run) -> None:
    inner = Workflow(
        "inner",
        (job("a", "give", with_={"value": "${{ inputs.host }}"}),),
        inputs=(Input("host"),),
        outputs={"host": "${{ jobs.a.result }}"},
    )
    given, seen = {"host": "${{ approval.host }}"}, {"value": "${{ jobs.whole.approval.host }}"}
    asks = Approval("", None, (HOST,))
    run.submit(
        JobSpec("whole", workflow="inner", with_=given, approval=asks),
        job("tell", "give", with_=seen),
        workflows={"inner": inner},
    )
    work()
    answered.approve("whole", {"host": "green"})
    work()
    assert run.result("whole") == {"host": "green"}
    assert run.result("tell") == "green"


def test_an_approval_of_an_older_version_counts(
    run: Runs, work: Work, answered: Run, connection: Redis
) -> None:
    run.submit(ship())
    connection.hset(keys.job(f"{RUN}-ship"), "flowq_approved", "1")
    decision = answered.job_records()["ship"].decision
    assert decision is not None
    assert (decision.is_approved, decision.by) == (True, "")
