"""Any graph of jobs, as YAML: every job runs exactly once, after all of its predecessors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Flowq
from tests.cli.random_graphs import write


@pytest.mark.parametrize(("seed", "size"), [(1, 25), (2, 60)])
def test_every_job_of_a_random_graph_runs_once_and_after_its_predecessors(
    flowq: Flowq, folder: Path, seed: int, size: int
) -> None:
    text, before = write(seed, size)
    (folder / "random.yaml").write_text(text, encoding="utf-8")
    marks = folder / "marks"

    done = flowq("run", "random.yaml", "-i", f"file={marks}", "-c", "3", "-q")

    assert done.returncode == 0, done.stdout + done.stderr
    lines = marks.read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()[1] for line in lines if line.startswith("began")) == sorted(before)
    for name, predecessors in before.items():
        began = lines.index(f"began {name}")
        assert {
            line.split()[1] for line in lines[:began] if line.startswith("ended")
        } >= predecessors
