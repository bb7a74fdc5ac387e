"""Where in a command an expression stands: a quoted word is one only outside of other quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flowq.expressions.templates import Expression, split

_MARK = "\0"
_PLAIN = re.compile(
    r"""\\.|(?<!<)<<(?P<dash>-?)[ \t]*(?P<q>['"\\]?)(?P<end>[A-Za-z_]\w*)(?:['"])?"""
    r"""|\$?\(|\)|\$?'|["`\n\0]|(?<![^\s;&|()])\#[^\n]*""",
    re.DOTALL,
)
_TOKENS_BY_CONTEXT = {
    "'": re.compile(r"['\0]"),
    "$'": re.compile(r"\\.|['\0]", re.DOTALL),
    '"': re.compile(r"\\.|\$\(|[\"`\0]", re.DOTALL),
}
_CLOSED_BY = {"'": "'", "$'": "'", '"': '"', "`": "`", "(": ")", "$(": ")"}
_QUOTES = frozenset({"'", "$'", '"', "`"})


def find_unsafe(command: str) -> list[tuple[int, Expression]]:
    r"""Return the expressions of a command whose value its quotes would not hold, with numbers.

    A value is filled in as a word in quotes of its own. Within other quotes, backticks, a comment
    or a here-document, or behind a \, these end early or mean nothing, and data could become code.

    Errors: Refused for an expression that is not closed.
    """
    parts = split(command)
    expressions = [part for part in parts if isinstance(part, Expression)]
    if not expressions:
        return []
    text = "".join(part.replace(_MARK, "") if isinstance(part, str) else _MARK for part in parts)
    judged = zip(enumerate(expressions), _judge(text), strict=False)
    return [expression for expression, unsafe in judged if unsafe]


def _judge(text: str) -> Iterator[bool]:
    """Say of each mark, in order, whether it stands where quotes do not hold."""
    contexts: list[str] = []
    endings: list[str] = []
    at = 0
    while found := _TOKENS_BY_CONTEXT.get(contexts[-1] if contexts else "", _PLAIN).search(
        text, at
    ):
        token, at = found.group(), found.end()
        if token == _MARK:
            yield not _QUOTES.isdisjoint(contexts[-1:]) or "`" in contexts
        elif token.isspace():
            body = _find_documents(text, at, endings)
            yield from (True for _ in range(text.count(_MARK, at, body)))
            at, endings = body, []
        elif found.groupdict().get("end"):
            endings.append(found.group("end"))
        else:
            yield from (True for _ in range(token.count(_MARK)))  # in a comment, or behind a \
            _step(contexts, token)


def _step(contexts: list[str], token: str) -> None:
    if contexts and token == _CLOSED_BY[contexts[-1]]:
        contexts.pop()
    elif token in _CLOSED_BY:
        contexts.append(token)


def _find_documents(text: str, at: int, endings: list[str]) -> int:
    """Return where the here-documents end that begin in this line."""
    for ending in endings:
        last = re.compile(rf"^\t*{ending}$", re.MULTILINE).search(text, at)
        at = last.end() if last else len(text)
    return at
