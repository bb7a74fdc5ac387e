"""Maintenance in tests looks so rarely for what ended unnoticed that it hides no fault.

Workers look every half minute whether a job has ended without being settled. Tests wait longer than
that (`conftest.LIMIT_S`), so they would pass, half a minute late, though no end was settled. Tests
of the maintenance do not wait for it: they call `maintenance.examine`, or make a run due.

This is for the processes of the tests and those of `start_worker`. What a test starts as users do
has the usual interval, but its first look is at the instant that the process which began the run
has set.
"""

from __future__ import annotations

from functools import cache

from flowq.runtime import scripts

USUAL, RARE = "runs.WATCH_S = 30\n", "runs.WATCH_S = 3600\n"


def make_repairs_rare() -> None:
    """Change the interval in the scripts of this process, before their texts are put together."""
    read = scripts._read

    @cache
    def read_rare(name: str) -> str:
        return read(name).replace(USUAL, RARE)

    scripts._read = read_rare
