"""Which parts of a text with problems do not tell all that was meant.

Whoever looks for further problems must not complain of what is missing there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from itertools import chain

from flowq.declare.nested import is_file
from flowq.declare.nodes import MapNode, ScalarNode
from flowq.declare.problems import Problems
from flowq.spec import Path

_MISSED = ("inputs", "outputs", "workflows")
"""Keys of a workflow of which somebody would say that there is nothing in them."""


def find_unread(
    document: MapNode, known: Collection[str], workflows: Collection[str], problems: Problems
) -> frozenset[Path]:
    """Return the parts of one workflow's document that are known in part, or not at all.

    `known` are its keys, and `workflows` those that were read for its jobs. Shape: jobs and inputs
    with a problem in their text, as ("jobs", name); workflows, as ("workflows", name); and other
    keys of the workflow, as (key,).
    """
    parts = (
        _unread_entries(document, problems),
        _unread_workflows(document, workflows),
        _unread_keys(document, known),
    )
    return frozenset(chain.from_iterable(parts))


def _unread_entries(document: MapNode, problems: Problems) -> Iterator[Path]:
    path_by_start: dict[tuple[int, int], Path] = {}
    for section, key in document.key_by_key.items():
        path_by_start[key.line, key.column] = (section,)
        entries = document.node_by_key[section]
        if section in ("inputs", "jobs") and isinstance(entries, MapNode):
            for name, at in entries.key_by_key.items():
                path_by_start[at.line, at.column] = (section, name)
    starts = sorted(path_by_start)
    for problem in problems.found:
        where = problem.where
        if where is not None and where.file == problems.file:
            before = bisect_right(starts, (where.line, where.column))
            if before:
                yield path_by_start[starts[before - 1]]


def _unread_workflows(document: MapNode, found: Collection[str]) -> Iterator[Path]:
    """Yield those that jobs name and that are somewhere, but could not be read."""
    declared, jobs = document.node_by_key.get("workflows"), document.node_by_key.get("jobs")
    names = declared.node_by_key if isinstance(declared, MapNode) else {}
    for job in jobs.node_by_key.values() if isinstance(jobs, MapNode) else ():
        said = job.node_by_key.get("workflow") if isinstance(job, MapNode) else None
        name = said.text if isinstance(said, ScalarNode) else ""
        if name not in found and (is_file(name) or name in names):
            yield ("workflows", name)


def _unread_keys(document: MapNode, known: Collection[str]) -> Iterator[Path]:
    keys = document.node_by_key
    if any(key not in known for key in keys):
        yield from ((key,) for key in _MISSED if key not in keys)
    if "jobs" not in keys:
        yield ("jobs",)
