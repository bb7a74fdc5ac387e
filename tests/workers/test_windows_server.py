"""The embedded server as on Windows: started, found again, and ended by commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq.server import embedded, endpoint
from flowq.server.embedded import find_binary
from flowq.server.state import find
from tests.workers.test_windows_run import HERE, WORKFLOWS, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a workflow, and a PATH with a server program."""
    place = tmp_path_factory.mktemp("embedded")
    for file in WORKFLOWS.glob("sandwich*"):
        shutil.copy(file, place)
    program = find_binary()
    assert program is not None
    (place / "bin").mkdir()
    (place / "bin" / "redis-server").symlink_to(program)
    yield place
    stop(place)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the few programs that the stand-ins need, and no server."""
    place = tmp_path_factory.mktemp("programs")
    for name in ("cat", "sh"):
        found = shutil.which(name)
        assert found is not None
        (place / name).symlink_to(found)
    (place / "python3").symlink_to(sys.executable)
    return place


def stop(folder: Path) -> None:
    if find(folder).path.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(endpoint, "has_unix_sockets", lambda: False)
            embedded.server_of(find(folder).path).stop()


def flowq(folder: Path, programs: Path, *words: str) -> tuple[int, str, str]:
    path = os.pathsep.join(map(str, (folder / "bin", HERE / "without_posix" / "bin", programs)))
    done = subprocess.run(
        [sys.executable, "-m", "flowq", *words],
        cwd=folder,
        env=environment(PATH=path, FLOWQ_SERVER_IDLE="20"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_second_command_finds_the_server_that_the_first_one_started(
    folder: Path, programs: Path
) -> None:
    code, out, err = flowq(folder, programs, "run", "sandwich.yaml", "-c", "1", "--json")
    assert code == 0, err
    assert json.loads(out)["jobs"]["serve"]["status"] == "finished"
    address = endpoint.read_address(find(folder).path / "address")
    assert address is not None
    code, shown, err = flowq(folder, programs, "status", json.loads(out)["run"])
    assert code == 0, err
    assert "4/4" in shown
    assert endpoint.read_address(find(folder).path / "address") == address
    logs = find(folder).path.rglob("*.log")
    for text in (out, err, shown, *(log.read_text(encoding="utf-8") for log in logs)):
        assert address.password not in text


def test_without_a_server_program_a_fallback_serves_and_says_so(
    tmp_path: Path, programs: Path
) -> None:
    pytest.importorskip("fakeredis", reason="the extra `windows` is not installed")
    for file in WORKFLOWS.glob("sandwich*"):
        shutil.copy(file, tmp_path)
    try:
        code, out, err = flowq(tmp_path, programs, "run", "sandwich.yaml", "-c", "1", "--json")
        assert code == 0, err
        assert "this is a fallback made of fakeredis, which keeps nothing when it ends" in err
        assert json.loads(out)["jobs"]["serve"]["status"] == "finished"
    finally:
        stop(tmp_path)
