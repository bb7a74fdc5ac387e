"""What the workflows of these tests call."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rq import Retry, get_current_job
from rq.job import Job as RQJob

from flowq.errors import DoNotRetry, RetryLater
from flowq.runtime import runs, steps
from flowq.runtime.variables import NAMES


def make_list(count: int) -> list[int]:
    return list(range(count))


def give(value: Any) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def fail(message: str = "it broke") -> None:
    raise ValueError(message)


def fail_with_literal(text: str) -> None:
    """Fail with a text that is not UTF-8, given as a literal of Python."""
    raise ValueError(ast.literal_eval(text))


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


def cancel_my_run(log: str, then: str = "", now: bool = False) -> Any:
    """Cancel the run that this job is part of, whose stop comes too late; then end like that.

    Of `then`: fail, retry (RQ's `Retry` as the result), list (for `more`), or nothing.
    """
    note(log, "start")
    job = get_current_job()
    assert job is not None
    if job.connection.hget(f"rq:flowq:1:run:{job.run_id}", "canceling") is None:  # type: ignore[attr-defined]
        with patch.object(steps, "send_stop_job_command"):
            runs.cancel(job.run_id, job.connection, is_now=now)  # type: ignore[attr-defined]
    if then == "fail":
        raise ValueError("it broke")
    if then == "ask for later":
        raise RetryLater(0)
    if then == "retry":
        return Retry(max=3)
    if then == "retry later":
        return Retry(max=3, interval=3600)
    return {"links": [1, 2]}


def remove_my_run() -> Any:
    """Remove the run that this job is part of."""
    job = get_current_job()
    assert job is not None
    runs.remove(job.run_id, job.connection)  # type: ignore[attr-defined]
    return {"links": [1, 2]}


def fail_twice(log: str) -> int:
    """Fail the first two times."""
    note(log, "start")
    if len(Path(log).read_text().splitlines()) < 3:
        raise ValueError("not yet")
    return 3


def delete_me() -> None:
    job = get_current_job()
    assert job is not None
    RQJob.fetch(job.id, job.connection).delete()


class Broken(ConnectionError):
    pass


class Gone(DoNotRetry):
    pass


ERRORS: dict[str, Exception] = {
    "no text": ValueError("cannot read x\udcff"),
    "value": ValueError("no"),
    "broken": Broken("no"),
    "gone": Gone("for good"),
    "later": RetryLater(600, "busy"),
    "at once": RetryLater(0),
}


def fail_as(kind: str, log: str, times: int = 1) -> int:
    """Fail the first times like that; return which attempt did not."""
    note(log, "start")
    attempt = len(Path(log).read_text().splitlines())
    if attempt <= times:
        raise ERRORS[kind]
    return attempt


def read_variables(attempt: Any = None) -> dict[str, Any]:
    found = {name: value for name, value in os.environ.items() if name in NAMES}
    return {"attempt": attempt, **found}


def count_up(name: str = "count") -> int:
    """Return how often this was called with that name."""
    current = get_current_job()
    assert current is not None
    return int(current.connection.incr(name))
