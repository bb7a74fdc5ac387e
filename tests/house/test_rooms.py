"""The rules of the house that no tool knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "flowq").rglob("*.py"))
BANNED_NAMES = {"utils", "helpers", "common", "base", "core", "types"}
LINE_LIMIT = 600


def test_no_file_is_two_ideas() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
        if (count := len(path.read_text("utf-8").splitlines())) > LINE_LIMIT
    }
    assert not long


def test_no_module_is_named_after_nothing() -> None:
    assert not [path for path in SOURCES if path.stem in BANNED_NAMES]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_and_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), "the module itself"
    missing = [name for name, node in _public(tree) if not ast.get_docstring(node)]
    assert not missing


Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Documented]]:
    for node in tree.body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef) and _is_overload(node):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            inherited = _documented_in_bases(node, tree)
            yield from (each for each in _public(node) if each[0] not in inherited)


def _documented_in_bases(node: ast.ClassDef, tree: ast.Module | ast.ClassDef) -> set[str]:
    """Return the names that a base in the same file explains already."""
    bases = {ast.unparse(base) for base in node.bases}
    found = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name in bases]
    return {name for base in found for name, one in _public(base) if ast.get_docstring(one)}


def _is_overload(node: ast.FunctionDef) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_every_ignore_carries_its_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"#\s*noqa(?!:)", line) or re.search(r"#\s*type:\s*ignore(?!\[)", line)
    ]
    assert not bare


def test_every_lua_file_says_what_it_is_for() -> None:
    for path in sorted((ROOT / "flowq" / "runtime" / "lua").glob("*.lua")):
        head = path.read_text("utf-8").split("\n\n", 1)[0]
        assert head.startswith(f"-- {path.name}: ")


def test_redis_keys_are_spelt_in_one_room() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name != "keys.py" and re.search(r"""["']rq:(?!job)""", path.read_text("utf-8"))
    ]
    assert not found
