"""Unknown names: how messages show them, and the most similar known name, for hints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_PLAIN = re.compile(r"[\w./:-]{1,80}")


def show_name(name: str) -> str:
    """Return a name for a message; an unusual name is quoted, and truncated if it is long."""
    if _PLAIN.fullmatch(name):
        return name
    return repr(name) if len(name) <= 80 else f"{name[:79]!r}…"


def find_nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `word`, or None."""
    by_folded = {_fold(name): name for name in reversed(list(known))}
    matches = get_close_matches(_fold(word), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the most similar known name, or all names if none is similar.

    Shape: empty if there are no known names; lists at most ten.
    """
    names = list(known)
    nearest = find_nearest(word, names)
    if nearest is not None:
        return f"did you mean {nearest!r}?"
    if not names:
        return ""
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:10])}{rest}"


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
