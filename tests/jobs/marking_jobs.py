"""Jobs that write down when they begin and end, so that others can compare what they were told."""

from __future__ import annotations

import os
import time

from rq import get_current_job


def mark(file: str, for_s: float) -> None:
    """Take that long; the file gets a line at the beginning and one at the end."""
    job = get_current_job()
    assert job is not None
    _write(file, f"begins {job.id} {os.getpid()} {time.time()}\n")
    if for_s:
        time.sleep(for_s)
    _write(file, f"ends {job.id} {os.getpid()} {time.time()}\n")


def _write(file: str, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def look() -> list[dict[str, object]]:
    """Return what is listed as being executed while this is."""
    from flowq.render.wip import wip_document
    from flowq.runtime.wip import read_wip

    job = get_current_job()
    assert job is not None
    jobs: list[dict[str, object]] = wip_document(read_wip(job.connection))["jobs"]
    return jobs
