"""Which server a command talks to."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowq import client, server
from flowq.cli import terminal
from flowq.client import Run
from flowq.errors import NotFound, RunNotFound
from flowq.runtime.connections import Outage, RetryWhileRefused
from flowq.runtime.maintenance import read_lease
from flowq.server.connection import server_errors
from flowq.server.state import guess_old_name
from flowq.status import RunStatus
from flowq.texts import show

_logger: ContextVar[logging.Logger | None] = ContextVar("logger", default=None)
_SCHEMES_OF_RQ = ("redis", "rediss", "unix")


@dataclass(frozen=True)
class Place:
    """A server, and how it was named: `option` is what the command line said, if it did.

    `retry` lets the commands of the connection wait while the server refuses.
    """

    url: str
    connection: Any
    is_embedded: bool
    retry: RetryWhileRefused
    option: str | None = None

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return server.hide_password(self.url)

    def revive(self) -> None:
        """Restart the private server if it is gone; flowq does not start other servers.

        Usually its guardian has already restarted it.
        Errors: ServerUnavailable.
        """
        if self.is_embedded:
            server.ensure()

    def find_run(self, word: str) -> Run:
        """Return the run that a word names: id, beginning of an id, or `last`. Errors: NotFound."""
        return client.find_run(word, self.connection)

    def find_job(self, word: str, job: str | None = None) -> tuple[Run, str | None]:
        """Return a run, and the name of one of its jobs if one is named: apart, or as RUN-JOB.

        The job need not be there. Errors: NotFound for the run.
        """
        try:
            return self.find_run(word), job
        except RunNotFound:
            beginning, dash, name = word.partition("-")
            if job is not None or not dash:
                raise
            found = client.find_job(word, self.connection)
            if found is not None and found.run_id:
                return client.get_run(found.run_id, self.connection), found.name
            with suppress(RunNotFound):  # that several runs begin so is said
                return self.find_run(beginning), name
            raise

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let the commands of the connection raise at once when the server refuses."""
        within_s = self.retry.wait_at_most(0.0)
        try:
            yield
        finally:
            self.retry.wait_at_most(within_s)

    def hint(self, words: str, *names: str) -> str:
        """Return a command for the user to paste into a shell that talks to the same server.

        `words` stand there as they are; `names` of jobs, runs and queues are quoted.
        """
        words = " ".join([words, *map(shlex.quote, names)])
        if self.option is None:
            return f"flowq {words}"
        shown = server.hide_password(self.option)
        return f"flowq {words} --redis-url {shlex.quote(shown)}"

    def rq_hint(self, words: str, *names: str) -> str:
        """Return a command of RQ's that talks to the same server; "" when RQ's know no such URL."""
        if urlsplit(self.url).scheme not in _SCHEMES_OF_RQ:
            return ""
        words = " ".join([words, *map(shlex.quote, names)])
        return f"rq {words} --url {shlex.quote(self.shown_url)}"


@contextmanager
def opened(
    option: str | None, *, is_here: bool = False, creating: bool = False, is_changing: bool = False
) -> Iterator[Place]:
    """Connect to the server of a URL, or to the private server of this folder, or one above it.

    For a server of a folder above, that is the current folder inside the block: workers started
    there find the code of its runs; with `is_changing`, a message names it. With `is_here`, only
    the current folder counts, for commands that execute its code or remove its data. Starts the
    private server if necessary; with `creating`, even if it has never been used, in the current
    folder.
    Errors: ServerUnavailable, also for connection errors inside the block; NotFound;
    UsageError for a variable of the environment.
    """
    read_lease(os.environ)  # of workers that it starts: they would only end again and again
    url = server.resolve_url(option)
    if url is None:
        is_fixed = is_here or creating or server.is_used()
        above = None if is_fixed else server.find_used_above()
        if above and is_changing:
            note(f"using the private server of {show(str(above))}")
        with chdir(above) if above else nullcontext():
            yield from _embedded(creating)
        return
    with server_errors(url):
        retry = make_retry()
        connection = server.connect(url, retry=retry)
        try:
            yield Place(url, connection, False, retry, option)
        finally:
            connection.close()


@contextmanager
def opened_if_used(option: str | None, *, is_here: bool = False) -> Iterator[Place | None]:
    """Like `opened`, but yield None, with a message, if no private server has ever been used.

    For commands that have nothing to do in that case.
    """
    is_named = server.resolve_url(option) is not None
    if not (is_named or server.is_used() or (not is_here and server.find_used_above())):
        note(_tell_unused())
        yield None
        return
    with opened(option, is_here=is_here) as place:
        yield place


def tell_abandoned(run: Run, place: Place) -> str:
    """Return what to say about a run on the private server whose workers are gone."""
    if not run.record().queue:  # a scheduled run: it shares its queues with others
        return tell_unattended(run.unattended_queues(), place)
    command = place.hint("release", run.run_id)
    return f"no worker executes the jobs of this run; resume it with: {command}"


def tell_unattended(queues: Sequence[str], place: Place) -> str:
    """Return what to say about jobs on queues on which no worker listens."""
    jobs = f"jobs wait on the queue{'s' if len(queues) > 1 else ''} {', '.join(queues)}"
    return f"no worker listens: {jobs}; start one: {place.hint('worker', *queues)}"


def find_abandoned(run: Run, status: RunStatus, place: Place) -> str:
    """Return what to say if a run has something to execute and no workers; "" if not.

    Of a run on a server that others use too, this is not known: their workers may start any time.
    """
    if status.state != "running" or not place.is_embedded or run.is_served(or_soon=True):
        return ""
    hold = run.find_hold()
    return tell_abandoned(run, place) if hold is None or hold.kind != "held" else ""


def warn_about(place: Place) -> None:
    """Warn on stderr about server settings that may lose jobs."""
    for warning in server.health(place.connection):
        note(warning, is_warning=True)


def _embedded(creating: bool) -> Iterator[Place]:
    if not creating and not server.is_used():
        raise NotFound(_tell_unused())
    started = server.ensure()
    with server_errors(started.url):
        retry = make_retry()
        connection = server.connect(started.url, retry=retry)
        try:
            yield Place(started.url, connection, True, retry)
        finally:
            connection.close()


def _tell_unused() -> str:
    old_name = guess_old_name()
    renamed = (
        f"; if this folder was named {old_name} before: flowq server adopt {shlex.quote(old_name)}"
    )
    return (
        f"there are no runs in {Path.cwd()}: no private server was started here or above; "
        "flowq run starts one with workers; otherwise go to the folder of the runs, or name a "
        "server with --redis-url"
    ) + (renamed if old_name else "")


def make_retry() -> RetryWhileRefused:
    """Return how a command waits for a server that refuses, telling the user about it once."""
    return RetryWhileRefused(Outage(note, note))


def note(text: str, *, is_warning: bool = False) -> None:
    """Print a line of flowq's own on standard error, or log it, inside `notes_as_records`."""
    if logger := _logger.get():
        logger.log(logging.WARNING if is_warning else logging.INFO, "%s", text)
    else:
        terminal.note(f"flowq: {'warning: ' if is_warning else ''}{text}")


@contextmanager
def notes_as_records(name: str) -> Iterator[None]:
    """Let `note` log to the logger of this name, for a command whose output programs read."""
    token = _logger.set(logging.getLogger(name))
    try:
        yield
    finally:
        _logger.reset(token)
