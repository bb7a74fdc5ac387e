"""The tutorial and the how-tos do what they show: every block of them runs, in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import Block, find_pages, is_played, read_blocks
from tests.docs.playing import IS_REWRITING, Reader

PAGES = [page for page in find_pages() if is_played(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_does_what_it_shows(page: Path, reader_of: Callable[[Path], Reader]) -> None:
    blocks = read_blocks(page)
    reader = reader_of(page) if blocks else None
    for block in blocks:
        assert reader is not None
        reader.play(block)
    if reader is not None:
        _check_workflows(reader, "".join(block.text for block in blocks))
        if IS_REWRITING:
            _rewrite(page, reader.rewritten)


def _check_workflows(reader: Reader, shown: str) -> None:
    """Check each workflow of the page that the page does not check itself."""
    unchecked = [n for n in reader.workflows if not re.search(rf"flowq check.* {n}", shown)]
    if unchecked:
        code, printed = reader.run(f"flowq check {' '.join(unchecked)}")
        assert code == 0, "\n".join(printed)


def _rewrite(page: Path, texts: dict[Block, str]) -> None:
    text = page.read_text("utf-8")
    for block in sorted(texts, key=lambda each: -each.start):
        head, rest = text[: block.start], text[block.start + len(block.text) :]
        text = head + texts[block] + rest
    page.write_text(text, "utf-8")
