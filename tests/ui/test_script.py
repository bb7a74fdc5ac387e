"""The script of the page, as far as it can be read without a browser (`browser/` runs it)."""

from __future__ import annotations

import re
from importlib.resources import files

from flowq.status import BUSY, ENDED
from flowq.ui.looks import glyph

SCRIPT = files("flowq.ui").joinpath("static", "flowq.js").read_text("utf-8")


def test_the_script_is_small():
    assert len(SCRIPT.encode()) < 20_000


def test_the_script_writes_text_as_text_and_evaluates_nothing():
    banned = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc|\.style\b"
    )
    assert not re.findall(banned, SCRIPT)


def test_the_script_loads_nothing_from_elsewhere():
    assert not re.findall(r"\bimport\b|https?://(?!www\.w3\.org/2000/svg)", SCRIPT)


def test_the_script_has_the_glyphs_of_the_pages():
    table = SCRIPT[SCRIPT.index("const GLYPHS") : SCRIPT.index("};")]
    found = dict(re.findall(r'(\w+): "(.)"', table))

    assert found == {state: glyph(state) for state in found}
    runs = {"staged", "running", "waiting", "succeeded", "failed", "canceled"}
    assert {*BUSY, *ENDED, "deferred", "tolerated", *runs} == {*found}
