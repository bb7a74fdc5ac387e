"""Variables of the environment: those that say which server is meant, and those that tell a job
which one of which run it is."""

from __future__ import annotations

import os
from typing import Protocol

SERVER = ("FLOWQ_REDIS_URL", "RQ_REDIS_URL")
"""In the order in which they are looked at. A job that is a command does not get them: there may be
a password in them, and much prints its environment."""

RUN, JOB, ITEM, ATTEMPT = NAMES = ("FLOWQ_RUN", "FLOWQ_JOB", "FLOWQ_ITEM", "FLOWQ_ATTEMPT")
"""The table in docs/language.md says what they hold."""


class Told(Protocol):
    """A job that is told which one it is."""

    @property
    def run_id(self) -> str:
        """The run that it belongs to, or ""."""

    @property
    def name(self) -> str:
        """What its run calls it."""

    @property
    def attempt(self) -> int:
        """The number of the execution, from 1."""

    @property
    def group_of_items(self) -> str:
        """The id of the group that it is an item of, or ""."""


def variables_of(job: Told) -> dict[str, str]:
    """Return the variables of a job by name; empty outside of runs."""
    if not job.run_id:
        return {}
    found = {RUN: job.run_id, JOB: job.name, ATTEMPT: str(job.attempt)}
    if job.group_of_items:
        found[ITEM] = _label_of(job.name, job.group_of_items, job.run_id)
    return found


def _label_of(name: str, group_id: str, run_id: str) -> str:
    """Return what stands between the brackets of an item's name, which may hold brackets itself."""
    group = group_id.removeprefix(f"{run_id}-").rpartition("--")[2]
    at = 0 if name.startswith(f"{group}[") else name.rfind(f".{group}[") + 1
    return name[at + len(group) + 1 : -1]


def tell_plainly(job: Told) -> None:
    """Set the variables of a job in this process, and take away those that it does not have."""
    told = variables_of(job)
    for name in NAMES:
        if name in told:
            os.environ[name] = told[name]
        else:
            os.environ.pop(name, None)
