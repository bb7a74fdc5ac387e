"""Public helpers for the tests of users: run a workflow in process, compare orders, wait.

    run_inline(workflow, inputs, replace={"fetch": fake})   a whole run, without a server
    assert_order(run, "fetch", "resize")                    what ended before what began
    wait_until(predicate, timeout)                          instead of a sleep

    inline.py   run_inline and its result; replacing.py  what a test puts in the place of jobs
    worker.py   executes jobs in this process
    order.py    assert_order and wait_until; plugin.py  the fixtures of the pytest plugin

docs/testing.md explains them. The pytest plugin is loaded in every pytest session of an environment
in which flowq is installed, so importing this package imports nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` resolves, for the type checker
    from flowq.testing.inline import InlineRun, run_inline
    from flowq.testing.order import assert_order, wait_until
    from flowq.testing.worker import InProcessWorker

__all__ = ["InProcessWorker", "InlineRun", "assert_order", "run_inline", "wait_until"]

_MODULE_BY_NAME = {
    "InProcessWorker": "worker",
    "InlineRun": "inline",
    "assert_order": "order",
    "run_inline": "inline",
    "wait_until": "order",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_BY_NAME[name]}"), name)
    globals()[name] = value
    return value
