"""What type checkers have to refuse: each line that ends so; nothing here is executed."""

from __future__ import annotations

import flowq


@flowq.job
def plain(path: str, size: int = 1) -> int:
    """Count."""
    return len(path) * size


@flowq.deferred(queue="reports")
def report(title: str) -> str:
    """Write."""
    return title


plain.enqueue()  # refused
plain.enqueue(5)  # refused
plain.enqueue("a", width=2)  # refused
plain.enqueue("a", size="large")  # refused
plain.options(timeout=3).enqueue(5)  # refused
plain.options(colour="red")  # refused
report.open(5)  # refused
plain("a", "b")  # refused
flowq.submit(3)  # refused
flowq.run("file.yaml", wait=True)  # refused
flowq.runs(state=1)  # refused
flowq.runs(state="done")  # refused
flowq.local(workers="two")  # refused
