"""In the child: computes a digest of the code files that a job of a run executed.

These are the file of the function's module and those of the loaded modules that it imports, but
only the user's, not Python's or installed packages. Each file is read once, after the first job
that needed it, so the digest describes the code that the child loaded, even if the file changes
later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator

from flowq.workers.child.sources import find_source

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(?P<source>[.\w]+)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n;#]+)"
    rb"|import[ \t]+(?P<modules>[^\n;#]+))",
    re.MULTILINE,
)
_NAME = re.compile(rb"[.\w]+")
MAX_FILES = 200
MAX_TOLD = 10_000
"""How many digests are remembered as reported for their run, and not reported again."""

DIGITS = 12


class CodeDigest:
    """Digests of the code that the jobs of one process execute."""

    def __init__(self) -> None:
        self._digest_by_module: dict[str, str] = {}
        self._imports_by_module: dict[str, tuple[str, ...]] = {}
        self._told: set[tuple[str, str]] = set()
        self._last: dict[str, tuple[int, str, str]] = {}

    def describe(self, module: str, run_id: str) -> str:
        """Return the digest of the code of a function in that module; empty if it is not user code.

        When the digest is new for the run, the files follow: a JSON object, digest by file name.
        """
        count = len(sys.modules)
        known = self._last.get(module)
        if known is None or known[0] != count:
            files = dict(self._find_files(module))
            if not files:
                return ""
            table = json.dumps(files, sort_keys=True)
            known = self._last[module] = count, _digest(table.encode()), table
        _, digest, table = known
        if (run_id, digest) in self._told:
            return digest
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add((run_id, digest))
        return f"{digest} {table}"

    def _find_files(self, module: str) -> Iterator[tuple[str, str]]:
        """Yield name and digest of the module's file, and of all user files that it imports."""
        seen, left = {module}, [module]
        while left and len(seen) < MAX_FILES:
            name = left.pop()
            path = _find_file(name)
            if not path or not self._read(name, path):
                continue
            yield os.path.relpath(path), self._digest_by_module[name]
            news = [each for each in self._imports_by_module[name] if each not in seen]
            seen.update(news)
            left += news

    def _read(self, name: str, path: str) -> bool:
        if name not in self._digest_by_module:
            try:
                with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not loaded for this
                    text = file.read()
            except OSError:
                return False
            self._digest_by_module[name] = _digest(text)
            self._imports_by_module[name] = tuple(_find_imports(name, text))
        return True


def _find_imports(module: str, text: bytes) -> Iterator[str]:
    """Yield the names in the import statements of a module that may be modules, each once."""
    found: dict[str, None] = {}
    for match in _IMPORT.finditer(text):
        source, names = match["source"], match["names"]
        if source is None:
            whole = [part.split()[0] for part in match["modules"].split(b",") if part.split()]
            names_of = [each.decode(errors="replace") for each in whole]
        else:
            base = _absolute(module, source.decode(errors="replace"))
            inner = (each.decode(errors="replace") for each in _NAME.findall(names))
            names_of = [base, *(f"{base}.{each}" for each in inner)]
        for name in names_of:
            parts = name.split(".")
            found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from found


def _absolute(module: str, source: str) -> str:
    stem = source.lstrip(".")
    level = len(source) - len(stem)
    if not level:
        return source
    package = getattr(sys.modules.get(module), "__package__", None) or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - level + 1])
    return f"{base}.{stem}" if stem else base


def _find_file(name: str) -> str:
    path = find_source(name)
    return "" if path.startswith(_OURS) else path


_OURS = os.path.abspath(__file__).rpartition(os.path.join("workers", "child"))[0]  # noqa: PTH100, PTH118


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:DIGITS]
