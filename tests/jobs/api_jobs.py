"""Workflows that programs run, as the tests of `flowq.api` and `flowq.local` do."""

from __future__ import annotations

import os
import time

import flowq

flow = flowq.Workflow("doubling", inputs={"n": 2})


@flow.job
def count(n: int = flow.inputs.n) -> list[int]:
    return list(range(n))


@flow.job(for_each=count.result)
def double(item: int) -> int:
    return item * 2


@flow.job
def total(values: list[int] = double.results) -> int:
    print(f"adding {len(values)}")
    return sum(values)


flow.outputs(total=total.result)

failing = flowq.Workflow("failing")


@failing.job
def fine() -> str:
    return "fine"


@failing.job(needs=fine)
def fail() -> None:
    raise ValueError("no bread")


@failing.job(needs=fail)
def never() -> None: ...


@failing.job(if_="${{ fine.result == 'bad' }}".replace("fine.", "jobs.fine."))
def passed_over() -> None: ...


@failing.job(continue_on_error=True)
def forgiven() -> None:
    raise ValueError("never mind")


@failing.job(for_each=[1, 2])
def items(item: int) -> int:
    if item == 2:
        raise ValueError("two")
    return item


elsewhere = flowq.Workflow("elsewhere")


@elsewhere.job(queue="pages")
def page() -> str:
    return "page"


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def nap_and_tell(seconds: float) -> str:
    job = flowq.get_current_job()
    assert job is not None
    job.meta["pid"] = os.getpid()
    job.save_meta()
    return nap(seconds)
