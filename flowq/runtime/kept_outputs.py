"""The outputs of an ended run as commands show them: views that a job has stored.

`flowq.runtime.outputs` evaluates and stores them. Reading loads neither expressions nor jobs, so
that `flowq status` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.runtime import keys
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


@dataclass(frozen=True, slots=True)
class KeptOutputs:
    """The outputs of an ended run as commands show them.

    Attributes:
        views: by name (flowq.runtime.views).
        errors: by name, why the other outputs have no value, or none yet.
        is_pending: a job on `queue` has yet to evaluate them.
    """

    views: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    is_pending: bool = False
    queue: str = ""


_FIELDS = ("state", "outputs", "ends", "kept_outputs", "outputs_job")


def read_fields(run_id: str, connection: Redis | Pipeline) -> dict[str, str]:
    """Return what the record of a run says about its outputs; "" for what it lacks."""
    raw: Any = connection.hmget(keys.run(run_id), *_FIELDS)
    return {name: as_text(value) if value else "" for name, value in zip(_FIELDS, raw, strict=True)}


def is_kept(fields: Mapping[str, str]) -> bool:
    """Whether the views of the newest end of the run are stored."""
    kept = fields["kept_outputs"]
    return bool(kept) and json.loads(kept)["end"] == fields["ends"]


def read_kept_outputs(run_id: str, connection: Redis) -> KeptOutputs:
    """Return the stored views of a run's outputs. Loads and executes nothing.

    Empty for a workflow without outputs, and before the run has ended.
    """
    fields = read_fields(run_id, connection)
    if not fields["outputs"] or fields["state"] not in RUN_ENDED:
        return KeptOutputs()
    if is_kept(fields):
        kept = json.loads(fields["kept_outputs"])
        return KeptOutputs(kept["views"], kept["errors"])
    names, job_id = json.loads(fields["outputs"])["template"], fields["outputs_job"]
    if not job_id:
        why = "a worker of an older version ended the run, and did not evaluate the outputs"
        return KeptOutputs(errors=dict.fromkeys(names, why))
    raw = connection.hmget(keys.job(job_id), "status", "origin")
    status, queue = (as_text(each) if each else "" for each in raw)
    if status in _UNFINISHED:
        why = f"it is evaluated after the run, and waits for a worker on queue {queue}"
        if status == "started":
            why = "it is still being evaluated"
        return KeptOutputs(errors=dict.fromkeys(names, why), is_pending=True, queue=queue)
    if is_kept(read_fields(run_id, connection)):  # stored since the first look
        return read_kept_outputs(run_id, connection)
    how = f"has {status}" if status else "is gone"
    why = f"job {job_id}, which was to evaluate it, {how}"
    return KeptOutputs(errors=dict.fromkeys(names, why))


_UNFINISHED = ("queued", "started", "scheduled", "deferred")
