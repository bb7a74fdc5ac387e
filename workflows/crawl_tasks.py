"""The work behind crawl.yaml: a site that is made up as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LINKS_PER_PAGE = 3


def read_page(path: str, size: int) -> dict[str, Any]:
    """Return a page of the site: its title, and the paths of the pages that it links to."""
    number = int(path.strip("/") or 0)
    below = (number * LINKS_PER_PAGE + offset + 1 for offset in range(LINKS_PER_PAGE))
    links = [f"/{other}" for other in below if other < size]
    return {"path": path, "title": f"Page {number}", "links": [*links, "/"]}


def draw_map(pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many pages and links there are, and the pages that link nowhere further."""
    leaves = sorted(page["path"] for page in pages if page["links"] == ["/"])
    return {
        "pages": len(pages),
        "links": sum(len(page["links"]) for page in pages),
        "leaves": len(leaves),
    }
