"""Jobs for corpus.py. They live in a module of their own, where workers can import them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import flowq


@flowq.job(timeout="30s", retries=2)
def count_words(path: str) -> dict[str, int]:
    """Return how often each word stands in a text."""
    text = Path(path).read_text(encoding="utf-8").lower()
    return dict(Counter(re.findall(r"[a-z]+", text)))


@flowq.deferred
def write_report(title: str, path: str) -> str:
    """Add up what all the blockers have counted, and write it down."""
    job = flowq.get_current_job()
    assert isinstance(job, flowq.Job)
    total: Counter[str] = Counter()
    for counted in job.blockers:
        total.update(counted.result)
    lines = [f"# {title}", "", f"{len(job.blockers)} texts, {total.total():,} words", ""]
    lines += [f"- {word}: {count}" for word, count in total.most_common(10)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
