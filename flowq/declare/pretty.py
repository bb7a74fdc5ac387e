"""Python code in lines that fit: what is too long for one is spread over several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A call, a list or a dict. Shape: each item with what stands before it, such as `key=`."""

    opening: str
    items: Sequence[tuple[str, Code]]
    closing: str


Code = str | Bracketed


def write_code(code: Code, prefix: str = "", suffix: str = "", indent: int = 0) -> Iterator[str]:
    """Yield the lines of a piece of code, between a prefix and a suffix."""
    flat = f"{prefix}{_flat(code)}{suffix}"
    if isinstance(code, str) or indent + len(flat) <= WIDTH or not code.items:
        yield " " * indent + flat
        return
    yield " " * indent + prefix + code.opening
    for before, item in code.items:
        yield from write_code(item, before, ",", indent + 4)
    yield " " * indent + code.closing + suffix


def _flat(code: Code) -> str:
    if isinstance(code, str):
        return code
    items = ", ".join(f"{before}{_flat(item)}" for before, item in code.items)
    return f"{code.opening}{items}{code.closing}"


def literal(text: str) -> str:
    """Return a text as a Python literal, with double quotes where they need no escape."""
    shown = repr(text)
    if shown[0] == "'" and '"' not in shown:
        return '"' + shown[1:-1].replace("\\'", "'") + '"'
    return shown
