"""Groups in displays and in JSON: what many jobs are to a reader."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowq.render.groups import by_declaration, collapse, find_declared
from flowq.render.json import RunFacts, run_document, write_json
from flowq.render.progress import progress
from flowq.spec import Input
from flowq.status import (
    ASKING,
    STUCK,
    ApprovalDecision,
    Event,
    JobRecord,
    JobStatus,
    RunRecord,
    RunStatus,
    fold,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def status(*jobs: tuple[str, str, str], groups: tuple[str, ...] = ("thumb",)) -> RunStatus:
    found = {
        name: JobStatus(name, f"r1-{job_id}", state, started_at=START)
        for name, job_id, state in jobs
    }
    return RunStatus("r1", "demo", "running", found, START, groups=frozenset(groups))


WRITTEN_START = "2026-01-01T00:00:00.000000Z"


def one(state: str) -> dict[str, Any]:
    """What a document has of each job that has begun, and of which nothing else is known."""
    return {
        "status": state,
        "reason": None,
        "tolerated": False,
        "queued_at": None,
        "started_at": WRITTEN_START,
        "ended_at": None,
        "duration_s": None,
        "attempts": [],
        "error": None,
    }


THUMBS = status(
    ("thumb", "thumb", "finished"),
    ("thumb[1]", "thumb--1", "started"),
    ("thumb[0]", "thumb--0", "failed"),
    ("thumb[10]", "thumb--10", "deferred"),
    ("page", "page", "deferred"),
)


def test_a_group_is_one_row_with_how_far_it_is() -> None:
    lines = ["".join(text for text, _ in line) for line in progress(THUMBS, START, 60)]
    assert len(lines) == 3
    assert "thumb 1/3" in lines[1]
    assert lines[1].endswith("started, 1 failed")
    assert "page" in lines[2]


def test_canceled_items_are_not_counted_as_done() -> None:
    canceled = [(f"thumb[{i}]", f"thumb--{i}", "canceled") for i in range(1, 2_000)]
    shown = status(("thumb[0]", "thumb--0", "finished"), *canceled)
    assert collapse(shown)["thumb"].name == "thumb 1/2,000"


NESTED = status(
    ("each[0]", "each--0", "finished"),
    ("each[0].box(list)", "each--0--box", "finished"),
    ("each[0].box[0]", "each--0--box--0", "finished"),
    ("each[0].box[1]", "each--0--box--1", "failed"),
    ("each[0].lid", "each--0--lid", "skipped"),
    ("each[1].box[0]", "each--1--box--0", "started"),
    groups=("each",),
)


def test_a_group_inside_of_a_nested_workflow_is_found_by_its_name() -> None:
    box = find_declared(NESTED, "each[0].box")

    assert box is not None
    assert (box.name, box.is_group, box.state) == ("each[0].box", True, "failed")
    assert [job.name for job in box.items] == ["each[0].box[0]", "each[0].box[1]"]
    assert box.items == tuple(NESTED.jobs[job.name] for job in box.items), "with their own ids"
    assert box.list_job == NESTED.jobs["each[0].box(list)"]


@pytest.mark.parametrize("name", ["each[0].nope", "each[0].box[1].x", "nope", "nope.box", "each."])
def test_what_is_not_there_is_not_found(name: str) -> None:
    assert find_declared(NESTED, name) is None


def test_a_job_and_a_group_of_the_run_are_found_as_well() -> None:
    assert find_declared(NESTED, "each") == by_declaration(NESTED)["each"]
    lid = find_declared(NESTED, "each[0].lid")
    assert lid is not None
    assert (lid.is_group, lid.items) == (False, (NESTED.jobs["each[0].lid"],))


def test_a_group_that_has_ended_says_its_state_once() -> None:
    items = [
        (f"thumb[{i}]", f"thumb--{i}", state) for i, state in enumerate(["stopped", "canceled"])
    ]
    lines = ["".join(text for text, _ in line) for line in progress(status(*items), START, 60)]
    assert lines[1].split("  ")[-1] == "1 stopped, 1 canceled"


def test_a_group_that_has_ended_is_as_its_worst_item() -> None:
    ended = status(("thumb[0]", "thumb--0", "finished"), ("thumb[1]", "thumb--1", "canceled"))
    assert collapse(ended)["thumb"].state == "canceled"


def test_json_lists_a_group_in_the_order_of_its_items() -> None:
    results = {"thumb[1]": "b", "thumb[0]": "a", "thumb": 3}
    thumb = run_document(RunFacts(THUMBS, results))["jobs"]["thumb"]
    states = {0: "failed", 1: "started", 10: "deferred"}
    assert thumb == {
        "status": "started",
        "ids": ["r1-thumb--0", "r1-thumb--1", "r1-thumb--10"],
        "reason": None,
        "tolerated": False,
        "started_at": WRITTEN_START,
        "ended_at": None,
        "duration_s": None,
        "counts": {"failed": 1, "started": 1, "deferred": 1},
        "items": [
            {"name": f"thumb[{at}]", "job_id": f"r1-thumb--{at}", **one(state)}
            for at, state in states.items()
        ],
        "results": ["a", "b", None],
    }


def test_an_empty_group_has_empty_lists() -> None:
    empty = status(("thumb", "thumb", "finished"))
    thumb = run_document(RunFacts(empty, {"thumb": 0}))["jobs"]["thumb"]
    assert thumb == {
        "status": "finished",
        "ids": [],
        "reason": None,
        "tolerated": False,
        "started_at": WRITTEN_START,
        "ended_at": None,
        "duration_s": None,
        "counts": {},
        "items": [],
        "results": [],
    }


def test_a_large_group_lists_a_hundred_items_and_failed_ones_before_others() -> None:
    states = ["failed" if at in {3, 150, 199} else "finished" for at in range(200)]
    large = status(*((f"thumb[{at}]", f"thumb--{at}", each) for at, each in enumerate(states)))
    thumb = run_document(RunFacts(large))["jobs"]["thumb"]
    names = [item["name"] for item in thumb["items"]]
    assert names == [f"thumb[{at}]" for at in (*range(98), 150, 199)]
    assert (thumb["items_omitted"], thumb["results_omitted"]) == (100, 100)
    assert thumb["counts"] == {"finished": 197, "failed": 3}
    whole = run_document(RunFacts(large, has_all_results=True))["jobs"]["thumb"]
    assert [item["name"] for item in whole["items"]] == list(large.jobs)
    assert "items_omitted" not in whole


def test_infinity_in_inputs_is_a_value_without_a_form_in_json() -> None:
    """JSON of other programs may have 1e999, and then each command that shows the run failed."""
    given = {"data": {"x": [float("inf")]}, "nan": float("nan"), "plain": {"a": (1, None)}}
    decision = ApprovalDecision(is_approved=True, inputs={"f": [float("-inf")]})
    asks = (Input("f", "json"),)
    facts = RunFacts(
        status(("page", "page", "deferred")),
        record=RunRecord("r1", "demo", "running", given, START),
        record_by_name={
            "page": JobRecord(
                "r1-page", "q", "d", True, needs_approval=True, asks=asks, decision=decision
            )
        },
    )
    document = json.loads(write_json(run_document(facts)))
    infinite = {"repr": "inf", "type": "builtins.float"}
    assert document["inputs"] == {
        "data": {"x": [infinite]},
        "nan": {"repr": "nan", "type": "builtins.float"},
        "plain": {"a": [1, None]},
    }
    approval = document["jobs"]["page"]["approval"]
    assert approval["inputs"] == {"f": [{"repr": "-inf", "type": "builtins.float"}]}


def test_a_nested_workflow_is_one_job_with_one_result() -> None:
    nested = status(
        ("photo(start)", "photo--0", "finished"),
        ("photo.resize", "photo--resize", "failed"),
        ("photo", "photo", "failed"),
        groups=(),
    )
    jobs = run_document(RunFacts(nested))["jobs"]
    assert list(jobs) == ["photo"]
    photo = {**one("failed"), "ids": ["r1-photo"], "result": None}
    assert jobs["photo"] == photo
    resize = {**one("failed"), "ids": ["r1-photo--resize"], "result": None}
    inside = run_document(RunFacts(nested, has_nested=True))["jobs"]["photo"]
    assert inside == {**photo, "jobs": {"resize": resize}}


def test_the_chains_of_a_nested_workflow_are_the_items_of_its_group() -> None:
    chains = status(
        ("photo", "photo", "finished"),
        ("photo[1]", "photo--1", "finished"),
        ("photo[1](start)", "photo--1--0", "finished"),
        ("photo[1].resize", "photo--1--resize", "finished"),
        ("photo[0]", "photo--0", "finished"),
        groups=("photo",),
    )
    photo = run_document(RunFacts(chains, {"photo[0]": 1, "photo[1]": 2}))["jobs"]["photo"]
    items = [
        {"name": f"photo[{at}]", "job_id": f"r1-photo--{at}", **one("finished")} for at in (0, 1)
    ]
    assert photo == {
        "status": "finished",
        "ids": ["r1-photo--0", "r1-photo--1"],
        "reason": None,
        "tolerated": False,
        "started_at": WRITTEN_START,
        "ended_at": None,
        "duration_s": None,
        "counts": {"finished": 2},
        "items": items,
        "results": [1, 2],
    }
    told = RunFacts(chains, has_nested=True)
    resize = {**one("finished"), "ids": ["r1-photo--1--resize"], "result": None}
    assert run_document(told)["jobs"]["photo"]["items"] == [
        items[0],
        {**items[1], "jobs": {"resize": resize}},
    ]


@pytest.mark.parametrize("reason", [ASKING, f"{STUCK}: a failed"])
def test_a_run_waits_when_only_somebody_can_move_it(reason: str) -> None:
    def event(number: int, name: str, state: str, reason: str = "") -> Event:
        at = START + timedelta(seconds=number)
        return Event(str(number), at, f"r1-{name}", name, state, reason)

    begun = [event(1, "", "running"), event(2, "build", "started")]
    asked = [event(3, "publish", "deferred", reason)]
    built = [event(4, "build", "finished")]
    released = [event(5, "publish", "queued")]
    run = fold(RunStatus("r1", "demo"), begun + asked)
    assert run.state == "running"
    run = fold(run, built)
    assert run.state == "waiting"
    assert fold(run, released).state == "running"


def test_the_time_of_a_group_does_not_hold_the_pause_before_a_retry() -> None:
    """Of the items that ran again, where the run was retried; of all, where none of them did."""
    hour = timedelta(hours=1)
    times = {"thumb[0]": START, "thumb[1]": START + hour, "page[0]": START}
    jobs = {
        name: JobStatus(
            name,
            f"r1-{name[:-3]}--{name[-2]}",
            "finished",
            started_at=at,
            ended_at=at + timedelta(minutes=1),
        )
        for name, at in times.items()
    }
    groups = frozenset({"thumb", "page"})
    retried = RunStatus("r1", "demo", "succeeded", jobs, START, since=START + hour, groups=groups)
    minutes = {name: (each.duration_s or 0) / 60 for name, each in collapse(retried).items()}
    assert minutes == {"thumb": 1, "page": 1}
