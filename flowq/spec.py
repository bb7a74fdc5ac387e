"""What was said: a workflow as an immutable value, whichever front it was written in.

Both fronts (YAML text and decorators) build these values, and two workflows that say the same are
equal: positions are carried beside the facts and do not take part in comparisons. Nothing here
knows Redis, and only the standard library is imported, because every child process imports it.

An argument (`JobSpec.with_`) is plain data: None, bool, int, float, str, lists and string-keyed
mappings of these. A string may contain `${{ … }}`; `$${{` stands for a literal `${{`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flowq.errors import Where

InputType = Literal["str", "int", "float", "bool", "path", "list", "json", "enum"]
BlockerPolicy = Literal["wait", "skip", "run"]

Path = tuple[str | int, ...]
"""A place in a document, as keys and indexes from the root: ("jobs", "gallery", "with")."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where each part of a declaration was written.

    Shape: positions by path. A part without a position of its own is where its parent is.
    """

    where_by_path: Mapping[Path, Where] = field(default_factory=dict)

    def find(self, *path: str | int) -> Where | None:
        """Return the position of a part, or of the nearest part around it, or None."""
        for length in range(len(path), -1, -1):
            where = self.where_by_path.get(path[:length])
            if where is not None:
                return where
        return None


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed job is tried again. Units: `backoff_s` in seconds, between attempts."""

    max: int
    backoff_s: float = 0


@dataclass(frozen=True, slots=True)
class Input:
    """A typed input of a workflow; one without a default is required."""

    name: str
    type: InputType = "str"
    default: Any = None
    required: bool = True
    description: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """An edge, said at its earlier end: the job must run before the future job `name`."""

    name: str
    on_failure: Literal["ignore"] | None = None


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The declaration of one job.

    Units: `timeout_s` in seconds, None for the workflow's default. Shape: `needs` and `blocks` keep
    the order in which they were written and hold no name twice.
    """

    name: str
    call: str
    with_: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    deferred: bool = False
    queue: str | None = None
    timeout_s: float | None = None
    retries: Retry | None = None
    description: str = ""
    on_blocker_failure: BlockerPolicy | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a job gets that does not say otherwise. Units: `timeout_s` in seconds."""

    queue: str = "default"
    timeout_s: float | None = None
    retries: Retry | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named graph of declared jobs with typed inputs.

    Shape: `jobs` and `inputs` in the order of declaration, names unique. `folder` is the folder of
    the file it was read from (importable while it runs), or None.
    """

    name: str
    jobs: tuple[JobSpec, ...]
    inputs: tuple[Input, ...] = ()
    description: str = ""
    defaults: Defaults = field(default_factory=Defaults)
    places: Places = field(default_factory=Places, compare=False, repr=False)
    folder: str | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self.jobs)

    def find(self, name: str) -> JobSpec | None:
        """Return the job declared under `name`, or None."""
        return next((job for job in self.jobs if job.name == name), None)
