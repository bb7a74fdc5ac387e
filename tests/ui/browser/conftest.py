"""A browser, a page server in a process of its own, and what no page may ever do in them.

Tests get one Chromium and one server for all of them, and a fresh browser context each. They are
left out where Playwright or Chromium is not installed, unless `FLOWQ_NEEDS_BROWSER` is set:
`.ci/browser` sets it, after it has installed both.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from flowq import server
from tests.ui.conftest import work
from tests.workers.conftest import start_worker
from tests.workers.real_servers import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

__all__ = ["start_worker", "work"]

IS_NEEDED = bool(os.environ.get("FLOWQ_NEEDS_BROWSER"))
LIMIT_MS = int(os.environ.get("LIMIT_MS", "60000"))


@cache
def find_missing() -> str:
    """Return what these tests need and there is not."""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "Playwright or axe is not installed"
    return "" if find_chromium() else "there is no Chromium"


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_runtest_setup() -> None:
    """Leave all out from one place, so that pytest tells it in one line."""
    if missing := find_missing():
        if IS_NEEDED:
            pytest.fail(f"the tests in a browser are wanted: {missing}")
        pytest.skip(f"the tests in a browser were left out: {missing}; .ci/browser installs it")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. Not for the whole test run: other tests have event loops of their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = find_chromium()
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class PageServer:
    """`flowq ui` in a process of its own, always at the same address and with the same token."""

    def __init__(self, redis_url: str, folder: Path, *options: str) -> None:
        self.token = secrets.token_urlsafe(32)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        file = folder / "token"
        file.write_text(self.token)
        file.chmod(0o600)
        self._command = [sys.executable, "-P", "-m", "flowq", "ui", "--no-open"]
        self._command += ["--port", str(self.port), "--redis-url", redis_url]
        self._command += ["--token-file", str(file), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LIMIT_MS / 1000
        while True:
            assert self._process.poll() is None, "flowq ui has ended"
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="package")
def page_server(
    test_server: server.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageServer]:
    """The page of the tests' server."""
    started = PageServer(test_server.url, tmp_path_factory.mktemp("page"))
    started.start()
    yield started
    started.kill()


class Watch:
    """Notes what no page may do: errors, dialogs, what the policy forbids, foreign requests.

    `expected` are parts of messages that a test causes on purpose, such as those of a server that
    is away.
    """

    def __init__(self, url: str) -> None:
        self.faults: list[str] = []
        self.expected: list[str] = []
        self.url = url

    def look_at(self, context: BrowserContext) -> None:
        """Note what its pages do."""
        context.on("request", self._see_request)
        context.on("console", self._see_message)
        context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        context.on("dialog", self._see_dialog)

    def _see_request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "about:")):
            self.faults.append(f"request: {request.url}")

    def _see_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _see_dialog(self, dialog: Any) -> None:
        if dialog.type == "confirm":
            dialog.accept()
        else:
            self.faults.append(f"dialog: {dialog.message}")
            dialog.dismiss()

    @property
    def unexpected(self) -> list[str]:
        """What must not have happened."""
        return [each for each in self.faults if not any(one in each for one in self.expected)]


@pytest.fixture
def watch(page_server: PageServer) -> Watch:
    """What pages of this test must not do."""
    return Watch(page_server.url)


@pytest.fixture
def open_page(
    browser: Browser, page_server: PageServer, connection: Redis, watch: Watch
) -> Iterator[Callable[..., Page]]:
    """`open_page(path, **options)`: a page in a context of its own, signed in by the token."""
    contexts = []

    def begin(path: str = "/", at: PageServer = page_server, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(LIMIT_MS)
        watch.look_at(context)
        page = context.new_page()
        joined = "&" if "?" in path else "?"
        page.goto(f"{at.url}{path}{joined}token={at.token}")
        assert at.token not in page.url
        return page

    yield begin
    for context in contexts:
        for page in context.pages:
            assert page_server.token not in page.url
        context.close()
    assert not watch.unexpected
