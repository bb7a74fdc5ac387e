"""A workflow as YAML text: reading the text gives the same workflow, without its comments.

`flowq export` uses it. Texts are quoted only if YAML would read them differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowq.declare.document import Section, write_declaration
from flowq.declare.nodes import resolve, write_scalar
from flowq.spec import Workflow

WIDTH = 88
"""The maximum width of a map or list in flow style."""

_PLAIN = re.compile(r"[^\W\d]|[\w$./(~+][^\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]*[^\s:]")
_PLAIN_IN_FLOW = re.compile(r"[\w./~+-]([\w./ ~+*()=<>%@-]*[\w./~+)-])?")
_DANGEROUS = re.compile(r": |:\t| #|\t")
_UNPRINTABLE = re.compile("[\x7f-\x9f\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NO_LITERAL = re.compile(
    "[^\n\x20-\x7e\xa1-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_FLOW_DEPTH = 2


def export_yaml(workflow: Workflow) -> str:
    """Return a workflow as YAML text.

    Nested workflows from files are named, not copied: the text belongs beside these files.
    """
    return emit({"name": workflow.name, **write_declaration(workflow)})


def emit(document: Mapping[str, Any]) -> str:
    """Return a map as YAML text, with blank lines around its larger entries."""
    lines: list[str] = []
    for key, value in document.items():
        part = list(_entry(key, value, 0))
        if lines and (len(part) > 1 or lines[-1].startswith(" ")):
            lines.append("")
        lines += part
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    head = f"{' ' * indent}{_scalar(key, in_flow=True)}:"
    inline = _inline(value, WIDTH - len(head) - 1)
    if inline is not None:
        yield f"{head} {inline}"
    elif isinstance(value, str):
        yield f"{head} {_chomping(value)}"
        yield from _literal(value, indent + 2)
    else:
        yield head
        yield from _block(value, indent + 2)


def _block(value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for position, (key, item) in enumerate(value.items()):
            part = list(_entry(key, item, indent))
            if position and isinstance(item, Section):
                yield ""
            yield from part
    else:
        for item in value:
            yield from _item(item, indent)


def _item(value: Any, indent: int) -> Iterator[str]:
    dash = f"{' ' * indent}- "
    inline = _inline(value, WIDTH - len(dash))
    if inline is not None:
        yield dash + inline
    elif isinstance(value, str):
        yield dash + _chomping(value)
        yield from _literal(value, indent + 2)
    else:
        first, *rest = _block(value, indent + 2)
        yield dash + first.lstrip(" ")
        yield from rest


def _inline(value: Any, width: int) -> str | None:
    """Return a value on one line, or None if it needs several."""
    if isinstance(value, str):
        # A text of several lines is written as a literal block, if it can be.
        is_long = "\n" in value.rstrip("\n") and not value.endswith("\n\n")
        is_literal = is_long and value[0] not in " \n" and _NO_LITERAL.search(value) is None
        return None if is_literal else _scalar(value)
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value)
    if isinstance(value, Section) and value:
        return None
    text = _flow(value)
    is_short = len(text) <= width and _depth(value) <= _FLOW_DEPTH
    return text if is_short or not value else None


def _depth(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_scalar(key, in_flow=True)}: {_flow(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value, in_flow=True)


def _scalar(value: Any, *, in_flow: bool = False) -> str:
    if not isinstance(value, str):
        return write_scalar(value)
    if _is_plain(value, in_flow):
        return value
    return _UNPRINTABLE.sub(_escape, json.dumps(value, ensure_ascii=False))


def _is_plain(text: str, in_flow: bool) -> bool:
    pattern = _PLAIN_IN_FLOW if in_flow else _PLAIN
    if pattern.fullmatch(text) is None or _DANGEROUS.search(text):
        return False
    return isinstance(resolve(text), str) and not text.startswith(("-", "..."))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _chomping(text: str) -> str:
    return "|" if text.endswith("\n") else "|-"


def _literal(text: str, indent: int) -> Iterator[str]:
    lines = text.removesuffix("\n").split("\n")
    return (" " * indent + line if line else "" for line in lines)
