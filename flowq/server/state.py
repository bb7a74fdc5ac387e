"""The state folder of a private server: its place, and the proof that this user has made it.

    FLOWQ_STATE                         the state folder itself, by its absolute path; else
    $XDG_STATE_HOME/flowq/HASH          which is ~/.local/state on Linux

HASH is computed from the folder's real path. So nothing that comes with a project folder, by a
clone, an archive or a cache, is ever loaded: the place in the user's own state folder proves that
this user made the state for this folder. A state that FLOWQ_STATE names must contain the path at
which it was made. A `.flowq/` of an older version proves nothing. A state without proof is refused
until the user adopts it (`adopting.py`).
"""

# pathlib raises if there is no home folder, and would normalize the value of FLOWQ_STATE:
# ruff: noqa: PTH111, PTH112, PTH117
from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from flowq.errors import StateUnusable
from flowq.server import private
from flowq.server.endpoint import DATA
from flowq.server.private import Untrusted

VARIABLE = "FLOWQ_STATE"
OLD_STATE = ".flowq"
BELONGS_TO = "belongs-to"
LOGS = "logs"
HASH_LENGTH = 24
IGNORE, IGNORES = ".gitignore", b"*\n"
_MADE = (
    *(BELONGS_TO, "socket", "server.sock", "server.sock~", "address", "address~", "server.conf"),
    *("server.log", "server.log.old", "server.lock", "guardian.lock", "keeper.lock", "door.lock"),
)
_MADE_NAME = re.compile(f"({'|'.join(map(re.escape, _MADE))})([.][0-9a-f]{{12}})?(-journal)?")

OTHER_PLACE = (
    f"set {VARIABLE} to a folder that you can write to, or pass --redis-url "
    "(in Python, flowq.connect(url))"
)
DOUBT = "its author can run code as you"


@dataclass(frozen=True)
class State:
    """A state folder, which need not exist. `belongs_to` is the folder that it is for."""

    path: Path
    belongs_to: str
    is_named: bool

    @property
    def data(self) -> Path:
        """The folder with the server's data."""
        return self.path / DATA

    @property
    def logs(self) -> Path:
        """The folder with the output of jobs and workers."""
        return self.path / LOGS

    @property
    def old(self) -> Path | None:
        """The state of an older version, in the folder itself, if there is one."""
        if self.is_named:
            return None
        path = Path(self.belongs_to, OLD_STATE)
        has_state = os.path.islink(path) or os.path.lexists(path / DATA)  # noqa: PTH114 - total
        return path if has_state else None


def find(folder: Path | None = None) -> State:
    """Return the state of a folder (the current one by default), without checking it.

    Errors: StateUnusable, if its place is unknown.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        if not os.path.isabs(named):
            reason = f"{VARIABLE} is {named!r}, but must be an absolute path"
            raise StateUnusable(
                named,
                (f"{reason}: a relative path would name another folder in each current folder"),
            )
        return State(Path(named), os.path.realpath(named), is_named=True)
    return find_usual(folder)


def find_usual(folder: Path | None = None) -> State:
    """Return the state of a folder in the user's state folder, ignoring FLOWQ_STATE.

    Errors: StateUnusable.
    """
    try:
        real = os.path.realpath(folder or Path.cwd())
    except OSError as error:
        raise StateUnusable(".", f"the current folder is gone: {error.strerror}") from error
    return State(_find_home() / _hash(real), real, is_named=False)


def _hash(real: str) -> str:
    same = os.path.normcase(real)  # Windows ignores case
    return hashlib.sha256(os.fsencode(same)).hexdigest()[:HASH_LENGTH]


def _find_home() -> Path:
    """Return the folder of this user's states. Errors: StateUnusable."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # XDG: ignore relative paths
        base = os.path.expanduser(_usual_home())
    if not os.path.isabs(base):  # there is neither HOME nor an entry for the user
        raise StateUnusable(
            base, f"no home folder is known for the state of a server; {OTHER_PLACE}"
        )
    return Path(base, "flowq")


def _usual_home() -> str:
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA") or r"~\AppData\Local"
    if sys.platform == "darwin":
        return "~/Library/Application Support"
    return "~/.local/state"


def open_state(folder: Path | None = None) -> State:
    """Return the state of a folder, created if necessary, private and proved to be this user's.

    Errors: StateUnusable.
    """
    found = find(folder)
    if not found.is_named and not os.path.isdir(found.belongs_to):
        raise StateUnusable(found.belongs_to, f"there is no folder {found.belongs_to}")
    try:
        refuse_old(found)
        return make(found)
    except OSError as error:
        raise StateUnusable(str(found.path), explain(error, found.path)) from error


def make(found: State) -> State:
    """Create the state folder, or check the existing one. Errors: StateUnusable, OSError."""
    if not found.is_named:
        private.make_folder(found.path.parent)
    private.make_folder(found.path)
    if not prove(found):
        claim(found)
    private.close_folder(found.path)
    return found


def check(found: State) -> bool:
    """Return whether there is a state, and check that it is this user's. Creates nothing.

    Errors: StateUnusable.
    """
    try:
        refuse_old(found)
        if not found.is_named and os.path.lexists(found.path.parent):
            private.check_folder(found.path.parent)
        if not os.path.lexists(found.path):
            return False
        private.check_folder(found.path)
        return prove(found)
    except OSError as error:
        raise StateUnusable(str(found.path), explain(error, found.path)) from error


# Proof -------------------------------------------------------------------------------------------


def refuse_old(found: State) -> None:
    """Raise StateUnusable if an unused state of an older version, or a foreign one, is in the
    folder."""
    if found.old is not None and not found.data.is_dir():
        raise StateUnusable(
            str(found.old),
            f"{found.old} is not used: it may have come with this folder, and {DOUBT}; "
            "if it is yours (of an older flowq): flowq server adopt, else remove it",
        )


def prove(found: State) -> bool:
    """Check that a state was made at its place; False for an empty folder.

    Errors: StateUnusable, OSError.
    """
    if is_proved(found):
        return True
    # A command that is just making the state writes these first.
    first = (BELONGS_TO, IGNORE)
    if all(name.startswith(first) for name in os.listdir(found.path)):  # noqa: PTH208
        return False
    if is_proved(found):  # another command has just written the proof
        return True
    raise StateUnusable(
        str(found.path),
        f"{found.path} is not used: flowq has not made it at this place, and {DOUBT}; "
        "if it is yours: flowq server adopt, else name another folder with FLOWQ_STATE",
    )


def is_proved(found: State) -> bool:
    """Whether a state contains the proof that it was made at this place. Errors: OSError."""
    try:
        said = private.read(found.path / BELONGS_TO)
    except FileNotFoundError:
        return False
    return said == _proof(found) or (found.is_named and _is_usual(found.path, said))


def _is_usual(path: Path, said: bytes) -> bool:
    """Whether the state that FLOWQ_STATE names is the usual state of another folder."""
    try:
        return path == _find_home() / _hash(os.fsdecode(said).removesuffix("\n"))
    except StateUnusable:
        return False


def _proof(found: State) -> bytes:
    return os.fsencode(found.belongs_to) + b"\n"


def claim(found: State) -> None:
    """Write the proof that this user has made a state at its place. Errors: OSError."""
    private.write_whole(found.path / BELONGS_TO, _proof(found))
    if found.is_named and not os.path.lexists(found.path / IGNORE):  # it may be inside a repository
        private.write_whole(found.path / IGNORE, IGNORES)


def is_made(path: Path) -> bool:
    """Whether this file of a state is one that flowq makes."""
    if path.name == IGNORE:
        return private.read(path) == IGNORES
    return _MADE_NAME.fullmatch(path.name) is not None


def explain(error: OSError, state: Path) -> str:
    """Return why a state cannot be used, and what to do."""
    if isinstance(error, Untrusted):
        return str(error)
    place = error.filename if error.filename is not None else state
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{place} is not a folder; remove it, or {OTHER_PLACE}"
    return f"{error.strerror or error}: {place}; {OTHER_PLACE}"


def find_owners() -> list[str]:
    """Return the folders that this user's states with data are for."""
    try:
        states = sorted(_find_home().iterdir())
    except (OSError, StateUnusable):
        return []
    return [folder for state in states if (folder := _read_owner(state))]


def find_abandoned() -> list[str]:
    """Return the folders of this user's states that do not exist any more."""
    return [folder for folder in find_owners() if not os.path.lexists(folder)]


def guess_old_name() -> str:
    """Return a possible earlier path of the current folder, if it was renamed; else ""."""
    now = Path.cwd()
    alike = (old for old in map(Path, find_abandoned()) if now.name == old.name)
    beside = (old for old in map(Path, find_abandoned()) if now.parent == old.parent)
    return str(next(alike, None) or next(beside, ""))


def _read_owner(state: Path) -> str:
    try:
        folder = os.fsdecode(private.read(state / BELONGS_TO)).rstrip("\n")
    except OSError:
        return ""
    return folder if (state / DATA).is_dir() else ""
