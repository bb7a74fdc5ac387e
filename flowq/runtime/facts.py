"""What does not change about a job once it is enqueued."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.runtime import keys
from flowq.status import JobFacts

if TYPE_CHECKING:
    from redis import Redis

JOBS_PER_READ = 1_000
_FIELDS = (
    *("origin", "flowq_queue", "description", "flowq_blocks", "flowq_message"),
    "flowq_code",
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
                text, blocks, message, code = others
                facts[job_id] = JobFacts(
                    job_id, queue or origin, text, not blocks, message, origin, code
                )
    return facts
