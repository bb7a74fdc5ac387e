"""Reads the values of earlier jobs that the expressions of a running job refer to.

Reads only the referenced values, and large groups in pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rq.serializers import PickleSerializer
from rq.utils import as_text

from flowq.errors import NotFound, WrongState
from flowq.expressions import NoResult, References
from flowq.runtime import keys
from flowq.runtime.blockers import RUNNING
from flowq.runtime.connections import read_each
from flowq.runtime.results import get_errors, get_results, is_called_off, read_end, read_ends
from flowq.status import BAD_OUTCOMES, ENDED, OUTCOMES, TOLERATED, group_state
from flowq.texts import from_bytes

if TYPE_CHECKING:
    from redis import Redis

PER_READ = 500


def read_jobs(
    references: References,
    job_id_by_name: Mapping[str, str],
    connection: Redis,
    starter: str = "",
) -> dict[str, dict[str, Any]]:
    """Return values by job name and attribute: `result`, `results`, `outcomes`, …

    The `results` of a group are in the order of its items: None for an item that was skipped or
    whose failure is tolerated, a `NoResult` for one that did not succeed. `by_key` has them by the
    items' keys.

    `starter` is a job that has started before all its blockers have ended (`start_when`): those of
    them that had not ended then are running, without a result, whenever it is asked.
    """
    if starter:
        hidden = _find_undecided(starter, job_id_by_name.values(), connection)
        if hidden:
            return _read_but(hidden, references, job_id_by_name, connection)
    found: dict[str, dict[str, Any]] = {}
    single = {name: job_id_by_name[name] for name, part in references.jobs if part == "result"}
    results = get_results(single.values(), connection)
    for name, job_id in single.items():
        found.setdefault(name, {})["result"] = results.get(job_id)
    for name, attribute in references.jobs:
        if attribute in _READERS:
            value = _READERS[attribute](job_id_by_name[name], name, connection)
            found.setdefault(name, {})[attribute] = value
    return found


def _find_undecided(starter: str, job_ids: Iterable[str], connection: Redis) -> frozenset[str]:
    """Return the jobs, and the groups, that had not ended when `starter` started."""
    edges = connection.hscan_iter(keys.edges(starter), count=PER_READ)
    how_by_id = {as_text(job): as_text(how) for job, how in edges}
    undecided = {job for job, how in how_by_id.items() if how.startswith("pending")}
    for group in dict.fromkeys(job_ids):  # it may have got items since
        undecided.update(each for each in list_items(group, connection) if each not in how_by_id)
    return frozenset(undecided)


def _read_but(
    hidden: frozenset[str],
    references: References,
    job_id_by_name: Mapping[str, str],
    connection: Redis,
) -> dict[str, dict[str, Any]]:
    """Do what `read_jobs` does, but as if the `hidden` jobs were running."""
    found: dict[str, dict[str, Any]] = {}
    for name, attribute in references.jobs:
        job_id = job_id_by_name[name]
        items = (
            list_items(job_id, connection) if connection.exists(keys.group(job_id)) else [job_id]
        )
        values = found.setdefault(name, {})
        if attribute == "status" and not hidden.isdisjoint((job_id, *items)):
            values[attribute] = RUNNING
        elif attribute == "outcomes":
            outcomes = zip(items, _outcomes(job_id, name, connection), strict=False)
            values[attribute] = [{**v, **_UNKNOWN} if i in hidden else v for i, v in outcomes]
        elif attribute in ("results", "by_key"):
            pairs = zip(items, _results(job_id, name, connection), strict=False)
            results = [None if item in hidden else value for item, value in pairs]
            by_key = {key: results[index] for key, index in _read_keys(job_id, connection)}
            values[attribute] = results if attribute == "results" else by_key
        elif job_id in hidden:
            values[attribute] = None
        else:
            one = References(jobs=((name, attribute),))
            values.update(read_jobs(one, job_id_by_name, connection).get(name, {}))
    return found


_UNKNOWN = {"status": RUNNING, **dict.fromkeys(("result", "error", "error_type", "exit_code"))}
"""What is known of the end of an item that has not ended."""


def list_items(group_id: str, connection: Redis) -> list[str]:
    """Return the job ids of a group's items, in the order of the items."""
    size = int(connection.hget(keys.group(group_id), "size") or 0)
    return [f"{group_id}--{index}" for index in range(size)]


def is_there(job_id: str, connection: Redis) -> bool:
    """Whether there is a job of that id, or a group."""
    return bool(connection.exists(keys.job(job_id)) or connection.exists(keys.group(job_id)))


def get_value(job_id: str, name: str, connection: Redis) -> Any:
    """Return the result of a job that has ended, or the results of a group, for a program.

    As in expressions, it is None for a job that was skipped, or whose failure is tolerated.
    Errors: WrongState if it has not ended, or did not succeed; NotFound if the result has expired;
    any error of loading it.
    """
    if connection.exists(keys.group(job_id)):
        state = _status(job_id, name, connection) or ""
        values = _results(job_id, name, connection) if state in ENDED else []
        refused = [value.reason for value in values if isinstance(value, NoResult)]
        if state in ENDED and (not refused and (values or state in ("finished", "skipped"))):
            return values
        raise WrongState(refused[0] if refused else _say_missing(name, state))
    (outcome,) = _read_outcomes([job_id], connection)
    if outcome == "finished":
        found = get_results([job_id], connection)
        if job_id not in found:
            raise NotFound(f"the result of job {name} has expired: its time to live is over")
        return found[job_id]
    traits = OUTCOMES.get(outcome or "")
    if traits is not None and not traits.is_bad:
        return None
    end = read_end(job_id, connection)
    reasons = [": ".join(filter(None, (end.error_type, end.message)))]
    reasons += [_reasons([job_id], connection).get(job_id, "")] if not reasons[0] else []
    raise WrongState(_say_missing(name, _shown(outcome) or "", *filter(None, reasons)))


def _say_missing(name: str, state: str, *reasons: str) -> str:
    if state not in ENDED:
        return f"job {name} has not ended, so it has no result yet; wait for the run, or the job"
    how = state if state in ("failed", "expired") else f"was {state}"
    return f"job {name} {how}, so it has no result{f': {reasons[0]}' if reasons else ''}"


def _results(group_id: str, name: str, connection: Redis) -> list[Any]:
    ids = list_items(group_id, connection)
    results = get_results(ids, connection)
    missing = [job_id for job_id in ids if job_id not in results]
    outcomes = zip(missing, _read_outcomes(missing, connection), strict=True)
    bad = {job_id: outcome for job_id, outcome in outcomes if outcome in BAD_OUTCOMES}
    reasons = {**get_errors(bad, connection), **_reasons(bad, connection)} if bad else {}
    for job_id, outcome in bad.items():
        item = f"jobs.{name}[{_read_label(group_id, job_id, connection)}]"
        how = outcome if outcome in ("failed", "expired") else f"was {outcome}"
        why = f": {reasons[job_id]}" if reasons.get(job_id) else ""
        results[job_id] = NoResult(f"{item} {how}{why}")
    return [results.get(job_id) for job_id in ids]


def _read_label(group_id: str, job_id: str, connection: Redis) -> str:
    """Return the name of an item in displays, without the name of its group."""
    group = as_text(connection.hget(keys.group(group_id), "name") or b"")
    shown = as_text(connection.hget(keys.job(job_id), "flowq_name") or b"")
    label = shown.removeprefix(f"{group}[").removesuffix("]")
    return label or job_id.rpartition("--")[2]


def _by_key(group_id: str, name: str, connection: Redis) -> dict[str, Any]:
    results = _results(group_id, name, connection)
    return {key: results[index] for key, index in _read_keys(group_id, connection)}


def _read_keys(group_id: str, connection: Redis) -> list[tuple[str, int]]:
    raw: Any = connection.hgetall(keys.group_keys(group_id))
    pairs = ((from_bytes(key), int(index)) for key, index in raw.items())
    return sorted(pairs, key=lambda pair: pair[1])


def _outcomes(group_id: str, _: str, connection: Redis) -> list[dict[str, Any]]:
    ids = list_items(group_id, connection)
    key_by_index = {index: key for key, index in _read_keys(group_id, connection)}
    results = get_results(ids, connection)
    outcomes = _read_outcomes(ids, connection)
    statuses = {job_id: _shown(each) for job_id, each in zip(ids, outcomes, strict=True)}
    failed = [job_id for job_id, status in statuses.items() if status in ("failed", "stopped")]
    errors = {**get_errors(failed, connection), **_reasons(failed, connection)}
    ends = dict(zip(ids, read_ends(ids, connection), strict=True))
    return [
        {
            "item": item,
            "key": key_by_index.get(index, str(index)),
            "status": statuses[job_id],
            "result": results.get(job_id),
            "error": errors.get(job_id),
            "error_type": ends[job_id].error_type,
            "exit_code": ends[job_id].exit_code,
            "attempts": ends[job_id].attempts,
        }
        for index, (job_id, item) in enumerate(
            zip(ids, _read_items(group_id, len(ids), connection), strict=True)
        )
    ]


def _reasons(job_ids: Iterable[str], connection: Redis) -> dict[str, str]:
    """Return why jobs were called off; for a nested workflow, which job inside failed and why."""
    reasons: dict[str, str] = {}
    for job_id in job_ids:
        reason = connection.hget(keys.job(job_id), "flowq_reason")
        culprit = connection.hget(keys.future(job_id), "culprit")
        if reason:
            inside = [as_text(culprit).split()[0]] if culprit else []
            error = _reasons(inside, connection) or get_errors(inside, connection)
            reasons[job_id] = ": ".join([as_text(reason), *error.values()])
    return reasons


def _read_items(group_id: str, size: int, connection: Redis) -> Iterator[Any]:
    for first in range(0, size, PER_READ):
        part = range(first, min(first + PER_READ, size))
        raw: Any = connection.hmget(keys.group_items(group_id), [str(index) for index in part])
        # With the loader that RQ uses for arguments, which a restricted worker replaces.
        yield from (None if value is None else PickleSerializer.loads(value) for value in raw)


def _status(job_id: str, _: str, connection: Redis) -> str | None:
    complete = connection.hmget(keys.group(job_id), "run", "complete")
    if complete[0] is None:
        return _shown(_read_outcomes([job_id], connection)[0])
    items = _read_outcomes(list_items(job_id, connection), connection)
    made = _read_outcomes([job_id], connection)[0]  # of its list, which a matrix may not have
    if complete[1] and made != "passed":
        made = "finished"
    states = (
        TOLERATED if outcome == TOLERATED else _shown(outcome) or "deferred" for outcome in items
    )
    return group_state(states, _shown(made) or "deferred")


def _shown(outcome: str | None) -> str | None:
    traits = OUTCOMES.get(outcome or "")
    return traits.shown if traits else outcome


def _read_outcomes(job_ids: Sequence[str], connection: Redis) -> list[str | None]:
    """Return the outcomes of jobs: None for one that has not ended, "deleted" for a missing one."""
    answers = read_each(
        job_ids, connection, lambda pipe, job: pipe.hmget(keys.job(job), "flowq_outcome", "status")
    )
    return [
        as_text(outcome) if outcome else None if status else "deleted"
        for _, ((outcome, status),) in answers
    ]


def _approval(job_id: str, connection: Redis) -> dict[str, Any]:
    """Return what the approval of a job gave, by name; None where it was not given.

    It is the start of a workflow that asks.
    """
    fields = ("flowq_asks", "flowq_approved")
    asks, approved = connection.hmget(keys.job(job_id), fields)
    if asks is None and connection.hexists(keys.job(job_id), "flowq_nested"):
        asks, approved = connection.hmget(keys.job(f"{job_id}--0"), fields)
    return {**dict.fromkeys(list_asked(asks)), **read_given(approved)}


def list_asked(asks: bytes | str | None) -> list[str]:
    """Return the names of the inputs that an approval asks for."""
    return [each["name"] for each in json.loads(asks or b"[]")]


def read_given(approved: bytes | str | None) -> dict[str, Any]:
    """Return the values that an approval gave; older versions stored none."""
    said = json.loads(approved or b"{}")
    given: dict[str, Any] = said.get("inputs", {}) if isinstance(said, dict) else {}
    return given


_READERS: Mapping[str, Callable[[str, str, Redis], Any]] = {
    "results": _results,
    "outcomes": _outcomes,
    "by_key": _by_key,
    "status": _status,
    "error": lambda job_id, _, connection: read_end(job_id, connection).error,
    "exit_code": lambda job_id, _, connection: read_end(job_id, connection).exit_code,
    "attempts": lambda job_id, _, connection: read_end(job_id, connection).attempts,
    "approval": lambda job_id, _, connection: _approval(job_id, connection),
}


def find_without_result(
    references: References, job_id_by_name: Mapping[str, str], connection: Redis
) -> tuple[str, str]:
    """Return the outcome of the first referenced job without a result, and an explanation.

    For example `("skipped", "list was skipped: its `if` is false: …")`; ("", "") if all have one.
    """
    names = [name for name, attribute in references.jobs if attribute == "result"]
    ids = [job_id_by_name[name] for name in names]
    for name, job_id, outcome in zip(names, ids, _read_outcomes(ids, connection), strict=True):
        if outcome not in (None, "finished"):
            fields = connection.hmget(keys.job(job_id), "flowq_pass", "flowq_reason")
            reasons = [as_text(field) for field in fields if field]
            reasons += get_errors([job_id], connection).values()
            how = f"was {_shown(outcome)}".replace("was failed", "failed")
            return outcome, f"{name} {how}{f': {reasons[0]}' if reasons else ''}"
    return "", ""


# How the jobs before have ended ------------------------------------------------------------------


def read_statuses(
    job_id: str, group_id: str, run_id: str, connection: Redis, *, is_start: bool = False
) -> dict[str, bool]:
    """Return the values of `success()`, `failure()` and `canceled()` for a job: of all ancestors.

    `bad` is whether something went wrong upstream, even if the run is not canceled.

    An item has the ancestors of its group, as has the start (`is_start`) of an item that is a
    workflow. The scripts count upstream failures (`lua/ancestors.lua`). If an older version has
    settled, there are only the counts `bad` and `lost` of direct blockers.
    """
    counts = _read_counts(job_id, connection)
    if counts is None and is_start and not group_id:
        join = connection.hget(keys.job(job_id.removesuffix("--0")), "flowq_group")
        group_id = as_text(join) if join else ""
    if counts is None and group_id:
        counts = _read_counts(group_id, connection)
    failed, canceled, others = counts or (0, 0, 0)
    inside_of = job_id.removesuffix("--0") if is_start else job_id
    is_canceled = is_called_off(inside_of, run_id, connection)
    return {
        "success": not (failed or canceled or others or is_canceled),
        "bad": bool(failed or canceled or others),
        "failure": bool(failed or (others and not canceled)),
        "canceled": is_canceled or bool(canceled),
    }


def _read_counts(future_id: str, connection: Redis) -> tuple[int, int, int] | None:
    """Return how many blockers failed, were canceled, and ended badly; None for no future job."""
    fields = ("state", "failed", "canceled", "bad", "lost")
    state, *counts = connection.hmget(keys.future(future_id), fields)
    failed, canceled, bad, lost = (int(count or 0) for count in counts)
    return (failed, canceled, bad + lost) if state else None


DEFAULT_TIMEOUT_S = 180.0
"""What RQ gives a job that has none."""


def read_timeout_s(job_id: str, connection: Redis) -> float | None:
    """Return after how many seconds an execution of a job is stopped; None for never."""
    raw = connection.hget(keys.job(job_id), "timeout")
    timeout_s = float(as_text(raw)) if raw else DEFAULT_TIMEOUT_S
    return timeout_s if timeout_s > 0 else None
