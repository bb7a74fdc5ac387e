"""The words of an input: of a workflow, or of an approval."""

from __future__ import annotations

from flowq.declare import foreign
from flowq.declare.nodes import ListNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    DESCRIPTION,
    FLAG,
    TEXT,
    Key,
    Shape,
    Vocabulary,
    read_node,
    read_text,
    say,
)
from flowq.patterns import PatternRefused, check_pattern


def _read_choices(label: str, node: Node, problems: Problems) -> tuple[str, ...] | None:
    items = node.items if isinstance(node, ListNode) else []
    texts = [item.text for item in items if isinstance(item, ScalarNode) and item.text]
    if not texts or len(texts) != len(items):
        problems.add("FQ105", node, f"{label} must be a list of texts, not {say(node)}")
        return None
    return tuple(texts)


def _read_pattern(label: str, node: Node, problems: Problems) -> str | None:
    text = read_text(label, node, problems)
    try:
        check_pattern(text or "")
    except PatternRefused as refused:
        message = f"{label} cannot be used: {refused}"
        hint = refused.hint or "the whole text must match it, as in [a-z]+"
        problems.add("FQ105", node, message, hint)
        return None
    return text


INPUT = Vocabulary(
    "an input",
    {
        "type": Key(
            Shape(
                read_node,
                {"enum": ["str", "int", "float", "bool", "path", "list", "json", "enum"]},
            ),
            "What it is; str if nothing is said.",
        ),
        "default": Key(Shape(read_node), "Its value when none is given; without, it is required."),
        "required": Key(FLAG, "Whether it must be given."),
        "description": Key(DESCRIPTION, "What it is for."),
        "choices": Key(
            Shape(
                _read_choices,
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": ["string", "number", "boolean"], "not": {"const": ""}},
                },
            ),
            "The values of an enum.",
        ),
        "pattern": Key(
            Shape(_read_pattern, TEXT.schema),
            "A regular expression that the whole text must match.",
            ("[0-9]{4}-[0-9]{2}",),
        ),
    },
    foreign=foreign.IN_AN_INPUT,
)
