"""When a pool may start its next child, and when its worker gives up.

`Pool` in children.py reports each death of a child here. A child that cannot start is told from one
that was killed: nothing helps the first kind, and the second may be over soon. Nothing here starts
or ends a process.
"""

from __future__ import annotations

from flowq.errors import FlowqError

YOUNG_S = 5.0
PAUSE_S = 0.1
"""The pause before a child that lived shorter than YOUNG_S is replaced. Whatever ends the children,
the worker must not spend all its time on starting new ones."""

MAX_PAUSE_S = 5.0
"""The pause doubles up to this, each time all children were killed before they were ready."""

MAX_KILLS, MAX_KILLED_S = 10, 60.0
"""A worker gives up after so many such kills for each of its children, and so much time, in which
no child was ready. A user or a test may kill several in a row; a lack of memory does not end."""

MAX_FALSE_STARTS = 3
"""A worker gives up after more failed starts than this for each of its children."""


class Restarts:
    """Counts the children of one pool that ended early. Instants are on the monotonic clock.

    Attributes:
        next_at: when the next child may be started.
    """

    def __init__(self) -> None:
        self.next_at = 0.0
        self._false_starts = 0
        self._early_kills = 0
        """How many were killed before they were ready, since a child ended that was ready."""
        self._killed_since = 0.0

    def check(self, size: int, now: float, *, is_any_ready: bool, preloads: bool) -> None:
        """Give up if there is no hope that a child becomes ready. Errors: FlowqError.

        Args:
            size: how many children the pool should have.
            is_any_ready: whether a child of the pool is ready now.
            preloads: whether the children import modules of the user before they are ready.
        """
        if self._false_starts > MAX_FALSE_STARTS * size:
            raise FlowqError("children end before they can take a job; see the messages above")
        if is_any_ready:
            self._killed_since = now
            return
        is_often = self._early_kills >= MAX_KILLS * size
        if is_often and now - self._killed_since >= MAX_KILLED_S:
            option = " and --preload" if preloads else ""
            raise FlowqError(
                f"{self._early_kills} children in a row were killed before they could take a job; "
                f"probably memory is short: check the limits of the service or container{option}, "
                "or start fewer children (-c)"
            )

    def note_end(self, *, was_ready: bool) -> None:
        """Note the end of any child, also of one that was told to end."""
        if was_ready:
            self._false_starts = self._early_kills = 0

    def note_death(
        self, size: int, started_at: float, now: float, *, was_ready: bool, was_killed: bool
    ) -> None:
        """Note that a child ended that nobody had told to end.

        One that was killed before it was ready says little about the next one: on a slow machine it
        takes seconds to start, and a killer can meet many in a row. So such kills count apart.
        """
        if was_ready:
            if now - started_at < YOUNG_S:
                self.next_at = now + PAUSE_S
        elif not was_killed:  # however long it took: a machine may be slow
            self._false_starts += 1
        else:
            if not self._early_kills:
                self._killed_since = now
            doublings = min(self._early_kills // size, 10)
            self.next_at = now + min(PAUSE_S * 2**doublings, MAX_PAUSE_S)
            self._early_kills += 1
