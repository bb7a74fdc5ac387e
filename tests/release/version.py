"""Check that a tag, the package and the changelog name one version.

`.github/workflows/release.yml` calls it: `python tests/release/version.py v0.2.0`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Exit with a sentence when one says something else, or addresses are missing."""
    version = sys.argv[1].removeprefix("v")
    package = (ROOT / "flowq" / "_version.py").read_text("utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    if f'__version__ = "{version}"' not in package:
        raise SystemExit(f"flowq/_version.py does not say {version}")
    if not re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        raise SystemExit(f"CHANGELOG.md has no heading `## {version} - YYYY-MM-DD`")
    for name in ("Source", "Changelog", "Documentation"):
        if not re.search(rf'^"?{name}"? = "https://', project, re.MULTILINE):
            raise SystemExit(f"pyproject.toml, [project.urls]: there is no {name}")
    print(f"{version} can be released")


if __name__ == "__main__":
    main()
