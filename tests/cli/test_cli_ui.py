"""`flowq ui`, as a user starts and ends it."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from starlette.testclient import TestClient

from flowq import client
from flowq.cli import own_workers, ui
from flowq.cli.place import Place, make_retry
from flowq.server.connection import make_client
from flowq.ui.application import make_app
from flowq.ui.site import Site
from tests.cli.commands import WITHIN_S, Flowq, Said
from tests.runtime.language import RUN, Runs, job

Call = Callable[..., Said]


def begin(flowq: Flowq, *words: str) -> tuple[subprocess.Popen[str], str, str]:
    """Start the page; return its process, where it listens, and the token."""
    process = flowq.start("ui", "--no-open", *words)
    assert process.stdout is not None
    place = urlsplit(process.stdout.readline().strip())
    return process, place.netloc, place.query.removeprefix("token=")


def ask(netloc: str, token: str, path: str = "/", body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(netloc, timeout=WITHIN_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, body, headers)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_the_page_holds_the_private_server_and_ends_with_ctrl_c(
    flowq: Flowq, wait_until: Callable[..., None]
):
    first, netloc, token = begin(flowq, "--workflows", ".")
    second, other, other_token = begin(flowq, "--read-only")

    assert re.fullmatch(r"127\.0\.0\.1:\d+", netloc)
    assert len(token) >= 43 <= len(other_token)
    assert (ask(netloc, token)[0], ask(other, other_token)[0]) == (200, 200)
    assert (ask(netloc, other_token)[0], ask(netloc, token, "/nothing")[0]) == (401, 404)
    run_id = flowq("run", "sandwich.yaml", "-q", "--hold").stdout.strip()
    assert run_id in ask(netloc, token, "/api/runs")[1]
    submitted = json.dumps({"workflow": "sandwich"})
    run_id = json.loads(ask(netloc, token, "/api/runs", submitted)[1])["run"]
    wait_until(lambda: '"status": "succeeded"' in ask(netloc, token, f"/api/runs/{run_id}")[1])
    # A request that does not end by itself, as those of open pages:
    with socket.create_connection(netloc.split(":")) as open_request:
        head = f"POST / HTTP/1.1\r\nHost: {netloc}\r\nAuthorization: Bearer {token}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        open_request.sendall(head.encode())
        ends = []
        for process in (first, second):
            process.send_signal(signal.SIGINT)
            ends.append((*process.communicate(timeout=WITHIN_S), process.returncode))

    said = "flowq: whoever has this address has the page; Ctrl-C ends it\n"
    assert ends == [("", said, 0), ("", said, 0)]


def test_what_cannot_work_is_one_line(
    call: Call, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    def tell(*words: str) -> tuple[int, str]:
        said = call("ui", "--no-open", "--redis-url", redis_url, *words)
        assert said.err.count("\n") == 1
        return said.code, said.err

    short, open_file, link = tmp_path / "short", tmp_path / "open", tmp_path / "link"
    short.write_text("secret\n")
    open_file.write_text("a" * 40)
    open_file.chmod(0o644)
    short.chmod(0o600)
    link.symlink_to(short)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = tell("--port", str(port))
        assert (code, f"port {port} of 127.0.0.1 is in use" in told) == (2, True)
    assert tell("--host", "192.0.2.1")[1].startswith("flowq: cannot listen on 192.0.2.1")
    assert "write https://HOST" in tell("--public-url", "jobs")[1]
    assert "exclude each other" in tell("--read-only", "--workflows", str(tmp_path))[1]
    assert "at least 32" in tell("--token-file", str(short))[1]
    assert f"chmod 600 {open_file}" in tell("--token-file", str(open_file))[1]
    assert "symbolic link" in tell("--token-file", str(link))[1]
    monkeypatch.setattr(ui, "find_spec", lambda _: None)
    assert tell()[1] == "flowq: flowq ui needs more packages: pip install 'rq-flowq[ui]'\n"


def test_a_token_file_is_created_for_its_user_only_and_used_again(tmp_path: Path):
    file = tmp_path / "token"

    token = ui._read_token(file)

    assert ui._read_token(file) == token == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_browser_gets_the_token_by_a_file_and_not_by_an_argument(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    opened: list[str] = []
    url = "http://127.0.0.1:1/?token=secret"
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    monkeypatch.setattr(ui.threading, "Thread", _AtOnce)
    monkeypatch.setenv("DISPLAY", ":0")

    with ui._opened_in_browser(url, wanted=True):
        file = Path(urlsplit(opened[0]).path)
        assert "secret" not in opened[0]
        assert url in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()

    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(ui.sys, "platform", "linux")
    with ui._opened_in_browser(url, wanted=True):
        assert len(opened) == 1
    assert "there is no display here" in capfd.readouterr().err


class _AtOnce:
    """A thread that runs where it is started."""

    def __init__(self, target: Callable[..., Any], args: Any, daemon: bool) -> None:
        self.start = lambda: target(*args)


def test_a_page_whose_server_is_away_says_so_and_goes_on_by_itself(
    connection: redis.Redis, tmp_path: Path
):
    path = tmp_path / "sock"
    away = make_client(f"unix://{path}")
    page = TestClient(make_app(Site(away, server=f"unix://{path}"), lambda _: "ada"))

    for _ in range(2):
        replies = [page.get("/"), page.get("/api/runs"), page.get("/api/runs/x")]
        assert [reply.status_code for reply in replies] == [503] * 3
        assert {reply.headers["retry-after"] for reply in replies} == {"5"}
        assert replies[0].headers["refresh"] == "5"
        assert replies[1].json()["error"]["type"] == "ServerUnavailable"
        assert f"the server at unix://{path} cannot be used" in replies[0].text
        path.symlink_to(connection.connection_pool.connection_kwargs["path"])
        assert page.get("/").status_code == 200
        path.unlink()
        away.connection_pool.disconnect()


def test_other_machines_are_let_in_only_with_a_warning(
    call: Call, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flowq.ui.serving.serve", lambda *_: None)

    said = call("ui", "--no-open", "--host", "0.0.0.0", "--redis-url", redis_url)

    assert said.err.startswith("flowq: warning: other machines can reach http://")
    local = call("ui", "--no-open", "--redis-url", redis_url)
    assert "warning" not in local.err
    assert local.out.startswith("http://127.0.0.1:")


def test_a_page_of_a_server_that_is_away_begins(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flowq.ui.serving.serve", lambda *_: None)

    said = call("ui", "--no-open", "--redis-url", f"unix://:secret@{tmp_path}/none.sock")

    assert said.code == 0
    assert "the page shows runs as soon as it can be" in said.err
    assert "secret" not in said.err
    assert os.strerror(errno.ENOENT) in said.err


def test_workers_that_have_ended_do_not_remain(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
):
    ended: list[subprocess.Popen[bytes]] = []

    def serve(*_: Any, **__: Any) -> subprocess.Popen[bytes]:
        ended.append(subprocess.Popen(["true"]))
        return ended[-1]

    monkeypatch.setattr(own_workers.serving, "serve", serve)
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    start = ui._starting(Place("redis://", connection, True, make_retry(), None))
    assert start is not None
    start(client.get_run(RUN, connection))

    wait_until(lambda: ended[0].returncode is not None)  # which nobody has asked it for
