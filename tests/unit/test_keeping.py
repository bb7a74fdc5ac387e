"""Which jobs of an ended run a run with an edited workflow keeps, and why the others run."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from flowq.errors import UsageError
from flowq.graph import build_graph
from flowq.inputs import resolve_inputs
from flowq.keeping import Before, Choice, choose
from flowq.pictures.stored import make_source, read_workflow
from flowq.render.continuation import describe_choice, describe_inputs
from flowq.runtime import keeping, planned
from flowq.spec import Workflow
from tests.reading import parse_workflow

TEXT = """\
name: report
inputs: {size: 2, mail: a@b}
env: {LEVEL: "1"}
jobs:
  fetch: {run: fetch, retries: 2}
  list: {call: "m:list", with: {size: "${{ inputs.size }}"}}
  thumb: {for_each: "${{ jobs.list.result }}", run: ["thumb", "${{ item }}"]}
  pack: {needs: [fetch, thumb], workflow: w}
  ask: {needs: pack, approval: {message: "Send it?", expires: 1d}, run: echo}
  day: {run: ["echo", "${{ run.due_at }}"]}
  wide: {if: inputs.size > 5, else: small, run: wide}
  small: {run: small}
  send: {needs: ask, run: ["send", "${{ inputs.mail }}"]}
finally:
  clean: {run: clean}
workflows:
  w: {jobs: {zip: {run: zip}}}
"""
ALL = ("fetch", "list", "thumb", "pack", "ask", "day", "wide", "small", "send")


def plain(text: str) -> Workflow:
    found = read_workflow(make_source(build_graph(parse_workflow(text, "old.yaml"))))
    assert found
    return found


def chosen(text: str, again: tuple[str, ...] = (), inputs: Any = None, **more: Any) -> Choice:
    workflow = parse_workflow(text, "w.yaml")
    known = {"failings": dict.fromkeys((*ALL, "clean"), ""), "inputs": {"size": 2, "mail": "a@b"}}
    before = Before("old", plain(TEXT), "", **{**known, **more})
    values = resolve_inputs(workflow, inputs or {})
    return choose(build_graph(workflow), plain(text), values, before, again)


EDITS = {
    # What is changed: why which jobs run, and the others that run after these.
    ("run: fetch", "run: fetch -v"): ("fetch: its `run` has changed: w.yaml:5:16", "pack ask send"),
    ("size: 2,", "size: 3,"): (
        "list: the input size has changed; wide: the input size has changed",
        "thumb pack ask small send",
    ),
    ('"thumb", ', '"thumb", "-s", '): (
        "thumb: its `run` has changed: w.yaml:7:53",
        "pack ask send",
    ),
    ("zip: {run: zip}", "zip: {run: zip -9}"): (
        "pack: the workflow that it runs has changed: w.yaml:8:43",
        "ask send",
    ),
    ("Send it?", "Really?"): ("ask: its `approval` has changed: w.yaml:9:32", "send"),
    ("size > 5", "size > 1"): ("wide: its `if` has changed: w.yaml:11:14", "small"),
    ("needs: [fetch, thumb]", "needs: [thumb]"): (
        "pack: it waits for other jobs than before: w.yaml:8:17",
        "ask send",
    ),
    ("fetch: {run", "get: {run"): (
        "get: new; pack: it waits for other jobs than before",
        "ask send",
    ),
    ("name: report", "name: other"): ("", ""),
    ("retries: 2", "retries: 9, timeout: 1m, queue: q, description: d, rate: 9/m"): ("", ""),
    ("expires: 1d", "expires: 2d"): ("", ""),
    ("needs: [fetch, thumb]", "needs: [thumb, fetch]"): ("", ""),
}


@pytest.mark.parametrize(("edit", "expected"), EDITS.items())
def test_a_job_runs_if_what_its_result_depends_on_has_changed(
    edit: tuple[str, str], expected: tuple[str, str]
) -> None:
    text = TEXT.replace(*edit)
    assert text != TEXT
    if edit[0] == "fetch: {run":
        text = text.replace("[fetch, thumb]", "[get, thumb]")
    choice = chosen(text)
    own = {name: why for name, why in choice.reasons.items() if not why.is_after}
    del own["clean"]  # jobs under `finally` always run
    said = "; ".join(f"{name}: {why}" for name, why in own.items())
    after = " ".join(name for name, why in choice.reasons.items() if why.is_after)
    if edit[0] == "fetch: {run":
        assert choice.gone == ("fetch",)
        said = said.partition(": w.yaml")[0]
    assert (said, after) == expected
    assert set(choice.kept) == set(build_graph(plain(text)).job_by_name) - set(choice.reasons)


def test_the_whole_environment_and_the_run_itself_count() -> None:
    assert set(chosen(TEXT.replace('"1"', '"2"')).reasons) == {*ALL, "clean"}
    text = TEXT.replace("${{ run.due_at }}", "${{ run.id }}")
    assert str(chosen(text).reasons["day"]) == "its `run` has changed: w.yaml:10:14"
    before = plain(text)
    assert str(chosen(text).reasons["day"]).startswith("its `run`")
    again = choose(
        build_graph(parse_workflow(text, "w.yaml")),
        before,
        {"size": 2, "mail": "a@b"},
        Before("old", before, "", {"size": 2, "mail": "a@b"}, dict.fromkeys((*ALL, "clean"), "")),
    )
    assert str(again.reasons["day"]) == "it reads `run`, which is another run now"


def test_what_has_failed_or_is_asked_for_runs_with_all_that_follows() -> None:
    failings = {**dict.fromkeys((*ALL, "clean"), ""), "ask": "has failed", "send": "was skipped"}
    choice = chosen(TEXT, failings=failings)
    assert list(describe_choice("old", choice, {"thumb": 40})) == [
        "keeps of run old: fetch, list, thumb (40 items), pack, day, wide, small",
        "runs ask: has failed in run old",
        "runs clean: at the end",
        "runs after these: send",
    ]
    choice = chosen(TEXT, ("thumb",))
    assert str(choice.reasons["thumb"]) == "as you asked"
    assert set(choice.reasons) == {"thumb", "pack", "ask", "send", "clean"}
    with pytest.raises(UsageError, match="has no job thumbs; did you mean 'thumb'"):
        chosen(TEXT, ("thumbs",))


def test_inputs_that_are_as_before_though_their_default_is_another_one_are_named() -> None:
    others = [("n", 2, 5), ("to", "a", "b c"), ("all", [1] * 99, [])]
    assert list(describe_inputs(others)) == [
        "input as before: n = 2 (its default is 5 now; -i n=5)",
        "input as before: to = a (its default is b c now; -i 'to=b c')",
        f"input as before: all = [{'1, ' * 12}1,… (its default is [] now; -i 'all=[]')",
    ]


def test_without_anything_to_run_it_is_refused() -> None:
    text = "jobs: {a: {run: x}}"
    before = Before("old", plain(text), "", failings={"a": ""})
    with pytest.raises(UsageError, match=r"^no job would run: all that run old has done is kept"):
        choose(build_graph(parse_workflow(text, "w.yaml")), plain(text), {}, before)


OPEN = """
jobs:
  adder: {call: "m:add"}
  other: {call: "m:other"}
  open: {deferred: true, needs: adder, call: "m:join"}
"""


def test_jobs_that_may_have_added_others_run_again() -> None:
    graph, before = build_graph(parse_workflow(OPEN, "w.yaml")), plain(OPEN)
    ended = dict.fromkeys(("adder", "other", "open"), "")
    facts = Before("old", before, "", failings=ended, has_added=True)
    assert choose(graph, before, {}, facts).kept == ("other",)


def test_copies_of_jobs_have_every_field_that_jobs_are_planned_with() -> None:
    written = set(re.findall(r'"(flowq_\w+)":', inspect.getsource(planned._fields)))
    assert len(written) > 10
    assert written <= set(keeping._COPIED)
