"""The functions of tree.yaml: work that is discovered while it runs."""

from __future__ import annotations

from pathlib import Path

import flowq


def explore(folder: str, depth: int) -> int:
    """Return how many bytes the files of a folder have; its folders become jobs of their own."""
    entries = sorted(Path(folder).iterdir())
    found = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if depth:
        future = flowq.current_future()
        queue = flowq.Queue(connection=future.connection)
        for each in found:
            queue.enqueue(explore, str(each), depth - 1, blocks=future)
    return sum(entry.stat().st_size for entry in entries if entry.is_file())


def report() -> str:
    """Return what all explorers found, however many there were."""
    job = flowq.get_current_job()
    sizes = [outcome.result for outcome in job.blockers]
    return f"{sum(sizes):,} bytes in {len(sizes)} folders"
