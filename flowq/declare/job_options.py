"""What the decorators take, and the declaration that becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, cast, get_args

from flowq.declare import group_options as group
from flowq.declare import options as read
from flowq.declare.options import merge_blocks
from flowq.spec import BlockerPolicy, ForEach, JobSpec, SecretResults, Shell


class CommonOptions(TypedDict, total=False):
    """What every kind of job takes; the words are those of YAML, with `_` behind Python's own."""

    needs: Any
    blocks: Any
    blocked_by: Any
    description: str
    on_blocker_failure: BlockerPolicy
    approval: Any
    for_each: Any
    key: Any
    more: Any
    max_items: int
    stop_when: Any
    matrix: Mapping[str, Any]
    include: Any
    exclude: Any
    max_parallel: int
    fail_fast: bool
    if_: Any
    continue_on_error: bool | int | str
    if_empty: Literal["run", "skip"]
    finally_: bool
    expires: str | float
    timeout: str | float
    retries: Any


class RunOptions(CommonOptions, total=False):
    """What a job takes that is executed itself: a call or a command."""

    queue: str
    on_crash: Literal["requeue", "fail"]
    at_front: bool
    env: Mapping[str, Any]
    cwd: Any
    secret_results: SecretResults


class JobOptions(RunOptions, total=False):
    """What `@flow.job(…)` and `@flow.deferred(…)` take."""

    name: str
    with_: Mapping[str, Any]


class CallOptions(RunOptions, total=False):
    """What `flow.call(…)` takes beside the name and the function's."""

    deferred: bool
    with_: Mapping[str, Any]


class ShellOptions(RunOptions, total=False):
    """What `flow.shell(…)` takes beside the name and the command."""

    deferred: bool
    shell: str
    result: Literal["last", "text", "lines", "json"]


class NestedOptions(CommonOptions, total=False):
    """What `flow.workflow(…)` takes beside the name and the other workflow."""

    deferred: bool
    with_: Mapping[str, Any]


def _one_of(*words: str) -> Callable[[Any], str]:
    def reader(value: Any) -> str:
        if value not in words:
            raise ValueError(f"is one of {', '.join(words)}, not {value!r}")
        return cast(str, value)

    return reader


READERS: Mapping[str, Callable[[Any], Any]] = {
    "name": read.read_text,
    "needs": read.read_names,
    "blocks": read.read_blocks,
    "blocked_by": read.read_blocks,
    "with_": read.read_mapping,
    "queue": read.read_fixed_text,
    "timeout": read.read_timeout,
    "retries": read.read_retries,
    "description": read.read_description,
    "on_blocker_failure": _one_of(*get_args(BlockerPolicy)),
    "deferred": group.read_flag,
    "approval": group.read_approval,
    "for_each": group.read_items,
    "key": group.read_expression,
    "more": group.read_expression,
    "max_items": group.read_positive,
    "stop_when": group.read_expression,
    "matrix": group.read_axes,
    "include": group.read_combinations,
    "exclude": group.read_combinations,
    "max_parallel": group.read_positive,
    "fail_fast": group.read_flag,
    "if_": group.read_expression,
    "continue_on_error": group.read_tolerance,
    "finally_": group.read_flag,
    "if_empty": _one_of("run", "skip"),
    "on_crash": _one_of("requeue", "fail"),
    "expires": read.read_timeout,
    "at_front": group.read_flag,
    "env": group.read_environment,
    "cwd": group.read_template,
    "secret_results": _one_of(*get_args(SecretResults)),
    "shell": read.read_fixed_text,
    "result": _one_of("last", "text", "lines", "json"),
}
"""How each option is read, by name."""

_NEEDED_BY_OPTION: Mapping[str, tuple[str, ...]] = {
    "key": ("for_each",),
    "more": ("for_each",),
    "max_items": ("for_each",),
    "stop_when": ("for_each", "matrix", "include"),
    "exclude": ("matrix",),
}


def find_alone(given: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the options that stand without any of those that they belong to."""
    return [
        (name, needed)
        for name, needed in _NEEDED_BY_OPTION.items()
        if name in given and not any(other in given for other in needed)
    ]


def to_job_spec(
    name: str, said: Mapping[str, Any], with_: Mapping[str, Any], *, call: str, workflow: str
) -> JobSpec:
    """Return the declaration of a job from its options, which have been read."""
    return JobSpec(
        name=name,
        call=call,
        with_=dict(with_),
        needs=said.get("needs") or (),
        blocks=merge_blocks([*(said.get("blocks") or ()), *(said.get("blocked_by") or ())]),
        deferred=bool(said.get("deferred")),
        queue=said.get("queue"),
        timeout_s=said.get("timeout"),
        retries=said.get("retries"),
        description=said.get("description") or "",
        on_blocker_failure=said.get("on_blocker_failure"),
        run=said.get("run"),
        workflow=workflow,
        env=said.get("env") or {},
        cwd=said.get("cwd"),
        if_=said.get("if_"),
        for_each=_build_for_each(said),
        matrix=group.build_matrix(said),
        max_parallel=said.get("max_parallel"),
        fail_fast=said.get("fail_fast"),
        continue_on_error=said.get("continue_on_error"),
        approval=said.get("approval"),
        if_empty=said.get("if_empty"),
        on_crash=said.get("on_crash"),
        expires_s=said.get("expires"),
        at_front=said.get("at_front"),
        is_final=bool(said.get("finally_")),
        secret_results=said.get("secret_results"),
    )


def _build_for_each(said: Mapping[str, Any]) -> ForEach | None:
    if said.get("for_each") is None:
        return None
    return ForEach(said["for_each"], *map(said.get, ("key", "more", "max_items", "stop_when")))


def to_shell(command: str | tuple[str, ...], said: Mapping[str, Any]) -> Shell:
    """Return the command of a job from its options, which have been read."""
    return Shell(command, said.get("shell"), said.get("result"))
