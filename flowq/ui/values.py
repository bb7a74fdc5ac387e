"""How values of jobs and runs look on a page: views as text, with bounds. Nothing is unpickled."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Any

from flowq.runtime.views import to_printable

MAX_VALUE = 8_000
"""Characters of one value."""

MAX_VALUES = 100


def show_view(view: Any) -> str:
    """Return a view as text of at most `MAX_VALUE` characters, on several lines if it is long."""
    text = pprint.pformat(to_printable(view), width=100, sort_dicts=False)
    if len(text) <= MAX_VALUE:
        return text
    return f"{text[:MAX_VALUE]}\n… {len(text) - MAX_VALUE:,} characters left out"


def show_views(views: Mapping[str, Any]) -> dict[str, str]:
    """Do so with the first `MAX_VALUES` values, by name."""
    return {name: show_view(views[name]) for name in list(views)[:MAX_VALUES]}
