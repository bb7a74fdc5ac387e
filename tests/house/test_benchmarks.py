"""The benchmark of the peers runs; what it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_peers(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/peers.py", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_our_own_row_of_the_table_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only_us = ["--systems", "flowq", "--work", "W1:2000", "--pairs", "1", "--floor-repeat", "0"]
    done = run_peers(*only_us, "--json", str(figures))
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["flowq", "drain", "1"] in rows
    assert ["flowq", "e2e", "1"] in rows
    drain, _ = json.loads(figures.read_text())["runs"]
    assert drain["figures"]["timed_out"] == 0
    assert drain["figures"]["commands"] > 1
    assert drain["figures"]["pending_bytes"] > 100  # of few jobs, buffers of the server may hide it


def test_what_is_not_known_is_explained() -> None:
    done = run_peers("--systems", "selery")
    assert done.returncode == 2
    assert "no system is called 'selery'; there are" in done.stderr
    done = run_peers("--work", "W9")
    assert done.returncode == 2
    assert "'W9' is no work; write one of W1, W2" in done.stderr
