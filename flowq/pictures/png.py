"""A picture as PNG: the SVG, drawn by resvg with a font that comes with flowq.

resvg leaves out all text, without an error, where it finds no font. So the font is ours, and those
of the system are only asked for characters that it lacks.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowq.errors import UsageError
from flowq.pictures.picture import Picture
from flowq.pictures.svg import FONT, render_svg

_FONT_FILE = Path(__file__).parent / "font" / "DejaVuSansMono-flowq.ttf"

_MAX_PIXELS = 8_000
_ZOOM = 2.0

_BEYOND_OUR_FONT = re.compile("[^\x00-\u017f\u0370-\u045f\u2010-\u203a\u2190-\u2199\u2500-\u25ff]")
"""Where a character outside these ranges is in our font, the system's fonts only cost time."""


def render_png(picture: Picture) -> tuple[bytes, str]:
    """Return a picture as a PNG file, and the characters that no font has: they are boxes in it.

    Errors: UsageError where resvg is not installed.
    """
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError(
            "PNG needs resvg: pip install 'rq-flowq[png]'; SVG and HTML need nothing"
        ) from None
    svg = render_svg(picture)
    width, height = map(int, re.findall(r'(?:width|height)="(\d+)"', svg)[:2])
    needs_others = bool(_BEYOND_OUR_FONT.search(svg))
    with _told() as told:  # in each call: once asked, resvg logs in all later ones
        png = resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=min(_ZOOM, _MAX_PIXELS / max(width, height)),
            font_files=[str(_FONT_FILE)],
            font_family=FONT,
            monospace_family=FONT,
            skip_system_fonts=not needs_others,
            log_information=needs_others,
        )
    return bytes(png), "".join(dict.fromkeys(_MISSING.findall("".join(told))))


_MISSING = re.compile("No fonts with a (.)/U")
_STDOUT = 1


@contextmanager
def _told() -> Iterator[list[str]]:
    """Collect what resvg logs: it writes to descriptor 1 of the process, and raises nothing."""
    told: list[str] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(_STDOUT)
        os.dup2(file.fileno(), _STDOUT)
        try:
            yield told
        finally:
            os.dup2(kept, _STDOUT)
            os.close(kept)
        file.seek(0)
        told.append(file.read().decode("utf-8", "replace"))
