"""The names beside inputs and results: what an item, a leg, a run and an `if` can see, and when."""

from __future__ import annotations

from typing import Any

import pytest

from flowq.errors import WorkflowInvalid
from flowq.expressions import as_source, as_template, evaluate, fill, find_references

SCOPE: dict[str, Any] = {
    "item": {"path": "a.jpg"},
    "index": 3,
    "matrix": {"python": "3.10", "os": "linux"},
    "result": {"links": ["x"]},
    "env": {"HOME": "/home/me"},
    "run": {"id": "run1", "workflow": "gallery"},
}
JOBS = {
    "thumb": {
        "results": [1, 2],
        "outcomes": [{"item": "a", "status": "failed"}],
        "by_key": {"3.11": "new", "os": "linux"},
        "status": "finished",
    }
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("item.path", "a.jpg"),
        ("item", {"path": "a.jpg"}),
        ("index + 1", 4),
        ("matrix.python", "3.10"),
        ("matrix['os']", "linux"),
        ("len(matrix)", 2),
        ("result.links", ["x"]),
        ("env.HOME ~ '/x'", "/home/me/x"),
        ("env.AWAY | default('none')", "none"),
        ("run.id", "run1"),
        ("jobs.thumb.results[1]", 2),
        ("jobs.thumb.outcomes[0].status", "failed"),
        ("jobs.thumb.by_key[3.11]", "new"),
        ("jobs.thumb.by_key['os']", "linux"),
        ("jobs.thumb.status == 'finished'", True),
        ("success()", True),
        ("not success() or failure()", False),
        ("always() and cancelled()", False),
        ("canceled()", False),
    ],
)
def test_a_name_has_its_value_where_it_is_known(source: str, value: object) -> None:
    statuses = {"success": True, "failure": False, "canceled": False}
    found = evaluate(as_template(source), jobs=JOBS, scope=SCOPE, statuses=statuses)
    assert found == value


@pytest.mark.parametrize("source", ["item", "matrix.os", "success()", "jobs.thumb.results"])
def test_a_name_has_no_value_where_it_is_not_known(source: str) -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        evaluate(as_template(source))
    assert "is not known here" in str(caught.value)


def test_references_say_which_names_are_used() -> None:
    text = (
        "${{ item.path }}${{ env.KEY }}${{ matrix.os }}"
        "${{ cancelled() and jobs.thumb.by_key['linux'] }}"
    )
    found = find_references(text)
    assert found.roots == {"item", "env", "matrix", "status", "jobs"}
    assert (found.env, found.matrix, found.statuses) == ({"KEY"}, {"os"}, {"canceled"})
    assert found.jobs == (("thumb", "by_key"),)
    assert found.parts == (("thumb", "by_key", "linux"),)


def test_filling_waits_for_what_is_not_known_yet() -> None:
    text = "${{ inputs.size }} ${{ item }} ${{ env.KEY }}"
    assert fill(text, inputs={"size": 1}) == text
    assert fill(text, inputs={"size": 1}, scope={"item": 2}) == text
    scope = {"item": 2, "env": {"KEY": "k"}}
    assert fill(text, inputs={"size": 1}, scope=scope) == "1 2 k"


def test_filling_leaves_what_is_asked_about_the_jobs_before() -> None:
    text = as_template("success() and inputs.publish")
    assert fill(text, inputs={"publish": True}) == text


def test_an_item_that_looks_like_an_expression_stays_text() -> None:
    evil = "${{ env.KEY }}"
    once = fill({"path": "${{ item }}"}, inputs={}, scope={"item": evil})
    again = fill(once, inputs={}, scope={"item": "x"})
    assert evaluate(again, scope={"env": {"KEY": "secret"}}) == {"path": evil}


@pytest.mark.parametrize("text", ["inputs.x", "${{ inputs.x }}", "  ${{inputs.x}} "])
def test_braces_may_be_left_away_where_an_expression_is_meant(text: str) -> None:
    assert as_source(text) == "inputs.x"


def test_two_expressions_are_not_one() -> None:
    assert find_references(as_template(as_source("${{ a }} and ${{ b }}"))).problems
