"""How a shell gets values: as variables, to which the text of the command refers.

    echo ${{ inputs.name }} "to ${{ inputs.place }}"

becomes, with the two values in the environment of the shell,

    flowq_value_0=$FLOWQ_VALUE_0 …; unset FLOWQ_VALUE_0 …; echo "${flowq_value_0}" "to ${…}"

so no shell ever reads a value as part of its program. The programs that the shell starts do not
get these variables. Values that are too large for the environment are assigned in an unnamed file,
which is the shell's standard input and is read before the first command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import IO

from flowq.texts import to_bytes

WORD = "w"
"""The place of a value that is a word, or part of one: it gets quotes."""

QUOTED = "q"
"""The place of a value that is within double quotes or in a here-document."""

REFUSED = "x"
"""A place where no value may stand; `flowq check` reports the reason."""

BASHES = frozenset({"bash", "rbash"})
KORN_SHELLS = frozenset({"ksh", "ksh93", "mksh"})
PLAIN_SHELLS = frozenset({"sh", "dash", "ash"})
SHELLS = BASHES | KORN_SHELLS | PLAIN_SHELLS | {"zsh"}
"""The names of the shells whose quoting rules are known."""

MAX_IN_ENVIRONMENT_BYTES = 100_000
"""The maximum size of all values in the environment: Linux allows 131,072 bytes for one variable,
and the programs that the shell starts need room for their own."""

_NAME = "flowq_value"


@dataclass(frozen=True, slots=True)
class Filled:
    """A command with its values beside it.

    Shape: `variables` are for the environment, by name; the shell first reads `assignments` from
    its standard input. At least one of them is empty.
    """

    command: str
    variables: Mapping[str, str]
    assignments: bytes = b""

    def open_input(self) -> AbstractContextManager[IO[bytes]]:
        """Open the assignments as an unnamed file that only this user can read."""
        import tempfile  # noqa: PLC0415 - only for large values

        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
        file.write(self.assignments)
        file.seek(0)
        return file


NOTHING = Filled("", {})


def find_shell(name: str | None) -> str | None:
    """Return the shell of a name or path, if its commands may contain values.

    Shape: without a name, `bash`; the job runs in `bash` or, without it, in `sh`.
    """
    kind = PureWindowsPath(name or "bash").name.lower().removesuffix(".exe")
    return kind if kind in SHELLS else None


def make_name(text: str, taken: Collection[str] = ()) -> str:
    """Return a prefix for variables that occurs neither in a text nor in the taken names."""
    name, beside = _NAME, text.lower()
    while name in beside or any(each.lower().startswith(name) for each in taken):
        name += "_"
    return name


def needs_references(places: str) -> bool:
    """Whether a value stands where the quotes of older versions, around each value, are wrong."""
    return places.strip(WORD) != ""


def refer(parts: Sequence[str | None], places: str, name: str) -> str:
    """Return a command with references to its values.

    Shape: the parts of its text, with None for each value; `places` has a letter for each value.
    """
    references = (
        f"${{{name}_{number}}}" if place == QUOTED else f'"${{{name}_{number}}}"'
        for number, place in enumerate(places)
    )
    return "".join(next(references) if part is None else part for part in parts)


def fill(
    parts: Sequence[str | None], values: Sequence[str], places: str, taken: Collection[str]
) -> Filled:
    """Return a command with its values beside it.

    Shape: `parts` and `places` as in `refer`; `taken` has the variables of the environment. Errors:
    ValueError for a value with NUL, which variables cannot contain.
    """
    if any("\0" in value for value in values):
        raise ValueError("a value for a shell cannot contain the character NUL")
    text = "".join(part for part in parts if part is not None)
    name = make_name(text, taken)
    command = refer(parts, places, name)
    variables = {f"{name}_{number}": value for number, value in enumerate(values)}
    if sum(len(to_bytes(value)) for value in values) > MAX_IN_ENVIRONMENT_BYTES:
        lines = (line for each in variables.items() for line in _assign(*each))
        return Filled(f". /dev/stdin; exec < /dev/null; {command}", {}, to_bytes("".join(lines)))
    passed = {key.upper(): value for key, value in variables.items()}
    assignments = " ".join(f"{key}=${key.upper()}" for key in variables)
    return Filled(f"{assignments}; unset {' '.join(passed)}; {command}", passed)


def _assign(variable: str, value: str) -> Iterator[str]:
    """Yield the lines that assign a value; in parts if it has many quotes, where bash is slow."""
    pieces = value.split("'")
    starts = range(0, len(pieces), _QUOTES_PER_LINE)
    if len(starts) == 1:
        yield f"{variable}={quote(value)}\n"
        return
    names = [f"{variable}_{number}" for number in range(len(starts))]
    for name, first in zip(names, starts, strict=True):
        part = "'".join(pieces[first : first + _QUOTES_PER_LINE])
        yield f"{name}={quote(part if not first else _QUOTE + part)}\n"
    yield f"{variable}={''.join(f'${{{name}}}' for name in names)}; unset {' '.join(names)}\n"


_QUOTES_PER_LINE = 200
_QUOTE = "'"


def quote(value: str) -> str:
    """Return a value as a quoted word, for assignments and for display."""
    return shlex.quote(value)


def show(value: str, place: str) -> str:
    """Return a value as it would be written in its place, for display, not for a shell."""
    return re.sub(r'([\\"$`])', r"\\\1", value) if place == QUOTED else quote(value)
