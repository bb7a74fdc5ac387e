"""The description of the HTTP API (OpenAPI 3.1), made from one table.

The documents are those of `flowq/render/output.schema.json`: what commands print with `--json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flowq._version import __version__
from flowq.render.json import load_schema


@dataclass(frozen=True, slots=True)
class Operation:
    """A route. `document` is a definition of the schema, or a media type that is no JSON.

    Shape: `query` has schemas with a description, by name; `body` those of the fields of the body,
    of which `required` must be there.
    """

    method: str
    path: str
    summary: str
    document: str
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    body: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    code: int = 200


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _number(description: str, default: int, least: int = 1) -> dict[str, Any]:
    return {"type": "integer", "description": description, "default": default, "minimum": least}


_TRUTH = {"type": "boolean", "default": False}
_NESTED = {"nested": {**_TRUTH, "description": "Also the jobs of nested workflows."}}
_INPUTS = {"type": "object", "description": "Values by name; others have their defaults."}
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_HOLD = {**_TRUTH, "description": "Start nothing before the run is released."}
_NOTE = {"type": "string", "maxLength": 4000}
_LIMIT = _number("At most so many, up to 1,000.", 100)
_ABOUT = """\
Runs, jobs and workers of flowq, and what changes them. Documents are those that the commands print
with `--json`. Send the token of the page as `Authorization: Bearer TOKEN`. The body of a POST is a
JSON object, also an empty one."""
RUN, JOB = "/api/runs/{run}", "/api/runs/{run}/jobs/{job}"

OPERATIONS = (
    Operation(
        "get",
        "/api/runs",
        "List runs, the newest first, page by page (flowq runs).",
        "runs",
        {
            "state": _text("Only runs in this state."),
            "workflow": _text("Only runs of the workflow with this name."),
            "label": _text("Only runs with this label, NAME=VALUE; may be repeated."),
            "since": _text("Only runs that were submitted since this instant (ISO 8601)."),
            "text": _text("Only runs with this text in their id, workflow, labels or inputs."),
            "limit": _number("At most so many, up to 1,000.", 50),
            "after": _text("The `after` of the previous page."),
        },
    ),
    Operation("get", RUN, "Show a run and its jobs (flowq show RUN).", "run", _NESTED),
    Operation(
        "get", f"{RUN}/graph.json", "The jobs and edges of a run (flowq graph --run).", "graph"
    ),
    Operation("get", f"{RUN}/graph.svg", "A drawing of a run.", "image/svg+xml"),
    Operation(
        "get",
        f"{RUN}/events",
        "Follow a run: server-sent events with counts and failures. `Last-Event-ID` resumes.",
        "text/event-stream",
        {"after": _text("The position that a page shows: later changes are sent.")},
    ),
    Operation("get", f"{RUN}/explain", "Why jobs have not run (flowq explain RUN).", "explain"),
    Operation(
        "get",
        JOB,
        "Show a job, an item or a group (flowq show RUN JOB).",
        "show_job",
        {
            **_NESTED,
            "state": _text("Of a group: list the items in this state, page by page."),
            "after": _text("With `state`: those behind the item with this name."),
            "limit": _LIMIT,
        },
    ),
    Operation(
        "get",
        f"{JOB}/log",
        "What a job has printed, from a byte on; ask again from `next`.",
        "log",
        {
            "from": _number("The first byte.", 0, 0),
            "attempt": _number("The number of the attempt; by default the newest.", 1),
        },
    ),
    Operation("get", f"{JOB}/explain", "Why a job has not run (flowq explain RUN JOB).", "explain"),
    Operation(
        "get",
        "/api/now",
        "The jobs that are being executed (flowq wip).",
        "wip",
        {"queue": _text("Only those of this queue; may be repeated."), "limit": _LIMIT},
    ),
    Operation("get", "/api/workers", "The workers of the server (flowq workers).", "workers"),
    Operation("get", "/api/schedules", "What runs are due (flowq schedule --list).", "schedules"),
    Operation("get", "/api/workflows", "The workflows that may be submitted.", "workflows"),
    Operation("get", "/api/openapi.json", "This description.", "application/json"),
    Operation(
        "post",
        "/api/runs",
        "Submit a run of one of `/api/workflows`, by its name.",
        "acted",
        body={
            "workflow": {"type": "string"},
            "inputs": _INPUTS,
            "labels": {**_LABELS, "description": "Added to those of the workflow."},
            "hold": _HOLD,
        },
        required=("workflow",),
        code=201,
    ),
    Operation(
        "post",
        f"{RUN}/cancel",
        "Cancel a run.",
        "acted",
        body={"now": {**_TRUTH, "description": "Cancel the jobs under `finally` as well."}},
    ),
    Operation("post", f"{RUN}/release", "Release a run that is held.", "acted"),
    Operation("post", f"{RUN}/retry", "Run again what did not succeed.", "acted"),
    Operation(
        "post",
        f"{RUN}/again",
        "Submit a run's workflow once more, as the run keeps it, with these inputs.",
        "acted",
        body={
            "inputs": _INPUTS,
            "labels": {**_LABELS, "description": "Instead of those that were added to that run."},
            "hold": _HOLD,
        },
        code=201,
    ),
    Operation("post", f"{JOB}/retry", "Run a job again, and everything after it.", "acted"),
    Operation(
        "post",
        f"{JOB}/approve",
        "Approve a job that waits for approval.",
        "acted",
        body={"inputs": _INPUTS, "note": _NOTE},
    ),
    Operation(
        "post",
        f"{JOB}/reject",
        "Reject a job that waits for approval.",
        "acted",
        body={"reason": _NOTE},
    ),
)

_ERRORS = {
    400: "The request is not valid.",
    401: "The token is missing or wrong.",
    403: "Another site has sent this, or nobody authorized the sender.",
    404: "There is no such run, job or workflow.",
    409: "The state of the run or job does not allow it.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    503: "The server of the runs is away, or there are too many requests. Ask again.",
}
_PARAMETERS = {
    "run": "The id of a run.",
    "job": "The name of a job; of an item `thumb[3]`, of a job in a nested workflow `pack.cut`.",
}


def make_openapi(root: str, *, is_read_only: bool) -> dict[str, Any]:
    """Return the description of the API below a prefix."""
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        if each.method == "get" or not is_read_only:
            paths.setdefault(each.path, {})[each.method] = _describe(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "flowq", "version": __version__, "description": _ABOUT},
        "servers": [{"url": root or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _read_schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(each: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": each.summary,
        "parameters": list(_list_parameters(each)),
        "responses": {str(each.code): _reply(each)} | _describe_errors(each),
    }
    if each.method == "post":
        schema = {
            "type": "object",
            "properties": dict(each.body),
            "required": list(each.required),
            "additionalProperties": False,
        }
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _list_parameters(each: Operation) -> Iterator[dict[str, Any]]:
    for name, meaning in _PARAMETERS.items():
        if f"{{{name}}}" in each.path:
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": meaning,
                "schema": {"type": "string"},
            }
    for name, schema in each.query.items():
        yield {"name": name, "in": "query", "schema": dict(schema)}


def _reply(each: Operation) -> dict[str, Any]:
    if "/" in each.document:
        content: dict[str, Any] = {each.document: {}}
    else:
        reference = {"$ref": f"#/components/schemas/{each.document}"}
        content = {"application/json": {"schema": reference}}
    return {"description": each.summary, "content": content}


def _describe_errors(each: Operation) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/failure"}}}
    only_acts = (409, 413, 415)
    return {
        str(code): {"description": meaning, "content": content}
        for code, meaning in _ERRORS.items()
        if each.method == "post" or code not in only_acts
    }


@cache
def _read_schemas() -> dict[str, Any]:
    """Return the definitions of the schema of all documents, with references from here."""
    text = json.dumps(load_schema()["$defs"]).replace('"#/$defs/', '"#/components/schemas/')
    schemas: dict[str, Any] = json.loads(text)
    return schemas
