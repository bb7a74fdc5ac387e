"""Readers of pages: each in a folder of their own, with or without a server and a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flowq.cli.run  # what each forked `flowq` would import again
import flowq.client
import flowq.runtime.planned
import flowq.workers.launch  # noqa: F401
from flowq import server
from tests.docs.playing import Reader
from tests.runtime.conftest import work  # noqa: F401 - the fixture
from tests.workers.forked_workers import ForkedWorker, Template

QUEUES = ("high", "default", "builds")
ALONE = ("run-from-a-program", "add-jobs-to-a-running-batch")
"""How-tos that say themselves where the server and the workers come from."""


@pytest.fixture
def reader_env(tmp_path: Path) -> dict[str, str]:
    """The environment of a reader who has installed flowq, and set nothing."""
    programs = Path(sys.executable).parent
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_", "PYTHON"))}
    paths = {"PATH": f"{programs}:{kept['PATH']}", "HOME": str(tmp_path)}
    return {**kept, **paths, "TERM": "xterm", "USER": "ann", "FLOWQ_SERVER_IDLE": "5"}


@pytest.fixture
def alone(
    tmp_path: Path, reader_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    """A reader with nothing: `flowq run` starts a private server, and workers for each run."""
    folder = tmp_path / "flows"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FLOWQ_REDIS_URL", raising=False)
    yield Reader(folder, reader_env)
    if server.is_used(folder):
        server.ensure(folder).stop()


@pytest.fixture
def with_worker(
    tmp_path: Path,
    reader_env: dict[str, str],
    redis_url: str,
    template: Template,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:
    """A reader with a server and one worker, which is much quicker than a server of their own."""
    folder = tmp_path / "flows"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLOWQ_REDIS_URL", redis_url)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    workers: list[ForkedWorker] = []

    def start() -> None:
        if not workers:
            values = {"url": redis_url, "queues": QUEUES, "mode": "warm", "paths": [str(folder)]}
            workers.append(template.start({**values, "concurrency": 2}))

    reader = Reader(folder, {**reader_env, "FLOWQ_REDIS_URL": redis_url}, start)
    modules = set(sys.modules)
    yield reader
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.fixture
def reader_of(request: pytest.FixtureRequest) -> Callable[[Path], Reader]:
    """`reader_of(page)`: of the tutorial and of ALONE, one with nothing; else with a worker."""

    def find(page: Path) -> Reader:
        is_alone = page.parent.name == "tutorial" or page.stem in ALONE
        reader: Reader = request.getfixturevalue("alone" if is_alone else "with_worker")
        return reader

    return find
