"""The rules of commands: where values may stand in them, and what needs a shell.

`flowq.checks.check` calls each rule. `flowq.commands` decides where a value may stand; the rules
turn its answers into problems with hints.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import PureWindowsPath

from flowq.commands.places import find_places
from flowq.commands.programs import COMPARE_BY_TEST, COMPUTE, ENV, LIST, Word, find_code
from flowq.commands.values import find_shell
from flowq.errors import Excerpt, Problem
from flowq.expressions.references import Reference, find_whole_reference
from flowq.expressions.refusals import Refused
from flowq.expressions.templates import Expression, has_live_expression, split
from flowq.graph import Graph
from flowq.problems import (
    SEVERAL_VALUES,
    SHELL_WITHOUT_QUOTES,
    SHELL_WORD_IN_LIST,
    VALUE_AS_CODE,
    VALUE_AS_PROGRAM,
)
from flowq.spec import JobSpec, Workflow

_VARIABLE_BY_SHELL: Mapping[str, str] = {
    "cmd": "!NAME!",
    "elvish": "$E:NAME",
    "fish": '"$NAME"',
    "node": "process.env.NAME",
    "nu": "$env.NAME",
    "perl": "$ENV{NAME}",
    "php": "getenv('NAME')",
    "powershell": "$env:NAME",
    "pwsh": "$env:NAME",
    "pypy": "os.environ['NAME']",
    "python": "os.environ['NAME']",
    "ruby": "ENV['NAME']",
    "xonsh": "$NAME",
}


def check_shells(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Expressions stand only in commands for shells with known quoting rules."""
    for job in graph:
        if job.run is None or not isinstance(job.run.command, str):
            continue
        if find_shell(job.run.shell) is None and has_live_expression(job.run.command):
            shell = PureWindowsPath(job.run.shell or "").name.lower().removesuffix(".exe")
            bare = re.sub(r"(?<![-.\d])[-.\d]*w?$", "", shell)  # without its version
            name = shell if shell in _VARIABLE_BY_SHELL else bare
            message = (
                f"the command of job {job.name} contains an expression, and flowq cannot "
                f"quote values for {shell}"
            )
            variable = _VARIABLE_BY_SHELL.get(name)
            written = f"write {variable}" if variable else "read that variable"
            hint = (
                f"pass the value under `env:`, as in env: {{NAME: …}}, and {written}; or write "
                "the command as a list"
            )
            problem = Problem(SHELL_WITHOUT_QUOTES, message, hint=hint, excerpt=Excerpt(number=0))
            yield from workflow.places.place(problem, "jobs", job.name, "run")


def check_places(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command is placed where its value cannot become code."""
    for job in graph:
        run = job.run
        if run is None or not isinstance(run.command, str) or find_shell(run.shell) is None:
            continue
        try:
            places = find_places(run.command, run.shell)
        except Refused:  # an expression that cannot be read is a problem of its own
            continue
        for number, place in enumerate(places):
            excerpt = Excerpt(number=number)
            if place.refusal is not None:
                message = f"job {job.name} has {place.expression} where no value is allowed: it "
                message += place.refusal.reason
                hint = _write_hint(place.refusal.instead, place.expression)
                problem = Problem(VALUE_AS_CODE, message, hint=hint, excerpt=excerpt)
            elif place.is_program and not _is_listed(place.expression, workflow, job):
                message = f"job {job.name} starts the program that {place.expression} names"
                hint = "list the allowed programs in `choices` of the input, or in a `matrix`"
                problem = Problem(VALUE_AS_PROGRAM, message, None, hint, "warning", excerpt)
            else:
                continue
            yield from workflow.places.place(problem, "jobs", job.name, "run")


def _write_hint(instead: str, expression: Expression) -> str:
    """Return what to write instead, with the expression in it."""
    words = re.findall(r"[A-Za-z_]\w*", re.sub(r"\|.*|'[^']*'|\"[^\"]*\"", "", expression.source))
    name = words[-1].upper() if words else "VALUE"
    env = f'env: {{{name}: "{expression}"}}'
    if instead == ENV:
        return f'pass it as {env} and write "${name}", in single quotes where code is quoted'
    if instead == LIST:
        return (
            f"pass it as {env} and let that program read ${name}, in single quotes: "
            f'\'… "${name}" …\'; or write the command as a list, [program, "{expression}"]'
        )
    if instead == COMPUTE:
        sum_ = f"${{{{ {expression.source} + 1 }}}}"
        return f"calculate inside the expression, and use the result as text: {sum_}"
    if instead in COMPARE_BY_TEST.values():
        operator = instead.removeprefix("compare ")
        compared = f"${{{{ {expression.source} {operator} 1 }}}}"
        return f"compare inside the expression, and test the result: [ {compared} = true ]"
    return instead.replace("{}", str(expression))


def _is_listed(expression: Expression, workflow: Workflow, job: JobSpec) -> bool:
    """Whether all values of an expression are written in the workflow."""
    whole = find_whole_reference(expression.source)
    if whole is None:
        return False
    if whole.root == "inputs":
        return any(each.choices for each in workflow.inputs if each.name == whole.name)
    if whole.root == "matrix" and job.matrix is not None:
        matrix = job.matrix
        given = [values.get(whole.name, "") for values in matrix.include]
        return all(map(_is_fixed, [matrix.axes.get(whole.name, []), *given]))
    is_item = whole.root == "item" and job.for_each is not None
    return is_item and job.for_each is not None and _is_fixed(job.for_each.items)


def _is_fixed(items: object) -> bool:
    if isinstance(items, str):
        return not has_live_expression(items)
    if isinstance(items, list | tuple):
        return all(map(_is_fixed, items))
    return True


def check_arguments(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command that is a list gives one value, as far as that is known."""
    lists = {declared.name for declared in workflow.inputs if declared.type == "list"}
    for job in graph:
        command = job.run.command if job.run is not None else ""
        for index, item in enumerate(() if isinstance(command, str) else command):
            for number, expression in enumerate(_expressions_in(item)):
                whole = find_whole_reference(expression.source)
                if whole is not None and _is_several(whole, lists, graph):
                    message = (
                        f"job {job.name} has {expression} as an argument, but it has several values"
                    )
                    hint = (
                        'join them: ${{ x | join(" ") }}; take one: x[0]; or write ${{ x | json }}'
                    )
                    problem = Problem(
                        SEVERAL_VALUES, message, hint=hint, excerpt=Excerpt(number=number)
                    )
                    yield from workflow.places.place(problem, "jobs", job.name, "run", index)


def check_code(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command that is a list is no code for the program that gets it."""
    for job in graph:
        command = job.run.command if job.run is not None else ""
        if isinstance(command, str) or not any(map(_expressions_in, command)):
            continue
        words = [_as_word(item) for item in command]
        for index, item in enumerate(command):
            refusal = find_code(words, index) if words[index].has_value else None
            if refusal is None:
                continue
            expression = _expressions_in(item)[0]
            message = (
                f"job {job.name} has {expression} where no value is allowed: it {refusal.reason}"
            )
            hint = (
                "write it behind the code, as an argument that the code reads; or pass it as "
                f'env: {{VALUE: "{expression}"}}, and read that variable'
            )
            problem = Problem(VALUE_AS_CODE, message, hint=hint, excerpt=Excerpt(number=0))
            yield from workflow.places.place(problem, "jobs", job.name, "run", index)


def _as_word(item: str) -> Word:
    if not _expressions_in(item):
        return Word(item, item)
    first = split(item)[0]
    return Word(None, first if isinstance(first, str) else "", has_value=True)


def _expressions_in(item: str) -> list[Expression]:
    try:
        return [part for part in split(item) if isinstance(part, Expression)]
    except Refused:  # an expression that cannot be read is a problem of its own
        return []


def _is_several(reference: Reference, lists: Collection[str], graph: Graph) -> bool:
    if reference.root == "jobs":
        job = graph.job_by_name.get(reference.name)
        is_outputs = job is not None and bool(job.workflow) and reference.attribute == "result"
        return is_outputs or reference.attribute in ("results", "outcomes", "by_key")
    if reference.root == "inputs":
        return reference.name in lists
    return reference.root == "matrix" and not reference.name


def check_shell_words(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A command list contains no shell syntax (a warning)."""
    for job in workflow.jobs:
        command = job.run.command if job.run is not None else ""
        if isinstance(command, str) or _stem(command[0]) in _SHELLS:
            continue
        for index, item in enumerate(command[1:], 1):
            if what := _find_shell_word(item, _stem(command[0])):
                message = f"job {job.name} passes {item:.40} as an argument: no shell {what}"
                where = workflow.places.find("jobs", job.name, "run", index)
                text = " ".join(
                    each  # shell syntax unquoted, the rest quoted
                    if "${{" in each or _find_shell_word(each, _stem(command[0]))
                    else shlex.quote(each)
                    for each in command
                )
                as_yaml = text.replace("'", "''")
                hint = f"write the command as one text for a shell: run: '{as_yaml:.200}'"
                yield Problem(SHELL_WORD_IN_LIST, message, where, hint, severity="warning")


_SHELLS = frozenset(
    {"bash", "sh", "zsh", "dash", "ash", "ksh", "fish", "pwsh", "powershell", "cmd", "env", "ssh"}
)
"""Programs whose arguments may contain shell syntax."""

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
"""Programs whose arguments are files, not patterns."""


def _find_shell_word(item: str, program: str) -> str:
    """Return what a shell would do with an argument; "" for an ordinary argument."""
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
"""Programs that give such a word a meaning of their own."""

_WITH_DOLLARS = frozenset({"awk", "gawk", "mawk", "sed", "perl", "make", "jq", "envsubst"})
"""Programs that may give a dollar sign a meaning of their own."""


def _stem(program: str) -> str:
    return PureWindowsPath(program).stem.lower()
