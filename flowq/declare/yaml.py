"""A workflow read from YAML text, with the position of everything that was written.

Text → nodes (`nodes`) → values (`shapes`, by the words of `keys`) → `Workflow`. All problems of a
document are reported together; what needs the graph or an import is left to `flowq.checks`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flowq.declare.keys import INSTEAD_OF_CALL, JOB, WORKFLOW
from flowq.declare.nodes import MapNode, Node, ScalarNode, find_position, read_document
from flowq.declare.positions import Positions
from flowq.declare.problems import Problems
from flowq.declare.shapes import is_empty, name_nodes, say
from flowq.declare.syntax import Position
from flowq.declare.yaml_inputs import read_inputs
from flowq.errors import WorkflowNotFound
from flowq.spec import Block, Defaults, JobSpec, Places, Workflow

_JOB_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TOP = Position(1, 1)


def read_workflow(path: str | os.PathLike[str]) -> Workflow:
    """Return the workflow of a file. Its folder is the file's, absolute.

    Errors: WorkflowNotFound for a file that cannot be read; WorkflowInvalid with all problems.
    """
    file = os.fspath(path)
    try:
        data = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkflowNotFound(file, reason) from None
    return parse_workflow(_decode(data, file), file)


def parse_workflow(text: str, file: str) -> Workflow:
    """Return the workflow of a text; `file` says where it comes from.

    The stem of `file` is the name of a workflow that has none. Errors: WorkflowInvalid with all
    problems, in the order of the text.
    """
    problems = Problems(file)
    root = read_document(text.removeprefix("\ufeff"), problems)
    document = _require_map(root, problems)
    workflow = _read_workflow(document, file, problems)
    problems.raise_if_any()
    return workflow


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        position = find_position(before, len(before))
        message = f"the byte 0x{data[error.start]:02x} is no UTF-8"
        return Problems(file).stop("FQ101", position, message, "save the file as UTF-8")


def _require_map(root: Node | None, problems: Problems) -> MapNode:
    if isinstance(root, MapNode):
        return root
    if root is None or is_empty(root):
        hint = "it needs at least: jobs: {NAME: {call: package.module:function}}"
        problems.stop("FQ113", _TOP, "the file holds no workflow", hint)
    message = f"a workflow must be a map of keys, not {say(root)}"
    return problems.stop("FQ113", root, message, "begin with `jobs:`")


def _read_workflow(document: MapNode, file: str, problems: Problems) -> Workflow:
    words = WORKFLOW.read("the workflow", document, problems) or {}
    inputs = tuple(read_inputs(words["inputs"], problems)) if "inputs" in words else ()
    return Workflow(
        name=words.get("name", Path(file).stem),
        jobs=tuple(_read_jobs(document, problems)),
        inputs=inputs,
        description=words.get("description", ""),
        defaults=_as_defaults(words.get("defaults", {})),
        places=Places(Positions(file, document)),
        folder=os.path.dirname(os.path.abspath(file)),  # noqa: PTH100, PTH120 - keeps symbolic links
    )


def _as_defaults(words: dict[str, Any]) -> Defaults:
    return Defaults(
        queue=words.get("queue", "default"),
        timeout_s=words.get("timeout"),
        retries=words.get("retries"),
    )


def _read_jobs(document: MapNode, problems: Problems) -> Iterator[JobSpec]:
    node = document.node_by_key.get("jobs")
    hint = "write jobs: {NAME: {call: package.module:function}}"
    if node is None:
        problems.add("FQ106", document, "the workflow has no `jobs`", hint)
    elif is_empty(node) or (isinstance(node, MapNode) and not node.node_by_key):
        problems.add("FQ106", node, "`jobs` is empty", hint)
    elif not isinstance(node, MapNode):
        problems.add("FQ105", node, f"jobs must be a map of names, not {say(node)}", hint)
    else:
        _check_indentation(node, problems)
        yield from _read_each_job(node, problems)


def _read_each_job(jobs: MapNode, problems: Problems) -> Iterator[JobSpec]:
    for name, node in jobs.node_by_key.items():
        key = jobs.key_by_key[name]
        _check_name(key, problems)
        if is_empty(node):
            _note_missing_call(key, problems)
        elif isinstance(node, MapNode):
            words = JOB.read(f"job {name}", node, problems)
            _check_call(key, node, problems)
            _check_direction(name, node, jobs, problems)
            yield _as_job(name, words or {})
        elif not _is_stray_key(name, node):
            hint = f"write {name}: {{call: package.module:function}}"
            problems.add("FQ105", node, f"job {name} must be a map, not {say(node)}", hint)


def _is_stray_key(name: str, node: Node) -> bool:
    return name in JOB.reader_by_key and not isinstance(node, MapNode)


def _check_indentation(jobs: MapNode, problems: Problems) -> None:
    """Note the keys of a job that stand where the jobs' names do."""
    for name, node in jobs.node_by_key.items():
        if _is_stray_key(name, node) and not is_empty(node):
            hint = "if it belongs to the job above it, indent it further"
            message = f"job {name} must be a map, not {say(node)}"
            problems.add("FQ105", jobs.key_by_key[name], message, hint)


def _check_name(key: ScalarNode, problems: Problems) -> None:
    name = key.text
    if _JOB_NAME.fullmatch(name) and "--" not in name:
        return
    hint = "letters, digits, _ and single - only, no digit first: it becomes part of the job's id"
    problems.add("FQ109", key, f"{name!r} cannot be the name of a job", hint)


def _check_call(key: ScalarNode, node: MapNode, problems: Problems) -> None:
    if "call" not in node.node_by_key and not INSTEAD_OF_CALL & node.node_by_key.keys():
        _note_missing_call(key, problems)


def _note_missing_call(key: ScalarNode, problems: Problems) -> None:
    hint = "say which function it calls: call: package.module:function"
    problems.add("FQ106", key, f"job {key.text} has no `call`", hint)


def _check_direction(name: str, job: MapNode, jobs: MapNode, problems: Problems) -> None:
    """Note each target of `blocked_by` that is there and is no future job."""
    for target, place in name_nodes(job.node_by_key.get("blocked_by")):
        other = jobs.node_by_key.get(target)
        if other is None or _is_deferred(other):
            continue
        message = f"job {name} is blocked_by {target}, which does not say `deferred: true`"
        hint = (
            f"`blocked_by: {target}` means that {name} runs before {target}. If so, add "
            f"`deferred: true` to {target}; if {target} runs first, write `needs: {target}` here"
        )
        problems.add("FQ115", place, message, hint)


def _is_deferred(job: Node) -> bool:
    said = job.node_by_key.get("deferred") if isinstance(job, MapNode) else None
    return isinstance(said, ScalarNode) and said.value is not False


def _as_job(name: str, words: dict[str, Any]) -> JobSpec:
    return JobSpec(
        name=name,
        call=words.get("call", ""),
        with_=words.get("with", {}),
        needs=words.get("needs", ()),
        blocks=_merge([*words.get("blocks", ()), *words.get("blocked_by", ())]),
        deferred=words.get("deferred", False),
        queue=words.get("queue"),
        timeout_s=words.get("timeout"),
        retries=words.get("retries"),
        description=words.get("description", ""),
        on_blocker_failure=words.get("on_blocker_failure"),
    )


def _merge(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return each future job once, with the policy that one of the places says."""
    block_by_name: dict[str, Block] = {}
    for block in blocks:
        if block.name not in block_by_name or block.on_failure is not None:
            block_by_name[block.name] = block
    return tuple(block_by_name.values())
