"""Print sizes, functions called once, and the share of explanation, for each room of flowq.

    poe report

A report and not a gate: a gate would be met by padding.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flowq"
SHORT_LINES = 40
LONG_LINES = 600
LONG_FUNCTION_LINES = 60
WORD = re.compile(r"\w+")


class Room(NamedTuple):
    """The figures of one folder; functions are named `module:function`."""

    files: int
    lines: int
    short_files: list[str]
    long_files: list[str]
    long_functions: list[str]
    functions: int
    called_once: list[str]
    """Private functions whose name stands in the room twice: where it is defined and used."""
    explanation: float
    """The share of lines that are comments or docstrings."""


def explained_lines(text: str, tree: ast.Module) -> int:
    """Count the lines with a comment, or in a docstring or a string that explains a value."""
    lines = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def describe(paths: list[Path]) -> Room:
    """Return the figures of some Python files."""
    text_by_path = {path: path.read_text("utf-8") for path in paths}
    used = Counter(word for text in text_by_path.values() for word in WORD.findall(text))
    lines = explained = 0
    short, long, long_functions, functions, once = [], [], [], 0, []
    for path, text in text_by_path.items():
        tree = ast.parse(text)
        count = len(text.splitlines())
        lines += count
        explained += explained_lines(text, tree)
        if count < SHORT_LINES and path.stem not in ("__init__", "__main__"):
            short.append(path.name)
        if count > LONG_LINES:
            long.append(path.name)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            functions += 1
            name = f"{path.stem}:{node.name}"
            if (node.end_lineno or node.lineno) - node.lineno + 1 > LONG_FUNCTION_LINES:
                long_functions.append(name)
            is_private = node.name.startswith("_") and not node.name.startswith("__")
            if is_private and used[node.name] <= 2:
                once.append(name)
    share = explained / max(lines, 1)
    return Room(len(paths), lines, short, long, long_functions, functions, once, share)


def rooms() -> dict[str, list[Path]]:
    """Return the files of each folder of flowq, and of the modules beside these folders."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts
        found.setdefault(inside[0] if len(inside) > 1 else "(modules)", []).append(path)
    return found


def main() -> None:
    """Print a line for each room, one for all of them, and the names behind the figures."""
    described = {name: describe(paths) for name, paths in rooms().items()}
    described["flowq"] = describe(sorted(PACKAGE.rglob("*.py")))
    print(f"{'room':<12} {'files':>5} {'lines':>6} {'functions':>9} {'called once':>11} explained")
    for name, room in described.items():
        share = len(room.called_once) / max(room.functions, 1)
        print(
            f"{name:<12} {room.files:>5} {room.lines:>6} {room.functions:>9} "
            f"{len(room.called_once):>5} {share:>5.0%} {room.explanation:>9.1%}"
        )
    lua = sorted((PACKAGE / "runtime" / "lua").glob("*.lua"))
    lua_lines = sum(len(path.read_text("utf-8").splitlines()) for path in lua)
    print(f"{'(Lua)':<12} {len(lua):>5} {lua_lines:>6}")
    whole = described["flowq"]
    for title, names in (
        (f"under {SHORT_LINES} lines", whole.short_files),
        (f"over {LONG_LINES} lines", whole.long_files),
        (f"functions over {LONG_FUNCTION_LINES} lines", whole.long_functions),
    ):
        print(f"{title}: {', '.join(names) or 'none'}")


if __name__ == "__main__":
    main()
