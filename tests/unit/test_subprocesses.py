"""What processes that are started get of this one."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

import pytest

from flowq.subprocesses import list_own_paths


def test_a_process_gets_the_folders_that_python_has_not_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, library = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")
    inside = str(Path(sys.prefix) / "src")  # with a Python in /usr, an application in /usr/src
    archive = tmp_path / "code.zip"
    archive.touch()
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != "/nowhere")
    theirs = [library, f"{library}/lib-dynload", packages, site.getusersitepackages(), "/nowhere"]
    monkeypatch.setattr(sys, "path", [*theirs, inside, str(archive), str(tmp_path), str(tmp_path)])
    assert list_own_paths() == [inside, str(archive), str(tmp_path)]


def test_the_current_folder_is_given_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [""])
    assert list_own_paths() == [str(tmp_path.resolve())]
