"""`flowq graph --run`: the picture of a run, in any folder, in each format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from flowq.runtime import keys
from tests.cli.commands import Said

Call = Callable[..., Said]

SHOP = """\
name: shop
jobs:
  cut: {call: kitchen:cut, with: {slices: 1}}
  pack: {workflow: ship, needs: [cut]}
  ask: {run: echo ask, approval: {message: "Ship?"}, needs: [pack]}
workflows:
  ship:
    jobs:
      wrap: {run: echo wrap}
      label: {run: echo label, needs: [wrap]}
"""


@pytest.fixture
def run_id(call: Call, folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that nobody executes, and whose file is gone; commands use its server."""
    monkeypatch.setenv("FLOWQ_REDIS_URL", redis_url)
    (folder / "shop.yaml").write_text(SHOP)
    run_id = call("run", "shop.yaml", "--detach").out.strip()
    (folder / "shop.yaml").unlink()
    return run_id


def test_a_run_is_drawn_without_its_file_in_another_folder(
    call: Call,
    run_id: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for word in (run_id, run_id[:6], "last"):
        done = call("graph", "--run", word)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("shop: running\n")
        assert "◌ cut  queued" in done.out
        assert "○ pack  deferred" in done.out
        assert "● wrap  run" in done.out


@pytest.mark.parametrize("format_", ["text", "mermaid", "dot", "svg", "html", "json"])
def test_a_run_has_a_picture_in_each_format(call: Call, run_id: str, format_: str) -> None:
    done = call("graph", "--run", run_id, "-f", format_)
    assert done.code == 0
    assert "queued" in done.out
    assert "ask" in done.out


def test_a_file_of_a_run_s_picture_has_the_format_of_its_ending(
    call: Call, run_id: str, folder: Path
) -> None:
    assert call("graph", "--run", "last", "-o", "run.json") == Said(0, "", "")
    document = json.loads((folder / "run.json").read_text())
    assert [(each["name"], each["status"]) for each in document["jobs"]] == [
        ("cut", "queued"),
        ("pack", "deferred"),
        ("ask", "deferred"),
    ]
    assert call("graph", "--run", "last", "-o", "run.pdf").code == 2


def test_a_job_of_a_nested_workflow_is_looked_at_by_its_whole_name(call: Call, run_id: str) -> None:
    assert "● wrap" in call("graph", "--run", run_id, "--focus", "pack.label").out
    assert "did you mean 'pack.label'" in call("graph", "--run", run_id, "--focus", "pack.labe").err


def test_a_picture_in_a_pipe_is_as_wide_as_columns_say(
    call: Call, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    lines = call("graph", "--run", run_id).out.splitlines()
    assert max(map(len, lines)) == 30


def test_a_report_is_one_file_about_a_run(call: Call, run_id: str, folder: Path) -> None:
    assert call("report", "last", "-o", "report.html") == Said(0, "", "")
    page = (folder / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "The run had not ended" in page
    assert all(name in page for name in (run_id, "cut", "wrap", "ask"))
    assert "<script" not in page
    assert call("report", run_id[:6]).out.startswith("<!doctype html>")
    assert call("report", "last", "-o", str(folder / "no" / "r.html")).code == 2
    assert call("report", "nothing").code == 5
    refused = call("report", "last", "-o", "report.svg")
    assert refused.code == 2
    assert "name a file that ends in .html" in refused.err
    assert not (folder / "report.svg").exists()


def test_a_workflow_or_a_run_is_named(call: Call, run_id: str) -> None:
    for words in ((), ("sandwich.yaml", "--run", run_id)):
        done = call("graph", *words)
        assert (done.code, done.out) == (2, "")
        assert "name either a TARGET" in done.err
    assert call("graph", "--run", "nothing").code == 5


def test_a_run_without_a_picture_says_what_is_missing(
    call: Call, run_id: str, connection: redis.Redis
) -> None:
    for kept in ("", "zstd:of a newer version"):
        connection.hset(keys.run(run_id), "picture", kept)
        done = call("graph", "--run", run_id)
        assert "has no stored picture" in done.err
        assert "◌ cut  queued, kitchen:cut(" in done.out
    connection.hdel(keys.run(run_id), "picture")
    assert call("graph", "--run", run_id) == done
