"""What is no workflow at all is refused in a sentence, at a position, and in bounded time."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import pytest

from flowq.compiling import load
from flowq.declare import yaml, yaml_text
from flowq.errors import WorkflowInvalid, WorkflowNotFound

RUN = "jobs: {a: {run: x}}\n"
BOMB = "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED = {
    "nothing": (b"", "1:1: FQ113"),
    "blanks": (b"  \n\n ", "1:1: FQ113"),
    "a page": (b"<html><body>404 Not Found</body></html>", "1:1: FQ113"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "1:1: FQ101"),
    "random bytes": (bytes(range(128, 256)), "1:1: FQ101"),
    "UTF-16": (RUN.encode("utf-16"), "1:1: FQ101"),
    "UTF-16 without a mark": (RUN.encode("utf-16-be"), "1:1: FQ101"),
    "UTF-32": (RUN.encode("utf-32"), "1:1: FQ101"),
    "Latin-1": ("jobs:\n  a: {run: é}\n".encode("latin-1"), "2:12: FQ101"),
    "a NUL": (b'jobs:\n  a: {run: "x\0"}\n', "2:14: FQ101"),
    "half a character": (b'jobs: {a: {run: "\\uD800"}}\n', "1:20: FQ102"),
    "ten million of one": (b"x" * 10_000_000, "1:1: FQ113"),
    # A libyaml with a limit of its own looks that far ahead.
    "lists in lists": (b"jobs: " + b"[" * 100_000, "1:(70|1006): FQ111"),
    "maps in lists": (b"jobs: " + b"[{a: " * 50_000, "1:163: FQ111"),
    "lists in lines": (b"- " * 100_000, "1:129: FQ111"),
    "maps in maps": ("".join(f"{' ' * n}a:\n" for n in range(500)).encode(), "65:65: FQ111"),
    "aliases of aliases": (f"a: &a [x]\n{BOMB}{RUN}".encode(), "6:32: FQ111"),
    "a key of many letters": (b"jobs:\n  " + b"k" * 100_000 + b": {run: x}\n", "2:100003: FQ102"),
    "a quote left open": (b'"' * 99_999, "1:3: FQ102"),
    "tabs": (b"jobs:\n\ta:\n\t\trun: x\n", "2:1: FQ102"),
    "a job twice": (b"jobs:\n  a: {run: x}\n  a: {run: y}\n", "3:3: FQ104"),
    "jobs twice": (RUN.encode() * 2, "2:1: FQ104"),
    "two documents": (b"jobs: {a: {run: x}}\n---\njobs: {}\n", "2:1: FQ113"),
    "an object": (b'!!python/object/apply:os.system ["exit 1"]\n', "1:1: FQ112"),
    "a number of many digits": (
        b"jobs: {a: {run: x, timeout: " + b"9" * 4_000 + b"}}",
        "1:29: FQ110",
    ),
    "more than anything counts": (b"jobs: {a: {run: x, retries: 9999999999}}", "1:29: FQ105"),
}
READ = {
    "a mark of UTF-8": RUN.encode("utf-8-sig"),
    "lines of Windows": b"jobs:\r\n  a:\r\n    run: |\r\n      x\r\n      y\r\n",
    "lines of old": b"jobs:\r  a: {run: x}\r",
    "a tab behind a colon": b"jobs:\n  a:\n    run:\tx\n",
    "JSON": b'{"jobs": {"a": {"run": "x"}}}',
    "a directive": b"%YAML 1.2\n---\njobs: {a: {run: x}}\n",
    "escapes": b'jobs: {a: {run: "\\u2028 \\x07 \\0"}}\n',
}


@pytest.mark.parametrize("name", REFUSED)
def test_nonsense_is_refused_where_it_begins(name: str, tmp_path: Path) -> None:
    data, said = REFUSED[name]
    file = tmp_path / "x.yaml"
    file.write_bytes(data)

    with pytest.raises(WorkflowInvalid) as caught:
        load(str(file))

    assert re.match(f"{re.escape(str(file))}:{said} ", str(caught.value.problems[0]))
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("name", READ)
def test_what_only_looks_unusual_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(READ[name])

    assert [job.name for job in load(str(tmp_path / "x.yaml")).jobs] == ["a"]


def test_a_file_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "MAX_BYTES", 1_000)
    with pytest.raises(WorkflowInvalid, match="FQ111 the file is longer"):
        yaml.read_stream(Endless(), "endless.yaml")
    assert yaml_text.MAX_BYTES > yaml_text.MAX_CHARACTERS


class Endless(io.RawIOBase):
    """A device such as /dev/zero."""

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "it would never return"
        return b"\0" * size


def test_a_pipe_is_refused_and_standard_input_named(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this platform has no named pipes")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(WorkflowNotFound, match="it is a pipe, not a file; - reads one from"):
        load(str(tmp_path / "pipe.yaml"))


def test_a_hyphen_means_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(RUN.encode())))
    assert load("-").name == "stdin"

    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"jobs: {a: {run: x, nedes: b}}"))
    )
    with pytest.raises(WorkflowInvalid, match=r"^<stdin>:1:20: FQ103"):
        load("-")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("", "it names no module"),
        (":", "it names no module"),
        (".", "it is a folder"),
        ("folder.yaml", "it is a folder"),
        ("missing.yaml", "there is no such file"),
        ("folder.yaml/missing.yaml", "there is no such file"),
        ("file.yaml/x.yaml", "there is no such file"),
        ("x" * 300 + ".yaml", "name too long"),
        ("a\0b.yaml", "null byte"),
        ("no such module", "there is no module"),
        ("../folder:flow", "write file.yaml, file.py:name"),
        ("missing.py:flow", "there is no such file"),
    ],
)
def test_what_is_no_file_is_said_in_a_sentence(
    target: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "file.yaml").write_text(RUN, encoding="utf-8")

    with pytest.raises(WorkflowNotFound) as caught:
        load(target)

    assert reason in str(caught.value).lower()


def test_files_of_the_same_kind_are_named_where_one_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("report.py", "report.yaml"):
        (tmp_path / name).write_text("", encoding="utf-8")

    with pytest.raises(WorkflowNotFound, match=r"did you mean report\.py\?$"):
        load("reports.py:flow")
    with pytest.raises(WorkflowNotFound, match=r"there are: report\.yaml\)$"):
        load("gallery.yaml")


def test_a_file_that_may_not_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(RUN, encoding="utf-8")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("whoever runs this may read everything")
    with pytest.raises(WorkflowNotFound, match="Permission denied"):
        load(str(file))
