"""What the workflows of these tests call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rq import get_current_job


def make_list(count: int) -> list[int]:
    return list(range(count))


def give(value: Any) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def fail(message: str = "it broke") -> None:
    raise ValueError(message)


def fail_if(value: Any, bad: Any) -> Any:
    if value == bad or (isinstance(bad, list) and value in bad):
        raise ValueError(f"{value} is bad")
    return value


def fail_unless(path: str, value: Any = None) -> Any:
    if not Path(path).exists():
        raise ValueError(f"{path} is not there")
    return value


def note(path: str, text: Any) -> Any:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


def children_of(number: int, limit: int) -> dict[str, Any]:
    """A page with links: of each number, its double and the one after."""
    links = [n for n in (2 * number, 2 * number + 1) if n <= limit]
    return {"page": number, "links": links}


def read_env(name: str) -> tuple[str | None, str]:
    return os.environ.get(name), Path.cwd().name


def my_id() -> str:
    job = get_current_job()
    assert job is not None
    return str(job.id)


async def say(text: str) -> str:
    print(f"they said {text}")
    return text
