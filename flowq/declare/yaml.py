"""A workflow from YAML text, with the position of everything in it.

`flowq.targets` reads files with it. `yaml_text` turns text into nodes, and `document` reads these.
All problems of a document are reported together. `flowq.checks` checks what needs the graph or an
import, also in the readable parts of a text with problems.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from flowq.declare.document import read_declaration
from flowq.declare.keys import JOB, NESTED, WORKFLOW
from flowq.declare.nested import Files, Shelf
from flowq.declare.nodes import MapNode, Node, Position, ScalarNode, collector_paused, is_empty, say
from flowq.declare.positions import Positions
from flowq.declare.problems import Problems
from flowq.declare.shapes import Vocabulary
from flowq.declare.yaml_text import MAX_BYTES, find_position, read_document, refuse_length
from flowq.errors import Problem, WorkflowInvalid, WorkflowNotFound
from flowq.files import read_file, reason_of
from flowq.nearest import find_nearest
from flowq.problems import NOT_ONE_MAP, NOT_UTF8
from flowq.spec import JobSpec, Places, Workflow
from flowq.texts import show

_TOP = Position(1, 1)
_JOBS = re.compile(r"""^[ {"']{0,8}jobs["']?[ \t]{0,8}:""", re.MULTILINE)
_ONLY_OF_WORKFLOWS = (WORKFLOW.keys.keys() - {"name", "description", "defaults", "env"}) | (
    WORKFLOW.foreign.keys() - JOB.keys.keys()
)
"""Keys that identify a file with problems as a workflow.

Without keys that other files have too, such as `env` or `key`: messages must not quote such files.
"""


def read_workflow(path: str | os.PathLike[str]) -> Workflow:
    """Return the workflow of a file, with those that its jobs name. Its folder is the file's.

    Errors: WorkflowNotFound for a file that cannot be read; WorkflowInvalid with all problems,
    including those of the files that it names.
    """
    workflow, problems = read_partly(path)
    if problems:
        raise WorkflowInvalid(problems)
    return workflow


def read_partly(path: str | os.PathLike[str]) -> tuple[Workflow, list[Problem]]:
    """Return the known part of the workflow of a file, and all problems of its text, in order.

    Shape: if there are problems, the workflow's `unread` has the paths of the unknown parts.
    Errors: WorkflowNotFound; WorkflowInvalid if nothing can be read.
    """
    file = os.fspath(path)
    return _read_file(file, Files((file,), _read_file))


def parse_workflow(text: str, file: str) -> Workflow:
    """Return the workflow of a text that a program has; its problems are those of `file`.

    Errors: WorkflowInvalid with all problems.
    """
    workflow, problems = read_stream(BytesIO(text.encode("utf-8", "surrogatepass")), file)
    if problems:
        raise WorkflowInvalid(problems)
    return workflow


def read_stream(stream: BinaryIO, file: str) -> tuple[Workflow, list[Problem]]:
    """Return the known part of the workflow in a stream. Shape and errors: as `read_partly`.

    `file` is its name in positions; files that its jobs name are looked up in its folder.
    """
    return _read_bytes(stream.read(MAX_BYTES + 1), file, Files((file,), _read_file))


def _read_file(file: str, files: Files) -> tuple[Workflow, list[Problem]]:
    try:
        data = read_file(file, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise WorkflowNotFound(file, reason_of(error)) from None
    return _read_bytes(data, file, files)


def _read_bytes(data: bytes, file: str, files: Files) -> tuple[Workflow, list[Problem]]:
    if len(data) > MAX_BYTES:  # it may be a device that never ends
        refuse_length(Problems(file))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        position = find_position(before, len(before))
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        Problems(file).stop(NOT_UTF8, position, message, "save the file as UTF-8")
    return _parse(text, file, files)


def _parse(text: str, file: str, files: Files) -> tuple[Workflow, list[Problem]]:
    problems = Problems(file, text.removeprefix("\ufeff"))
    with collector_paused():
        document = _require_map(_read_root(problems), problems)
        shelf = Shelf(files, problems, _read_nested)
        workflow = _read_workflow(show(Path(file).stem.strip("<>")), document, shelf, WORKFLOW)
    return workflow, problems.in_order()


def _read_root(problems: Problems) -> Node | None:
    """Return the root of a text. Errors: WorkflowInvalid.

    A text that is no workflow has one problem, whose message does not quote the text.
    """
    try:
        root = read_document(problems.text, problems)
    except WorkflowInvalid:
        if _JOBS.search(problems.text) is None:
            del problems.found[:-1]
            problems.raise_if_any()
        raise
    if isinstance(root, MapNode) and not any(
        key in _ONLY_OF_WORKFLOWS or find_nearest(key, ("jobs",)) for key in root.node_by_key
    ):
        problems.found.clear()
        return MapNode(root.line, root.column)
    return root


def _require_map(root: Node | None, problems: Problems) -> MapNode:
    if isinstance(root, MapNode):
        return root
    if root is None or is_empty(root):
        hint = "it needs at least: jobs: {NAME: {call: package.module:function}}"
        problems.stop(NOT_ONE_MAP, _TOP, "the file contains no workflow", hint)
    what = "text" if isinstance(root, ScalarNode) else say(root)  # any file: it is not quoted
    message = f"a workflow must be a map of keys, not {what}"
    return problems.stop(NOT_ONE_MAP, root, message, "begin with `jobs:`")


def _read_nested(name: str, node: MapNode, shelf: Shelf) -> Workflow:
    return _read_workflow(name, node, shelf, NESTED)


def _read_workflow(name: str, document: MapNode, around: Shelf, kind: Vocabulary) -> Workflow:
    problems, file = around.problems, around.files.chain[-1]

    def find_workflows(jobs: tuple[JobSpec, ...]) -> dict[str, Workflow]:
        return around.open(document.node_by_key.get("workflows")).gather(jobs, document)

    return replace(
        read_declaration(document, kind, name, problems, find_workflows),
        places=Places(Positions(file, document, problems.text)),
        folder=os.path.dirname(os.path.abspath(file)),  # noqa: PTH100, PTH120 - keeps symbolic links
    )
