"""Converts the jobs of a plan to RQ jobs in Redis, with the holds of the plan.

`runs` adds the jobs of a plan with it, `groups` those of items and nested workflows. `call_of`
writes the call that RQ makes for a job, and `work.perform` executes it in the child; `_fields`
writes the fields that the scripts read. Other versions of flowq read both: add to them, and change
nothing.

An `if` is judged as soon as everything that it asks about is known: over inputs when the run is
planned (`flowq.planner`), over an item when the item is made (`groups`), and otherwise by an
execution of the job itself.
"""

from __future__ import annotations

import math
import pickle
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from rq.serializers import PickleSerializer
from rq.utils import get_call_string

from flowq.commands.values import needs_references
from flowq.durations import parse_rate, write_duration, write_seconds
from flowq.expressions import as_template, evaluate, find_references, is_live, write
from flowq.expressions.places import find_texts, find_workflow_texts, texts_of
from flowq.matrix import is_open
from flowq.plan import Call, Enqueue, Expansion, Group, Join, Nested, Sleep, Slot, Start
from flowq.runtime import keys
from flowq.runtime.enqueueing import Own, Shape
from flowq.runtime.holds import Hold, first_fields
from flowq.runtime.job import PERFORM, Job
from flowq.runtime.policies import to_rq_retry, write_policy
from flowq.runtime.queue import call_add, get_queue
from flowq.runtime.scripts import format_instant
from flowq.runtime.serializing import MAX_BYTES
from flowq.runtime.wire import (
    COMMAND_LIST_FORMAT,
    FINALLY_FORMAT,
    FIRST_FORMAT,
    HOLD_FORMAT,
    KEY,
    LIMITS_FORMAT,
    PAUSES_FORMAT,
    QUOTED_VALUES_FORMAT,
    REFUSING_FORMAT,
    RETRIES_FORMAT,
    SETTINGS_FORMAT,
    USUAL_FORMAT,
    to_wire,
    write_inputs,
)
from flowq.spec import OPTIONS, Poll, Retry, Shell, Tolerance, Workflow
from flowq.texts import to_bytes

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


JOBS_PER_CALL = 50
# Tuples, because evaluating a union for each of thousands of jobs takes longer.
_WITH_ARGUMENTS = (Call, Start)
_ADDING = (Expansion, Start)
_NO_ARGUMENTS = Call("")
_ASKS_EVEN_WHEN_CANCELED = frozenset({"always", "canceled"})


def add_planned(
    enqueues: Sequence[Enqueue], run_id: str, connection: Redis, *, added_by: str = ""
) -> None:
    """Enqueue jobs of a run, in one call: all or none. Existing jobs stay unchanged.

    Errors: those of `Queue.enqueue`.
    """
    describer = _Describer(run_id, added_by, connection)
    call_add(connection, enqueues[0].job_id, [describer.describe(each) for each in enqueues])


class _Describer:
    """Describes the jobs of one call in the form that `lua/add.lua` takes.

    RQ makes one job of each kind, whose hash has the fields that all jobs of the kind share. The
    fields of each job are taken directly from the plan.
    """

    def __init__(self, run_id: str, added_by: str, connection: Redis) -> None:
        self._run_id = run_id
        self._added_by = {"flowq_by": added_by} if added_by else {}
        self._connection = connection
        self._shape_by_kind: dict[tuple[Any, ...], Shape] = {}

    def describe(self, enqueue: Enqueue) -> tuple[Shape, Own]:
        function, args, kwargs = call_of(enqueue)
        fields = _fields(enqueue)
        # The key must contain everything that `_make_shape` reads.
        kind = (*_get_kind(enqueue), _timeout(enqueue), *fields.items())
        shape = self._shape_by_kind.get(kind)
        if shape is None:
            shape = self._shape_by_kind[kind] = self._make_shape(enqueue, fields)
        blocks = " ".join(f"{b.name}!" if b.on_failure else b.name for b in enqueue.blocks)
        description = enqueue.description or get_call_string(function, args, kwargs, max_length=75)
        data = zlib.compress(self._write_call(function, args, kwargs))
        now_s = time.time_ns() // 1000 / 1e6  # whole microseconds
        own = (enqueue.job_id, blocks, enqueue.name, format_instant(now_s), data, description)
        return shape, own

    def _make_shape(self, enqueue: Enqueue, fields: Mapping[str, str]) -> Shape:
        hold = Hold(
            deferred=enqueue.deferred,
            policy=enqueue.start_when or enqueue.on_blocker_failure,
            if_empty=enqueue.if_empty or "run",
            run_id=self._run_id,
            fields={**fields, **self._added_by},
        )
        model = get_queue(enqueue.queue, self._connection).describe_job(
            hold,
            func=PERFORM,  # any function: the call is not part of the shape
            job_id=enqueue.job_id,
            timeout=_timeout(enqueue),
            retry=to_rq_retry(enqueue.retries),
            result_ttl=-1,  # the result is removed with the run
            at_front=bool(enqueue.at_front),
        )
        return model.shape

    def _write_call(self, function: str, args: Any, kwargs: Any) -> bytes:
        """Return the bytes of RQ's `Job.data`. Errors: Unserializable."""
        try:
            data: bytes = PickleSerializer.dumps((function, None, args, kwargs))
            is_fine = len(data) <= MAX_BYTES
        except Exception:  # noqa: BLE001 - user code; `write_data` raises it with its place
            is_fine = False
        if not is_fine:
            job = cast(Job, Job.create(function, args, kwargs, connection=self._connection))
            job.adopt(Hold(run_id=self._run_id))
            return job.write_data()
        return data


_get_kind = attrgetter("queue", "deferred", "on_blocker_failure", "retries", *OPTIONS)


def batches(enqueues: Sequence[Enqueue], size: int = JOBS_PER_CALL) -> Iterable[Sequence[Enqueue]]:
    """Split a list into parts for which one call takes well below 20 ms on the server."""
    return (enqueues[first : first + size] for first in range(0, len(enqueues), size))


def declare_groups(groups: Iterable[Group], run_id: str, pipeline: Pipeline) -> None:
    """Write the records of groups. Idempotent: existing counts in them stay."""
    for group in groups:
        record: dict[Any, Any] = {"run": run_id, "name": group.name}
        if not group.is_open:
            record |= {"size": len(group.keys), "complete": 1}
        if group.max_items is not None:
            record["max_items"] = group.max_items
        if group.max_parallel is not None:
            record["max_parallel"] = group.max_parallel
        if group.tolerance is not None:
            record["tolerate"] = _tolerance(group.tolerance)
        if group.fail_fast:
            record["fail_fast"] = 1
        if group.approval is not None:
            record["asks"] = write_inputs(group.approval.inputs)
        pipeline.hset(keys.group(group.job_id), mapping=record)
        pipeline.sadd(keys.run_groups(run_id), group.job_id)
        for index, (key, item) in enumerate(zip(group.keys, group.items, strict=True)):
            pipeline.hset(keys.group_keys(group.job_id), to_bytes(key), index)
            pipeline.hset(keys.group_items(group.job_id), str(index), pickle.dumps(item))


def _tolerance(tolerance: Tolerance) -> str:
    if tolerance.count is not None:
        return f"count:{tolerance.count}"
    return "all" if tolerance.percent == 100 else f"percent:{tolerance.percent:g}"


def write_timeout(timeout_s: float) -> str:
    """Return a time limit in the form that scripts read: "600 10m" (lua/deadlines.lua)."""
    return f"{write_seconds(timeout_s)} {write_duration(timeout_s)}"


def call_of(enqueue: Enqueue) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return the call of an RQ job: a function, and its arguments as plain data."""
    if work := _work(enqueue):
        return PERFORM, (work,), {}
    assert isinstance(enqueue.does, Call)  # all others are performed
    return enqueue.does.function.replace(":", "."), (), dict(enqueue.does.kwargs)


def _work(enqueue: Enqueue) -> dict[str, Any]:
    """Return the argument of `flowq.runtime.work.perform`; {} for a plain call of a function.

    It is plain data that other versions of flowq can read: see `flowq.runtime.wire`.
    """
    does = enqueue.does
    arguments = does if isinstance(does, _WITH_ARGUMENTS) else _NO_ARGUMENTS
    special: dict[str, Any] = {
        "live": arguments.is_live or isinstance(does, Join),
        "if": enqueue.if_,
        "env": dict(enqueue.env),
        "cwd": enqueue.cwd,
        "shell": _as_work(does) if isinstance(does, Shell) else None,
        "expansion": to_wire(does) if isinstance(does, Expansion) else None,
        "nested": to_wire(_nested_of(does, enqueue)) if isinstance(does, Start) else None,
        "stop_when": enqueue.stop_when,
        "sleep": does.time if isinstance(does, Sleep) else None,
        "poll": _as_polls(enqueue.poll) if enqueue.poll else None,
        "rate": enqueue.rate is not None,  # older versions do not execute it then
        "grows": enqueue.grows,
        "secrets": list(enqueue.secrets),
        "message": enqueue.approval.message
        if enqueue.approval and _has_live_message(enqueue)
        else None,
    }
    kept = {key: value for key, value in special.items() if value not in (None, False, {}, [])}
    call = does.function if isinstance(does, Call) else ""
    if "." in call.partition(":")[2]:  # RQ does not find names in nested classes
        kept["call"] = call
    if isinstance(does, Join):
        kept["outputs"] = dict(does.outputs)
    if enqueue.if_ is not None:
        kept |= {"if": enqueue.if_, "condition": enqueue.condition}
        if enqueue.on_blocker_failure != "skip":
            kept["policy"] = enqueue.on_blocker_failure
        if enqueue.branch:
            kept["branch"] = dict(enqueue.branch)
    if not kept:
        return {}
    if enqueue.start_when and enqueue.result_of:
        kept["decided"] = True
    beside: dict[str, Any] = {
        "call": call,
        "kwargs": dict(arguments.kwargs),
        "result_of": dict(enqueue.result_of),
        "groups": list(enqueue.groups),
        "inputs": dict(enqueue.inputs),
        "inputs_from": enqueue.inputs_from,
        "scope": dict(enqueue.scope),
        "ended_of": enqueue.ended_of,
        "refuses_secrets": enqueue.refuses_secrets,
    }
    return {KEY: _needed_format(enqueue), **kept} | {
        k: value for k, value in beside.items() if value
    }


def _needed_format(enqueue: Enqueue) -> int:
    """Return the format that a worker must know to execute a job correctly."""
    does = enqueue.does
    if (enqueue.start_when and enqueue.result_of) or _has_firsts(enqueue):
        return FIRST_FORMAT
    if _has_settings(enqueue):
        return SETTINGS_FORMAT
    if _pauses(enqueue):
        return PAUSES_FORMAT
    if enqueue.rate is not None or _adds_limits(enqueue):
        return LIMITS_FORMAT
    if _has_quoted_values(enqueue):
        return QUOTED_VALUES_FORMAT
    if enqueue.refuses_secrets:
        return REFUSING_FORMAT
    if isinstance(does, Shell) and not isinstance(does.command, str):
        return COMMAND_LIST_FORMAT
    if enqueue.ended_of or _has_finals(enqueue):
        return FINALLY_FORMAT
    if _asks_for_attempts(enqueue):
        return RETRIES_FORMAT
    return HOLD_FORMAT if enqueue.approval and _judging(enqueue) == "due" else USUAL_FORMAT


def _has_firsts(enqueue: Enqueue) -> bool:
    """Whether jobs that this one adds have `start_when`."""
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(map(_has_firsts, does.templates))
    return isinstance(does, Start) and _starts_first(does.nested.workflow)


def _starts_first(workflow: Workflow) -> bool:
    own = any(job.start_when is not None for job in workflow.jobs)
    return own or any(map(_starts_first, workflow.workflows.values()))


def _has_settings(enqueue: Enqueue) -> bool:
    """Whether jobs that this one adds have settings or `else`, or are a matrix made of results."""
    does = enqueue.does
    if isinstance(does, Expansion):
        inside = any(each.settings or _has_settings(each) for each in does.templates)
        return does.is_matrix or inside
    return isinstance(does, Start) and _is_settled_later(does.nested.workflow)


def _is_settled_later(workflow: Workflow) -> bool:
    jobs, inside = workflow.jobs, workflow.workflows.values()
    if workflow.defaults.settings or any(job.settings or job.else_ for job in jobs):
        return True
    has_open = any(job.matrix is not None and is_open(job.matrix) for job in jobs)
    return has_open or any(map(_is_settled_later, inside))


def _pauses(enqueue: Enqueue) -> bool:
    """Whether a job, or one that it will add, sleeps or polls."""
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(map(_pauses, does.templates))
    if isinstance(does, Start):
        return _has_pauses(does.nested.workflow)
    return isinstance(does, Sleep) or enqueue.poll is not None


def _has_pauses(workflow: Workflow) -> bool:
    inside = workflow.workflows.values()
    own = any(job.sleep is not None or job.poll is not None for job in workflow.jobs)
    return own or any(map(_has_pauses, inside))


def _adds_limits(enqueue: Enqueue) -> bool:
    """Whether jobs that this one adds have limits across runs."""
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(each.concurrency or each.rate or _adds_limits(each) for each in does.templates)
    return isinstance(does, Start) and (
        enqueue.concurrency is not None or _has_limits(does.nested.workflow)
    )


def _has_limits(workflow: Workflow) -> bool:
    own = any(job.concurrency or job.rate for job in workflow.jobs)
    return own or any(map(_has_limits, workflow.workflows.values()))


def _as_polls(poll: Poll) -> dict[str, Any]:
    """Return the plain form of a poll, as `flowq.runtime.work` reads it."""
    polls = {"until": poll.until, "every_s": poll.every_s}
    return polls if poll.within_s is None else {**polls, "within_s": poll.within_s}


def _has_quoted_values(enqueue: Enqueue) -> bool:
    """Whether a command has values where older versions would quote incorrectly."""
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(map(_has_quoted_values, does.templates))
    if isinstance(does, Start):
        return any(map(needs_references, _places_in(does.nested.workflow)))
    return isinstance(does, Shell) and needs_references(does.places)


def _places_in(workflow: Workflow) -> Iterator[str]:
    yield from (job.run.places for job in workflow.jobs if job.run is not None)
    for inside in workflow.workflows.values():
        yield from _places_in(inside)


def _has_finals(enqueue: Enqueue) -> bool:
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(map(_has_finals, does.templates))
    return isinstance(does, Start) and _ends_with_jobs(does.nested.workflow)


def _ends_with_jobs(workflow: Workflow) -> bool:
    """Whether a workflow, or one nested in it, has jobs under `finally`."""
    inside = workflow.workflows.values()
    return any(job.is_final for job in workflow.jobs) or any(map(_ends_with_jobs, inside))


def _asks_for_attempts(enqueue: Enqueue) -> bool:
    """Whether a job, or one that it will add, has a policy of retries or uses `attempt`."""
    does = enqueue.does
    if isinstance(does, Expansion):
        return any(map(_asks_for_attempts, does.templates))
    if isinstance(does, Start) and _is_any_tried_by_policy(does.nested.workflow):
        return True
    arguments = does.kwargs if isinstance(does, _WITH_ARGUMENTS) and does.is_live else {}
    own = [arguments, enqueue.env, enqueue.cwd]
    command = does.command if isinstance(does, Shell) else ""
    texts = (text for value in (*own, command) for _, text in texts_of(value, ()))
    has_policy = _is_policy(enqueue.retries, _retries_of_workflow(enqueue))
    return has_policy or any(map(_uses_attempt, texts))


def _is_any_tried_by_policy(workflow: Workflow) -> bool:
    if _is_policy(workflow.defaults.retries):
        return True
    texts = [*find_workflow_texts(workflow)]
    for job in workflow.jobs:
        if _is_policy(job.retries):
            return True
        texts += find_texts(job)
    inside = workflow.workflows.values()
    return any(_uses_attempt(text) for _, text in texts) or any(
        map(_is_any_tried_by_policy, inside)
    )


def _is_policy(*retries: Retry | None) -> bool:
    return any(each is not None and not each.is_plain for each in retries)


def _uses_attempt(text: str) -> bool:
    return "attempt" in text and "attempt" in find_references(text).roots


def _as_work(shell: Shell) -> dict[str, Any]:
    command = shell.command if isinstance(shell.command, str) else list(shell.command)
    work = {"command": command, "shell": shell.shell, "result": shell.result}
    return work | {"places": shell.places} if shell.places else work


def _fields(enqueue: Enqueue) -> dict[str, str]:
    """Return flowq's fields of the job's hash; `lua/common.lua` explains them."""
    does, approval, rounds = enqueue.does, enqueue.approval, _retries_of_workflow(enqueue)
    limits = _limits(enqueue)
    expires = approval and (approval.expires_s or enqueue.expires_s)
    # Skip it if anything upstream went wrong, not only a direct blocker. Not the join of a nested
    # workflow, for which its start has checked this.
    needs_success = (
        enqueue.deferred and enqueue.on_blocker_failure == "skip" and not isinstance(does, Join)
    )
    message = approval and not is_live(approval.message) and write_message(approval.message)
    fields = {
        "flowq_group": enqueue.group,
        "flowq_nested": "1" if isinstance(does, Join) else "",
        "flowq_inside": enqueue.inside,
        "flowq_slots": " ".join(map(str, limits)),
        "flowq_most": " ".join(f"{each.limit}={each.most}" for each in limits if each.most),
        "flowq_supplants": "1" if _supplants(enqueue) else "",
        "flowq_expands": "1" if isinstance(does, _ADDING) else "",
        "flowq_tolerate": "1" if enqueue.is_tolerated else "",
        "flowq_always": "1" if _is_always(enqueue) else "",
        "flowq_final": "1" if _is_final(enqueue) else "",
        "flowq_success": "1" if needs_success else "",
        "flowq_judging": _judging(enqueue),
        **first_fields(enqueue.start_when, enqueue.cancel_rest),
        "flowq_open": "1" if enqueue.is_open else "",
        "flowq_on_crash": "fail" if enqueue.on_crash == "fail" else "",
        "flowq_expires": (
            "" if expires or not enqueue.expires_s else write_seconds(enqueue.expires_s)
        ),
        "flowq_approval": f"1 {write_seconds(expires)}" if expires else "1" if approval else "",
        "flowq_rounds": _rounds(rounds),
        "flowq_rounds_policy": write_policy(rounds) if rounds else "",
        "flowq_message": message or "",
        "flowq_asks": write_inputs(approval.inputs) if approval and approval.inputs else "",
    }
    return {name: value for name, value in fields.items() if value}


def _limits(enqueue: Enqueue) -> tuple[Slot, ...]:
    """Return the slots that a job takes, also of limits across runs.

    A job inside of a workflow that has a slot of the same limit needs none of its own.
    """
    return tuple({each.limit: each for each in (*_across_runs(enqueue), *enqueue.slots)}.values())


def _across_runs(enqueue: Enqueue) -> Iterator[Slot]:
    if (one := enqueue.concurrency) is not None:
        holder = enqueue.inside if isinstance(enqueue.does, Start) else ""
        yield Slot(f"shared:{quote(one.group, safe='')}", holder, str(one.limit))
    if enqueue.rate is not None:
        count, seconds = parse_rate(enqueue.rate.limit)
        most = f"{count}/{write_seconds(seconds)}"
        yield Slot(f"rate:{quote(enqueue.rate.group, safe='')}", "", most)


def _supplants(enqueue: Enqueue) -> bool:
    return enqueue.concurrency is not None and enqueue.concurrency.cancel_in_progress


def _nested_of(start: Start, enqueue: Enqueue) -> Nested:
    """Return how a job adds those of a workflow, which share its slot of a limit across runs."""
    shared = (each for each in _across_runs(enqueue) if each.holder)
    return replace(start.nested, slots=(*start.nested.slots, *shared))


def _retries_of_workflow(enqueue: Enqueue) -> Retry | None:
    return enqueue.does.retries if isinstance(enqueue.does, Join) else None


def _judging(enqueue: Enqueue) -> str:
    """Return what must happen before it asks, or takes a slot; see `lua/groups.lua`."""
    if enqueue.if_ is False:
        otherwise = next(iter(enqueue.branch.values()), "")  # a job that is left out has no `if`
        return f"skip {(not enqueue.condition and otherwise) or say_false(enqueue.condition)}"
    return "due" if enqueue.if_ is not None or _has_live_message(enqueue) else ""


def _has_live_message(enqueue: Enqueue) -> bool:
    return enqueue.approval is not None and is_live(enqueue.approval.message)


MAX_MESSAGE = 4_000
"""The most characters of an approval's message."""


def write_message(template: str, **known: Any) -> str:
    """Return the message of an approval as text, cut if it is too long. Errors: `evaluate`'s."""
    text = write(evaluate(template, **known), template)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"


def _rounds(retries: Retry | None) -> str:
    """Return the retries of a whole workflow in the form that scripts read: "3 2 2s"."""
    if retries is None or not retries.max:
        return ""
    return f"{retries.max} {write_seconds(retries.backoff_s)} {write_duration(retries.backoff_s)}"


def _is_final(enqueue: Enqueue) -> bool:
    """Whether it is a job under `finally`, or makes the items of one."""
    makes = enqueue.does
    return bool(enqueue.ended_of) or (
        isinstance(makes, Expansion) and any(map(_is_final, makes.templates))
    )


def _is_always(enqueue: Enqueue) -> bool:
    """Whether the job also runs in a canceled run, by its `if` or that of its items."""
    if enqueue.ended_of:
        return True
    if isinstance(enqueue.does, Expansion):
        return any(_is_always(template) for template in enqueue.does.templates)
    asked = as_template(enqueue.condition) if enqueue.condition else enqueue.if_
    return asked is not None and bool(find_references(asked).statuses & _ASKS_EVEN_WHEN_CANCELED)


ADDING_TIMEOUT_S = 3_600
"""The timeout of jobs that add the items of a group, or the jobs of a nested workflow. To add
100,000 items takes minutes, and RQ's default of 180 s is meant for user code."""


def _timeout(enqueue: Enqueue) -> int | None:
    if enqueue.timeout_s is None and isinstance(enqueue.does, _ADDING):
        return ADDING_TIMEOUT_S
    return None if enqueue.timeout_s is None else max(1, math.ceil(enqueue.timeout_s))


# `if` ---------------------------------------------------------------------------------------


MAX_CONDITION = 200
"""The most characters of a false `if` in a message."""


def find_false(
    condition: object,
    source: str,
    statuses: Mapping[str, bool],
    holds: Callable[[], bool],
    *,
    has_policy: bool = False,
) -> str | None:
    """Return the text of a false condition; None for a true one.

    `condition` is the template of a job's `if`, `source` its text. Without a status function it
    means `success() and (…)`, unless the job has an `on_blocker_failure` (`has_policy`), which has
    decided about failed blockers already. `holds` evaluates the condition; its errors pass.
    """
    asks = has_policy or find_references(condition).statuses
    is_narrowed = not asks and not statuses["success"]
    if not is_narrowed and holds():
        return None
    return f"success() and ({source})" if is_narrowed and source else source


def say_false(source: str) -> str:
    """Return a sentence about a false `if`. Older versions stored no text for it."""
    said = " ".join(source.split())
    return f"its `if` is false: {said:.{MAX_CONDITION}}" if said else "its `if` is false"
