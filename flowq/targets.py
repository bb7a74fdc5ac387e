"""What a name on the command line stands for: a YAML file, or a workflow in Python code.

Importing code is the one thing here that touches the world; the checks get it passed in.
"""

from __future__ import annotations

import importlib
import json
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flowq.declare import python, yaml
from flowq.declare.nodes import MapNode, read_document
from flowq.declare.problems import Problems
from flowq.declare.shapes import to_data
from flowq.errors import Problem, UsageError, WorkflowInvalid, WorkflowNotFound
from flowq.spec import Workflow

YAML_ENDINGS = (".yaml", ".yml")
INPUT_VARIABLE = "FLOWQ_INPUT_"
"""What stands before the upper-case name of an input in the environment."""


def load(target: str) -> Workflow:
    """Return the workflow that `target` names.

    `file.yaml`, `file.py:name`, `package.module:name`, or `-` for YAML on standard input; without a
    name the only workflow of the module is meant whose name does not begin with `_`. The workflow's
    own folder and the current folder become importable. Errors: WorkflowNotFound; WorkflowInvalid.
    """
    workflow, problems = load_partly(target)
    if problems:
        raise WorkflowInvalid(problems)
    return workflow


def load_partly(target: str) -> tuple[Workflow, list[Problem]]:
    """Return what can be read of the workflow that `target` names, and all problems of its text.

    Shape: a workflow in Python code has none here. Errors: as `load`, when nothing can be read.
    """
    if target == "-":
        return _load_standard_input()
    path_text, colon, name = _split(target)
    if not path_text:
        raise WorkflowNotFound(target, "it names no module; write package.module:workflow")
    path = Path(path_text)
    if path.suffix in YAML_ENDINGS:
        return _load_yaml(target, path)
    if path.suffix == ".py":
        _require_file(target, path)
        make_importable(path.resolve().parent)
        return _find_workflow(target, _import_file(target, path), name), []
    if path.exists() and not colon:
        return _load_yaml(target, path)
    make_importable(Path.cwd())
    return _find_workflow(target, _import(target, path_text), name), []


def read_inputs(file: str | Path) -> dict[str, Any]:
    """Return the inputs in a JSON or YAML file that holds a map by name.

    Errors: UsageError; WorkflowInvalid for broken YAML.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else _read_yaml_map(text, str(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the inputs in {file}: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{file} must hold a map of inputs by name")
    return value


def find_inputs(workflow: Workflow, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs that the environment gives: `FLOWQ_INPUT_SIZE` for `size`.

    Only declared inputs are looked for, so a stray variable is no mistake.
    """
    variables = {each.name: f"{INPUT_VARIABLE}{each.name.upper()}" for each in workflow.inputs}
    return {name: environ[each] for name, each in variables.items() if each in environ}


def _read_yaml_map(text: str, file: str) -> Any:
    problems = Problems(file)
    node = read_document(text, problems)
    problems.raise_if_any()
    return to_data(node) if isinstance(node, MapNode) else None


def make_importable(*folders: Path) -> None:
    """Put folders in front of the import path, once each."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _split(target: str) -> tuple[str, str, str]:
    """Split at the first colon that is not the one of a Windows drive."""
    is_drive = len(target) > 2 and target[1] == ":" and target[2] in "/\\"
    drive, rest = (target[:2], target[2:]) if is_drive else ("", target)
    path, colon, name = rest.partition(":")
    return drive + path, colon, name


def _load_standard_input() -> tuple[Workflow, list[Problem]]:
    loaded = yaml.read_stream(sys.stdin.buffer, "<stdin>")
    make_importable(Path.cwd())
    return loaded


def _load_yaml(target: str, path: Path) -> tuple[Workflow, list[Problem]]:
    _require_file(target, path)
    workflow, problems = yaml.read_partly(path)
    make_importable(*(Path(folder) for folder in _folders(workflow) if folder))
    make_importable(Path.cwd(), path.resolve().parent)
    return workflow, problems


def _folders(workflow: Workflow) -> Iterator[str | None]:
    """Yield the folders of the workflows inside of one, innermost first."""
    for nested in workflow.workflows.values():
        yield from _folders(nested)
        yield nested.folder


def _require_file(target: str, path: Path) -> None:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise WorkflowNotFound(target, "it is a folder; name a file in it")
    except (FileNotFoundError, NotADirectoryError):
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f" (there are: {', '.join(near[:5])})" if near else ""
        raise WorkflowNotFound(target, f"there is no such file{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkflowNotFound(target, reason) from None


def _import_file(target: str, path: Path) -> ModuleType:
    """Import a file under its stem, which is how the workers will import its functions."""
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
            raise WorkflowNotFound(target, f"there is no module {name}{_near(target)}") from None
        raise WorkflowNotFound(target, f"importing {name} failed: {error}") from error
    except Exception as error:
        # The user's own code may raise anything at import; its message is what helps.
        raise WorkflowNotFound(
            target, f"importing {name} failed: {type(error).__name__}: {error}"
        ) from error


def _near(target: str) -> str:
    files = [f"{target}{ending}" for ending in (*YAML_ENDINGS, ".py")]
    return next((f"; did you mean {file}?" for file in files if Path(file).is_file()), "")


def _find_workflow(target: str, module: ModuleType, name: str) -> Workflow:
    declared: dict[str, python.Workflow] = {
        key: value for key, value in vars(module).items() if isinstance(value, python.Workflow)
    }
    if name:
        if name not in declared:
            have = f"; there is {', '.join(declared)}" if declared else ""
            raise WorkflowNotFound(target, f"{module.__name__} has no workflow {name}{have}")
        return declared[name].spec()
    public = {key: flow for key, flow in declared.items() if not key.startswith("_")}
    if len(public) != 1:
        have = ", ".join(public) or "no workflow"
        raise WorkflowNotFound(target, f"{module.__name__} has {have}; write FILE:NAME")
    return next(iter(public.values())).spec()
