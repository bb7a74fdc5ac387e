"""The rules of the Lua files: what is in their tables is there and is used, and luacheck agrees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from flowq.runtime import scripts
from flowq.runtime.scripts import SHARED, Script

LUA = Path(scripts.__file__).parent / "lua"
ALL = [value for value in vars(scripts).values() if isinstance(value, Script)]
PARTS = {part for script in ALL for part in script.parts}
CODE = {path.stem: re.sub(r"--.*", "", path.read_text("utf-8")) for path in LUA.glob("*.lua")}
OPERATIONS = {script.operation for script in ALL}
FILE_BY_TABLE = {**{name: name for name in (*SHARED, *PARTS)}, "keys": "common"}


def _mentioned(name: str, tables: set[str]) -> set[str]:
    """Return what a file mentions of these tables."""
    found = re.findall(r"(?<![\w.:'])(([a-z_]+)\.\w+)", CODE[name])
    return {mention for mention, table in found if table in tables}


def test_every_file_belongs_to_a_script() -> None:
    assert CODE.keys() == {"common", *SHARED, *PARTS}


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.operation)
def test_what_a_file_uses_of_another_is_there(script: Script) -> None:
    """To Lua it would be nil until it is called; luacheck does not look into tables."""
    files = {"common", *SHARED, *script.parts}
    tables = {table for table, file in FILE_BY_TABLE.items() if file in files}
    there = {each for table in tables for each in _mentioned(FILE_BY_TABLE[table], {table})}
    assert script.operation in there
    for name in files:
        assert not _mentioned(name, set(FILE_BY_TABLE)) - there, name


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.operation)
def test_every_script_states_its_contract(script: Script) -> None:
    """Purpose, arguments and answer stand in front of the function, and those of the largest
    scripts at the top of their file."""
    file, _, _ = script.operation.partition(".")
    text = (LUA / f"{file}.lua").read_text("utf-8")
    before = text.partition(f"function {script.operation}(")[0].splitlines()
    comment = list(takewhile(lambda line: line.startswith("--"), reversed(before)))
    is_alone = file in ("add", "step", "turn")
    contract = text.split("\n\n")[0] if is_alone else "\n".join(reversed(comment))
    assert re.search(r"^-- ARGV ", contract, re.MULTILINE)
    assert "Returns " in contract


def test_what_only_its_own_file_uses_is_local_to_it() -> None:
    for table, own in FILE_BY_TABLE.items():
        functions = set(re.findall(rf"^function ({table}\.\w+)", CODE[own], re.MULTILINE))
        others = {mention for name in CODE if name != own for mention in _mentioned(name, {table})}
        assert not functions - others - OPERATIONS


def test_luacheck_finds_nothing(tmp_path: Path) -> None:
    """Each script as the server gets it, for a name may be of another file."""
    program = shutil.which("luacheck")
    if not program and not os.environ.get("CI"):
        pytest.skip("luacheck is not here (Debian and Ubuntu: apt install lua-check)")
    assert program, "luacheck is missing, and CI must not skip it (apt install lua-check)"
    for script in ALL:
        (tmp_path / f"{script.name}.lua").write_text(script.source, "utf-8")
    options = ["--std", "lua51", "--read-globals", "redis", "cjson", "KEYS", "ARGV"]
    form = ["--formatter", "plain", "--codes", "--no-max-line-length", "--no-config"]
    done = subprocess.run(
        [program, ".", *form, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, "\n".join(_explain(done.stdout + done.stderr, tmp_path))


def _explain(report: str, folder: Path) -> list[str]:
    """Return the lines of a report, each with the line of the source that it is about."""
    lines = []
    for line in report.splitlines():
        place = re.match(r"(?:\./)?(\w+)\.lua:(\d+):", line)
        source = (folder / f"{place[1]}.lua").read_text("utf-8").splitlines() if place else []
        lines.append(f"{line}\n    {source[int(place[2]) - 1]}" if place else line)
    return lines
