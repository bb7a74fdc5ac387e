"""Takes over how jobs of an ended run ended, into a new run that continues it.

Everything is copied, so the new run needs nothing of the old one later. It is copied while the new
run is staged: after an error or a crash, maintenance removes the new run as a whole.

The planner has made the jobs of the new run that are known. What was added in the old run, items of
groups and jobs of nested workflows, is added here as copies: their ids are the old ones with the
other run in front. `lua/keeping.lua` then ends all of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.errors import WrongState
from flowq.graph import LEFT_OUT
from flowq.plan import Enqueue, Expansion, Plan, Start
from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_each
from flowq.runtime.queue import call_add
from flowq.status import RUN_ENDED, SUCCESSES, say_state

if TYPE_CHECKING:
    from redis import Redis

    from flowq.plan import Continued
    from flowq.runtime.enqueueing import Own, Shape

JOBS_PER_CALL = 200
ENDS_PER_CALL = 100
"""To end a job is more work for the server: these are some 10 ms."""

NO_RESULT = "has no result any more"
NOT_NEEDED = "was not needed"


# What is known of the old run ----------------------------------------------------------------


def read_end(run_id: str, connection: Redis) -> tuple[str, str]:
    """Return the state of a run, and when it ended, as stored; "" for each that is not known."""
    state, ended_at = connection.hmget(keys.run(run_id), "state", "ended_at")
    return as_text(state or b""), as_text(ended_at or b"")


def read_failings(
    run_id: str, asleep: Iterable[str], connection: Redis
) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """Return why the ends of the declarations of an ended run cannot be kept.

    Shape: by name, empty for those that can be kept; the number of items of each group, by name;
    and the ids of jobs that code has added. `asleep` are the names of jobs that
    sleep, which have no results. `NOT_NEEDED` can be kept as long as nothing that comes after it
    runs again.
    """
    failings: dict[str, str] = {}
    sizes: dict[str, int] = {}
    others: list[str] = []
    without = frozenset(asleep)
    ids = [as_text(raw) for raw in connection.lrange(keys.run_jobs(run_id), 0, -1)]

    def ask(pipe: Any, job_id: str) -> None:
        pipe.hmget(keys.job(job_id), *_OF_AN_END)
        pipe.exists(keys.results(job_id))

    for job_id, (end, has_result) in read_each(ids, connection, ask):
        outcome, judging, run, group, ends_as = end
        name = _declared_as(job_id, run_id)
        if not name or _ADDED.search(job_id):
            others.append(job_id)
        if not name:
            continue
        why = _failing(as_text(outcome or b""), as_text(judging or b""), is_there=bool(run))
        if not why and outcome == b"finished" and not (has_result or name in without):
            why = NO_RESULT
        declared = f"{run_id}-{name}"
        is_item = bool(group) and as_text(group) == declared
        if is_item:
            sizes[name] = sizes.get(name, 0) + 1
        # Inside of a workflow it was not needed by another job inside, which is kept with it.
        if not why and outcome == b"passed" and ends_as and (is_item or job_id == declared):
            why = NOT_NEEDED
        failings[name] = _worse(failings.get(name, ""), why)
    for name in _closed_groups(run_id, sizes, connection):
        failings[name] = _worse(failings[name], NOT_NEEDED)
    return failings, sizes, others


def _closed_groups(run_id: str, names: Iterable[str], connection: Redis) -> list[str]:
    """Return the names of groups whose items were not needed any more."""
    known = list(names)
    with connection.pipeline(transaction=False) as pipeline:
        for name in known:
            pipeline.hexists(keys.group(f"{run_id}-{name}"), "needless")
        return [name for name, is_one in zip(known, pipeline.execute(), strict=True) if is_one]


_OF_AN_END = ("flowq_outcome", "flowq_judging", "flowq_run", "flowq_group", "flowq_ends_as")


def _worse(one: str, other: str) -> str:
    return other or one if one in ("", NOT_NEEDED) else one


_ADDED = re.compile(r"--[0-9]+-[0-9]+(?=--|$)")
"""What stands behind the id of a job in the ids of jobs that its code has added."""


def _declared_as(job_id: str, run_id: str) -> str:
    """Return the name of the declaration that a job of a run is a part of; "" for none."""
    rest = job_id.removeprefix(f"{run_id}-")
    name, _, inside = rest.partition("--")
    return "" if rest == job_id or _ADDED.match(f"--{inside}") else name


def _failing(outcome: str, judging: str, *, is_there: bool) -> str:
    if not is_there:
        return "was deleted"
    if judging == f"skip {LEFT_OUT}":
        return "was left out"
    if not outcome:
        return "has not ended"
    return "" if outcome in SUCCESSES else say_state(outcome).replace("is ", "was ", 1)


# Taking over ---------------------------------------------------------------------------------


def keep(plan: Plan, connection: Redis, renew_lease: Callable[[], object]) -> None:
    """End the jobs of a staged run that it keeps, as they ended before. Idempotent.

    Costs a few calls for every 100 jobs; `renew_lease` is called before them.
    Errors: WrongState if the old run was removed or retried meanwhile, or one of its jobs was.
    """
    continued = plan.continued
    assert continued is not None  # the caller knows
    takeover = _Takeover(plan, continued, connection, renew_lease)
    takeover.copy_groups()
    takeover.add_copies()
    takeover.end_all()


class _Takeover:
    """Takes the ends of one run over into another."""

    def __init__(
        self,
        plan: Plan,
        continued: Continued,
        connection: Redis,
        renew_lease: Callable[[], object],
    ) -> None:
        self._plan, self._connection, self._renew_lease = plan, connection, renew_lease
        self._old, self._new = continued.run_id, plan.run_id
        self._ended_at = continued.ended_at
        self._kept = frozenset(continued.kept)
        ids = [as_text(raw) for raw in connection.lrange(keys.run_jobs(self._old), 0, -1)]
        self._ids = [each for each in ids if _declared_as(each, self._old) in self._kept]
        if self._kept - {_declared_as(each, self._old) for each in ids}:
            raise self._refusal()

    def copy_groups(self) -> None:
        """Copy the lists of groups, and the records of those that no plan declares."""
        groups = map(as_text, self._connection.sscan_iter(keys.run_groups(self._old)))
        kept = [each for each in groups if _declared_as(each, self._old) in self._kept]
        for part in _parts(kept):
            self._call(scripts.KEEP_GROUPS, part)

    def add_copies(self) -> None:
        """Add the jobs that the plan does not have, future jobs before their blockers."""
        planned = {each.job_id for each in self._plan.enqueues}
        ids = [each for each in self._ids if self._renamed(each) not in planned]
        edges = _Edges(self._plan)
        for part in _parts(ids):
            self._renew_lease()
            answers = read_each(part, self._connection, _ask_for_copy)
            described = [
                self._describe(job_id, dict(zip(_FIELDS, fields, strict=True)), future, edges)
                for job_id, (fields, future) in answers
            ]
            call_add(self._connection, self._renamed(part[0]), described)

    def end_all(self) -> None:
        """End all jobs as before, in the order in which they depend on each other."""
        for part in _parts([*reversed(self._ids)], ENDS_PER_CALL):
            self._call(scripts.KEEP, part)

    def _call(self, script: scripts.Script, ids: Sequence[str]) -> None:
        self._renew_lease()
        given = (self._new, self._old, self._ended_at, *ids)
        answer = script.call(self._connection, keys.run(self._new), *given)
        if answer != 1:
            raise self._refusal()

    def _refusal(self) -> WrongState:
        state, ended_at = read_end(self._old, self._connection)
        if state in RUN_ENDED and ended_at == self._ended_at:
            what = "one of its jobs was deleted or has run again"
        else:
            what = "it was retried" if state and state != "purging" else "it was removed"
        return WrongState(f"run {self._old} cannot be continued: meanwhile, {what}")

    def _renamed(self, job_id: str) -> str:
        return self._new + job_id.removeprefix(self._old)

    def _describe(
        self, old_id: str, fields: Mapping[str, Any], future: Sequence[Any], edges: _Edges
    ) -> tuple[Shape, Own]:
        if not fields["flowq_run"]:
            raise self._refusal()
        known = {name: fields[name] for name in _COPIED if fields[name] is not None}
        for name in _WITH_IDS & set(known):
            known[name] = self._with_new_ids(as_text(known[name]))
        if known.get("flowq_judging") == b"done":
            known["flowq_judging"] = b"due"
        if fields["flowq_retries"] is not None:
            known["retries_left"] = fields["flowq_retries"]
        policy, if_empty = (as_text(each or b"") for each in future)
        if policy:  # no plan releases it when it runs again
            known["flowq_late"] = "1"
        queue = as_text(fields["flowq_queue"] or fields["origin"])
        kind = f"{policy} {if_empty} -" if policy else ""
        # Nothing may queue it before `end_all`, also if it blocks nothing.
        known |= {"origin": queue, "status": "deferred", "flowq_kept": "1"}
        pairs = [part for pair in known.items() for part in pair]
        shape = (queue, kind, "", self._new, "", len(known), *pairs)
        data, description = fields["data"], as_text(fields["description"] or b"")
        own = (
            self._renamed(old_id),
            edges.write(
                self._renamed(old_id), self._inside(old_id, as_text(fields["flowq_blocks"] or b""))
            ),
            as_text(fields["flowq_name"] or b""),
            as_text(fields["created_at"] or b""),
            self._with_new_calls(data),
            description,
        )
        return shape, own

    def _inside(self, old_id: str, blocks: str) -> list[str]:
        """Return the future jobs of the same declaration that a job blocks, by their new ids."""
        outer = f"{self._old}-{_declared_as(old_id, self._old)}"
        inside = (each for each in blocks.split() if _is_part_of(each.rstrip("!"), outer))
        return [self._renamed(each) for each in inside]

    def _with_new_ids(self, text: str) -> str:
        words = [each for each in text.split(" ") if not each.startswith("run:")]
        return " ".join(words).replace(f"{self._old}-", f"{self._new}-")

    def _with_new_calls(self, data: bytes) -> bytes:
        """Return the stored call of a job, in which the ids are those of the new run.

        Both ids have the same length, so the pickle remains one, and nothing has to be loaded.
        Limit: ids are not told from values, so a value that contains an id of a job of the old run
        becomes that of the same job here. It is only read if the job runs again in this run.
        """
        old, new = f"{self._old}-".encode(), f"{self._new}-".encode()
        assert len(old) == len(new)  # by `flowq.continuing`
        return zlib.compress(zlib.decompress(data).replace(old, new))


class _Edges:
    """What jobs that no plan has block outside of their own declaration."""

    def __init__(self, plan: Plan) -> None:
        self._of_items: dict[str, list[str]] = {}
        self._finals: dict[str, list[str]] = {}
        for each in plan.enqueues:
            name = _declared_as(each.job_id, plan.run_id)
            planned = (each, *each.does.templates) if isinstance(each.does, Expansion) else (each,)
            for job in planned:
                if isinstance(job.does, Start):
                    self._finals[name] = [f"{final}!" for final in job.does.nested.finals]
                if job is not each and job.job_id == each.job_id:
                    self._of_items[each.job_id] = _written(job)
        self._run_id = plan.run_id

    def write(self, job_id: str, inside: Sequence[str]) -> str:
        """Return what a job blocks: `inside` of its declaration, and after that."""
        group, _, index = job_id.rpartition("--")
        if index.isdecimal() and group in self._of_items:
            outside = self._of_items[group]
        else:
            outside = self._finals.get(_declared_as(job_id, self._run_id), [])
        return " ".join([*inside, *outside])


def _written(enqueue: Enqueue) -> list[str]:
    return [f"{each.name}!" if each.on_failure else each.name for each in enqueue.blocks]


def _is_part_of(job_id: str, outer: str) -> bool:
    return job_id == outer or job_id.startswith(f"{outer}--")


def _parts(ids: Sequence[str], size: int = JOBS_PER_CALL) -> Iterator[Sequence[str]]:
    return (ids[first : first + size] for first in range(0, len(ids), size))


_COPIED = (
    *("timeout", "result_ttl", "retry_intervals", "enqueue_at_front", "flowq_group"),
    *("flowq_nested", "flowq_inside", "flowq_slots", "flowq_expands", "flowq_by", "flowq_tolerate"),
    *("flowq_always", "flowq_success", "flowq_judging", "flowq_open", "flowq_on_crash"),
    *("flowq_expires", "flowq_approval", "flowq_rounds", "flowq_rounds_policy", "flowq_message"),
    *("flowq_final", "flowq_asks", "flowq_retry", "flowq_timeout", "flowq_most", "flowq_supplants"),
)
"""The fields of a job that were declared, as `planned` writes them."""

_WITH_IDS = frozenset({"flowq_group", "flowq_inside", "flowq_slots", "flowq_by"})
_FIELDS = (
    *_COPIED,
    *("flowq_run", "flowq_name", "flowq_blocks", "flowq_queue", "flowq_retries"),
    *("origin", "data", "description", "created_at"),
)


def _ask_for_copy(pipe: Any, job_id: str) -> None:
    pipe.hmget(keys.job(job_id), *_FIELDS)
    pipe.hmget(keys.future(job_id), "policy", "if_empty")
