"""Wait for whatever comes first, cheaply: the sources of a supervisor seldom change."""

from __future__ import annotations

import select
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any


class Waiter:
    """Waits for channels and sockets. Without `poll` (Windows), as multiprocessing does it."""

    def __init__(self) -> None:
        self._sources: list[Any] = []
        self._source_by_descriptor: dict[int, Any] = {}
        self._poll: Any = None

    def wait(self, sources: Sequence[Any], wait_s: float) -> list[Any]:
        """Return the sources that have something to read, or have ended. Blocks: up to `wait_s`."""
        if not hasattr(select, "poll"):
            return wait(sources, wait_s)
        if self._sources != sources:
            self._register(sources)
        # Rounded up, or the last millisecond would be spent asking.
        ready = self._poll.poll(max(0, -int(-wait_s * 1000 // 1)))
        return [self._source_by_descriptor[descriptor] for descriptor, _ in ready]

    def _register(self, sources: Sequence[Any]) -> None:
        self._poll = select.poll()
        self._sources = list(sources)
        self._source_by_descriptor = {source.fileno(): source for source in sources}
        for descriptor in self._source_by_descriptor:
            self._poll.register(descriptor, select.POLLIN)
