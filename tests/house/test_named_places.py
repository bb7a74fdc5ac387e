"""Paths, functions and classes that comments, docstrings and pages name exist."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "flowq").rglob("*.py")) + sorted((ROOT / "flowq").rglob("*.lua"))
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / "tests" / name for name in ("README.md", "chaos/README.md")),
]
PLACE = re.compile(
    r"(?<![\w/.<$~:-])((?:[\w.-]+/)*[\w-]+\.(?:py|lua|md|toml))(?![\w.]*/)(?:::?([A-Za-z_]\w*(?:\.\w+)*))?"
)
"""`runtime/rq.py`, `lua/add.lua`, `runtime/rq.py:JobBase`."""


@cache
def tracked() -> frozenset[str]:
    """Return the paths of the repository, each also without the folders in front of it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    paths = set()
    for path in listed:
        if (ROOT / path).is_file():
            parts = path.split("/")
            paths |= {"/".join(parts[at:]) for at in range(len(parts))}
    return frozenset(paths)


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the prose of a file with its lines: of code, the comments and docstrings."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield node.lineno, str(node.value.value)
    else:
        mark = "--" if path.suffix == ".lua" else ""
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line[line.find(mark) :] if mark in line else ""


EXAMPLES = {"file.py:workflow", "file.py:name", "book.py:flow", "NAME_tasks.py", "_tasks.py"}
EXAMPLES |= {"integrations/rq.py", "manage.py", "workflows.py"}  # of Sentry and of Django
EXAMPLES |= {"pipeline.py", "script.py", "tasks.py"}  # of users
SHOWN = re.compile(r"^# (?:file: )?([\w/.-]+\.\w+)$", re.MULTILINE)
"""The first line of a block that shows a file: the page may name that file."""

DOTTED = re.compile(r"`(?:(flowq(?:\.\w+)+)|(\w+)\.(?!(?:py|lua)`)(\w+))(?:\(.*?\))?`")
"""`flowq.runtime.queue.Queue`, `keys.job()`."""

WORDS_OF_THE_LANGUAGE = {"inputs", "job", "jobs", "json", "matrix", "rq", "run"}
"""Modules whose names are also values in expressions, or other packages."""


def exists(folder: Path, path: str, name: str) -> bool:
    """Return whether a file with that path is there, and has a function or class of that name."""
    found = [ROOT / each for each in tracked() if each == path or each.endswith(f"/{path}")]
    found = [each for each in (folder / path, *found) if each.is_file()]
    last = name.rpartition(".")[2]
    defines = rf"(?:def|class|function) (?:[\w.]+[.:])?{last}\b|^ *{last}\b.* ="
    return any(
        not name or re.search(defines, each.read_text("utf-8"), flags=re.MULTILINE)
        for each in found
    )


@cache
def shown_in(page: Path) -> frozenset[str]:
    """Return the names of the files that a page shows in its blocks."""
    return frozenset(SHOWN.findall(page.read_text("utf-8")) if page.suffix == ".md" else ())


def test_every_path_that_is_named_exists_with_what_is_named_in_it() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {place[0]}"
        for path in [*SOURCES, *PAGES]
        for line, text in words(path)
        for place in PLACE.finditer(text)
        if place[0] not in EXAMPLES and place[1] not in shown_in(path)
        if not exists(path.parent, place[1], place[2] or "")
    ]
    assert not missing


@cache
def names_by_module() -> dict[str, set[str]]:
    """Return the words in the modules of flowq with each name; those of one name together."""
    names: dict[str, set[str]] = {}
    for path in SOURCES:
        stem = path.parent.name if path.stem == "__init__" else path.stem
        names.setdefault(stem, set()).update(re.findall(r"[A-Za-z_]\w*", path.read_text("utf-8")))
    return names


def is_known(named: re.Match[str]) -> bool:
    """Return whether a name with dots is a module, or a name in one."""
    if not named[1]:
        known = names_by_module()
        skipped = named[2] in WORDS_OF_THE_LANGUAGE or named[2] not in known
        return skipped or named[3] in known[named[2]]
    parts = named[1].split(".")
    folder = ROOT.joinpath(*parts)
    if folder.is_dir() or folder.with_suffix(".py").is_file():
        return True
    module = ROOT.joinpath(*parts[:-1])
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return file.is_file() and parts[-1] in re.findall(r"\w+", file.read_text("utf-8"))


def test_every_function_that_is_named_with_its_module_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {named[0]}"
        for path in SOURCES
        for line, text in words(path)
        for named in DOTTED.finditer(text)
        if not is_known(named)
    ]
    assert not missing
