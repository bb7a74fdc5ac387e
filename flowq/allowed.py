"""The limits of a worker that may run only some code: `flowq worker --allow 'shop.*'`.

A job names its function, its callbacks, and the classes in its data. Two callers turn such names
into code and ask this module first: `flowq.callables.find_callable`, and the unpickler of
`flowq.runtime.unpickling`. Nothing else may look up a name that came from Redis.

Each name is checked twice: as written, before anything is imported for it, and by the module and
path where the function or class was defined. So `shop.*` does not admit `os.system` only because
`shop` imports `os`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from flowq.errors import NotAllowed, UsageError

OWN = frozenset({"flowq.runtime.work.perform", "flowq.runtime.outputs.keep_outputs"})
"""Functions that flowq itself enqueues. They check the function that the job names."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a worker may run: names (`shop.billing.charge`), modules (`shop.*`), and commands.

    Without patterns and with `commands` it runs only `run:` jobs.
    """

    patterns: tuple[str, ...] = ()
    commands: bool = False

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            _check_pattern(pattern)

    def admits(self, name: str) -> bool:
        """Whether a dotted name matches a pattern."""
        return name in OWN or any(_matches(name, pattern) for pattern in self.patterns)

    def names(self, name: str) -> bool:
        """Whether exactly this name was given, so that its place of definition does not matter."""
        return name in self.patterns or name in OWN

    def check_name(self, written: str) -> str:
        """Return an admitted name in its dotted form. Raises: NotAllowed."""
        name = written.replace(":", ".", 1)
        if not _is_plain(name):
            raise NotAllowed(f"{written!r:.200}", str(self), "it is not the name of a function")
        if not self.admits(name):
            raise self.refuse(name)
        return name

    def check_step(self, name: str, found: Any) -> None:
        """Check one step of a dotted path: it enters admitted modules only. Raises: NotAllowed."""
        if not isinstance(found, ModuleType) or self.names(name):
            return
        if any(_matches(f"{found.__name__}.", pattern) for pattern in self.patterns):
            return
        raise self.refuse(name, f"it is in the module {found.__name__}")

    def check_found(self, name: str, found: Any) -> None:
        """Check where an object was defined. Raises: NotAllowed."""
        origin = name_origin(found)
        if not self.names(name) and not self.admits(origin):
            raise self.refuse(name, f"it is {origin}")

    def refuse(self, name: str, why: str = "") -> NotAllowed:
        """Return the error for a name, with the option that would admit it."""
        hint = f"if it should be, start the worker with --allow {name} too"
        return NotAllowed(f"{name} ({why})" if why else name, str(self), hint)

    def __str__(self) -> str:
        return ", ".join([*self.patterns, *(["commands"] if self.commands else [])])


def read_allowed(
    allow: Iterable[str] | None, commands: bool, environment: Mapping[str, str]
) -> Allowed | None:
    """Return what a worker may run; None for everything.

    Args:
        allow: patterns, also several in one text with commas or spaces between them. None reads
            FLOWQ_ALLOW and FLOWQ_ALLOW_RUN instead.
        commands: whether `run:` jobs are allowed.

    Raises:
        UsageError: for a pattern without meaning, and for a text without any pattern: an empty
            limit is a mistake, not the permission to run everything.
    """
    source = "--allow"
    if allow is None:
        said = environment.get("FLOWQ_ALLOW", "")
        source, allow = "FLOWQ_ALLOW", [said] if said else []
        run = environment.get("FLOWQ_ALLOW_RUN", "")
        if not commands and run not in ("", "0", "1"):
            raise UsageError(f"FLOWQ_ALLOW_RUN is {run!r}; it must be 1 or 0")
        commands = commands or run == "1"
    patterns = []
    for text in allow:
        names = text.replace(",", " ").split()
        if not names:
            raise UsageError(
                f"{source} is {text!r}, which names nothing; leave it out to run everything"
            )
        patterns += names
    return Allowed(tuple(patterns), commands) if patterns or commands else None


def name_origin(found: Any) -> str:
    """Return the dotted name under which a function or class, or its class, was defined."""
    module, path = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(path, str)):
        module, path = type(found).__module__, type(found).__qualname__
    return f"{module}.{path}"


# In this process ---------------------------------------------------------------------------------


class _Process:
    allowed: ClassVar[Allowed | None] = None


def restrict(allowed: Allowed | None) -> None:
    """Limit this process to what is allowed; None lifts the limit."""
    _Process.allowed = allowed


def restriction() -> Allowed | None:
    """Return what this process may run; None for everything."""
    return _Process.allowed


def check_commands() -> None:
    """Check that this process may run commands. Raises: NotAllowed."""
    here = _Process.allowed
    if here is not None and not here.commands:
        raise NotAllowed("a command", str(here), "`run:` jobs need a worker with --allow-run")


# Names and patterns ------------------------------------------------------------------------------


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1])
    return name == pattern


def _is_plain(name: str) -> bool:
    """Whether a name consists of identifiers other than dunder names."""
    return all(
        part.isidentifier() and not (part.startswith("__") and part.endswith("__"))
        for part in name.split(".")
    )


def _check_pattern(pattern: str) -> None:
    name = pattern.removesuffix(".*")
    if pattern == "*":
        raise UsageError("--allow '*': without --allow a worker executes everything")
    if ":" in name:
        raise UsageError(f"--allow {pattern}: write it with dots: {pattern.replace(':', '.')}")
    if not _is_plain(name) or (name == pattern and "." not in name):
        raise UsageError(
            f"--allow {pattern}: it takes 'shop.*' for everything that is defined in shop and in "
            "the modules inside it, or one name such as shop.billing.charge"
        )
