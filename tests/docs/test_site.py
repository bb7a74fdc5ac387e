"""The documentation builds as a site, and what is generated in it is current."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.pages import DOCS, ROOT, find_pages

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """In strict mode a page without a place, and a link that leads nowhere, are errors.

    Not with `-q`, which hides warnings from the strict mode too.
    """
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    first = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "A workflow language for deferred job graphs" in first


@pytest.mark.parametrize("page", find_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_in_the_repository(page: Path) -> None:
    """The site checks its own; on a page of Markdown they are links between files."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in LINK.findall(text):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file.read_text("utf-8")), f"{target}#{anchor}"


def anchors_of(text: str) -> set[str]:
    return {*re.findall(r'<a id="([^"]+)">', text), *map(slug, HEADING.findall(text))}


def slug(heading: str) -> str:
    """Return the anchor that GitHub, and the site, give to a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def test_the_page_of_commands_is_current() -> None:
    tool = DOCS / "tools" / "commands.py"
    written = runpy.run_path(str(tool))["write_page"]()
    page = DOCS / "reference" / "commands.md"
    assert page.read_text("utf-8") == written, f"python {tool} > {page}"


def test_a_recording_shows_what_a_command_printed(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    program = "import time; print('\\x1b[2mone'); time.sleep(0.2); print('\\x1b[1A\\x1b[2Ktwo <3')"
    tool = [sys.executable, str(DOCS / "tools" / "record.py"), str(picture)]
    subprocess.run([*tool, sys.executable, "-c", program], check=True)
    drawn = ElementTree.parse(picture).getroot()
    texts = ["".join(each.itertext()) for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "two <3"} <= set(texts)
    assert "prefers-reduced-motion" in picture.read_text("utf-8")


def test_the_recording_of_the_readme_is_of_a_run_that_succeeded() -> None:
    drawn = ElementTree.parse(DOCS / "run.svg").getroot()
    texts = " ".join(drawn.itertext())
    assert "flowq run workflows/gallery.yaml" in texts
    assert "gallery succeeded" in texts
