"""Every code block of every page is right, also where it is not played.

YAML that is a workflow passes `flowq check`, and runs when its jobs call functions of the standard
library, or commands that are there everywhere: change an example that fails here so that it
succeeds when a reader pastes it. Python can be compiled, JSON, TOML and INI parsed, and the
commands and options of `flowq` exist. A block that begins with `# in FILE` is a part of that file.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable

import click
import pytest
import yaml
from redis import Redis

from flowq.cli.main import commands
from flowq.client import submit
from flowq.compiling import compile_plan, find_problems
from flowq.errors import WorkflowInvalid
from flowq.inputs import EXAMPLE_BY_TYPE
from flowq.spec import JobSpec, Workflow
from tests.docs.pages import ROOT, Block, find_pages, is_played, read_blocks
from tests.reading import parse_workflow

EVERYWHERE = frozenset({"echo", "sleep", "true", "false", "printf", "ls"})
BLOCKS = [block for page in find_pages() for block in read_blocks(page)]
CHECKED = {"yaml", "python", "console", "json", "toml", "ini"}
PLAIN = {"text", "dockerfile", "sh", ""}
"""What nobody parses here: drawings, usage lines, files of other tools."""


def params(*languages: str, is_alone: bool = True) -> list[object]:
    """Return the blocks of these languages; those that are shown as wrong have a test elsewhere."""
    wanted = [b for b in BLOCKS if b.language in languages and b.judgement != "wrong"]
    if is_alone:
        wanted = [b for b in wanted if not is_played(b.page)]
    return [pytest.param(block, id=block.where) for block in wanted]


def test_every_language_of_a_block_is_known() -> None:
    assert {block.language for block in BLOCKS} <= CHECKED | PLAIN
    fences = sum(len(re.findall("^```", p.read_text("utf-8"), re.M)) for p in find_pages())
    assert fences == 2 * len(BLOCKS), "a block is indented, or not closed"


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


@pytest.mark.parametrize("block", params("yaml"))
def test_an_example_in_yaml_succeeds(
    block: Block, connection: Redis, work: Callable[..., None]
) -> None:
    is_workflow = re.search(r"^(jobs|workflows):", block.text, re.MULTILINE)
    if block.mark == "fragment" or not is_workflow:
        list(yaml.safe_load_all(block.text))
        return
    try:
        workflow = parse_workflow(block.text.replace("␇", ""), block.where)
    except WorkflowInvalid as invalid:
        raise AssertionError(f"{block.where} is wrong: {invalid}") from None
    if block.text.startswith("# in "):  # a part of the workflow that it names
        whole = (ROOT / block.text.split()[2]).read_text("utf-8")
        for line in block.text.splitlines()[1:]:
            assert re.sub(r" +#.*", "", line) in whole, f"{block.where}: {line} is not in the file"
        return
    runnable = is_runnable(workflow)
    errors = [p for p in find_problems(workflow, imports=runnable) if p.severity == "error"]
    assert not errors, f"{block.where} is refused by `flowq check`:\n{errors[0]}"
    if runnable:
        run_it(workflow, block.where, connection, work)


def run_it(workflow: Workflow, where: str, connection: Redis, work: Callable[..., None]) -> None:
    required = [each for each in workflow.inputs if each.required]
    values = {each.name: [*each.choices, EXAMPLE_BY_TYPE.get(each.type)][0] for each in required}
    plan = compile_plan(workflow, values)
    run = submit(plan, connection)
    work(None, *sorted({each.queue for each in plan.enqueues}))
    failed = [job.name for job in run.status().jobs.values() if job.state == "failed"]
    assert not failed, f"{where}: {failed[0]} fails when it is run: {run.status().jobs[failed[0]]}"


@pytest.mark.parametrize("block", params("python"))
def test_an_example_in_python_can_be_read(block: Block) -> None:
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize("block", params("json", "toml", "ini", is_alone=False))
def test_a_file_of_another_tool_can_be_read(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    else:
        configparser.ConfigParser(interpolation=None).read_string(block.text)


@pytest.mark.parametrize("block", params("console", is_alone=False))
def test_a_command_that_is_shown_is_one(block: Block) -> None:
    for line in re.findall(r"^\$ (?:[A-Z_]+=\S+ )*flowq (.*)$", block.text, re.MULTILINE):
        words = shlex.split(line.partition(" #")[0].partition(" | ")[0].partition(" > ")[0])
        assert words, f"{block.where}: `flowq` alone"
        name = words[0]
        command = commands.get_command(click.Context(commands), name)
        assert command is not None, f"{block.where}: there is no command {name}"
        known = {option for each in command.params for option in each.opts}
        for word in words[1:]:
            if word.startswith("--"):
                option = word.partition("=")[0]
                assert option in known, f"{block.where}: {name} has no option {word}"
