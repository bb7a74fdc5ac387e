"""Workflows from texts in tests, read as `flowq check -` reads standard input."""

from __future__ import annotations

from io import BytesIO

from flowq.declare.yaml import parse_workflow, read_stream
from flowq.errors import Problem
from flowq.spec import Workflow

__all__ = ["parse_partly", "parse_workflow"]


def parse_partly(text: str, file: str) -> tuple[Workflow, list[Problem]]:
    """Return the known part of the workflow of a text, and its problems."""
    return read_stream(BytesIO(text.encode("utf-8", "surrogatepass")), file)
