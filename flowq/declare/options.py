"""The keywords of the decorators, for type checkers only; nothing is read with these classes.

The names are those of the table in `keys`, with `_` behind words that Python reserves. A test
compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from flowq.spec import BlockerPolicy, SecretResults


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
