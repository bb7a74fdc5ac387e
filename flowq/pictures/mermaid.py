"""A picture as Mermaid text, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from flowq.pictures.picture import Line, Node, View

_SHAPE = {True: ("([", "])"), False: ("[", "]")}  # rounded for future jobs

_OPEN = "stroke-dasharray:5"

_CLASS_BY_STATE = {
    "scheduled": "fill:#fff3cd,stroke:#b58900",
    "queued": "fill:#fff3cd,stroke:#b58900",
    "started": "fill:#cfe8ff,stroke:#268bd2",
    "finished": "fill:#d4f4dd,stroke:#2e8b57",
    "failed": "fill:#ffd6d6,stroke:#c0392b",
    "stopped": "fill:#ffd6d6,stroke:#c0392b",
    "expired": "fill:#ffd6d6,stroke:#c0392b",
    "canceled": "fill:#eeeeee,stroke:#888888",
    "deleted": "fill:#eeeeee,stroke:#888888",
    "skipped": "fill:#eeeeee,stroke:#888888,stroke-dasharray:4",
}


def render_mermaid(view: View) -> str:
    """Return a Mermaid flowchart, left to right; it ends with a newline.

    Jobs get ids of their own (`j0`, `j1` …), because `end` and other words break as Mermaid ids.
    """
    id_by_name = {node.name: f"j{index}" for index, node in enumerate(view.nodes)}
    out = ["---", f"title: {_yaml_quoted(view.title)}", "---", "flowchart LR"]
    out += [_node(id_by_name[node.name], node) for node in view.nodes]
    out += [_line(id_by_name, line) for line in view.lines]
    out += _classes(view)
    return "\n".join(out) + "\n"


def _node(node_id: str, node: Node) -> str:
    opening, closing = _SHAPE[node.is_future]
    label = _escaped(node.name) + (f"<br/>{_escaped(node.state)}" if node.state else "")
    css = f":::{node.state}" if node.state in _CLASS_BY_STATE else ""
    return f'    {node_id}{opening}"{label}"{closing}{css or (":::open" if node.is_open else "")}'


def _line(id_by_name: dict[str, str], line: Line) -> str:
    label = "finally" if line.is_last else line.on_failure
    arrow = f"-. {label} .->" if label else "-->"
    return f"    {id_by_name[line.blocker]} {arrow} {id_by_name[line.future]}"


def _classes(view: View) -> list[str]:
    states = {node.state for node in view.nodes}
    has_open = any(node.is_open and node.state not in _CLASS_BY_STATE for node in view.nodes)
    return [
        *([f"    classDef open {_OPEN}"] if has_open else []),
        *(
            f"    classDef {state} {style},color:#111"
            for state, style in _CLASS_BY_STATE.items()
            if state in states
        ),
    ]


def _escaped(text: str) -> str:
    """Return text for a quoted label: Mermaid has entities of its own, and no backslash."""
    return " ".join(text.translate(_ENTITIES).split())


_ENTITIES = str.maketrans(
    {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}
)


def _yaml_quoted(text: str) -> str:
    return "'" + " ".join(text.split()).replace("'", "''") + "'"
