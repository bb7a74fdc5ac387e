"""The shape of `retries` in YAML: a number, or a map that says when and after what."""

from __future__ import annotations

from collections.abc import Callable

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.retries import (
    CAUSE_HINT,
    MAX_FACTOR,
    MAX_RETRIES,
    UnknownCause,
    read_cause,
    read_factor,
    read_share,
)
from flowq.declare.shapes import (
    DURATION,
    TIMEOUT,
    Key,
    Shape,
    Vocabulary,
    either,
    find_meant,
    read_count,
    say,
)
from flowq.spec import Retry


def _read_retries(label: str, node: Node, problems: Problems) -> Retry | None:
    if isinstance(node, MapNode):
        words = _RETRIES.read(label, node, problems) or {}
        if "max" not in node.node_by_key and "max" not in find_meant(node, _RETRIES):
            problems.add("FQ106", node, f"{label} has no `max`", "write {max: 3, backoff: 2s}")
        return Retry(
            words.get("max", 0),
            words.get("backoff", 0),
            words.get("factor", 1),
            words.get("max_backoff"),
            words.get("jitter", 0),
            words.get("within"),
            words.get("on", ()),
            words.get("never_on", ()),
        )
    if isinstance(node, ScalarNode) and isinstance(node.value, int):
        count = _read_max(label, node, problems)
        return None if count is None else Retry(count)
    message = f"{label} must be a whole number or a map, not {say(node)}"
    problems.add("FQ105", node, message, "write 3, or {max: 3, backoff: 2s}")
    return None


def _read_max(label: str, node: Node, problems: Problems) -> int | None:
    count = read_count(label, node, problems)
    if count is not None and count > MAX_RETRIES:
        message = f"{label} must be at most {MAX_RETRIES:,}, not {say(node)}"
        problems.add("FQ125", node, message, "for work that never ends, schedule a workflow")
        return None
    return count


def _number(read: Callable[[object], float]) -> Callable[[str, Node, Problems], float | None]:
    def reader(label: str, node: Node, problems: Problems) -> float | None:
        try:
            return read(node.value if isinstance(node, ScalarNode) else say(node))
        except ValueError as error:
            problems.add(
                "FQ125",
                node,
                f"{label} {error}",
                "as in {max: 5, backoff: 2s, factor: 2, jitter: 20%}",
            )
            return None

    return reader


def _read_causes(label: str, node: Node, problems: Problems) -> tuple[str, ...]:
    causes = []
    for item in node.items if isinstance(node, ListNode) else [node]:
        if not isinstance(item, ScalarNode) or item.is_null:
            message = f"{label} must name exception classes and exit codes, not {say(item)}"
            problems.add("FQ126", item, message, CAUSE_HINT)
            continue
        try:
            causes.append(read_cause(item.text))
        except UnknownCause as error:
            problems.add("FQ126", item, f"{label} {error}", error.hint)
    return tuple(dict.fromkeys(causes))


_CAUSE = {"type": ["string", "integer"]}
_CAUSES = either(_read_causes, _CAUSE, {"type": "array", "items": _CAUSE})
_MAX = {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES}

_RETRIES = Vocabulary(
    "retries",
    {
        "max": Key(Shape(_read_max, _MAX), "How often it is tried again.", (3,)),
        "backoff": Key(DURATION, "How long to wait before the second attempt.", ("2s",)),
        "factor": Key(
            Shape(_number(read_factor), {"type": "number", "minimum": 1, "maximum": MAX_FACTOR}),
            "Each further wait is so many times as long.",
            (2,),
        ),
        "max_backoff": Key(TIMEOUT, "The longest wait; a day unless it is said.", ("5m",)),
        "jitter": Key(
            either(
                _number(read_share),
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\s*[0-9]{1,3}(\.[0-9]{1,6})?\s*%\s*$"},
            ),
            "A random part of up to this share makes each wait longer.",
            (0.2, "20%"),
        ),
        "within": Key(
            TIMEOUT, "No attempt begins later than this after the first one began.", ("1h",)
        ),
        "on": Key(
            _CAUSES,
            "Only failures by these are tried again: exception classes, exit codes.",
            ("ConnectionError", ["requests.exceptions:Timeout", 137, "1-3"]),
        ),
        "never_on": Key(_CAUSES, "Failures by these are final.", ("ValueError", [2, "64-78"])),
    },
    required=("max",),
)

RETRIES = either(_read_retries, _MAX, _RETRIES.schema())
