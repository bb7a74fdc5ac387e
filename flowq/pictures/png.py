"""A picture as PNG: the SVG, drawn by resvg with a font that comes with flowq.

resvg leaves out all text, without an error, where it finds no font. So the font is ours, and those
of the system are only asked for characters that it lacks.
"""

from __future__ import annotations

import re
from pathlib import Path

from flowq.errors import UsageError
from flowq.pictures.picture import Picture
from flowq.pictures.svg import FONT, render_svg

_FONT_FILE = Path(__file__).parent / "font" / "DejaVuSansMono-flowq.ttf"

_MAX_PIXELS = 8_000
_ZOOM = 2.0

_BEYOND_OUR_FONT = re.compile("[^\x00-\u017f\u0370-\u045f\u2010-\u203a\u2190-\u2199\u2500-\u25ff]")
"""Where a character outside these ranges is in our font, the system's fonts only cost time."""


def render_png(picture: Picture) -> bytes:
    """Return a picture as a PNG file. Errors: UsageError where resvg is not installed."""
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError(
            "PNG needs resvg: pip install 'rq-flowq[png]'; SVG and HTML need nothing"
        ) from None
    svg = render_svg(picture)
    width, height = map(int, re.findall(r'(?:width|height)="(\d+)"', svg)[:2])
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=min(_ZOOM, _MAX_PIXELS / max(width, height)),
            font_files=[str(_FONT_FILE)],
            font_family=FONT,
            monospace_family=FONT,
            skip_system_fonts=not _BEYOND_OUR_FONT.search(svg),
        )
    )
