"""What RQ's tests import in place of `rq.Queue` and `rq.job.Job`; `RQ_SUITE_CLASSES` chooses."""

from __future__ import annotations

import os

from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue

import flowq.runtime.job
import flowq.runtime.queue


class EmptyJob(RQJob):
    """A subclass that changes nothing: what it breaks is due to there being a subclass."""


class EmptyQueue(RQQueue):
    """The same for the queue."""

    job_class = EmptyJob


CLASSES = {
    "rq": (RQQueue, RQJob),
    "empty": (EmptyQueue, EmptyJob),
    "flowq": (flowq.runtime.queue.Queue, flowq.runtime.job.Job),
}

Queue, Job = CLASSES[os.environ["RQ_SUITE_CLASSES"]]
