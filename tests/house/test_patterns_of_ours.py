"""Our own regular expressions: each takes a time that grows like the text, however nasty."""

from __future__ import annotations

import ast
import importlib
import re
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flowq

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="nothing can end a pattern"
)
ROOT = Path(flowq.__file__).parent
LENGTH = 30_000
LIMIT_S = 60
"""Of CPU time, so that other processes do not count."""

METHODS = frozenset({"search", "match", "fullmatch", "sub", "split", "findall", "finditer"})
BOUNDED = {
    "replacing._LABEL": "it looks at the name of one job, in tests of users",
    "templates._STRING": "what it looks at has 4,000 characters",
    "grammar._HYPHENED_JOB": "an expression has 4,000 characters",
    "grammar._STRINGS": "an expression has 4,000 characters",
    "grammar._FOREIGN_SIGNS": "an expression has 4,000 characters",
    "yaml_text._TEXT_IN_BRACKETS": "what it looks at has 2,000 characters",
}
UNITS = [
    *("a", " ", "'", '"', "\\'", '\\"', "'\"", "{", "}", "${{", "$", "[", ":", "- ", "\n", " \n"),
    *("\t", "a.", "a-", "--", "0", "0.", "&a ", "!x #\n", "jobs", "{jobs", "\x1b[", "\x1b]", "\\"),
    *("(", "=", "=(", "a=", "import ", "from a import ", "\r\n", "# ", " a: ", "/", "@", "\u2028"),
    *("attempt 1 failed", "a.py:", 'File "', ", 1 ", "a:b", "A_", "1d", "%"),
]

TEXTS = [unit * (LENGTH // len(unit)) + "\x00x" for unit in UNITS]


@cache
def used_patterns() -> list[tuple[str, re.Pattern[str] | re.Pattern[bytes], str]]:
    """Return each pattern with its name and the way in which it is used."""
    return list(find_patterns())


def find_patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes], str]]:
    """Yield each pattern with its name and the way in which it is used."""
    for file in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        module = ".".join(("flowq", *file.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and node.attr in METHODS):
                continue
            if isinstance(node.value, ast.Name) and node.value.id.startswith("_"):
                found = getattr(importlib.import_module(module), node.value.id, None)
                if isinstance(found, re.Pattern):
                    yield f"{file.stem}.{node.value.id}", found, node.attr
        for call in ast.walk(tree):
            if _is_of_re(call) and isinstance(call.args[0], ast.Constant):
                pattern = re.compile(call.args[0].value)
                yield f"{file.stem}:{call.lineno}", pattern, call.func.attr


def _is_of_re(call: ast.AST) -> bool:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return False
    owner = call.func.value
    return isinstance(owner, ast.Name) and owner.id == "re" and call.func.attr in METHODS


def test_no_pattern_of_ours_takes_long_on_a_nasty_text() -> None:
    tried: list[str] = []

    def end(*_: object) -> None:
        raise AssertionError(f"this pattern does not come back: {tried[-1]}")

    used = {(p.pattern, m): (n, p, m) for n, p, m in used_patterns()}
    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        for name, pattern, method in used.values():
            if name not in BOUNDED:
                tried.append(name)
                _use(pattern, method)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert len(tried) > 40


def _use(pattern: re.Pattern[str] | re.Pattern[bytes], method: str) -> None:
    use = getattr(pattern, "findall" if method == "finditer" else method)
    for text in TEXTS:
        data = text if isinstance(pattern.pattern, str) else text.encode()
        use(*([data[:0]] if method == "sub" else []), data)


def test_every_pattern_that_is_left_out_is_there() -> None:
    names = {name for name, _, _ in used_patterns()}
    assert set(BOUNDED) - {"grammar._FOREIGN_SIGNS"} <= names
