"""Adopts a state that flowq cannot verify, because its owner vouches for it.

Copies its data, and records their origin; the original stays in place. A state named by
FLOWQ_STATE is adopted in place. It must not contain links, devices or files of other users.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowq.errors import NotFound, StateUnusable, WrongState
from flowq.server import embedded, private, state
from flowq.server.endpoint import DATA
from flowq.server.state import OLD_STATE, State

AOF_FOLDER = "appendonlydir"


@dataclass(frozen=True)
class Adoption:
    """A state that can be adopted, and where it goes. `written_at` is in epoch seconds."""

    source: Path
    target: State
    files: int
    size_bytes: int
    written_at: float

    @property
    def is_in_place(self) -> bool:
        """Whether the state stays at its place."""
        return self.source == self.target.path


def find_adoptable(source: Path | None = None) -> Adoption:
    """Return the state that the current folder can adopt. Changes nothing.

    `source` is a state folder, or a folder with a state: a renamed one, or one of an older version.
    The default is the state that was refused here.
    Errors: NotFound if there is none; WrongState; StateUnusable if it must not be touched.
    """
    try:
        return _describe(*_find(source))
    except OSError as error:
        place = source or Path(state.OLD_STATE)
        raise StateUnusable(str(place), state.explain(error, place)) from error


def adopt(adoption: Adoption) -> None:
    """Adopt a state, after stopping a server that uses it. Errors: ServerUnavailable."""
    target = adoption.target
    try:
        if adoption.is_in_place:
            state.claim(target)
            return
        embedded.server_of(adoption.source).stop()
        state.make(target)
        _copy_data(adoption.source / DATA, target.data)
    except OSError as error:
        raise StateUnusable(str(target.path), state.explain(error, target.path)) from error


def _find(source: Path | None) -> tuple[Path, State]:
    target = state.find()
    found = _find_here(target) if source is None else _find_named(source)
    if found == target.path:
        if not target.is_named or state.is_proved(target):
            raise WrongState(f"{found} is the state of this folder already")
    elif target.data.is_dir():
        raise WrongState(
            f"this folder already has a state, {target.path}; to adopt another "
            "one, remove it first: flowq server reset"
        )
    return found, target


def _find_here(target: State) -> Path:
    if target.is_named and _is_state(target.path):
        return target.path
    if target.old is not None:
        return target.old
    raise NotFound(
        "there is nothing to adopt here; to give a renamed folder its state back: "
        "flowq server adopt OLD_FOLDER"
    )


def _find_named(source: Path) -> Path:
    source = Path(os.path.abspath(source))  # noqa: PTH100 - a link is refused, not followed
    places = [source / OLD_STATE, source]
    with suppress(StateUnusable):
        places.insert(0, state.find_usual(source).path)
    for place in places:
        if _is_state(place):
            return place
    raise NotFound(
        f"{source} is not a state of flowq's, and there is none for a folder of that name"
    )


def _is_state(place: Path) -> bool:
    """Whether the folder looks like a state. Any folder may have a `data`, so that is no sign."""
    signs = (Path(DATA, AOF_FOLDER), Path(state.BELONGS_TO))
    return any(os.path.lexists(place / sign) for sign in signs)


def _describe(source: Path, target: State) -> Adoption:
    for folder in (source, source / DATA):
        if os.path.lexists(folder):
            private.check_folder(folder)
    found = []
    for path in _walk(source / DATA) if (source / DATA).is_dir() else ():
        with suppress(FileNotFoundError):  # a server that uses it may rewrite its files
            found.append(path.lstat())
    written_at = max((status.st_mtime for status in found), default=source.lstat().st_mtime)
    return Adoption(source, target, len(found), sum(s.st_size for s in found), written_at)


def _walk(folder: Path) -> list[Path]:
    """Return the files in a folder of a state. Errors: Untrusted; OSError."""
    return sorted(map(Path, private.check_tree(folder)))


def _copy_data(source: Path, target: Path) -> None:
    draft = target.with_name(f"{target.name}.{os.urandom(6).hex()}")
    private.make_folder(draft)
    try:
        for path in _walk(source):
            _copy(path, draft / path.relative_to(source))
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _copy(source: Path, target: Path) -> None:
    private.make_folder(target.parent)
    reading = private.open_file(source, os.O_RDONLY)
    with open(reading, "rb") as old:  # noqa: PTH123 - a descriptor
        writing = private.open_file(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with open(writing, "wb") as new:  # noqa: PTH123 - a descriptor
            shutil.copyfileobj(old, new)
    with suppress(OSError):
        status = source.stat()
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
