"""A picture in the DOT language of Graphviz, with each of its boxes: programs read it too."""

from __future__ import annotations

from flowq.pictures.picture import Arrow, Box, Picture

_COLOR_BY_STATE = {
    "scheduled": "khaki",
    "queued": "khaki",
    "started": "lightskyblue",
    "finished": "palegreen",
    "failed": "lightcoral",
    "tolerated": "khaki",
    "stopped": "lightcoral",
    "expired": "lightcoral",
    "canceled": "lightgray",
    "deleted": "lightgray",
    "skipped": "lightgray",
}


def render_dot(picture: Picture) -> str:
    """Return a directed graph, left to right, which ends with a newline."""
    out = [f"digraph {_quoted(picture.title)} {{", "    rankdir=LR;", "    node [shape=box];"]
    if picture.run_id:
        out.append(f"    label={_quoted(f'{picture.heading}: {picture.about}')};")
    out += [f"    {_quoted(box.name)}{_attributes(_of_box(box))};" for box in picture.boxes]
    out += [
        f"    {_quoted(arrow.blocker)} -> {_quoted(arrow.future)}{_attributes(_of_arrow(arrow))};"
        for arrow in picture.arrows
    ]
    return "\n".join([*out, "}"]) + "\n"


def _of_box(box: Box) -> dict[str, str]:
    found: dict[str, str] = {}
    if box.words:
        found["label"] = f"{box.name}\n{' · '.join(box.words)}"
    if box.approval:
        found["shape"] = "octagon"
    elif box.kind == "workflow":
        found["shape"] = "component"
    elif box.condition:
        found["shape"] = "hexagon"
    if box.is_stack:
        found["peripheries"] = "2"
    styles = ["rounded", "dashed"] if box.may_grow else []
    if box.look in _COLOR_BY_STATE:
        found["fillcolor"] = _COLOR_BY_STATE[box.look]
        styles.append("filled")
    if box.description:
        found["tooltip"] = box.description
    return found | ({"style": ",".join(styles)} if styles else {})


def _of_arrow(arrow: Arrow) -> dict[str, str]:
    return {"style": "dashed", "label": arrow.word} if arrow.word else {}


def _attributes(value_by_key: dict[str, str]) -> str:
    inside = ", ".join(f"{key}={_quoted(value)}" for key, value in value_by_key.items())
    return f" [{inside}]" if inside else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
