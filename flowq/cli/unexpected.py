"""Errors that no command expected: a full disk, a broken installation, a mistake of flowq."""

from __future__ import annotations

import traceback

from flowq.cli import verbosity

EXIT_CODE = 1


def explain(error: Exception) -> str:
    """Return what to say about the error, with its traceback under `-v` or FLOWQ_LOG=debug."""
    trace = "".join(traceback.format_exception(error)) if verbosity.is_debugging() else ""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{trace}flowq: {text}"
    hint = "" if trace else ", with what the same command says with FLOWQ_LOG=debug"
    return (
        f"{trace}flowq: unexpected {type(error).__name__}: {text}\n"
        f"  this is a mistake of flowq; please report it{hint}"
    )
