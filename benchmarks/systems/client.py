"""The process that declares jobs, in the environment of one system: `python client.py MODULE`.

It reads orders and writes answers, one JSON line each; errors are answers too. Orders:

    {"do": "declare", "shape": "fan_in", "count": 10, "body": "spin:10", "hold": true}
    {"do": "go"}
    {"do": "trickle", "count": 200, "pause_s": 0.02}

MODULE has a function for each shape that the system can express, with what is to be held back:

    fan_in(count, body, hold), chain(count, hold), diamonds(count, hold)
    one()    enqueue one job that does nothing
    go()     let what is held start; without it, nothing is held, because no worker runs yet

`bullmq_client.js` speaks the same.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from types import ModuleType
from typing import Any

from body import read_body


def carry_out(tasks: ModuleType, order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says; return when it began (epoch) and how long it took (seconds)."""
    if order["do"] == "trickle":
        return {"enqueued_at": [_enqueue_one(tasks, order) for _ in range(order["count"])]}
    call = _declaration(tasks, order) if order["do"] == "declare" else getattr(tasks, "go", int)
    began_at, began = time.time(), time.perf_counter()
    call()
    return {"began_at": began_at, "seconds": time.perf_counter() - began}


def _declaration(tasks: ModuleType, order: dict[str, Any]) -> Any:
    declare = getattr(tasks, order["shape"])
    body = [read_body(order["body"])] if order["shape"] == "fan_in" else []
    return lambda: declare(order["count"], *body, order["hold"])


def _enqueue_one(tasks: ModuleType, order: dict[str, Any]) -> float:
    time.sleep(order["pause_s"] * random.uniform(0.5, 1.5))
    at = time.time()
    tasks.one()
    return at


def main() -> None:
    """Serve until the other side closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    tasks = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = carry_out(tasks, json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever a system raises is its answer
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # some clients take their time to close, or complain


if __name__ == "__main__":
    main()
