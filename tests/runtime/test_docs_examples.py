"""Every example of the documentation that looks runnable is run, and every other is checked.

An example that begins with `# in FILE` is a part of that workflow. Any other of YAML is run when
its jobs call functions of the standard library, or commands that are there everywhere. If yours
fails here: change it so that it succeeds when a reader pastes it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from redis import Redis

from flowq.cli.main import commands
from flowq.client import submit
from flowq.compiling import compile_plan, find_problems
from flowq.errors import WorkflowInvalid
from flowq.inputs import EXAMPLE_BY_TYPE
from flowq.spec import JobSpec, Workflow
from tests.reading import parse_workflow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)( wrong| right)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
EVERYWHERE = frozenset({"echo", "sleep", "true", "false", "printf", "ls"})


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Yield the page and line, and the text, of each block that is not shown as wrong."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in BLOCK.finditer(text):
            language, judgement, block = found.groups()
            if language in languages and judgement != " wrong":
                line = text.count("\n", 0, found.start()) + 2
                yield f"{page.relative_to(ROOT)}:{line}", block


def params(*languages: str) -> list[object]:
    return [pytest.param(where, text, id=where) for where, text in blocks(*languages)]


def is_runnable(workflow: Workflow) -> bool:
    nested = workflow.workflows.values()
    return all(map(_is_there, workflow.jobs)) and all(map(is_runnable, nested))


def _is_there(job: JobSpec) -> bool:
    if job.approval is not None or job.expires_s is not None:
        return False
    if job.run is not None:
        command = job.run.command
        words = (
            shlex.split(command.replace("${{", "").replace("}}", ""), posix=True)
            if isinstance(command, str)
            else command
        )
        return words[0] in EVERYWHERE and job.run.shell is None and job.cwd is None
    return not job.call or job.call.partition(":")[0].partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize(("where", "text"), params("yaml"))
def test_an_example_in_yaml_succeeds(
    where: str, text: str, connection: Redis, work: Callable[..., None]
) -> None:
    try:
        workflow = parse_workflow(text.replace("␇", ""), where)
    except WorkflowInvalid as invalid:
        if "jobs:" not in text:
            return  # a part of a workflow
        raise AssertionError(f"{where} is wrong: {invalid}") from None
    runnable = is_runnable(workflow)
    if text.startswith("# in "):  # a part of the workflow that it names
        assert (ROOT / text.split()[2]).exists(), f"{where} names no file"
        return
    errors = [p for p in find_problems(workflow, imports=runnable) if p.severity == "error"]
    assert not errors, f"{where} is refused by `flowq check`:\n{errors[0]}"
    if not runnable:
        return
    required = [each for each in workflow.inputs if each.required]
    values = {each.name: [*each.choices, EXAMPLE_BY_TYPE.get(each.type)][0] for each in required}
    plan = compile_plan(workflow, values)
    run = submit(plan, connection)
    work(None, *sorted({each.queue for each in plan.enqueues}))
    failed = [job.name for job in run.status().jobs.values() if job.state == "failed"]
    assert not failed, f"{where}: {failed[0]} fails when it is run: {run.status().jobs[failed[0]]}"


@pytest.mark.parametrize(("where", "text"), params("python"))
def test_an_example_in_python_can_be_read(where: str, text: str) -> None:
    compile(text, where, "exec")


@pytest.mark.parametrize(("where", "text"), params("console"))
def test_a_command_that_is_shown_is_one(where: str, text: str) -> None:
    for line in re.findall(r"^\$ flowq (.*)$", text, re.MULTILINE):
        words = shlex.split(line.partition(" #")[0].partition(" | ")[0].partition(" > ")[0])
        assert words, f"{where}: `flowq` alone"
        name = words[0]
        command = commands.get_command(click.Context(commands), name)
        assert command is not None, f"{where}: there is no command {name}"
        known = {option for each in command.params for option in each.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{where}: {name} has no option {word}"
