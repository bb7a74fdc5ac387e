"""In the child: names and tags for what Sentry and Datadog record about a job of a run.

Their integrations with RQ know the id of a job and the function that RQ calls, which is the same
one for most jobs of runs, and nothing of runs. `tag` adds what the job calls, and run, job and
attempt. It is called only if a tool has wrapped `perform_job`, inside of that, and imports nothing:
without these packages it costs nothing.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from flowq.runtime.job import PERFORM, Job

log = logging.getLogger("rq.worker")


def tag(job: Job) -> None:
    """Name and tag Sentry's current scope and Datadog's current span, if the job is in a run."""
    if not job.run_id:
        return
    tags = {"flowq.run": job.run_id, "flowq.job": job.name, "flowq.attempt": str(job.attempt)}
    try:
        called = _name_call(job)
        for target in _find_targets():
            if hasattr(target, "set_transaction_name"):  # Sentry's
                target.set_transaction_name(called, source="task")
            else:
                target.resource = called
            for name, value in tags.items():
                target.set_tag(name, value)
    except Exception:  # what another version of a tool raises is no reason to fail the job
        log.debug("job %s: its tags were not set", job.id, exc_info=True)


def _name_call(job: Job) -> str:
    """Return the function that a job calls; for a command, the name of the job in its workflow."""
    if job.func_name != PERFORM:
        return str(job.func_name)
    return str(job.args[0].get("call", "")).replace(":", ".") or job.declared_name


def _find_targets() -> list[Any]:
    targets = []
    if sentry := sys.modules.get("sentry_sdk"):
        targets.append(sentry.get_current_scope())  # that of the job: the integration makes one
    if (datadog := sys.modules.get("ddtrace.trace")) and (span := datadog.tracer.current_span()):
        targets.append(span)
    return targets
