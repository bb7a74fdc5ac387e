"""Executes a job of a workflow that is more than a plain call.

A job with plain arguments is enqueued as its own function. Any other is enqueued as `perform`, with
a description of what to do, so that it also runs in a worker that does not know flowq. All its
commands to the server may be executed twice, so they are repeated if the server is unavailable.

The name `flowq.runtime.work.perform` is in the arguments of jobs in Redis, so this function must
not move.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from rq.job import Retry

from flowq.allowed import check_commands
from flowq.callables import find_callable
from flowq.durations import parse_pause, write_duration, write_wait
from flowq.errors import PollFailed, SecretInResult, ShellFailed, UsageError, WorkflowInvalid
from flowq.expressions import (
    Budget,
    as_template,
    decide,
    evaluate,
    find_references,
    is_live,
    one_budget,
    write,
)
from flowq.importing import importing
from flowq.pauses import POLLED, SLEEPING
from flowq.plan import Expansion, Nested
from flowq.runtime import progress, scripts, shell, variables
from flowq.runtime.attempts import as_exit_code
from flowq.runtime.connections import JOB_MAX_WAIT_S, Result, retry_while_unavailable
from flowq.runtime.futures import current_job
from flowq.runtime.groups import expand, grow, start
from flowq.runtime.job import Job
from flowq.runtime.lookups import (
    find_without_result,
    read_given,
    read_jobs,
    read_statuses,
)
from flowq.runtime.masking import MIN_PART, Mask
from flowq.runtime.masking.errors import hiding_in_errors
from flowq.runtime.masking.outlets import masked_output
from flowq.runtime.planned import find_false, say_false, write_message
from flowq.runtime.results import get_result, read_run_end
from flowq.runtime.rq import run_to_end
from flowq.runtime.secrets import Secrets, read_known
from flowq.runtime.views import write_view
from flowq.runtime.waiting import Pause, Wait
from flowq.runtime.wire import check_format, from_wire
from flowq.status import LIST
from flowq.texts import from_bytes

MAX_POLL = 200
"""The most bytes that are kept of the result of a poll."""

_SCALARS = frozenset({type(None), bool, int, float, str})
_LEAVES_NOTHING_TO_DO = frozenset({"skipped", "passed", "tolerated"})


def perform(work: Mapping[str, Any]) -> Any:
    """Execute `work` (written by `flowq.runtime.planned`), and return the job's result.

    Errors: WorkflowInvalid for an expression that fails on the actual values; any error of the
    function; ShellFailed for a command; NewerFormat for work that a newer version of flowq planned;
    Unserializable for a result that cannot be stored.
    """
    check_format(work)
    job = current_job()
    if job is None:
        raise UsageError("perform() runs only inside a job")
    return _Execution(job, work).run()


@dataclass
class _Execution:
    """One execution of one job."""

    job: Job
    work: Mapping[str, Any]
    began_at: float = field(default_factory=time.monotonic)

    def run(self) -> Any:
        self.job.shown.hide_with(self.mask)
        progress.hide_with(self.mask)
        with hiding_in_errors(self.mask):
            if names := self.work.get("secrets"):  # results of other jobs may contain them
                self.mask.add(read_known(names, os.environ))
            if not self._may_run():
                return None
            if not self._may_go_on():
                return Wait(self._message())
            with self._surroundings():
                result = self._do()
            if not isinstance(result, Retry) and "poll" in self.work:
                result = self._find_pause(result) or result
            if not isinstance(result, Retry):
                # First, so that a result that cannot be stored has no effects.
                self._look_for_secrets(self.job.write_result(result))
                self._after(result)
            return result

    def _do(self) -> Any:
        work = self.work
        if "expansion" in work:
            expansion = from_wire(Expansion, work["expansion"])
            items = self._list(expansion)
            return self._ask(lambda: expand(self.job, expansion, items, self.inputs))
        if "outputs" in work:
            return self._value(work["outputs"])
        arguments = work.get("kwargs", {})
        if work.get("live"):
            arguments = self._value(arguments)
        if arguments:
            self.job.shown.keep_arguments(arguments)
        if "nested" in work:
            nested = from_wire(Nested, work["nested"])
            return self._ask(lambda: start(self.job, nested, arguments))
        if "shell" in work:
            return self._run_command()
        if "sleep" in work:
            return self._sleep(parse_pause(self._value(work["sleep"])))
        with importing():
            function = self.job.stand_in or find_callable(work["call"])
        with masked_output(self.mask):
            return run_to_end(function(**arguments))

    def _run_command(self) -> Any:
        check_commands()
        shown = self.job.shown
        try:
            result = shell.run(
                *(self.work["shell"], self._value, self.mask, self.job.timeout),
                tell=self._tell,
                instead=self.job.stand_in,
            )
        except ShellFailed as failure:
            shown.note_exit_code(as_exit_code(failure.exit_code_of_command))
            raise
        shown.note_exit_code(0)
        return result

    def _tell(self, command: str) -> None:
        """Show the command with all values in it from now on."""
        self.job.shown.keep_arguments({"command": command})
        if is_live(self.work["shell"]["command"]):
            self.job.description = shell.shorten(command)
            self._say("call", self.job.description)

    def _list(self, expansion: Expansion) -> Any:
        """Return the list of a group, or the parts of a matrix."""
        template, name = expansion.each.items, self.job.name.removesuffix(LIST)
        if not expansion.is_matrix:
            return self._items(template, f"the for_each of {name}")
        axes = {
            axis: self._items(values, f"{axis} in the matrix of {name}")
            for axis, values in template["axes"].items()
        }
        beside = {key: self._value(template[key]) for key in ("include", "exclude")}
        return {"axes": axes, **beside}

    def _items(self, template: Any, what: str) -> Any:
        """Return the list of a group; an empty one if the job that makes it was skipped.

        Errors: UsageError if that job did not succeed and its failure is not tolerated.
        """
        items, invalid = None, None
        try:
            items = self._value(template)
        except WorkflowInvalid as error:
            invalid = error
        if items is not None:
            return items
        references, ids = find_references(template), self.work.get("result_of", {})
        outcome, why = self._ask(lambda: find_without_result(references, ids, self.job.connection))
        if outcome in _LEAVES_NOTHING_TO_DO:
            self._say("note", f"its list is empty: {why}")
            return []
        if why:
            raise UsageError(f"{what} has no list: {why}")
        if invalid is not None:
            raise invalid
        return items

    def _sleep(self, pause: float | datetime) -> Pause | None:
        """Return a pause of the time that is left; None if there is none."""
        job = self.job
        times = ("", pause.timestamp()) if isinstance(pause, datetime) else (pause, "")
        left_s = float(
            self._ask(lambda: scripts.SLEEP.call(job.connection, job.key, job.id, *times))
        )
        if left_s <= 0:
            return None
        due_at = datetime.now(UTC) + timedelta(seconds=left_s)
        return Pause(left_s, f"{SLEEPING} {due_at:%Y-%m-%dT%H:%M:%SZ}")

    def _find_pause(self, result: Any) -> Pause | None:
        """Return the pause before the next poll; None if this one has found what it looks for.

        Errors: PollFailed if there is no time for another one.
        """
        job, poll = self.job, self.work["poll"]
        scope = {**self.scope, "result": result}
        if decide(poll["until"], inputs=self.inputs, scope=scope):
            return None
        within_s, shown = poll.get("within_s"), write_view(result, MAX_POLL, self.mask.hide)
        arguments = (poll["every_s"], "" if within_s is None else within_s, shown)
        took_s = time.monotonic() - self.began_at
        count, has_time = self._ask(
            lambda: scripts.POLL.call(job.connection, job.key, job.id, *arguments, took_s)
        )
        if not has_time:
            raise PollFailed(int(count), str(write_duration(within_s)))
        times = "once" if count == 1 else f"{count:,} times"
        return Pause(poll["every_s"], f"{POLLED} {times}; again in {write_wait(poll['every_s'])}")

    # Before and after ----------------------------------------------------------------------------

    def _may_run(self) -> bool:
        """Evaluate the job's `if`; if it is false, the job ends as skipped, which is no failure."""
        job = self.job
        if "if" not in self.work or job.was_judged:
            return True
        statuses: Mapping[str, bool] = self._ask(
            lambda: read_statuses(
                *(job.id, job.group_of_items, job.run_id, job.connection),
                is_start="nested" in self.work,
            )
        )
        condition, source = self.work["if"], self.work.get("condition", "")
        if "ended_of" in self.work:
            statuses = self._with_all_jobs(statuses, condition)
        false = find_false(
            *(condition, source, statuses),
            lambda: bool(self._value(condition, statuses, decide)),
            has_policy="policy" in self.work,
        )
        if false is not None:
            self._say("skip", self._find_untaken(statuses) or say_false(false))
        return false is None

    def _find_untaken(self, statuses: Mapping[str, bool]) -> str:
        """Return why the job's branch is not taken; "" if it is, or if the job is in none."""
        branch: Mapping[str, str] = self.work.get("branch", {})
        reasons = (why for each, why in branch.items() if not self._value(each, statuses, decide))
        return next(reasons, "")

    def _with_all_jobs(self, statuses: Mapping[str, bool], condition: Any) -> Mapping[str, bool]:
        """Return the status functions for a job under `finally`: about all jobs of the run.

        If its `if` has no status function, only jobs upstream of it count.
        """
        if not find_references(condition).statuses:
            return {**statuses, "success": not statuses["bad"]}
        ended = self._ended
        return {
            **statuses,
            "success": ended["status"] == "succeeded" and not statuses["bad"],
            "failure": statuses["failure"] or ended["has_failed"],
            "canceled": statuses["canceled"] or ended["canceled"],
        }

    def _may_go_on(self) -> bool:
        """Whether the job needs no approval, and has got its slots."""
        job = self.job
        if not job.is_judged_first:
            return True
        return bool(self._ask(lambda: scripts.MAY_GO_ON.call(job.connection, job.key, job.id)))

    def _message(self) -> str:
        """Return the message of the approval, unless it was known before the run."""
        template = self.work.get("message")
        if template is None:
            return ""
        return self.mask.hide(str(self._value(template, None, write_message)))

    def _look_for_secrets(self, written: bytes) -> None:
        """Note that the result contains a secret, or refuse it. Errors: SecretInResult."""
        if not self.mask.is_in(written):
            return
        if self.work.get("refuses_secrets"):
            raise SecretInResult
        self._say("note", "its result contains a secret, which is hidden wherever it is shown")

    def _after(self, result: Any) -> None:
        scope = {**self.scope, "result": result}
        if self.work.get("grows"):
            self._ask(lambda: grow(self.job, self.job.group_of_items, scope))
        stop_when = self.work.get("stop_when")
        if stop_when is not None and decide(stop_when, inputs=self.inputs, scope=scope):
            self._say("stop", "`stop_when` is true")

    def _say(self, what: str, why: str) -> None:
        job, shown = self.job, self.mask.hide(why)
        self._ask(lambda: scripts.TELL_ABOUT.call(job.connection, job.key, job.id, what, shown))

    def _ask(self, do: Callable[[], Result]) -> Result:
        """Call `do`, and repeat it while the server is unavailable."""
        return retry_while_unavailable(do, JOB_MAX_WAIT_S, connection=self.job.connection)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Set the job's environment and folder, and restore them: a child executes several jobs.

        A command does not get the variables that name the server, unless its `env` has them.
        """
        withheld = [name for name in variables.SERVER if name in os.environ]
        if "shell" not in self.work:
            withheld = []
        if not withheld and "env" not in self.work and "cwd" not in self.work:
            yield
            return
        before, folder = dict(os.environ), os.getcwd()  # noqa: PTH109 - as it is put back
        self.secrets = self._find_secrets(before)
        try:
            given = self._value(self.work.get("env", {}))
            for name in withheld:
                del os.environ[name]
            os.environ.update({name: _as_variable(name, given[name]) for name in given})
            if self.work.get("cwd"):
                self._enter(self._value(self.work["cwd"]))
            yield
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)

    def _enter(self, folder: Any) -> None:
        try:
            os.chdir(folder)
        except OSError as error:
            reason = f"its `cwd` {folder!r} cannot be entered: {error.strerror}"
        except (TypeError, ValueError):  # no text, or NUL in it
            reason = f"its `cwd` is {folder!r:.60}, which names no folder"
        else:
            return
        if "shell" in self.work:
            raise shell.not_started(self.work["shell"]["command"], reason)
        raise UsageError(f"the job cannot start: {reason}")

    # What expressions see ------------------------------------------------------------------------

    def _value(
        self,
        template: Any,
        statuses: Mapping[str, bool] | None = None,
        find: Callable[..., Any] = evaluate,
    ) -> Any:
        references = find_references(template)
        ids = self.work.get("result_of", {})
        with importing():  # for objects in results
            starter = self.job.id if "decided" in self.work else ""
            jobs = self._ask(lambda: read_jobs(references, ids, self.job.connection, starter))
        scope = dict(self.scope)
        if "ended" in references.roots:
            scope["ended"] = self._ended
        if "attempt" in references.roots:
            scope["attempt"] = self.job.attempt
        if "approval" in references.roots:
            scope["approval"] = self.given
        if references.env:
            scope["env"] = os.environ
        if references.secrets:
            scope["secrets"] = self.secrets
        known: dict[str, Any] = {"inputs": self.inputs, "jobs": jobs, "scope": scope}
        known["statuses"] = statuses or {}
        if references.secrets:
            known["made"] = self._hide_made
        with one_budget(self.budget):
            return find(template, **known)

    def _hide_made(self, expression: str, value: Any) -> None:
        """Hide texts that an expression has made from a secret, except parts of the expression."""
        if not find_references(as_template(expression)).secrets:
            return
        made = (each for each in _texts_in(value) if each not in expression)
        self.mask.add(made, MIN_PART)

    @property
    def scope(self) -> Mapping[str, Any]:
        scope: Mapping[str, Any] = self.work.get("scope", {})
        return scope

    @cached_property
    def _ended(self) -> Mapping[str, Any]:
        """How the run or the nested workflow ended, for a job under `finally`."""
        ended_of, job = self.work.get("ended_of", ""), self.job
        return self._ask(lambda: read_run_end(ended_of, job.run_id, job.connection))

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The values that the approval of this job gave."""
        job = self.job
        return read_given(self._ask(lambda: job.connection.hget(job.key, "flowq_approved")))

    @cached_property
    def inputs(self) -> Mapping[str, Any]:
        source = self.work.get("inputs_from")
        if source:
            inputs: Mapping[str, Any] | None
            inputs = self._ask(lambda: get_result(source, self.job.connection))
            return inputs or {}
        return dict(self.work.get("inputs", {}))

    @cached_property
    def budget(self) -> Budget:
        """The limit of the work of all expressions of the job together."""
        return Budget()

    @cached_property
    def mask(self) -> Mask:
        return Mask(tell=True)

    @cached_property
    def secrets(self) -> Secrets:
        return self._find_secrets(os.environ)

    def _find_secrets(self, environment: Mapping[str, str]) -> Secrets:
        """Return the worker's secrets, which the job's own `env` and `cwd` do not change."""
        return Secrets(environment, lambda value: self.mask.add([value]))


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value, and numbers as texts."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, bytes):
            yield from_bytes(part)
        elif isinstance(part, Mapping):
            waiting += [*part, *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield str(part)


def _as_variable(name: str, value: Any) -> str:
    """Return a value as a variable of the environment has it."""
    return str(value) if type(value) in _SCALARS else write(value, f"env.{name}")
