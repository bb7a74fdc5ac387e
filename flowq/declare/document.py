"""The reader of the language: from the nodes of a document to the workflow that it declares.

`yaml` calls it with the nodes of a text, `python` with the nodes of a program's values, so both
forms are read alike. The table in `keys` has the shapes of single values. This module handles what
involves several of them: keys that need each other, the direction of edges, and which parts of a
document with problems are unknown. It notes all problems, raises none, and returns what could be
read. Both exports write with the same table. Nothing here evaluates expressions or builds a graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from flowq.declare.input_shapes import INPUT, read_inputs, write_input
from flowq.declare.job_shapes import check_name, name_nodes
from flowq.declare.keys import (
    INSTEAD_OF_CALL,
    JOB,
    WORKFLOW,
    take_settings,
    to_defaults,
    write_defaults,
    write_settings,
)
from flowq.declare.matrices import build_matrix
from flowq.declare.nested import find_jobs, is_file
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import Vocabulary, find_meant, is_free
from flowq.inputs import TEXT_TYPES
from flowq.problems import (
    BAD_ALIAS,
    BAD_NAME,
    BLOCKED_BY_NOT_DEFERRED,
    FOREIGN_WORD,
    KEY_OUT_OF_PLACE,
    KEY_TWICE,
    MISSING_KEY,
    UNKNOWN_KEY,
    WRONG_SHAPE,
)
from flowq.spec import Block, ForEach, JobSpec, Path, Shell, Workflow

_DOES = frozenset({"call", "run", "workflow", "sleep"})


def read_declaration(
    document: MapNode,
    kind: Vocabulary,
    name: str,
    problems: Problems,
    find_workflows: Callable[[tuple[JobSpec, ...]], dict[str, Workflow]],
) -> Workflow:
    """Return the workflow of a document, as far as it can be read, and note what is wrong.

    `name` is the default name; `find_workflows` returns the workflows that the jobs name.
    Shape: the caller adds places and folder. If there are problems, `unread` has the paths of the
    parts that are unknown.
    """
    words = kind.read("the workflow", document, problems) or {}
    said = {
        kind.keys[word].attribute: value
        for word, value in words.items()
        if kind.keys[word].attribute
    }
    if schedules := said.pop("schedules", ()):
        said |= {"schedule": schedules[0], "more_schedules": schedules[1:]}
    inputs = tuple(read_inputs(words["inputs"], problems)) if "inputs" in words else ()
    jobs = tuple(read_jobs(document, problems))
    workflows = find_workflows(jobs)
    return Workflow(
        name=words.get("name", name),
        jobs=tuple(keep_texts(jobs, workflows, document)),
        inputs=inputs,
        defaults=to_defaults(words.get("defaults", {})),
        workflows=workflows,
        unread=(
            find_unread(document, kind, workflows, problems) if problems.found else frozenset()
        ),
        **said,
    )


def write_declaration(workflow: Workflow) -> dict[str, Any]:
    """Return a workflow as keys of the language, without its name and without defaults."""
    inline = {n: w for n, w in workflow.workflows.items() if not is_file(n)}
    parts = {
        **WORKFLOW.write(workflow),
        "inputs": Section({each.name: write_input(each) for each in workflow.inputs}),
        "defaults": write_defaults(workflow.defaults),
        "workflows": Section({n: Section(write_declaration(w)) for n, w in inline.items()}),
        "jobs": Section({j.name: Section(write_job(j)) for j in workflow if not j.is_final}),
        "finally": Section({j.name: Section(write_job(j)) for j in workflow if j.is_final}),
    }
    return {word: parts[word] for word in WORKFLOW.keys if parts.get(word)}


def write_job(job: JobSpec) -> dict[str, Any]:
    """Return a job as keys of the language, without defaults."""
    said = write_settings(JOB.write(job), job.settings)
    if job.matrix is not None and not job.matrix.include:
        said.setdefault("matrix", {})
    return said


class Section(dict[str, Any]):
    """A map of a document that is written as a block, with a blank line between entries."""


def read_jobs(document: MapNode, problems: Problems) -> Iterator[JobSpec]:
    """Yield the jobs of a workflow, as far as they can be read; of some, only the name is known."""
    hint = "write jobs: {NAME: {call: package.module:function}}"
    node = document.node_by_key.get("jobs")
    if node is None:
        problems.add(MISSING_KEY, document, "the workflow has no `jobs`", hint)
    elif is_empty(node) or (isinstance(node, MapNode) and not node.node_by_key):
        problems.add(MISSING_KEY, node, "`jobs` is empty", hint)
    elif isinstance(node, MapNode):
        yield from _read_each_job(node, problems)
    else:
        problems.add(WRONG_SHAPE, node, f"jobs must be a map of names, not {say(node)}", hint)
    node = document.node_by_key.get("finally")
    if isinstance(node, MapNode):
        yield from (replace(job, is_final=True) for job in _read_each_job(node, problems))
    elif node is not None and not is_empty(node):
        hint = "write finally: {NAME: {call: package.module:function}}"
        problems.add(WRONG_SHAPE, node, f"finally must be a map of names, not {say(node)}", hint)


def _read_each_job(jobs: MapNode, problems: Problems) -> Iterator[JobSpec]:
    _check_indentation(jobs, problems)
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
            problems.add(WRONG_SHAPE, node, f"job {name} must be a map, not {say(node)}", hint)
            yield JobSpec(name)


def keep_texts(
    jobs: Iterable[JobSpec], workflows: Mapping[str, Workflow], document: MapNode
) -> Iterator[JobSpec]:
    """Yield the jobs; a value for an input of a nested workflow that is a text keeps its spelling.

    `3.10` is a number, but as a text it is these four characters.
    """
    nodes = document.node_by_key.get("jobs"), document.node_by_key.get("finally")
    for job in jobs:
        nested = workflows.get(job.workflow)
        around = nodes[job.is_final] if nested is not None else None
        node = around.node_by_key.get(job.name) if isinstance(around, MapNode) else None
        given = node.node_by_key.get("with") if isinstance(node, MapNode) else None
        if nested is None or not isinstance(given, MapNode):
            yield job
            continue
        wanted = {each.name for each in nested.inputs if each.type in TEXT_TYPES}
        texts = {
            name: inner.text
            for name, inner in given.node_by_key.items()
            if name in wanted
            and isinstance(inner, ScalarNode)
            and isinstance(inner.value, bool | int | float)
        }
        yield replace(job, with_={**job.with_, **texts}) if texts else job


def _is_stray_key(name: str, node: Node) -> bool:
    return name in JOB.keys and not isinstance(node, MapNode)


def _check_indentation(jobs: MapNode, problems: Problems) -> None:
    """Note keys of a job that are indented like the names of jobs."""
    for name, node in jobs.node_by_key.items():
        if _is_stray_key(name, node) and not is_empty(node):
            hint = "if it belongs to the job above it, indent it further"
            message = f"job {name} must be a map, not {say(node)}"
            problems.add(WRONG_SHAPE, jobs.key_by_key[name], message, hint)


def _check_keys(key: ScalarNode, node: MapNode, problems: Problems) -> None:
    """Note missing keys: the action of the job, and keys that other keys need."""
    words = node.node_by_key.keys()
    there = words | find_meant(node, JOB)
    if _DOES.isdisjoint(there) and INSTEAD_OF_CALL.isdisjoint(there):
        _note_missing_call(key, problems)
    if "rate" in words and "rate_limit" in words:
        message = f"job {key.text} has `rate` and `rate_limit`, which are the same"
        problems.add(KEY_OUT_OF_PLACE, node.key_by_key["rate_limit"], message, "remove one of them")
    for word in words & _NEEDED_BY_KEY.keys():
        needed = _NEEDED_BY_KEY[word]
        if there.isdisjoint(needed):
            message = f"`{word}` of job {key.text} stands without `{needed[0]}`"
            hint = f"it belongs to a job with `{'` or `'.join(needed)}`"
            problems.add(KEY_OUT_OF_PLACE, node.key_by_key[word], message, hint)


def _note_missing_call(key: ScalarNode, problems: Problems) -> None:
    hint = (
        "say what it does: `call: package.module:function`, `run: command`, `workflow: file` or "
        "`sleep: 10m`"
    )
    problems.add(MISSING_KEY, key, f"job {key.text} has no `call`", hint)


def _check_direction(name: str, job: MapNode, jobs: MapNode, problems: Problems) -> None:
    """Note each target of `blocked_by` that is declared and is not a future job."""
    for target, place in name_nodes(job.node_by_key.get("blocked_by")):
        other = jobs.node_by_key.get(target)
        if not isinstance(other, MapNode) or "deferred" in find_meant(other, JOB):
            continue
        said = other.node_by_key.get("deferred")
        if isinstance(said, ScalarNode) and said.value is not False:
            continue
        message = f"job {name} is blocked_by {target}, which is not declared with `deferred: true`"
        hint = (
            f"`blocked_by: {target}` means that {name} runs before {target}. If so, write "
            f"`blocks: {target}`; if {target} runs first, write `needs: {target}`"
        )
        problems.add(BLOCKED_BY_NOT_DEFERRED, place, message, hint)


def _as_job(name: str, words: dict[str, Any], node: MapNode) -> JobSpec:
    if "rate_limit" in words:
        words = {"rate": words["rate_limit"], **words}
    words, settings = take_settings(words)
    said = {_ATTRIBUTE_BY_KEY[word]: words[word] for word in words if word in _ATTRIBUTE_BY_KEY}
    if "blocked_by" in words:
        block_by_name: dict[str, Block] = {}  # each future job once, with its policy, if any
        for block in (*words.get("blocks", ()), *words["blocked_by"]):
            if block.name not in block_by_name or block.on_failure is not None:
                block_by_name[block.name] = block
        said["blocks"] = tuple(block_by_name.values())
    if "run" in words:
        said["run"] = Shell(words["run"], words.get("shell"), words.get("result"))
    there = node.node_by_key  # a job with a list that could not be read is a group too
    if "for_each" in there:
        further = map(words.get, ("key", "more", "max_items", "stop_when"))
        said["for_each"] = ForEach(words.get("for_each", []), *further)
    if "matrix" in there or "include" in there:
        stop_when = words.get("stop_when") if "for_each" not in words else None
        said["matrix"] = build_matrix(node, stop_when)
    return JobSpec(name, **said, settings=settings)


_NEEDED_BY_KEY = {word: key.needs for word, key in JOB.keys.items() if key.needs}
_ATTRIBUTE_BY_KEY = {
    word: key.attribute
    for word, key in JOB.keys.items()
    if key.attribute and "." not in key.attribute
}
"""The keys whose values are fields of a job without conversion."""


# Which parts of a text with problems are known only in part, or not at all.


_WORK = ("call", "run", "workflow", "sleep")
_UNKNOWN_KEY = frozenset({UNKNOWN_KEY, FOREIGN_WORD})
_OF_GAPS = frozenset({WRONG_SHAPE, BAD_ALIAS})
"""Codes of a map with a key that could not be read."""


def find_unread(
    document: MapNode, kind: Vocabulary, workflows: Collection[str], problems: Problems
) -> frozenset[Path]:
    """Return the parts of one workflow's document that are known in part, or not at all.

    `workflows` has the workflows that were read for its jobs. Shape: the path of each value with a
    problem, and of each missing key that an unknown key may mean; ("jobs", name, "name") for an
    invalid name; ("workflows", name). Jobs under `finally` have their path under `jobs`.
    """
    found = [*_Walk(kind, problems).visit((), document)]
    if "jobs" not in document.node_by_key:
        found.append(("jobs",))
    declared = document.node_by_key.get("workflows")
    names = declared.node_by_key if isinstance(declared, MapNode) else {}
    for job in find_jobs(document):  # workflows that exist, but could not be read
        said = job.node_by_key.get("workflow") if isinstance(job, MapNode) else None
        called = said.text if isinstance(said, ScalarNode) else ""
        if called not in workflows and (is_file(called) or called in names):
            found.append(("workflows", called))
    return frozenset(("jobs", *path[1:]) if path[:1] == ("finally",) else path for path in found)


class _Walk:
    """A walk through one document, which visits everything that has a problem."""

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
        """Yield what is unknown because of a problem of a key."""
        if code in _UNKNOWN_KEY and node.key_by_key[name].text != name:
            return  # it was read as the key that it means
        if code == KEY_OUT_OF_PLACE:
            yield from ((*path, each) for each in _NEEDED_BY_KEY.get(name, ()))
        elif code in _UNKNOWN_KEY:
            yield from self.of_gaps(path, node)
        elif path in _JOBS and code == MISSING_KEY:
            yield from ((*path, name, each) for each in _WORK)
        elif code == KEY_TWICE:  # either of the two may be meant
            yield (*path, name)
        elif path in (*_JOBS, ("inputs",)):
            yield (*path, name, "name") if code == BAD_NAME else (*path, name)
        else:
            yield path

    def of_gaps(self, path: Path, node: MapNode) -> Iterator[Path]:
        """Yield what a map may lack because some of its keys could not be read."""
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
