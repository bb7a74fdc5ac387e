"""The workflows that may be submitted: those of the YAML files in a folder that the page was given.

They are found by name, never by a path that a request has. Reading them imports no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from flowq.declare import yaml
from flowq.errors import FlowqError, NotFound, WorkflowInvalid
from flowq.nearest import did_you_mean
from flowq.spec import Input
from flowq.targets import files_of

MAX_FILES = 500
"""How many files of the folder are read."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A workflow that may be submitted, unless there is a `problem`; then it may have no inputs."""

    name: str
    path: Path
    description: str = ""
    inputs: tuple[Input, ...] = ()
    problem: str = ""


def list_offers(folder: Path) -> list[Offer]:
    """Return the workflows in a folder and its subfolders, by name."""
    return sorted(_find(folder), key=lambda offer: offer.name.casefold())


def find_offer(folder: Path, name: str) -> Offer:
    """Return the workflow of that name. Errors: NotFound; WorkflowInvalid if it has problems."""
    offers = list(_find(folder))
    for offer in offers:
        if offer.name == name and not offer.problem:
            return offer
    if not any(offer.name == name for offer in offers):
        hint = did_you_mean(name, [offer.name for offer in offers])
        raise NotFound(f"there is no workflow {name}{f'; {hint}' if hint else ''}")
    path = next(offer.path for offer in offers if offer.name == name)
    raise WorkflowInvalid(yaml.read_partly(path)[1])


def _find(folder: Path) -> Iterator[Offer]:
    file_by_name: dict[str, Path] = {}
    for file in islice(files_of(str(folder)), MAX_FILES):
        path = Path(file)
        try:
            about = path.stat()
        except OSError:  # it is gone meanwhile
            continue
        offer = _read(path, about.st_mtime_ns, about.st_size)
        other = file_by_name.setdefault(offer.name, path)
        if other != path and not offer.problem:
            offer = replace(offer, problem=f"{other.relative_to(folder)} has the same name")
        yield offer


@lru_cache(maxsize=MAX_FILES)
def _read(path: Path, _mtime_ns: int, _size: int) -> Offer:
    """Read a file once, until it changes."""
    try:
        workflow, problems = yaml.read_partly(path)
    except WorkflowInvalid as invalid:
        return Offer(path.stem, path, problem=str(invalid.problems[0]))
    except FlowqError as error:
        return Offer(path.stem, path, problem=str(error))
    problem = str(problems[0]) if problems else ""
    return Offer(workflow.name, path, workflow.description, workflow.inputs, problem)
