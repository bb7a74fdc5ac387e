"""Write the reference of the commands.

    python docs/tools/commands.py > docs/reference/commands.md

All of it comes from the commands' own help. A test compares the page with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from flowq.cli.main import COMMANDS, commands

_WORD = re.compile(r"(?<![\w/-])(--[a-z][a-z-]+|(FLOWQ|RQ)\\_[A-Z_\\]+)(?!\w)")
INTRODUCTION = """\
# Commands

`flowq COMMAND --help` prints the same. Each command accepts `-h`, `--help`. Names in capitals stand
for values: RUN is the id of a run, the first letters of one, or `last`; TARGET is a YAML file,
`package.module:workflow` or `file.py:workflow`.
"""


def write_page() -> str:
    """Return the page."""
    context = click.Context(commands, info_name="flowq")
    parts = [INTRODUCTION, *_prologue(context)]
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command is not None
        parts += _describe(command, click.Context(command, context, info_name=name), 2)
    return "\n".join(parts)


def _prologue(context: click.Context) -> Iterator[str]:
    """Yield what `flowq --help` says about all commands."""
    *_, server, codes = re.split(r"\n\n+", inspect.cleandoc(commands.help or "").replace("\b", ""))
    yield f"{_in_line(server)}\n"
    yield f"{_in_line(codes)}\n"


def _describe(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} flowq {context.command_path.removeprefix('flowq ')}\n"
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    yield f"```text\n{usage}\n```\n"
    yield from _paragraphs(command.help or "")
    rows = [row for each in command.params if (row := _row(each, context))]
    if rows:
        yield "| option | |\n|---|---|"
        yield "\n".join((*rows, ""))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _describe(inner, click.Context(inner, context, info_name=name), level + 1)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that click leaves as they are become examples."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if part.lstrip().startswith("\b"):
            lines = inspect.cleandoc(part.replace("\b", "")).splitlines()
            yield "\n".join(("```text", *(line.rstrip() for line in lines), "```\n"))
        else:
            yield f"{_in_line(part)}\n"


def _in_line(text: str) -> str:
    """Return a text as one line of Markdown, with its options and variables marked as code."""
    parts = " ".join(text.split()).split("`")
    for place in range(0, len(parts), 2):  # those between are marked already
        plain = parts[place].replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")
        parts[place] = _WORD.sub(lambda found: f"`{found[0]}`".replace("\\", ""), plain)
    return "`".join(parts)


def _row(parameter: click.Parameter, context: click.Context) -> str:
    record = parameter.get_help_record(context)
    if record is None or not record[1]:
        return ""
    names, text = record
    return f"| `{names.replace('|', '/')}` | {_in_line(text).replace('|', '/')} |"


if __name__ == "__main__":
    print(write_page(), end="")
