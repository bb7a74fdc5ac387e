"""Adds the items of a group, and the jobs of a nested workflow, while the run runs.

Both happen in jobs of their own, or at the end of an item that finds further items. The adding job
blocks all future jobs that the new jobs block, so these cannot start before. A second execution
(after a retry or a crash) finds what the first one added: the keys of items determine their
indexes, and the indexes their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from rq.serializers import PickleSerializer
from rq.utils import as_text

from flowq.binding import Item, bind_item, can_fail
from flowq.errors import RunNotFound, TooManyItems, UsageError, WorkflowInvalid, WrongState
from flowq.expressions import (
    UNITS_OF_A_JOB,
    Budget,
    as_items,
    decide,
    evaluate,
    find_references,
    one_budget,
    write,
)
from flowq.expressions.limits import MAX_UNITS
from flowq.matrix import (
    MANY_COMBINATIONS,
    MAX_COMBINATIONS,
    Leg,
    expand_matrix,
    explain_excess,
    name_leg,
)
from flowq.plan import Enqueue, Expansion, Nested
from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_clock
from flowq.runtime.job import Job, get_job
from flowq.runtime.lookups import list_items, read_jobs, read_statuses
from flowq.runtime.masking import Mask
from flowq.runtime.planned import add_planned, batches, declare_groups, find_false, write_timeout
from flowq.runtime.serializing import serialize
from flowq.runtime.steps import finish
from flowq.runtime.wire import from_wire
from flowq.spec import Matrix
from flowq.status import LIST
from flowq.texts import to_bytes

if TYPE_CHECKING:
    from redis import Redis


ITEMS_PER_CALL = 50
RELEASES_PER_CALL = 1000
"""Keeps one call on the server well below 20 ms."""


def expand(job: Job, expansion: Expansion, items: object, inputs: Mapping[str, Any]) -> int:
    """Add the items of a group; return their number. A finished expansion keeps its list.

    `items` is a list, or for a matrix its `axes`, `include` and `exclude`; `inputs` are the inputs
    that the items' keys need.

    Errors: UsageError if `items` is no list, or an axis is none; TooManyItems; WrongState if no job
    can be added to the run any more.
    """
    connection, group = job.connection, keys.group(job.id)
    _refuse_removed(job)
    if not connection.hexists(group, "complete"):
        name = job.name.removesuffix(LIST)
        values: list[Any]
        if expansion.is_matrix:
            values = _combined(items, name)
        else:
            values = _listed(items, f"the for_each of {name}")
        _Addition(job.id, job, expansion, inputs).add(values)
    elif _makes_futures(expansion):
        release_added(list_items(job.id, connection), job)
    return int(connection.hget(group, "size") or 0)


def grow(job: Job, group_id: str, values: Mapping[str, Any]) -> None:
    """Add the items that a finished item has found to its own group.

    `values` are the values that expressions see, including its result.
    Errors: UsageError if `more` is no list; TooManyItems; WorkflowInvalid; WrongState if no job can
    be added to the run any more.
    """
    _refuse_removed(job)
    work = get_job(group_id, job.connection).args[0]
    expansion = from_wire(Expansion, work["expansion"])
    inputs = work.get("inputs", {})
    found = evaluate(expansion.each.more, inputs=inputs, scope=values)
    items = _listed(found, f"`more` of {job.name}")
    prefix = f"{job.id.removeprefix(group_id)}."
    _Addition(group_id, job, expansion, inputs, prefix).add(items)


def _listed(items: object, what: str) -> list[Any]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        shown = f"{type(items).__name__} {items!r:.60}"
        raise UsageError(f"{what} needs a list, but got {shown}")
    return as_items(items, what)


def _combined(parts: Any, name: str) -> list[Leg]:
    """Return the combinations of a matrix. Errors: UsageError."""
    axes = {
        axis: _listed(values, f"{axis} in the matrix of {name}")
        for axis, values in parts["axes"].items()
    }
    for key in ("include", "exclude"):
        if wrong := [each for each in parts[key] if not isinstance(each, Mapping)]:
            raise UsageError(f"`{key}` of {name} needs maps, and got {wrong[0]!r:.60}")
    include, exclude = tuple(parts["include"]), tuple(parts["exclude"])
    excess = explain_excess(axes, (*include, *exclude))
    if excess is None:
        legs = list(expand_matrix(Matrix(axes, include, exclude)).values())
        if len(legs) <= MAX_COMBINATIONS:
            return legs
        excess = f"has {len(legs):,} combinations", MANY_COMBINATIONS
    raise UsageError(f"the matrix of {name} {excess[0]}: {excess[1]}")


def _makes_futures(expansion: Expansion) -> bool:
    return any(template.deferred for template in expansion.templates)


@dataclass
class _Known:
    """The values that the `if` of a group's items refers to, read once for all items."""

    group_id: str
    adder: Job
    _jobs: dict[tuple[tuple[str, str], ...], dict[str, dict[str, Any]]] = field(
        default_factory=dict
    )

    @cached_property
    def statuses(self) -> Mapping[str, bool]:
        """The values of the status functions: how the jobs before the group have ended."""
        return read_statuses(self.group_id, "", self.adder.run_id, self.adder.connection)

    def read_jobs(self, bound: Enqueue) -> dict[str, dict[str, Any]]:
        """Return the results to which the `if` of an item refers."""
        references = find_references(bound.if_)
        if references.jobs not in self._jobs:
            found = read_jobs(references, bound.result_of, self.adder.connection)
            self._jobs[references.jobs] = found
        return self._jobs[references.jobs]


@dataclass(frozen=True)
class _Addition:
    """Adds items to a group. `prefix` distinguishes the keys of different adders."""

    group_id: str
    adder: Job
    expansion: Expansion
    inputs: Mapping[str, Any]
    prefix: str = ""

    def add(self, values: Sequence[Any]) -> None:
        """Add items: all of them, or none if the key or a setting of one has no value.

        Errors: WorkflowInvalid; TooManyItems.
        """
        names = self._check(values)
        for first in range(0, len(values), ITEMS_PER_CALL):
            part = slice(first, first + ITEMS_PER_CALL)
            with self._budget(len(values[part])):
                items = list(self._items(list(zip(names[part], values[part], strict=True))))
                jobs_of_items = [
                    [self._bind(it, item) for it in self.expansion.templates] for item in items
                ]
            # Release item by item, so that chains begin in order.
            releases = (job for jobs in jobs_of_items for job in reversed(jobs))
            add_all(list(chain.from_iterable(jobs_of_items)), releases, self.adder)

    def _budget(self, count: int) -> AbstractContextManager[Budget]:
        return one_budget(Budget(MAX_UNITS + UNITS_OF_A_JOB * count))

    def _check(self, values: Sequence[Any]) -> list[str]:
        """Return the keys of items, after evaluating what could fail before any item has a job.

        The jobs are bound again when they are added: those of a long list would be too large.
        """
        templates = self._templates_to_try(len(values))
        names: list[str] = []
        index_by_key: dict[str, int] = {}
        for first in range(0, len(values), ITEMS_PER_CALL):
            part = values[first : first + ITEMS_PER_CALL]
            with self._budget(len(part)):
                for at, value in enumerate(part, first):
                    key = self._key(at, value)
                    names.append(key)
                    if key not in index_by_key:
                        index = index_by_key[key] = len(index_by_key)
                        for template in templates:
                            self._settle(template, self._make_item(index, key, value))
        max_items = self.adder.connection.hget(keys.group(self.group_id), "max_items")
        if max_items is not None and len(index_by_key) > int(max_items):
            raise _too_many(self.group_id, int(max_items), self.adder.connection)
        return names

    def _templates_to_try(self, count: int) -> list[Enqueue]:
        if count <= ITEMS_PER_CALL:  # they are all bound before one of them is added
            return []
        has_index = not self.prefix  # else others add to the group meanwhile
        return [each for each in self.expansion.templates if can_fail(each, has_index=has_index)]

    def _settle(self, template: Enqueue, item: Item) -> Enqueue:
        bound = bind_item(template, item, self.group_id)
        if not bound.settings:
            return bound
        # Imported here: only these jobs need the readers.
        from flowq.settings import settle_item  # noqa: PLC0415

        return settle_item(bound, item.scope)

    def _bind(self, template: Enqueue, item: Item) -> Enqueue:
        """Return a job of an item, after evaluating its `if`: all that it refers to has ended."""
        bound = self._settle(template, item)
        if bound.if_ is None or bound.ended_of:  # an `if` about the run's end is evaluated later
            return bound
        return self._judge(bound, {**template.scope, **item.scope})

    def _judge(self, bound: Enqueue, scope: Mapping[str, Any]) -> Enqueue:
        known = self._known
        statuses = known.statuses

        def holds() -> bool:
            found = {"inputs": bound.inputs, "jobs": known.read_jobs(bound)}
            return decide(bound.if_, **found, scope=scope, statuses=statuses)

        has_policy = bound.on_blocker_failure != "skip"
        try:
            false = find_false(
                *(bound.if_, bound.condition, statuses), holds, has_policy=has_policy
            )
        except WorkflowInvalid:  # the item fails with this error when it runs
            return bound
        if false is None:
            return replace(bound, if_=None)
        return replace(bound, if_=False, condition=false)

    @cached_property
    def _known(self) -> _Known:
        return _Known(self.group_id, self.adder)

    def _key(self, at: int, value: Any) -> str:
        if self.expansion.is_matrix:
            return name_leg(value)
        if self.expansion.each.key is None:
            return f"{self.prefix}{at}"
        scope = {"item": value, "index": at}
        key = evaluate(self.expansion.each.key, inputs=self.inputs, scope=scope)
        return write(key, self.expansion.each.key)

    def _items(self, keyed: Sequence[tuple[str, Any]]) -> Iterator[Item]:
        """Yield the items that have no job yet, each once; all items if they are chains, which must
        be released."""
        again = _makes_futures(self.expansion)
        seen: set[int] = set()
        answers = _give_indexes(self.group_id, keyed, self.adder.connection)
        for (key, value), (index, exists) in zip(keyed, answers, strict=True):
            if index not in seen and (again or not exists):
                seen.add(index)
                yield self._make_item(index, key, value)

    def _make_item(self, index: int, key: str, value: Any) -> Item:
        is_matrix = self.expansion.is_matrix
        label = key if self.expansion.each.key or is_matrix else str(index)
        return Item(index, value, label, is_matrix)


def _give_indexes(
    group_id: str, keyed: Sequence[tuple[str, Any]], connection: Redis
) -> list[tuple[int, bool]]:
    """Return the index of each item, and whether it has a job."""
    arguments: list[Any] = []
    for key, value in keyed:
        arguments += (
            to_bytes(key),
            serialize(value, PickleSerializer, f"item {key} of {group_id}"),
        )
    answer = scripts.GROW.call(connection, keys.group(group_id), group_id, len(keyed), *arguments)
    if isinstance(answer[0], bytes | str):
        raise _too_many(group_id, int(answer[1]), connection)
    return [(index, bool(exists)) for index, exists in zip(answer[::2], answer[1::2], strict=True)]


def _too_many(group_id: str, max_items: int, connection: Redis) -> TooManyItems:
    name = as_text(connection.hget(keys.group(group_id), "name") or group_id)
    return TooManyItems(name, max_items)


def add_all(enqueues: Sequence[Enqueue], releases: Iterable[Enqueue], adder: Job) -> None:
    """Enqueue jobs while their run runs, and release the future jobs among them together.

    They begin in the order of `releases`. If the adder fails before the release, the new jobs are
    called off (`lua/lifecycle.lua`).
    """
    mask = adder.shown.mask
    if mask:  # items and inputs may contain a secret, from a result
        enqueues = [_hide_shown(each, mask) for each in enqueues]
    for part in batches(enqueues):
        try:
            add_planned(part, adder.run_id, adder.connection, added_by=adder.id)
        except RunNotFound as error:
            raise _removed(adder) from error
    release_added([each.job_id for each in releases if each.deferred], adder)


def _hide_shown(enqueue: Enqueue, mask: Mask) -> Enqueue:
    approval = enqueue.approval
    if approval is not None:
        approval = replace(approval, message=mask.hide(approval.message))
    name, description = mask.hide(enqueue.name), mask.hide(enqueue.description)
    return replace(enqueue, name=name, description=description, approval=approval)


def _refuse_removed(job: Job) -> None:
    if not job.connection.exists(keys.run(job.run_id)):
        raise _removed(job)


def _removed(job: Job) -> WrongState:
    return WrongState(f"run {job.run_id} was removed; no job can be added to it any more")


def release_added(job_ids: Sequence[str], adder: Job) -> None:
    """Release future jobs that a job has added: all of them, or none if it dies before.

    A very long list needs several calls, and the last one releases the jobs under `finally`: no job
    of a workflow with such jobs begins before.
    """
    for first in range(0, len(job_ids), RELEASES_PER_CALL):
        part = job_ids[first : first + RELEASES_PER_CALL]
        is_last = first + len(part) == len(job_ids)
        more = (0, adder.id if is_last else "", *part[1:])
        scripts.RELEASE.call(adder.connection, keys.job(part[0]), part[0], *more)
    finish(adder.connection, *(f"free:{job_id}" for job_id in job_ids))


def start(job: Job, nested: Nested, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Add the jobs of a nested workflow in front of its join; return its inputs.

    Errors: WorkflowInvalid for inputs that do not fit, and for expressions without a value;
    WrongState if no job can be added to the run any more.
    """
    # Imported here: only these jobs need the graph, whose import takes longer than a fork.
    from flowq.inputs import resolve_inputs  # noqa: PLC0415
    from flowq.planner import plan_nested  # noqa: PLC0415

    _refuse_removed(job)
    inputs = resolve_inputs(nested.workflow, arguments, passed_by=nested.prefix.rstrip("."))
    run = {"id": job.run_id, "workflow": nested.workflow.name}
    if due_at := job.connection.hget(keys.run(job.run_id), "due_at"):
        run["due_at"] = as_text(due_at)
    groups, enqueues = plan_nested(nested, inputs, run)
    now_s = 0.0 if nested.timeout_s is None else read_clock(job.connection)
    with job.connection.pipeline() as pipeline:
        if nested.workflow.max_parallel is not None:
            limit = nested.workflow.max_parallel
            pipeline.hset(keys.future(nested.join_id), "max_parallel", str(limit))
        if nested.timeout_s is not None:
            join, late_at_s = nested.join_id, now_s + nested.timeout_s
            pipeline.hset(keys.job(join), "flowq_timeout", write_timeout(nested.timeout_s))
            pipeline.zadd(keys.DEADLINES, {join: late_at_s})
        declare_groups(groups, job.run_id, pipeline)
        pipeline.execute()
    add_all(enqueues, reversed(enqueues), job)
    return inputs
