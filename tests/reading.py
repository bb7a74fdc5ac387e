"""Workflows from texts in tests, read as `flowq check -` reads standard input."""

from __future__ import annotations

from io import BytesIO

from flowq.declare.yaml import read_stream
from flowq.errors import Problem, WorkflowInvalid
from flowq.spec import Workflow


def parse_workflow(text: str, file: str) -> Workflow:
    """Return the workflow of a text from `file`. Errors: WorkflowInvalid with all its problems."""
    workflow, problems = parse_partly(text, file)
    if problems:
        raise WorkflowInvalid(problems)
    return workflow


def parse_partly(text: str, file: str) -> tuple[Workflow, list[Problem]]:
    """Return the known part of the workflow of a text, and its problems."""
    return read_stream(BytesIO(text.encode("utf-8", "surrogatepass")), file)
