"""What Windows writes differently: drives in paths, consoles without our characters, Ctrl-Break."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from flowq import targets
from flowq.cli import terminal
from flowq.cli.terminal import Interrupted


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [
        (r"C:\flows\book.yaml", r"C:\flows\book.yaml", ""),
        (r"C:\flows\book.py:flow", r"C:\flows\book.py", "flow"),
        ("d:/flows/book.py:flow", "d:/flows/book.py", "flow"),
        ("book.py:flow", "book.py", "flow"),
        ("a:flow", "a", "flow"),
    ],
)
def test_the_colon_of_a_drive_is_not_the_one_before_a_name(
    target: str, path: str, name: str
) -> None:
    assert targets._split(target)[::2] == (path, name)


def test_what_a_console_cannot_say_is_said_with_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="cp437"))
    terminal.repair()
    terminal.write("größe → 12… ✓ ★\n")
    assert shown.getvalue().decode("cp437") == "größe -> 12... v ?\n"


def test_ctrl_break_counts_as_ctrl_c() -> None:
    assert Interrupted(21).exit_code == Interrupted(signal.SIGINT).exit_code == 130
    assert Interrupted(signal.SIGTERM).exit_code == 143
