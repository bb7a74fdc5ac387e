"""The picture of a graph, and the text formats: what they show and what they escape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

import pytest

from flowq.cells import count_cells, cut
from flowq.graph import build_graph
from flowq.pictures.dot import render_dot
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import Box, Picture, draw, from_document, to_document
from flowq.pictures.svg import render_svg
from flowq.pictures.text import render_text
from flowq.render.json import write_json
from flowq.render.lines import find_mark
from flowq.spec import Approval, Block, ForEach, Workflow
from flowq.status import ENDED
from tests.unit.graphs import SAMPLES, SANDWICH, job, kinds, nested, picture, star

# The value.


def test_a_picture_has_the_jobs_in_the_order_in_which_they_run() -> None:
    shown = picture(job("last", "first"), job("first"))

    assert [(box.name, box.level, box.is_future) for box in shown.boxes] == [
        ("first", 0, False),
        ("last", 1, True),
    ]


def test_a_picture_of_a_run_has_the_states_and_the_jobs_that_were_added_late() -> None:
    shown = picture(job("a"), states={"a": "finished", "late": "queued"})

    assert [(box.name, box.state) for box in shown.boxes] == [("a", "finished"), ("late", "queued")]
    assert shown.state == "running"


def test_what_a_job_is_stands_beside_its_name_in_every_format() -> None:
    words = {box.name: box.words for box in kinds().boxes}

    assert words == {
        "list_photos": (),
        "thumbnail": ("for each",),
        "test": ("matrix", "run"),
        "gallery": ("open",),
        "ask": ("approval",),
        "publish": ("workflow of 2 jobs", "if"),
        "tell": ("runs if blockers fail",),
        "clean_up": ("finally",),
    }
    for written in (render_mermaid(kinds()), render_dot(kinds()), render_svg(kinds())):
        assert all(word in written for said in words.values() for word in said)


def test_a_picture_is_written_as_data_and_read_again() -> None:
    for name in ("kinds", "hostile", "three deep", "diamond"):
        shown = SAMPLES[name]()
        assert from_document(json.loads(write_json(to_document(shown)))) == shown


def test_reading_a_picture_of_an_older_version_misses_nothing_it_needs() -> None:
    written = {"workflow": "w", "jobs": [{"name": "a"}, {"name": "b"}], "edges": []}

    assert [box.name for box in from_document(written).boxes] == ["a", "b"]


def test_a_workflow_that_many_jobs_run_is_written_once() -> None:
    inner = Workflow("ship", (job("pack"),))
    for _ in range(30):  # 2 ** 30 of them when each is written where it is run
        jobs = (job("a", workflow="w"), job("b", workflow="w"))
        inner = Workflow("more", jobs, workflows={"w": inner})
    document = to_document(draw(build_graph(inner)))

    assert len(document["workflows"]) == 30
    assert [each["inside"] for each in document["jobs"]] == [0, 0]
    assert document["workflows"][-1]["workflow"] == "ship"


def test_a_graph_as_json_has_jobs_and_edges() -> None:
    document = to_document(picture(job("a"), job("b", "a", deferred=True)))

    assert json.loads(write_json(document)) == {
        "workflow": "flow",
        "status": None,
        "jobs": [
            {"name": "a", "level": 0, "kind": "call", "future": False, "open": False},
            {"name": "b", "level": 1, "kind": "call", "future": True, "open": True},
        ],
        "edges": [{"blocker": "a", "future": "b", "on_failure": None}],
    }


# Text.


def test_a_fork_and_its_join_are_drawn_with_lanes() -> None:
    assert render_text(picture(*SANDWICH)).splitlines() == [
        "● cut_bread",
        "├─● marmalade",
        "● │ butter",
        "│ │",
        "●─┘ serve",
    ]


def test_without_unicode_the_drawing_is_ascii() -> None:
    text = render_text(picture(*SANDWICH), unicode=False)

    assert text.splitlines()[-1] == "*-' serve"
    for name in ("kinds", "40 jobs", "2,000 jobs", "chain of 2,000", "three deep"):
        assert render_text(SAMPLES[name](), unicode=False).isascii(), name


def test_a_chain_shows_the_stroke_between_two_jobs() -> None:
    assert render_text(picture(job("a"), job("b", "a"))).splitlines() == ["● a", "│", "● b"]


def test_jobs_that_have_nothing_to_do_with_each_other_are_not_in_line() -> None:
    assert render_text(picture(job("a"), job("b"))).splitlines() == ["● a", "  ● b"]


def test_an_open_job_is_drawn_differently_everywhere_and_another_future_job_is_not() -> None:
    shown = picture(job("a"), job("b", "a", deferred=True), job("c", "b"))

    assert render_text(shown).splitlines()[2:] == ["◎ b  open", "│", "● c"]
    assert render_text(shown, unicode=False).splitlines()[2] == "O b  open"
    assert '"b" [label="b\\nopen", style="rounded,dashed"]' in render_dot(shown)
    assert '    "c";' in render_dot(shown)
    assert 'j1(["b<br/>open"]):::open' in render_mermaid(shown)
    assert 'j2["c"]' in render_mermaid(shown)
    assert "classDef open stroke-dasharray" in render_mermaid(shown)
    assert render_svg(shown).count('class="box open"') == 1


def test_an_open_job_of_a_run_has_the_mark_of_its_state_and_is_open_until_it_starts() -> None:
    jobs = (job("a"), job("b", "a", deferred=True))
    for state, line in (("deferred", "○ b  deferred, open"), ("finished", "✓ b  finished")):
        shown = picture(*jobs, states={"a": "finished", "b": state})
        assert render_text(shown).splitlines()[-1] == line


def test_states_are_shown_as_marks_and_as_words() -> None:
    text = render_text(
        picture(*SANDWICH[:2], states={"cut_bread": "finished", "marmalade": "failed"})
    )

    assert "✓ cut_bread  finished" in text
    assert "✗ marmalade  failed" in text


def test_an_edge_that_ignores_failures_is_dashed_and_named() -> None:
    ignoring = [job(name, blocks=(Block("z", "ignore"),)) for name in "abc"]
    text = render_text(picture(*ignoring[:2], job("z")))
    assert text.splitlines()[-1] == "●┄┘ z  even if a or b fail"
    text = render_text(picture(*ignoring, job("z")), unicode=False)
    assert text.splitlines()[-1].endswith("z  even if a or 2 others fail")
    assert "*.'" in text


def test_rows_are_in_an_order_that_closes_lanes_early() -> None:
    """Declared across each other: one after the other they need half of the lanes."""
    heads = [job(f"h{i}") for i in range(6)]
    middle = [job(f"m{i}", f"h{i}") for i in range(6)]
    shown = picture(*heads, *middle, *(job(f"t{i}", f"m{i}") for i in range(6)))
    rows = render_text(shown).splitlines()
    assert max(row.index("●") for row in rows if "●" in row) <= 2


def test_the_jobs_of_nested_workflows_are_drawn_below() -> None:
    lines = render_text(nested(3)).splitlines()
    assert lines[2] == "● sub  workflow of 3 jobs"
    assert lines[lines.index("workflow inner1:") + 1] == "  ● before"
    assert lines[lines.index("workflow inner0:") + 1 :] == ["  ● x", "  ├─● y", "  ● z"]
    assert "32 nested workflows not drawn" in render_text(nested(40))


def test_above_ten_lanes_twins_are_one_row() -> None:
    assert render_text(star(12)).splitlines() == ["● b0 and 11 more  12 jobs", "│", "● join"]


def test_above_thirty_jobs_there_is_a_paragraph_for_each_level() -> None:
    lines = render_text(SAMPLES["40 jobs"](), 80).splitlines()
    assert [line[:7] for line in lines[:-1]] == [f"level {level}" for level in range(1, 6)]
    assert lines[-1] == "40 jobs in 5 levels; --focus JOB draws what is before and after a job"


def test_in_levels_failed_jobs_come_first_and_kinds_are_said() -> None:
    first = [job(f"a{i}", for_each=ForEach([1])) for i in range(20)]
    second = [job(f"b{i}", f"a{i}", f"a{i - 1}" if i else "a5") for i in range(20)]
    text = render_text(picture(*first, *second))
    assert "level 1  20 jobs, for each  a0, a1, a2" in text, "what all are is said once"
    text = render_text(picture(*first[:-1], job("a19"), *second))
    assert "a0 (for each)" in text
    states = {each.name: "finished" for each in (*first, *second)} | {"b17": "failed"}
    text = render_text(picture(*first, *second, states=states), 100)
    assert "level 2  20 jobs, 1 failed, 19 finished  ✗ b17, ✓ b0" in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("name", SAMPLES)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    lines = render_text(SAMPLES[name](), width).splitlines()

    assert max((count_cells(line) for line in lines), default=0) <= width
    assert len(lines) <= 60


def test_no_jobs_are_no_lines() -> None:
    assert render_text(picture()) == ""


def test_every_state_has_a_mark_of_its_own() -> None:
    states = [*ENDED, "deferred", "scheduled", "queued", "started", ""]

    for unicode in (True, False):
        marks = [find_mark(state, unicode) for state in states]
        assert len(set(marks)) == len(states)
        assert all(len(mark) == 1 and mark != "?" for mark in marks)
    assert all(find_mark(state, unicode=False).isascii() for state in states)


@pytest.mark.parametrize(
    ("text", "cells"),
    [("abc", 3), ("数据", 4), ("é", 1), ("e\u0301", 1), ("🚀", 2), ("❤\ufe0f", 2), ("عنوان", 5)],
)
def test_texts_are_measured_in_cells(text: str, cells: int) -> None:
    assert count_cells(text) == cells


@pytest.mark.parametrize("cells", range(12))
def test_a_text_that_is_cut_takes_no_more_than_its_cells(cells: int) -> None:
    for text in ("数据处理流水线", "👩‍🚀🚀 start", "abcdefghijklmnop", "e\u0301" * 20):
        assert count_cells(cut(text, cells)) <= cells
        assert cut(text, 40) == text
    assert cut("abcdef", 4) == "abc…"
    assert not cut("👩‍🚀🚀", 3).endswith("\u200d…")


# Mermaid and DOT.


def test_mermaid_gives_every_job_an_id_that_is_no_word_of_its_own() -> None:
    text = render_mermaid(picture(job("end"), job("graph", "end")))

    assert text.splitlines() == [
        "---",
        "title: 'flow'",
        "---",
        "flowchart LR",
        '    j0["end"]',
        '    j1["graph"]',
        "    j0 --> j1",
    ]


def test_mermaid_and_dot_have_a_shape_for_each_kind() -> None:
    mermaid, dot = render_mermaid(kinds()), render_dot(kinds())

    assert '[/"thumbnail<br/>for each"/]' in mermaid
    assert '{{"ask<br/>approval"}}' in mermaid
    assert '[["publish<br/>workflow of 2 jobs · if"]]' in mermaid
    assert '"thumbnail" [label="thumbnail\\nfor each", peripheries="2"]' in dot
    assert 'shape="octagon"' in dot
    assert 'shape="component"' in dot


def test_mermaid_escapes_what_would_end_a_label_or_start_an_entity() -> None:
    text = render_mermaid(picture(job('a"<b>&#1;'), name="it's\n---"))

    assert "title: 'it''s ---'" in text
    assert '["a#quot;#lt;b#gt;#amp;#35;1;"]' in text


def test_mermaid_colours_the_states_that_occur() -> None:
    text = render_mermaid(picture(job("a"), job("b", "a"), states={"a": "failed", "b": "deferred"}))

    assert 'j0["a<br/>failed"]:::failed' in text
    assert text.count("classDef") == 1


def test_mermaid_and_dot_show_an_edge_that_ignores_failures() -> None:
    shown = picture(job("a", blocks=(Block("b", "ignore"),)), job("b"))

    assert "j0 -. ignore .-> j1" in render_mermaid(shown)
    assert '"a" -> "b" [style="dashed", label="ignore"];' in render_dot(shown)


def test_mermaid_is_folded_as_it_draws_no_more_than_500_edges_and_dot_has_all() -> None:
    shown = SAMPLES["200 to 200"]()

    assert render_mermaid(shown).count("-->") == 1
    assert render_dot(shown).count(" -> ") == 40_000


def test_dot_quotes_names_and_texts() -> None:
    text = render_dot(picture(job('say "hi"\\N', description="zwei\nZeilen ü"), name='a "b"'))

    assert text.startswith('digraph "a \\"b\\"" {')
    assert '"say \\"hi\\"\\\\N"' in text
    assert 'tooltip="zwei\\nZeilen ü"' in text


def test_dot_fills_a_job_by_its_state() -> None:
    text = render_dot(picture(job("a"), job("b", "a"), states={"a": "finished", "b": "deferred"}))

    assert '"a" [label="a\\nfinished", fillcolor="palegreen", style="filled"];' in text
    assert '"b" [label="b\\ndeferred"];' in text


def test_every_field_of_a_box_that_describes_one_job_is_written() -> None:
    """A new field of `Box` needs a key in the document, or a reason here."""
    not_of_one_job = {"members", "summary", "is_level"}
    said: Mapping[str, object] = {
        "name": "a",
        "level": 1,
        "kind": "run",
        "group": "matrix",
        "is_future": True,
        "is_open": True,
        "is_final": True,
        "approval": True,
        "polls": True,
        "condition": "x",
        "else_of": "b",
        "policy": "run",
        "start_when": "one_success",
        "description": "about",
        "state": "started",
        "how_far": "1/2",
        "note": "attempt 2",
        "reason": "it was lost",
        "counts": (("started", 1), ("finished", 1)),
        "inside": None,
    }
    assert {each.name for each in fields(Box)} - not_of_one_job == set(said)
    box = Box(**said)  # type: ignore[arg-type]  # as the fields are
    assert from_document(to_document(Picture("flow", (box,), ()))).boxes == (box,)


def test_an_approval_is_told_apart_from_a_condition_by_shape() -> None:
    asks = render_svg(picture(job("a", approval=Approval("?"))))
    judges = render_svg(picture(job("a", if_="always()")))

    assert "l10 10v" in asks
    assert 'class="diamond"' in judges
    assert 'class="diamond"' not in asks


def test_a_job_that_an_else_names_says_so_in_each_format() -> None:
    jobs = (job("a", if_="1 > 2", else_=("b",)), job("b"), job("c", "a"))
    picture = draw(build_graph(Workflow("w", jobs)))

    assert [box.else_of for box in picture.boxes] == ["", "a", ""]
    for render in (render_text, render_svg, render_mermaid, render_dot):
        assert "else of a" in render(picture)
