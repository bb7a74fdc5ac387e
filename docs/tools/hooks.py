"""What MkDocs has to know about this repository: which pages outside docs/ belong to the site.

README.md is its first page. Links are written for readers of the repository, from file to file.
Those that leave docs/ are turned into links of the site here, or into plain text where the site has
no such page. `mkdocs build` calls the functions `on_…`.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGE_BY_FILE = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are above docs/."""
    for file, page in PAGE_BY_FILE.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change the links of a page from places in the repository to places on the site."""
    uri = page.file.src_uri
    file = next((f for f, p in PAGE_BY_FILE.items() if p == uri), f"docs/{uri}")

    def rewrite(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups("")
        if ":" in target:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        there = (
            place.removeprefix("docs/") if place.startswith("docs/") else PAGE_BY_FILE.get(place)
        )
        if there is None:
            return text
        return f"{mark}[{text}]({os.path.relpath(there, posixpath.dirname(uri) or '.')}{anchor})"

    return _LINK.sub(rewrite, markdown)
