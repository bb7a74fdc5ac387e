"""Drawings: SVG, PNG and HTML of any graph are readable, safe and quick."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from flowq.cells import count_cells
from flowq.errors import UsageError
from flowq.pictures import layers, layout
from flowq.pictures.folding import MAX_BOXES, WANTED_BOXES, by_level, focus, fold
from flowq.pictures.html import render_html
from flowq.pictures.outline import BETWEEN_BOXES, HEADER, Layout, Outline, Point, Rectangle
from flowq.pictures.picture import Box, Picture
from flowq.pictures.png import render_png
from flowq.pictures.svg import _COLORS_BY_STATE, render_svg
from flowq.spec import Block, ForEach, Workflow
from tests.unit.graphs import SAMPLES, SANDWICH, SCRIPT, chain, job, picture, star

SVG = "{http://www.w3.org/2000/svg}"

LAYOUTS: dict[str, Callable[[Outline], Layout]] = {
    "graphlay": layout.lay_out,
    "ours": layers.lay_out,
}


@cache
def svg_of(name: str) -> str:
    """Return a drawing of a sample."""
    return render_svg(SAMPLES[name]())


@cache
def page_of(name: str) -> str:
    """Return the page of a sample."""
    return render_html(SAMPLES[name]())


def drawn(shown: Picture, place: Callable[[Outline], Layout]) -> tuple[Outline, Layout]:
    """Return what was placed, and where."""
    kept: list[tuple[Outline, Layout]] = []

    def keep(outline: Outline) -> Layout:
        kept.append((outline, place(outline)))
        return kept[-1][1]

    render_svg(shown, keep)
    return kept[0]


# Where things are.


@pytest.mark.parametrize("place", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", SAMPLES)
def test_boxes_are_apart_and_lines_lead_from_box_to_box_and_through_none(
    name: str, place: Callable[[Outline], Layout]
) -> None:
    outline, found = drawn(SAMPLES[name](), place)
    boxes, parents = found.boxes, outline.parents
    for at, box in enumerate(boxes):
        assert -1 < box.x <= box.x + box.width <= found.width + 1
        assert -1 < box.y <= box.y + box.height <= found.height + 1
        assert (box.width, box.height) >= outline.sizes[at]
        if parents[at] is not None:
            assert _is_inside(box, boxes[parents[at]])
        assert not any(
            _overlap(box, other)
            for other, parent in zip(boxes[at + 1 :], parents[at + 1 :], strict=True)
            if parent == parents[at]
        )
    for (source, target), line in zip(outline.edges, found.lines, strict=True):
        assert _is_at_border(line[0], boxes[source])
        assert _is_at_border(line[-1], boxes[target])
        around = _ancestors(parents, source)
        assert not [
            at
            for at, box in enumerate(boxes)
            if at not in around | {source, target} and _runs_through(line, box)
        ]


def _ancestors(parents: object, box: int) -> set[int]:
    found: set[int] = set()
    parent = parents[box]  # type: ignore[index]  # a sequence
    while parent is not None:
        found.add(parent)
        parent = parents[parent]  # type: ignore[index]
    return found


def _is_inside(box: Rectangle, around: Rectangle) -> bool:
    return (
        around.x < box.x
        and around.y + HEADER < box.y
        and box.x + box.width < around.x + around.width
        and box.y + box.height < around.y + around.height
    )


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def _is_at_border(point: Point, box: Rectangle) -> bool:
    x, y = point
    at_side = min(abs(x - box.x), abs(x - box.x - box.width)) < 1
    at_end = min(abs(y - box.y), abs(y - box.y - box.height)) < 1
    is_along = box.x - 1 < x < box.x + box.width + 1 and box.y - 1 < y < box.y + box.height + 1
    return is_along and (at_side or at_end)


def _runs_through(line: tuple[Point, ...], box: Rectangle) -> bool:
    """Whether a point of the line, looked at every few pixels, is well within the box."""
    for (x0, y0), (x1, y1) in pairwise(line):
        steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / 4))
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            if box.x + 2 < x < box.x + box.width - 2 and box.y + 2 < y < box.y + box.height - 2:
                return True
    return False


def test_a_missing_or_hanging_graphlay_is_answered_by_our_own_layout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outline = Outline([(80, 40), (80, 40)], [None, None], [(0, 1)])
    ours = layers.lay_out(outline)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert layout.lay_out(outline) == ours
    for script in ("exit 3", "echo '{}'", "echo no JSON", "exec sleep 600"):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr(layout, "LIMIT_S", 0.3)
        assert layout.lay_out(outline) == ours, script


def test_nested_workflows_side_by_side_have_room_between_them() -> None:
    inner = Workflow("inner", (job("x"), job("y", "x")))
    shown = picture(
        job("first"),
        job("one", "first", workflow="inner"),
        job("many", "first", workflow="inner", for_each=ForEach([1, 2])),
        job("last", "one", "many"),
        workflows={"inner": inner},
    )
    outline, found = drawn(shown, layout.lay_out)
    one, many = sorted((found.boxes[at] for at in {*outline.parents} - {None}), key=lambda b: b.y)
    assert many.y - one.y - one.height >= BETWEEN_BOXES / 2


@pytest.mark.parametrize("name", SAMPLES)
def test_a_picture_of_any_graph_is_drawn_in_a_moment(name: str) -> None:
    """Seconds of this process, which others cannot slow down; graphlay has a limit of its own."""
    shown = SAMPLES[name]()
    began = time.process_time()
    render_svg(shown)
    assert time.process_time() - began < 2


# Folding.


def test_a_large_graph_has_few_boxes_and_each_job_is_in_one() -> None:
    for name, make in SAMPLES.items():
        shown = make()
        folded = fold(shown, WANTED_BOXES, MAX_BOXES)
        assert len(folded.boxes) <= MAX_BOXES, name
        inside = [each.name for box in folded.boxes for each in box.members or (box,)]
        assert sorted(inside) == sorted(box.name for box in shown.boxes), name
        levels = {box.name: box.level for box in folded.boxes}
        assert all(levels[each.blocker] < levels[each.future] for each in folded.arrows), name


def test_twins_and_chains_are_folded_where_there_are_many() -> None:
    names = [box.name for box in fold(star(2000), 60, 150).boxes]
    assert names == ["b0 and 1,999 more", "join"]
    folded = fold(chain(2000), 60, 150)
    assert [box.name for box in folded.boxes] == ["j0", "j1 … j1998", "j1999"]
    assert folded.boxes[1].words == ("1,998 jobs in a row",)
    assert fold(chain(60), 60, 150) == chain(60)


def test_jobs_that_look_different_or_are_waited_for_differently_are_no_twins() -> None:
    plain = [job(f"p{i}", blocks=(Block("z"),)) for i in range(30)]
    ignored = [job(f"i{i}", blocks=(Block("z", "ignore"),)) for i in range(30)]
    judged = [job(f"c{i}", blocks=(Block("z"),), if_="always()") for i in range(30)]
    folded = fold(picture(*plain, *ignored, *judged, job("z")), 60, 150)
    assert [box.name for box in folded.boxes] == [
        "p0 and 29 more",
        "i0 and 29 more",
        "c0 and 29 more",
        "z",
    ]
    assert [arrow.word for arrow in folded.arrows] == ["", "ignore", ""]


def test_the_states_of_folded_jobs_are_counted() -> None:
    jobs = [job(f"b{i}") for i in range(100)]
    states = {each.name: "finished" for each in jobs} | {"b7": "failed", "join": "deferred"}
    shown = picture(*jobs, job("join", *(each.name for each in jobs)), states=states)
    (stack, _) = fold(shown, 60, 150).boxes
    assert stack.words == ("100 jobs", "1 failed", "99 finished")
    assert stack.state == "failed"


def test_above_the_limit_levels_are_drawn_below_each_other() -> None:
    svg = svg_of("2,000 jobs")
    texts = [each.text for each in ET.fromstring(svg).iter(f"{SVG}text")]
    assert texts[:2] == ["level 1", "166 jobs: l0_0, l0_1, l0_2, l0_3, …"]
    assert len(texts) == 24
    assert [box.name for box in by_level(chain(2000), 40).boxes][:2] == [
        "levels 1–50",
        "levels 51–100",
    ]


def test_focus_shows_what_is_near_a_job_and_counts_the_rest() -> None:
    shown = focus(chain(100), "j50")
    assert [box.name for box in shown.boxes] == [
        "48 jobs further before",
        "j48",
        "j49",
        "j50",
        "j51",
        "j52",
        "47 jobs further after",
    ]
    assert [box.name for box in focus(chain(4), "j0").boxes] == ["j0", "j1", "j2", "j3"]
    shown = focus(picture(*SANDWICH, job("other")), "butter")
    assert [box.name for box in shown.boxes] == ["cut_bread", "butter", "serve"]
    with pytest.raises(UsageError, match="no job 'buter'; did you mean 'butter'"):
        focus(picture(*SANDWICH), "buter")


def test_focus_of_any_job_of_a_large_graph_is_a_graph_without_circles() -> None:
    shown = SAMPLES["300 jobs"]()
    for box in shown.boxes[::17]:
        near = focus(shown, box.name)
        levels = {each.name: each.level for each in near.boxes}
        assert all(levels[each.blocker] < levels[each.future] for each in near.arrows)
        assert box.name in levels


# SVG and HTML.


def test_a_drawing_is_xml_without_scripts_or_references_whatever_the_names() -> None:
    for name in SAMPLES:
        for page in (svg_of(name), page_of(name)):
            assert "<script" not in page, name
            assert "<img" not in page, name
            page.encode()
        root = ET.fromstring(svg_of(name))
        written = {key for each in root.iter() for key in each.attrib}
        assert not {key for key in written if "href" in key or key.startswith("on")}
        assert root.tag == f"{SVG}svg"


def test_hostile_texts_are_shown_as_they_are_or_spelled() -> None:
    texts = [each.text or "" for each in ET.fromstring(svg_of("hostile")).iter()]
    assert SCRIPT in texts
    assert "数据处理流水线" in texts
    assert "عنوان_التقرير" in texts
    assert r"\x1b[31m\u202eevil\x00" in texts
    long = next(text for text in texts if text.endswith("n…"))
    assert count_cells(long) <= 34
    assert "n" * 200 in texts


def test_a_text_is_no_wider_than_its_box() -> None:
    for name in SAMPLES:
        for group in ET.fromstring(svg_of(name)).iter(f"{SVG}g"):
            shapes = [each for each in group if each.tag == f"{SVG}rect" and "width" in each.attrib]
            for text in group.findall(f"{SVG}text"):
                if shapes and text.get("class") != "policy":
                    size = 11 if text.get("class") == "words" else 13
                    needs = count_cells(text.text or "") * 0.602 * size
                    assert needs < float(shapes[-1].get("width", 0)), (name, text.text)


def test_states_are_said_by_a_mark_a_word_and_a_colour_in_both_schemes() -> None:
    shown = picture(*SANDWICH[:2], states={"cut_bread": "finished", "marmalade": "expired"})
    svg = render_svg(shown)
    assert ">✓ cut_bread<" in svg
    assert ">expired<" in svg
    light, dark = svg.split("@media (prefers-color-scheme:dark)")
    for scheme in (light, dark):
        assert ".finished .box{fill:" in scheme
        assert ".failed .box{fill:" in scheme
    assert svg.count('<g class="failed">') == 1


def test_texts_stand_out_from_every_colour_behind_them() -> None:
    """The contrast that WCAG AA asks for, in both schemes."""
    for fill, _, dark_fill, _ in _COLORS_BY_STATE.values():
        for text, behind in (
            *(("#1f2328", fill), ("#57606a", fill)),
            *(("#e6edf3", dark_fill), ("#9da7b3", dark_fill)),
        ):
            bright, dark = sorted((_luminance(text), _luminance(behind)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, behind)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_same_workflow_is_the_same_picture_in_every_process() -> None:
    code = (
        "from tests.unit.graphs import SAMPLES\n"
        "from flowq.pictures.layers import lay_out\n"
        "from flowq.pictures.svg import _COLORS_BY_STATE, render_svg\n"
        "for name in ('kinds', '40 jobs', '300 jobs'): print(render_svg(SAMPLES[name](), lay_out))"
    )
    drawings = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(drawings) == 1


def test_where_many_failures_are_ignored_three_edges_say_so_and_all_are_dashed() -> None:
    checks = [job(f"c{i}", blocks=(Block("z", "ignore"),)) for i in range(8)]
    svg = render_svg(picture(*checks, job("z")))
    assert svg.count(">ignore</text>") == 3
    assert svg.count('class="line ignore"') == 8


def test_every_job_and_edge_of_a_small_graph_is_in_the_drawing() -> None:
    shown = SAMPLES["40 jobs"]()
    root = ET.fromstring(svg_of("40 jobs"))
    titles = {each.text for each in root.iter(f"{SVG}title")}
    assert {box.name for box in shown.boxes} <= titles
    assert {f"{arrow.blocker} → {arrow.future}" for arrow in shown.arrows} <= titles


def test_a_page_has_the_drawing_the_jobs_as_a_table_and_nested_workflows_to_open() -> None:
    page = page_of("kinds")
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "<details><summary>workflow ship: 2 jobs, 1 edge</summary>" in page
    cells = ("workflow of 2 jobs, if", "<bdi>ask</bdi>", "if inputs.publish")
    row = '<th scope="row">publish</th>' + "".join(f"<td>{cell}</td>" for cell in cells)
    assert row in page
    assert "<bdi>test</bdi> (ignore)" in page
    assert "default-src 'none'" in page


def test_a_page_stays_small() -> None:
    for name in SAMPLES:
        assert len(page_of(name)) < 600_000, name


# PNG.


def test_a_png_has_its_texts_without_any_font_of_the_system() -> None:
    pytest.importorskip("resvg_py")
    shown = picture(job("cut_bread"), job("serve", "cut_bread", deferred=True))
    outline, found = drawn(shown, layers.lay_out)
    pixels, width = _read_png(render_png(shown)[0])
    for box in drawn(shown, layout.lay_out)[1].boxes:
        rows = range(int(2 * (box.y + 20 + 6)), int(2 * (box.y + 20 + box.height - 6)))
        columns = range(int(2 * (box.x + 20 + 8)), int(2 * (box.x + 20 + box.width - 8)))
        dark = sum(pixels[(row * width + column) * 4] < 100 for row in rows for column in columns)
        assert dark > 300
    assert outline.edges == [(0, 1)]
    assert len(found.boxes) == 2


def test_characters_that_no_font_has_are_boxes_in_a_png_and_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("resvg_py")
    strange = "\U0010fffd"  # for private use: no font has it
    shown = Picture("", (Box(f"a{strange}"), Box("é▶○")), ())
    png, missing = render_png(shown)
    assert missing == strange
    assert render_png(replace(shown, boxes=shown.boxes[1:]))[1] == "", "our font has these"
    assert capfd.readouterr() == ("", ""), "what resvg prints is not printed"
    plain = render_png(replace(shown, boxes=(Box("a\u00a0"), *shown.boxes[1:])))[0]
    assert len(png) > len(plain), "something is drawn for it"


def test_a_png_is_no_larger_than_can_be_shown() -> None:
    pytest.importorskip("resvg_py")
    for name in ("chain of 60", "200 to 200", "40 deep"):
        width, height = struct.unpack(">II", render_png(SAMPLES[name]())[0][16:24])
        assert max(width, height) <= 8_000


def _read_png(data: bytes) -> tuple[bytearray, int]:
    """Return the pixels of a PNG with red, green, blue and alpha, and its width."""
    width, height, depth, color = struct.unpack(">IIBB", data[16:26])
    assert (depth, color) == (8, 6)
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(packed), width * 4
    pixels = bytearray()
    above = bytes(stride)
    for row in range(height):
        kind, line = raw[row * (stride + 1)], bytearray(raw[row * (stride + 1) + 1 :][:stride])
        for index in range(stride):
            left = line[index - 4] if index >= 4 else 0
            upper = above[index - 4] if index >= 4 else 0
            line[index] = (line[index] + _predict(kind, left, above[index], upper)) & 255
        pixels += line
        above = bytes(line)
    return pixels, width


def _predict(kind: int, left: int, above: int, upper_left: int) -> int:
    if kind == 3:
        return (left + above) // 2
    if kind == 4:
        guess = left + above - upper_left
        return min((left, above, upper_left), key=lambda each: abs(guess - each))
    return (0, left, above)[kind]


def test_without_resvg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UsageError, match=r"pip install 'rq-flowq\[png\]'"):
        render_png(picture(job("a")))


def test_the_font_has_every_character_that_we_draw() -> None:
    """Marks of states and of text that is cut; what is missing would be an empty box."""
    folder = Path(layout.__file__).parent / "font"
    assert "Bitstream" in (folder / "LICENSE").read_text()
    code = (folder / "DejaVuSansMono-flowq.ttf").read_bytes()
    assert len(code) < 100_000


def test_drawing_loads_no_library_into_this_process() -> None:
    code = (
        "import sys\n"
        "from flowq.pictures import dot, html, mermaid, svg, text, png, picture\n"
        "print(*sorted({'graphlay', 'resvg_py', 'networkx', 'rq', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert re.fullmatch(r"\s*", done.stderr)
