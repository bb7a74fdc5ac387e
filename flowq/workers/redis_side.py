"""A worker's calls to Redis. Each method calls one script."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
from collections import defaultdict, deque
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.utils import as_text

from flowq.reports import read_progress
from flowq.runtime import keys, scripts
from flowq.runtime.connections import is_refusal, read_clock
from flowq.runtime.maintenance import Lease, Lost, find_lost
from flowq.runtime.scripts import format_instant, format_second
from flowq.runtime.views import LARGE_BYTES, strip_view
from flowq.workers.claims import Claim, make_claim
from flowq.workers.messages import End

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger("rq.worker")

Strategy = Literal["default", "round_robin", "random"]


@dataclass(frozen=True)
class Capacity:
    """The jobs that a turn requests.

    Attributes:
        slots: the number of children that can take jobs.
        idle: how many of these can take any job. The others take only short jobs.
        limit: the most jobs.
        budget_s: the estimated duration of the short jobs for one child.
        cost_by_kind: the estimated duration of each kind of short jobs.
    """

    slots: int
    idle: int
    limit: int
    budget_s: float = 1.0
    cost_by_kind: Mapping[str, float] = field(default_factory=dict)


NO_CAPACITY = Capacity(0, 0, 0)


@dataclass(slots=True)
class Turn:
    """What one turn brought. `answers` are in the order of the ends that were given; `has_left`
    says that there are more jobs than were asked for."""

    answers: list[str]
    claims: list[Claim] = field(default_factory=list)
    held: int = 0
    is_suspended: bool = False
    has_left: bool = False


HOST_DAYS = 9
"""How long the host of a worker is remembered: some longer than a run is kept by default."""

MAX_KNOWN = 10_000
"""How many versions of code are remembered as stored, so that they are not stored again."""

RESULT_NUMBER = {"finished": "1", "failed": "2", "stopped": "2"}
"""RQ's types of results; it records stopped jobs as failures."""


class RedisSide:
    """The claims and ends of one worker. Every method can raise redis-py's errors.

    `strategy` is RQ's: always in the given order, round robin, or at random.
    """

    def __init__(
        self,
        connection: Redis,
        worker: str,
        queues: Sequence[str],
        beat_s: int,
        strategy: Strategy = "default",
    ) -> None:
        self.strategy = strategy
        self.connection = connection
        self.worker = worker
        self.queues = list(queues)
        self._beat_s = beat_s
        self._count = 0
        self._base, self._turns = uuid4().hex[:16], 0
        self._work: dict[str, float] = defaultdict(float)
        self._line: Any = None
        self._state = ""
        self._said: deque[list[Any]] = deque()
        self._progress: dict[tuple[str, str, str], str] = {}
        self._known_code: set[tuple[str, str]] = set()
        self._new_code: dict[tuple[str, str], str] = {}
        self._waits_since = 0.0
        self._tells_host_at = 0.0
        self._key = keys.job(worker)

    def turn(self, ends: Sequence[Claim], capacity: Capacity) -> Turn:
        """End executions and claim the next jobs, in one step."""
        self.send(ends, capacity)
        return self.receive()

    def send(self, ends: Sequence[Claim], capacity: Capacity) -> None:
        """Send a turn; `receive` or `disconnect` must follow. Several may be under way."""
        if self._line is None:
            self._line = self.connection.connection_pool.get_connection()
        self._store_code()
        self.store_progress()
        said = self._arguments(ends, capacity)
        if not self._said:
            self._waits_since = time.monotonic()
        self._said.append(said)
        scripts.TURN.send(self._line, self.connection.connection_pool, self._key, *said)

    def note_code(self, claim: Claim) -> None:
        """Reduce the code in a claim's end to its digest; the next turn stores new digests.

        The files of a digest are stored once for each run, with the first job that had it.
        """
        end = claim.end
        digest, _, files = end.code.partition(" ")
        run_id = claim.find("flowq_run")
        if files and (run_id, digest) not in self._known_code:
            with suppress(ValueError, RecursionError):  # user code in the child may send anything
                table = json.loads(files)
                told = {"job": claim.find("flowq_name"), "at": end.ended_at, "files": table}
                self._new_code[run_id, digest] = json.dumps(told)
        claim.change_end(code=digest)

    def _store_code(self) -> None:
        for (run_id, digest), told in list(self._new_code.items()):
            if self.connection.exists(keys.run(run_id)):  # it may have been removed
                self.connection.hsetnx(keys.run_code(run_id), digest, told)
            if len(self._known_code) >= MAX_KNOWN:
                self._known_code.clear()
            self._known_code.add((run_id, digest))
            del self._new_code[run_id, digest]

    def note_progress(self, claim: Claim, text: str) -> None:
        """Note what a job has reported of its progress; `store_progress` writes it.

        The text comes from a child, which runs user code.
        """
        if read_progress(text) is not None and claim.note_progress(text):
            self._progress[claim.job_id, claim.execution_id, claim.queue] = text

    def store_progress(self) -> None:
        """Write what was noted, before the end of these jobs is written.

        What the server refuses holds up nothing: it is written later if the refusal may pass, and
        else never.
        """
        if not self._progress:
            return
        flat = [part for key, text in self._progress.items() for part in (*key, text)]
        try:
            scripts.PROGRESS.call(self.connection, self._key, self.worker, *flat)
        except ResponseError as error:
            if is_refusal(error):
                return
            jobs = ", ".join(job_id for job_id, _, _ in self._progress)
            log.warning("a report of progress is not written (of one of %s): %s", jobs, error)
        self._progress.clear()

    @property
    def open_turns(self) -> int:
        """How many turns were sent and are not answered yet."""
        return len(self._said)

    @property
    def socket(self) -> Any:
        """The socket on which answers arrive."""
        return getattr(self._line, "_sock", None)

    def has_answer(self) -> bool:
        """Whether an answer has arrived; it may have been read with the one before."""
        return self._line is not None and self._line.can_read(timeout=0)

    def receive(self) -> Turn:
        """Return the answer to the oldest turn. Blocks until it arrives."""
        assert self._line is not None
        said = self._said.popleft()
        try:
            answer = self._line.read_response()
        except ResponseError as error:
            if not scripts.is_missing(error):
                raise
            answer = scripts.TURN.call(self.connection, self._key, *said)
        self._waits_since = time.monotonic()
        return self._read(answer)

    def check_overdue(self) -> None:
        """Raise redis-py's TimeoutError if the next answer is overdue."""
        assert self._line is not None
        limit_s = self._line.socket_timeout
        if limit_s is not None and time.monotonic() - self._waits_since > limit_s:
            raise RedisTimeoutError("there is no answer to a turn")

    def disconnect(self) -> None:
        """Give up on all answers, and close all connections. Idempotent."""
        line, self._line, self._state = self._line, None, ""
        self._said.clear()
        if line is not None:
            self.connection.connection_pool.release(line)
        self.connection.connection_pool.disconnect()

    def _arguments(self, ends: Sequence[Claim], capacity: Capacity) -> list[Any]:
        self._turns += 1
        base = f"{self._base}{self._turns:08x}"  # the ids of the executions begin with it
        arguments: list[Any] = [self.worker, base, capacity.slots, capacity.idle]
        state = "" if self._said else self._state  # a turn under way may change it
        arguments += [f"{capacity.budget_s:.6f}", capacity.limit, self._beat_s, state]
        arguments += [len(self.queues), *self._order(), len(capacity.cost_by_kind)]
        for kind, cost_s in capacity.cost_by_kind.items():
            arguments += [kind, f"{cost_s:.6f}"]
        arguments.append(len(ends))
        for claim in ends:
            # Most jobs print nothing, and cost nothing here.
            record = claim.record if claim.end.printed or claim.printed is not None else b""
            end = claim.end
            arguments += (_describe(claim, end, record), claim.queue, end.value)
            if end.view:
                arguments.append(end.view)
            if len(end.view) > LARGE_BYTES:
                arguments.append(strip_view(end.view))
            if record:
                arguments.append(record)
        return arguments

    def keep_printed(self, claims: Sequence[Claim]) -> None:
        """Store what these attempts have printed so far, as far as their runs have memory left."""
        arguments: list[Any] = []
        for claim in claims:
            if record := claim.record:
                has_failed = "1" if claim.end.status in ("failed", "stopped") else ""
                arguments += [claim.run_id, claim.job_id, has_failed, record]
        if arguments:
            count = len(arguments) // 4
            scripts.KEEP_PRINTED.call(self.connection, self._key, count, *arguments)
        for claim in claims:
            claim.note_kept()

    def _read(self, answer: Any) -> Turn:
        answers, claimed, held, suspended, more = answer
        self._state = "busy" if held else "suspended" if suspended else "idle"
        claims = [self._claim(*parts) for parts in claimed]
        if claims and self.strategy == "round_robin":
            after = self.queues.index(claims[-1].queue) + 1
            self.queues = self.queues[after:] + self.queues[:after]
        words = [as_text(word) for word in answers]
        return Turn(words, claims, held, bool(suspended), bool(more))

    def _order(self) -> list[str]:
        if self.strategy == "random":
            return random.sample(self.queues, len(self.queues))
        return self.queues

    def _claim(
        self,
        job_id: bytes,
        execution_id: bytes,
        queue: bytes,
        flat: list[bytes],
        marks: bytes = b"",
    ) -> Claim:
        self._count += 1
        return make_claim(
            self._count,
            job_id.decode(),
            execution_id.decode(),
            queue.decode(),
            flat,
            marks=marks,
            claimed_at=time.time(),
        )

    def put_back(self, claims: Iterable[Claim], begun: Container[str] = ()) -> None:
        """Put claims back at the front of their queues, in their order. Not counted as crashes.

        `begun`: the ids of executions that had begun; the others are not counted as attempts.
        """
        taken = [
            (claim.job_id, claim.execution_id, "1" if claim.execution_id in begun else "")
            for claim in reversed(list(claims))
        ]
        if taken:
            self._take_away(self.worker, "back", 0, taken)

    def return_unknown(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Do the same for (job, execution) pairs; the last pair becomes the first in its queue."""
        if pairs:
            taken = [(*pair, "") for pair in pairs]
            self._take_away(self.worker, "back", 0, taken)

    def recover(self, worker: str, max_crashes: int) -> list[Claim]:
        """Requeue the jobs of a lost worker, and remove its record.

        Returns the jobs that must fail instead, as claims of this worker.
        """
        return self._take_away(worker, "dead", max_crashes, [])

    def _take_away(
        self, worker: str, how: str, max_crashes: int, taken: Sequence[tuple[str, str, str]]
    ) -> list[Claim]:
        flat = [part for each in taken for part in each]
        answer = scripts.GIVE_BACK.call(
            self.connection, self._key, worker, how, self.worker, max_crashes, len(taken), *flat
        )
        return [self._claim(*parts) for parts in answer]

    def force_end(self, claim: Claim) -> None:
        """End an execution that RQ's own code cannot end; its RQ dependents are not enqueued."""
        end = claim.end
        self.connection.delete(f"{keys.job(claim.job_id)}:dependents")
        if end.status == "finished" and end.field == "retry":
            end = end._replace(field="", value="", status="failed")
        end = end._replace(how="turn", ttl=end.ttl or "-1")
        self.turn([replace(claim, end=end)], NO_CAPACITY)

    def find_unknown(self, known: Iterable[Claim]) -> list[tuple[str, str]]:
        """Return (job, execution) pairs that this worker has in Redis but does not know.

        Their claim's answer was lost.
        """
        ours = {claim.execution_id for claim in known}
        members: Any = self.connection.smembers(keys.held(self.worker))
        pairs = [as_text(member).rpartition(":") for member in members]
        return [(job, execution) for job, _, execution in pairs if execution not in ours]

    def beat(self, lease_s: float, ttl_s: int, executing: Sequence[tuple[Claim, bool]]) -> set[str]:
        """Send a heartbeat for this worker and these executions (`Monitor.report` has the flags).

        Returns the ids of executions that another process has taken away.
        """
        arguments: list[Any] = [self.worker, lease_s, ttl_s, self._beat_s, len(executing)]
        for claim, is_waiting in executing:
            flag = "1" if is_waiting else ""
            arguments += [claim.job_id, claim.execution_id, claim.queue, flag]
            arguments += [claim.began_at or claim.claimed_at, claim.pid or ""]
        self._report_work()
        self.tell_host()
        lost = scripts.BEAT.call(self.connection, self._key, *arguments)
        for claim, is_waiting in executing:
            claim.note_recorded(is_waiting=is_waiting)
        return {as_text(execution_id) for execution_id in lost}

    def tell_host(self) -> None:
        """Say where this worker runs, once a day: attempts are shown longer than RQ keeps that."""
        if time.monotonic() < self._tells_host_at:
            return
        told = f"{socket.gethostname()} {os.getpid()}"
        self.connection.set(keys.host(self.worker), told, ex=HOST_DAYS * 86_400)
        self._tells_host_at = time.monotonic() + 86_400

    def credit(self, end: End) -> None:
        """Count an end for the worker's statistics, which the next heartbeat sends."""
        name = "successful_job_count" if end.status == "finished" else "failed_job_count"
        self._work[name] += 1
        self._work["total_working_time"] += end.ended_at - (end.started_at or end.ended_at)

    def _report_work(self) -> None:
        if not self._work:
            return
        key = keys.worker(self.worker)
        with self.connection.pipeline(transaction=False) as pipeline:
            for name, by in self._work.items():
                pipeline.hincrbyfloat(key, name, by)
            pipeline.execute()
        self._work.clear()

    def queue_due(self) -> tuple[float | None, list[tuple[str, str]]]:
        """Queue scheduled jobs that are due.

        Returns the seconds until the next one is due (None without one), and (queue, job) pairs of
        due jobs with a rate limit, which RQ's code must queue.
        """
        answer = scripts.DUE.call(self.connection, self._key, 250, *self.queues)
        next_s, *parts = (as_text(part) for part in answer)
        limited = list(zip(parts[::2], parts[1::2], strict=True))
        return (float(next_s) if next_s else None), limited

    def find_lost(self, lease: Lease, *, was_refused: bool = False) -> Lost:
        """Return the workers that are lost, and record that the server accepts writes."""
        return find_lost(self.connection, lease, was_refused=was_refused)

    def note_stop(self) -> None:
        """Record that this worker finishes its jobs and ends."""
        key = keys.worker(self.worker)
        self.connection.hset(key, "shutdown_requested_date", format_instant(time.time()))

    def find_lease(self, worker: str) -> float | None:
        """Return for how many seconds a worker still counts as alive; None if it has no lease."""
        ends_at: Any = self.connection.zscore(keys.WORKERS, worker)
        return None if ends_at is None else ends_at - read_clock(self.connection)

    def leave(self) -> None:
        """Release the lease, and the locks of schedules that no other flowq worker needs."""
        self._report_work()
        scripts.LEAVE.call(self.connection, self._key, self.worker, *self.queues)


def _describe(claim: Claim, end: End, record: bytes) -> str:
    """Return an end as the line that lua/turn_ends.lua parses; "-" stands for an empty field."""
    view = "vs" if len(end.view) > LARGE_BYTES else "v" if end.view else ""
    printed = ("or" if claim.is_in_redis else "o") if record else ""
    return (
        f"{claim.job_id} {claim.execution_id} {end.status} {_describe_instant(end.started_at)} "
        f"{_describe_instant(end.ended_at)} {end.ttl or '-'} {end.field or '-'} {end.generation} "
        f"{RESULT_NUMBER[end.status]} {claim.marks}{view}{printed} {end.code or '-'}"
    )


def _describe_instant(at_s: float) -> str:
    """Return an instant as RQ writes it, and in epoch seconds; the current time instead of 0."""
    second, microsecond = divmod(int((at_s or time.time()) * 1e6), 1_000_000)
    digits = f"{microsecond:06d}"
    return f"{format_second(second)}.{digits}Z {second}.{digits}"
