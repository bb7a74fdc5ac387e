"""The `defaults` of a workflow: what its jobs have in common, for both fronts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowq.spec import Defaults

KEYS = (
    *("queue", "at_front", "timeout", "retries", "expires", "on_crash", "secret_results"),
    *("on_blocker_failure", "continue_on_error", "cwd", "shell", "result"),
    *("max_parallel", "fail_fast", "max_items"),
)
"""The keys of a job that make sense for all jobs, in their order in documents."""

_WORK = "each job says itself what it does"
_EDGE = "an edge is between two jobs: say it at one of them"
_GROUP = "it makes a group of one job: say it there"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("call", "workflow"), _WORK),
    "run": f"{_WORK}; `shell` and `cwd` stand here: defaults: {{shell: bash}}",
    "with": "each function has arguments of its own: say them at each job",
    **dict.fromkeys(("needs", "blocks", "blocked_by"), _EDGE),
    **dict.fromkeys(
        ("for_each", "key", "more", "matrix", "include", "exclude", "stop_when"), _GROUP
    ),
    "if": "whether a job runs is its own matter, and an `if` of its own would replace this one",
    "if_empty": "every job without blockers would be skipped: say it at the open job",
    "deferred": "a job is open for the code that adds to it: say it at that job",
    "approval": "each approval is about one job: say it there",
    "env": "variables of all jobs stand under `env` of the workflow",
    "description": "it says what one job is for",
}
"""The other keys of a job, each with the reason why it is none for all."""

_FIELD_BY_KEY = {"timeout": "timeout_s", "expires": "expires_s"}


def to_defaults(words: Mapping[str, Any]) -> Defaults:
    """Return the defaults from their values by key, which have been read."""
    said = {_FIELD_BY_KEY.get(key, key): value for key, value in words.items() if key in KEYS}
    return Defaults(**{key: value for key, value in said.items() if value is not None})
