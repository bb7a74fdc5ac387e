"""Workers: a supervisor that talks to Redis, and children that run the jobs, on every platform.

    Worker                  for `python -m flowq.workers`, `rq worker -w flowq.Worker`, or a script
    MultiprocessingWorker   the same with spawned children
    start(url=…)            a worker in a process of its own

    worker.py       the interface of RQ's worker
    supervisor.py   the loop that waits for children, Redis and signals
    turns.py        when to report ends and to claim jobs; redis_side.py the script calls for that
    claims.py       a claimed job, until its end is confirmed; estimates.py how long jobs take
    children.py     the children: their jobs, ends and deaths; restarts.py when the next one may
                    start; monitor.py timeouts, stops and kills
    processes/      how a child is started and killed: fork.py or spawn.py
    child/          what runs in a child: main.py the loop, execute.py one job, rq_work.py RQ's;
                    tags.py tags what Sentry and Datadog record; spans.py spans of OpenTelemetry
    messages.py     the values that supervisor and child exchange; child_messages.py their bytes;
                    shared_state.py the memory that both can read
    output.py       the output of jobs; scratch_folder.py the folder where it is until they end
    logs.py         what a worker says of itself, as lines or as JSON
    periodic.py     heartbeats, schedules, maintenance, lost workers
    wakeup.py       how Redis wakes an idle worker; address.py how to connect
    launch.py       a worker as a process; serving.py workers for one run; resting.py the process
                    that takes their place while they are idle

A name of this package loads its module when it is first used.
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
