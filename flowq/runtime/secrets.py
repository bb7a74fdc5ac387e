"""Secrets, `${{ secrets.NAME }}`: read where the job runs, and never stored in Redis.

`work.py` reads those that a job names, before it evaluates its expressions, and tells
`flowq.runtime.masking` their values before user code begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from flowq.expressions.refusals import Missing
from flowq.files import read_file
from flowq.texts import from_bytes, show

FOLDER = "FLOWQ_SECRETS_DIR"
"""The variable that names a folder with a file for each secret."""

MAX_BYTES = 1_000_000
"""The limit of one secret."""


def read_known(names: Iterable[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of these secrets, without missing ones."""
    secrets = Secrets(environment, lambda value: None)
    for name in names:
        with suppress(Missing):
            yield secrets[name]


class Secrets(Mapping[str, str]):
    """The secrets of a process by name: a file of the folder, else a variable of the environment.

    One line end at the end of a file is removed. A relative folder is resolved when this object is
    made. `found` is called with each value before it is returned.
    Errors: Missing, which says where the secret was looked for.
    """

    def __init__(self, environment: Mapping[str, str], found: Callable[[str], None]) -> None:
        self._environment = environment
        self._folder = environment.get(FOLDER) and Path(environment[FOLDER]).absolute()
        self._found = found

    def __getitem__(self, name: str) -> str:
        value = self._read_file(name)
        if value is None:
            value = self._environment.get(name)
        if value is None:
            raise Missing(f"there is no secret {name} where the job runs", self._where(name))
        self._found(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def _read_file(self, name: str) -> str | None:
        if not self._folder:
            return None
        file = self._folder / name
        try:
            data = read_file(file, MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"the secret {name} cannot be read from {show(str(file))}: {error.strerror}"
            raise Missing(message) from None
        if len(data) > MAX_BYTES:
            message = f"the secret {name} in {show(str(file))} has more than {MAX_BYTES:,} bytes"
            raise Missing(message)
        text = from_bytes(data)
        return text.removesuffix("\n").removesuffix("\r")

    def _where(self, name: str) -> str:
        if self._folder:
            file = show(str(self._folder / name))
            return f"it is looked for in the file {file}, then in the variable {name} of the worker"
        return (
            f"it is looked for in the variable {name} of the worker; {FOLDER}, which may name a "
            "folder with a file for each secret, is not set"
        )
