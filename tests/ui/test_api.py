"""The HTTP API: each route is described, and replies what its description says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from redis import Redis
from starlette.routing import Route
from starlette.testclient import TestClient

import flowq.ui
from flowq.client import get_run
from flowq.documents import job_json, run_json
from flowq.metrics import CONTENT_TYPE
from flowq.runtime.printed import Printed
from flowq.spec import Approval
from flowq.ui import acts, endpoints, live
from flowq.ui.endpoints import _read_text
from flowq.ui.openapi import OPERATIONS, make_openapi
from flowq.ui.turns import Turns
from tests.cli.test_cli_json import STRICT
from tests.runtime.language import RUN, Runs, each, job
from tests.ui.test_acts import HELLO, open_page

GET = tuple(operation.path for operation in OPERATIONS if operation.method == "get")
BODIES = {
    "/api/runs": {"workflow": "hello", "inputs": {"who": "x"}},
    "again": {"inputs": {"who": "y"}},
    "approve": {"note": "seen"},
    "reject": {"reason": "red"},
}


def check(document: dict[str, Any], definition: str) -> None:
    """Hold a document to a definition, with no key that is not described."""
    Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": STRICT["$defs"]}).validate(
        document
    )


@pytest.fixture
def program(connection: Redis, tmp_path: Path, work: Callable[..., None]) -> TestClient:
    """A program that reads a run which waits for an approval, and has failed in between."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    Runs(connection).submit(
        job("bad", "fail"),
        job("many", "square", for_each=each([1, 2, 3]), with_={"number": "${{ item }}"}),
        job("ask", "square", with_={"number": 2}, approval=Approval("go?")),
        inputs={},
    )
    work()
    return open_page(connection, workflows=tmp_path)


def test_every_route_of_the_api_is_described_and_no_other():
    routes = (*endpoints.ROUTES, *acts.ROUTES, *live.ROUTES)
    there = {
        (method.lower(), re.sub(r":\w+}", "}", route.path))
        for route in routes
        if isinstance(route, Route) and route.path.startswith("/api/")
        for method in (route.methods or ()) - {"HEAD"}
    }

    assert {(each.method, each.path) for each in OPERATIONS} == there


def test_the_description_is_whole():
    described = make_openapi("/jobs", is_read_only=False)

    def find_references(part: Any) -> Iterator[str]:
        for value in part.values() if isinstance(part, dict) else part:
            if isinstance(value, dict | list):
                yield from find_references(value)
        if isinstance(part, dict) and isinstance(part.get("$ref"), str):
            yield part["$ref"]

    schemas = described["components"]["schemas"]
    for reference in find_references(described):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert (described["openapi"], described["servers"]) == ("3.1.0", [{"url": "/jobs"}])


@pytest.mark.parametrize("path", [path for path in GET if not path.endswith("/events")])
def test_what_is_read_is_as_described(program: TestClient, path: str):
    (operation,) = (each for each in OPERATIONS if (each.method, each.path) == ("get", path))

    reply = program.get(path.format(run=RUN, job="bad"))

    assert reply.status_code == 200
    if "/" in operation.document:
        assert reply.headers["content-type"].split(";")[0] == operation.document
    else:
        assert reply.headers["content-type"] == "application/json"
        check(reply.json(), operation.document)


@pytest.mark.parametrize("path", [each.path for each in OPERATIONS if each.method == "post"])
def test_what_acts_reply_is_as_described(program: TestClient, path: str):
    verb = path.rpartition("/")[2]
    job = "bad" if verb == "retry" else "ask"

    if verb == "retry":
        program.post(f"/api/runs/{RUN}/cancel", json={"now": True})
    run = RUN
    if verb == "again":  # it has to keep its workflow
        run = program.post("/api/runs", json=BODIES["/api/runs"]).json()["run"]
    reply = program.post(path.format(run=run, job=job), json=BODIES.get(verb, BODIES.get(path, {})))
    wrong = program.post(path.format(run="nope", job=job), json={"nonsense": 1})

    (operation,) = (each for each in OPERATIONS if (each.method, each.path) == ("post", path))
    assert reply.status_code == operation.code, reply.text
    check(reply.json(), "acted")
    assert wrong.status_code in (400, 404)
    check(wrong.json(), "failure")


def test_the_documents_are_those_of_the_commands(connection: Redis, program: TestClient):
    run = get_run(RUN, connection)

    assert program.get(f"/api/runs/{RUN}").json() == json.loads(run_json(run))
    for name in ("bad", "many", "many[1]"):
        told = program.get(f"/api/runs/{RUN}/jobs/{quote(name)}").json()
        assert told == json.loads(job_json(run, name, has_all_results=False, has_nested=False))


def test_items_and_runs_come_in_pages(program: TestClient):
    def names(query: str) -> list[str]:
        told = program.get(f"/api/runs/{RUN}/jobs/many?state=finished&{query}").json()
        check(told, "show_job")
        job, items = told["job"], told["job"]["items"]
        assert job["ids"] == [item["job_id"] for item in items]  # and no others
        assert job["results"] == [(int(item["name"][5:-1]) + 1) ** 2 for item in items]
        assert job.get("results_omitted", 0) == 3 - len(items)
        return [item["name"] for item in items]

    assert names("limit=2") == ["many[0]", "many[1]"]
    assert names("limit=2&after=many[1]") == ["many[2]"]
    assert names("after=many[2]") == []
    for _ in range(2):
        program.post("/api/runs", json=BODIES["/api/runs"])
    first = program.get("/api/runs?limit=2").json()
    second = program.get(f"/api/runs?limit=2&after={first['after']}").json()
    check(first, "runs")
    assert [len(page["runs"]) for page in (first, second)] == [2, 1]
    assert "after" not in second
    assert len(program.get("/api/runs?workflow=hello&state=running&text=x").json()["runs"]) == 2


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/runs?limit=0", 400),
        ("/api/runs?limit=1001", 400),
        ("/api/runs?limit=-1", 400),
        ("/api/runs?limit=1e3", 400),
        ("/api/runs?limit=%D9%A1", 400),
        ("/api/runs?state=nope", 400),
        ("/api/runs?label=bare", 400),
        ("/api/runs?since=yesterday", 400),
        ("/api/runs?after=nope", 404),
        ("/api/runs/nope", 404),
        ("/api/runs/%2e%2e", 404),
        ("/api/runs/r1%00", 404),
        ("/api/runs/r1/jobs/nope", 404),
        ("/api/runs/r1/jobs/../../../etc/passwd", 404),
        ("/api/runs/r1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd/log", 404),
        ("/api/runs/r1/jobs/nope/log", 404),
        ("/api/runs/r1/jobs/nope/explain", 404),
        ("/api/runs/r1/jobs/bad/log?from=-1", 400),
        ("/api/runs/r1/jobs/bad/log?from=99999999999999999999", 400),
        ("/api/runs/r1/jobs/bad?state=failed", 400),
        ("/api/runs/r1/jobs/many?state=failed&after=nope", 404),
        ("/api/now?limit=x", 400),
        ("/api/nothing", 404),
        ("/api/", 404),
    ],
)
def test_what_is_asked_wrongly_is_an_error_document(program: TestClient, path: str, code: int):
    reply = program.get(path)

    assert (reply.status_code, reply.json()["kind"]) == (code, "error")
    check(reply.json(), "failure")


def test_a_log_is_read_from_a_byte_on():
    printed = Printed(b"one\ntw\xc3\xb6\n", b"", 9)

    assert _read_text(printed, 0, is_over=True) == ("one\ntwö\n", 9)
    assert _read_text(printed, 4, is_over=True) == ("twö\n", 9)
    assert _read_text(Printed(b"tw\xc3", b"", 3), 0, is_over=False) == ("tw", 2)
    assert _read_text(Printed(b"tw\xc3", b"", 3), 0, is_over=True) == ("tw\\xc3", 3)
    assert _read_text(Printed(b"\xff\xf0\x9f", b"", 3), 0, is_over=False) == ("\\xff", 1)
    assert _read_text(Printed(), 0, is_over=False) == ("", 0)
    gap = Printed(b"head\n", b"tail", 20)
    assert _read_text(gap, 0, is_over=True) == ("head\n\n[… 11 bytes left out …]\ntail", 20)
    assert _read_text(Printed(b"", b"", 9, "refused"), 0, is_over=True)[0].startswith("[output")


def test_a_picture_has_its_style_and_may_run_nothing(program: TestClient):
    policy = program.get(f"/api/runs/{RUN}/graph.svg").headers["content-security-policy"]

    assert policy == "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def test_few_requests_at_a_time_read_whole_runs(connection: Redis, program: TestClient):
    full = open_page(connection, heavy=Turns(0, wait_s=0.01))
    jobs = f"/api/runs/{RUN}/jobs"
    heavy = ("", "/graph.json", "/graph.svg", "/explain", "/jobs/bad", "/jobs/bad/explain")
    whole = [f"/api/runs/{RUN}{end}" for end in heavy]
    for path in (*whole, f"{jobs}/nope/log", f"/runs/{RUN}"):
        reply = full.get(path)
        assert (reply.status_code, reply.headers.get("retry-after")) == (503, "5"), path
    for path in (
        "/",
        "/api/runs",
        f"{jobs}/bad/log",
        f"{jobs}/many%5B1%5D/log",
        "/static/flowq.js",
    ):
        assert full.get(path).status_code == 200, path
    assert program.get(f"/api/runs/{RUN}").status_code == 200


def test_names_with_brackets_are_found(program: TestClient):
    for name in ("many[1]", "many"):
        reply = program.get(f"/api/runs/{RUN}/jobs/{quote(name, safe='')}/explain")
        assert (reply.status_code, reply.json()["jobs"][0]["name"]) == (200, name)


def test_hints_for_programs_are_requests(program: TestClient):
    (told,) = program.get(f"/api/runs/{RUN}/jobs/ask/explain").json()["jobs"]

    assert told["reasons"][0]["hint"] == f"POST /api/runs/{RUN}/jobs/ask/approve"


def test_metrics_are_scraped_with_the_token(connection: Redis, program: TestClient):
    reply = program.get("/metrics")

    assert reply.headers["content-type"] == CONTENT_TYPE
    assert 'flowq_runs{state="running"} 1.0' in reply.text
    refused = TestClient(flowq.ui.app(connection=connection, authorize=lambda _: None))
    assert refused.get("/metrics").status_code == 403
