"""Leaves a mark when it is imported."""

import os
from pathlib import Path

if mark := os.environ.get("FORBIDDEN_MARK"):
    Path(mark).touch()


class Thing:
    """A class."""

    def method(self) -> None:
        """Do nothing."""


def run(*_: object) -> None:
    """Be called."""
