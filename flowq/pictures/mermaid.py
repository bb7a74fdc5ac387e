"""A picture as Mermaid text, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from collections.abc import Mapping

from flowq.pictures.folding import MAX_BOXES, WANTED_BOXES, fold
from flowq.pictures.picture import Arrow, Box, Picture

_OPEN = "stroke-dasharray:5"

_CLASS_BY_STATE = {
    "scheduled": "fill:#fff3cd,stroke:#b58900",
    "queued": "fill:#fff3cd,stroke:#b58900",
    "started": "fill:#cfe8ff,stroke:#268bd2",
    "finished": "fill:#d4f4dd,stroke:#2e8b57",
    "failed": "fill:#ffd6d6,stroke:#c0392b",
    "tolerated": "fill:#fff3cd,stroke:#c0392b",
    "stopped": "fill:#ffd6d6,stroke:#c0392b",
    "expired": "fill:#ffd6d6,stroke:#c0392b",
    "canceled": "fill:#eeeeee,stroke:#888888",
    "deleted": "fill:#eeeeee,stroke:#888888",
    "skipped": "fill:#eeeeee,stroke:#888888,stroke-dasharray:4",
}


def render_mermaid(picture: Picture) -> str:
    """Return a Mermaid flowchart, left to right; it ends with a newline.

    It is folded like a drawing, because Mermaid draws no more than 500 edges. Boxes get ids of
    their own (`j0`, `j1` …), because `end` and other words break as Mermaid ids.
    """
    picture = fold(picture, WANTED_BOXES, MAX_BOXES)
    id_by_name = {box.name: f"j{index}" for index, box in enumerate(picture.boxes)}
    direction = "TB" if picture.is_by_level else "LR"
    title = f"{picture.heading}: {picture.about}" if picture.run_id else picture.title
    out = ["---", f"title: {_yaml_quoted(title)}", "---", f"flowchart {direction}"]
    out += [_node(id_by_name[box.name], box) for box in picture.boxes]
    out += [_link(id_by_name, arrow) for arrow in picture.arrows]
    out += _classes(picture)
    return "\n".join(out) + "\n"


def _node(node_id: str, box: Box) -> str:
    opening, closing = _find_shape(box)
    label = "<br/>".join(filter(None, [_escaped(box.name), _escaped(" · ".join(box.words))]))
    css = f":::{box.look}" if box.look in _CLASS_BY_STATE else ""
    return f'    {node_id}{opening}"{label}"{closing}{css or (":::open" if box.may_grow else "")}'


def _find_shape(box: Box) -> tuple[str, str]:
    """Return the marks around a label: a box has one shape here, and words for the rest."""
    if box.kind == "workflow":
        return "[[", "]]"
    if box.approval:
        return "{{", "}}"
    if box.is_stack:
        return "[/", "/]"
    if box.condition:
        return ">", "]"
    return ("([", "])") if box.is_open else ("[", "]")


def _link(id_by_name: Mapping[str, str], arrow: Arrow) -> str:
    link = f"-. {arrow.word} .->" if arrow.word else "-->"
    return f"    {id_by_name[arrow.blocker]} {link} {id_by_name[arrow.future]}"


def _classes(picture: Picture) -> list[str]:
    states = {box.look for box in picture.boxes}
    has_open = any(box.may_grow for box in picture.boxes)
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
