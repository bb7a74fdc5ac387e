"""The floor of the work that uses the processor: `python bare.py PROCESSES COUNT BODY`.

Processes that do nothing else call the same body, each its share of the times. Prints how many
seconds that took, from the moment at which all of them were ready.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

import mark
from body import Body, read_body


def work(channel: Connection, count: int, body: Body) -> None:
    """Wait for the word, call the body so many times, and say when that was done."""
    function = getattr(mark, body.name)
    function(*body.arguments)
    channel.send("ready")
    channel.recv()
    for _ in range(count):
        function(*body.arguments)
    channel.send(time.time())


def main(processes: int, count: int, body: Body) -> float:
    """Return the seconds."""
    context = multiprocessing.get_context("spawn")
    channels = []
    for _ in range(processes):
        here, there = context.Pipe()
        context.Process(target=work, args=(there, count // processes, body), daemon=True).start()
        channels.append(here)
    for channel in channels:
        channel.recv()
    began_at = time.time()
    for channel in channels:
        channel.send("go")
    return max(channel.recv() for channel in channels) - began_at


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), read_body(sys.argv[3])))
