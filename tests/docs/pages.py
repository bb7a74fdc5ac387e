"""The pages of the documentation, and the code blocks in them.

A comment in front of a block, which readers do not see, says what the tests cannot know:

    <!-- fragment: a part of the workflow above -->   it is read, but neither checked alone nor run
    <!-- not run: needs Docker -->                    its commands are not run; their options exist

The first line of a block may name a file: `# gallery.yaml`, or `# gallery.yaml: thumbnails`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PLAYED = ("tutorial", "how-to")
"""The folders whose pages are played: every block is run, in order, as a reader would."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>fragment|not run)(?:: (?P<reason>[^\n]*?))? -->\n+)?"
    r"^```(?P<language>[\w-]*)(?P<judgement> wrong| right)?[^\n]*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"# ([\w./-]+\.\w+)(?::|$)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One code block, and where its text begins in the page."""

    page: Path
    line: int
    start: int
    language: str
    text: str
    mark: str = ""
    judgement: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that its first line names; empty for none."""
        found = _FILE.match(self.text)
        return found[1] if found else ""


def find_pages() -> list[Path]:
    """Return the pages that readers see, on the site or in the repository."""
    above = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*above, *sorted(DOCS.rglob("*.md"))]


def is_played(page: Path) -> bool:
    return page.parent.parent == DOCS and page.parent.name in PLAYED


@cache
def read_blocks(page: Path) -> tuple[Block, ...]:
    """Return the blocks of a page, in order."""
    return tuple(_find_blocks(page, page.read_text("utf-8")))


def _find_blocks(page: Path, text: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        start = found.start("text")
        yield Block(
            page,
            text.count("\n", 0, start) + 1,
            start,
            found["language"],
            found["text"],
            found["mark"] or "",
            (found["judgement"] or "").strip(),
        )
