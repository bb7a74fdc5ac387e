"""Why a job was started again: each repeated start with the kill that explains it, if any does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.evidence import Execution, Kill

FORGETS_S = 2.0
"""The server writes its file before it answers, but a slow disk may hold that up for so long
(`appendfsync everysec`): what is that old when the server is killed may be undone."""

SILENT_S = 3.0
"""How long after a server is back a worker may still wait before it tries again."""

BEGINS_S = 0.3
"""How long a process goes on after it was chosen to be killed, on a machine that is busy."""

REPORTS_S = 0.5
"""How long a job may have ended before anybody outside of its process knows."""


@dataclass(frozen=True)
class Repeat:
    """A job that started again, and the kill that explains it."""

    before: Execution
    after: Execution
    kill: Kill | None
    when: str = ""

    @property
    def recovery_s(self) -> float:
        """How long it took from the kill to the next start."""
        return self.after.started_at - self.kill.at if self.kill else 0.0

    def __str__(self) -> str:
        start = f"{self.before.job_id} started {self.before.started_at:.3f}"
        again = f"again {self.after.started_at:.3f}"
        if self.kill is None:
            return f"{start}, {again}: NO REASON FOUND"
        kill = self.kill
        who = f"{kill.kind} {kill.worker or kill.pid} killed {kill.at:.3f}"
        return f"{start}, {again}: {who}, {self.when}"


def find_repeats(executions: Iterable[Execution], kills: Sequence[Kill]) -> Iterator[Repeat]:
    """Yield what started again, but for what its own Retry or the retry of its run wanted."""
    for before, after in pairwise(executions):
        if after.generation > before.generation or is_planned(before):
            continue
        kill, when = find_reason(before, after.started_at, kills) or (None, "")
        yield Repeat(before, after, kill, when)


def is_planned(execution: Execution) -> bool:
    """Whether it failed as the graph wanted it to."""
    return execution.how == "raise" and execution.text.startswith("Planned")


def is_over(
    execution: Execution,
    at: float,
    kills: Sequence[Kill],
    stopped: Collection[tuple[str, int]] = (),
) -> bool:
    """Whether an execution had ended at an instant: by itself, by a kill, or stopped.

    Shape: `stopped` has ids of jobs with the generation in which a deadline stopped them.
    """
    if execution.started_at > at:
        return False
    if execution.ended_at is not None:
        return execution.ended_at <= at
    if (execution.job_id, execution.generation) in stopped:
        return True
    return find_reason(execution, at, kills) is not None


def find_reason(
    execution: Execution, until: float, kills: Sequence[Kill]
) -> tuple[Kill, str] | None:
    """Return the kill that made an execution not count, and when it was seen from there.

    Own processes first, then the server; what happened during the execution before what happened
    just before or after it.
    """
    for near in (0.0, 1.0):
        for kill in kills:
            if kill.at <= until and _is_own(kill, execution) and _is_near(kill, execution, near):
                return kill, _when(kill, execution)
        for kill in kills:
            if kill.at <= until and kill.kind == "server" and _was_away(kill, execution, near):
                return kill, _when(kill, execution)
    return None


def _is_own(kill: Kill, execution: Execution) -> bool:
    if kill.kind == "worker":
        return kill.worker == execution.worker
    return kill.kind in ("child", "nursery") and kill.pid in (execution.pid, execution.parent)


def _is_near(kill: Kill, execution: Execution, near: float) -> bool:
    first = execution.started_at - near * BEGINS_S
    if execution.ended_at is None:
        return first <= kill.at
    return first <= kill.at <= execution.ended_at + near * REPORTS_S


def _was_away(kill: Kill, execution: Execution, near: float) -> bool:
    """Whether an end could not be told, or a start or an end may be forgotten."""
    back_at = kill.at + near * ((kill.back_s or 0.0) + SILENT_S)
    if back_at < execution.started_at - near * FORGETS_S:
        return False
    return execution.ended_at is None or kill.at <= execution.ended_at + near * FORGETS_S


def _when(kill: Kill, execution: Execution) -> str:
    if kill.at < execution.started_at:
        return f"{execution.started_at - kill.at:.3f} s before that start"
    if execution.ended_at is not None and kill.at > execution.ended_at:
        return f"{kill.at - execution.ended_at:.3f} s after its end"
    return "during that execution"
