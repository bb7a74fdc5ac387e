"""The functions of the workflows in this folder: quick, quiet, and bad on demand."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def cut(slices: int) -> list[str]:
    print(f"cutting {slices} slices")
    return [f"slice {number}" for number in range(1, slices + 1)]


def spread(slices: list[str], topping: str) -> list[str]:
    return [f"{slice_} with {topping}" for slice_ in slices]


def serve(plate: list[str]) -> str:
    print("served")
    return f"{len(plate)} on a plate"


def burn(toast: str) -> None:
    """Fail, with something printed before."""
    for minute in range(1, 31):
        print(f"minute {minute}")
    _smoke(toast)


def taste(toast: str) -> None:
    """Fail if it is dark."""
    if "dark" in toast:
        _smoke(toast)


def _smoke(toast: str) -> None:
    raise ValueError(f"{toast} is black")


def wait_for(file: str, within_s: float = 120.0) -> str:
    """Return when the file exists; `started` beside it tells that somebody waits."""
    Path(f"{file}.started").write_text(str(os.getpid()), encoding="utf-8")
    print("at the door")
    deadline = time.monotonic() + within_s
    while not Path(file).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(file)
        time.sleep(0.01)
    print("inside")
    return "opened"


def say(text: str) -> None:
    print(text)
    print(f"{text} on stderr", file=sys.stderr)


def pass_gate() -> str:
    """Fail until there is a file `gate` in the folder."""
    if not Path("gate").exists():
        raise RuntimeError("the gate is shut")
    return "passed"


def leave_a_mark(file: str, name: str, seen: dict[str, str]) -> str:
    """Append that the job began, and that it ended; what it has seen are the marks of others."""
    assert all(mark.removeprefix("it was ") == job for job, mark in seen.items())
    for word in ("began", "ended"):
        with Path(file).open("a", encoding="utf-8") as marks:  # one write: lines stay whole
            marks.write(f"{word} {name}\n")
    return name
