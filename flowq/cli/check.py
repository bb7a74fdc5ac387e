"""`flowq check`: report all problems of workflows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from flowq import compiling
from flowq.cli import options, terminal
from flowq.cli.compiling import files_of, load
from flowq.cli.completion import complete_file
from flowq.errors import Problem, UsageError, WorkflowInvalid, WorkflowNotFound
from flowq.render.json import make_document, problems_document, write_json
from flowq.render.lines import count


@click.command()
@click.argument("targets", metavar="TARGET…", nargs=-1, required=True, shell_complete=complete_file)
@options.no_import
@options.as_json
@options.verbose
def command(targets: tuple[str, ...], imports: bool, as_json: bool, verbose: bool) -> int:
    """Report every problem in workflows.

    Each problem is printed as FILE:LINE:COLUMN: CODE MESSAGE, followed by a hint. A TARGET is a
    workflow, or a folder; a folder stands for all YAML files below it that contain `jobs`, except
    in hidden folders. The exit code is 3 if there is a problem, and 5 if a workflow does not exist;
    warnings alone do not change the exit code 0.

    \b
      flowq check workflows/sandwich.yaml
      flowq check app.flows:report --no-import
      flowq check workflows/ more.yaml
    """
    with terminal.result_stream(as_json) as out:
        found = [*_look_into(targets, imports)]
        if as_json:
            documents = [
                problems_document(each.target, each.problems)
                | ({"error": each.missing} if each.missing else {})
                for each in found
            ]
            is_one = len(targets) == 1 and not Path(targets[0]).is_dir()
            parts = documents[0] if is_one else {"targets": documents}
            terminal.write(write_json(make_document("check", **parts)), out)
        else:
            terminal.write("".join(map(_tell, found)), out)
            if len(found) > 1:
                terminal.write(_summarize(found), out)
    if any(map(_errors, found)):
        return WorkflowInvalid.exit_code
    return WorkflowNotFound.exit_code if any(each.missing for each in found) else 0


@dataclass(frozen=True)
class _Checked:
    """The result of checking one target. Shape: `missing` says why it could not be checked."""

    target: str
    problems: Sequence[Problem] = ()
    jobs: int = 0
    missing: str = ""


def _look_into(targets: Sequence[str], imports: bool) -> Iterator[_Checked]:
    names = list(dict.fromkeys(name for target in targets for name in files_of(target)))
    if not names:
        raise UsageError(f"there is no workflow in {', '.join(targets)}: no YAML file has `jobs`")
    for name in names:
        try:
            with _modules_of_its_own(len(names) > 1):
                yield _check(name, imports)
        except WorkflowNotFound as error:
            if len(names) == 1:
                raise
            yield _Checked(name, missing=str(error))


@contextmanager
def _modules_of_its_own(apply: bool) -> Iterator[None]:
    """Undo changes that a workflow's folder made to the import path, and forget its modules.

    Two folders may have modules of the same name.
    """
    path, modules = [*sys.path], {*sys.modules}
    yield
    if not apply:
        return
    folders = [Path(each).resolve() for each in sys.path if each not in path]
    for name in sys.modules.keys() - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and any(folder in Path(file).resolve().parents for folder in folders):
            del sys.modules[name]
    sys.path[:] = path


def _check(target: str, imports: bool) -> _Checked:
    try:
        workflow = load(target, imports)
        with terminal.users_code():
            found = compiling.find_problems(workflow, imports=imports)
            return _Checked(target, found, len(workflow.jobs))
    except WorkflowInvalid as invalid:
        return _Checked(target, invalid.problems)


def _errors(checked: _Checked) -> int:
    return sum(problem.severity == "error" for problem in checked.problems)


def _tell(checked: _Checked) -> str:
    if checked.missing:
        return f"{checked.missing}\n"
    told = "".join(f"{problem}\n" for problem in checked.problems)
    errors = _errors(checked)
    if errors:
        return f"{told}{count(errors, 'problem')}\n"
    return f"{told}{checked.target}: ok, {count(checked.jobs, 'job')}\n"


def _summarize(found: Sequence[_Checked]) -> str:
    wrong = [each for each in found if _errors(each)]
    missing = sum(bool(each.missing) for each in found)
    parts = [count(len(found), "workflow")]
    if wrong:
        parts.append(f"{count(sum(map(_errors, wrong)), 'problem')} in {len(wrong)} of them")
    if missing:
        parts.append(f"{missing} not found")
    return f"{', '.join(parts) if len(parts) > 1 else f'{parts[0]}, all ok'}\n"
