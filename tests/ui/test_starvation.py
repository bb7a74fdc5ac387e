"""Requests that wait keep none waiting that are of another kind: many really wait here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from threading import Event, Lock
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowq.ui import endpoints
from flowq.ui.address import Address
from flowq.ui.application import make_app
from flowq.ui.site import Site
from flowq.ui.turns import MAX_HEAVY
from tests.runtime.language import RUN, Runs, job

MANY = 50
HANGS_S = 60
"""Only what hangs for ever takes so long."""


async def ask_while_others_wait(
    site: Site, path: str, others: Iterable[str], is_busy: Any, free: Any
) -> tuple[list[int], list[int]]:
    """Return the status of replies that came while many requests of `path` waited, and of these."""
    transport = httpx.ASGITransport(make_app(site, lambda _: "ada", Address()))
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
        waiting = [asyncio.create_task(client.get(path)) for _ in range(MANY)]
        try:
            async with asyncio.timeout(HANGS_S):
                while not is_busy():
                    await asyncio.sleep(0.01)
                codes = [(await client.get(other)).status_code for other in others]
                assert not any(task.done() for task in waiting)
        finally:
            free()
        return codes, [reply.status_code for reply in await asyncio.gather(*waiting)]


def test_heavy_requests_starve_neither_files_nor_light_ones(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    go_on, lock, most, now = Event(), Lock(), 0, 0
    read_run = endpoints.read_run

    def read_slowly(*arguments: Any, **more: Any) -> Any:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        assert go_on.wait(HANGS_S)
        with lock:
            now -= 1
        return read_run(*arguments, **more)

    monkeypatch.setattr(endpoints, "read_run", read_slowly)
    others = ("/static/flowq.css", "/", "/api/runs", "/now", f"/api/runs/{RUN}/jobs/a/log")

    codes, slow = asyncio.run(
        ask_while_others_wait(
            Site(connection),
            f"/api/runs/{RUN}",
            others,
            lambda: now == MAX_HEAVY,
            go_on.set,
        )
    )

    assert codes == [200] * len(others)
    assert (slow, most) == ([200] * MANY, MAX_HEAVY)


@pytest.mark.parametrize("path", ["/", f"/runs/{RUN}", f"/api/runs/{RUN}/events"])
def test_a_server_that_does_not_answer_starves_no_files(path: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        away = Redis(port=port, socket_timeout=HANGS_S, retry=Retry(NoBackoff(), 0))
        files = ("/static/flowq.css", "/static/flowq.js", "/nothing")
        accepted = []
        silent.setblocking(False)

        def is_busy() -> bool:
            try:
                accepted.append(silent.accept()[0])
            except BlockingIOError:
                return len(accepted) > 0
            return False

        def close() -> None:
            silent.close()
            for each in accepted:
                each.close()

        codes, waited = asyncio.run(ask_while_others_wait(Site(away), path, files, is_busy, close))

    assert codes == [200, 200, 404]
    assert waited == [503] * MANY
