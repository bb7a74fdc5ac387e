"""In the child: tags for what Sentry and Datadog record about a job of a run.

Their integrations with RQ know the id of a job, and nothing of runs. `tag` adds run, job and
attempt. It is called only if a tool has wrapped `perform_job`, inside of that, and imports nothing:
without these packages it costs nothing.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from flowq.runtime.job import Job

log = logging.getLogger("rq.worker")


def tag(job: Job) -> None:
    """Tag Sentry's current scope and Datadog's current span with the job, if it is in a run."""
    if not job.run_id:
        return
    tags = {"flowq.run": job.run_id, "flowq.job": job.name, "flowq.attempt": str(job.attempt)}
    try:
        for target in _find_targets():
            for name, value in tags.items():
                target.set_tag(name, value)
    except Exception:  # what another version of a tool raises is no reason to fail the job
        log.debug("job %s: its tags were not set", job.id, exc_info=True)


def _find_targets() -> list[Any]:
    targets = []
    if sentry := sys.modules.get("sentry_sdk"):
        targets.append(sentry.get_current_scope())  # that of the job: the integration makes one
    if (datadog := sys.modules.get("ddtrace.trace")) and (span := datadog.tracer.current_span()):
        targets.append(span)
    return targets
