"""docs/architecture.md covers every module, and each step of its walks names a function."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PLAN = PAGE[PAGE.index("## The floor plan") : PAGE.index("**declare**")]
WALKS = re.findall(r"^### (An? .+)\n\n((?:\d+\. .+\n(?:   .+\n)*)+)", PAGE, flags=re.MULTILINE)


def test_every_package_and_module_is_in_the_floor_plan() -> None:
    rooms = {
        f"flowq/{path.name}/" if path.is_dir() else f"flowq/{path.name}"
        for path in (ROOT / "flowq").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.name[:2] != "__"
    }
    assert rooms - {"flowq/_version.py"} == set(re.findall(r"`(flowq/[\w.]+/?)`", PLAN))


@pytest.mark.parametrize("name", ["runtime", "server", "workers"])
def test_the_first_lines_of_a_large_package_name_each_of_its_modules(name: str) -> None:
    folder = ROOT / "flowq" / name
    text = (folder / "__init__.py").read_text("utf-8").split('"""')[1]
    modules = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    named = set(re.findall(r"\w+(?:\.py|/)", text))
    assert (modules | folders) - named == set()


def test_there_are_three_walks() -> None:
    assert len(WALKS) == 3


@pytest.mark.parametrize(("title", "steps"), WALKS, ids=[title for title, _ in WALKS])
def test_each_step_names_a_function(title: str, steps: str) -> None:
    """Whether these exist is checked where all named places are (test_named_places.py)."""
    each = re.split(r"^\d+\. ", steps, flags=re.MULTILINE)[1:]
    assert len(each) >= 5
    assert not [step for step in each if not re.search(r"`flowq/[\w/]+\.(py|lua):[\w.]+`", step)]
