"""Which function of `mark.py` the blockers call, as every declaring process is told."""

from __future__ import annotations

import base64
import os
from typing import Any, NamedTuple


class Body(NamedTuple):
    """Which function of `mark.py` the blockers call, and with what."""

    name: str
    arguments: tuple[Any, ...]


def read_body(text: str) -> Body:
    """Return what `nothing`, `spin:10` (ms) or `take:100000` (bytes that do not compress) mean."""
    name, _, number = text.partition(":")
    if name == "take":
        return Body(name, (base64.b64encode(os.urandom(int(number) * 3 // 4)).decode(),))
    return Body(name, (float(number),) if number else ())
