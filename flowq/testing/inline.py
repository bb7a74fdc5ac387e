"""`run_inline`: a whole run of a workflow in this process, without a server.

The run is real: it is planned by the planner, submitted, and executed by flowq's own scripts, in an
interpreter of Lua inside of this process (fakeredis with lupa). Nothing here decides what a job's
state is, so a test sees what a run on a server would do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from flowq.api import as_spec
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.errors import RunFailed, UsageError
from flowq.observing import refuse_failure
from flowq.render.groups import by_declaration
from flowq.runtime import runs
from flowq.status import Event, RunStatus, has_begun_for_nothing, is_helper
from flowq.testing.replacing import (
    ReplacedJob,
    check_functions,
    find_for,
    refuse_missing_items,
    refuse_unknown,
    replace_nested,
)
from flowq.testing.worker import InProcessWorker

if TYPE_CHECKING:
    from redis import Redis

    from flowq.api import AnyWorkflow

Approvals = Mapping[str, bool | str | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class InlineRun:
    """How a run in process has ended.

    Attributes:
        state: of the run: "succeeded", "failed", or "waiting" if it needs something that the test
            did not give, such as an approval.
        states: of jobs, by name: "finished", "failed", "skipped", …; of groups and their items.
        results: of the jobs that have one, by name, as `Run.results` returns them: of a group, a
            list in the order of its items, with None for an item without a result.
        outputs: of the run, by name; empty unless it has ended.
        errors: what failed jobs raised, by name: the exception of the last attempt. An output
            without a value has its error there too, by `outputs.` and its name.
        order: the names of the jobs in the order in which they were executed, each attempt once.
        run: the run itself, to look at with everything that `flowq.client.Run` has. Its server is
            in this process.
    """

    state: str
    states: Mapping[str, str]
    results: Mapping[str, Any]
    outputs: Mapping[str, Any]
    errors: Mapping[str, BaseException]
    order: tuple[str, ...]
    run: Run = field(repr=False)

    def status(self) -> RunStatus:
        """Return the status of the run and its jobs, with their times and reasons."""
        return self.run.status()

    def check(self) -> Self:
        """Return this, if the run has succeeded. Errors: RunFailed, from a job's exception."""
        try:
            refuse_failure(self.status(), self.run.connection)
        except RunFailed as failed:
            first = next((self.errors[name] for name in failed.jobs if name in self.errors), None)
            raise failed from first
        return self


def run_inline(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    replace: Mapping[str, Any] | None = None,
    approvals: Approvals | None = None,
) -> InlineRun:
    """Run a whole workflow in this process, without a server, one job at a time.

    Delays (of retries, of rounds) are skipped, and timeouts are not applied.

    Args:
        workflow: a workflow in Python, a value, or what the command line accepts (`file.yaml`,
            `package.module:name`).
        replace: what runs instead of jobs, by their names: `fetch`, `thumb` (all items of a group),
            `thumb[3]`, `pack.zip` (inside of a nested workflow), or `pack` (that workflow as a
            whole). A function is called with the job's arguments; one for a `run:` job with the
            command, as a text. An exception is raised. Anything else is the result.
        approvals: decisions by the names of the jobs: True or the approval's inputs approve; False
            or a text, the reason, rejects. Without a decision, the job waits.

    Errors: WorkflowInvalid with all problems; UsageError for a name that the workflow does not
    have, an item that a group did not have, an approval that no job asks for, and without the
    package fakeredis. A job that fails is no error here: see
    `InlineRun.check`.
    """
    spec = as_spec(workflow, imports=False)
    replaced, decisions = dict(replace or {}), dict(approvals or {})
    given = tuple(replaced)  # nested workflows add to `replaced`
    refuse_unknown("replace", given, spec)
    refuse_unknown("approvals", decisions, spec)
    _refuse_undecided(decisions)
    check_functions(spec, replaced)
    compile_plan(spec, inputs, imports=False)  # for all problems of what the user has written
    plan = compile_plan(replace_nested(spec, replaced), inputs, imports=False)
    connection = _connect()
    errors: dict[str, BaseException] = {}

    class InlineJob(ReplacedJob):
        stand_ins = replaced
        raised = errors

    run = submit(plan, connection, is_apart=True)
    worker = InProcessWorker(connection, job_class=InlineJob)
    with _importable(plan.folders):
        worker.drain(run.record().queue, with_scheduled=True)
        while _decide(run, decisions):
            worker.drain(run.record().queue, with_scheduled=True)
    refuse_missing_items("replace", given, run.status())
    refuse_missing_items("approvals", decisions, run.status())
    return _describe(run, errors)


def _connect() -> Redis:
    """Return a connection to a new server inside of this process."""
    if not all(map(find_spec, ("fakeredis", "lupa"))):
        raise UsageError("run_inline() needs fakeredis: pip install 'rq-flowq[testing]'")
    import fakeredis  # noqa: PLC0415 - an extra

    fake: Any = fakeredis.FakeServer(server_type="redis", version=(7, 4))
    connected: Redis = fakeredis.FakeRedis(server=fake, protocol=2)
    return connected


@contextmanager
def _importable(folders: Iterable[str]) -> Iterator[None]:
    """Make the workflow's folders importable, as in a worker."""
    before = list(sys.path)
    sys.path[:0] = [each for each in folders if each not in before]
    try:
        yield
    finally:
        sys.path[:] = before


# Approving, and what came of it ------------------------------------------------------------------


def _refuse_undecided(decisions: Mapping[str, Any]) -> None:
    for name, decision in decisions.items():
        if not isinstance(decision, bool | str | Mapping):
            raise UsageError(
                f"approvals: {name} has {decision!r}; write True or a mapping of the approval's "
                "inputs to approve, False or a text with the reason to reject"
            )


def _decide(run: Run, decisions: Mapping[str, Any]) -> bool:
    """Tell the decisions to the jobs that ask for one; return whether there were any."""
    asking = {job.asked_as for job in run.status().jobs.values() if job.is_asking}
    told = [(name, *found) for name in sorted(asking) if (found := find_for(decisions, name))]
    for name, decision in told:
        if isinstance(decision, Mapping):
            run.approve(name, decision)
        elif decision is True:
            run.approve(name)
        else:
            run.reject(name, decision or "")
    return bool(told)


def _describe(run: Run, errors: Mapping[str, BaseException]) -> InlineRun:
    status = run.status()
    states = {job.name: job.state for job in status.declared() if not job.helps}
    for name, declared in by_declaration(status).items():
        states[name] = declared.state
    failed = {name for name, state in states.items() if state == "failed"}
    errors = {name: error for name, error in errors.items() if name in failed}
    outputs: dict[str, Any] = {}
    if status.is_ended:
        outputs = run.outputs(lambda name, error: errors.setdefault(f"outputs.{name}", error))
    return InlineRun(
        state=status.state,
        states=states,
        results=run.results(),
        outputs={name: value for name, value in outputs.items() if f"outputs.{name}" not in errors},
        errors=errors,
        order=tuple(_order(runs.read_events(run.run_id, run.connection))),
        run=run,
    )


def _order(events: Iterable[Event]) -> list[str]:
    """Return the names of the executed jobs, without those that only judged their `if`."""
    order: list[str] = []
    for event in events:
        if event.state == "started" and not is_helper(event.name):
            order.append(event.name)
        elif order[-1:] == [event.name] and has_begun_for_nothing(event):
            order.pop()
    return order
