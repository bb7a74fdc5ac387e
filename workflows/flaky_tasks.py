"""Functions that fail on purpose, in a way that can be followed."""

from __future__ import annotations

from pathlib import Path

ATTEMPTS = "flaky-attempts.txt"


def call_home(failures: int, folder: str) -> str:
    """Answer once the line has been busy `failures` times."""
    attempt = _count_attempt(Path(folder) / ATTEMPTS)
    print(f"attempt {attempt}: ringing")
    if attempt <= failures:
        raise ConnectionError(f"the line is busy (attempt {attempt})")
    return f"hello, after {attempt} attempts"


def _count_attempt(path: Path) -> int:
    """Count in a file: each attempt may run in another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(attempt))
    return attempt


def write_down(answer: str, folder: str) -> str:
    """Keep the answer, and return its file."""
    path = Path(folder) / "flaky-answer.txt"
    path.write_text(f"{answer}\n")
    return str(path)


def hang_up(folder: str) -> None:
    """Forget the attempts, so that the next run begins anew."""
    (Path(folder) / ATTEMPTS).unlink(missing_ok=True)
