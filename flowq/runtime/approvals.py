"""Approves and rejects jobs that ask for an approval, and releases held runs.

The commands `approve`, `reject` and `release` and the methods of `flowq.Run` call it. A script
stores who decided, when and with which inputs, and applies the decision, so a caller that dies
loses nothing. Nothing here checks whether the caller may decide: anyone who can write to the server
can.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from rq.utils import as_text

from flowq.errors import NotFound, RunNotFound, UsageError, WorkflowInvalid, WrongState
from flowq.inputs import resolve
from flowq.nearest import did_you_mean
from flowq.runtime import keys, scripts
from flowq.runtime.connections import do_or_leave_to_others, read_clock
from flowq.runtime.runs import get_declared, get_record, go
from flowq.runtime.scripts import format_instant
from flowq.runtime.steps import run_steps
from flowq.runtime.wire import read_inputs
from flowq.spec import Input
from flowq.status import RUN_ENDED, RunStatus, declared_name

if TYPE_CHECKING:
    from redis import Redis


MAX_TEXT = 4_000
"""The most characters of a note, or of a reason."""

MAX_WHO = 200
"""The most bytes of who has done something."""

MAX_VALUES = 64 * 1024
"""The most bytes of JSON of the values that an approval gives."""

_APPROVED, _REJECTED = "approved", "rejected"


def approve(
    run_id: str,
    name: str,
    connection: Redis,
    *,
    inputs: Mapping[str, object] | None = None,
    note: str = "",
    by: str = "",
) -> bool:
    """Approve a job of a run, or all items of a group, including later ones.

    The job starts as soon as nothing else holds it.

    Args:
        inputs: the values that the approval asks for, as text or of their type.
        by: who approves; not verified.

    Returns:
        True for the call that approved the job, False if it was approved before.

    Errors: RunNotFound; NotFound; UsageError for inputs that do not fit; WrongState for a job that
    does not ask for an approval, has ended, or was approved before with other values.
    """
    if not isinstance(inputs, Mapping | None):
        raise UsageError(
            f'the inputs of an approval must be a mapping, such as {{"version": 3}}, '
            f"not {inputs!r}; "
            "pass the approver as by=, and a comment as note="
        )
    asked = _Asked.find(run_id, name, connection)
    given = _resolve(name, asked.ids, inputs or {}, connection)
    is_news = _tell(asked, _APPROVED, _Word(by, note, given), connection)
    if not is_news and any(kept != given for kept in _read_given(asked.ids, connection)):
        raise WrongState(
            f"job {name} of run {run_id} was already approved with other values, which stay"
        )
    return is_news


def _read_given(ids: Sequence[str], connection: Redis) -> Iterator[Mapping[str, Any]]:
    """Yield the values of earlier approvals of these jobs, or of their group."""
    for job_id in ids:
        for key, field in ((keys.job(job_id), "flowq_approved"), (keys.group(job_id), "approved")):
            if word := as_text(connection.hget(key, field) or b""):
                yield json.loads(word).get("inputs", {})


def reject(run_id: str, name: str, connection: Redis, *, reason: str = "", by: str = "") -> bool:
    """Reject a job that asks for an approval, or all items of a group: it is canceled.

    Returns True for the call that rejected it, False if it was rejected before.
    Errors: RunNotFound; NotFound; WrongState for a job that asks for no approval, has not asked
    yet, or has ended.
    """
    asked = _Asked.find(run_id, name, connection)
    return _tell(asked, _REJECTED, _Word(by, reason), connection)


def has_asked(run_id: str, name: str, connection: Redis) -> bool:
    """Whether a job, or one of its items, has asked for its approval. Errors: as `approve`."""
    ids = find_jobs(name, get_declared(run_id, connection))
    return any(connection.hexists(keys.job(job_id), "flowq_asked") for job_id in ids)


def say_who(by: str | None = None) -> str:
    """Return `by`, cut to `MAX_WHO` bytes, or the user of this process as `user@host`.

    Neither is verified.
    """
    if by is not None:
        return by.encode(errors="replace")[:MAX_WHO].decode(errors="ignore")
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # no name: in a container, on Windows without USERNAME
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return say_who(f"{user}@{socket.gethostname()}")


class _Asked(NamedTuple):
    """What is approved or rejected: one job, or all items of a group."""

    run_id: str
    name: str
    ids: Sequence[str]
    is_group: bool

    @classmethod
    def find(cls, run_id: str, name: str, connection: Redis) -> _Asked:
        """Return what has a name in a run. Errors: RunNotFound; NotFound."""
        status = get_declared(run_id, connection)
        return cls(run_id, name, find_jobs(name, status), name not in status.jobs)


class _Word(NamedTuple):
    by: str
    note: str
    inputs: Mapping[str, Any] = MappingProxyType({})

    def write(self, at_s: float) -> str:
        """Return it as JSON, without empty fields. Errors: UsageError for a long note."""
        if len(self.note) > MAX_TEXT:
            length = f"{len(self.note):,} characters"
            raise UsageError(f"the text has {length}; at most {MAX_TEXT:,} are stored")
        said = {"by": self.by, "note": self.note, "inputs": dict(self.inputs)}
        kept = {key: value for key, value in said.items() if value}
        return json.dumps({"at": format_instant(at_s), **kept})


def _tell(asked: _Asked, what: str, word: _Word, connection: Redis) -> bool:
    written = word.write(read_clock(connection))
    answers = set[int]()
    for job_id in asked.ids:
        target = "" if 1 in answers else declared_name(asked.name)  # the run is told once
        told = (job_id, what, written, target, "1" if asked.is_group else "")
        answers.add(scripts.APPROVE.call(connection, keys.job(job_id), *told))
    do_or_leave_to_others(lambda: run_steps(connection), connection)
    if 1 in answers or 0 in answers:
        return 1 in answers
    job = f"job {asked.name} of run {asked.run_id}"
    if _NOT_ASKED in answers:
        raise WrongState(f"{job} has not asked yet; it can be rejected when it does")
    if _SAID_OTHERWISE in answers:
        said, verb = ("approved", "rejected")[:: 1 if what == _REJECTED else -1]
        next_step = "a retry asks again" if what == _APPROVED else "a cancel ends the run"
        raise WrongState(f"{job} was already {said}, so it cannot be {verb}; {next_step}")
    if _OVER in answers:
        verb = "approve" if what == _APPROVED else "reject"
        raise WrongState(f"{job} has ended, so there is nothing to {verb}")
    raise WrongState(f"{job} does not ask for an approval")


def _resolve(
    name: str, ids: Sequence[str], given: Mapping[str, object], connection: Redis
) -> dict[str, Any]:
    """Return the value of each input that the approval asks for. Errors: UsageError."""
    declared = _read_inputs(ids, connection)
    if declared is None:  # it asks for no approval; the script will say so
        return {}
    try:
        values = resolve(declared, given, f"the approval of {name}")
    except WorkflowInvalid as invalid:
        told = (f"{p.message}; {p.hint}" if p.hint else p.message for p in invalid.problems)
        raise UsageError("; ".join(told)) from invalid  # a page marks its fields
    for each in declared:
        if each.type == "str" and each.required and not each.pattern and not values[each.name]:
            raise UsageError(
                f"the input {each.name} is required and the given text is empty; an approval "
                'accepts an empty text if the input declares `default: ""` or a pattern'
            )
    size = len(json.dumps(values).encode())
    if size > MAX_VALUES:
        raise UsageError(f"the values have {size:,} bytes of JSON; at most {MAX_VALUES:,} are kept")
    return values


def _read_inputs(ids: Sequence[str], connection: Redis) -> tuple[Input, ...] | None:
    """Return the inputs of an approval; None for jobs that ask for no approval."""
    for job_id in ids:
        asks, approval = connection.hmget(keys.job(job_id), "flowq_asks", "flowq_approval")
        asks = asks or (b"" if approval else connection.hget(keys.group(job_id), "asks"))
        if asks is not None:
            return read_inputs(as_text(asks))
    return None


def find_jobs(name: str, status: RunStatus) -> list[str]:
    """Return the ids of the jobs with a name: one job, or a group's list and its items.

    For a nested workflow, its start is included, which asks for the approval. Errors: NotFound.
    """
    jobs = status.jobs
    outer, _, last = name.rpartition(".")
    base = f"{jobs[outer].job_id}--{last}" if outer in jobs else f"{status.run_id}-{name}"
    if name in jobs:
        base = jobs[name].job_id
    is_one = re.compile(rf"{re.escape(base)}(--\d+)?(--0)?").fullmatch
    inner = f"{name}."
    ids = [
        job.job_id for job in jobs.values() if is_one(job.job_id) and not job.name.startswith(inner)
    ]
    if not ids:
        hint = did_you_mean(name, status.names())
        where = f"in run {status.run_id}"
        raise NotFound(f"there is no job {name} {where}" + (f"; {hint}" if hint else ""))
    return ids


_OVER, _NOT_ASKED, _SAID_OTHERWISE = -2, -3, -4
_WAITS = -2


def release_run(run_id: str, connection: Redis, *, by: str = "") -> bool:
    """Release a run that was submitted held. `by` is who does it, which the run is told.

    Returns True for the call that released it, False if it was not held.
    Errors: RunNotFound; WrongState if it has ended, waits for its turn in its group, or is not
    submitted completely.
    """
    record = get_record(run_id, connection)
    if record.state == "staged":
        raise WrongState(
            f"run {run_id} is still being submitted; if its submitter has died, it will be removed"
        )
    if record.state in RUN_ENDED:
        retry = "" if record.state == "succeeded" else "; a retry runs it again"
        raise WrongState(f"run {run_id} has ended: {record.state}{retry}")
    answer = scripts.COMMIT.call(connection, keys.run(run_id), run_id, "go", by)
    if answer == _WAITS:
        hint = "it starts by itself; to start it now, cancel the runs before it"
        raise WrongState(f"run {run_id} waits for its turn in its `concurrency` group; {hint}")
    if answer < 0:
        raise RunNotFound(run_id)
    do_or_leave_to_others(lambda: go(run_id, connection), connection)
    return bool(answer)
