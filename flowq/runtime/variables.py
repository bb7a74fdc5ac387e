"""Environment variables: those that name the server, and those that identify a job to itself."""

from __future__ import annotations

import os
from typing import Protocol

SERVER = ("FLOWQ_REDIS_URL", "RQ_REDIS_URL")
"""The variables that name the server, by priority. Commands do not get them: they may contain a
password, and many programs print their environment."""

RUN, JOB, ITEM, ATTEMPT = NAMES = ("FLOWQ_RUN", "FLOWQ_JOB", "FLOWQ_ITEM", "FLOWQ_ATTEMPT")
"""docs/language/jobs.md has a table of their contents."""


class Told(Protocol):
    """A job, for its variables."""

    @property
    def run_id(self) -> str:
        """The run that it belongs to, or ""."""

    @property
    def name(self) -> str:
        """Its name in its run."""

    @property
    def attempt(self) -> int:
        """The number of the execution, from 1."""

    @property
    def group_of_items(self) -> str:
        """The id of the group of which it is an item, or ""."""


def variables_of(job: Told) -> dict[str, str]:
    """Return the variables of a job by name; empty outside of runs."""
    if not job.run_id:
        return {}
    found = {RUN: job.run_id, JOB: job.name, ATTEMPT: str(job.attempt)}
    if job.group_of_items:
        found[ITEM] = _label_of(job.name, job.group_of_items, job.run_id)
    return found


def _label_of(name: str, group_id: str, run_id: str) -> str:
    """Return the label between the brackets of an item's name; it may contain brackets itself."""
    group = group_id.removeprefix(f"{run_id}-").rpartition("--")[2]
    at = 0 if name.startswith(f"{group}[") else name.rfind(f".{group}[") + 1
    return name[at + len(group) + 1 : -1]


def tell_plainly(job: Told) -> None:
    """Set the variables of a job in this process, and remove those that it does not have."""
    told = variables_of(job)
    for name in NAMES:
        if name in told:
            os.environ[name] = told[name]
        else:
            os.environ.pop(name, None)
