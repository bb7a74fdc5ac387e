"""`flowq completion`: shell completion of commands, runs, jobs and queues.

The shell calls `flowq` for each press of the Tab key (`flowq.cli.main`), so a completer asks only a
running server, for at most a second. It starts nothing, and offers nothing if an error occurs: a
message would appear in the middle of the user's command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from flowq.cli import terminal

if TYPE_CHECKING:
    from redis import Redis

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_FLOWQ_COMPLETE"
WITHIN_S = 1.0
NEWEST = 50
"""How many runs are offered."""

_SAFE = re.compile(r"[\w.,:@%+/=\[\]-]+")
"""Names of jobs and queues are data, and a shell takes what is offered as it is."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a shell's completion script for commands, options, runs, jobs and queues.

    Add the line for your shell to its start-up file. Runs, jobs and queues are those of a server
    that is running: completion does not start the private server.

    \b
      eval "$(flowq completion bash)"           # ~/.bashrc
      eval "$(flowq completion zsh)"            # ~/.zshrc, behind compinit
      flowq completion fish | source            # ~/.config/fish/config.fish
    """
    root = click.get_current_context().find_root().command
    made = get_completion_class(shell)
    assert made is not None
    terminal.write(f"{made(root, {}, 'flowq', VARIABLE).source()}\n")


def complete_run(
    ctx: click.Context, _param: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Offer the newest runs, each with its workflow, state and age."""

    def find(connection: Redis) -> list[CompletionItem]:
        from flowq.client import list_runs  # noqa: PLC0415 - nothing but this needs it
        from flowq.render.lines import format_age, printable  # noqa: PLC0415

        now, records = datetime.now(UTC), list_runs(connection, NEWEST)
        last = CompletionItem("last", help="the newest run")
        return [last] * bool(records) + [
            CompletionItem(
                record.run_id,
                help=f"{printable(record.workflow)}, {record.state}, "
                f"{format_age(record.created_at, now)}",
            )
            for record in records
        ]

    return _offer(ctx, beginning, find)


def complete_job(
    ctx: click.Context, _param: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Offer the jobs and groups of the run named before; items after an opening bracket."""

    def find(connection: Redis) -> list[CompletionItem]:
        from flowq.client import find_run  # noqa: PLC0415 - nothing but this needs it
        from flowq.render.groups import collapse  # noqa: PLC0415

        word = ctx.params.get("run_id") or ctx.params.get("run_or_job") or ""
        status = find_run(word, connection).status()
        if "[" not in beginning:
            return [CompletionItem(name) for name in collapse(status)]
        return [CompletionItem(job.name) for job in status.jobs.values() if not job.helps]

    return _offer(ctx, beginning, find)


def complete_declared_job(
    ctx: click.Context, _param: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Offer the jobs of the YAML file named before, also after a comma. Runs no code."""
    from flowq.declare.yaml import read_partly  # noqa: PLC0415 - nothing but this needs it

    before, comma, name = beginning.rpartition(",")
    words = [ctx.params.get("target") or "", *ctx.args]  # click has not read all words yet
    try:
        workflow, _ = read_partly(next(each for each in words if each.endswith((".yaml", ".yml"))))
    except Exception:  # noqa: BLE001 - whatever it is, the user is in the middle of typing
        return []
    names = [job.name for job in workflow if job.name.startswith(name)]
    return [CompletionItem(f"{before}{comma}{each}") for each in names if _SAFE.fullmatch(each)]


def complete_queue(
    ctx: click.Context, _param: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Offer the existing queues."""

    def find(connection: Redis) -> list[CompletionItem]:
        from flowq.client import list_queues  # noqa: PLC0415 - nothing but this needs it

        return [CompletionItem(name) for name in list_queues(connection)]

    return _offer(ctx, beginning, find)


def complete_file(
    _ctx: click.Context, _param: click.Parameter, beginning: str
) -> list[CompletionItem]:
    """Let the shell complete file names."""
    return [CompletionItem(beginning, type="file")]


def _offer(
    ctx: click.Context, beginning: str, find: Callable[[Redis], list[CompletionItem]]
) -> list[CompletionItem]:
    """Return the names with this prefix that a running server has."""
    from redis.backoff import NoBackoff  # noqa: PLC0415 - `flowq completion` needs no server
    from redis.retry import Retry  # noqa: PLC0415

    from flowq import server  # noqa: PLC0415

    try:
        url = server.resolve_url(ctx.params.get("redis_url"))
        if url is None:
            found = server.find(None if server.is_used() else server.find_used_above())
            url = found.url if found is not None and found.is_running else ""
        with server.make_client(
            url,
            socket_connect_timeout=WITHIN_S,
            socket_timeout=WITHIN_S,
            retry=Retry(NoBackoff(), 0),
        ) as connection:
            items = [item for item in find(connection) if _SAFE.fullmatch(item.value)]
            return [item for item in items if item.value.startswith(beginning)]
    except Exception:  # noqa: BLE001 - whatever it is, the user is in the middle of typing
        return []
