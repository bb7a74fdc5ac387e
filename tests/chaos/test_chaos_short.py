"""The chaos test in its short form; the long one is a command (README.md beside this file)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ("--graphs", "12", "--minutes", "0.1", "--kill-every", "0.8")


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="it kills the embedded server, which needs Unix"
)
def test_graphs_end_as_promised_while_workers_children_clients_and_the_server_are_killed() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *SHORT],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    print(played.stdout)  # shown when the test fails: the seed, the folder, the faults
    assert played.returncode == 0, played.stdout + played.stderr
