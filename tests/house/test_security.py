"""The promises of SECURITY.md name tests that exist, and docs/security.md lists what is read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flowq.runtime.unpickling import PLAIN

ROOT = Path(__file__).parents[2]
TABLE = re.search(
    r"## What is promised\n(.*?)\n## ", (ROOT / "SECURITY.md").read_text("utf-8"), re.S
)
assert TABLE is not None
ROWS = [line for line in TABLE[1].splitlines() if line.startswith("| ")][1:]
NAMED = re.findall(r"`(tests/[^`]*)`", TABLE[1])


def test_each_promise_names_a_test() -> None:
    assert len(ROWS) > 10
    assert [row for row in ROWS if "`tests/" not in row] == []
    assert len(set(NAMED)) == len(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_a_promise_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    defined = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert function in defined
    marks = [ast.unparse(mark) for mark in defined[function].decorator_list]
    assert [
        mark for mark in marks if mark.startswith(("pytest.mark.skip(", "pytest.mark.xfail"))
    ] == []


def test_the_types_that_data_may_have_are_listed_for_users() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    listed = ("collections", "datetime", "decimal", "fractions", "types", "uuid", "zoneinfo")
    names = {name for module in listed for name in PLAIN[module]} - {"SafeUUID"}
    assert sorted(name for name in names if f"`{name}`" not in text) == []
    for module in PLAIN.keys() - {"builtins", *listed, "flowq.runtime.waiting", "rq.job"}:
        assert f"`{module}`" in text, module
