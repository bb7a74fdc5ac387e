"""The errors that flowq raises on purpose. This module imports nothing of flowq.

    FlowqError                       exit code 1
    ├── UsageError                   2    a call or a command that is not valid
    │   ├── NotAFutureJob                 release, or blocks=, of a job that is not deferred=True
    │   ├── NotOpen                       blockers for a job of a workflow that is not deferred
    │   ├── CycleError                    the edge would make a job wait for itself
    │   ├── JobIdTaken                    a job id that another job, or a queue, already uses
    │   └── Unsupported                   an option of RQ that deferred= and blocks= refuse
    ├── WorkflowInvalid              3    .problems has all of them
    ├── ServerUnavailable            4    .url, without its password
    │   └── StateUnusable                 a private server's state folder is missing or untrusted
    ├── NotFound                     5
    │   ├── WorkflowNotFound
    │   ├── RunNotFound
    │   └── JobNotFound
    ├── WrongState                   5    it exists, but its state forbids this
    │   ├── FutureAlreadyStarted          blockers came too late: it is queued, running or done
    │   └── FutureEnded                   it was canceled, skipped or finished
    ├── RunFailed                    1    .jobs names the ones that failed
    ├── RunNotEnded                  1    a wait has timed out; also a TimeoutError
    ├── ShellFailed                  1    a job's command failed; .exit_code_of_command
    ├── TooManyItems                 1    a group would have more items than its max_items
    ├── NewerFormat                  1    data in the format of a newer version of flowq
    ├── Unserializable               1    a result, argument or item that cannot be stored
    ├── DoNotRetry                   1    raised by a job: it is not retried
    │   ├── NotAllowed                    a job that this worker must not run (--allow)
    │   ├── PollFailed                    what a job polls for did not come in time
    │   └── SecretInResult                a result contains a secret that it must not contain
    └── RetryLater                   1    raised by a job: it is retried after some seconds

Every error survives `pickle` with its fields: errors travel from children to supervisors.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A position in a source text. Units: line and column count from 1.

    Shape: `merged_in` has the lines in which `<<` merges what is written here.
    """

    file: str
    line: int
    column: int = 1
    merged_in: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __setstate__(self, state: Sequence[object]) -> None:
        """Read also what versions pickled that had no `merged_in`."""
        for name, value in zip(self.__slots__, (*state, ()), strict=False):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of a text that a problem is about.

    Shape: `expression` as it is written, with braces, or empty for any; `number` is its place among
    the expressions of the text, from 0, where that is known; `names` leads to the part of it, as in
    ("inputs", "pages"), and is empty for the whole expression.
    """

    expression: str = ""
    names: tuple[str, ...] = ()
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a workflow, with its location and a hint.

    It prints as `file:line:column: CODE message`, with the hint on a separate line. `excerpt`
    narrows the location to a part of a text, of which only the start may be known. `input` is the
    name of the input whose value is missing or wrong.
    """

    code: str
    message: str
    where: Where | None = None
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    excerpt: Excerpt | None = field(default=None, compare=False, repr=False)
    input: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        level = "warning: " if self.severity == "warning" else ""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{place}{self.code} {level}{self.message}{hint}{self._merged()}"

    def _merged(self) -> str:
        lines = self.where.merged_in if self.where else ()
        word = "line" if len(lines) == 1 else "lines"
        return f"\n    merged in {word} {', '.join(map(str, lines))}" if lines else ""


def without_repeats(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, in the order given.

    A problem in text that is merged in several places is reported once, with all of them.
    """
    problem_by_itself: dict[Problem, Problem] = {}
    for problem in problems:
        first = problem_by_itself.setdefault(problem, problem)
        if problem.where is None or first.where is None:
            continue
        lines = sorted({*first.where.merged_in, *problem.where.merged_in})
        where = replace(first.where, merged_in=tuple(lines))
        problem_by_itself[problem] = replace(first, where=where)
    return list(problem_by_itself.values())


class FlowqError(Exception):
    """The root of all errors that flowq raises on purpose; the message is for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(FlowqError):
    """The call or the command is not valid."""

    exit_code = 2


class NotAFutureJob(UsageError):
    """The job was not enqueued with `deferred=True`."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"{self.job_id} is not a future job; enqueue it with deferred=True "
            "before adding blockers to it or releasing it"
        )


class NotOpen(UsageError):
    """The workflow does not declare the job `deferred`, so code may not add blockers to it."""

    def __init__(self, job_id: str, name: str = "") -> None:
        super().__init__(job_id, name)
        self.job_id = job_id
        self.name = name

    def __str__(self) -> str:
        name = self.name or self.job_id
        return (
            f"job {name} is not declared as open, so running jobs cannot add blockers to it: add "
            "`deferred: true` to it in the workflow (in Python `@flow.deferred`, or deferred=True)"
        )


class CycleError(UsageError):
    """The new edge would make a job wait for itself."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        super().__init__(tuple(job_ids))
        self.job_ids = tuple(job_ids)

    def __str__(self) -> str:
        return "these jobs would wait for each other forever: " + " → ".join(self.job_ids)


class JobIdTaken(UsageError):
    """The job id is in use, by another job or as the name of a queue."""

    def __init__(self, job_id: str, by: str) -> None:
        super().__init__(job_id, by)
        self.job_id = job_id
        self.by = by

    def __str__(self) -> str:
        return f"the job id {self.job_id} is taken by {self.by}; choose another one"


class Unsupported(UsageError):
    """An option of RQ that cannot be combined with `deferred=` or `blocks=`."""


class WorkflowInvalid(FlowqError):
    """The workflow or its inputs have problems; nothing was enqueued."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, in the order in which it was found."""
        problems: tuple[Problem, ...] = self.args[0]
        return problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class ServerUnavailable(FlowqError):
    """The Redis server cannot be reached, does not answer, or refuses commands."""

    exit_code = 4

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"the server at {self.url} cannot be used: {self.reason}"


class StateUnusable(ServerUnavailable):
    """The state folder of a private server cannot be created, or is not verifiably flowq's.

    `url` is its path.
    """

    def __str__(self) -> str:
        return self.reason


class NotFound(FlowqError):
    """There is no such thing."""

    exit_code = 5


class WorkflowNotFound(NotFound):
    """The target names no workflow."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"no workflow at {self.target}: {self.reason}"


class RunNotFound(NotFound):
    """The server has no run with that id. `hint` says what else has that id, if anything."""

    def __init__(self, run_id: str, hint: str = "") -> None:
        super().__init__(run_id, hint)
        self.run_id = run_id
        self.hint = hint

    def __str__(self) -> str:
        text = f"there is no run {self.run_id or repr(self.run_id)} on this server"
        return f"{text}; {self.hint}" if self.hint else text


class JobNotFound(NotFound):
    """The server has no job with that id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id} on this server"


class WrongState(FlowqError):
    """The object exists, but its state does not allow the operation."""

    exit_code = 5


class FutureAlreadyStarted(WrongState):
    """The future job has been queued, so no blocker can be added in front of it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"future job {self.job_id} has already been queued; "
            "blockers can be added only until its last blocker has run"
        )


class FutureEnded(WrongState):
    """The future job has ended (canceled, skipped or finished)."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(job_id, state)
        self.job_id = job_id
        self.state = state

    def __str__(self) -> str:
        verb = "has" if self.state in ("finished", "failed", "expired") else "is"
        return f"future job {self.job_id} {verb} {self.state}; nothing can be added or released"


class RunFailed(FlowqError):
    """The run has ended without success.

    Shape: `jobs` has the names of the jobs that failed or were rejected; `errors` has the errors or
    reasons of some of them, by name, each one line without secrets. `state` is that of the run:
    "failed", "canceled", or, in a test's run that cannot go on, "waiting"; `reason` says why it was
    canceled, or what it waits for, if that is known.
    """

    def __init__(
        self,
        run_id: str,
        jobs: Sequence[str],
        errors: Mapping[str, str] | None = None,
        state: str = "failed",
        reason: str = "",
    ) -> None:
        super().__init__(run_id, tuple(jobs), dict(errors or {}), state, reason)
        self.run_id = run_id
        self.jobs = tuple(jobs)
        self.errors = dict(errors or {})
        self.state = state
        self.reason = reason

    def __str__(self) -> str:
        how = {"failed": "failed", "canceled": "was canceled"}.get(self.state, "has not ended")
        named = [f"{job} ({self.errors[job]})" if job in self.errors else job for job in self.jobs]
        failed = ", ".join(named)
        if self.state != "failed" and failed:
            failed = f"failed before: {failed}"
        said = "; ".join(filter(None, (self.reason, failed)))
        return f"run {self.run_id} {how}" + (f": {said}" if said else "")


class RunNotEnded(FlowqError, TimeoutError):
    """`Run.wait` has timed out; the run goes on. `waits_for` says what it waits for."""

    def __init__(self, run_id: str, timeout_s: float, waits_for: str) -> None:
        super().__init__(run_id, timeout_s, waits_for)
        self.run_id = run_id
        self.timeout_s = timeout_s
        self.waits_for = waits_for

    def __str__(self) -> str:
        return f"run {self.run_id} has not ended within {self.timeout_s:.15g} s: {self.waits_for}"


def describe_exit(code: int) -> str:
    """Return how a process or a command has ended: `exit code 3`, `signal 9 (SIGKILL)`.

    `code` is negative for a signal. Shells and container runtimes report 128 plus the signal
    instead: `exit code 137 (killed by SIGKILL)`.
    """
    if code < 0:
        return f"signal {-code} ({_name_signal(-code) or 'unknown'})"
    killed_by = _name_signal(code - 128) if 128 < code < 160 else ""
    return f"exit code {code} (killed by {killed_by})" if killed_by else f"exit code {code}"


def _name_signal(number: int) -> str:
    with suppress(ValueError):  # not a signal of this platform
        return signal.Signals(number).name
    return ""


class ShellFailed(FlowqError):
    """A shell command of a job has failed."""

    def __init__(self, command: str, code: int, last_line: str = "") -> None:
        super().__init__(command, code, last_line)
        self.command = command
        self.exit_code_of_command = code
        self.last_line = last_line

    def __str__(self) -> str:
        how = describe_exit(self.args[1])
        last = f": {self.args[2]}" if self.args[2] else ""
        return f"`{self.args[0]}` ended with {how}{last}"


class DoNotRetry(FlowqError):
    """Raised by a job's code: the job has failed permanently, regardless of its `retries`.

    Also as a base of other exceptions: `class UnknownCustomer(flowq.DoNotRetry): ...`
    """


class PollFailed(DoNotRetry):
    """The expression of a job's `poll` was not true in time."""

    def __init__(self, count: int, within: str) -> None:
        super().__init__(count, within)
        self.count = count
        self.within = within

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return (
            f"`until` of the poll was not true within {self.within}: polled {times}, and the next "
            "poll would come later"
        )


class SecretInResult(DoNotRetry):
    """The result of a job contains a secret, which the job must not return."""

    def __str__(self) -> str:
        return (
            "the result contains a secret, and the job has `secret_results: refuse`: return "
            "something else, and read the secret by its name in each job that needs it"
        )


class TooManyItems(FlowqError):
    """A group would have more items than its limit."""

    def __init__(self, group: str, max_items: int) -> None:
        super().__init__(group, max_items)
        self.group = group
        self.max_items = max_items

    def __str__(self) -> str:
        return f"{self.group} has found more than {self.max_items:,} items, its max_items"


class NewerFormat(FlowqError):
    """A newer version of flowq wrote the data, in a format that this version cannot read."""

    def __init__(self, needed: int, known: int) -> None:
        super().__init__(needed, known)
        self.needed = needed
        self.known = known

    def __str__(self) -> str:
        return (
            f"a newer version of flowq wrote this, in format {self.needed}, and this version reads "
            f"up to format {self.known}: upgrade flowq here, then retry what failed"
        )


class Unserializable(FlowqError):
    """A result, an argument or an item of a group cannot be serialized, or cannot be read back.

    Shape: `place` leads to the part, as in `result["files"][3]`; `what` names its type.
    """

    def __init__(self, place: str, what: str, reason: str, hint: str) -> None:
        super().__init__(place, what, reason, hint)
        self.place = place
        self.what = what
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        place, what, reason, hint = self.args  # a job may have hidden its secrets in these
        return f"{place}: {what} cannot be kept ({reason}); {hint}"


class NotAllowed(DoNotRetry):
    """A job or its data refers to code that this worker must not run (`flowq worker --allow`).

    Shape: `what` is a name as written in the job, with its place of definition if that differs;
    `allowed` has the worker's patterns.
    """

    def __init__(self, what: str, allowed: str, hint: str = "") -> None:
        super().__init__(what, allowed, hint)
        self.what = what
        self.allowed = allowed
        self.hint = hint

    def __str__(self) -> str:
        what, allowed, hint = self.args
        text = f"{what} is not allowed here: this worker runs only {allowed}"
        return f"{text}; {hint}" if hint else text


class RetryLater(FlowqError):
    """Raised by a job's code: the job is retried after this delay, and never earlier.

    This uses one of the job's `retries` and replaces their backoff; a job with no retries left
    fails. Units: seconds, or a timedelta. Errors: ValueError for an invalid delay.
    """

    MAX_S: ClassVar[float] = 3650 * 86_400

    def __init__(self, seconds: float | timedelta, message: str = "") -> None:
        seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds <= self.MAX_S:
            raise ValueError(f"RetryLater takes seconds, from 0 to 3650 days, not {seconds!r}")
        super().__init__(seconds, message)
        self.seconds: float = seconds

    def __str__(self) -> str:
        again = f"again in {round(self.seconds, 3):.15g} s"
        return f"{self.args[1]} ({again})" if self.args[1] else again
