"""The work behind gallery.yaml: photos of a camera that paints, as portable pixmaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 64, 48


def take_photos(folder: str, count: int) -> list[str]:
    """Write the photos, and return their files: how many there are, nobody knew before."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    return [_take(place / f"photo-{number:03}.ppm", number) for number in range(1, count + 1)]


def _take(path: Path, number: int) -> str:
    pixels = bytes(
        value
        for y in range(HEIGHT)
        for x in range(WIDTH)
        for value in (x * 4 % 256, y * 5 % 256, number * 20 % 256)
    )
    path.write_bytes(b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + pixels)
    return str(path)


def shrink(path: str, width: int) -> dict[str, Any]:
    """Write a thumbnail beside a photo; return its file and its size."""
    header, _, pixels = Path(path).read_bytes().partition(b"\n")
    photo_width, photo_height = (int(part) for part in header.split()[1:3])
    step = max(1, photo_width // width)
    rows = [
        pixels[3 * (y * photo_width + x) :][:3]
        for y in range(0, photo_height, step)
        for x in range(0, photo_width, step)
    ]
    size = (len(range(0, photo_width, step)), len(range(0, photo_height, step)))
    target = Path(path).with_suffix(".thumb.ppm")
    target.write_bytes(b"P6 %d %d 255\n" % size + b"".join(rows))
    return {"file": target.name, "width": size[0], "height": size[1]}


def build_page(thumbs: Sequence[dict[str, Any]], folder: str) -> str:
    """Write the page with all thumbnails, in the order of the photos; return its file."""
    page = Path(folder) / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    images = "\n".join(
        f'<img src="photos/{thumb["file"]}" width="{thumb["width"]}" height="{thumb["height"]}">'
        for thumb in thumbs
    )
    page.write_text(f"<h1>{len(thumbs)} photos</h1>\n{images}\n", encoding="utf-8")
    return str(page)


def tell(page: str | None, published: str | None, outcomes: Sequence[dict[str, Any]]) -> str:
    """Say how it went, whatever happened."""
    failed = [outcome["item"] for outcome in outcomes if outcome["status"] != "finished"]
    if page is None:
        return f"no gallery: {len(failed)} of {len(outcomes)} photos have no thumbnail"
    where = published or page
    return f"{len(outcomes)} photos at {where}"
