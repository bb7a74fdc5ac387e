"""The workflows that may be submitted: those of the YAML files in one folder, by their names.

A request says a name, and never a path or a text. Hidden files, and links that lead out of the
folder, are not offered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from flowq.compiling import compile_plan, find_problems
from flowq.declare import yaml
from flowq.errors import FlowqError, NotFound, Problem, UsageError, Where, WorkflowInvalid
from flowq.nearest import did_you_mean
from flowq.plan import Plan
from flowq.render.json import input_document, make_document
from flowq.spec import Input, Workflow
from flowq.status import RunRecord

log = logging.getLogger("flowq")

ENDINGS = (".yaml", ".yml")
MAX_FILES = 500
"""Files beyond are not offered, which the log says."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A workflow of the folder. `file` is its path there; with `problems`, it cannot run."""

    name: str
    file: str
    description: str = ""
    inputs: tuple[Input, ...] = ()
    problems: tuple[str, ...] = ()


def list_offered(folder: Path) -> list[Offered]:
    """Return the workflows of a folder, by name. Of two with one name, none can be submitted."""
    paths = list(islice(_find_files(folder), MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        _tell_once(folder)
    found = [
        _read(str(folder), str(path), status.st_mtime_ns, status.st_size)
        for path in paths[:MAX_FILES]
        for status in [path.stat()]
    ]
    return sorted((each for each in found if each is not None), key=lambda each: each.name)


@lru_cache(maxsize=8)
def _tell_once(folder: Path) -> None:
    log.warning(
        "%s has more than %d YAML files: workflows in the others cannot be submitted on the page",
        folder,
        MAX_FILES,
    )


def plan_offered(
    folder: Path, name: str, inputs: Mapping[str, Any], labels: Mapping[str, str]
) -> Plan:
    """Return the plan of a run of one of these workflows. Its functions are not imported here.

    Errors: NotFound; UsageError; WorkflowInvalid.
    """
    offered = list_offered(folder)
    named = [each for each in offered if each.name == name]
    if not named:
        hint = did_you_mean(name, [each.name for each in offered])
        raise NotFound(f"there is no workflow {name} to submit{f'; {hint}' if hint else ''}")
    if len(named) > 1:
        files = " and ".join(each.file for each in named)
        raise UsageError(f"{files} are both named {name}: give one of them another `name`")
    workflow, problems = yaml.read_partly(folder / named[0].file)
    errors = [each for each in problems if each.severity == "error"]
    if errors:
        raise WorkflowInvalid(errors)
    return compile_plan(workflow, inputs, imports=False, labels=labels)


def find_added_labels(record: RunRecord, workflow: Workflow) -> dict[str, str]:
    """Return the labels that were added when a run was submitted."""
    return {name: each for name, each in record.labels.items() if name not in workflow.labels}


def _find_files(folder: Path) -> Iterator[Path]:
    """Yield the files, by folder and name. Hidden folders, and links to folders, are left out."""
    root = folder.resolve()
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(above, name)
            if name.startswith(".") or path.suffix not in ENDINGS:
                continue
            if path.resolve().is_relative_to(root) and path.is_file():  # a link may lead elsewhere
                yield path


@lru_cache(maxsize=MAX_FILES)
def _read(folder: str, path: str, _changed_at: int, _size: int) -> Offered | None:
    """Read a file, once for each version of it; None for other YAML than workflows."""
    file, root = str(Path(path).relative_to(folder)), Path(folder)
    try:
        workflow, problems = yaml.read_partly(path)
        found = find_errors(problems, root) or find_errors(_check(workflow), root)
    except WorkflowInvalid as error:
        return Offered(Path(path).stem, file, problems=_say(find_errors(error.problems, root)))
    except FlowqError as error:
        return Offered(Path(path).stem, file, problems=(str(error).replace(path, file),))
    if not workflow.jobs:
        return None
    return Offered(workflow.name, file, workflow.description, workflow.inputs, _say(found))


def _check(workflow: Workflow) -> Sequence[Problem]:
    return find_problems(workflow, imports=False)


def find_errors(problems: Iterable[Problem], folder: Path | None) -> list[Problem]:
    """Return problems without warnings; their files are named as they are in the folder."""
    errors = [each for each in problems if each.severity == "error"]
    return [replace(each, where=_within(each.where, folder)) for each in errors]


def _within(where: Where | None, folder: Path | None) -> Where | None:
    if where is None or folder is None:
        return where
    file = Path(where.file)
    roots = (each for each in (folder, folder.resolve()) if file.is_relative_to(each))
    return next((replace(where, file=str(file.relative_to(each))) for each in roots), where)


def _say(problems: Iterable[Problem]) -> tuple[str, ...]:
    return tuple(map(str, problems))


def offered_document(workflows: Iterable[Offered]) -> dict[str, Any]:
    """Return the workflows that may be submitted, with their typed inputs."""
    return make_document(
        "workflows",
        workflows=[
            {
                "name": each.name,
                "file": each.file,
                "description": each.description or None,
                "inputs": [input_document(declared) for declared in each.inputs],
                "problems": list(each.problems),
            }
            for each in workflows
        ],
    )
