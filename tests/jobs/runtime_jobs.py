"""What the jobs of these tests call; importable by workers that the tests start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from rq import Retry, get_current_job


def note(path: str, text: str) -> str:
    """Append a line outside Redis, so that a test can count executions."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


def fail(text: str = "boom") -> None:
    raise ValueError(text)


def fail_unless(path: str) -> str:
    """Fail until somebody creates the file."""
    if not Path(path).exists():
        raise ValueError(f"{path} is missing")
    return "recovered"


def die() -> None:
    """End the process as the kernel's out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(path: str) -> None:
    """Say that it has started, and wait to be stopped."""
    Path(path).touch()
    time.sleep(60)


def any_keyword(**keywords: Any) -> dict[str, Any]:
    return keywords


def takes_blocks(blocks: int) -> int:
    return blocks


def add_blocker(future_id: str, function: str, *args: Any) -> None:
    """A running blocker that adds another one to the future job that it blocks."""
    from flowq.runtime.queue import Queue

    connection = get_current_job().connection
    Queue(connection=connection).enqueue(function, *args, blocked_by=future_id)


def depend_on_me(job_id: str) -> None:
    """Add an RQ dependent to the running job itself."""
    from flowq.runtime.queue import Queue

    me = get_current_job()
    Queue(connection=me.connection).enqueue("operator.add", 1, 1, job_id=job_id, depends_on=me.id)


def callback(job: Any, connection: Any, result: Any, *rest: Any) -> None:
    connection.rpush("test:callbacks", job.id)


def on_failure(job: Any, connection: Any, kind: Any, value: Any, traceback: Any) -> None:
    connection.rpush("test:callbacks", f"{job.id} {value}")


def delete_me() -> None:
    get_current_job().delete()


def add_inline(future_id: str, function: str, *args: Any) -> None:
    from flowq.runtime.queue import Queue

    queue = Queue(connection=get_current_job().connection, is_async=False)
    queue.enqueue(function, *args, blocked_by=future_id)


def ask_for_a_retry() -> Retry:
    return Retry(max=1)


def raising_callback(job: Any, connection: Any, result: Any) -> None:
    raise RuntimeError("callback")
