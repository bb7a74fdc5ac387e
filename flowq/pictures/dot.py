"""A picture in the DOT language of Graphviz."""

from __future__ import annotations

from flowq.pictures.picture import Line, Node, View

_COLOR_BY_STATE = {
    "scheduled": "khaki",
    "queued": "khaki",
    "started": "lightskyblue",
    "finished": "palegreen",
    "failed": "lightcoral",
    "stopped": "lightcoral",
    "expired": "lightcoral",
    "canceled": "lightgray",
    "deleted": "lightgray",
    "skipped": "lightgray",
}


def render_dot(view: View) -> str:
    """Return a directed graph, left to right, which ends with a newline.

    Future jobs are rounded, and open ones dashed.
    """
    out = [f"digraph {_quoted(view.title)} {{", "    rankdir=LR;", "    node [shape=box];"]
    out += [f"    {_quoted(node.name)}{_attributes(_of_node(node))};" for node in view.nodes]
    out += [
        f"    {_quoted(line.blocker)} -> {_quoted(line.future)}{_attributes(_of_line(line))};"
        for line in view.lines
    ]
    return "\n".join([*out, "}"]) + "\n"


def _of_node(node: Node) -> dict[str, str]:
    styles = ["rounded"] if node.is_future else []
    styles += ["dashed"] if node.is_open else []
    found: dict[str, str] = {}
    if node.state:
        found["label"] = f"{node.name}\n{node.state}"
    if node.state in _COLOR_BY_STATE:
        found["fillcolor"] = _COLOR_BY_STATE[node.state]
        styles.append("filled")
    if node.description:
        found["tooltip"] = node.description
    return found | ({"style": ",".join(styles)} if styles else {})


def _of_line(line: Line) -> dict[str, str]:
    label = "finally" if line.is_last else line.on_failure
    return {"style": "dashed", "label": label} if label else {}


def _attributes(value_by_key: dict[str, str]) -> str:
    inside = ", ".join(f"{key}={_quoted(value)}" for key, value in value_by_key.items())
    return f" [{inside}]" if inside else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
