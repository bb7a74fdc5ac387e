"""Load the workflow that the command line names, and make its plan."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowq import compiling, targets
from flowq.cli import terminal
from flowq.errors import FlowqError, Problem, WorkflowInvalid
from flowq.files import read_file
from flowq.graph import Graph, build_graph
from flowq.plan import Plan
from flowq.render.lines import spelled, spelled_line
from flowq.selecting import Selection, select
from flowq.spec import Input, Workflow
from flowq.targets import YAML_ENDINGS

_JOBS = re.compile(rb"""^(?:["']?jobs["']?[ \t]*:|\{.*["']?jobs["']?[ \t]*:)""", re.MULTILINE)
_MAX_LOOK = 1_000_000


def load(target: str, imports: bool = False) -> Workflow:
    """Return the workflow that a target names. Errors: WorkflowNotFound; WorkflowInvalid."""
    with terminal.users_code():
        return compiling.load(target, imports=imports)


def make_plan(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    imports: bool,
    labels: Mapping[str, str] | None = None,
    selection: Selection | None = None,
) -> Plan:
    """Return the plan of a run; warnings go to stderr. Errors: those of `compile_plan`."""
    workflow = load(target, imports)
    inputs = read_inputs(workflow, given, inputs_file)
    with terminal.users_code():
        return compiling.compile_plan(
            workflow, inputs, imports=imports, warn=warn, labels=labels, selection=selection
        )


def checked_graph(target: str, selection: Selection | None = None) -> Graph:
    """Return the graph of a valid workflow, or of a part of it, without importing its functions.

    Errors: WorkflowNotFound; WorkflowInvalid; those of `select`.
    """
    workflow = load(target)
    problems = compiling.find_problems(workflow, imports=False)
    if any(problem.severity == "error" for problem in problems):
        raise WorkflowInvalid(problems)
    return select(build_graph(workflow), selection)


def warn(problem: Problem) -> None:
    """Print a warning about a workflow on standard error."""
    terminal.note(str(problem))


def describe_inputs(target: str) -> list[tuple[str, str]]:
    """Return the help text for a workflow's inputs; empty if the workflow has problems."""
    try:
        inputs = load(target).inputs
    except FlowqError:
        return []
    return [
        (f"-i {declared.name}={_placeholder(declared)}", _explained(declared))
        for declared in inputs
    ]


def _placeholder(declared: Input) -> str:
    return spelled_line("|".join(declared.choices)) or declared.type.upper()


def _explained(declared: Input) -> str:
    need = "required" if declared.required else f"default: {declared.default!r}"
    shape = f"; {declared.pattern}" if declared.pattern is not None else ""
    return spelled(f"{spelled_line(declared.description)}  [{need}{shape}]".strip())


def files_of(target: str) -> Iterator[str]:
    """Yield a target, or the files with workflows in a folder, in the order of their names."""
    folder = Path(target)
    if not target or not folder.is_dir():  # an empty text is no current folder
        yield target
        return
    yield from (str(path) for path in list_files(folder) if has_jobs(path))


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files in a folder that are not hidden, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in inside)
        if path.suffix in YAML_ENDINGS and not is_hidden and path.is_file():
            yield path


def has_jobs(path: Path) -> bool:
    """Whether a YAML file may be a workflow, rather than some other file."""
    try:
        return _JOBS.search(read_file(path, _MAX_LOOK).removeprefix(b"\xef\xbb\xbf")) is not None
    except OSError:
        return True  # loading it reports why it cannot be read


def read_inputs(
    workflow: Workflow, given: Mapping[str, str], inputs_file: str | None
) -> dict[str, Any]:
    """Return the inputs of a run: the command line's override the file's, which override the
    environment's."""
    return {**read_environment(workflow), **read_given(given, inputs_file)}


def read_environment(workflow: Workflow) -> dict[str, str]:
    """Return the inputs in the environment; those under a `schedule` override them."""
    return targets.find_inputs(workflow, os.environ)


def read_given(given: Mapping[str, str], inputs_file: str | None) -> dict[str, Any]:
    """Return the inputs on the command line, which override those in the file."""
    return {**(targets.read_inputs(inputs_file) if inputs_file else {}), **given}
