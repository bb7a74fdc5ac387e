"""What a built sdist and wheel contain: `python tests/release/contents.py SOURCE DIST`.

`.ci/release` runs it after a build. It raises when the wheel lacks a file of the package, or has
one that is not the package's, and when the sdist cannot be used to build, read or run the project.
"""

from __future__ import annotations

import email
import sys
import tarfile
import zipfile
from pathlib import Path

IN_SDIST = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "flowq/py.typed")


def check_wheel(source: Path, wheel: Path) -> None:
    """Compare the wheel with the package's folder, file by file, and read its metadata."""
    expected = {
        str(file.relative_to(source))
        for file in (source / "flowq").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        packed = {name for name in names if not name.startswith(f"{info}/")}
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert packed == expected, sorted(packed ^ expected)
    assert f"{info}/entry_points.txt" in names
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"]
    assert metadata.get_all("Project-URL")
    assert wheel.name.startswith(f"rq_flowq-{metadata['Version']}-")


def check_sdist(sdist: Path) -> None:
    """Look for the files that a build, a packager or a reader needs."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in IN_SDIST if name not in names]
    assert not missing, missing
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(".venv")]


def main() -> None:
    """Check the one wheel and the one sdist of a folder."""
    source, folder = map(Path, sys.argv[1:])
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    check_wheel(source, wheel)
    check_sdist(sdist)
    print(f"{wheel.name} and {sdist.name} are complete")


if __name__ == "__main__":
    main()
