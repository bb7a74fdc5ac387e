"""Hides secrets in the events of Sentry's SDK, if a job has imported that.

These events contain more than the exception: local variables, log messages, commands. They are
masked before they are sent. Other tools get the exception, which is masked itself (errors.py).
"""

from __future__ import annotations

import sys
from typing import Any

from flowq.runtime.masking import Mask

_sent = Mask()
_is_added = False


def hide_from_reporters(values: list[str]) -> None:
    """Hide these values in all events from now on."""
    global _is_added  # noqa: PLW0603 - a process has one list of processors
    _sent.add(values)
    if _is_added or "sentry_sdk" not in sys.modules:
        return
    from sentry_sdk.scope import add_global_event_processor  # noqa: PLC0415 - as the user has it

    add_global_event_processor(lambda event, _hint: _hidden(event))
    _is_added = True


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return _sent.hide(value)
    if isinstance(value, bytes):
        return _sent.hide_bytes(value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _hidden(value[key])
    elif isinstance(value, list):
        value[:] = map(_hidden, value)
    elif isinstance(value, tuple):
        return tuple(map(_hidden, value))
    elif hasattr(value, "value") and type(value).__name__ == "AnnotatedValue":
        value.value = _hidden(value.value)
    return value
