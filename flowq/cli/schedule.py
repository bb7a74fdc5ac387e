"""`flowq schedule`: submit runs of workflows by their schedules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError

from flowq.cli import compiling, display, options, terminal
from flowq.cli.place import Place, opened, opened_if_used, warn_about
from flowq.client import find_unattended, list_schedules
from flowq.errors import FlowqError, UsageError, WorkflowInvalid
from flowq.plan import Plan
from flowq.render.details import schedules_table
from flowq.render.json import schedules_document, write_json
from flowq.spec import Workflow
from flowq.targets import YAML_ENDINGS

if TYPE_CHECKING:
    from flowq.scheduling import Due, Scheduler

LONGEST_NAP_S = 0.2
"""How long a signal may go unnoticed."""


@click.command()
@options.optional_target
@options.inputs
@options.inputs_file
@click.option("--pause", is_flag=True, help="Submit no runs before --resume, and exit.")
@click.option("--resume", is_flag=True, help="Continue a paused schedule, and exit.")
@click.option("--list", "lists", is_flag=True, help="List the server's schedules, and exit.")
@options.redis_url
@options.no_import
@options.as_json
@options.verbose
def command(
    target: str | None,
    given: Mapping[str, str],
    inputs_file: str | None,
    pause: bool,
    resume: bool,
    lists: bool,
    redis_url: str | None,
    imports: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Submit a run whenever the workflow's `schedule` is due, until Ctrl-C.

    TARGET is a workflow, or a folder: then all workflows with a schedule in it. YAML files that
    change are read again; one with problems keeps its earlier version. This command only
    watches the clock; workers, as started by `flowq worker`, execute the runs. Several instances
    may watch one workflow: one of them works, and another takes over within seconds.

    --list needs no TARGET: it lists the schedules that the server knows, when they are due next,
    and which process submits their runs. --json belongs to it.

    \b
      flowq schedule workflows/books.yaml --redis-url redis://localhost/0
      flowq schedule workflows/                 all workflows in a folder
      flowq schedule workflows/books.yaml --pause
      flowq schedule --list
    """
    from flowq import scheduling  # noqa: PLC0415 - nothing but this needs it

    if pause + resume + lists > 1:
        raise UsageError("--pause, --resume and --list exclude each other")
    if lists:
        _list(redis_url, as_json=as_json)
        return
    if as_json:
        raise UsageError("--json belongs to --list: flowq schedule --list --json")
    if target is None:
        raise UsageError("name a workflow with a schedule, or a folder; or list all with --list")
    workflows = find_scheduled(target)
    if Path(target).is_dir() and (given or inputs_file):
        raise UsageError("the workflows of a folder have their inputs under `schedule`: `inputs`")
    if pause or resume:
        with opened(redis_url, creating=True) as place:
            _pause(workflows, place, is_over=resume)
        return
    served = list(_plan_first(workflows, given, inputs_file, imports))
    if not served:
        raise UsageError(f"no workflow in {target} can be scheduled")
    with opened(redis_url, creating=True) as place, terminal.Interrupts(deferring=True) as signals:
        warn_about(place)
        place.retry.wait_at_most(scheduling.LEASE_S)  # then `serve` goes on, or a signal ends it
        for _, workflow, _, due, _ in served:
            when = f"{due.at:%Y-%m-%d %H:%M %Z}"
            terminal.note(f"flowq: the next run of {workflow.name} is due at {when}")
        warn_about_workers((plan for *_, plan in served), place)
        make = partial(scheduling.Scheduler, connection=place.connection, tell=_tell)
        watched = _Watched(
            target,
            make,
            {
                file: make(workflow, inputs, defaults=compiling.read_environment(workflow))
                for file, workflow, inputs, *_ in served
            },
        )
        wait = until_interrupted(signals)
        scheduling.serve(watched.schedulers, wait, place.revive, watched.refresh)


def _list(redis_url: str | None, *, as_json: bool) -> None:
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        records = list_schedules(place.connection) if place else []
        if as_json:
            terminal.write(write_json(schedules_document(records)), out)
        else:
            display.tell(schedules_table(records, datetime.now(UTC)), out)


def _plan_first(
    workflows: Mapping[str, Workflow],
    given: Mapping[str, str],
    inputs_file: str | None,
    imports: bool,
) -> Iterator[tuple[str, Workflow, Mapping[str, Any], Due, Plan]]:
    """Yield each file, its workflow, its inputs and its next run; notes files without one.

    Errors: WorkflowInvalid for a single one.
    """
    from flowq import scheduling  # noqa: PLC0415 - as above

    for file, workflow in workflows.items():
        inputs = compiling.read_given(given, inputs_file)
        defaults = compiling.read_environment(workflow)
        due = scheduling.find_next_due(workflow, datetime.now(UTC))
        try:
            with terminal.users_code():
                plan = scheduling.plan_due(
                    workflow, due, inputs, defaults=defaults, imports=imports
                )
        except WorkflowInvalid as invalid:
            if len(workflows) == 1:
                raise
            _leave_out(file, invalid)
        else:
            yield file, workflow, inputs, due, plan


class _Watched:
    """The schedulers of a target, whose files are read again when they have changed.

    A file that has problems keeps the version that is scheduled. Code is not loaded again.
    """

    def __init__(
        self,
        target: str,
        make: Callable[..., Scheduler],
        scheduler_by_file: Mapping[str, Scheduler],
    ) -> None:
        self.schedulers = list(scheduler_by_file.values())
        self._by_file = dict(scheduler_by_file)
        self._inputs = self.schedulers[0].inputs  # those of a folder have none
        self._target, self._make = Path(target), make
        self._stamps = self._look()

    def refresh(self) -> None:
        """Read the files that have changed, appeared or gone since the last call."""
        before, self._stamps = self._stamps, self._look()
        if before == self._stamps:
            return
        is_same = {file: before.get(file) == stamp for file, stamp in self._stamps.items()}
        for file in dict.fromkeys([*self._list(), *self._by_file]):
            parts = _parts_of(self._by_file[file].workflow) if file in self._by_file else []
            if not all(is_same.get(part, True) for part in [_path(file), *parts]):
                self._read(file)
        self._stamps = self._look()  # with the files that workflows include now

    def _list(self) -> list[str]:
        if not self._target.is_dir():
            return [str(self._target)] if self._target.suffix in YAML_ENDINGS else []
        return [str(path) for path in compiling.list_files(self._target)]

    def _look(self) -> dict[str, tuple[int, int] | None]:
        """Return when each file was written, and its size, by path; None for one that is gone."""
        files = [_path(file) for file in self._list()]
        for file, scheduler in self._by_file.items():
            if self._target.is_dir() or self._target.suffix in YAML_ENDINGS:
                files += [_path(file), *_parts_of(scheduler.workflow)]
        return {file: _stamp(file) for file in files}

    def _read(self, file: str) -> None:
        from flowq import scheduling  # noqa: PLC0415 - as above

        known = self._by_file.get(file)
        try:
            if not Path(file).is_file() or not compiling.has_jobs(Path(file)):
                workflow = None
            else:
                workflow = compiling.checked_graph(file).workflow
            if workflow is None or not workflow.schedules:
                self._forget(file)
                return
            self._refuse_taken(file, workflow)
            defaults = compiling.read_environment(workflow)
            due = scheduling.find_next_due(workflow, datetime.now(UTC))
            scheduling.plan_due(workflow, due, self._inputs, defaults=defaults)
        except FlowqError as error:
            problems = error.problems if isinstance(error, WorkflowInvalid) else [error]
            terminal.note("\n".join(map(str, problems)))
            result = "the version before it stays scheduled" if known else "it is left out"
            _tell(f"{file} has changed, and cannot be used: {result}")
            return
        if known and known.workflow.name == workflow.name:
            known.change(workflow, defaults)
        else:
            self._forget(file)
            self._by_file[file] = self._make(workflow, self._inputs, defaults=defaults)
            self.schedulers.append(self._by_file[file])
        when = f"{due.at:%Y-%m-%d %H:%M %Z}"
        _tell(f"{file} was read again; the next run of {workflow.name} is due at {when}")

    def _refuse_taken(self, file: str, workflow: Workflow) -> None:
        for other, scheduler in self._by_file.items():
            if other != file and scheduler.workflow.name == workflow.name:
                raise UsageError(f"{other} is named {workflow.name}, too")

    def _forget(self, file: str) -> None:
        scheduler = self._by_file.pop(file, None)
        if scheduler is not None:
            self.schedulers.remove(scheduler)
            with suppress(RedisError):  # then its lease runs out
                scheduler.leave()
            _tell(f"{scheduler.workflow.name} is not scheduled any more")


def _path(file: str) -> str:
    return str(Path(file).resolve())


def _parts_of(workflow: Workflow) -> list[str]:
    """Return the files of a workflow and of those inside of it."""
    where = workflow.places.find()
    inside = [file for each in workflow.workflows.values() for file in _parts_of(each)]
    return [*([_path(where.file)] if where else []), *inside]


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _leave_out(file: str, invalid: WorkflowInvalid) -> None:
    terminal.note("\n".join(map(str, invalid.problems)))
    terminal.note(f"flowq: {file} is left out: it has problems")


def _tell(text: str) -> None:
    terminal.note(f"flowq: {text}")


def until_interrupted(signals: terminal.Interrupts) -> Any:
    """Return a function that sleeps some seconds, and returns whether a signal has come."""

    def wait(seconds: float) -> bool:
        end_at = time.monotonic() + seconds
        while signals.first is None and (left_s := end_at - time.monotonic()) > 0:
            time.sleep(min(left_s, LONGEST_NAP_S))
        return signals.first is not None

    return wait


def find_scheduled(target: str) -> dict[str, Workflow]:
    """Return the workflows with a schedule that a target names, by file.

    Notes the files of a folder that cannot be used. Errors: UsageError for a workflow without a
    schedule, a folder without any, and for two workflows of one name; those of `load`.
    """
    from flowq import scheduling  # noqa: PLC0415 - as above

    if not Path(target).is_dir():
        workflow = compiling.checked_graph(target).workflow
        scheduling.find_due(workflow, datetime.now(UTC), datetime.now(UTC))  # or there is none
        return {target: workflow}
    found = {file: workflow for file, workflow in _load_each(target) if workflow.schedules}
    if not found:
        raise UsageError(f"no workflow in {target} has a schedule")
    file_by_name: dict[str, str] = {}
    for file, workflow in found.items():
        if (other := file_by_name.setdefault(workflow.name, file)) != file:
            raise UsageError(
                f"{other} and {file} are both named {workflow.name}, and the runs of a schedule "
                "are known by that: give one of them another `name`"
            )
    return found


def _load_each(folder: str) -> Iterator[tuple[str, Workflow]]:
    for file in compiling.files_of(folder):
        try:
            yield file, compiling.checked_graph(file).workflow
        except WorkflowInvalid as invalid:
            _leave_out(file, invalid)
        except FlowqError as error:
            terminal.note(f"flowq: {file} is left out: {error}")


def _pause(workflows: Mapping[str, Workflow], place: Place, *, is_over: bool) -> None:
    from flowq import scheduling  # noqa: PLC0415 - as above

    for file, workflow in workflows.items():
        change = scheduling.resume if is_over else scheduling.pause
        is_changed = change(workflow.name, place.connection)
        state = "is not paused" if is_over else "is paused"
        again = " any more" if is_over and is_changed else ""
        terminal.write(f"the schedule of {workflow.name} {state}{again}\n")
        if not is_over:
            terminal.note(f"flowq: let it go on with: {place.hint(f'schedule {file} --resume')}")


def warn_about_workers(plans: Iterable[Plan], place: Place) -> None:
    """Note that no worker listens on queues of these plans."""
    queues = {enqueue.queue for plan in plans for enqueue in plan.enqueues}
    unattended = find_unattended(sorted(queues), place.connection)
    if unattended:
        start = place.hint("worker", *unattended)
        terminal.note(f"flowq: no worker listens yet; start one: {start}")
