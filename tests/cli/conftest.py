"""The command line as a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.cli.main import main
from tests.cli.commands import MARK, Flowq, Said

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the workflows of this folder and their functions."""
    for file in (*HERE.glob("*.yaml"), HERE / "kitchen.py"):
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.fixture
def operator() -> Iterator[redis.Redis]:
    """A connection to a server of the test's own, which may be left in any state."""
    with server.temporary() as started, closing(started.connect()) as connection:
        yield connection


@pytest.fixture
def url(operator: redis.Redis) -> str:
    """The URL of that server."""
    return f"unix://{operator.connection_pool.connection_kwargs['path']}"


@pytest.fixture
def flowq(folder: Path) -> Iterator[Flowq]:
    """The command line in that folder, with the embedded server and nothing in the environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_", "NO_COLOR"))}
    # Between two commands, a busy machine takes some seconds: the server must not end there.
    env = {**kept, "FLOWQ_SERVER_IDLE": "20", "TERM": "xterm", "PYTHONUNBUFFERED": ""}
    env[MARK] = str(folder)
    command = Flowq(folder, env)
    yield command
    command.end()
    if server.is_used(folder):
        server.ensure(folder).stop()


@pytest.fixture
def call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """`call(*words)`: a command within this process, in that folder. Quicker, not less real."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("flowq.cli.terminal._is_verbose", False)
    for name in [name for name in os.environ if name.startswith(("FLOWQ_", "RQ_"))]:
        monkeypatch.delenv(name)

    def run(*words: str) -> Said:
        sys.modules.pop("kitchen", None)
        with pytest.raises(SystemExit) as leaving:
            main(words)
        captured = capfd.readouterr()
        return Said(int(leaving.value.code or 0), captured.out, captured.err)

    return run
