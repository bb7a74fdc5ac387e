"""Workers: a supervisor that talks to Redis, and children that run the jobs, on every platform.

    Worker                  for `python -m flowq.workers`, `rq worker -w flowq.Worker`, or a script
    MultiprocessingWorker   the same with spawned children
    start(url=…)            a worker in a process of its own

    worker.py     what it looks like from outside         loop.py      the supervisor
    turns.py      what it says to Redis, and when
    oversight.py  takes back, stops, kills; upkeep.py     what is done now and then
    crew.py       the children, as the supervisor knows them; reaping.py  those of a process 1
    hire.py       one of them, started by fork.py or spawn.py
    child.py      the main loop of a child; perform.py executes one job in it, that
    restoring.py  has made from its hash; environment.py  tells it its id
    sources.py    whether what a child has imported is still the same
    ledger.py     what Redis is told; doorbell.py         how Redis wakes us
    address.py    how to connect
    serving.py    workers for one run; resting.py         what takes their place while it only waits
    code_digest.py  what code a job was made of
    limits.py     when a worker ends by itself
    claims.py     the values between them; cell.py        the shared memory beside them
    pace.py       how long jobs take; deadline.py when their time is up
    output.py     what they print; scratch.py where that is until they end,
                  scratch_folder.py in which folder

Nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` resolves, for the type checker
    from flowq.workers.launch import main, start
    from flowq.workers.worker import MultiprocessingWorker, Worker

__all__ = ["MultiprocessingWorker", "Worker", "main", "start"]

_MODULE_BY_NAME = {
    "MultiprocessingWorker": "worker",
    "Worker": "worker",
    "main": "launch",
    "start": "launch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_BY_NAME[name]}"), name)
    globals()[name] = value
    return value
