"""The builtins of shells: each is refused, or known to execute nothing that it is given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flowq.commands.places import find_places
from flowq.commands.programs import names
from tests.unit.command_shells import SHELLS, execute, find_program

pytestmark = pytest.mark.skipif(os.name == "nt", reason="commands of a POSIX shell")

HARMLESS = names(
    """
    : [ bg builtin cd chdir command dirs echo exec exit false fg jobs kill nocorrect noglob nohup
    popd printf pushd pwd realpath sleep test time times true type umask wait whence where which
    """
)
KEYWORDS = names("[[ { } ]] ! do done elif else end esac fi for if in then until while case")
LISTING = {
    "bash": "compgen -b; compgen -k",
    "zsh": "print -l ${(k)builtins} ${(k)reswords}",
    "ksh93": "builtin",
    "ash": "help",
}
FORMS = ("N §", "N x §", "N -v §", "N -n § x", "N -- §", 'N "x§"')
EVIL = "a[$(touch CANARY)]"


def is_refused(command: str, shell: str) -> bool:
    return any(each.refusal for each in find_places(command.replace("§", "${{ v }}"), shell))


@pytest.mark.parametrize("shell", sorted(LISTING))
def test_every_builtin_that_is_not_known_to_be_harmless_is_refused(
    shell: str, tmp_path: Path
) -> None:
    program = find_program(shell, tmp_path)
    if program is None:
        pytest.skip(f"{shell} is not on this machine")
    command = [program, "-c", LISTING[shell]]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {name for name in listed.stdout.split() if name.strip("-/") and "/" not in name}
    found -= {"Built-in", "commands:"} | KEYWORDS | HARMLESS
    assert {name for name in found if not is_refused(f"{name} §", shell)} == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_no_builtin_that_is_allowed_executes_a_value(shell: str, tmp_path: Path) -> None:
    program = find_program(shell, tmp_path)
    if program is None:
        pytest.skip(f"{shell} is not on this machine")
    lines = [
        f"( {text.replace('§', '${{ v }}')} ) < /dev/null > /dev/null 2>&1"
        for name in sorted(HARMLESS)
        for text in (form.replace("N", name) for form in FORMS)
        if not is_refused(text, shell)
    ]
    assert len(lines) > 100
    execute(program, "\n".join(lines), {"v": EVIL}, tmp_path)
    assert not (tmp_path / "CANARY").exists()


def test_the_names_of_programs_are_known_by_their_paths_and_versions() -> None:
    for name in ("/usr/bin/python3.11", "python", "pypy3", "/bin/sh", "ksh93", "bash-5.2"):
        assert is_refused(f"{name} -c §", "bash"), name
