"""Jobs that end in every way."""

from __future__ import annotations

from typing import Any

from rq import Retry, get_current_job

from flowq.runtime.futures import current_future
from flowq.runtime.job import get_job


def give(value: Any = 1) -> Any:
    return value


def fail(*_: Any) -> None:
    raise ValueError("it broke")


def come_again(*_: Any) -> Retry:
    return Retry(max=1)


def delete_myself(*_: Any) -> None:
    job = get_current_job()
    assert job is not None
    get_job(str(job.id), job.connection).delete()


def cancel_myself(*_: Any) -> None:
    job = get_current_job()
    assert job is not None
    get_job(str(job.id), job.connection).cancel()


def cancel_what_waits(*_: Any) -> None:
    current_future().cancel()
