"""How values of jobs and runs look on a page: views as text, with bounds. Nothing is unpickled."""

from __future__ import annotations

import json
import pprint
from collections.abc import Mapping
from typing import Any

from flowq.render.lines import write_value
from flowq.runtime.views import to_printable

MAX_VALUE = 8_000
"""Characters of one value."""

MAX_VALUES = 100
WIDTH = 100


def show_input(value: Any) -> str:
    """Return the value of an input as forms have it: a text as it is, all else as JSON."""
    text = write_value(value)
    if len(text) > WIDTH and isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False, default=repr, indent=2)
    return _cut(text)


def show_inputs(values: Mapping[str, Any]) -> dict[str, str]:
    """Do so with the first `MAX_VALUES` inputs, by name."""
    return {name: show_input(values[name]) for name in list(values)[:MAX_VALUES]}


def show_view(view: Any) -> str:
    """Return a view as text of at most `MAX_VALUE` characters, on several lines if it is long."""
    return _cut(pprint.pformat(to_printable(view), width=WIDTH, sort_dicts=False))


def _cut(text: str) -> str:
    if len(text) <= MAX_VALUE:
        return text
    return f"{text[:MAX_VALUE]}\n… {len(text) - MAX_VALUE:,} characters left out"


def show_views(views: Mapping[str, Any]) -> dict[str, str]:
    """Do so with the first `MAX_VALUES` values, by name."""
    return {name: show_view(views[name]) for name in list(views)[:MAX_VALUES]}
