"""The page, asked as a browser asks it."""

from __future__ import annotations

from redis import Redis
from starlette.testclient import TestClient

import flowq.ui
from tests.runtime.language import RUN, Runs, job


def test_the_first_page_lists_the_runs(connection: Redis, page: TestClient):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    assert RUN in page.get("/").text
    assert page.get("/api/runs").json()["runs"][0]["run"] == RUN


def test_an_unknown_run_is_a_page_of_its_own(page: TestClient):
    reply = page.get("/api/runs/nope")

    assert (reply.status_code, reply.json()["kind"]) == (404, "error")


def test_a_request_that_nobody_authorizes_is_refused(connection: Redis):
    page = TestClient(flowq.ui.app(connection=connection, authorize=lambda _: None))

    assert page.get("/").status_code == 403
