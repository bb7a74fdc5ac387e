"""Workers: a supervisor that talks to Redis, and children that run the jobs, on every platform.

    Worker                  for `python -m flowq.workers`, `rq worker -w flowq.Worker`, or a script
    MultiprocessingWorker   the same with spawned children
    start(url=…)            a worker in a process of its own

    worker.py       what it looks like from outside
    supervisor.py   the loop that waits for children, Redis and signals
    turns.py        what is said to Redis, and when
    redis_side.py   the script calls; wakeup.py how Redis wakes us; address.py how to connect
    children.py     the children, as the supervisor knows them; monitor.py stops and kills them
    processes/      how one is started, and how it ends: fork.py or spawn.py
    child/          what runs in one: main.py its loop, execute.py one job, rq_work.py what RQ's
                    own code does
    messages.py     the values between them; child_messages.py their form; shared_state.py the
                    memory that both see
    estimates.py    how long jobs take; periodic.py what is done now and then
    output.py       what jobs print; scratch_folder.py where that is until they end
    launch.py       a worker as a process; serving.py workers for one run; resting.py what takes
                    their place while it only waits

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
