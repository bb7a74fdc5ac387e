"""What `lua/add.lua` is told of jobs; what several of them have in common it is told once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rq.serializers import PickleSerializer

if TYPE_CHECKING:
    from flowq.runtime.job import Job

OWN_FIELDS = ("created_at", "data", "description")
"""The fields of RQ's in which jobs of one shape differ."""

IdUse = Literal["new", "unique", ""]
"""A new id was never used before; a unique one must not be; any other may be an ended job's."""


class Entry(NamedTuple):
    """A job to be added. Shape: `shape` and `own` as the script takes them."""

    job: Job
    shape: tuple[Any, ...]
    own: tuple[Any, ...]


def make_entry(job: Job, id_use: IdUse) -> Entry:
    """Describe a job that is ready to be added."""
    hold = job.hold
    fields = {**job.to_dict(), **hold.fields}
    serializer = job.serializer
    if isinstance(serializer, type) and serializer is not PickleSerializer:
        fields["flowq_serializer"] = f"{serializer.__module__}.{serializer.__qualname__}"
    own = (job.id, job.blocks, hold.name, *(fields.pop(name, "") for name in OWN_FIELDS))
    # What is empty means the same to RQ when it is not there.
    pairs = [part for pair in fields.items() if pair[1] != "" for part in pair]
    at = "" if hold.at_s is None else f"{hold.at_s:.3f}"
    shape = (job.origin, hold.future, at, hold.run_id, id_use, len(pairs) // 2, *pairs)
    return Entry(job, shape, own)


def as_arguments(entries: Sequence[Entry]) -> list[Any]:
    """Return them as the script takes them, in their order."""
    arguments: list[Any] = [len(entries)]
    for _, neighbours in groupby(entries, key=lambda entry: id(entry.shape)):
        alike = list(neighbours)
        own = chain.from_iterable(entry.own for entry in alike)
        arguments += (*alike[0].shape, len(alike), *own)
    return arguments
