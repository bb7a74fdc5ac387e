"""The order in which jobs are enqueued: each after what it blocks, and as declared within that."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from flowq.plan import Enqueue


def futures_first(enqueues: Sequence[Enqueue]) -> list[Enqueue]:
    """Reorder jobs so that each comes after the future jobs that it blocks.

    A blocker can only be added to a future job that exists, and the blockers of one future job are
    freed in the order of their addition, so those are to stand as they were declared. `enqueues`
    is in topological order, as declared wherever that leaves a choice.
    """
    index_by_id = {enqueue.job_id: index for index, enqueue in enumerate(enqueues)}
    blockers: list[list[int]] = [[] for _ in enqueues]
    waits_for = [0] * len(enqueues)
    for index, enqueue in enumerate(enqueues):
        for block in enqueue.blocks:
            future = index_by_id.get(block.name)
            if future is not None:
                blockers[future].append(index)
                waits_for[index] += 1
    ready = [index for index, count in enumerate(waits_for) if not count]
    ordered: list[Enqueue] = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(enqueues[index])
        for blocker in blockers[index]:
            waits_for[blocker] -= 1
            if not waits_for[blocker]:
                heapq.heappush(ready, blocker)
    return ordered
