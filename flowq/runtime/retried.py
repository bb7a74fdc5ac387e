"""A job of RQ whose further attempts `lua/retries.lua` decides about."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.durations import write_duration
from flowq.errors import RetryLater
from flowq.runtime import scripts
from flowq.runtime.failures import Failure
from flowq.runtime.rq import JobBase
from flowq.runtime.views import Shown

if TYPE_CHECKING:
    from redis.client import Pipeline

log = logging.getLogger("rq.worker")


@dataclass(frozen=True, slots=True)
class _NextTry:
    """What was decided about another attempt of a job.

    Shape: `wait_s` is None for what RQ would wait; `since` is the instant of the server from which
    `within` counts, `why_not` empty where nobody has to be told.
    """

    is_due: bool = True
    wait_s: float | None = None
    since: str = ""
    why_not: str = ""


class RetriedJob(JobBase):
    """A job that may be tried again when it has failed.

    RQ asks `should_retry` where it ends a failed attempt, in every kind of worker, and then
    `get_retry_interval`. How the attempt failed is noted where that happened: with the exception at
    hand, or where a process died.
    """

    run_id: str = ""
    attempt: int = 1
    """Which of the job's starts this is, in its run; 1 outside of runs."""
    failure: Failure | None = None
    """How this attempt has failed; None where nobody knows, and for one that has not."""
    _next_try: _NextTry | None = None
    _wait_s: float = 0
    _shown: Shown | None

    @property
    def shown(self) -> Shown:
        """What its end keeps for those who look at the run."""
        if self._shown is None:
            self._shown = Shown()
        return self._shown

    def say_next_try(self) -> str:
        """Return when it is tried again, and why; empty where that is not so."""
        if self._next_try is None:
            return ""
        wait_s = self._wait_s
        wait = write_duration(wait_s) if wait_s == int(wait_s) else f"{wait_s:.3g}s"
        again = f"again in {wait}" if wait_s else "again"
        failed = f"attempt {self.attempt} failed"
        return f"{failed}: {self.failure.brief}; {again}" if self.failure else f"{failed}; {again}"

    def note_failure(self, error: BaseException | None) -> None:
        """Note by what this attempt has failed; the first one counts."""
        if self.failure is None:
            self.failure = Failure.of(error)
            self.shown.failure = self.failure.write()

    def explain_last_attempt(self, error: BaseException | None) -> None:
        """Say in an error that asks for another attempt why there is none."""
        if isinstance(error, RetryLater) and not self.retries_left:
            has_some = "left" if self.retry_intervals else "declared"
            error.add_note(f"it is not tried again: no `retries` are {has_some}")

    @property
    def should_retry(self) -> bool:
        """Whether a failure is followed by a retry; not in a run that is being canceled.

        `lua/retries.lua` decides, unless a number of retries is all there is. Source: RQ asks this
        wherever a job has failed. `note_retry` covers a cancel that comes between the answer and
        the end.
        """
        if not super().should_retry:
            return False
        asks = self.failure is not None and self.failure.asks
        if self.run_id or self.retry_policy or asks:
            self._next_try = self._find_next_try()
            return self._next_try.is_due
        return True

    def _find_next_try(self) -> _NextTry:
        policy, failure, left = self.retry_policy, self.failure, self.retries_left or 0
        used = max(0, json.loads(policy)["max"] - left) if policy else 0
        began_at = self.started_at or datetime.now(UTC)
        age_s = max(0.0, (datetime.now(UTC) - began_at).total_seconds())
        answer = scripts.MAY_RETRY.call(
            *(self.connection, self.key, self.id),
            *(policy, failure.write() if failure else "", used, f"{age_s:.6f}"),
        )
        is_due, *rest = map(as_text, answer)
        if is_due == "0":
            return _NextTry(is_due=False, why_not=rest[0])
        return _NextTry(wait_s=float(rest[0]) if rest[0] else None, since=rest[1])

    def get_retry_interval(self) -> float:  # type: ignore[override]  # RQ counts with any number
        """Return the seconds before the next attempt."""
        next_try = self._next_try
        if next_try is None or next_try.wait_s is None:
            self._wait_s = super().get_retry_interval()
        else:
            self._wait_s = next_try.wait_s
        return self._wait_s

    @property
    def why_final(self) -> str:
        """Why a failed job with retries left is not tried again; empty for all others."""
        return self._next_try.why_not if self._next_try is not None else ""

    def keep_since(self, pipeline: Pipeline) -> None:
        """Keep the instant from which `within` counts."""
        if self.retry_policy and self._next_try is not None:
            pipeline.hset(self.key, "flowq_since", self._next_try.since)
