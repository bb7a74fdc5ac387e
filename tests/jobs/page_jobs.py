"""Jobs whose runs the tests of the page look at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def say(text: str, value: Any = None) -> Any:
    """Print a text, and return a value."""
    print(text)
    return value


def fail(text: str) -> None:
    """Print a text, and raise it."""
    print(text)
    raise ValueError(text)


def fail_if(value: Any, bad: Any) -> Any:
    """Raise if a value is a bad one."""
    if value == bad:
        raise LookupError(f"{value} is bad\nfor reasons")
    return value


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(1)</script>",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\\x1b[2J",
    "\u202egnp.exe\u202c\u2066x\u2069",
    "a/../b?c=d#e%zz&f",
    "{{ 7007 * 7 }}{% raw %}",
    "\x00\x07\x08\x9b31m",
    "</pre></svg></title><!--",
)


def be_hostile(number: int) -> str:
    """Print, report and return a hostile text, and raise it every second time."""
    import flowq

    text = HOSTILE[number]
    flowq.progress(1, 2, text)
    print(text)
    if number % 2:
        raise RuntimeError(f"{text}\n{text}")
    return text


def be_huge(megabytes: int) -> str:
    """Print, and return, one line of that size."""
    text = "<b>" * (megabytes * 1_000_000 // 3)
    print(text)
    return text


def fail_hugely(megabytes: int) -> None:
    """Raise a message in one line of that size, with the half of a pair."""
    raise RuntimeError("\ud800" + "<i>" * (megabytes * 1_000_000 // 3))


def print_until(path: str) -> int:
    """Print lines in colours until there is a file; return how many."""
    count = 0
    while not Path(path).exists():
        print(f"\x1b[3{count % 8}mline {count}\x1b[0m", flush=True)
        count += 1
        time.sleep(0.05)
    return count
