"""Responses with JSON, which has one form: that of the commands (`flowq.render.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from flowq.render.json import write_json


def as_json(document: Mapping[str, Any], status_code: int = 200) -> Response:
    """Return a document as a response."""
    text = write_json(document, indent=None) + "\n"
    return Response(
        text.encode("utf-8", "backslashreplace"), status_code, media_type="application/json"
    )
