"""How much is said: `-v`, `-q` and FLOWQ_LOG."""

from __future__ import annotations

import os
import sys

import click

from flowq.errors import UsageError

VARIABLE = "FLOWQ_LOG"
LEVELS = ("debug", "info", "warning", "error")

_is_verbose = False


def set_up(ctx: click.Context, param: click.Parameter, verbose: bool) -> bool:
    """Note `-v`, and send flowq's own log to stderr when it is asked for. A click callback."""
    global _is_verbose  # noqa: PLW0603 - one process, one command
    _is_verbose = _is_verbose or verbose
    level = _level()
    if level != "warning":
        _start_log(level)
    return verbose


def is_debugging() -> bool:
    """Whether tracebacks of unexpected errors are wanted."""
    return _is_verbose or _level() == "debug"


def _level() -> str:
    level = os.environ.get(VARIABLE, "").strip().lower() or "warning"
    if level not in LEVELS:
        raise UsageError(f"{VARIABLE} is {level!r}; it must be one of {', '.join(LEVELS)}")
    return level


def _start_log(level: str) -> None:
    import logging  # noqa: PLC0415 - not needed, and not loaded, by most commands

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger = logging.getLogger("flowq")
    logger.setLevel(level.upper())
    logger.addHandler(handler)
