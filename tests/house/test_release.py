"""What a release needs: one version, a changelog in the usual form, complete package data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import flowq

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_version_is_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    files = [path for path in (ROOT / "flowq").rglob("*.py") if path.name != "_version.py"]
    texts = [*files, ROOT / "README.md", ROOT / "pyproject.toml"]
    assert [p for p in texts if f'"{flowq.__version__}"' in p.read_text("utf-8")] == []


def test_the_changelog_has_the_usual_form() -> None:
    releases = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", each) for each in releases[1:])
    kinds = re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    lost = re.findall(r"^### Unreleased|^<<<<<<<|^>>>>>>>", CHANGELOG, re.MULTILINE)
    assert lost == []


def test_every_file_of_the_package_is_packed() -> None:
    """`.ci/release` compares a real wheel with the folder; this says so before."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["flowq"]
    folder = ROOT / "flowq"
    left_out = [
        name
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
        if not any(fnmatch(name := str(path.relative_to(folder)), each) for each in patterns)
    ]
    assert left_out == []


def test_every_package_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "flowq").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_classifiers_name_pythons_that_are_allowed_and_tried() -> None:
    classified = {
        each.rpartition(" :: ")[2]
        for each in PROJECT["project"]["classifiers"]
        if re.search(r"Python :: 3\.\d+$", each)
    }
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert min(classified, key=_number) == lowest
    tried = set(re.findall(r'"(3\.\d+)"', (ROOT / ".github/workflows/tests.yml").read_text()))
    assert classified <= tried


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_files_that_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    document = yaml.safe_load(text)
    assert document["permissions"] == {"contents": "read"}
    for name in re.findall(r"(?:\.ci|tests)/[\w./]+", text):
        assert (ROOT / name).exists(), name


def test_a_tag_without_its_changelog_is_refused() -> None:
    script = ROOT / "tests" / "release" / "version.py"
    tag = f"v{flowq.__version__}.999"
    done = subprocess.run(
        [sys.executable, str(script), tag], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"flowq/_version.py does not say {tag[1:]}"
