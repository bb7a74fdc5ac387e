"""Responses with JSON, which has one form: that of the commands (`flowq.render.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from flowq.errors import FlowqError, WorkflowInvalid
from flowq.render.json import error_document, write_json


def as_json(document: Mapping[str, Any], status_code: int = 200) -> Response:
    """Return a document as a response."""
    text = write_json(document, indent=None) + "\n"
    return Response(
        text.encode("utf-8", "backslashreplace"), status_code, media_type="application/json"
    )


def refusal_document(error: FlowqError) -> dict[str, Any]:
    """Return an error as commands print it, but of inputs without what only commands know.

    That are options, and places in files. Its `problems` name the inputs that they are about.
    """
    invalid = error if isinstance(error, WorkflowInvalid) else error.__cause__
    if not isinstance(invalid, WorkflowInvalid):
        return error_document(error)
    problems = [replace(each, hint="") if each.input else each for each in invalid.problems]
    document = error_document(WorkflowInvalid(problems))
    document["error"] |= {
        "type": type(error).__name__,
        "exit_code": error.exit_code,
        "message": "\n".join(each.message if each.input else str(each) for each in problems),
    }
    return document


def find_path(scope: Scope) -> str:
    """Return the path of a request below the prefix of the page (`root_path`)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    is_below = root and path.startswith(root) and (not below or below.startswith("/"))
    return (below or "/") if is_below else path
