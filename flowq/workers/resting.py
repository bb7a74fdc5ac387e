"""Replaces a supervisor that is idle for long with a small process that only waits.

Both are the same process: each replaces itself with the other by `exec`, which keeps the process
id, the environment and the current folder. The waiting program loads a fraction of the supervisor's
modules, and blocks on the server until the run's next event. It runs without `site`, like the
guardian (`flowq/server/`).
"""

# Every import counts here, and pathlib is a large one:
from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # at the end, so that nothing in it can hide a standard module
    sys.path.append(__file__.rsplit("flowq", 1)[0])

from flowq.server.resp import Connection, Refused

if TYPE_CHECKING:
    from redis import Redis

LOOK_S = 5.0
"""How often to ask for what no event of the run tells: jobs queued by RQ's tools, and times."""

LONGEST_S = 900.0
"""How often to be a supervisor for a while, which looks after more than that."""

SPARE_S = 10.0
"""How late the look for jobs of the run that ended unnoticed is when nobody else makes it."""

PART_S = 1.0
"""How soon the next part of such a look follows, where a run has too many jobs for one."""

MISSING = ("function not found", "noscript")
"""What the server says when it does not know the script that looks; a supervisor loads it."""

EARLY_S = 1.0
LATE_S = 5.0
STALE_S = 10.0
"""What is due this long in advance, or late, or left undone, concerns us (see `_has_work`)."""

MAX_SERVED = 100
"""How many runs may be waited for like that on one server. What waits longest then has to be let go
on by hand, as after a restart of the machine."""

ENDED = (b"succeeded", b"failed", b"canceled")

PIPE_BYTES = 16_384
"""What a pipe takes on every system while nobody reads from it; writing more would block."""

_HELD = 3
"""The descriptor under which a connection goes over into the next program."""

_held: int | None = None
"""The descriptor of that connection, in the process that has it."""


# In the supervisor -------------------------------------------------------------------------------


def hold(values: dict[str, Any], connection: Redis) -> None:
    """Keep a connection that says for as long as this process lives that it serves the run.

    The names of the server's clients say which runs are served. The other connections are closed
    before a supervisor rests, so without this one nobody would serve the run for a moment. It is
    the one that `values` name, from the program before, or a new one. Errors: none.
    """
    global _held  # noqa: PLW0603 - a process is one supervisor
    _held = values.pop("held", None)
    path = connection.connection_pool.connection_kwargs.get("path")
    if _held is None and path and (wire := _connect(path, values["client_name"])) is not None:
        _held = wire.socket.detach()


def close_held() -> None:
    """In a child that was forked: close that connection, which could outlive the supervisor."""
    global _held  # noqa: PLW0603 - as above
    if _held is not None:
        os.close(_held)
    _held = None


def rest(values: dict[str, Any], command: list[str], connection: Redis) -> None:
    """Become the process that waits, with what it takes to be this supervisor again.

    `command` starts a supervisor, which reads `values` from its input.

    Returns where that cannot be: the process should end then. Errors: none.
    """
    from flowq.runtime import keys  # noqa: PLC0415 - not for the one that waits
    from flowq.runtime.scripts import STEP  # noqa: PLC0415 - the same
    from flowq.runtime.steps import LOOKS_PER_STEP  # noqa: PLC0415 - the same
    from flowq.runtime.wip import find_served  # noqa: PLC0415 - the same

    path = connection.connection_pool.connection_kwargs.get("path")
    run_id = values["until_run"]
    if not path or len(find_served(connection) - {run_id}) >= MAX_SERVED:
        return
    told = {
        "path": path,
        "executable": sys.executable,
        "command": command,
        "values": values,
        "run_id": run_id,
        "queue": keys.queue(values["queues"][0]),
        "scheduled": keys.scheduled(values["queues"][0]),
        "run": keys.run(run_id),
        "events": keys.run_events(run_id),
        "expiring": keys.EXPIRING,
        "deadlines": keys.DEADLINES,
        "rounds": keys.ROUNDS,
        "todo": keys.TODO,
        "watched": keys.WATCHED,
        "look": [
            str(word)
            for word in STEP.words(
                connection.connection_pool, keys.TODO, "look:due", LOOKS_PER_STEP
            )
        ],
    }
    become([sys.executable, "-I", "-S", __file__, run_id], told, _held)


def _connect(path: str, name: str) -> Connection | None:
    """Return a connection with a name; None without a server."""
    try:
        wire = Connection(path, timeout_s=4 * LOOK_S)
        wire.ask("CLIENT", "SETNAME", name)
    except (OSError, Refused):
        return None
    return wire


def become(command: list[str], said: dict[str, Any], held: int | None) -> None:
    """Put another program into this process, with `said` as its input, and `held` in it: where the
    connection is that it gets from this one. Does not return.
    """
    said["held"] = None if held is None else _HELD
    reader = _make_input(json.dumps(said).encode())
    os.dup2(reader, 0)
    os.close(reader)
    if held is not None and held != _HELD:
        os.dup2(held, _HELD)
    if held is not None:
        os.set_inheritable(_HELD, True)
    os.execv(command[0], command)  # noqa: S606 - our own words


def _make_input(told: bytes) -> int:
    """Return a descriptor from which that can be read."""
    if len(told) > PIPE_BYTES:
        import tempfile  # noqa: PLC0415 - seldom needed, and large

        with tempfile.TemporaryFile() as file:
            file.write(told)
            file.seek(0)
            return os.dup(file.fileno())
    reader, writer = os.pipe()
    os.write(writer, told)
    os.close(writer)
    return reader


# In the process that waits -----------------------------------------------------------------------


def main() -> int:
    """Wait; become the supervisor again, or end with the run."""
    told = json.load(sys.stdin)
    wire = _connect(told["path"], told["values"]["client_name"])
    if wire is not None and told.get("held") is not None:
        os.close(told["held"])
    try:
        is_over = wire is not None and not _wait(wire, told)
    except (OSError, Refused):  # the supervisor knows what to do
        is_over = False
    if is_over:
        return 0
    become(told["command"], told["values"], None if wire is None else wire.fileno())
    return 1


def _wait(wire: Connection, told: dict[str, Any]) -> bool:
    """Wait until something can be done; False when the run has ended, or is gone."""
    newest: Any = wire.ask("XREVRANGE", told["events"], "+", "-", "COUNT", "1")
    last = newest[0][0].decode() if newest else "0"
    until = time.monotonic() + LONGEST_S
    is_looking = False
    while time.monotonic() < until:
        if _is_over(wire, told):
            return False
        if _has_work(wire, told):
            return True
        has_found, is_looking = _look_for_unnoticed(wire, told, 0 if is_looking else SPARE_S)
        if has_found:
            return True
        block_ms = str(int((PART_S if is_looking else LOOK_S) * 1000))
        if wire.ask("XREAD", "COUNT", "1", "BLOCK", block_ms, "STREAMS", told["events"], last):
            return not _is_over(wire, told)
    return True


def _is_over(wire: Connection, told: dict[str, Any]) -> bool:
    """Whether the run is gone, or has ended and left no job to evaluate its outputs."""
    state = wire.ask("HGET", told["run"], "state")
    return state is None or (state in ENDED and not wire.ask("LLEN", told["queue"]))


def _has_work(wire: Connection, told: dict[str, Any]) -> bool:
    """Whether there are jobs to execute, something is due, or others have left something."""
    if wire.ask("LLEN", told["queue"]):
        return True
    now = time.time()
    if wire.ask("ZCOUNT", told["scheduled"], "-inf", str(now + EARLY_S + LOOK_S)):
        return True
    if wire.ask("ZCOUNT", told["todo"], "-inf", str(now - STALE_S)):
        return True
    return any(_is_due(wire, told[index], told["run_id"]) for index in _INDEXES)


_INDEXES = ("expiring", "deadlines", "rounds")


def _is_due(wire: Connection, index: str, run_id: str) -> bool:
    """Whether something of the run is due soon, or something of another run has been for long."""
    now = time.time()
    if wire.ask("ZCOUNT", index, "-inf", str(now - LATE_S)):
        return True
    due: Any = wire.ask("ZRANGEBYSCORE", index, "-inf", str(now + EARLY_S))
    run, prefix = run_id.encode(), f"{run_id}-".encode()
    return any(member == run or member.startswith(prefix) for member in due)


def _look_for_unnoticed(
    wire: Connection, told: dict[str, Any], spare_s: float
) -> tuple[bool, bool]:
    """Look for jobs of the run that ended unnoticed, when that has been due for `spare_s`.

    Returns whether something was found, for a supervisor to go on with, and whether only a part of
    the jobs was looked at. While the server refuses to write nothing is: a later look will do.
    """
    due_at: Any = wire.ask("ZSCORE", told["watched"], told["run_id"])
    if due_at is None or float(due_at) > time.time() - spare_s:
        return False, False
    more: Any = 1
    while more:
        try:
            _, more, _, begun, found = wire.ask(*told["look"])  # type: ignore[misc]
        except Refused as error:
            return any(word in str(error).lower() for word in MISSING), False
        if begun or found:
            return True, False
    due_at = wire.ask("ZSCORE", told["watched"], told["run_id"])
    return False, due_at is not None and float(due_at) <= time.time()


if __name__ == "__main__":
    sys.exit(main())
