"""The order in which jobs are enqueued: each after what it blocks, and as declared within that."""

from __future__ import annotations

from collections.abc import Sequence

from flowq.graph import sort_by_edges
from flowq.plan import Enqueue


def futures_first(enqueues: Sequence[Enqueue]) -> list[Enqueue]:
    """Reorder jobs so that each comes after the future jobs that it blocks.

    A blocker can only be added to a future job that exists, and the blockers of one future job are
    freed in the order of their addition, so those are to stand as they were declared. `enqueues`
    is in topological order, as declared wherever that leaves a choice.
    """
    index_by_id = {enqueue.job_id: index for index, enqueue in enumerate(enqueues)}
    blockers: list[list[int]] = [[] for _ in enqueues]
    for index, enqueue in enumerate(enqueues):
        for block in enqueue.blocks:
            future = index_by_id.get(block.name)
            if future is not None:
                blockers[future].append(index)
    return [enqueues[index] for index in sort_by_edges(blockers)]
