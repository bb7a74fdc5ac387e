"""What the digest of a job's code covers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from flowq.workers.child.code_digest import CodeDigest

FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": "from shop.settings import (\n    TAX,  # a number, which does not tell\n)\n",
    "shop/settings.py": "import json, sys\nfrom . import deep\nTAX = 19\n",
    "shop/deep.py": "import redis\n",
    "shop/other.py": "",
    "late.py": "def f():\n    import later\n",
    "later.py": "",
}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules that import each other."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("shop", "late", "later")]:
        del sys.modules[name]


def _files(told: str) -> set[str]:
    return set(json.loads(told.partition(" ")[2]))


def test_it_covers_what_a_module_imports_and_nothing_of_python_or_of_packages() -> None:
    import_module("shop.other")
    import_module("shop.prices")
    expected = {"shop/__init__.py", "shop/prices.py", "shop/settings.py", "shop/deep.py"}
    assert _files(CodeDigest().describe("shop.prices", "run")) == expected
    assert CodeDigest().describe("json", "run") == ""
    assert CodeDigest().describe("flowq.runtime.work", "run") == ""
    assert CodeDigest().describe("", "run") == ""


def test_the_files_are_told_once_for_each_run() -> None:
    import_module("shop.prices")
    code = CodeDigest()
    first, second = code.describe("shop.prices", "run"), code.describe("shop.prices", "run")
    assert first.startswith(f"{second} {{")
    assert code.describe("shop.prices", "another") == first
    assert code.describe("shop.prices", "run") == second


def test_what_a_function_imports_when_it_is_called_counts_from_then_on() -> None:
    late = import_module("late")
    code = CodeDigest()
    assert _files(code.describe("late", "run")) == {"late.py"}
    late.f()
    assert _files(code.describe("late", "run")) == {"late.py", "later.py"}


def test_another_text_of_something_imported_is_another_digest(shop: Path) -> None:
    import_module("shop.prices")
    code = CodeDigest()
    before = code.describe("shop.prices", "run").split()[0]
    (shop / "shop" / "deep.py").write_text("import redis  # edited\n")
    assert code.describe("shop.prices", "run").split()[0] == before, "this process has the old code"
    assert CodeDigest().describe("shop.prices", "run").split()[0] != before
