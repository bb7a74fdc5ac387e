"""Labels of runs: texts by name, for people and programs that look for runs.

A workflow declares labels, and a submission can add more; the same limits apply to both. An empty
value means that the run has no such label, so it also removes a declared one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowq.errors import UsageError

MAX_LABELS = 32
"""How many labels one workflow declares, and one submission gives."""

MAX_NAME = 100
MAX_VALUE = 200
"""Characters."""

NAME = rf"[A-Za-z0-9](?:[A-Za-z0-9_./-]{{0,{MAX_NAME - 2}}}[A-Za-z0-9])?"
"""The pattern of a whole name; a name of Kubernetes fits, such as `app.example.com/team`."""

_NAME = re.compile(NAME)


def explain_name(name: str) -> str:
    """Return why a text cannot be the name of a label, or ""."""
    if _NAME.fullmatch(name):
        return ""
    if len(name) > MAX_NAME:
        return f"it has {len(name):,} characters, and {MAX_NAME} are allowed"
    return "it consists of letters, digits and _ . / -, and begins and ends with a letter or digit"


def explain_value(value: str) -> str:
    """Return why a text cannot be the value of a label, or ""."""
    if len(value) > MAX_VALUE:
        return f"it has {len(value):,} characters, and {MAX_VALUE} are allowed"
    return "" if value.isprintable() else "it must be one line, without control characters"


def check_labels(labels: Any) -> dict[str, str]:
    """Return the labels that a submission gives, or a list of runs is filtered by.

    Errors: UsageError for anything but a mapping of names to texts within the limits.
    """
    if not isinstance(labels, Mapping | None):
        raise UsageError(f'labels are a mapping, such as {{"team": "data"}}, not {labels!r:.200}')
    for name, value in (labels or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            told = f"{name!r:.100}: {value!r:.100}"
            raise UsageError(f"the name and the value of a label are texts, not {told}")
        if reason := explain_name(name):
            raise UsageError(f"{name!r:.120} cannot be the name of a label: {reason}")
        if reason := explain_value(value):
            raise UsageError(f"the value of the label {name} cannot be used: {reason}")
    if labels and len(labels) > MAX_LABELS:
        raise UsageError(f"{len(labels):,} labels are given, and {MAX_LABELS} are allowed")
    return dict(labels or {})


def add_labels(labels: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return labels with further ones, which replace those of the same name."""
    return {name: value for name, value in {**labels, **more}.items() if value}
