"""A mapping of jobs in versions: making the next version costs as much as what it changes.

`flowq.status.fold` makes a version for each batch of events, thousands in a run of 10,000 jobs.
The newest version has the table. An earlier one has what it takes to go back from the next one,
and makes a table of its own when somebody reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class JobTable(Mapping[str, V]):
    """One version. Shape: by name, in the order in which the names came.

    `counts` has how many values are of each kind that `kind_of` tells; "" is not counted.
    """

    __slots__ = ("_before", "_kind_of", "_next", "_table", "counts")

    def __init__(self, table: dict[str, V], kind_of: Callable[[V], str]) -> None:
        self._table: dict[str, V] | None = table
        self._next: JobTable[V] | None = None
        self._before: dict[str, V | None] = {}
        self._kind_of = kind_of
        self.counts = Counter(filter(None, map(kind_of, table.values())))

    def changed(self, changes: Iterable[tuple[str, V | None]]) -> JobTable[V]:
        """Return the version after these changes, one after the other; None removes a name."""
        changes = list(changes)
        table, before = self._read(), dict[str, V | None]()
        if any(value is None for _, value in changes):
            table = dict(table)  # going back would not bring a name back to its place
        counts = self.counts.copy()
        for name, value in changes:
            old = table.pop(name, None) if value is None else table.get(name)
            before.setdefault(name, old)
            if value is not None:
                table[name] = value
            for each, by in ((old, -1), (value, 1)):
                if each is not None and (kind := self._kind_of(each)):
                    counts[kind] += by
        later: JobTable[V] = JobTable({}, self._kind_of)
        later._table, later.counts = table, counts
        if table is self._table:
            self._table, self._next, self._before = None, later, before
        return later

    def _read(self) -> dict[str, V]:
        if self._table is None:
            versions: list[JobTable[V]] = [self]
            while (later := versions[-1]._next) is not None:
                versions.append(later)
            newest = versions.pop()._table
            assert newest is not None
            table = dict(newest)
            for version in reversed(versions):
                for name, value in version._before.items():
                    if value is None:
                        table.pop(name, None)
                    else:
                        table[name] = value
            self._table, self._next, self._before = table, None, {}
        return self._table

    def __getitem__(self, name: str) -> V:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())
