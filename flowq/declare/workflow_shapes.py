"""The shapes of keys of a whole workflow: its labels. The table in `keys` uses them."""

from __future__ import annotations

from flowq.declare.nodes import MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import Shape, template_of
from flowq.expressions.templates import has_expression
from flowq.labels import MAX_LABELS, NAME, explain_name, explain_value
from flowq.problems import BAD_LABEL, WRONG_SHAPE


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
