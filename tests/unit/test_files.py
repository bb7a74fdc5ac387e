"""Files that a user names: regular ones only, never waited for, quoted if they are workflows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flowq import files
from flowq.errors import FlowqError, Problem, UsageError, WorkflowInvalid, WorkflowNotFound
from flowq.expressions.refusals import Missing
from flowq.files import read_file
from flowq.runtime import secrets
from flowq.runtime.secrets import Secrets
from flowq.targets import load_partly, read_inputs
from tests.reading import parse_workflow

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no pipes with names")
LIMIT_S = 30


@pytest.fixture(autouse=True)
def within_the_limit() -> Iterator[None]:
    """End a test that waits for a pipe: it has failed."""

    def end(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def make_folder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def make_device(folder: Path, name: str) -> Path:
    (folder / name).symlink_to("/dev/zero")
    return folder / name


def make_socket(folder: Path, name: str) -> Path:
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)  # the whole path may be too long
    return folder / name


NO_FILES = [
    (make_pipe, "it is a pipe"),
    (make_folder, "it is a folder"),
    (make_device, "it is a device"),
    (make_socket, "it is a socket"),
]
Make = Callable[[Path, str], Path]


@pytest.mark.parametrize(("make", "said"), NO_FILES)
def test_only_regular_files_are_read(tmp_path: Path, make: Make, said: str) -> None:
    with pytest.raises(WorkflowNotFound, match=said):
        load_partly(str(make(tmp_path, "flow.yaml")))
    with pytest.raises(WorkflowNotFound, match=said):
        load_partly(str(make(tmp_path, "flow")))
    with pytest.raises(WorkflowNotFound, match=said):
        load_partly(str(make(tmp_path, "flow.py")))
    for name in ("inputs.yaml", "inputs.json"):
        with pytest.raises(UsageError, match=said):
            read_inputs(make(tmp_path, name))
    make(tmp_path, "inner.yaml")
    with pytest.raises(WorkflowInvalid, match=f"FQ119 .*{said}"):
        parse_workflow("jobs: {a: {workflow: ./inner.yaml}}", str(tmp_path / "outer.yaml"))
    make(tmp_path, "TOKEN")
    with pytest.raises(Missing, match="cannot be read"):
        Secrets({secrets.FOLDER: str(tmp_path)}, print)["TOKEN"]


def test_what_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("size: 100000")
    monkeypatch.setattr(files, "_CHUNK_BYTES", 3)
    assert read_file(file, 100) == b"size: 100000"
    assert read_file(file, 7) == b"size: 1"
    monkeypatch.setattr("flowq.targets.MAX_INPUTS_BYTES", 10)
    with pytest.raises(UsageError, match="more than 10 bytes"):
        read_inputs(file)
    monkeypatch.setattr(secrets, "MAX_BYTES", 10)
    with pytest.raises(Missing, match="more than 10 bytes"):
        Secrets({secrets.FOLDER: str(tmp_path)}, print)["large.yaml"]


def test_a_file_of_the_system_that_has_no_size_is_read_as_it_is() -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("there is no /proc")
    assert read_file("/proc/self/status", 100_000).startswith(b"Name:")
    with pytest.raises(FlowqError) as caught:
        load_partly("/proc/self/mem")
    assert isinstance(caught.value, WorkflowNotFound)


SECRETIVE = [
    "root:$6$hunter2:19000:0:99999:7:::\nbin:*:1::::\n",
    "hunter2 hunter2\n",
    "- hunter2\n",
    "hunter2: *hunter2\nother: 'hunter2\n",
    "hunter2: 1\nhunter2: 1\nx: [hunter2\n",
]
MAPS = [
    "password: hunter2\nhunter2: 1\nhunter2: 2\n",
    "name: hunter2\nenv: {a: !hunter2 b, c: *hunter2}\n",
    '{"hunter2": [1, 2], "hunter2": 3}',
    "key: hunter2\nqueue: !hunter2 b\nif: *hunter2\n",
]
"""Those that could be the inputs of a run."""


@pytest.mark.parametrize("text", [*SECRETIVE, *MAPS])
def test_a_file_that_is_no_workflow_is_not_quoted(tmp_path: Path, text: str) -> None:
    for name in ("shadow", "conf.yaml"):
        (tmp_path / name).write_text(text)
        (problem,) = problems_of(tmp_path / name)
        assert "hunter2" not in str(problem)


def problems_of(file: Path) -> Sequence[Problem]:
    try:
        return load_partly(str(file))[1]
    except WorkflowInvalid as invalid:
        return invalid.problems


@pytest.mark.parametrize("text", SECRETIVE)
def test_a_file_that_holds_no_inputs_is_not_quoted(tmp_path: Path, text: str) -> None:
    for name in ("shadow", "conf.yaml", "conf.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises((UsageError, WorkflowInvalid)) as caught:
            read_inputs(tmp_path / name)
        assert "hunter2" not in str(caught.value)


def test_a_workflow_with_a_misspelt_word_is_still_told_with_its_words(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("job: {a: {call: m:f}}\nnaem: x\n")
    _, problems = load_partly(str(file))
    assert "'job'" in str(problems)
    assert "'naem'" in str(problems)


def test_a_number_of_too_many_digits_in_a_file_of_inputs_is_told(tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    file.write_text('{"size": ' + "9" * 5_000 + "}")
    with pytest.raises(UsageError, match="more than 4,300 digits"):
        read_inputs(file)
    file.write_text('{"size": ' + "[" * 100_000 + "}")
    with pytest.raises(UsageError, match="nested too deeply"):
        read_inputs(file)
