"""The same model with runs: jobs that were submitted together, are counted, and can be retried."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.property.model import MET, PENDING, Job, Model, Refused

BAD = {"failed", "stopped", "canceled", "expired", "deleted"}


@dataclass
class Run:
    """What is known about one submission."""

    state: str = "running"
    is_canceling: bool = False
    is_resumed: bool = False
    """Somebody has requeued one of its jobs after its end: the cancel is over."""
    releases: list[str] = field(default_factory=list)
    """Its future jobs in the order of their release; late ones are in it after a retry."""


def is_decided(job: Job) -> bool:
    """Whether it has started at the first success or failure before it."""
    return job.future is not None and job.future.decided


class ModelWithRuns(Model):
    """A run reaches its end when all of its jobs have."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Run] = {}

    def cancel_run(self, run: str) -> None:
        """Call off whatever has not started."""
        self.runs[run].is_canceling, self.runs[run].is_resumed = True, False
        for job in self.in_run(run):
            if job.status in ("deferred", "queued"):
                self._call_off(job.id, "canceled")
        self._settle_all()

    def is_canceling(self, job: Job) -> bool:
        """Whether the job's run is on its way to its end, so that nothing begins anew in it."""
        run = self.runs.get(job.run)
        if run is None or run.is_resumed:
            return False
        return run.is_canceling and run.state == "running"

    def retry_run(self, run: str) -> None:
        """Hold again what did not succeed and what comes after it, then release the run again."""
        jobs = {job.id: job for job in self.in_run(run)}
        again = {job_id for job_id, job in jobs.items() if job.outcome not in MET}
        if not again:
            raise Refused("WrongState")
        done = {job_id for job_id, job in jobs.items() if job.outcome in MET and is_decided(job)}
        while more := {t for j in again for t in jobs[j].blocks if t in jobs} - again - done:
            again |= more
        self.queue = [job_id for job_id in self.queue if job_id not in again]
        for job in [job for job_id, job in jobs.items() if job_id in again]:
            job.status, job.outcome, job.generation = "deferred", PENDING, job.generation + 1
            if job.future:
                job.future.state, job.future.freed, job.future.queued = "open", 0, 0
        for job_id, job in jobs.items():
            if job_id in again:
                self._rearm(job)
                job.gates = {target for target in job.blocks if self._is_gated(job, target)}
            for target in again.intersection(job.blocks):
                if self._future(target).decided:
                    continue
                self._future(target).mark(job_id, job.outcome, self._above(job))
        late = [i for i in again if jobs[i].future and i not in self.runs[run].releases]
        late.sort(key=list(jobs).index)
        self.runs[run] = Run(releases=self.runs[run].releases + late)
        self.release_run(run)

    def release_run(self, run: str) -> None:
        """Release its future jobs, the first ones first."""
        releases = self.runs[run].releases
        opened = [i for i in releases if i in self.jobs and self._future(i).state == "open"]
        for job_id in opened:
            self.release(job_id)
        self.finish_releases(*opened)

    def in_run(self, run: str) -> list[Job]:
        """The jobs of a run, the last ones first, as they were enqueued."""
        return [job for job in self.jobs.values() if job.run == run]

    def counts(self, run: str) -> tuple[int, int]:
        """How many of its jobs have not ended, and how many ended badly."""
        outcomes = [job.outcome for job in self.in_run(run)]
        return outcomes.count(PENDING), sum(outcome in BAD for outcome in outcomes)

    def _count(self, run: str) -> None:
        if not run:
            return
        left, bad = self.counts(run)
        if left:
            self.runs[run].is_resumed |= self.runs[run].state != "running"
            self.runs[run].state = "running"
        elif self.runs[run].state == "running":
            ended = "canceled" if self.runs[run].is_canceling else "failed"
            self.runs[run].state = ended if bad else "succeeded"
