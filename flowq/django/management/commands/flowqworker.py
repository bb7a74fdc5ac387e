"""`manage.py flowqworker [QUEUE]… [OPTION]…`: `flowq worker` for the jobs of this project."""

from __future__ import annotations

from collections.abc import Sequence

from flowq.django.management.commands import flowq

_OPTIONS = ("--preload", "flowq.django.setup", "--job-class", "flowq.django.children.DjangoJob")


class Command(flowq.Command):
    """Starts a worker whose children have set Django up."""

    help = "Execute jobs, as flowq worker does, with all of its options."

    def make_command(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the command that starts the worker, and its environment."""
        return super().make_command(["worker", *_OPTIONS, *words])
