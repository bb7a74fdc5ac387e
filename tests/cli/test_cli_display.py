"""What a run looks like: on terminals of every size, without colours, and without a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commands import Flowq
from tests.cli.terminal import run_on_terminal, screen

TALL = """
name: wide
jobs:
  last:
    call: kitchen:say
    with: {text: done}
"""


def _wide(folder: Path, jobs: int) -> None:
    text = TALL + "".join(
        f"  a_job_with_quite_a_long_name_{i}:\n"
        f"    call: kitchen:{'burn' if i == 3 else 'say'}\n"
        f"    with: {{{'toast' if i == 3 else 'text'}: x}}\n"
        "    blocks: last\n"
        for i in range(jobs)
    )
    (folder / "wide.yaml").write_text(text)


def _colours(written: str) -> list[str]:
    return re.findall(r"\x1b\[(?:[0-9;]*;)?3[0-7](?:;[0-9;]*)?m", written)


def test_the_table_changes_in_place_and_stays_with_its_summary(flowq: Flowq, folder: Path) -> None:
    code, written = run_on_terminal(["run", "sandwich.yaml"], folder, flowq.env, 100, 30)

    assert code == 0
    lines = screen(written)
    assert [line.split()[:2] for line in lines[:3]] == [
        ["✓", "serve"],
        ["✓", "spread"],
        ["✓", "cut"],
    ] or [line.split()[1] for line in lines[:3]] == ["cut", "spread", "serve"]
    assert lines[3].startswith("✓ sandwich succeeded in ")
    assert lines[4] == "  serve = '2 on a plate'"
    assert _colours(written)


@pytest.mark.parametrize(("columns", "height"), [(40, 10), (12, 4)])
def test_on_a_small_terminal_jobs_are_counted_and_nothing_is_left_of_older_frames(
    flowq: Flowq, folder: Path, columns: int, height: int
) -> None:
    _wide(folder, 30)

    code, written = run_on_terminal(["run", "wide.yaml"], folder, flowq.env, columns, height)

    assert code == 1
    lines = screen(written)
    assert lines[0].startswith("✗ wide failed in "), lines
    assert "ValueError: x is black" in written
    assert "\x1b[1A" in written, "it moved"
    frames = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", written.split("✗ wide failed")[0])
    assert max(len(line) for line in re.split(r"[\r\n]+", frames)) <= columns


def test_no_color_and_a_dumb_terminal_are_respected(flowq: Flowq, folder: Path) -> None:
    _, plain = run_on_terminal(
        ["run", "sandwich.yaml"], folder, {**flowq.env, "NO_COLOR": "1"}, 80, 24
    )
    _, dumb = run_on_terminal(
        ["run", "sandwich.yaml"], folder, {**flowq.env, "TERM": "dumb"}, 80, 24
    )

    assert "\x1b[1A" in plain
    assert not _colours(plain)
    assert "\x1b" not in dumb
    assert re.search(r"^\d\d:\d\d:\d\d cut started\r$", dumb, re.MULTILINE)


def test_where_the_encoding_is_poor_so_are_the_marks(flowq: Flowq, folder: Path) -> None:
    done = flowq("graph", "sandwich.yaml", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert done.stdout.isascii()
