"""The shapes of limits across runs: `concurrency`, of workflows and of jobs, and `rate`.

The table in `keys` uses them.
"""

from __future__ import annotations

from typing import Any

from flowq.declare import foreign
from flowq.declare.nodes import MapNode, Node, ScalarNode, is_text, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    FLAG,
    POSITIVE,
    TEMPLATE,
    Key,
    Shape,
    Vocabulary,
    either,
    find_meant,
    or_expression,
    read_positive,
    read_template,
)
from flowq.durations import parse_rate
from flowq.problems import BAD_RATE, MISSING_KEY, WRONG_SHAPE
from flowq.spec import Concurrency, Rate

MAX_NAME = 200
"""The most characters of the name of a group: it is part of a key in Redis."""


def _read_group(label: str, node: Node, problems: Problems) -> str | None:
    text = read_template(label, node, problems)
    if text is not None and len(text) > MAX_NAME:
        message = f"{label} has {len(text):,} characters, and {MAX_NAME} are allowed"
        problems.add(WRONG_SHAPE, node, message, "a digest is shorter: ${{ sha256(…) }}")
        return None
    return text


GROUP = Shape(_read_group, TEMPLATE.schema)


def _read_limit_of_runs(label: str, node: Node, problems: Problems) -> int | None:
    if isinstance(node, ScalarNode) and is_text(node) and "${{" in node.text:
        message = f"{label} must be a whole number: of runs, only `group` may be an expression"
        hint = "the `concurrency` of a job may have an expression for its `limit`"
        problems.add(WRONG_SHAPE, node, message, hint)
        return None
    return read_positive(label, node, problems)


CONCURRENCY = Vocabulary(
    "concurrency",
    {
        "group": Key(TEMPLATE, "Runs with the same text wait for one another.", attribute="group"),
        "limit": Key(
            Shape(_read_limit_of_runs, POSITIVE.schema),
            "How many runs of the group run at the same time (default: 1).",
            (3,),
            "limit",
        ),
        "cancel_in_progress": Key(
            FLAG,
            "A new run cancels the running one.",
            attribute="cancel_in_progress",
        ),
    },
    foreign=foreign.IN_CONCURRENCY,
    required=("group",),
)

_OF_JOBS = Vocabulary(
    "concurrency",
    {
        "group": Key(
            or_expression(GROUP),
            "Jobs with the same text wait for one another, in all runs of all workflows.",
            ("deploy", "shop-${{ inputs.shop }}"),
            "group",
        ),
        "limit": Key(
            or_expression(POSITIVE),
            "How many jobs of the group run at the same time (default: 1).",
            (3,),
            "limit",
        ),
        "cancel_in_progress": Key(
            FLAG, "A job that has to wait cancels those before it.", (), "cancel_in_progress"
        ),
    },
    foreign=foreign.IN_CONCURRENCY,
    required=("group",),
)


def _is_named(label: str, node: ScalarNode, problems: Problems) -> bool:
    if isinstance(node.value, int | float):
        limit = node.value if type(node.value) is int and node.value > 0 else 1
        message = f"{label} must be the name of a group, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message, f"write {{group: NAME, limit: {limit}}}")
        return False
    return True


def _read_concurrency(label: str, node: Node, problems: Problems) -> Concurrency | None:
    if isinstance(node, ScalarNode):
        if not _is_named(label, node, problems):
            return None
        text = read_template(label, node, problems)
        return None if text is None else Concurrency(text)
    return _read_map(label, node, problems, CONCURRENCY)


def _read_concurrency_of_jobs(label: str, node: Node, problems: Problems) -> Concurrency | None:
    if isinstance(node, ScalarNode):
        if not _is_named(label, node, problems):
            return None
        group = _OF_JOBS.keys["group"].shape.read(label, node, problems)
        return None if group is None else Concurrency(group)
    return _read_map(label, node, problems, _OF_JOBS)


def _read_map(
    label: str, node: Node, problems: Problems, vocabulary: Vocabulary
) -> Concurrency | None:
    words = vocabulary.read(label, node, problems) or {}
    is_missing = isinstance(node, MapNode) and "group" not in node.node_by_key
    if is_missing and "group" not in find_meant(node, vocabulary):
        hint = "those with the same text wait for one another"
        problems.add(MISSING_KEY, node, f"{label} has no `group`", hint)
    return Concurrency(**{"group": "", **vocabulary.to_fields(words)})


def _write_concurrency_of_jobs(concurrency: Concurrency) -> Any:
    written = _OF_JOBS.write(concurrency)
    return written["group"] if len(written) == 1 else written


_NAME = {"type": "string"}

CONCURRENCY_OF_RUNS = either(
    _read_concurrency, _NAME, CONCURRENCY.schema(), write=CONCURRENCY.write
)
CONCURRENCY_OF_JOBS = either(
    _read_concurrency_of_jobs,
    _NAME,
    _OF_JOBS.schema(),
    write=_write_concurrency_of_jobs,
)

# Rates.


def _read_limit(label: str, node: Node, problems: Problems) -> str | None:
    text = node.text if isinstance(node, ScalarNode) and is_text(node) else say(node)
    try:
        parse_rate(text)
    except ValueError:
        problems.add(BAD_RATE, node, f"{label} must be a rate, not {say(node)}", _RATE_HINT)
        return None
    return text.strip()


_RATE_HINT = "write how many starts in which time: 10/m, 100/h, 5/10s"
_RATE_TEXT = {
    "type": "string",
    "pattern": r"^\s*0*[1-9][0-9]{0,8}\s*/\s*([0-9]{1,15}(\.[0-9]{1,9})?)?\s*(ms|[smhd])\s*$",
}

RATE_LIMIT = Shape(_read_limit, _RATE_TEXT)

_RATE = Vocabulary(
    "rate",
    {
        "limit": Key(
            or_expression(RATE_LIMIT),
            "How many jobs may start in which time: 10/s, 10/m, 10/h, 5/10s.",
            ("10/m", "100/h"),
            "limit",
        ),
        "group": Key(
            or_expression(GROUP),
            "Jobs with the same text count together, in all runs of all workflows; by default "
            "the job itself in all runs of its workflow.",
            ("mail-server", "${{ item.host }}"),
            "group",
        ),
    },
    required=("limit",),
)


def _read_rate(label: str, node: Node, problems: Problems) -> Rate | None:
    if not isinstance(node, MapNode):
        limit = _RATE.keys["limit"].shape.read(label, node, problems)
        return None if limit is None else Rate(limit)
    words = _RATE.read(label, node, problems) or {}
    if "limit" not in node.node_by_key and "limit" not in find_meant(node, _RATE):
        problems.add(MISSING_KEY, node, f"{label} has no `limit`", _RATE_HINT)
    return Rate(**{"limit": "1/s", **_RATE.to_fields(words)})


def _write_rate(rate: Rate) -> Any:
    written = _RATE.write(rate)
    return written["limit"] if len(written) == 1 else written


RATE = either(
    _read_rate,
    *_RATE.keys["limit"].shape.schema["anyOf"],
    _RATE.schema(),
    write=_write_rate,
)
