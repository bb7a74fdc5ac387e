"""The shapes of keys of a whole workflow: labels and schedules. The table in `keys` uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    ARGUMENTS,
    FIXED_TEXT,
    Key,
    Shape,
    Vocabulary,
    choice,
    either,
    find_meant,
    read_fixed_text,
    template_of,
)
from flowq.expressions.templates import has_expression
from flowq.labels import MAX_LABELS, NAME, explain_name, explain_value
from flowq.problems import BAD_LABEL, MISSING_KEY, WRONG_SHAPE
from flowq.spec import Schedule


def _read_labels(label: str, node: Node, problems: Problems) -> dict[str, str] | None:
    """Read a map of labels; numbers and flags keep their spelling."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of names to texts, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message, "write name: value, each on its line")
        return None
    labels = {}
    for name, inner in node.node_by_key.items():
        if reason := explain_name(name):
            message = f"{name!r:.120} cannot be the name of a label"
            problems.add(BAD_LABEL, node.key_by_key[name], message, reason)
        elif not isinstance(inner, ScalarNode) or (inner.is_null and inner.typed):
            message = f"the label {name} must be text, not {say(inner)}"
            hint = "write one text; a list of values is x | json"
            problems.add(WRONG_SHAPE, inner, message, hint)
        else:
            text = "" if is_empty(inner) else template_of(inner)
            reason = "" if has_expression(text) else explain_value(text)
            if reason:
                message = f"the value of the label {name} cannot be used"
                problems.add(BAD_LABEL, inner, message, reason)
            else:
                labels[name] = text
    if len(node.node_by_key) > MAX_LABELS:
        message = f"{label} has {len(node.node_by_key):,} labels, and {MAX_LABELS} are allowed"
        hint = "labels are for finding runs: give what a run works with as `inputs`"
        problems.add(BAD_LABEL, node, message, hint)
    return labels


LABELS = Shape(
    _read_labels,
    {
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{NAME.replace('(?:', '(')}$"},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        "maxProperties": MAX_LABELS,
    },
    dict,
)

SCHEDULE = Vocabulary(
    "schedule",
    {
        "cron": Key(
            FIXED_TEXT,
            "Minute, hour, day of the month, month, weekday.",
            ("30 2 * * 1-5",),
            attribute="cron",
        ),
        "timezone": Key(
            FIXED_TEXT,
            "A time zone of the IANA database.",
            ("Europe/Berlin",),
            attribute="timezone",
        ),
        "inputs": Key(
            ARGUMENTS,
            "The inputs of these runs; `run.due_at` is the time at which one is due.",
            ({"day": "${{ run.due_at[:10] }}"},),
            attribute="inputs",
        ),
        "catch_up": Key(
            choice("none", "last", "all"),
            "Which due times are made up for, if nothing watched the clock.",
            attribute="catch_up",
        ),
    },
    foreign={
        "tz": "write `timezone`",
        "time_zone": "write `timezone`",
        "catchup": "write `catch_up: all`",
        "startingDeadlineSeconds": "write `catch_up: last`",
        "with": "write `inputs`",
        "suspend": "write `flowq schedule FILE --pause`",
    },
    required=("cron",),
)


def _read_schedules(label: str, node: Node, problems: Problems) -> tuple[Schedule, ...] | None:
    if isinstance(node, ListNode):
        if not node.items:
            hint = "write - cron: …, or leave it out"
            problems.add(WRONG_SHAPE, node, f"{label} is an empty list", hint)
        found = [_read_schedule(label, item, problems) for item in node.items]
        return tuple(each for each in found if each is not None) or None
    schedule = _read_schedule(label, node, problems)
    return None if schedule is None else (schedule,)


def _read_schedule(label: str, node: Node, problems: Problems) -> Schedule | None:
    if isinstance(node, ScalarNode) and len(node.text.split()) > 1:
        text = read_fixed_text(label, node, problems)
        return None if text is None else Schedule(text)
    if not isinstance(node, MapNode):
        message = f"{label} must be a cron expression or a map, not {say(node)}"
        problems.add(
            WRONG_SHAPE, node, message, 'write {cron: "30 2 * * *", timezone: Europe/Berlin}'
        )
        return None
    words = SCHEDULE.read(label, node, problems) or {}
    if "cron" not in node.node_by_key and "cron" not in find_meant(node, SCHEDULE):
        problems.add(MISSING_KEY, node, f"{label} has no `cron`", 'as in cron: "30 2 * * 1-5"')
    return Schedule(**{"cron": "0 0 * * *", **SCHEDULE.to_fields(words)})


def _write_schedules(schedules: Sequence[Schedule]) -> Any:
    written = [SCHEDULE.write(each) for each in schedules]
    return written[0] if len(written) == 1 else written


_SCHEDULE_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": r"\S\s.*\S"}, SCHEDULE.schema()],
}

SCHEDULES = either(
    _read_schedules,
    *_SCHEDULE_SCHEMA["anyOf"],
    {"type": "array", "items": _SCHEDULE_SCHEMA, "minItems": 1},
    write=_write_schedules,
)
