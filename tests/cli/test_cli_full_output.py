"""Output that cannot be written: behind stdout or stderr is a full disk, or a closed terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Flowq

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="the device is Linux's")


@pytest.fixture
def full() -> Iterator[int]:
    """A file that cannot be written."""
    with FULL.open("w") as file:
        yield file.fileno()


def run(
    flowq: Flowq, *words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> tuple[int, str, str]:
    process = flowq.start(*words, stdout=stdout, stderr=stderr)
    out, err = process.communicate(timeout=60)
    return process.returncode, out or "", err or ""


@pytest.mark.parametrize(
    ("file", "code", "state"), [("sandwich", 6, "succeeded"), ("burnt", 1, "failed")]
)
def test_a_run_goes_on_and_its_code_tells_that_it_failed_or_its_output_is_lost(
    flowq: Flowq, full: int, file: str, code: int, state: str
) -> None:
    ended, _, err = run(flowq, "run", f"{file}.yaml", "-v", stdout=full)
    assert ended == code, err
    said = [line for line in err.splitlines() if "cannot write" in line]
    assert said == [
        "flowq: cannot write to standard output: No space left on device; the run goes on"
    ]
    assert "Traceback" not in err
    row = flowq("runs").stdout.splitlines()[1].split()
    assert row[2] == state
    for words in (("watch", row[0]), ("watch", row[0], "--json-lines")):
        assert run(flowq, *words, stdout=full)[0] == code


def test_json_that_is_lost_is_an_error_of_its_own(flowq: Flowq, full: int) -> None:
    code, _, err = run(flowq, "run", "sandwich.yaml", "--json-lines", stdout=full)
    assert (code, err.count("cannot write")) == (6, 1), err
    code, _, err = run(flowq, "run", "sandwich.yaml", "--json", stdout=full)
    assert code == 6
    run_id = flowq("runs").stdout.splitlines()[1].split()[0]
    assert f"the run succeeded, see flowq status {run_id} --json" in err


def test_a_full_stderr_changes_nothing(flowq: Flowq, full: int) -> None:
    for words in (("--json", "-v"), ("-q",)):
        code, out, _ = run(flowq, "run", "sandwich.yaml", *words, stderr=full)
        assert code == 0
        assert ("2 on a plate" in out) is ("-q" not in words)


def test_the_id_of_a_run_that_is_submitted_is_told_anyway(flowq: Flowq, full: int) -> None:
    code, _, err = run(flowq, "run", "sandwich.yaml", "--hold", "-q", stdout=full)
    assert code == 6
    run_id = flowq("runs").stdout.splitlines()[1].split()[0]
    assert f"flowq: run {run_id} is submitted\n" in err


def test_other_commands_say_in_one_line_that_their_output_is_lost(flowq: Flowq, full: int) -> None:
    flowq("run", "sandwich.yaml", "-q")
    run_id = flowq("runs").stdout.splitlines()[1].split()[0]
    for words in (
        ("runs",),
        ("status", run_id, "--json"),
        ("show", run_id, "serve", "-f"),
        ("check", "sandwich.yaml", "--json"),
        ("--version",),
    ):
        code, _, err = run(flowq, *words, stdout=full)
        lost = "flowq: cannot write to standard output: No space left on device\n"
        assert (words, code, err) == (words, 6, lost)


def test_a_run_whose_terminal_is_gone_goes_on(flowq: Flowq) -> None:
    ours, theirs = os.openpty()
    os.close(ours)  # writing is an error now, as after a terminal was closed
    try:
        code, _, err = run(flowq, "run", "sandwich.yaml", "-v", stdout=theirs)
    finally:
        os.close(theirs)
    assert code == 6, err
    assert err == "flowq: cannot write to standard output: Input/output error; the run goes on\n"


def in_shell(flowq: Flowq, script: str, *words: str, **env: str) -> tuple[int, str]:
    """Run a command as "$@" of a script for `sh`; return its exit code and standard error."""
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "flowq", *words],
        cwd=flowq.folder,
        env={**flowq.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_closed_stdout_is_an_output_that_cannot_be_written(flowq: Flowq) -> None:
    closed = "flowq: cannot write to standard output: it is closed\n"
    for words in (("check", "sandwich.yaml", "--json"), ("plan", "sandwich.yaml"), ("--help",)):
        assert in_shell(flowq, 'exec "$@" >&-', *words) == (6, closed)
    assert in_shell(flowq, 'exec "$@" >&-', "run", "sandwich.yaml") == (0, "")


def test_a_reader_that_stops_early_is_no_error(flowq: Flowq) -> None:
    script = 'mkfifo pipe; "$@" >pipe & read -r line <pipe; wait $!'
    assert in_shell(flowq, script, "plan", "sandwich.yaml") == (0, "")


def test_a_current_folder_that_is_gone_is_named_as_the_reason(flowq: Flowq) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    gone = "flowq: the current folder is gone; change to one that exists\n"
    for words in (("run", f"{flowq.folder}/sandwich.yaml"), ("runs",)):
        state = str(flowq.folder / "state")
        assert in_shell(flowq, script, *words, FLOWQ_STATE=state) == (2, gone), words
