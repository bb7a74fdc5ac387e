"""Targets on the command line: YAML files, and workflows in Python code.

Only this module imports the code of workflows.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flowq.declare import python, yaml
from flowq.declare.nodes import MapNode
from flowq.declare.problems import Problems
from flowq.declare.shapes import to_data
from flowq.declare.yaml_text import read_document
from flowq.errors import NewerFormat, Problem, UsageError, WorkflowInvalid, WorkflowNotFound
from flowq.files import FOLDER, PIPE, read_file, reason_of, require_file
from flowq.nearest import find_nearest
from flowq.pictures import stored
from flowq.plan import Source
from flowq.spec import Workflow

YAML_ENDINGS = (".yaml", ".yml")
MAX_INPUTS_BYTES = 50_000_000
"""The limit of a file with inputs."""

_HINT_BY_REASON = {
    FOLDER: "; name a file in it",
    PIPE: "; - reads one from standard input",
}
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,200}")
INPUT_VARIABLE = "FLOWQ_INPUT_"
"""The prefix of variables with inputs, followed by the input's name in upper case."""


def load(target: str) -> Workflow:
    """Return the workflow that `target` names.

    `file.yaml`, `file.py:name`, `package.module:name`, or `-` for YAML on standard input. Without
    a name, the module must have exactly one workflow whose name does not begin with `_`. The
    workflow's folder and the current folder become importable. Errors: WorkflowNotFound;
    WorkflowInvalid.
    """
    workflow, problems = load_partly(target)
    if problems:
        raise WorkflowInvalid(problems)
    return workflow


def load_partly(target: str) -> tuple[Workflow, list[Problem]]:
    """Return the known part of the workflow that `target` names, and all problems of its text.

    Errors: as `load`, if nothing can be read.
    """
    if target == "-":
        loaded = yaml.read_stream(sys.stdin.buffer, "<stdin>")
        make_importable(Path.cwd())
        return loaded
    path_text, colon, name = _split(target)
    if not path_text:
        raise WorkflowNotFound(target, "it names no module; write package.module:workflow")
    path = Path(path_text)
    if path.suffix in YAML_ENDINGS:
        return _load_yaml(target, path)
    if path.suffix == ".py":
        _require_file(target, path)
        make_importable(path.resolve().parent)
        return _find_workflow(target, _import_file(target, path), name)
    if path.exists() and not colon:
        return _load_yaml(target, path)
    if not _MODULE.fullmatch(path_text):
        hint = "write FILE.yaml, FILE.py:NAME or package.module:NAME"
        raise WorkflowNotFound(target, f"there is no module {path_text}; {hint}")
    make_importable(Path.cwd())
    return _find_workflow(target, _import(target, path_text), name)


def find_changes(source: Source) -> tuple[str, ...] | None:
    """Return the names of jobs that the file of a run declares otherwise now.

    Shape: empty if it has changed, but not in jobs, or cannot be read; None if it has not changed,
    or if that is unknown: where there is no such file, as on another machine, and for a workflow in
    Python, as only its code knows it. The server says the path, so nothing is made importable.
    """
    if not source.file.endswith(YAML_ENDINGS) or not Path(source.file).is_file():
        return None
    try:
        workflow, problems = yaml.read_partly(source.file)
        return () if problems else stored.find_changes(source, workflow)
    except (WorkflowNotFound, NewerFormat):
        return None
    except WorkflowInvalid:
        return ()


def read_inputs(file: str | Path) -> dict[str, Any]:
    """Return the inputs in a JSON or YAML file that holds a map by name.

    Errors: UsageError; WorkflowInvalid for broken YAML.
    """
    path = Path(file)
    try:
        data = read_file(path, MAX_INPUTS_BYTES + 1)
        if len(data) > MAX_INPUTS_BYTES:
            raise ValueError(f"it has more than {MAX_INPUTS_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        value = _read_json(text) if path.suffix == ".json" else _read_yaml_map(text, str(file))
    except UnicodeDecodeError:
        raise UsageError(f"cannot read the inputs in {file}: it is not UTF-8") from None
    except RecursionError:
        raise UsageError(f"cannot read the inputs in {file}: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the inputs in {file}: {reason_of(error)}") from None
    if not isinstance(value, dict) or not all(map(_INPUT.fullmatch, value)):
        raise UsageError(f"{file} must hold a map of inputs by name")  # it may be any other file
    return value


def find_inputs(workflow: Workflow, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs in the environment: `FLOWQ_INPUT_SIZE` for `size`.

    Ignores variables of undeclared inputs.
    """
    variables = {each.name: f"{INPUT_VARIABLE}{each.name.upper()}" for each in workflow.inputs}
    return {name: environ[each] for name, each in variables.items() if each in environ}


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python converts no number of more digits
        raise ValueError("a number in it has more than 4,300 digits") from None


def _read_yaml_map(text: str, file: str) -> Any:
    """Return the map in a text; messages about any other text do not quote it."""
    problems = Problems(file)
    try:
        node = read_document(text, problems)
    except WorkflowInvalid:
        del problems.found[:-1]
        problems.raise_if_any()
        raise
    if not isinstance(node, MapNode) or not all(map(_INPUT.fullmatch, node.node_by_key)):
        return None
    problems.raise_if_any()
    return to_data(node)


def make_importable(*folders: Path) -> None:
    """Prepend folders to the import path, once each."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _split(target: str) -> tuple[str, str, str]:
    """Split at the first colon that is not part of a Windows drive."""
    is_drive = len(target) > 2 and target[1] == ":" and target[2] in "/\\"
    drive, rest = (target[:2], target[2:]) if is_drive else ("", target)
    path, colon, name = rest.partition(":")
    return drive + path, colon, name


def _load_yaml(target: str, path: Path) -> tuple[Workflow, list[Problem]]:
    _require_file(target, path)
    workflow, problems = yaml.read_partly(path)
    make_importable(*(Path(folder) for folder in _folders(workflow) if folder))
    make_importable(Path.cwd(), path.resolve().parent)
    return workflow, problems


def _folders(workflow: Workflow) -> Iterator[str | None]:
    """Yield the folders of nested workflows, innermost first."""
    for nested in workflow.workflows.values():
        yield from _folders(nested)
        yield nested.folder


def _require_file(target: str, path: Path) -> None:
    try:
        require_file(path)
    except (FileNotFoundError, NotADirectoryError):
        endings = (".py",) if path.suffix == ".py" else YAML_ENDINGS
        beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        near = [each.name for each in beside if each.suffix in endings]
        nearest = find_nearest(path.name, near)
        hint = f" (there are: {', '.join(near[:5])})" if near else ""
        hint = f"; did you mean {path.parent / nearest}?" if nearest else hint
        raise WorkflowNotFound(target, f"there is no such file{hint}") from None
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        hint = _HINT_BY_REASON.get(reason, "")
        raise WorkflowNotFound(target, f"{reason}{hint}") from None


def _import_file(target: str, path: Path) -> ModuleType:
    """Import a file under its stem, as the workers import its functions."""
    make_importable(Path.cwd(), path.resolve().parent)
    module = _import(target, path.stem)
    loaded_from = getattr(module, "__file__", None)
    if loaded_from is None or Path(loaded_from).resolve() != path.resolve():
        taken_by = loaded_from or "a built-in module"
        reason = f"the name {path.stem} already means {taken_by}; rename the file"
        raise WorkflowNotFound(target, reason)
    return module


def _import(target: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except WorkflowInvalid:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            files = [f"{target}{ending}" for ending in (*YAML_ENDINGS, ".py")]
            near = [f"; did you mean {file}?" for file in files if Path(file).is_file()]
            reason = f"there is no module {name}{''.join(near[:1])}"
            raise WorkflowNotFound(target, reason) from None
        raise WorkflowNotFound(target, f"importing {name} failed: {error}") from error
    except Exception as error:
        # The user's code may raise anything at import.
        raise WorkflowNotFound(
            target, f"importing {name} failed: {type(error).__name__}: {error}"
        ) from error


def _find_workflow(target: str, module: ModuleType, name: str) -> tuple[Workflow, list[Problem]]:
    declared: dict[str, python.Workflow] = {
        key: value for key, value in vars(module).items() if isinstance(value, python.Workflow)
    }
    if name:
        if name not in declared:
            have = f"; there is {', '.join(declared)}" if declared else ""
            raise WorkflowNotFound(target, f"{module.__name__} has no workflow {name}{have}")
        return declared[name].spec_partly()
    public = {key: flow for key, flow in declared.items() if not key.startswith("_")}
    if len(public) != 1:
        have = ", ".join(public) or "no workflow"
        raise WorkflowNotFound(target, f"{module.__name__} has {have}; write FILE:NAME")
    return next(iter(public.values())).spec_partly()
