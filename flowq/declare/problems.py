"""What can be wrong with the text and the shape of a YAML workflow: the codes FQ1xx."""

from __future__ import annotations

from typing import NoReturn, Protocol

from flowq.errors import Problem, Where, WorkflowInvalid, without_repeats

RULES = {
    "FQ101": "The file is UTF-8 text",
    "FQ102": "The text is YAML",
    "FQ103": "Every key is known",
    "FQ104": "No key stands twice in a map",
    "FQ105": "Every value has the shape that its key asks for",
    "FQ106": "What is required is there",
    "FQ108": "The words are flowq's, not those of another tool",
    "FQ109": "Names consist of the characters that job ids may hold",
    "FQ110": "A duration is a number with ms, s, m, h or d",
    "FQ111": "The document keeps to the limits of size, depth and repetition",
    "FQ112": "No tags or broken aliases, and `<<` merges maps",
    "FQ113": "A file holds one document, and it is a map",
    "FQ114": "`call` names a function as package.module:function",
    "FQ115": "The target of `blocked_by` says `deferred: true`",
    "FQ116": "The default of an input fits its type",
    "FQ118": "A key stands beside the key that it belongs to",
    "FQ119": "A nested workflow is there",
    "FQ120": "No workflow contains itself",
    "FQ125": "The numbers of `retries` are within bounds",
    "FQ126": "`on` and `never_on` name exception classes and exit codes",
}
"""The rule behind each code, in one line; the codes are never given a second meaning."""


class Placed(Protocol):
    """Anything that was written somewhere. Units: `line` and `column` count from 1."""

    @property
    def line(self) -> int:
        """The line."""

    @property
    def column(self) -> int:
        """The character in it."""


def where_of(place: Placed, file: str) -> Where:
    """Return the position of `place` in a file, with the line in which it is merged."""
    merged_at = getattr(place, "merged_at", None)
    return Where(file, place.line, place.column, () if merged_at is None else (merged_at,))


class Problems:
    """The problems found so far in one file, with its text.

    Shape: `noted` has the code and the place of each, and of what surrounds what could not be read.
    """

    def __init__(self, file: str, text: str = "") -> None:
        self.file = file
        self.text = text
        self.found: list[Problem] = []
        self.noted: list[tuple[str, Placed]] = []
        self._silenced: set[int] = set()

    def add(self, code: str, place: Placed, message: str, hint: str = "") -> None:
        """Note one problem."""
        assert code in RULES
        if id(place) in self._silenced:
            return
        self.found.append(Problem(code, message, self.where(place), hint))
        self.noted.append((code, place))

    def silence(self, place: Placed) -> None:
        """Take no further problems of a part that only stands in for what could not be read."""
        self._silenced.add(id(place))

    def pass_gaps(self, source: Placed, target: Placed) -> None:
        """Remember of a part that it has the gaps of another one, which is merged into it."""
        codes = [code for code, place in self.noted if place is source]
        self.noted += ((code, target) for code in codes)

    def note_gap(self, code: str, place: Placed) -> None:
        """Remember that a part, with a problem further inside, does not tell all that was meant."""
        self.noted.append((code, place))

    def stop(self, code: str, place: Placed, message: str, hint: str = "") -> NoReturn:
        """Note a problem that leaves the rest unreadable. Errors: WorkflowInvalid, always."""
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
        """Return all problems in the order of the text, those of other files behind."""
        return without_repeats(sorted(self.found, key=self._position))

    def _position(self, problem: Problem) -> tuple[bool, str, int, int]:
        where = problem.where
        assert where is not None
        return where.file != self.file, where.file, where.line, where.column
