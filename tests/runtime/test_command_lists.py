"""`run: [program, argument]`: commands without a shell, in which each item is one argument."""

from __future__ import annotations

import datetime
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis

from flowq.errors import ShellFailed, WorkflowInvalid
from flowq.runtime import planned, shell
from flowq.runtime.masking import Mask
from flowq.spec import Shell
from tests.runtime.language import Runs, each, job
from tests.runtime.server_processes import is_alive

Work = Callable[..., None]

SHOW = "import json, os, sys; print(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))"


class Pair(NamedTuple):
    """Two values."""

    a: int
    b: int


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def execute(command: Sequence[str], values: dict[str, Any] | None = None, **more: Any) -> Any:
    found = values or {}
    return shell.run({"command": list(command), **more}, found.__getitem__, Mask())


def arguments(*items: str, **values: Any) -> list[str]:
    """Return what a program gets, with `values` for the expressions of their names."""
    named = {f"${{{{ {name} }}}}": value for name, value in values.items()}
    found = execute([sys.executable, "-c", SHOW, *items], named, result="json")
    return [os.fsdecode(bytes.fromhex(argument)) for argument in found]


@pytest.mark.parametrize(
    "value",
    ["a b", "", "$HOME `id` $(id)", "'\"\\", "*", "two\nlines", "-rf", "~", "é", "caf\udce9"],
)
def test_an_item_and_a_value_are_one_argument_with_exactly_their_bytes(value: str) -> None:
    assert arguments(value, "${{ item }}", "<${{ item }}>", item=value) == [
        value,
        value,
        f"<{value}>",
    ]


@pytest.mark.parametrize(
    ("value", "argument"),
    [
        (b"caf\xe9", "caf\udce9"),
        (3, "3"),
        (1.5, "1.5"),
        (True, "true"),
        (Decimal("1.10"), "1.10"),
        (Path("a b"), "a b"),
        (datetime.date(2026, 11, 28), "2026-11-28"),
    ],
)
def test_a_value_that_is_no_text_has_the_text_that_it_has_elsewhere(
    value: Any, argument: str
) -> None:
    assert arguments("${{ item }}", item=value) == [argument]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "it is none"),
        ([1, 2], "a list of 2"),
        ((), "a list of 0"),
        ({"a": 1}, "a map of 1"),
        ({1}, "a set"),
        (range(3), "a range"),
        (Pair(1, 2), "a Pair"),
        (object(), "an object"),
    ],
)
def test_what_is_several_values_or_none_is_refused_and_the_error_says_what_to_write(
    value: Any, what: str
) -> None:
    for item in ("${{ item }}", "--x=${{ item }}"):
        with pytest.raises(WorkflowInvalid) as caught:
            arguments(item, item=value)
        (problem,) = caught.value.problems
        assert what in problem.message
        assert problem.hint


# What cannot be started --------------------------------------------------------------------------


def refusal(*command: str) -> tuple[int, str]:
    with pytest.raises(ShellFailed) as caught:
        execute(command)
    return caught.value.exit_code_of_command, caught.value.last_line


@pytest.mark.skipif(os.name == "nt", reason="rights and interpreters of POSIX")
def test_what_cannot_be_started_is_told_in_one_sentence_with_the_code_of_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tool"
    assert refusal("nothing4711", "a") == (
        127,
        "there is no program nothing4711 where the job runs",
    )
    assert refusal("nothing4711 -l") == (
        127,
        "there is no program 'nothing4711 -l' where the job runs; "
        "each item of the list is one argument: [nothing4711, -l]",
    )
    assert refusal("./tool") == (127, f"there is no file ./tool in {tmp_path}")
    file.write_text("#!/nothing4711\n")
    code, reason = refusal("./tool")
    assert (code, "cannot be executed: Permission denied" in reason) == (126, True)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    assert refusal("./tool") == (
        127,
        "the program that the first line of ./tool names does not exist",
    )
    file.write_text("echo no first line\n")
    assert refusal("./tool") == (
        126,
        "./tool is not a program; a script begins with a line such as #!/bin/sh",
    )
    assert refusal("./tool/inner")[0] == 127
    assert refusal("true", "x" * 5_000_000)[1].startswith("its arguments are too long")
    assert refusal("true", "a\0b")[1] == "a command cannot contain the character NUL"
    assert refusal("")[0] == 127


def test_the_error_has_the_command_as_it_would_be_written_in_a_shell() -> None:
    with pytest.raises(ShellFailed, match=r"^`nothing4711 'a b' x ''` ended with"):
        execute(["nothing4711", "a b", "${{ item }}", ""], {"${{ item }}": "x"})


def test_an_exit_code_and_the_last_line_are_told_as_with_a_shell() -> None:
    with pytest.raises(ShellFailed) as caught:
        execute([sys.executable, "-c", "import sys; print('it went wrong'); sys.exit(3)"])
    assert caught.value.exit_code_of_command == 3
    assert str(caught.value).endswith("ended with exit code 3: it went wrong")


# In a run ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="programs of POSIX")
def test_a_list_has_items_results_environment_and_folder_as_a_text_has(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(
        job("first", "give", with_={"value": "a b"}),
        job(
            "each",
            for_each=each(["x y", "z"]),
            run=Shell(("printf", "%s\n", "${{ item }}", "${{ jobs.first.result }}"), None, "lines"),
        ),
        job("where", run=Shell(("pwd",)), cwd=str(tmp_path)),
        job("name", run=Shell(("printenv", "NAME")), env={"NAME": "${{ inputs.name }}"}),
        inputs={"name": "me"},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("each--0") == ["x y", "a b"]
    assert run.result("where") == str(tmp_path)
    assert run.result("name") == "me"
    view: Any = run.connection.hget("rq:job:r1-each--0", "flowq_view")
    assert json.loads(view)["arguments"]["command"] == "printf '%s\n' 'x y' 'a b'"


@pytest.mark.skipif(os.name == "nt", reason="programs of POSIX")
def test_a_timeout_ends_a_list_and_a_folder_that_is_not_there_fails_it(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    run.submit(
        job("long", run=Shell((sys.executable, "-c", code)), timeout_s=1),
        job("lost", run=Shell(("ls",)), cwd="nothing4711"),
        job("call", "give", with_={"value": 1}, cwd="nothing4711"),
    )
    work()
    assert "JobTimeoutException" in run.error("long")
    end = time.monotonic() + 60
    while is_alive(int(pid_file.read_text())):
        assert time.monotonic() < end
    assert "ShellFailed: `ls` ended with exit code 127: its `cwd` 'nothing4711'" in run.error(
        "lost"
    )
    assert "the job cannot start: its `cwd` 'nothing4711' cannot be entered" in run.error("call")


def test_workers_that_do_not_know_lists_refuse_them_and_execute_all_other_commands() -> None:
    def needed(command: str | tuple[str, ...]) -> int:
        enqueue = planned.Enqueue("a", "a", Shell(command))
        return int(planned.call_of(enqueue)[1][0]["flowq"])

    assert needed("date") == 1
    assert needed(("date",)) == 2
