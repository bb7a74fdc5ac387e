"""A report over texts of which nobody knows beforehand how many there are.

The report is declared first, as a future job; every text that turns up becomes a job that must run
before it. No list of jobs is ever built, and nothing runs before the last text has been found.

    export FLOWQ_REDIS_URL=redis://localhost:6379
    cd workflows
    flowq worker &
    python corpus.py [FOLDER]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from corpus_tasks import count_words, write_report

OUT = Path("out")


def main(folder: Path) -> None:
    """Enqueue the report and what it needs, and wait for it."""
    report = (OUT / "corpus.md").resolve()
    report.parent.mkdir(parents=True, exist_ok=True)

    with write_report.open(title=f"Words in {folder}", path=str(report)) as future:
        for text in find_texts(folder):
            count_words.enqueue(str(text), blocks=future)
            print("found", text.name)

    result = future.latest_result(timeout=60)
    if result is None or result.return_value is None:
        sys.exit(f"no report within a minute; does a worker listen? (job {future.id})")
    print(Path(result.return_value).read_text(encoding="utf-8"))


def find_texts(folder: Path) -> Iterator[Path]:
    """Yield the texts below a folder as they turn up."""
    for path in folder.rglob("*.txt"):
        yield path.resolve()


def write_some_texts(folder: Path) -> Path:
    """Write a few chapters; chance decides how many."""
    folder.mkdir(parents=True, exist_ok=True)
    who = ["the baker", "a sailor", "my aunt", "the last whale", "nobody"]
    did = ["sold", "painted", "forgot", "found", "sang to"]
    what = ["the moon", "a sandwich", "three letters", "the harbour", "some bread"]
    for chapter in range(1, random.randint(5, 30)):
        sentences = [
            f"{random.choice(who)} {random.choice(did)} {random.choice(what)}.".capitalize()
            for _ in range(random.randint(20, 200))
        ]
        (folder / f"chapter-{chapter:02}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else write_some_texts(OUT / "corpus"))
