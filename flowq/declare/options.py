"""The keywords of the decorators, for type checkers only; no code reads with these classes.

The names are those of the table in `keys`; `_` follows words that Python reserves. A test compares
the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from flowq.declare.handles import Handle
from flowq.spec import BlockerPolicy, SecretResults, StartWhen


class CommonOptions(TypedDict, total=False):
    """The options of every kind of job."""

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
    max_parallel: int | Handle
    fail_fast: bool
    if_: Any
    else_: Any
    continue_on_error: bool | int | str | Handle
    start_when: StartWhen
    cancel_rest: bool
    if_empty: Literal["run", "skip"]
    finally_: bool
    expires: str | float
    timeout: str | float | Handle
    retries: Any
    concurrency: Any
    rate: Any
    rate_limit: Any


class RunOptions(CommonOptions, total=False):
    """The options of a job that is a call or a command."""

    queue: str | Handle
    on_crash: Literal["requeue", "fail"]
    at_front: bool
    env: Mapping[str, Any]
    cwd: Any
    secret_results: SecretResults


class JobOptions(RunOptions, total=False):
    """The options of `@flow.job(…)` and `@flow.deferred(…)`."""

    name: str
    with_: Mapping[str, Any]
    poll: Mapping[str, Any]


class CallOptions(RunOptions, total=False):
    """The options of `flow.call(…)`."""

    deferred: bool
    with_: Mapping[str, Any]
    poll: Mapping[str, Any]


class ShellOptions(RunOptions, total=False):
    """The options of `flow.shell(…)`."""

    deferred: bool
    poll: Mapping[str, Any]
    shell: str
    result: Literal["last", "text", "lines", "json"]


class SleepOptions(CommonOptions, total=False):
    """The options of `flow.sleep(…)`."""

    deferred: bool
    queue: str
    at_front: bool


class NestedOptions(CommonOptions, total=False):
    """The options of `flow.workflow(…)`."""

    deferred: bool
    with_: Mapping[str, Any]
