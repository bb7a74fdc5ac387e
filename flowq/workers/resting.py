"""Replaces a supervisor that has long been idle with a small process that only waits.

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
"""The interval of checks for what has no event: jobs queued by RQ's tools, and times."""

LONGEST_S = 900.0
"""After so long it becomes a supervisor for a while, which does all kinds of maintenance."""

SPARE_S = 10.0
"""It looks for jobs that ended unnoticed when no other process has done so for this time."""

PART_S = 1.0
"""The pause before the next part of that look, if a run has too many jobs for one part."""

MISSING = ("function not found", "noscript")
"""Answers of a server that does not know the script for that look; a supervisor loads it."""

EARLY_S = 1.0
LATE_S = 5.0
STALE_S = 10.0
"""It wakes for what is due so soon, is so late, or was left undone so long (`_has_work`)."""

MAX_SERVED = 100
"""How many runs of one server may have such a process. A user must resume the others (`flowq
release`), as after a restart of the machine."""

ENDED = (b"succeeded", b"failed", b"canceled")

PIPE_BYTES = 16_384
"""What a pipe can hold on every system; writing more would block."""

_KEPT = 3
"""The descriptor under which the next program inherits the connection."""

_kept: int | None = None
"""The descriptor of that connection in this process, if it has one."""


# In the supervisor -------------------------------------------------------------------------------


def keep_connection(values: dict[str, Any], connection: Redis) -> None:
    """Keep a connection open that shows for the life of this process that it serves the run.

    The names of the server's clients tell which runs are served. A supervisor closes its other
    connections before it rests, so without this one the run would seem unserved for a moment. The
    connection is inherited from the program before (`values` name it), or new. Errors: none.
    """
    global _kept  # noqa: PLW0603 - a process is one supervisor
    _kept = values.pop("held", None)
    path = connection.connection_pool.connection_kwargs.get("path")
    if _kept is None and path and (wire := _connect(path, values["client_name"])) is not None:
        _kept = wire.socket.detach()


def close_kept_connection() -> None:
    """In a forked child: close that connection, because the child could outlive the supervisor."""
    global _kept  # noqa: PLW0603 - as above
    if _kept is not None:
        os.close(_kept)
    _kept = None


def rest(values: dict[str, Any], command: list[str], connection: Redis) -> None:
    """Become the waiting process, which can become this supervisor again.

    `command` starts a supervisor, which reads `values` from its input.

    Returns only if this is not possible: then the process should end. Errors: none.
    """
    from flowq.runtime import keys  # noqa: PLC0415 - the waiting process must not load these
    from flowq.runtime.listening import find_served  # noqa: PLC0415 - the same
    from flowq.runtime.scripts import STEP  # noqa: PLC0415 - the same
    from flowq.runtime.steps import LOOKS_PER_STEP  # noqa: PLC0415 - the same

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
    replace_process([sys.executable, "-I", "-S", __file__, run_id], told, _kept)


def _connect(path: str, name: str) -> Connection | None:
    """Return a connection with this client name; None if the server is gone."""
    try:
        wire = Connection(path, timeout_s=4 * LOOK_S)
        wire.ask("CLIENT", "SETNAME", name)
    except (OSError, Refused):
        return None
    return wire


def replace_process(command: list[str], said: dict[str, Any], held: int | None) -> None:
    """Replace this process by another program, with `said` as JSON in its input. Does not return.

    `held` is the descriptor of the connection that the program inherits.
    """
    said["held"] = None if held is None else _KEPT
    reader = _make_input(json.dumps(said).encode())
    os.dup2(reader, 0)
    os.close(reader)
    if held is not None and held != _KEPT:
        os.dup2(held, _KEPT)
    if held is not None:
        os.set_inheritable(_KEPT, True)
    os.execv(command[0], command)  # noqa: S606 - our own words


def _make_input(told: bytes) -> int:
    """Return a descriptor from which the text can be read."""
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
    except (OSError, Refused):  # the supervisor handles that
        is_over = False
    if is_over:
        return 0
    replace_process(told["command"], told["values"], None if wire is None else wire.fileno())
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
    """Whether there are jobs to execute, something is due, or work was left undone."""
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
    """Whether something of the run is due soon, or something of another run is long overdue."""
    now = time.time()
    if wire.ask("ZCOUNT", index, "-inf", str(now - LATE_S)):
        return True
    due: Any = wire.ask("ZRANGEBYSCORE", index, "-inf", str(now + EARLY_S))
    run, prefix = run_id.encode(), f"{run_id}-".encode()
    return any(member == run or member.startswith(prefix) for member in due)


def _look_for_unnoticed(
    wire: Connection, told: dict[str, Any], spare_s: float
) -> tuple[bool, bool]:
    """Look for jobs of the run that ended unnoticed, if that has been due for `spare_s`.

    Returns whether something was found, with which a supervisor must go on, and whether a part of
    the jobs is still to be looked at. Finds nothing while the server refuses writes.
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
