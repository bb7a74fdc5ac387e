"""The `jobs` of a YAML workflow: from the words of each to its declaration."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from flowq.declare.input_shapes import INPUT
from flowq.declare.job_shapes import build_matrix, check_name, name_nodes
from flowq.declare.keys import INSTEAD_OF_CALL, JOB
from flowq.declare.nested import find_jobs, is_file
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.options import is_free, merge_blocks
from flowq.declare.problems import Problems
from flowq.declare.shapes import Vocabulary, find_meant, is_empty, say
from flowq.inputs import TEXT_TYPES
from flowq.spec import ForEach, JobSpec, Path, Shell, Workflow

_DOES = frozenset({"call", "run", "workflow"})
NEEDED_BY_KEY: Mapping[str, tuple[str, ...]] = {
    "key": ("for_each",),
    "more": ("for_each",),
    "max_items": ("for_each",),
    "stop_when": ("for_each", "matrix", "include"),
    "exclude": ("matrix",),
    "shell": ("run",),
    "result": ("run",),
}
_HINT_WRITE_JOBS = "write jobs: {NAME: {call: package.module:function}}"


def read_jobs(document: MapNode, problems: Problems) -> Iterator[JobSpec]:
    """Yield the jobs of a workflow, as far as they can be read: of some, that is their name."""
    yield from _read_main_jobs(document, problems)
    node = document.node_by_key.get("finally")
    if node is None or is_empty(node):
        return
    if isinstance(node, MapNode):
        _check_indentation(node, problems)
        for job in _read_each_job(node, problems):
            yield replace(job, is_final=True)
    else:
        hint = "write finally: {NAME: {call: package.module:function}}"
        problems.add("FQ105", node, f"finally must be a map of names, not {say(node)}", hint)


def _read_main_jobs(document: MapNode, problems: Problems) -> Iterator[JobSpec]:
    node = document.node_by_key.get("jobs")
    if node is None:
        problems.add("FQ106", document, "the workflow has no `jobs`", _HINT_WRITE_JOBS)
    elif is_empty(node) or (isinstance(node, MapNode) and not node.node_by_key):
        problems.add("FQ106", node, "`jobs` is empty", _HINT_WRITE_JOBS)
    elif not isinstance(node, MapNode):
        message = f"jobs must be a map of names, not {say(node)}"
        problems.add("FQ105", node, message, _HINT_WRITE_JOBS)
    else:
        _check_indentation(node, problems)
        yield from _read_each_job(node, problems)


def _read_each_job(jobs: MapNode, problems: Problems) -> Iterator[JobSpec]:
    for name, node in jobs.node_by_key.items():
        key = jobs.key_by_key[name]
        check_name(key, problems)
        if is_empty(node):
            _note_missing_call(key, problems)
            yield JobSpec(name)
        elif isinstance(node, MapNode):
            words = JOB.read(f"job {name}", node, problems)
            _check_keys(key, node, problems)
            _check_direction(name, node, jobs, problems)
            yield _as_job(name, words or {}, node)
        elif not _is_stray_key(name, node):
            hint = f"write {name}: {{call: package.module:function}}"
            problems.add("FQ105", node, f"job {name} must be a map, not {say(node)}", hint)
            yield JobSpec(name)


def keep_texts(
    jobs: Iterable[JobSpec], workflows: Mapping[str, Workflow], document: MapNode
) -> Iterator[JobSpec]:
    """Yield the jobs with the text that was written for each input of a workflow that is a text.

    `3.10` is a number, and where a text is wanted it is those four characters.
    """
    nodes = document.node_by_key.get("jobs")
    for job in jobs:
        nested = workflows.get(job.workflow)
        node = nodes.node_by_key.get(job.name) if nested and isinstance(nodes, MapNode) else None
        given = node.node_by_key.get("with") if isinstance(node, MapNode) else None
        if nested is None or not isinstance(given, MapNode):
            yield job
            continue
        wanted = {each.name for each in nested.inputs if each.type in TEXT_TYPES}
        texts = {
            name: inner.text
            for name, inner in given.node_by_key.items()
            if name in wanted and isinstance(inner, ScalarNode) and _is_number_or_flag(inner)
        }
        yield replace(job, with_={**job.with_, **texts}) if texts else job


def _is_number_or_flag(node: ScalarNode) -> bool:
    return isinstance(node.value, bool | int | float)


def _is_stray_key(name: str, node: Node) -> bool:
    return name in JOB.keys and not isinstance(node, MapNode)


def _check_indentation(jobs: MapNode, problems: Problems) -> None:
    """Note the keys of a job that stand where the jobs' names do."""
    for name, node in jobs.node_by_key.items():
        if _is_stray_key(name, node) and not is_empty(node):
            hint = "if it belongs to the job above it, indent it further"
            message = f"job {name} must be a map, not {say(node)}"
            problems.add("FQ105", jobs.key_by_key[name], message, hint)


def _check_keys(key: ScalarNode, node: MapNode, problems: Problems) -> None:
    """Note what is missing: what the job does, and the key that another one belongs to."""
    words = node.node_by_key.keys()
    there = words | find_meant(node, JOB)
    if _DOES.isdisjoint(there) and INSTEAD_OF_CALL.isdisjoint(there):
        _note_missing_call(key, problems)
    for word in words & NEEDED_BY_KEY.keys():
        needed = NEEDED_BY_KEY[word]
        if not any(other in there for other in needed):
            message = f"`{word}` of job {key.text} stands without `{needed[0]}`"
            hint = f"it belongs to a job with `{'` or `'.join(needed)}`"
            problems.add("FQ118", node.key_by_key[word], message, hint)


def _note_missing_call(key: ScalarNode, problems: Problems) -> None:
    hint = "say what it does: `call: package.module:function`, `run: command` or `workflow: file`"
    problems.add("FQ106", key, f"job {key.text} has no `call`", hint)


def _check_direction(name: str, job: MapNode, jobs: MapNode, problems: Problems) -> None:
    """Note each target of `blocked_by` that is there and is no future job."""
    for target, place in name_nodes(job.node_by_key.get("blocked_by")):
        other = jobs.node_by_key.get(target)
        if (
            not isinstance(other, MapNode)
            or _is_deferred(other)
            or "deferred" in find_meant(other, JOB)
        ):
            continue
        message = f"job {name} is blocked_by {target}, which does not say `deferred: true`"
        hint = (
            f"`blocked_by: {target}` means that {name} runs before {target}. If so, write "
            f"`blocks: {target}`; if {target} runs first, write `needs: {target}`"
        )
        problems.add("FQ115", place, message, hint)


def _is_deferred(job: MapNode) -> bool:
    said = job.node_by_key.get("deferred")
    return isinstance(said, ScalarNode) and said.value is not False


def _as_job(name: str, words: dict[str, Any], node: MapNode) -> JobSpec:
    said = {_FIELD_BY_WORD[word]: words[word] for word in words if word in _FIELD_BY_WORD}
    if "blocked_by" in words:
        said["blocks"] = merge_blocks([*words.get("blocks", ()), *words["blocked_by"]])
    if "run" in words:
        said["run"] = _as_shell(words)
    there = node.node_by_key  # a list that could not be read makes a group too
    if "for_each" in there:
        said["for_each"] = _as_for_each(words.get("for_each", []), words)
    if "matrix" in there or "include" in there:
        stop_when = words.get("stop_when") if "for_each" not in words else None
        said["matrix"] = build_matrix(node, stop_when)
    return JobSpec(name, **said)


_FIELD_BY_WORD = {
    "call": "call",
    "with": "with_",
    "needs": "needs",
    "blocks": "blocks",
    "deferred": "deferred",
    "queue": "queue",
    "timeout": "timeout_s",
    "retries": "retries",
    "description": "description",
    "on_blocker_failure": "on_blocker_failure",
    "workflow": "workflow",
    "env": "env",
    "cwd": "cwd",
    "if": "if_",
    "max_parallel": "max_parallel",
    "fail_fast": "fail_fast",
    "continue_on_error": "continue_on_error",
    "approval": "approval",
    "if_empty": "if_empty",
    "on_crash": "on_crash",
    "expires": "expires_s",
    "at_front": "at_front",
    "secret_results": "secret_results",
}


def _as_shell(words: dict[str, Any]) -> Shell:
    return Shell(words["run"], words.get("shell"), words.get("result"))


def _as_for_each(items: Any, words: dict[str, Any]) -> ForEach:
    keys = ("key", "more", "max_items", "stop_when")
    return ForEach(items, *map(words.get, keys))


# Which parts of a text with problems do not tell all that was meant.


_WORK = ("call", "run", "workflow")
_UNKNOWN_KEY = frozenset({"FQ103", "FQ108"})
_OF_GAPS = frozenset({"FQ105", "FQ112"})
"""Codes of a map of which a key could not be read."""


def find_unread(
    document: MapNode, kind: Vocabulary, workflows: Collection[str], problems: Problems
) -> frozenset[Path]:
    """Return the parts of one workflow's document that are known in part, or not at all.

    `workflows` are those that were read for its jobs. Shape: each value with a problem, by its
    path; keys that are not there but may be meant by one that is unknown; ("jobs", name, "name")
    for a name that cannot be one; ("workflows", name). What stands under `finally` has its path
    under `jobs`.
    """
    walk = _Walk(kind, problems)
    parts = (
        walk.visit((), document),
        _unread_workflows(document, workflows),
        [("jobs",)] if "jobs" not in document.node_by_key else [],
    )
    found = chain.from_iterable(parts)
    return frozenset(("jobs", *path[1:]) if path[:1] == ("finally",) else path for path in found)


class _Walk:
    """A walk through one document, past all that has a problem."""

    def __init__(self, kind: Vocabulary, problems: Problems) -> None:
        self.kind = kind
        self.codes_by_node: dict[int, set[str]] = {}
        for code, node in problems.noted:
            self.codes_by_node.setdefault(id(node), set()).add(code)

    def visit(self, path: Path, node: Node) -> Iterator[Path]:
        if isinstance(node, ListNode):
            for index, item in enumerate(node.items):
                yield from self.of_value((*path, index), item)
        elif isinstance(node, MapNode):
            if not _OF_GAPS.isdisjoint(self.codes_by_node.get(id(node), ())):
                yield from self.of_gaps(path, node)
            for name, inner in node.node_by_key.items():
                for code in self.codes_by_node.get(id(node.key_by_key[name]), ()):
                    yield from self.of_key(path, name, node, code)
                yield from self.of_value((*path, name), inner)

    def of_value(self, path: Path, node: Node) -> Iterator[Path]:
        is_entry = isinstance(node, MapNode) and self.vocabulary_at(path) is not None
        if id(node) in self.codes_by_node and not is_entry:
            yield path
        yield from self.visit(path, node)

    def of_key(self, path: Path, name: str, node: MapNode, code: str) -> Iterator[Path]:
        """Yield what is not known because of a problem that stands at a key."""
        if code in _UNKNOWN_KEY and node.key_by_key[name].text != name:
            return  # it was read as the key that it means
        if code == "FQ118":
            yield from ((*path, each) for each in NEEDED_BY_KEY.get(name, ()))
        elif code in _UNKNOWN_KEY:
            yield from self.of_gaps(path, node)
        elif path in _JOBS and code == "FQ106":
            yield from ((*path, name, each) for each in _WORK)
        elif code == "FQ104":  # which of the two is meant is not known
            yield (*path, name)
        elif path in (*_JOBS, ("inputs",)):
            yield (*path, name, "name") if code == "FQ109" else (*path, name)
        else:
            yield path

    def of_gaps(self, path: Path, node: MapNode) -> Iterator[Path]:
        """Yield what may be missing from a map with keys that could not be read."""
        kind = self.vocabulary_at(path)
        if kind is None:
            yield path
            return
        unknown = [key for key in node.node_by_key if key not in kind.keys and not is_free(key)]
        if not unknown:
            yield from ((*path, key) for key in kind.keys.keys() - node.node_by_key)
        yield from ((*path, key) for key in find_meant(node, kind))
        for word in unknown:
            advice = kind.foreign.get(word, "")
            yield from ((*path, key) for key in kind.keys if re.search(rf"\b{key}\b", advice))

    def vocabulary_at(self, path: Path) -> Vocabulary | None:
        if len(path) == 2 and path[0] in _ENTRIES:
            return _ENTRIES[str(path[0])]
        return None if path else self.kind


_JOBS = (("jobs",), ("finally",))
_ENTRIES: Mapping[str, Vocabulary] = {"jobs": JOB, "finally": JOB, "inputs": INPUT}


def _unread_workflows(document: MapNode, found: Collection[str]) -> Iterator[Path]:
    """Yield those that jobs name and that are somewhere, but could not be read."""
    declared = document.node_by_key.get("workflows")
    names = declared.node_by_key if isinstance(declared, MapNode) else {}
    for job in find_jobs(document):
        said = job.node_by_key.get("workflow") if isinstance(job, MapNode) else None
        name = said.text if isinstance(said, ScalarNode) else ""
        if name not in found and (is_file(name) or name in names):
            yield ("workflows", name)
