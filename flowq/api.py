"""What a program calls: load, submit and run workflows, and find their runs.

    flow = flowq.load("report.yaml")                 # checked; WorkflowInvalid has all problems
    run = flowq.run(flow, {"month": "2026-11"})      # submit, wait; RunFailed if it fails
    run.result("render"), run.outputs()

    run = flowq.submit(flow, {"month": "2026-11"})   # returns at once; workers execute the run
    flowq.get_run(run.id).wait(timeout="10m")

Each function takes a `connection` (a client or a URL), or uses the first of: that of the running
job, that of `flowq.connect` or `flowq.local`, FLOWQ_REDIS_URL, RQ_REDIS_URL. None of them starts a
server or a worker. They compile with `flowq.compiling` and submit with `flowq.client`, as commands
do. Importing this module loads the standard library only, as every child that imports a declared
workflow does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowq import own_script
from flowq.declare import python
from flowq.durations import parse_duration
from flowq.errors import Problem, UsageError, WorkflowInvalid
from flowq.functions import get_connection

if TYPE_CHECKING:
    from redis import Redis

    from flowq.client import Run
    from flowq.event import Event
    from flowq.plan import Plan
    from flowq.selecting import Selection
    from flowq.spec import Workflow as Spec
    from flowq.status import RunState

    AnyWorkflow = python.Workflow | Spec | str | os.PathLike[str]
    """A declared workflow, one from `load`, or what `load` takes."""


class Workflow(python.Workflow):
    """A graph of jobs that is declared with decorators (`flowq.declare.python`), and can be run.

    `inputs` maps names to a default (`{"size": 256}`), to a type for a required input
    (`{"folder": str}`), or to a mapping as in YAML (`{"size": {"type": "int", "default": 256}}`).
    `defaults` has the default options of jobs, `{"timeout": "10m"}`. `env`, `max_parallel`,
    `concurrency`, `schedule`, `timeout` and `labels` are as in YAML.
    """

    def submit(self, /, **inputs: Any) -> Run:
        """Submit a run with these inputs; see `flowq.submit`."""
        _refuse_options("submit", self.spec(), inputs)
        return submit(self, inputs)

    def run(self, /, **inputs: Any) -> Run:
        """Submit a run with these inputs, and wait for its end; see `flowq.run`."""
        _refuse_options("run", self.spec(), inputs)
        return run(self, inputs)


_CHOICES = ("only", "from_", "skip", "continue_from")


def _refuse_options(verb: str, workflow: Spec, inputs: Mapping[str, Any]) -> None:
    """Refuse an option of `flowq.run` that is given as an input. Errors: UsageError."""
    declared = {each.name for each in workflow.inputs}
    for name in (*("timeout", "connection", "imports", "labels"), *_CHOICES):
        if name in inputs and name not in declared:
            raise UsageError(
                f"the keywords of {verb}() are inputs, and {workflow.name} has no input {name!r}; "
                f"write flowq.{'run' if name == 'timeout' else verb}(workflow, {{…}}, {name}=…)"
            )


def load(target: str | os.PathLike[str], *, imports: bool = True) -> Spec:
    """Return the checked workflow of a target: a YAML file, FILE:NAME, or package.module:NAME.

    Makes the folders of its files importable. With `imports`, imports the functions of its jobs and
    checks their signatures; without, only workers need them. Warns of what may be wrong.
    Errors: WorkflowNotFound; WorkflowInvalid with all problems.
    """
    from flowq import compiling  # noqa: PLC0415 - imports the readers and the checks

    if not isinstance(target, str | os.PathLike):
        raise UsageError(
            f"load() takes a file, FILE:NAME or package.module:NAME, not {target!r}; a workflow "
            "that was declared in Python goes to flowq.submit or flowq.run"
        )
    workflow = compiling.load(os.fspath(target), imports=imports)
    problems = compiling.find_problems(workflow, imports=imports)
    if any(problem.severity == "error" for problem in problems):
        raise WorkflowInvalid(problems)
    for problem in problems:
        _warn(problem)
    return workflow


def submit(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    connection: Redis | str | None = None,
    imports: bool = True,
    labels: Mapping[str, str] | None = None,
    only: str | Iterable[str] = (),
    from_: str | Iterable[str] = (),
    skip: str | Iterable[str] = (),
    continue_from: Run | str | None = None,
) -> Run:
    """Check a workflow and its inputs, submit a run, and return it; it needs this process no more.

    Atomic: the run is submitted as a whole or, after an error, not at all. If the connection is
    lost at the one moment when that is unknown, a note of the error says so, and names the run.
    `imports` is as in `load`. `labels` are added to those of the workflow, and replace those of the
    same name; `flowq.runs(labels=…)` finds the run by them. In a job of a run, the run that is
    submitted has the labels of that one too.
    A part of the workflow runs: the jobs that `only` names, those that `from_` names and everything
    after them, but not those that `skip` names; each is a name or several. What is left out is
    skipped, and jobs under `finally` run unless they are skipped by name.
    The run continues an ended run, `continue_from`: it keeps the jobs that have succeeded there,
    whose declaration and inputs are the same, and that wait only for such jobs. All others run,
    and those that `from_` names. Inputs that are not given, and labels, are those of that run.
    Errors: WorkflowInvalid, also for the inputs; WorkflowNotFound; UsageError if no connection is
    found, for unknown jobs, for a part in which a job reads the result of one that is left out, and
    if all jobs would be kept; RunNotFound, and WrongState for a run that cannot be continued;
    ServerUnavailable for a URL; those of the redis client.
    """
    found = get_connection(connection)
    from flowq.selecting import make_selection  # noqa: PLC0415 - imports the expressions

    part = make_selection(only, from_, skip)
    before = None if continue_from is None else find_before(continue_from, found)
    plan = make_plan(
        workflow, inputs, imports=imports, labels=labels, selection=part, before=before
    )
    return submit_plan(plan, found)


def find_before(run: Run | str, connection: Redis) -> Run:
    """Return the run that is continued, on the server of the new one. Errors: RunNotFound."""
    from flowq import client  # noqa: PLC0415 - imports RQ

    if not isinstance(run, str) and not hasattr(run, "run_id"):
        raise UsageError(f"continue_from takes a run, or the id of one, not {run!r}")
    return client.get_run(run if isinstance(run, str) else run.run_id, connection)


def submit_plan(plan: Plan, connection: Redis) -> Run:
    """Submit a plan, and prepare the workers of `flowq.local` for it. Errors: those of `submit`."""
    from flowq import client, local_server  # noqa: PLC0415 - imports RQ

    if (place := local_server.find_local(connection)) is not None:
        place.prepare(plan, connection)
    return client.submit(plan, connection)


def make_plan(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    imports: bool = True,
    labels: Mapping[str, str] | None = None,
    selection: Selection | None = None,
    before: Run | None = None,
) -> Plan:
    """Return the plan of a run. Needs no server, unless it continues a run. Errors: `submit`'s."""
    from flowq import compiling  # noqa: PLC0415 - imports the readers and the checks

    if not isinstance(inputs, Mapping | None):
        raise UsageError(
            f'the inputs of a workflow must be a mapping, such as {{"count": 3}}, not {inputs!r}'
        )
    spec = as_spec(workflow, imports=imports)
    own_script.refuse_unguarded(_list_calls(spec))
    if before is None:
        return compiling.compile_plan(
            spec, inputs, imports=imports, warn=_warn, labels=labels, selection=selection
        )
    from flowq.continuing import plan_continuation  # noqa: PLC0415 - rarely needed

    again = selection.from_ if selection else ()
    if selection and (selection.only or selection.skip):
        raise UsageError("a run that continues another one has no `only` and no `skip`")
    return plan_continuation(
        before, spec, inputs, again=again, imports=imports, warn=_warn, labels=labels
    ).plan


def _list_calls(workflow: Spec) -> Iterator[str]:
    yield from (job.call for job in workflow if job.call)
    for nested in workflow.workflows.values():
        yield from _list_calls(nested)


def as_spec(workflow: AnyWorkflow, *, imports: bool = True) -> Spec:
    """Return the declaration of a workflow in any of its forms. Errors: those of `submit`."""
    from flowq import compiling  # noqa: PLC0415 - imports the readers and the checks

    if isinstance(workflow, python.Workflow):
        return workflow.spec()
    if isinstance(workflow, str | os.PathLike):
        return compiling.load(os.fspath(workflow), imports=imports)
    if not hasattr(workflow, "jobs"):
        raise UsageError(
            f"a workflow is a flowq.Workflow, what flowq.load returns, or the path of a file, "
            f"not {workflow!r}"
        )
    return workflow


def run(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    connection: Redis | str | None = None,
    timeout: float | str | None = None,
    imports: bool = True,
    labels: Mapping[str, str] | None = None,
    only: str | Iterable[str] = (),
    from_: str | Iterable[str] = (),
    skip: str | Iterable[str] = (),
    continue_from: Run | str | None = None,
) -> Run:
    """Submit a run as `submit` does, wait for its end as `Run.wait` does, and return it.

    An exception, also a timeout or Ctrl-C, does not end the run: `flowq.get_run(error.run_id)`
    finds it, and `cancel` ends it.
    Errors: those of `submit`; RunFailed; RunNotEnded after `timeout`.
    """
    submitted = submit(
        workflow,
        inputs,
        connection=connection,
        imports=imports,
        labels=labels,
        only=only,
        from_=from_,
        skip=skip,
        continue_from=continue_from,
    )
    submitted.wait(timeout)
    return submitted


def backfill(
    workflow: AnyWorkflow,
    begin: date | str,
    end: date | str,
    inputs: Mapping[str, Any] | None = None,
    *,
    max_parallel: int | None = None,
    connection: Redis | str | None = None,
    imports: bool = True,
) -> list[Run]:
    """Submit a run for each past due time of a schedule that has none; return these runs.

    Due times that `flowq schedule`, or an earlier call, has served in the last 30 days are left
    out, so after an interruption the same call goes on. `begin` and `end`, both included, are
    dates, datetimes, or texts of these; without an offset in the time zone of the schedule. The
    `inputs` replace those that the schedule declares.
    Blocks: with `max_parallel`, while so many of the runs have not ended.
    Errors: those of `submit`; UsageError for a workflow without a schedule, and for bad instants.
    """
    from flowq import client, local_server, scheduling  # noqa: PLC0415 - imports RQ
    from flowq.runtime.connections import pause  # noqa: PLC0415

    if max_parallel is not None and max_parallel < 1:
        raise UsageError(f"max_parallel must be at least 1, not {max_parallel!r}")
    found, spec, given = (
        get_connection(connection),
        as_spec(workflow, imports=imports),
        inputs or {},
    )
    own_script.refuse_unguarded(_list_calls(spec))
    first, last = (each.isoformat() if isinstance(each, date) else each for each in (begin, end))
    dues = scheduling.find_range(spec, first, last, datetime.now(UTC))
    if not dues:
        return []
    plan = scheduling.plan_due(spec, dues[0], given, imports=imports)
    if (place := local_server.find_local(found)) is not None:
        place.prepare(plan, found)

    def wait(seconds: float) -> bool:
        if seconds:
            pause(seconds, found)
        return False

    submitted = scheduling.backfill(spec, dues, given, found, max_parallel=max_parallel, wait=wait)
    return [client.Run(run_id, found) for _, run_id in submitted if run_id]


def get_run(run_id: str, *, connection: Redis | str | None = None) -> Run:
    """Return a run by its whole id. Errors: RunNotFound."""
    from flowq import client  # noqa: PLC0415 - imports RQ

    if not isinstance(run_id, str):
        raise UsageError(f"get_run() takes the id of a run, a text, not {run_id!r}")
    return client.get_run(run_id, get_connection(connection))


def runs(
    *,
    state: RunState | None = None,
    workflow: str | None = None,
    since: datetime | timedelta | str | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int = 50,
    connection: Redis | str | None = None,
) -> list[Run]:
    """Return the newest runs, newest first.

    `state`, the name of a `workflow`, `since` and `labels`, all of which a run must have, select
    runs; `since` is an aware instant, or how long ago: a timedelta, or a duration ("2d").
    Errors: UsageError.
    """
    from flowq import client  # noqa: PLC0415 - imports RQ

    found = get_connection(connection)
    if not isinstance(limit, int) or limit < 0:
        raise UsageError(f"limit must be the maximum number of runs, 0 or more, not {limit!r}")
    if state is not None and state not in client.RUN_STATES:
        raise UsageError(f"a run is never {state!r}, but one of: {', '.join(client.RUN_STATES)}")
    records = client.list_runs(
        found, limit, state=state, workflow=workflow, since=_read_since(since), labels=labels
    )
    return [client.Run(record.run_id, found) for record in records]


def events(
    run: Run | str | None = None,
    *,
    after: Event | str | None = None,
    follow: bool = False,
    connection: Redis | str | None = None,
) -> Iterator[Event]:
    """Yield the events of a run, or of all runs that the server has, the oldest first.

        for event in flowq.events(run, follow=True):
            print(event.at, event.name, event.event)

    Each event is given once, and has a position, its `id`: with `after`, reading goes on behind
    it, in any process. The events of a run are kept as long as the run, so none are lost between.
    Of the events of a job's progress only the newest is kept. A lost connection is made again, for
    up to 30 s (`FLOWQ_PATIENCE`).

    Args:
        run: a run, or its whole id; None for all runs. Then events come at least 0.1 s late.
        after: an event or its id; None for the beginning; "now" for what happens from now on.
        follow: wait for further events, until the run has ended; with all runs for ever.
        connection: a client or a URL; the default is that of the run, else as for `submit`.

    Errors: UsageError for a position that is none, and if no connection is found, at once;
    RunNotFound, also if the run is removed meanwhile; ServerUnavailable for a URL; redis-py's
    errors if the server is away for longer.
    """
    from flowq.runtime import event_log  # noqa: PLC0415 - imports RQ

    if not isinstance(run, str | None) and not hasattr(run, "run_id"):
        raise UsageError(f"events() takes a run, its id, or None for all runs, not {run!r}")
    run_id = run if isinstance(run, str | None) else run.run_id
    if connection is None and not isinstance(run, str | None):
        connection = run.connection
    return event_log.read(run_id, get_connection(connection), after=after, is_following=follow)


def _read_since(since: datetime | timedelta | str | None) -> datetime | None:
    if isinstance(since, str):
        try:
            since = timedelta(seconds=parse_duration(since))
        except ValueError as error:
            raise UsageError(f"since {error}") from None
    if isinstance(since, timedelta):
        return datetime.now(UTC) - since
    if not isinstance(since, datetime | None):
        raise UsageError(
            f'since must be a datetime, a timedelta, or a duration ("2d"), not {since!r}'
        )
    if since is not None and since.tzinfo is None:
        raise UsageError(f"since={since!r} has no time zone; write datetime.now(UTC), for example")
    return since


_ALREADY_SHOWN: dict[str | tuple[str, type[Warning], int], int] = {}


def _warn(problem: Problem) -> None:
    """Warn once of a problem that keeps no workflow from running, at its place in the text."""
    where = problem.where
    message = f"{problem.code} {problem.message}" + (f"; {problem.hint}" if problem.hint else "")
    place = (where.file, where.line) if where else ("<workflow>", 1)
    warnings.warn_explicit(message, UserWarning, *place, registry=_ALREADY_SHOWN)
