"""Responses with JSON, which has one form: that of the commands (`flowq.render.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from flowq.render.json import write_json


def as_json(document: Mapping[str, Any], status_code: int = 200) -> Response:
    """Return a document as a response."""
    text = write_json(document, indent=None) + "\n"
    return Response(
        text.encode("utf-8", "backslashreplace"), status_code, media_type="application/json"
    )


def find_path(scope: Scope) -> str:
    """Return the path of a request below the prefix of the page (`root_path`)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    is_below = root and path.startswith(root) and (not below or below.startswith("/"))
    return (below or "/") if is_below else path
