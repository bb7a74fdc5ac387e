"""Adding the items of a group, and the jobs of a nested workflow, while the run runs.

Both happen in jobs of their own, or at the end of an item that finds further ones. Whoever adds is
a blocker of all that the new jobs block, so the door is open. A second execution (a retry, a crash)
meets what the first one added: indexes are given by the items' keys, ids are made of indexes.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.binding import Item, bind_item
from flowq.errors import TooManyItems, UsageError
from flowq.expressions import evaluate
from flowq.plan import Enqueue, Expansion, Nested
from flowq.runtime import keys, scripts
from flowq.runtime.job import Job, get_job
from flowq.runtime.planned import add_planned, batches, declare_groups
from flowq.runtime.steps import finish

if TYPE_CHECKING:
    from redis import Redis

ITEMS_PER_CALL = 50


def expand(job: Job, expansion: Expansion, items: object) -> int:
    """Add the items of a group; return how many it has. A finished expansion keeps its list.

    Errors: UsageError for what is no list; TooManyItems.
    """
    connection, group = job.connection, keys.group(job.id)
    if not connection.hexists(group, "complete"):
        values = _listed(items, f"the for_each of {job.name}")
        _add_items(job.id, job.run_id, expansion, values, "", connection)
    return int(connection.hget(group, "size") or 0)


def grow(job: Job, group_id: str, values: Mapping[str, Any]) -> None:
    """Add the items that a finished item has found to its own group.

    `values` are those that expressions see, its result among them.
    Errors: UsageError for what is no list; TooManyItems; WorkflowInvalid.
    """
    work = get_job(group_id, job.connection).args[0]
    expansion: Expansion = work["expansion"]
    found = evaluate(expansion.each.more, inputs=work.get("inputs", {}), scope=values)
    items = _listed(found, f"`more` of {job.name}")
    prefix = f"{job.id.removeprefix(group_id)}."
    _add_items(group_id, job.run_id, expansion, items, prefix, job.connection)


def _listed(items: object, what: str) -> list[Any]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        shown = f"{type(items).__name__} {items!r:.60}"
        raise UsageError(f"{what} needs a list, and got {shown}")
    return list(items)


def _add_items(
    group_id: str,
    run_id: str,
    expansion: Expansion,
    values: Iterable[Any],
    prefix: str,
    connection: Redis,
) -> None:
    numbered = enumerate(values)
    while part := list(islice(numbered, ITEMS_PER_CALL)):
        keyed = [(_key(expansion, at, value, prefix), value) for at, value in part]
        fresh = list(_give_indexes(group_id, keyed, connection))
        enqueues = [
            bind_item(
                template, Item(index, value, key if expansion.each.key else str(index)), group_id
            )
            for index, key, value in fresh
            for template in expansion.templates
        ]
        add_all(enqueues, run_id, connection)


def _key(expansion: Expansion, at: int, value: Any, prefix: str) -> str:
    if expansion.each.key is None:
        return f"{prefix}{at}"
    key = evaluate(expansion.each.key, scope={"item": value, "index": at})
    return key if isinstance(key, str) else json.dumps(key, default=str)


def _give_indexes(
    group_id: str, keyed: Sequence[tuple[str, Any]], connection: Redis
) -> Iterator[tuple[int, str, Any]]:
    """Yield the index, key and value of each item that has no job yet."""
    arguments = [part for key, value in keyed for part in (key, pickle.dumps(value))]
    answer = scripts.GROW.call(connection, keys.group(group_id), group_id, len(keyed), *arguments)
    if isinstance(answer[0], bytes | str):
        name = as_text(connection.hget(keys.group(group_id), "name") or group_id)
        raise TooManyItems(name, int(answer[1]))
    seen: set[int] = set()
    for (key, value), index, exists in zip(keyed, answer[::2], answer[1::2], strict=True):
        if not exists and index not in seen:
            seen.add(index)
            yield index, key, value


def add_all(enqueues: Sequence[Enqueue], run_id: str, connection: Redis) -> None:
    """Enqueue jobs while their run runs, and release the future jobs among them."""
    for part in batches(enqueues):
        add_planned(part, run_id, connection)
    for enqueue in reversed(enqueues):
        if enqueue.deferred:
            scripts.RELEASE.call(connection, keys.job(enqueue.job_id), enqueue.job_id, 0)
            finish(connection, f"free:{enqueue.job_id}")


def start(job: Job, nested: Nested, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Add the jobs of a nested workflow in front of its join; return its inputs.

    Errors: WorkflowInvalid for inputs that do not fit, and for expressions without a value.
    """
    # Not at the top: only these jobs need the graph, whose import takes a child longer than a fork.
    from flowq.inputs import resolve_inputs  # noqa: PLC0415
    from flowq.planner import plan_nested  # noqa: PLC0415

    inputs = resolve_inputs(nested.workflow, arguments)
    run = {"id": job.run_id, "workflow": nested.workflow.name}
    groups, enqueues = plan_nested(nested, inputs, run)
    with job.connection.pipeline() as pipeline:
        declare_groups(groups, job.run_id, pipeline)
        pipeline.execute()
    add_all(enqueues, job.run_id, job.connection)
    return inputs
