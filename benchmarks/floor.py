"""The floor under every system: what this machine needs for a round trip, a process, a pipe.

    python benchmarks/floor.py [--repeat 5]

`peers.py` measures it too, in the same run. Figures: microseconds for one, median, minimum and
maximum of the repetitions, and how many in a second that is. This file loads the standard library
only, because the processes that it spawns import it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

PING = b"*1\r\n$4\r\nPING\r\n"
SCRIPT = b"*3\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n0\r\n"


class Floor(NamedTuple):
    """One line of the floor; the values are microseconds for one, sorted."""

    name: str
    microseconds: list[float]


def read_floor(port: int, repeat: int) -> list[Floor]:
    """Return the floor, measured by a process that has loaded nothing else; repeat 0: nothing."""
    if not repeat:
        return []
    command = [sys.executable, str(Path(__file__)), "--port", str(port), "--json"]
    done = subprocess.run(
        [*command, "--repeat", str(repeat)], stdout=subprocess.PIPE, check=True, timeout=300
    )
    return [Floor(*line) for line in json.loads(done.stdout)]


def measure_floor(port: int, repeat: int) -> list[Floor]:
    """Return the floor, against the server at a port of the loopback."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    measures: dict[str, Callable[[], float]] = {
        "Redis ping-pong": lambda: timed(3_000, lambda: ask(connection, PING)),
        "Redis script": lambda: timed(3_000, lambda: ask(connection, SCRIPT)),
        "fork and wait": lambda: timed(100, fork_and_wait),
        "spawn a Python": lambda: timed(5, spawn_python),
        "multiprocessing spawn": lambda: timed(5, spawn_process),
        "pipe round trip, warm child": pipe_round_trip,
    }
    if not hasattr(os, "fork"):
        del measures["fork and wait"]
    return [
        Floor(name, sorted(measure() for _ in range(repeat))) for name, measure in measures.items()
    ]


def timed(count: int, call: Callable[[], object]) -> float:
    """Return the microseconds of one call."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) * 1e6 / count


def ask(connection: socket.socket, request: bytes) -> None:
    """Make one round trip."""
    connection.sendall(request)
    connection.recv(64)


def fork_and_wait() -> None:
    """Fork a process that does nothing."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def spawn_python() -> None:
    """Start an interpreter that does nothing."""
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def nothing() -> None:
    """Do nothing."""


def spawn_process() -> None:
    """Start a process by multiprocessing's spawn, and wait for it."""
    process = multiprocessing.get_context("spawn").Process(target=nothing)
    process.start()
    process.join()


def pipe_round_trip(count: int = 5_000) -> float:
    """Return the microseconds of a message to a child that waits, and its answer."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=echo, args=(there,))
    child.start()
    there.close()

    def call() -> None:
        here.send(("module.function", (1,), {}))
        here.recv()

    call()
    microseconds = timed(count, call)
    here.close()
    child.join()
    return microseconds


def echo(channel: Connection) -> None:
    """Answer each message with itself, until the other side closes."""
    while True:
        try:
            channel.send(channel.recv())
        except EOFError:
            return


def floor_lines(floor: list[Floor]) -> list[str]:
    """Return the floor as lines of text."""
    return [_line(name, values, statistics.median(values)) for name, values in floor]


def _line(name: str, values: list[float], median: float) -> str:
    spread = f"{values[0]:,.0f}–{values[-1]:,.0f}"
    return f"floor: {name:28} {median:>8,.0f} µs ({spread}), {1e6 / median:>7,.0f} a second"


def main() -> None:
    """Measure the floor alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.json:
        print(json.dumps(measure_floor(options.port, options.repeat)))
        return
    from harness.server import private_server  # noqa: PLC0415 - not in the processes that we spawn

    with private_server() as server:
        print(*floor_lines(read_floor(server.port, options.repeat)), sep="\n")


if __name__ == "__main__":
    main()
