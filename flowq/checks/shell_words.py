"""Commands as lists whose items only a shell would understand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PureWindowsPath

from flowq.errors import Problem
from flowq.graph import Graph
from flowq.problems import SHELL_WORD_IN_LIST
from flowq.spec import Workflow


def check_shell_words(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A command as a list holds nothing that only a shell understands (a warning)."""
    for job in workflow.jobs:
        command = job.run.command if job.run is not None else ""
        if isinstance(command, str) or _stem(command[0]) in _SHELLS:
            continue
        for index, item in enumerate(command[1:], 1):
            if what := _find_shell_word(item, _stem(command[0])):
                message = f"job {job.name} passes {item:.40} as an argument: no shell {what}"
                where = workflow.places.find("jobs", job.name, "run", index)
                hint = "write the command as one text for a shell: run: 'a | b'"
                yield Problem(SHELL_WORD_IN_LIST, message, where, hint, severity="warning")


_SHELLS = frozenset(
    {"bash", "sh", "zsh", "dash", "ash", "ksh", "fish", "pwsh", "powershell", "cmd", "env", "ssh"}
)
"""Programs that may well take what only a shell understands."""

_OPERATORS = frozenset(
    {"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>>", "2>&1", "&>", ">&2"}
)
_VARIABLE = re.compile(r"(?:^|[/=:])\$(?:[A-Z_][A-Z0-9_]*|\{[A-Z_][A-Z0-9_]*\})(?![A-Za-z0-9_])")
_SUBSTITUTION = re.compile(r"^[^'\"]*\$\([^)]+\)|^`[^`]+`$")
_PATTERN = re.compile(r"[^-\s'\"(){}|^$\\][^\s'\"(){}|^$\\]*", re.ASCII)
_OF_FILES = frozenset(
    {"cat", "chmod", "chown", "cp", "du", "gzip", "gunzip", "head", "ls", "md5sum", "mv", "rm"}
    | {"sha256sum", "sort", "stat", "tail", "tar", "touch", "wc", "zip"}
)
"""Programs whose arguments are files, and no patterns of their own."""


def _find_shell_word(item: str, program: str) -> str:
    """Return what a shell would do with an argument, and nobody does; "" for an ordinary one."""
    if item in _OPERATORS:
        return "" if program in _WITH_OPERATORS else "acts on it"
    if "${{" in item or program in _WITH_DOLLARS:
        return ""
    if _VARIABLE.search(item) or item == "~" or item.startswith("~/"):
        return "expands it"
    if _SUBSTITUTION.search(item):
        return "executes it"
    is_pattern = program in _OF_FILES and bool(set(item) & set("*?")) and _PATTERN.fullmatch(item)
    return "expands it" if is_pattern else ""


_WITH_OPERATORS = frozenset({"find", "expr", "test", "["})
"""Programs for which such a word means something."""

_WITH_DOLLARS = frozenset({"awk", "gawk", "mawk", "sed", "perl", "make", "jq", "envsubst"})
"""Programs for which a dollar may mean something."""


def _stem(program: str) -> str:
    return PureWindowsPath(program).stem.lower()
