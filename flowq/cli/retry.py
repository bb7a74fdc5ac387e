"""`flowq retry`: rerun the jobs of a run that did not succeed, or one job."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import IO, TYPE_CHECKING

import click

from flowq.cli import options, terminal
from flowq.cli.completion import complete_file
from flowq.cli.following import RunOptions, follow_to_the_end
from flowq.cli.place import Place, opened
from flowq.cli.terminal import Interrupts
from flowq.client import Run, submit
from flowq.errors import UsageError
from flowq.render.continuation import describe_choice, describe_inputs
from flowq.render.json import plan_document, write_json
from flowq.render.lines import spelled_line
from flowq.status import RunStatus

if TYPE_CHECKING:
    from flowq.continuing import Continuation

NAMED = 5


@click.command()
@options.run_id
@options.optional_job
@click.option(
    "--file",
    "target",
    metavar="TARGET",
    help="Continue the run with this workflow, in a new run that keeps all unchanged jobs.",
    shell_complete=complete_file,
)
@options.changed_inputs
@options.no_import
@click.option(
    "--dry-run", is_flag=True, help="With --file: print what is kept and what runs, and stop."
)
@options.redis_url
@options.concurrency
@options.as_json
@options.quiet
@options.verbose
def command(
    run_id: str,
    job: str | None,
    target: str | None,
    given: Mapping[str, str],
    imports: bool,
    dry_run: bool,
    redis_url: str | None,
    concurrency: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Rerun the jobs of an ended run that did not succeed, and everything after them.

    With a JOB, rerun that job, even if it succeeded, and everything after it. JOB may be one item
    of a group, a whole group, or a nested workflow. All other jobs keep their results, and jobs
    under `finally` run again. The workflow is the one that was submitted; the command says if its
    file has changed since. The command then follows the run like `flowq run`; Ctrl-C cancels it.

    With --file, a new run continues this one with an edited workflow, and with inputs that -i
    changes. It keeps the jobs that succeeded, whose declaration and inputs are the same, and that
    wait only for such jobs; it says which these are, and why the others run.

    \b
      flowq retry k3v9x0q2m5ab
      flowq retry k3v9x0q2m5ab publish
      flowq retry k3v9x0q2m5ab 'thumb[3]'
      flowq retry k3v9x0q2m5ab --file report.yaml
    """
    run_options = RunOptions(concurrency, as_json, verbose, quiet)
    if target is None and (given or dry_run or not imports):
        raise UsageError("-i, --no-import and --dry-run need --file: a retry has the same workflow")
    with terminal.result_stream(as_json) as out, opened(redis_url, is_changing=True) as place:
        run = place.find_run(run_id)
        if target is not None:
            draft = _plan(run, target, given, [job] if job else [], imports)
            lines = list(describe_choice(run.run_id, draft.choice, draft.sizes))
            lines += describe_inputs(draft.others)
            if dry_run:
                text = write_json(plan_document(draft.plan)) if as_json else "\n".join(lines) + "\n"
                terminal.write(text, out)
                return 0
            for line in () if quiet else lines:
                terminal.note(f"flowq: {line}")
            return _continue(draft, place, run_options, out)
        _tell_changes(run)
        with Interrupts(deferring=True) as interrupts:
            status = run.status()
            begin = partial(_retry, run, job, status)
            since = status.last_event_id
            return follow_to_the_end(run, place, run_options, out, interrupts, since, begin)


def _plan(
    run: Run, target: str, given: Mapping[str, str], again: list[str], imports: bool
) -> Continuation:
    from flowq.cli.compiling import load, warn  # noqa: PLC0415 - a plain retry reads no workflow
    from flowq.continuing import plan_continuation  # noqa: PLC0415

    workflow = load(target, imports)
    with terminal.users_code():
        return plan_continuation(run, workflow, given, again=again, imports=imports, warn=warn)


def _continue(draft: Continuation, place: Place, run_options: RunOptions, out: IO[str]) -> int:
    with Interrupts(deferring=True) as interrupts:
        run = Run(draft.plan.run_id, place.connection)
        begin = partial(submit, draft.plan, place.connection, is_apart=place.is_embedded)
        return follow_to_the_end(run, place, run_options, out, interrupts, begin=begin)


def _tell_changes(run: Run) -> None:
    from flowq.targets import find_changes  # noqa: PLC0415 - imports the readers

    source = run.source()
    changed = find_changes(source) if source.file else None
    if changed is None:
        return
    some = ", ".join(changed[:NAMED]) + (" and others" if len(changed) > NAMED else "")
    file = shlex.quote(spelled_line(source.file))
    jobs = f" ({some})" if some else ""
    terminal.note(
        f"flowq: {file} has changed since run {run.run_id} was submitted{jobs}; a retry runs what "
        f"was submitted. To run the file as it is now: flowq run {file}"
    )


def _retry(run: Run, job: str | None, status: RunStatus) -> None:
    deleted = [each.name for each in status.jobs.values() if each.state == "deleted"]
    count = len(run.retry(job))
    if deleted and job is None:
        names = ", ".join(deleted[:NAMED]) + (" and others" if len(deleted) > NAMED else "")
        terminal.note(f"flowq: {names}: deleted, and cannot run again")
    terminal.note(f"flowq: {count} job{'s' if count > 1 else ''} of run {run.run_id} run again")
