"""`manage.py flowq COMMAND …`: any command of flowq, on the server of the default queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from flowq.django.connections import get_url
from flowq.subprocesses import list_own_paths

_OF_DJANGO = ("--settings", "--pythonpath")


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Runs flowq in a process of its own, with the settings of the project."""

    help = "Run a command of flowq: manage.py flowq status"
    requires_system_checks: list[str] = []  # noqa: RUF012 - as Django declares it
    queue = "default"

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all words on as they are; those of Django itself have had their effect."""
        words, left = list[str](), iter(argv[2:])
        for word in left:
            if word in _OF_DJANGO:
                next(left, None)
            elif not word.startswith(tuple(f"{name}=" for name in _OF_DJANGO)):
                words.append(word)
        command, environment = self.make_command(words)
        if hasattr(os, "fork"):  # elsewhere `exec` does not wait for the end
            sys.stdout.flush()
            os.execve(command[0], command, environment)  # noqa: S606 - signals reach flowq itself
        sys.exit(self.run(words))

    def add_arguments(self, parser: Any) -> None:
        """Accept the words of `call_command`."""
        parser.add_argument("words", nargs="*")

    def handle(self, *_: Any, words: Sequence[str] = (), **__: Any) -> None:
        """Run the command, for `call_command`. Errors: CommandError."""
        if code := self.run(words):
            raise CommandError(f"flowq {' '.join(words)} ended with {code}", returncode=code)

    def run(self, words: Sequence[str]) -> int:
        """Run flowq with these words; return its exit code."""
        command, environment = self.make_command(words)
        try:
            return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
        except KeyboardInterrupt:  # which the command has got too
            return 130

    def make_command(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment.

        It is for a new process: this one has imported the models, and a worker must not fork from
        it.
        """
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = dict.fromkeys(filter(None, [*list_own_paths(), *before]))
        environment = {
            **os.environ,
            "FLOWQ_REDIS_URL": get_url(self.queue),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        return [sys.executable, "-m", "flowq", *words], environment
