"""A mapping of jobs in versions: making the next version costs as much as what it changes.

`flowq.status.fold` makes a version for each batch of events, thousands in a run of 10,000 jobs.
The newest version has the table. An earlier one has what it takes to go back from the next one,
and makes a table of its own when somebody reads it.

Threads may share versions: one draws a status while another folds the next events. What is read of
a version is always that version, also by an iteration that began before the next one was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from threading import RLock
from typing import Any, TypeVar

V = TypeVar("V")


class JobTable(Mapping[str, V]):
    """One version. Shape: by name, in the order in which the names came.

    `counts` has how many values are of each kind that `kind_of` tells; "" is not counted.
    Pickled or copied, it is a plain dict.
    """

    __slots__ = ("_before", "_kind_of", "_lock", "_next", "_table", "counts")

    def __init__(self, table: dict[str, V], kind_of: Callable[[V], str]) -> None:
        self._table: dict[str, V] | None = table
        self._next: JobTable[V] | None = None
        self._before: dict[str, V | None] = {}
        self._kind_of = kind_of
        self._lock = RLock()  # of all versions; a signal handler may read what its thread changes
        self.counts = Counter(filter(None, map(kind_of, table.values())))

    def changed(self, changes: Iterable[tuple[str, V | None]]) -> JobTable[V]:
        """Return the version after these changes, one after the other; None removes a name."""
        with self._lock:
            return self._make_next(list(changes))

    def _make_next(self, changes: list[tuple[str, V | None]]) -> JobTable[V]:
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
        later._table, later.counts, later._lock = table, counts, self._lock
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
        with self._lock:
            return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._copy())

    def items(self) -> ItemsView[str, V]:
        """Return the items of a copy, which no thread changes."""
        return self._copy().items()

    def values(self) -> ValuesView[V]:
        """Return the values of a copy, which no thread changes."""
        return self._copy().values()

    def _copy(self) -> dict[str, V]:
        with self._lock:
            return dict(self._read())  # making the next version changes the table

    def __len__(self) -> int:
        with self._lock:
            return len(self._read())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._copy(),)  # one version, without all that came after it

    def __repr__(self) -> str:
        return repr(self._copy())
