"""What does not change about a job once it is enqueued."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rq.utils import as_text, str_to_date

from flowq.runtime import keys
from flowq.runtime.planned import read_inputs
from flowq.status import ApprovalWord, JobFacts

if TYPE_CHECKING:
    from redis import Redis

JOBS_PER_READ = 1_000
_FIELDS = (
    *("origin", "flowq_queue", "description", "flowq_blocks", "flowq_message"),
    *("flowq_code", "flowq_approval", "flowq_asks", "flowq_approved", "flowq_rejected"),
)


def read_facts(job_ids: Iterable[str], connection: Redis) -> dict[str, JobFacts]:
    """Return the facts by job id; jobs that are gone are left out."""
    wanted = list(job_ids)
    facts: dict[str, JobFacts] = {}
    for first in range(0, len(wanted), JOBS_PER_READ):
        some = wanted[first : first + JOBS_PER_READ]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hmget(keys.job(job_id), *_FIELDS)
            answers = pipeline.execute()
        for job_id, fields in zip(some, answers, strict=True):
            origin, queue, *others = (as_text(each) if each else "" for each in fields)
            if origin:
                text, blocks, message, code, approval, asks, approved, rejected = others
                facts[job_id] = JobFacts(
                    *(job_id, queue or origin, text, not blocks, message, origin, code),
                    needs_approval=bool(approval),
                    asks=read_inputs(asks),
                    word=read_word(approved, rejected),
                )
    return facts


def read_word(approved: str, rejected: str) -> ApprovalWord | None:
    """Return what was said to a job that asks; an older version has kept no more than that."""
    said = json.loads(rejected or approved or "null")
    if said is None:
        return None
    if not isinstance(said, dict):
        return ApprovalWord(is_approved=True)
    at = str_to_date(said["at"]) if said.get("at") else None
    return ApprovalWord(
        not rejected, said.get("by", ""), at, said.get("note", ""), said.get("inputs", {})
    )
