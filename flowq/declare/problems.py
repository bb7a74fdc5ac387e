"""Problems of a document, noted with their positions while it is read.

`flowq.problems` registers the codes. This module collects the problems that `yaml_text`, `document`
and the shapes find, and remembers which parts they leave unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn, Protocol

from flowq.errors import Problem, Where, WorkflowInvalid, without_repeats


class Placed(Protocol):
    """Anything with a position. Units: `line` and `column` count from 1."""

    @property
    def line(self) -> int:
        """The line."""

    @property
    def column(self) -> int:
        """The character in it."""


def where_of(place: Placed, file: str) -> Where:
    """Return the position of `place`, in its own file or in `file`, and the line of its `<<`."""
    merged_at = getattr(place, "merged_at", None)
    file = getattr(place, "file", "") or file
    return Where(file, place.line, place.column, () if merged_at is None else (merged_at,))


class Problems:
    """The problems found so far in one file, with its text.

    Shape: `noted` has the code and the place of each problem, and of each part that contains
    unread parts.
    """

    def __init__(self, file: str, text: str = "") -> None:
        self.file = file
        self.text = text
        self.found: list[Problem] = []
        self.noted: list[tuple[str, Placed]] = []
        self._silenced: dict[int, Placed] = {}

    def add(self, code: str, place: Placed, message: str, hint: str = "") -> None:
        """Note one problem, unless its place is silenced."""
        if id(place) in self._silenced:
            return
        self.found.append(Problem(code, message, self.where(place), hint))
        self.noted.append((code, place))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add the problems of a nested workflow."""
        self.found += problems

    def carry_over(self, earlier: Problems, copies: Mapping[int, Placed]) -> None:
        """Add the problems of nodes that have been copied; `copies` has the copies by id."""
        self.found += earlier.found
        self.noted += ((code, copies.get(id(place), place)) for code, place in earlier.noted)
        for each, place in earlier._silenced.items():
            self.silence(copies.get(each, place))

    def silence(self, place: Placed) -> None:
        """Ignore further problems of a part that replaces something unreadable."""
        self._silenced[id(place)] = place  # kept alive, so that its id is not used again

    def pass_gaps(self, source: Placed, target: Placed) -> None:
        """Give a part the gaps of another one that is merged into it."""
        codes = [code for code, place in self.noted if place is source]
        self.noted += ((code, target) for code in codes)

    def note_gap(self, code: str, place: Placed) -> None:
        """Note that a part is known only in part, because of a problem further inside."""
        self.noted.append((code, place))

    def stop(self, code: str, place: Placed, message: str, hint: str = "") -> NoReturn:
        """Note a problem that makes the rest unreadable. Errors: WorkflowInvalid, always."""
        self.add(code, place, message, hint)
        self.raise_if_any()
        raise AssertionError("there is a problem")

    def where(self, place: Placed) -> Where:
        """Return the position of `place` in this file."""
        return where_of(place, self.file)

    def raise_if_any(self) -> None:
        """Raise WorkflowInvalid with all problems, in the order of the text, if there are any."""
        if self.found:
            raise WorkflowInvalid(self.in_order())

    def in_order(self) -> list[Problem]:
        """Return all problems in the order of the text, those of other files last."""

        def position(problem: Problem) -> tuple[bool, str, int, int]:
            where = problem.where
            assert where is not None
            return where.file != self.file, where.file, where.line, where.column

        return without_repeats(sorted(self.found, key=position))
