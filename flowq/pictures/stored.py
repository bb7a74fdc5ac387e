"""What a run keeps of its workflow: the picture, and the workflow itself, both as plain data.

`flowq.compiling` makes it when the run is planned, and the run's record in Redis keeps it, so that
a run can be drawn without the files of its workflow. Reading it unpickles nothing. It contains what
the author wrote: expressions such as `secrets.NAME`, but neither their values nor those of inputs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowq.graph import Graph
from flowq.pictures.picture import Picture, draw, from_document, to_document
from flowq.plan import Source
from flowq.runtime.wire import from_wire, to_wire
from flowq.spec import JobSpec, Places, Workflow
from flowq.texts import show

MAX_BYTES = 1_000_000
"""Of one document, compressed. A picture of 10,000 declared jobs has about a tenth of this."""


def make_source(graph: Graph) -> Source:
    """Return what a run of a checked graph keeps; documents above `MAX_BYTES` are left out."""
    workflow = _write(to_wire(_bare(graph.workflow, {})))
    where = graph.workflow.places.find()
    has_file = where is not None and not where.file.startswith("<")  # as in <stdin>
    file = os.path.abspath(where.file) if where and has_file else ""  # noqa: PTH100 - keeps links
    return Source(
        picture=_pack(_write(to_document(draw(graph)))),
        workflow=_pack(workflow),
        file=show(file),
        digest=hashlib.sha256(workflow).hexdigest(),
    )


def read_picture(source: Source) -> Picture | None:
    """Return the picture; None for a run without one, or with one that this version cannot read."""
    try:
        return from_document(_unpack(source.picture)) if source.picture else None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None
    except zlib.error:
        return None


def read_workflow(source: Source) -> Workflow | None:
    """Return the workflow as it was declared, or None. Errors: NewerFormat.

    It has no positions; the folders of its files are in the record of the run.
    """
    return from_wire(Workflow, _unpack(source.workflow)) if source.workflow else None


def find_changes(source: Source, workflow: Workflow) -> tuple[str, ...] | None:
    """Return the names of jobs that a workflow declares otherwise than the one that a run keeps.

    Shape: as declared, then those that it no longer has; empty if only other parts differ, or if it
    is not known which; None for the same declarations.
    Errors: NewerFormat.
    """
    written = _write(to_wire(_bare(workflow, {})))
    if not source.digest or hashlib.sha256(written).hexdigest() == source.digest:
        return None
    before = read_workflow(source)
    if before is None:
        return ()
    now = from_wire(Workflow, json.loads(written))
    if now == before:  # another version of flowq wrote it
        return None
    old, new = ({job.name: job for job in each} for each in (before, now))
    return tuple(
        name
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name) or _inside(before, old[name]) != _inside(now, new[name])
    )


def _inside(workflow: Workflow, job: JobSpec) -> Workflow | None:
    return workflow.workflows.get(job.workflow)


def _bare(workflow: Workflow, done: dict[int, Workflow]) -> Workflow:
    """Return the workflow without its folder and positions, which the digest must not depend on.

    `done` has the results by the identity of their originals: several may contain the same one.
    """
    if id(workflow) not in done:
        inside = {name: _bare(each, done) for name, each in workflow.workflows.items()}
        done[id(workflow)] = replace(workflow, places=Places(), folder=None, workflows=inside)
    return done[id(workflow)]


def _write(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=repr).encode()


def _pack(text: bytes) -> str:
    """Return a text compressed, as ASCII: older versions read all fields of a record as UTF-8."""
    packed = zlib.compress(text)
    return base64.b64encode(packed).decode() if len(packed) <= MAX_BYTES else ""


def _unpack(packed: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(packed)))
