"""Monitors the children of a worker: timeouts, jobs that wait behind long ones, commands to stop.

The supervisor calls `look` in every round of its loop. This module does not access Redis, and
changes children only by methods of `Pool` and `Child`.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any

from flowq.workers.children import Child, Pool
from flowq.workers.claims import Claim
from flowq.workers.estimates import BATCH_S, Estimates
from flowq.workers.processes import reap_orphans

LOOK_S = 0.01
"""When a child's job has run so long, the jobs behind it are given to others."""

UNSAID_S = 0.03
"""How long a job that was claimed alone may wait to begin before Redis hears that it waits: its
child is only just starting, say."""

READ_S = 0.5
"""The interval at which the output of running jobs is read."""

CHORE_TIMEOUT_S = 300.0
"""The time limit of a chore, and of an end by RQ's own code: both run callbacks and webhooks."""

STOPPED = "Job stopped by user, work-horse terminated."


class Monitor:
    """Monitors one pool. A job is killed `grace_s` seconds after its timeout was raised in it."""

    def __init__(self, pool: Pool, estimates: Estimates, grace_s: float) -> None:
        self.pool = pool
        self.estimates = estimates
        self.grace_s = grace_s
        self._looked_at = 0.0
        self._read_at = 0.0

    def look(self) -> bool:
        """Do what is due. Returns True if Redis should record at once that a job has begun."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        news = [self._look_at(child, now) for child in list(self.pool.children)]
        if now - self._read_at > READ_S:
            self._read_at = now
            for child in self.pool.children:
                self.pool.look_at_output(child)
        self.pool.fill()
        reap_orphans(child.process.pid for child in self.pool.children)
        return any(news)

    def _look_at(self, child: Child, now: float) -> bool:
        child.end_late_chore(CHORE_TIMEOUT_S, now)
        claim, has_news = child.executing, _has_news(child, now)
        if claim is None:
            return has_news
        seconds = now - child.shared.begun_at
        if claim.timeout_s is not None:
            allowed_s = claim.timeout_s + child.shared.extra_s + self.grace_s
            if seconds > allowed_s and not child.killed_because:
                timeout = f"Task exceeded maximum timeout value ({claim.timeout_s:g} seconds)"
                because = f"{timeout}; it did not stop, and was killed"
                self.pool.kill(child, because, is_late=True)
        return (seconds > LOOK_S and self._isolate(child, claim)) or has_news

    def _isolate(self, child: Child, claim: Claim) -> bool:
        """Take back what waits behind a long job. Returns True if it was taken for a short one."""
        self.pool.collect(child)
        waiting = child.waiting
        if waiting and time.monotonic() - waiting[0].handed_at > LOOK_S:
            if len(waiting) > 1:
                self.estimates.shrink(claim.kind)
            self.pool.reassign(child)
        return claim.make_heavy()

    # Predicting ----------------------------------------------------------------------------------

    def predict_s(self) -> float:
        """Return in how many seconds some child should get its next job, just before it is idle.

        Zero or less means now, infinity that it is unknown.
        """
        now = time.monotonic()
        return min((self._find_lead(child, now) for child in self.pool.children), default=inf)

    def find_soon_idle(self, within_s: float) -> list[Child]:
        """Return the children that should get their next job within so many seconds."""
        now = time.monotonic()
        return [child for child in self.pool.children if self._find_lead(child, now) <= within_s]

    def _find_lead(self, child: Child, now: float) -> float:
        if len(child.claims) != 1 or child.is_leaving or child.has_enough:
            return inf
        if self.pool.method.has_process_per_job or child.jobs_left is not None:
            return inf
        (claim,) = child.claims.values()
        begun_at = child.shared.begun_at if claim is child.executing else claim.handed_at
        return self.estimates.find_lead(claim.kind, now - begun_at)

    def rebalance(self) -> None:
        """Take back the jobs that wait behind long ones, because another child is idle."""
        now = time.monotonic()
        for child in self.pool.children:
            executing, waiting = child.executing, child.waiting
            if executing is not None and waiting and now - child.shared.begun_at > BATCH_S:
                self.pool.reassign(child)

    # Commands ------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        """Kill all jobs that are being executed; they fail."""
        for child in list(self.pool.children):
            if child.executing is not None:
                self.pool.kill(child, "it was killed by a command")

    def stop(self, *, job_id: str = "", execution_id: str = "") -> None:
        """End one job as stopped, whether a child executes it or has not begun it."""
        for child in list(self.pool.children):
            for claim in list(child.claims.values()):
                if job_id != claim.job_id and execution_id != claim.execution_id:
                    continue
                claim.ask_to_stop()
                if self.pool.withdraw(child, claim):
                    self.pool.note_end(claim, claim.describe_death(STOPPED, "", 0.0))
                elif child.executing is claim:
                    self.pool.kill(child, STOPPED)

    def obey(self, command: dict[str, Any]) -> None:
        """Execute a command that one of RQ's `send_…_command` functions sent; ignore others."""
        name = command.get("command")
        if name == "kill-horse":
            self.kill_all()
        elif name == "stop-job" and command.get("job_id"):
            self.stop(job_id=str(command["job_id"]))
        elif name == "stop-execution" and command.get("execution_id"):
            self.stop(execution_id=str(command["execution_id"]))

    def kill_lost(self, execution_ids: set[str]) -> None:
        """Kill executions that another process has ended, or started again."""
        for child in list(self.pool.children):
            claim = child.executing
            if claim is not None and claim.execution_id in execution_ids:
                self.pool.kill(child, "somebody else has ended it")

    # Reporting -----------------------------------------------------------------------------------

    def report(self) -> list[tuple[Claim, bool]]:
        """Return the claims that the children have, for a heartbeat.

        The flag is True for a job that was handed over and has not begun. Light claims are left
        out: they last for milliseconds, or `look` makes them heavy.
        """
        report: list[tuple[Claim, bool]] = []
        for child in self.pool.children:
            begun = child.shared.begun
            if (claim := child.claims.get(begun)) is not None:
                for_s = time.monotonic() - child.shared.begun_at
                claim.note_begun(time.time() - for_s, child.shared.pid)
            report += [
                (claim, number > begun)
                for number, claim in child.claims.items()
                if not claim.is_light
            ]
            if child.concluding is not None:
                report.append((child.concluding, False))
        return report

    def find_progress(self) -> list[tuple[Claim, str]]:
        """Return what running jobs have reported of their progress since it was noted last."""
        executing = [(child.executing, child.shared) for child in self.pool.children]
        reports = [(each, shared.find_report(each.number)) for each, shared in executing if each]
        return [(claim, text) for claim, text in reports if text not in ("", claim.progress)]


def _has_news(child: Child, now: float) -> bool:
    """Whether Redis is wrong about which of the child's jobs have begun.

    Light claims do not count, because they begin and end within milliseconds, or are made heavy;
    behind one there are only light ones, or one that must wait for that.
    """
    begun = child.shared.begun
    for number, claim in child.claims.items():
        if claim.is_light:
            return False
        is_wrong = claim.is_known_to_wait == (number <= begun)
        if is_wrong and (number <= begun or now - claim.handed_at > UNSAID_S):
            return True
    return False
