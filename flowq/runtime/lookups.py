"""What the expressions of a running job see of the jobs before it.

Only what they refer to is read, and what there are thousands of in pages.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.expressions import References
from flowq.runtime import keys
from flowq.runtime.outcomes import get_errors, get_results
from flowq.status import TOLERATED
from flowq.texts import from_bytes

if TYPE_CHECKING:
    from redis import Redis

PER_READ = 500
_SHOWN = {"tolerated": "failed", "passed": "skipped"}
"""Outcomes that are kept apart for what comes after, and look like others."""


def read_jobs(
    references: References, job_id_by_name: Mapping[str, str], connection: Redis
) -> dict[str, dict[str, Any]]:
    """Return values by the name of a job and attribute: `result`, `results`, `outcomes`, …

    Shape: of a group the results are in the order of its items, None where an item has none;
    `by_key` has them by the items' keys.
    """
    found: dict[str, dict[str, Any]] = {}
    single = {name: job_id_by_name[name] for name, part in references.jobs if part == "result"}
    results = get_results(single.values(), connection)
    for name, job_id in single.items():
        found.setdefault(name, {})["result"] = results.get(job_id)
    for name, attribute in references.jobs:
        if attribute in _READERS:
            value = _READERS[attribute](job_id_by_name[name], connection)
            found.setdefault(name, {})[attribute] = value
    return found


def list_items(group_id: str, connection: Redis) -> list[str]:
    """Return the job ids of a group's items, in the order of the items."""
    size = int(connection.hget(keys.group(group_id), "size") or 0)
    return [f"{group_id}--{index}" for index in range(size)]


def _results(group_id: str, connection: Redis) -> list[Any]:
    ids = list_items(group_id, connection)
    results = get_results(ids, connection)
    return [results.get(job_id) for job_id in ids]


def _by_key(group_id: str, connection: Redis) -> dict[str, Any]:
    results = _results(group_id, connection)
    return {key: results[index] for key, index in _read_keys(group_id, connection)}


def _read_keys(group_id: str, connection: Redis) -> list[tuple[str, int]]:
    raw: Any = connection.hgetall(keys.group_keys(group_id))
    pairs = ((from_bytes(key), int(index)) for key, index in raw.items())
    return sorted(pairs, key=lambda pair: pair[1])


def _outcomes(group_id: str, connection: Redis) -> list[dict[str, Any]]:
    ids = list_items(group_id, connection)
    key_by_index = {index: key for key, index in _read_keys(group_id, connection)}
    results = get_results(ids, connection)
    statuses = dict(zip(ids, _read_statuses(ids, connection), strict=True))
    failed = [job_id for job_id, status in statuses.items() if status in ("failed", "stopped")]
    errors = {**_reasons(failed, connection), **get_errors(failed, connection)}
    return [
        {
            "item": item,
            "key": key_by_index.get(index, str(index)),
            "status": statuses[job_id],
            "result": results.get(job_id),
            "error": errors.get(job_id),
        }
        for index, (job_id, item) in enumerate(
            zip(ids, _read_items(group_id, len(ids), connection), strict=True)
        )
    ]


def _reasons(job_ids: Sequence[str], connection: Redis) -> dict[str, str]:
    """Return why nested workflows failed: because of which job inside, and what that said."""
    reasons: dict[str, str] = {}
    for job_id in job_ids:
        reason = connection.hget(keys.job(job_id), "flowq_reason")
        culprit = connection.hget(keys.future(job_id), "culprit")
        if reason and culprit:
            inside = as_text(culprit).split()[0]
            error = get_errors([inside], connection) or _reasons([inside], connection)
            reasons[job_id] = ": ".join([as_text(reason), *error.values()])
    return reasons


def _read_items(group_id: str, size: int, connection: Redis) -> Iterator[Any]:
    for part in _pages(range(size)):
        raw: Any = connection.hmget(keys.group_items(group_id), [str(index) for index in part])
        # Written by flowq itself, as RQ writes the arguments of jobs.
        yield from (None if value is None else pickle.loads(value) for value in raw)  # noqa: S301


def _status(job_id: str, connection: Redis) -> str | None:
    if connection.exists(keys.group(job_id)):
        return _worst(_read_statuses(list_items(job_id, connection), connection))
    return _read_statuses([job_id], connection)[0]


def _worst(statuses: Sequence[str | None]) -> str:
    order = ("failed", "stopped", "expired", "deleted", "canceled", "skipped")
    return next((status for status in order if status in statuses), "finished")


def _read_statuses(job_ids: Sequence[str], connection: Redis) -> list[str | None]:
    found: list[str | None] = []
    for part in _pages(job_ids):
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in part:
                pipeline.hget(keys.job(job_id), "flowq_outcome")
            outcomes = [as_text(raw) if raw else None for raw in pipeline.execute()]
        found += [_SHOWN.get(outcome or "", outcome) for outcome in outcomes]
    return found


def _pages(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[first : first + PER_READ] for first in range(0, len(values), PER_READ))


_READERS = {"results": _results, "outcomes": _outcomes, "by_key": _by_key, "status": _status}


# How the jobs before have ended ------------------------------------------------------------------

_FAILED = frozenset({"failed", "stopped", "expired", "deleted"})
_WENT_WELL = frozenset({"finished", "passed", "tolerated"})


def read_statuses(job_id: str, group_id: str, run_id: str, connection: Redis) -> dict[str, bool]:
    """Return what `success()`, `failure()` and `canceled()` say to a job: of all its ancestors.

    An item has the ancestors of its group. A failure that its edge ignores, or that is tolerated,
    counts as a success; what went wrong inside of a tolerated workflow is no ancestor.
    """
    outcomes = set(_walk_up(group_id or job_id, connection)) - {"pending"}
    is_canceled = bool(connection.hexists(keys.run(run_id), "canceling"))
    return {
        "success": outcomes <= _WENT_WELL and not is_canceled,
        "failure": not outcomes.isdisjoint(_FAILED),
        "canceled": is_canceled or "canceled" in outcomes,
    }


def _walk_up(job_id: str, connection: Redis) -> Iterator[str]:
    """Yield the outcome of every edge above a job, each future job looked at once."""
    seen, level, tolerated = {job_id}, [job_id], set[str]()
    while level:
        above: list[str] = []
        for part in _pages(level):
            with connection.pipeline(transaction=False) as pipeline:
                for future_id in part:
                    pipeline.hgetall(keys.edges(future_id))
                answers = pipeline.execute()
            for future_id, raw in zip(part, answers, strict=True):
                edges = {as_text(blocker): as_text(outcome) for blocker, outcome in raw.items()}
                start_id = f"{future_id}--0"
                if future_id in tolerated and start_id in edges:
                    edges = {start_id: TOLERATED}
                for blocker, outcome in edges.items():
                    yield "finished" if outcome.endswith("!") else outcome
                    if outcome == TOLERATED:
                        tolerated.add(blocker)
                    above.append(blocker)
        level = [each for each in dict.fromkeys(above) if each not in seen]
        seen.update(level)
