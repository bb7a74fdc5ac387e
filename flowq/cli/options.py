"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from flowq.cli import terminal
from flowq.cli.completion import (
    complete_declared_job,
    complete_file,
    complete_job,
    complete_queue,
    complete_run,
)

Decorator = Callable[[Any], Any]


class Subcommands(click.Group):
    """A command with commands of its own, which names them when it does not know one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name. Errors: UsageError of click."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            from flowq.nearest import did_you_mean  # noqa: PLC0415 - difflib is rarely needed

            words = f"{ctx.info_name} {args[0]}"
            ctx.fail(f"there is no command {words!r}; {did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


target: Decorator = click.argument("target", metavar="TARGET", shell_complete=complete_file)

optional_target: Decorator = click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_file
)

run_id: Decorator = click.argument("run_id", metavar="RUN", shell_complete=complete_run)
"""A run: its id, the beginning of it, or `last` (`Place.find_run`)."""

optional_run_id: Decorator = click.argument(
    "run_id", metavar="[RUN]", required=False, shell_complete=complete_run
)

job: Decorator = click.argument("job", shell_complete=complete_job)

optional_job: Decorator = click.argument("job", required=False, shell_complete=complete_job)

queues: Decorator = click.argument(
    "queues", nargs=-1, metavar="[QUEUE]...", shell_complete=complete_queue
)


def _hide_password(ctx: click.Context, _parameter: click.Parameter, url: str | None) -> str | None:
    """Remove a password from the system's process list, or warn if that is not possible."""
    if url and not ctx.resilient_parsing:  # as for a completion, in the middle of a line
        from flowq import server  # noqa: PLC0415 - as little as possible where there is no URL

        shown = server.hide_password(url)
        if shown != url and not server.hide_argument(url, shown):
            terminal.note(
                "flowq: warning: others can see the password of --redis-url in the list of "
                "processes; set FLOWQ_REDIS_URL instead"
            )
    return url


def _redis_url(*names: str) -> Decorator:
    decorator: Decorator = click.option(
        "--redis-url",
        *names,
        "redis_url",
        metavar="URL",
        callback=_hide_password,
        help="The server: redis://HOST:PORT/DB, rediss://…, unix:///PATH, redis+sentinel://… or "
        "redis+cluster://… Default: FLOWQ_REDIS_URL, "
        "else RQ_REDIS_URL, else the private server of the current folder. Put a password into the "
        "variable, because other users can see command-line arguments.",
    )
    return decorator


redis_url: Decorator = _redis_url()

redis_url_as_rq: Decorator = _redis_url("-u", "--url")
"""The same, also by the names that `rq worker` has for it."""

no_import: Decorator = click.option(
    "--no-import",
    "imports",
    flag_value=False,
    default=True,
    help="Do not import the functions, for example if only the workers have their code.",
)

as_json: Decorator = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object to stdout, and everything else to stderr.",
)


MAX_LINES = 1_000_000_000


def limit(default: int | None, help_text: str) -> Decorator:
    """`-n N`: at most so many lines of a list."""
    return click.option(
        "-n",
        "--limit",
        type=click.IntRange(min=1, max=MAX_LINES),
        default=default,
        show_default=True,
        metavar="N",
        help=help_text,
    )


json_lines: Decorator = click.option(
    "--json-lines",
    "json_lines",
    is_flag=True,
    help="Print one JSON object per line to stdout: each event, and the run at its end.",
)

all_results: Decorator = click.option(
    "--results",
    "all_results",
    is_flag=True,
    help="With --json: all items and results of a group; default: 100 of each.",
)

nested: Decorator = click.option(
    "--nested", is_flag=True, help="With --json: also the jobs of nested workflows."
)

verbose: Decorator = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=terminal.set_up,
    help="Print more; FLOWQ_LOG=debug prints most.",
)

quiet: Decorator = click.option("-q", "--quiet", is_flag=True, help="Print only errors.")

concurrency: Decorator = click.option(
    "-c",
    "--workers",
    "concurrency",
    type=click.IntRange(min=1, max=1024),
    metavar="N",
    help="Start N workers for this run. Default: one per core on the private server, but no more "
    "than it can use; none with a URL.",
)


def _list_jobs(
    _ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())


def _jobs(option: str, name: str, meaning: str) -> Decorator:
    return click.option(
        option,
        name,
        multiple=True,
        metavar="JOB[,JOB…]",
        callback=_list_jobs,
        help=meaning,
        shell_complete=complete_declared_job,
    )


def selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--only`, `--from` and `--skip`: a command gets them as one `Selection`."""

    @wraps(command)
    def select(
        *args: Any,
        only: tuple[str, ...],
        from_: tuple[str, ...],
        skip: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        from flowq.selecting import make_selection  # noqa: PLC0415 - most commands have no graph

        return command(*args, selection=make_selection(only, from_, skip), **rest)

    meanings = {
        "--skip": ("skip", "Leave these jobs out."),
        "--from": ("from_", "Run these jobs, and everything after them."),
        "--only": (
            "only",
            "Run these jobs, and those under `finally`; all others are skipped. May be repeated, "
            "and combined with --from and --skip.",
        ),
    }
    decorated: Any = select
    for option, (name, meaning) in meanings.items():
        decorated = _jobs(option, name, meaning)(decorated)
    selecting: Callable[..., Any] = decorated
    return selecting


inputs_file: Decorator = click.option(
    "--inputs",
    "inputs_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True),
    help="Read inputs from a JSON or YAML file that maps names to values; -i overrides it.",
)


def _split(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{word!r} is not name=value")
        if name in given:
            raise click.BadParameter(f"{name} is given twice")
        given[name.strip()] = value
    return given


def _named_values(meaning: str, *names: str) -> Decorator:
    """Return an option `NAME=VALUE`, which may be given several times: a map by name."""
    return click.option(
        *(names or ("-i", "--input", "given")),
        multiple=True,
        metavar="NAME=VALUE",
        callback=_split,
        help=meaning,
    )


inputs = _named_values(
    "An input of the workflow; may be repeated. Inputs can also be set by FLOWQ_INPUT_NAME in "
    "the environment."
)

changed_inputs = _named_values(
    "With --file: an input that is another one than before; may be repeated. All others are as in "
    "that run, so FLOWQ_INPUT_NAME in the environment and edited defaults do not count."
)

values = _named_values("An input of the approval; may be repeated.")

labels = _named_values(
    "A label of the run, besides those of the workflow, which it replaces if it has the same name; "
    "may be repeated. An empty value removes a label.",
    "--label",
    "labels",
)

having_labels = _named_values(
    "Only runs with this label; may be repeated, for runs with all of them.", "--label", "labels"
)
