"""Attributes of an object are assigned only in the file that defines its class.

Only assignments and deletions are found, not calls that change a list or a dict of another object.
What follows from a start method is in one table: that is for all folders.

Types are not known here, so a write counts as foreign when a class of flowq's defines an attribute
of that name, and no class in this file does. Attributes that none of flowq's classes define belong
to RQ, redis-py or Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "flowq"
FILES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]

ALLOWED = {
    # RQ's attributes of a job or an execution, which RQ sets from outside as well:
    "ended_at": "RQ's job",
    "started_at": "RQ's job",
    "created_at": "RQ's job, RQ's execution",
    "enqueued_at": "RQ's job",
    "description": "RQ's job",
    "worker_name": "RQ's job",
    "timeout": "RQ's job",
    "origin": "RQ's job",
    "args": "RQ's job, Python's exceptions",
    "kwargs": "RQ's job",
    "id": "RQ's job, RQ's execution",
    "job_id": "RQ's execution",
    "log": "RQ's worker",
    "parent": "Python's loggers",
    "connection_class": "redis-py's pool",
    "body": "Starlette's state of a request",
}
"""Names that a class of flowq's defines too, for objects that are not of such a class."""

EXCEPTIONS = {
    # Set for each job that is executed, where a call would cost more than the assignment:
    "job.knows_itself",
    "job.name",
    "self._text.value",  # of a ctypes array
    "value.value",  # of an object of Sentry's
}


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def find_defined(tree: ast.Module) -> set[str]:
    """Return the names of the attributes that the classes of a file define."""
    found: set[str] = set()
    for defined in ast.walk(tree):
        if not isinstance(defined, ast.ClassDef):
            continue
        for statement in defined.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found.add(statement.target.id)
            if isinstance(statement, ast.Assign):
                found |= {each.id for each in statement.targets if isinstance(each, ast.Name)}
            if isinstance(statement, ast.FunctionDef) and statement.decorator_list:
                found |= {statement.name} & find_setters(defined)
        found |= {name.attr for name in find_stores(defined) if is_self(name.value)}
    return found


def find_setters(defined: ast.ClassDef) -> set[str]:
    return {
        each.name
        for each in defined.body
        if isinstance(each, ast.FunctionDef)
        and any(ast.unparse(one).endswith(".setter") for one in each.decorator_list)
    }


def find_stores(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield the attributes that are assigned to, or deleted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


@cache
def read_trees() -> dict[str, ast.Module]:
    """Parse all files: not when pytest collects the tests, which each of its processes does."""
    return {name: ast.parse((PACKAGE / name).read_text("utf-8")) for name in FILES}


@cache
def read_defined() -> dict[str, set[str]]:
    return {name: find_defined(tree) for name, tree in read_trees().items()}


def find_foreign_writes(name: str, tree: ast.Module) -> list[str]:
    defined = read_defined()
    others: set[str] = set().union(*(names for each, names in defined.items() if each != name))
    return [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for node in find_stores(tree)
        if not is_self(node.value)
        and node.attr in others - defined.get(name, set())
        and node.attr not in ALLOWED
        and ast.unparse(node) not in EXCEPTIONS
    ]


@pytest.mark.parametrize("name", FILES)
def test_an_object_is_changed_only_where_its_class_is_defined(name: str) -> None:
    assert find_foreign_writes(name, read_trees()[name]) == [], "give its class a method for that"


def test_a_write_from_another_file_is_found() -> None:
    tree = ast.parse("def f(child, job):\n    child.load_s = 0.0\n    job.ended_at = None\n")
    assert find_foreign_writes("workers/other.py", tree) == ["workers/other.py:2: child.load_s"]


def find_mode_names(tree: ast.Module) -> Iterator[int]:
    """Yield the lines on which something is compared with, or looked up by, the name of a mode."""
    for node in ast.walk(tree):
        compared: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            compared = [*node.keys]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        names = [one for each in compared if each for one in ast.walk(each)]
        if any(isinstance(one, ast.Constant) and one.value in MODES for one in names):
            yield node.lineno


MODES = {"fork", "warm", "multiprocessing"}
TABLE = "workers/processes/__init__.py"


def test_what_follows_from_a_start_method_stands_in_its_table_only() -> None:
    trees = read_trees()
    found = {name: lines for name, tree in trees.items() if (lines := [*find_mode_names(tree)])}
    assert found.pop(TABLE)
    # `--multiprocessing` and `--mode` exclude each other:
    assert len(found.pop("cli/worker.py")) == 1
    assert not found
