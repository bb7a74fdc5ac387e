"""The examples run: on a real server, in a folder of their own, with the results they promise."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import SimpleWorker

import flowq
from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime.queue import remember

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def work(connection: redis.Redis) -> None:
    worker = SimpleWorker(
        ["default"], connection=connection, job_class=flowq.Job, queue_class=flowq.Queue
    )
    worker.work(burst=True, logging_level="CRITICAL")


@pytest.fixture
def run(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    """Run an example to its end, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run_example(target: str, **inputs: Any) -> Run:
        plan = compile_plan(load(str(WORKFLOWS / target)), inputs)
        submitted = submit(plan, connection)
        work(connection)
        return submitted

    return run_example


def test_the_twins_are_equal() -> None:
    yaml, python = (load(str(WORKFLOWS / f"weather.{end}")) for end in ("yaml", "py:flow"))
    assert yaml == python
    assert yaml.folder == python.folder == str(WORKFLOWS)


def test_the_sandwich_is_served_last(run: Callable[..., Run]) -> None:
    ran = run("sandwich.yaml", slices=5, flavour="plum")
    assert ran.status().state == "succeeded"
    served = ran.results()["serve"]
    assert served == "2 plum sandwiches and a pot of tea, one slice for the birds"


@pytest.mark.parametrize("target", ["weather.yaml", "weather.py:flow"])
def test_the_weather_is_the_same_from_both_fronts(target: str, run: Callable[..., Run]) -> None:
    ran = run(target, station="Lima", days=2)
    assert ran.status().state == "succeeded"
    title, picture = Path("out/weather.txt").read_text("utf-8").splitlines()
    assert title == "Weather in Lima"
    assert len(picture.split()[0]) == 8


def test_the_books_are_closed_and_packed(run: Callable[..., Run]) -> None:
    ran = run("books.yaml", orders=200)
    assert ran.status().state == "succeeded"
    with zipfile.ZipFile(ran.results()["pack"]) as packed:
        assert packed.namelist() == ["report.md", "ledger.sqlite"]
        report = packed.read("report.md").decode()
    assert report.startswith("# Books of 2026-10, in EUR\n")
    assert report.count("| ") > 5
    assert [path.name for path in Path().iterdir()] == ["out"]


def test_a_busy_line_is_tried_again_until_it_answers(run: Callable[..., Run]) -> None:
    ran = run("flaky.yaml")
    assert ran.status().state == "succeeded"
    assert Path("out/flaky-answer.txt").read_text() == "hello, after 2 attempts\n"


def test_a_line_that_stays_busy_fails_the_run_and_is_hung_up(run: Callable[..., Run]) -> None:
    ran = run("flaky.yaml", failures=3)
    states = {name: job.state for name, job in ran.status().jobs.items()}
    assert ran.status().state == "failed"
    assert states == {"call_home": "failed", "write_down": "skipped", "hang_up": "finished"}
    assert "the line is busy (attempt 3)" in ran.failures()["call_home"].traceback
    assert list(Path("out").iterdir()) == []


def test_the_corpus_is_reported_once_all_texts_are_counted(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    import corpus_tasks

    remember(connection)
    report = tmp_path / "report.md"
    with corpus_tasks.write_report.open("Words", path=str(report)) as future:
        for number in range(3):
            text = tmp_path / f"{number}.txt"
            text.write_text("moon " * number + "sun")
            corpus_tasks.count_words.enqueue(str(text), blocks=future)
    remember(None)
    work(connection)
    assert report.read_text() == "# Words\n\n3 texts, 6 words\n\n- sun: 3\n- moon: 3\n"


def test_the_corpus_script_runs_with_a_worker_beside_it(redis_url: str, tmp_path: Path) -> None:
    environment = {"FLOWQ_REDIS_URL": redis_url, "PYTHONPATH": str(WORKFLOWS), "PATH": ""}
    script = subprocess.Popen(
        [sys.executable, str(WORKFLOWS / "corpus.py")],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = [sys.executable, "-m", "rq.cli", "worker", "--url", redis_url, "--max-idle-time", "2"]
    worker += ["--job-class", "flowq.Job", "--queue-class", "flowq.Queue", "--quiet"]
    serving = subprocess.Popen(worker, env=environment, cwd=tmp_path)
    try:
        printed, _ = script.communicate(timeout=60)
    finally:
        serving.terminate()
        script.kill()
        serving.wait(60)
    assert script.returncode == 0, printed
    assert "# Words in out/corpus" in printed


def test_a_tree_of_unknown_shape_ends_in_one_report(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    for folder in ("a/b/c", "a/d", "e"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        (tmp_path / "tree" / folder / "file").write_text("12345")
    ran = run("tree.yaml", folder=str(tmp_path / "tree"))
    assert ran.results()["report"] == "15 bytes in 6 folders"
