"""The pytest plugin, in fresh folders, and docs/testing.md, all of whose code is executed there."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Also where flowq was installed before it had the plugin, and without those that take long.
WITHOUT = ("flowq", "cacheprovider", "ddtrace", "valkey", "hypothesispytest")
OPTIONS = ("-q", "-p", "flowq.testing.plugin", *(f"-pno:{name}" for name in WITHOUT))


@pytest.fixture(autouse=True)
def _keep_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


def test_the_plugin_is_declared_where_pytest_looks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = project["entry-points"]["pytest11"]["flowq"]
    assert import_module(named).flowq_worker


def test_every_block_of_the_page_runs(pytester: pytest.Pytester) -> None:
    names = []
    for language, text in BLOCK.findall(PAGE.read_text("utf-8")):
        if language == "console":
            continue
        head, _, rest = text.partition("\n")
        name = head.removeprefix("# file: ")
        assert name != head, f"a block does not begin with `# file: NAME`: {head}"
        names.append(name)
        (pytester.path / name).write_text(rest, encoding="utf-8")
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 3
    ran = pytester.runpytest_subprocess(*OPTIONS, *tests)
    ran.assert_outcomes(passed=7)


CONFTEST = """
import sys

loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"redis", "rq", "fakeredis", "yaml", "networkx", "click"}
assert sorted(name for name in sys.modules if name.startswith("flowq")) == [
    "flowq", "flowq._version", "flowq.testing", "flowq.testing.plugin"]
"""

USED = """
import os
import flowq
import pytest
from flowq.testing import wait_until

@pytest.mark.parametrize("count", range(3))
def test_the_server_is_empty_and_named_in_the_environment(
    count, flowq_connection, flowq_server, flowq_worker
):
    assert flowq_connection.keys() == []
    assert os.environ["FLOWQ_REDIS_URL"] == flowq_server.url
    queue = flowq.Queue("mails", connection=flowq_connection)
    job = queue.enqueue("operator.truediv", 1, count)
    assert flowq_worker.drain() == 1
    assert job.get_status() == ("finished" if count else "failed")
    assert not flowq.Worker.all(connection=flowq_connection)

def test_a_wait_that_nothing_can_end_names_the_fixture(flowq_connection):
    flow = flowq.Workflow("w")
    flow.call("a", "time:time")
    with pytest.raises(flowq.RunNotEnded, match="use the fixture flowq_worker: drain"):
        flow.submit().wait(0)

def test_what_is_scheduled_stays_unless_it_is_wanted(flowq_connection, flowq_worker):
    retry = flowq.Retry(2, interval=600)
    job = flowq.Queue(connection=flowq_connection).enqueue("operator.truediv", 1, 0, retry=retry)
    assert flowq_worker.drain("default") == 1
    assert job.get_status() == "scheduled"
    assert flowq_worker.drain("default", with_scheduled=True) == 2
    assert job.get_status() == "failed"

def test_a_started_worker_has_processes_and_timeouts(flowq_connection, flowq_worker):
    flowq_worker.start("slow")
    queue = flowq.Queue("slow", connection=flowq_connection)
    job = queue.enqueue("time.sleep", 60, job_timeout=1)
    who = queue.enqueue("os.getpid")
    wait_until(lambda: who.get_status() == "finished", timeout=30)
    assert job.get_status() == "failed"
    assert who.return_value() != os.getpid()
"""


def test_an_unused_plugin_loads_nothing_and_each_process_has_an_empty_server_when_used(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(USED)
    ran = pytester.runpytest_subprocess(*OPTIONS, "-n", "2")
    ran.assert_outcomes(passed=6)
