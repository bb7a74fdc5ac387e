"""The words of the YAML language: which keys there are, how each is read, and whose they are not.

Keys that the design has and this version has not say so, and the words of GitHub Actions and of
other queues are answered with ours.
"""

from __future__ import annotations

import re

from flowq.declare.nodes import ListNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    Vocabulary,
    read_arguments,
    read_blocks,
    read_description,
    read_fixed_text,
    read_flag,
    read_names,
    read_node,
    read_policy,
    read_retries,
    read_timeout,
    say,
)

_CALL = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_DOTTED = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\.([^\W\d]\w*)")
_FILE = re.compile(r"(.+)\.py:(\w+)")


def _read_call(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and _CALL.fullmatch(node.text):
        return node.text
    message = f"{label} must be package.module:function, not {say(node)}"
    text = node.text if isinstance(node, ScalarNode) else ""
    problems.add("FQ114", node, message, _call_hint(text))
    return None


def _call_hint(text: str) -> str:
    bare = text.partition("(")[0].strip()
    if "${{" in text:
        return "a call is fixed text; expressions are filled in under `with` only"
    if found := _FILE.fullmatch(bare):
        module = found.group(1).removeprefix("./").replace("/", ".")
        return f"name the module, not the file: {module}:{found.group(2)}"
    if found := _DOTTED.fullmatch(bare):
        return f"did you mean {found.group(1)}:{found.group(2)!s}?"
    if bare != text and _CALL.fullmatch(bare):
        return f"leave the parentheses away, and put the arguments under `with`: {bare}"
    return "for example: photos.tasks:make_thumbnail"


def _read_choices(label: str, node: Node, problems: Problems) -> tuple[str, ...] | None:
    items = node.items if isinstance(node, ListNode) else []
    texts = [item.text for item in items if isinstance(item, ScalarNode) and item.text]
    if not texts or len(texts) != len(items):
        problems.add("FQ105", node, f"{label} must be a list of texts, not {say(node)}")
        return None
    return tuple(texts)


LATER_IN_A_JOB = frozenset(
    {
        *("run", "workflow", "approval", "if", "env", "cwd", "shell", "result", "at_front"),
        *("for_each", "more", "key", "max_items", "stop_when", "max_parallel", "fail_fast"),
        *("matrix", "include", "exclude"),
        *("continue_on_error", "if_empty", "on_crash", "expires"),
    }
)

JOB = Vocabulary(
    "a job",
    {
        "call": _read_call,
        "with": read_arguments,
        "needs": read_names,
        "blocks": read_blocks,
        "blocked_by": read_blocks,
        "deferred": read_flag,
        "queue": read_fixed_text,
        "timeout": read_timeout,
        "retries": read_retries,
        "description": read_description,
        "on_blocker_failure": read_policy,
    },
    later=LATER_IN_A_JOB,
    foreign={
        "steps": "a job is one call: make each step a job, and order them with `needs`",
        "uses": "name a Python function instead: `call: package.module:function`",
        "runs-on": "name the queue whose workers shall run it: `queue: NAME`",
        "strategy": "`matrix` and `max_parallel` will stand at the job itself",
        "timeout-minutes": "write `timeout: 10m`",
        "continue-on-error": "it will be called `continue_on_error`",
        "max-parallel": "it will be called `max_parallel`",
        "fail-fast": "it will be called `fail_fast`",
        "container": "a job runs where its queue's workers are: `queue: NAME`",
        "services": "a job runs where its queue's workers are: `queue: NAME`",
        "permissions": "leave it out",
        "outputs": "what the function returns is jobs.NAME.result",
        "args": "arguments stand under `with`, by name",
        "kwargs": "arguments stand under `with`, by name",
        "params": "arguments stand under `with`, by name",
        "parameters": "arguments stand under `with`, by name",
        "inputs": "inputs are declared once, for the workflow; arguments stand under `with`",
        "depends_on": "write `needs`",
        "dependencies": "write `needs`",
        "requires": "write `needs`",
        "after": "write `needs`",
        "before": "write `blocks`",
        "function": "write `call: package.module:function`",
        "func": "write `call: package.module:function`",
        "command": "write `call: package.module:function`; shell commands are not supported yet",
        "script": "write `call: package.module:function`; shell commands are not supported yet",
        "name": "the key above is the job's name; a longer text goes under `description`",
        "backoff": "write `retries: {max: 3, backoff: 2s}`",
    },
)

DEFAULTS = Vocabulary(
    "defaults",
    {"queue": read_fixed_text, "timeout": read_timeout, "retries": read_retries},
    foreign={"run": "leave it out", "timeout-minutes": "write `timeout: 10m`"},
)

INPUT = Vocabulary(
    "an input",
    {
        "type": read_node,
        "default": read_node,
        "required": read_flag,
        "description": read_description,
        "choices": _read_choices,
    },
    later=frozenset({"pattern"}),
    foreign={"options": "write `choices`", "enum": "write `type: enum` and `choices`"},
)

WORKFLOW = Vocabulary(
    "a workflow",
    {
        "name": read_fixed_text,
        "description": read_description,
        "inputs": read_node,
        "defaults": DEFAULTS.read,
        "jobs": read_node,
    },
    later=frozenset({"env", "workflows", "outputs", "max_parallel", "concurrency", "schedule"}),
    foreign={
        "on": "a workflow is started by `flowq run FILE`; its inputs stand under `inputs`",
        "run-name": "leave it out",
        "permissions": "leave it out",
        "steps": "a workflow has `jobs`: a map of names to jobs",
        "tasks": "write `jobs`",
        "stages": "write `jobs`, and order them with `needs`",
        "nodes": "write `jobs`",
        "params": "write `inputs`",
        "parameters": "write `inputs`",
        "version": "leave it out",
        "call": "a call belongs to a job: `jobs: {NAME: {call: …}}`",
        "timeout": "it belongs to a job, or under `defaults`",
        "queue": "it belongs to a job, or under `defaults`",
        "retries": "it belongs to a job, or under `defaults`",
        "needs": "it belongs to a job",
        "runs-on": "name a queue under `defaults`: `queue: NAME`",
    },
)

INSTEAD_OF_CALL = frozenset(
    {"run", "workflow", "uses", "steps", "function", "func", "command", "script"}
)
"""Keys that were meant to say what a job does: then a missing `call` is no problem of its own."""
