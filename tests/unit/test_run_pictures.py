"""The picture of a run, made of a stored picture, its status and its records."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowq.errors import UsageError
from flowq.graph import build_graph
from flowq.pictures.dot import render_dot
from flowq.pictures.folding import MAX_LEVELS, by_level, focus
from flowq.pictures.html import render_html
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.of_run import MAX_ADDED, draw_run, find_added, find_edges
from flowq.pictures.picture import Arrow, Box, Picture, draw, from_document, to_document
from flowq.pictures.stored import make_source, read_picture, read_workflow
from flowq.pictures.svg import render_svg
from flowq.pictures.text import render_text
from flowq.plan import Source
from flowq.render.lines import find_mark
from flowq.spec import Approval, ForEach, Workflow
from flowq.status import ASKING, ENDED, JobRecord, JobStatus, RunStatus
from tests.unit.graphs import SAMPLES, hostile, job, picture, star

START = datetime(2026, 11, 24, 12, 3, 4, tzinfo=UTC)
INNER = Workflow("inner", (job("x"), job("y", "x"), job("page", "y", for_each=ForEach([1, 2]))))
OUTER = Workflow(
    "outer",
    (
        job("one", workflow="inner"),
        job("many", "one", workflow="inner", for_each=ForEach([1, 2, 3])),
        job("gate", "many", deferred=True, approval=Approval("Go?")),
    ),
    workflows={"inner": INNER},
)


def status(state: str = "running", **jobs: str | JobStatus) -> RunStatus:
    """Return a run's status; `__` stands for a dot, and `_0_` for an item."""
    found = {}
    for word, said in jobs.items():
        name = word.replace("_0_", "[0]").replace("_1_", "[1]").replace("__", ".")
        job_id = "r-" + name.replace(".", "--").replace("[", "--").replace("]", "")
        each = said if isinstance(said, JobStatus) else JobStatus(name, job_id, said)
        found[name] = replace(each, name=name, job_id=job_id)
    return RunStatus("r", "outer", state, found)


def pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode())).decode()


def find(shown: Picture, name: str) -> Box:
    return next(box for box in shown.boxes if box.name == name)


def test_a_nested_workflow_has_the_states_of_its_jobs_and_is_named_by_its_job() -> None:
    run = status(one="deferred", one__x="finished", one__y="started", one__page="deferred")
    inside = find(draw_run(run, draw(build_graph(OUTER))), "one").inside
    assert inside is not None
    assert [(box.name, box.state) for box in inside.boxes] == [
        ("x", "finished"),
        ("y", "started"),
        ("page", "deferred"),
    ]
    assert (inside.job, inside.state) == ("one", "started")


def test_a_group_of_workflows_counts_the_states_of_each_inner_job() -> None:
    run = status(many_0_="deferred", many_0___x="finished", many_0___y="failed")
    run = status(
        **{job.name.replace("[0]", "_0_").replace(".", "__"): job for job in run.jobs.values()},
        many_1_="deferred",
        many_1___x="finished",
        many_1___y="started",
    )
    many = find(draw_run(run, draw(build_graph(OUTER))), "many")
    assert many.inside is not None
    x, y, _ = many.inside.boxes
    assert (x.state, x.words[:1]) == ("finished", ("2 finished",))
    assert (y.state, y.words[:2]) == ("started", ("1 failed", "1 started"))


def test_a_group_inside_of_a_nested_workflow_is_one_box_with_counts() -> None:
    run = status(one="deferred", one__page_0_="finished", one__page_1_="failed")
    inside = find(draw_run(run, draw(build_graph(OUTER))), "one").inside
    assert inside is not None
    page = find(inside, "page")
    assert (page.state, dict(page.counts)) == ("failed", {"failed": 1, "finished": 1})


def test_what_was_canceled_is_not_drawn_as_done() -> None:
    inside = find(draw(build_graph(OUTER)), "one").inside
    assert inside is not None
    items = [JobStatus(f"page[{i}]", f"r-page--{i}", "canceled") for i in range(2)]
    run = RunStatus("r", "flow", "canceled", {item.name: item for item in items})
    page = find(draw_run(run, inside), "page")
    assert page.how_far == "0/2"
    assert page.words[0] == "2 canceled"


def test_what_the_state_does_not_say_stands_beside_it() -> None:
    def note(**said: object) -> str:
        each = replace(JobStatus("gate", "r-gate"), **said)
        gate = find(draw_run(status(gate=each), draw(build_graph(OUTER))), "gate")
        assert gate.note == "" or gate.note in gate.words
        return gate.note

    assert note(state="deferred", reason=ASKING) == ASKING
    assert note(state="canceled", reason="rejected: not today") == "rejected"
    assert note(state="failed", reason="tolerated: 1 of 2") == "tolerated"
    assert note(state="finished", attempts=3) == "attempt 3"
    assert note(state="finished", attempts=1) == ""


@pytest.mark.parametrize("state", sorted({*ENDED, "deferred", "scheduled", "queued", "started"}))
def test_each_state_is_a_mark_and_a_word_in_text_and_drawing(state: str) -> None:
    shown = draw_run(status(gate=state), draw(build_graph(OUTER)))
    assert f"{find_mark(state)} gate  {state}" in render_text(shown)
    drawing = render_svg(shown)
    assert f"{find_mark(state)} gate" in drawing
    assert f">{state} · " in drawing


def test_a_declared_open_job_looks_open_until_it_is_released() -> None:
    def is_dashed(state: str) -> bool:
        return "box open" in render_svg(draw_run(status(gate=state), draw(build_graph(OUTER))))

    assert is_dashed("deferred")
    assert not is_dashed("finished")


def test_jobs_that_code_added_have_their_edges_and_stand_before_what_they_block() -> None:
    run = status(gate="deferred", added="finished", other="queued")
    stored = draw(build_graph(OUTER))
    assert {each.name for each in find_added(run, stored)} == {"added", "other"}
    records = {
        "added": JobRecord("r-added", "default", "work.add(1)", False, blocks=("r-gate",)),
        "other": JobRecord("r-other", "default", "work.add(2)", False, blocks=("r-gate!", "gone")),
    }
    shown = draw_run(run, stored, records)
    assert shown.blockers_by_name()["gate"] == ["many", "added", "other"]
    assert [a.on_failure for a in shown.arrows if a.blocker == "other"] == ["ignore"]
    assert [box.name for box in shown.boxes][-1] == "gate"
    assert "work.add(1)" in find(shown, "added").words
    assert len(render_text(shown).splitlines()) < 20


def test_so_many_jobs_that_code_added_are_not_drawn_one_by_one() -> None:
    number = MAX_ADDED + 500
    run = status(**{f"a{i}": "failed" if i == number - 1 else "finished" for i in range(number)})
    shown = draw_run(run, draw(build_graph(OUTER)))
    assert len(shown.boxes) == len(OUTER.jobs) + MAX_ADDED + 1
    assert ("failed", 1) in find(shown, "500 jobs more").counts
    assert len(shown) == len(OUTER.jobs) + number


def test_a_run_without_a_stored_picture_shows_its_jobs_and_their_edges() -> None:
    run = replace(status(a="finished", b="failed", b__x="failed"), groups=frozenset({"c"}))
    records = {"a": JobRecord("r-a", "default", "work.a()", False, blocks=("r-b",))}
    shown = draw_run(run, None, records)
    assert [(box.name, box.state, box.group) for box in shown.boxes] == [
        ("a", "finished", ""),
        ("b", "failed", ""),
        ("c", "finished", "for each"),
    ]
    assert shown.title == "outer"


def test_a_run_s_picture_is_written_as_data_and_read_again() -> None:
    run = status(one__x="finished", many_0_="failed", many_1_="finished", gate="deferred")
    shown = draw_run(run, draw(build_graph(OUTER)))
    assert from_document(json.loads(json.dumps(to_document(shown)))) == shown


def test_each_format_names_the_run_its_state_and_its_times() -> None:
    times = {"started_at": START, "ended_at": START + timedelta(seconds=75)}
    run = replace(status("failed", one="finished"), **times)  # type: ignore[arg-type]
    shown = draw_run(run, draw(build_graph(OUTER)))
    said = "failed, started 2026-11-24 12:03:04 UTC, took 1m 15s, 3 jobs, 2 edges"

    assert f"<title>outer, run r: {said}</title>" in render_svg(shown)
    page = render_html(shown)
    assert "<title>outer, run r</title>" in page
    assert f"<h1>outer, run r</h1>\n<p>{said}</p>" in page
    assert f"title: 'outer, run r: {said}'" in render_mermaid(shown).replace('"', "'")
    assert f'label="outer, run r: {said}"' in render_dot(shown)
    document = to_document(shown)
    assert (document["run"], document["status"], document["duration_s"]) == ("r", "failed", 75.0)
    assert document["started_at"] == "2026-11-24T12:03:04.000000Z"
    assert from_document(json.loads(json.dumps(document))) == shown


def test_a_tolerated_failure_is_told_apart_by_word_glyph_and_colour() -> None:
    job_status = JobStatus("", "", "failed", reason="tolerated: the job has continue_on_error")
    run = status(one=job_status, many_0_="finished", many_1_=job_status, gate="failed")
    shown = draw_run(run, draw(build_graph(OUTER)))
    one, many, gate = (find(shown, name) for name in ("one", "many", "gate"))

    assert (one.mark(), gate.mark()) == ("!", "✗")
    assert one.words[:2] == ("failed", "tolerated")
    assert many.words[:2] == ("1 finished", "1 tolerated")
    assert "! one" in render_text(shown)
    drawn = render_svg(shown)
    assert "! one" in drawn
    assert drawn.count('class="failed"') == 1


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_is_stored_is_read_as_the_same_picture(name: str) -> None:
    shown = SAMPLES[name]()
    document = json.loads(json.dumps(to_document(shown)))
    assert from_document(document) == shown


def test_what_a_run_keeps_is_small_and_what_is_too_large_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = build_graph(OUTER)
    source = make_source(graph)
    assert len(source.picture) < 500
    assert (read_picture(source), read_workflow(source)) == (draw(graph), OUTER)
    monkeypatch.setattr("flowq.pictures.stored.MAX_BYTES", 10)
    left = make_source(graph)
    assert (left.picture, left.workflow, left.digest) == ("", "", source.digest)
    assert (read_picture(left), read_workflow(left)) == (None, None)


# Focus and levels --------------------------------------------------------------------------------


def test_a_job_of_a_nested_workflow_can_be_looked_at_by_itself() -> None:
    stored = draw(build_graph(OUTER))
    for name in ("one.y", "many.y", "many[2].y"):
        assert [box.name for box in focus(stored, name).boxes] == ["x", "y", "page"]
    for name in ("many[1]", "many(list)", "many"):
        assert "many" in [box.name for box in focus(stored, name).boxes]
    with pytest.raises(UsageError, match=r"inner has no job 'one\.z'; did you mean 'one\.y'"):
        focus(stored, "one.z")


def test_levels_of_thousands_of_jobs_are_a_few_lines() -> None:
    lines = render_text(by_level(star(2000), MAX_LEVELS)).splitlines()
    assert len(lines) == 5
    assert lines[2].endswith("more")
    assert all(len(line) <= 80 for line in lines)


def test_failed_jobs_of_a_level_are_said_first() -> None:
    states = {f"b{i}": "finished" for i in range(200)} | {"b150": "failed"}
    shown = by_level(picture(*map(job, states), states=states), MAX_LEVELS)
    text = render_text(shown, 100)
    assert "level 1  200 jobs, 1 failed, 199 finished  ✗ b150, ✓ b0," in text
    assert len(text.splitlines()) == 5


def test_nothing_of_a_run_s_texts_is_markup() -> None:
    shown = hostile()
    run = RunStatus(
        "r",
        "flow",
        "failed",
        {
            box.name: JobStatus(box.name, "r-x", "failed", "<script>alert(2)</script>\x1b[2J")
            for box in shown.boxes
        },
    )
    page = render_html(draw_run(run, shown))
    assert "<script" not in page
    assert "&lt;script&gt;alert(2)" in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "kept",
    ["zstd:whatever", "é", "eJwrTS0qAQAEuAHD", pack("[]"), pack("{}"), pack("7"), pack("[" * 9999)],
)
def test_a_picture_that_this_version_cannot_read_is_none(kept: str) -> None:
    assert read_picture(Source(picture=kept)) is None


def test_the_edges_of_a_run_are_those_of_its_picture_and_of_what_was_added() -> None:
    stored = draw(build_graph(OUTER))
    run = status(one="finished", many="deferred", gate="deferred", new="deferred")
    records = {"new": JobRecord("r-new", "q", "d", False, blocks=("r-gate!",))}
    edges = find_edges(run, stored, records)
    assert edges == [*stored.arrows, Arrow("new", "gate", "ignore")]
    assert find_edges(run, None, records) == [Arrow("new", "gate", "ignore")]


def test_declarations_that_block_each_other_are_drawn_behind_all_others() -> None:
    """Their items do, and no job waits for itself."""
    run = status(a_0_="finished", a_1_="deferred", b_0_="deferred", c="deferred", d="deferred")
    records = {
        "a[0]": JobRecord("r-a--0", "q", "d", False, blocks=("r-b--0",)),
        "b[0]": JobRecord("r-b--0", "q", "d", False, blocks=("r-a--1", "r-c")),
        "d": JobRecord("r-d", "q", "d", False),
    }
    shown = draw_run(run, None, records)
    assert [box.name for box in shown.boxes] == ["d", "a", "b", "c"]
    assert {(each.blocker, each.future) for each in shown.arrows} == {
        ("a", "b"),
        ("b", "c"),
    }
    assert all(name in render_text(shown) for name in "abcd")
    assert render_svg(shown)
