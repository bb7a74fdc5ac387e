"""`flowq check`: everything that is wrong with a workflow."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowq import compiling
from flowq.cli import options, streams
from flowq.cli.compiling import load
from flowq.errors import Problem, WorkflowInvalid
from flowq.render.json import problems_document, write_json
from flowq.render.lines import count


@click.command()
@options.target
@options.no_import
@options.as_json
@options.verbose
def command(target: str, imports: bool, as_json: bool, verbose: bool) -> int:
    """Look for everything that is wrong with a workflow.

    Each problem is printed as FILE:LINE:COLUMN: CODE MESSAGE, with what to do about it below.
    The exit code is 3 when there is one; warnings alone leave it at 0.

    \b
      flowq check workflows/sandwich.yaml
      flowq check app.flows:report --no-import
    """
    with streams.result_stream(as_json) as out:
        problems, jobs = _find_problems(target, imports)
        if as_json:
            streams.write(write_json(problems_document(target, problems)), out)
        else:
            streams.write(_tell(target, problems, jobs), out)
    return WorkflowInvalid.exit_code if _errors(problems) else 0


def _find_problems(target: str, imports: bool) -> tuple[Sequence[Problem], int]:
    try:
        workflow = load(target, imports)
        with streams.users_code():
            return compiling.find_problems(workflow, imports=imports), len(workflow.jobs)
    except WorkflowInvalid as invalid:
        return invalid.problems, 0


def _errors(problems: Sequence[Problem]) -> int:
    return sum(problem.severity == "error" for problem in problems)


def _tell(target: str, problems: Sequence[Problem], jobs: int) -> str:
    told = "".join(f"{problem}\n" for problem in problems)
    errors = _errors(problems)
    if errors:
        return f"{told}{count(errors, 'problem')}\n"
    return f"{told}{target}: ok, {count(jobs, 'job')}\n"
