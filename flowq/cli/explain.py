"""`flowq explain`: why a job has not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import click

from flowq import client
from flowq.cli import options, terminal
from flowq.cli.completion import complete_run
from flowq.cli.place import Place, opened
from flowq.client import Explanation, Run, missing_job
from flowq.documents import MAX_EXPLAINED, explain_document, names_to_explain
from flowq.errors import JobNotFound, RunNotFound
from flowq.render.json import write_json
from flowq.render.lines import printable
from flowq.status import say_state


@click.command()
@click.argument("run_or_job", metavar="RUN|JOB_ID", shell_complete=complete_run)
@options.optional_job
@options.redis_url
@options.as_json
@options.verbose
def command(
    run_or_job: str, job: str | None, redis_url: str | None, as_json: bool, verbose: bool
) -> None:
    """Explain why a job has not run: everything that holds it, and what to do about it.

    Name the job by its run and its name, or by its job id alone. Given only a run, the command
    explains the first jobs that have not ended or did not succeed.

    \b
      flowq explain last
      flowq explain k3v9x0q2m5ab serve
      flowq explain k3v9x0q2m5ab-serve
      flowq explain last --json
    """
    with terminal.result_stream(as_json) as out, opened(redis_url) as place:
        explanations = _explanations(run_or_job, job, place, is_quiet=as_json)
        if as_json:
            terminal.write(write_json(explain_document(explanations)), out)
            return
        for _, alike in groupby(explanations, lambda each: (each.state, each.reasons)):
            lines = _tell(list(alike)).split("\n")
            terminal.write("".join(f"{printable(line)}\n" for line in lines))


def _tell(alike: Sequence[Explanation]) -> str:
    """Return one explanation for all jobs with the same reasons."""
    first, *others = alike
    if not others:
        return str(first)
    reasons = str(first).partition("\n")[1:]
    subjects = ", ".join(each.subject for each in alike)
    return "".join([f"{subjects} {say_state(first.state, of_many=True)}", *reasons])


def _explanations(
    run_or_job: str, job: str | None, place: Place, *, is_quiet: bool
) -> Iterator[Explanation]:
    try:
        run, job = place.find_job(run_or_job, job)
    except RunNotFound:
        if job is not None:
            raise
        yield client.explain(run_or_job, place.connection, commands=place)
        return
    if job is None:
        yield from _of_run(run, place, is_quiet=is_quiet)
    else:
        yield _of_job(run, job, place)


def _of_job(run: Run, name: str, place: Place) -> Explanation:
    try:
        return run.explain(name, place)
    except JobNotFound:
        raise missing_job(run.run_id, name, run.status().names()) from None


def _of_run(run: Run, place: Place, *, is_quiet: bool) -> Iterator[Explanation]:
    status = run.status()
    names = names_to_explain(status)
    if not names and not is_quiet:
        terminal.write(
            f"run {run.run_id} ({status.state}): no job is waiting, and no failure counts\n"
        )
    yield from (run.explain(name, place) for name in names[:MAX_EXPLAINED])
    if len(names) > MAX_EXPLAINED:
        terminal.note(f"flowq: and {len(names) - MAX_EXPLAINED} more jobs; name one of them")
