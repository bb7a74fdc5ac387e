"""What RQ's tests import as `Queue`, `Job` and `Worker`; `RQ_SUITE_CLASSES` chooses."""

from __future__ import annotations

import os

from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.worker import Worker as RQWorker

import flowq.runtime.job
import flowq.runtime.queue
import flowq.workers.worker


class EmptyJob(RQJob):
    """A subclass that changes nothing: what it breaks is due to there being a subclass."""


class EmptyQueue(RQQueue):
    """The same for the queue."""

    job_class = EmptyJob


OURS = (flowq.runtime.queue.Queue, flowq.runtime.job.Job)
CLASSES = {
    "rq": (RQQueue, RQJob, RQWorker),
    "empty": (EmptyQueue, EmptyJob, RQWorker),
    "flowq": (*OURS, RQWorker),
    "worker": (*OURS, flowq.workers.worker.Worker),
}

Queue, Job, Worker = CLASSES[os.environ["RQ_SUITE_CLASSES"]]
