"""The benchmark of compiling runs, for each of its shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the benchmark measures memory as POSIX tells it")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "compiling.py"


def test_each_shape_is_compiled_and_gets_a_line() -> None:
    command = [sys.executable, str(BENCHMARK), "--sizes", "120"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split()[:3] == ["shape", "jobs", "start"]
    shapes = ["chain", "fan_in", "layered", "arguments", "shell"]
    assert [line.split()[:2] for line in lines] == [[shape, "120"] for shape in shapes]
