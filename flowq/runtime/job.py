"""`flowq.Job`: a job of RQ that can be a future job, a blocker, or both.

RQ commits nearly every end of a job through `Job.set_status` inside a transaction. flowq appends
the settling script to that transaction, so a job's end and its effect on future jobs are atomic.
The other exits (`delete`, a result that is not kept) are covered too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.job import Job as RQJob
from rq.job import JobStatus, Retry
from rq.serializers import PickleSerializer
from rq.utils import as_text

from flowq.errors import (
    FutureEnded,
    JobNotFound,
    NotAFutureJob,
    Unserializable,
    UsageError,
)
from flowq.runtime import keys, scripts, serializing
from flowq.runtime.attempts import RetriedJob
from flowq.runtime.blockers import Blockers
from flowq.runtime.connections import refuse_unusable
from flowq.runtime.holds import NO_HOLD, Hold
from flowq.runtime.printed import has_memory_for
from flowq.runtime.progress import flush
from flowq.runtime.rq import POLICY_FIELD
from flowq.runtime.steps import finish
from flowq.runtime.unpickling import read_own
from flowq.runtime.variables import tell_plainly
from flowq.runtime.views import Shown, strip_view
from flowq.runtime.waiting import Pause, Wait

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_PLAIN_RESULTS = frozenset({bool, int, float})

log = logging.getLogger("rq.worker")

_ITEM = re.compile(r"\[[^\]]*\]")

PERFORM = "flowq.runtime.work.perform"
"""The function of a job of a workflow that is more than a plain call."""

_OUTCOME_BY_STATUS = {
    JobStatus.FINISHED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "stopped",
    JobStatus.CANCELED: "canceled",
}


class Job(RetriedJob):
    """A job that may block other jobs, or be blocked by them.

    `hold` has the options until the job is enqueued; from then on, Redis stores them. `run_id` and
    `name` are set for the jobs of a workflow's run.
    """

    hold: Hold = NO_HOLD
    run_id: str = ""
    name: str = ""
    group_of_items: str = ""
    """The id of the group that the job is an item of, or empty."""
    _shown: Shown | None
    _run_released: Callable[[Job], None] | None = None
    """What a synchronous queue does with the job after its release."""
    _blocks: str = ""
    _future: bool = False
    _always: bool = False
    is_judged_first: bool = False
    """Its `if` is evaluated before it asks for an approval, and before it takes a slot."""
    was_judged: bool = False
    """An earlier execution has evaluated its `if`."""
    knows_itself: bool = False
    """Whether its environment variables (`flowq.runtime.variables`) are set in this process."""
    generation: int = 0
    """How often it was run again by a retry of its run."""
    stand_in: Callable[..., Any] | None = None
    """What is called instead of its function or command; only `flowq.testing` sets it."""
    _written: tuple[Any, bytes] | None
    """The value that the function has returned, and its serialized form."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - as RQ names it
        connection: Redis | None = None,
        serializer: Any = None,
    ) -> None:
        # RQ checks a serializer with isinstance against a protocol, which takes as long as
        # everything else here. None stands for RQ's own serializer, which is not checked.
        super().__init__(id, connection, None if serializer is PickleSerializer else serializer)
        # Set here, so that copies have them too (`JobTemplate`): adding them later takes longer.
        self._shown = self._written = None

    @classmethod
    def fetch(
        cls,
        id: str,  # noqa: A002 - as RQ names it
        connection: Redis | None = None,
        serializer: Any = None,
    ) -> Self:
        """Return the job with this id. Errors: RQ's NoSuchJobError."""
        if connection is not None:
            refuse_unusable(connection)
        return cast(Self, super().fetch(id, connection=connection, serializer=serializer))

    @property
    def is_future(self) -> bool:
        """Whether the job was enqueued with `deferred=True`."""
        return self._future

    @property
    def declared_name(self) -> str:
        """The name in its workflow, without those of items; empty outside of runs."""
        return _ITEM.sub("", self.name)

    @property
    def is_tracked(self) -> bool:
        """Whether flowq must handle its end: a future job, a blocker, or part of a run."""
        return bool(self._future or self._blocks or self.run_id)

    @property
    def blocks(self) -> str:
        """The future jobs that this job blocks, as its hash names them: `a b! c`."""
        return self._blocks

    @property
    def future_ids(self) -> tuple[str, ...]:
        """The ids of the future jobs that this job blocks, in the order given."""
        return tuple(part.rstrip("!") for part in self._blocks.split())

    @property
    def blockers(self) -> Blockers:
        """The outcomes of this job's blockers, in the order in which they were added."""
        return Blockers(self.id, self.connection, self.serializer)

    def adopt(self, hold: Hold) -> None:
        """Apply a hold to the job; the queue calls this when it enqueues."""
        self.hold = hold
        self._blocks = hold.blocks
        self._future = hold.deferred
        self.run_id = hold.run_id
        self.name = hold.name

    def run_at_release(self, run: Callable[[Job], None]) -> None:
        """Have `release` call this with the job: a synchronous queue runs its jobs itself."""
        self._run_released = run

    def restore(self, raw_data: Mapping[Any, Any]) -> None:
        """Read the fields from Redis: RQ's, then flowq's."""
        super().restore(raw_data)
        ours = {
            name: as_text(value)
            for key, value in raw_data.items()
            if (name := as_text(key)).startswith("flowq_")
        }
        self._blocks = ours.get("flowq_blocks", "")
        self._future = "flowq_future" in ours
        self._always = "flowq_always" in ours
        judging = ours.get("flowq_judging")
        self.was_judged = judging == "done"
        has_to_wait = "flowq_approval" in ours or "flowq_slots" in ours
        self.is_judged_first = judging == "due" and has_to_wait
        self.generation = int(ours.get("flowq_gen", 0))
        self.attempt = int(ours.get("flowq_attempts", 0)) + 1
        self.retry_policy = ours.get(POLICY_FIELD, "")
        if self._blocks:
            # Kept like a result: RQ's default now, its own once it is retired (lua/retention.lua).
            self.failure_ttl = None
        self.run_id = ours.get("flowq_run", "")
        self.name = ours.get("flowq_name", "")
        self.group_of_items = ours.get("flowq_group", "")

    def get_status(self, refresh: bool = True) -> JobStatus:
        """Return the status; `refresh` reads it from Redis, unless the job has just ended here.

        Source: tools that wrap `perform_job` call this after it returns. RQ has written the end by
        then; flowq's supervisor is about to.
        """
        return super().get_status(refresh=refresh and not self.has_just_ended)

    def note_start(self) -> None:
        """Set the job's environment variables if an RQ worker executes it."""
        if not self.knows_itself:
            tell_plainly(self)

    # Its arguments and result ----------------------------------------------------------------

    def note_call(self, options: dict[str, Any]) -> None:
        """Store a view of the arguments before the function can change them."""
        if self.run_id:
            self.shown.keep_arguments(options)

    def note_result(self, result: Any) -> None:
        """Serialize the result while the job still runs, so that an unserializable one fails the
        job."""
        if not isinstance(result, Retry):
            self.write_result(result)
            if self.run_id:
                self.shown.keep_result(result)

    def write_result(self, value: Any) -> bytes:
        """Return the serialized result of the function; each value is serialized once.

        In a run, and for a blocker, an unserializable value fails the job, because other jobs may
        need it. Otherwise a fixed text replaces it, as in RQ.

        Source: `rq.results.Result.serialize`. Errors: Unserializable.
        """
        written = self._written
        if written is not None and written[0] is value:
            return written[1]
        try:
            data = serializing.serialize(value, self.serializer)
            if len(data) > serializing.LARGE_BYTES and self._is_needed:
                serializing.check_size(len(data), "result", value)
                size = serializing.describe_size(len(data))
                log.warning("job %s: its result has %s, which Redis keeps in memory", self.id, size)
        except Unserializable as error:
            data = self._write_substitute(error)
        self._written = value, data
        return data

    def find_kept(self, result: Any) -> Any:
        """Return the result, or the text that replaces it.

        Source: RQ stores any value that can be serialized, without checking that it can be read.
        """
        if result is None or type(result) in _PLAIN_RESULTS:
            return result
        if self.has_success_callback:
            self.forget_written()
        text = UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
        try:
            is_kept = self.write_result(result) != self.serializer.dumps(text)
        except Unserializable:  # a callback has changed it, so it is too late to fail
            return text
        return result if is_kept else text

    def take_written(self, data: bytes) -> None:
        """Set the result from its serialized form; b"" means no result."""
        value = read_own(data, self.serializer) if data else None
        self._written = value, data
        self.keep_result(value)

    def forget_written(self) -> None:
        """Discard the serialized result, because the value may have changed."""
        self._written = None

    @property
    def _is_needed(self) -> bool:
        return bool(self.run_id or self._blocks)

    def _write_substitute(self, error: Unserializable) -> bytes:
        if self._is_needed:
            raise error
        text = UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
        if self.result_ttl != 0:
            log.error("job %s: %s. The text %r is stored instead", self.id, error, text)
        data: bytes = self.serializer.dumps(text)
        return data

    def write_data(self) -> bytes:
        """Serialize the job's call and keep the bytes. Errors: Unserializable."""
        try:
            data = self.dump_call()
        except Exception as error:
            if not self.is_described:
                raise
            raise serializing.explain(self._name_arguments(), self.serializer, error) from error
        if b"__main__" in data:
            serializing.refuse_of_script(self._name_arguments(), self.serializer)
        if len(data) > serializing.MAX_BYTES and self.hold.is_needed:
            call = self.given_call
            serializing.check_size(len(data), f"the arguments of {call.func_name}", call.args)
        return data

    def _name_arguments(self) -> list[tuple[str, Any]]:
        call = self.given_call
        named = [(f"argument {at}", value) for at, value in enumerate(call.args, 1)]
        named += [(f"argument {name}", value) for name, value in call.kwargs.items()]
        return [*named, (f"the object whose {call.func_name} is to be called", call.instance)]

    def write_meta(self) -> bytes:
        """Return `meta` as bytes. Errors: Unserializable."""
        return serializing.serialize(self.meta, self.serializer, "meta")

    # How it ends -----------------------------------------------------------------------------

    def set_status(self, status: JobStatus, pipeline: Pipeline | None = None) -> None:
        """Write the status and, if it is an end, settle it in the same transaction.

        Source: RQ calls this for every end except a success whose result is not kept, which uses
        `delete`. For a repeated job, only the last run settles. For a retry after a backoff, RQ
        writes SCHEDULED immediately, and again in the transaction that schedules the job: if the
        process died between the two, no one would find the job.
        """
        if status is JobStatus.SCHEDULED and pipeline is None:
            return
        flush(self.id)  # what the job has reported of its progress, while it counts as started
        outcome = _OUTCOME_BY_STATUS.get(status)
        if outcome:
            self._written = None  # a job that has ended may stay in a program for long
        if status is JobStatus.FINISHED and self.repeats_left:
            outcome = None
        if not self.is_tracked:
            super().set_status(status, pipeline)
        elif pipeline is None:
            with self.connection.pipeline() as own:
                self.set_status(status, own)
                own.execute()
        else:
            super().set_status(status, pipeline)
            self._note_code(pipeline)
            if outcome and self.run_id:
                view = self.shown.at_end(outcome)
                fits = has_memory_for(view, self.run_id, self.connection)
                pipeline.hset(self.key, keys.VIEW_FIELD, view if fits else strip_view(view))
            if outcome == "failed" and self.why_final:
                pipeline.hset(self.key, "flowq_reason", self.why_final)
            if outcome:
                self._settle(outcome, pipeline)
            elif self.run_id:
                self._tell_run(status, pipeline)

    def _note_code(self, pipeline: Pipeline) -> None:
        if self._shown is not None and self._shown.code:
            pipeline.hset(self.key, keys.CODE_FIELD, self._shown.code)

    def _settle(self, outcome: str, pipeline: Pipeline) -> None:
        scripts.SETTLE.append(pipeline, self.key, self.id, outcome, self.generation, self.took_ms)

    def _tell_run(self, status: JobStatus, pipeline: Pipeline) -> None:
        if status is JobStatus.SCHEDULED:
            scripts.TELL_ABOUT.append(pipeline, self.key, self.id, "give", "")
        event = {"job": self.id, "name": self.name, "state": status.value}
        event["reason"] = self.describe_next_try()
        event |= self.describe_attempt()
        pipeline.xadd(keys.run_events(self.run_id), event)  # type: ignore[arg-type]

    def end_called_off(self) -> bool:
        """End the job before it begins if its run is being canceled; return whether it did."""
        always = "1" if self._always else ""
        if not scripts.CALLS_OFF.call(self.connection, self.key, self.run_id, always):
            return False
        scripts.TELL_ABOUT.call(self.connection, self.key, self.id, "again", "")
        return True

    def note_retry(self, pipeline: Pipeline) -> None:
        """If its run is being canceled, end the job instead, in the same transaction."""
        self._note_code(pipeline)
        self.keep_since(pipeline)
        if self.run_id:
            scripts.TELL_ABOUT.append(pipeline, self.key, self.id, "again", "")

    def is_held_by(self, retry: Retry, pipeline: Pipeline) -> bool:
        """Hold the job, in the same transaction, if its execution only evaluated its `if`, or it
        pauses."""
        if isinstance(retry, Pause):
            scripts.PAUSE.append(pipeline, self.key, self.id, retry.after_s, retry.reason)
            return True
        if not isinstance(retry, Wait):
            return False
        scripts.HOLD.append(pipeline, self.key, self.id, retry.message)
        return True

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """Write STARTED; a blocker that ended before holds its future jobs again.

        Source: RQ writes this status by HSET, not through `set_status`.
        """
        super().prepare_for_execution(worker_name, pipeline)
        if self.is_tracked:
            scripts.START.append(pipeline, self.key, self.id, worker_name)

    def get_result_ttl(self, default_ttl: int) -> int:
        """A blocker keeps its result until the future jobs that it blocks have ended.

        Units: seconds; -1 for no limit until `retire` (lua/retention.lua) sets one or the run is
        removed.
        """
        if self._blocks or self.run_id:
            return -1
        return super().get_result_ttl(default_ttl)

    def delete(
        self,
        pipeline: Pipeline | None = None,
        remove_from_queue: bool = True,
        delete_dependents: bool = False,
    ) -> None:
        """Remove the job; an unfinished blocker counts as deleted.

        Deleting an open future job also cancels it: its held blockers never run.
        """
        if not self.is_tracked:
            super().delete(pipeline, remove_from_queue, delete_dependents)
            return
        if pipeline is not None:
            # RQ deletes a finished job whose result is not kept without calling set_status before.
            done = self.get_status(refresh=False) is JobStatus.FINISHED
            self._settle("finished" if done else "deleted", pipeline)
            super().delete(pipeline, remove_from_queue, delete_dependents)
            return
        with self.connection.pipeline() as own:
            self._settle("deleted", own)
            super().delete(own, remove_from_queue, delete_dependents)
            own.execute()
        if self._future:
            finish(self.connection, f"abandon:{self.id}", f"retire:{self.id}")

    # Cancel and release ----------------------------------------------------------------------

    def cancel(
        self,
        pipeline: Pipeline | None = None,
        enqueue_dependents: bool = False,
        remove_from_dependencies: bool = False,
        *,
        blockers: bool = False,
    ) -> dict[str, list[str]]:
        """Cancel the job. Canceling an open future job also cancels blockers that block nothing
        else.

        After the release, blockers are independent, and only the future job is canceled. With
        `blockers=True`, blockers that have not started and block nothing else are canceled too, and
        so on recursively.
        Errors: UsageError for `blockers=True` with a caller's pipeline.
        """
        if blockers and pipeline is not None:
            raise UsageError(
                "cancel(blockers=True) works in steps, so it cannot be part of a pipeline"
            )
        moved = super().cancel(pipeline, enqueue_dependents, remove_from_dependencies)
        if self._future and pipeline is None:
            names = ["abandon", *(["recall"] if blockers else []), "retire", "expire"]
            finish(self.connection, *(f"{name}:{self.id}" for name in names))
        return moved

    def release(self, *, cascade: bool = False) -> bool:
        """Close the declaration: the blockers may run, and this job runs after the last of them.

        With `cascade`, open future jobs among the blockers are released too, recursively. Returns
        True for the call that released the job, False if it was released before. Idempotent; any
        flowq worker completes an interrupted release.
        Errors: NotAFutureJob; JobNotFound; FutureEnded for one that was canceled.
        """
        answer = scripts.RELEASE.call(self.connection, self.key, self.id, int(cascade))
        word = as_text(answer[0]) if isinstance(answer[0], str | bytes) else ""
        if word == "missing":
            raise JobNotFound(self.id)
        if word == "plain":
            raise NotAFutureJob(self.id)
        if word == "ended":
            raise FutureEnded(self.id, as_text(answer[1]))
        finish(self.connection, f"free:{self.id}")
        if self._run_released:
            self._run_released(self)
        return bool(answer[0])


def get_job(job_id: str, connection: Redis, serializer: Any = None) -> Job:
    """Return a job by its id. Errors: JobNotFound."""
    refuse_unusable(connection)
    raw = connection.hgetall(keys.job(job_id))
    if not raw:
        raise JobNotFound(job_id)
    job = Job(job_id, connection=connection, serializer=serializer)
    job.restore(raw)
    return job


def release_job(job: RQJob | str, connection: Redis | None = None) -> bool:
    """Release a future job, given itself or its id; see `Job.release`.

    Errors: UsageError for an id without a connection, and for other types.
    """
    if connection is not None:
        refuse_unusable(connection)
    if isinstance(job, Job):
        return job.release()
    if isinstance(job, RQJob):
        return Job(str(job.id), connection=connection or job.connection).release()
    if not isinstance(job, str):
        raise UsageError(f"release_job() takes a future job or its id, not {job!r}")
    if connection is None:
        raise UsageError("release_job() needs connection= when it is given a job id")
    return Job(job, connection=connection).release()
