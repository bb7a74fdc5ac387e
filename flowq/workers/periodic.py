"""What a worker does periodically: heartbeats, schedules, maintenance, the search for lost workers.

The supervisor calls `do_due` in every round of its loop. The intervals are defined below; that of
the heartbeat, in `flowq.runtime.maintenance.Lease`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import ResponseError
from rq.utils import str_to_date

from flowq.runtime.connections import clock_warning, is_passing, is_refusal
from flowq.runtime.maintenance import Due, Lease, find_suspects, make_pass, read_due
from flowq.runtime.progress import EVERY_S
from flowq.runtime.run_lists import sweep
from flowq.workers.monitor import Monitor
from flowq.workers.redis_side import RedisSide
from flowq.workers.wakeup import Wakeup

TIDY_S = 1.0
PRINTED_S = 0.5
"""The interval at which what running jobs have printed is stored, all of a worker's in one call."""

DUE_S = 0.5
"""The interval at which schedules are checked, besides after each change of one."""

PAUSE_S = 0.01
"""The shortest pause between two checks: other programs may schedule thousands of jobs."""

LISTS_S = 60.0
"""The longest interval at which a worker looks whether the lists of runs are to be put right."""

SIGN_S = 10.0
"""The interval of pings on the subscription, which may receive no message for hours."""

MAX_VAIN_PASSES = 50
"""So many passes of maintenance may change nothing that is due, before an idle worker ends. A pass
makes up to 100 steps, and an operation on a large run takes many."""

log = logging.getLogger("rq.worker")


@dataclass
class Duty:
    """Something to do every `every_s` seconds. `due_at` is on the monotonic clock."""

    every_s: float
    do: Callable[[], None]
    due_at: float = 0.0
    is_failing: bool = False


class PeriodicWork:
    """The duties of one worker. `do_due` raises redis-py's errors."""

    def __init__(
        self,
        redis_side: RedisSide,
        monitor: Monitor,
        wakeup: Wakeup,
        *,
        lease: Lease,
        worker_ttl_s: int,
        maintenance_s: float,
        max_crashes: int,
    ) -> None:
        self.redis_side = redis_side
        self.monitor = monitor
        self._lease = lease
        self._worker_ttl_s = worker_ttl_s
        self._max_crashes = max_crashes
        self._was_refused = False
        """Whether the server has refused a command since the last search for lost workers."""
        self._has_queued = False
        """Whether jobs of lost workers were requeued since the last call of `take_queued`."""
        self._heals_until: float | None = None
        self._tried = (0, Due(0, []))
        """The number of jobs done, and what was due, when `_has_tidied` last ran a pass."""
        self._vain_passes = 0
        self._steps = 0
        """The number of steps of the last pass of maintenance."""
        self._has_looked = False
        self._is_sure = False
        self._is_clock_off = False
        self._beat = Duty(lease.beat_s, self.beat)
        self._due = Duty(DUE_S, self._queue_due)
        self._wakeup = wakeup
        self._looked_at = 0.0
        wakeup.call_on_schedule(self.look_at_schedules)
        # After the first search that is sure: RQ would fail the jobs that we requeue.
        clean_at = time.monotonic() + lease.silence_s
        self._clean = Duty(maintenance_s, self._clean_registries, clean_at)
        self._maintenance = Duty(TIDY_S, self._tidy)
        self._lists = Duty(LISTS_S, self._sweep_lists)
        self.duties = [
            self._beat,
            self._maintenance,
            self._due,
            Duty(lease.look_s, self._search),
            Duty(PRINTED_S, self.keep_printed),
            Duty(SIGN_S, wakeup.ask_for_sign),
            self._clean,
            self._lists,
            Duty(EVERY_S, self._note_progress),
        ]

    def look_at_schedules(self) -> None:
        """Check the schedules soon, because one has changed."""
        self._due.due_at = min(self._due.due_at, self._looked_at + PAUSE_S)

    @property
    def due_at(self) -> float:
        """When the next duty is due."""
        return min(duty.due_at for duty in self.duties)

    def do_due(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        for duty in self.duties:
            if now >= duty.due_at:
                duty.due_at = now + duty.every_s
                self._do(duty)
        self._has_looked = True

    def _do(self, duty: Duty) -> None:
        name = duty.do.__name__.strip("_")
        try:
            duty.do()
        except Exception as error:
            if is_passing(error):
                duty.due_at = 0.0
                raise
            if not duty.is_failing:  # jobs go on, and the next attempt may succeed
                log.exception("periodic work failed (%s); trying again", name)
            duty.is_failing = True
        else:
            if duty.is_failing:
                log.info("periodic work succeeds again (%s)", name)
            duty.is_failing = False

    def hurry(self) -> None:
        """Send a heartbeat as soon as possible: a job that was taken for a short one takes long."""
        self._beat.due_at = 0.0

    def note_refusal(self) -> None:
        """Note that the server refuses commands: it may be why other workers are silent."""
        self._was_refused = True

    def take_queued(self) -> bool:
        """Return whether jobs of lost workers were requeued since the last call."""
        has_queued, self._has_queued = self._has_queued, False
        return has_queued

    def beat(self) -> None:
        """Send a heartbeat for the worker and its executions; kill those that were taken away."""
        executing = self.monitor.report()
        lost = self.redis_side.beat(self._lease.lease_s, self._worker_ttl_s, executing)
        if lost:
            self.monitor.kill_lost(lost)

    def _note_progress(self) -> None:
        for claim, text in self.monitor.find_progress():
            self.redis_side.note_progress(claim, text)
        self.redis_side.store_progress()

    def keep_printed(self) -> None:
        """Store what running jobs have printed. A server that refuses it gets it with the end."""
        claims = self.monitor.pool.list_news()
        try:
            if claims:
                self.redis_side.keep_printed(claims)
        except ResponseError as error:
            if not is_refusal(error):
                raise

    def _tidy(self) -> None:
        self._steps = 0  # should it raise
        made = make_pass(self.redis_side.connection)
        self._steps = made.steps
        for found in made.findings:
            job = {"job_id": found.job_id}
            log.warning("job %s was %s unnoticed; repaired", found.job_id, found.what, extra=job)
            self._has_queued = True
        for failure in made.failures:
            raise failure

    def _sweep_lists(self) -> None:
        next_s = sweep(self.redis_side.connection) or TIDY_S
        self._lists.due_at = time.monotonic() + min(next_s, LISTS_S)

    def _queue_due(self) -> None:
        self._wakeup.watch_schedules()  # before the check, so that no change is missed
        next_s, all_limited = self.redis_side.queue_due()
        self._looked_at = time.monotonic()
        if next_s is not None:
            self._due.due_at = min(self._due.due_at, self._looked_at + max(next_s, PAUSE_S))
        for limited in all_limited:
            self.monitor.pool.add_chore("queue_limited", limited)

    def _clean_registries(self) -> None:
        if self._is_sure:
            self.monitor.pool.add_chore("clean_registries", (self.redis_side.queues,))
        else:
            self._clean.due_at = time.monotonic() + self._lease.look_s

    def _search(self) -> None:
        before_s = time.time()
        found = self.redis_side.find_lost(self._lease, was_refused=self._was_refused)
        self._was_refused, self._is_sure = False, found.is_sure
        warning = clock_warning(found.clock_s, before_s, time.time())
        if warning and not self._is_clock_off:
            log.warning("%s", warning)
        self._is_clock_off = bool(warning)
        for name in found.workers:
            if name != self.redis_side.worker:
                self.recover(name)

    def is_healing(self, done: int) -> bool:
        """Whether an idle worker that has done so many jobs must not leave yet.

        Other workers may be lost, and it will soon be certain; or the last jobs of this worker have
        led to maintenance. Errors: redis-py's.
        """
        now = time.monotonic()
        if self._heals_until is None:
            # By then a silent worker is lost, or has sent a heartbeat.
            self._heals_until = now + self._lease.silence_s + self._lease.lease_s + 1.0
        if not self._has_looked or self._has_tidied(done):
            return True
        return now < self._heals_until and bool(
            find_suspects(self.redis_side.connection, self.redis_side.worker)
        )

    def _has_tidied(self, done: int) -> bool:
        """Run the next pass of maintenance now; True if something was due, which may queue jobs.

        What a pass cannot change (it fails, or belongs to a newer version) does not count again.
        """
        due = read_due(self.redis_side.connection)
        if not any(due):
            return False
        if (done, due) != self._tried:
            self._tried, self._vain_passes = (done, due), 0
        elif not self._steps or self._vain_passes == MAX_VAIN_PASSES:
            return False
        else:
            self._vain_passes += 1
        self._do(self._maintenance)
        self._has_queued = True
        return True

    def recover(self, worker: str) -> None:
        """Requeue the jobs of a lost worker; those that have lost too many workers fail."""
        self._has_queued = True
        log.warning("worker %s is lost; its jobs are recovered", worker)
        text = f"The worker that executed the job ({worker}) was lost"
        for claim in self.redis_side.recover(worker, self._max_crashes):
            crashes = claim.find("flowq_crashes")
            note = f"{text}; that happened {crashes} times" if int(crashes or 1) > 1 else text
            # As long as it may have run: nobody knows when it ended.
            began_at = claim.find("started_at")
            seconds = time.time() - str_to_date(began_at).timestamp() if began_at else 0.0
            end = claim.describe_death(note, "", max(0.0, seconds))._replace(how="conclude")
            self.monitor.pool.note_end(claim, end)
