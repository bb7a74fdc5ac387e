"""Run RQ's own test suite with our Queue and Job in place of RQ's, and with our Worker too.

    python tests/rq_suite/run.py [--classes rq,empty,flowq,worker] [--source FILE] [options]

The suite is taken from RQ's source distribution (pip downloads it, unless `--source` is given), is
unpacked into a temporary folder and edited there: behind every import of RQ's `Queue`, `Job` and
`Worker` comes one of ours (`substitutes.py`), and its server is a private one on a free loopback
port.
The other options are pytest's.
It runs once for each set of classes: RQ's own, subclasses that change nothing, flowq's with RQ's
worker, and flowq's with ours ("worker"). Some of RQ's tests cannot pass with any subclass, so the
second are what the third are compared with, and the third what the fourth are compared with.
Exit code 1 when a test passes with the empty subclasses and not with ours.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import redis

from flowq.server.embedded import find_binary

HERE = Path(__file__).parent
REPLACED = {
    "Queue": {"rq", "rq.queue"},
    "Job": {"rq", "rq.job"},
    "Worker": {"rq", "rq.worker"},
}
DATABASES = 32
START_S = 20
TEST_S = 60

# The suite opens Redis() and Redis(db=4) and so on: all of them on the default port.
# And a test that waits for what never comes must not keep the others.
CONFTEST = """
import functools
import multiprocessing
import pytest
import redis
import signal
import threading

original = redis.Redis.__init__

@functools.wraps(original)
def on_the_private_port(self, *args, **kwargs):
    elsewhere = ("port", "connection_pool", "unix_socket_path", "ssl")
    if len(args) < 2 and not any(kwargs.get(name) for name in elsewhere):
        kwargs["port"] = {port}
    original(self, *args, **kwargs)

redis.Redis.__init__ = on_the_private_port
make = redis.Connection.__init__
redis.Connection.__init__ = lambda self, *args, **kwargs: make(
    self, *args, **({{"port": {port}}} | kwargs)
)

def give_up(*_):
    raise RuntimeError("the test takes too long")

@pytest.fixture(autouse=True)
def limited():
    signal.signal(signal.SIGUSR2, give_up)
    arguments = [threading.main_thread().ident, signal.SIGUSR2]
    timer = threading.Timer({limit_s}, signal.pthread_kill, arguments)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()
    signal.alarm(0)  # of tests of RQ's that fail before they put it back

def pytest_unconfigure():
    for left_behind in multiprocessing.active_children():  # by a test that failed
        left_behind.kill()
"""

Outcomes = dict[str, str]


def main() -> int:
    """Run the suite for each set of classes and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", default="rq,empty,flowq,worker")
    parser.add_argument("--source", type=Path, help="downloaded unless given")
    options, pytest_options = parser.parse_known_args()
    outcomes = run(options.source, options.classes.split(","), pytest_options)
    return report(outcomes)


def run(source: Path | None, classes: list[str], pytest_options: list[str]) -> dict[str, Outcomes]:
    """Return the outcome of each test for each set of classes."""
    outcomes: dict[str, Outcomes] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        suite = unpack(source or download(folder), folder)
        with server(folder) as port:
            prepare(suite, port)
            install_needs(suite)
            for name in classes:
                outcomes[name] = run_suite(suite, name, pytest_options)
                print(f"{name:6} {counts(outcomes[name])}", flush=True)
    return outcomes


def download(folder: Path) -> Path:
    """Return the source distribution of the RQ that is installed here."""
    wanted = f"rq=={version('rq')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(folder), wanted], check=True, stderr=subprocess.DEVNULL)
    return next(folder.glob("rq-*.tar.gz"))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the tests and their configuration alone: the RQ under test is the installed one."""
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if re.match(r"[^/]+/(tests/|pyproject|tox)", m.name)]
        tar.extractall(folder, members=wanted, filter="data")
    return next(path for path in folder.glob("rq-*") if path.is_dir())


def prepare(suite: Path, port: int) -> None:
    """Let the unpacked tests import our classes and use our server."""
    for path in (suite / "tests").glob("*.py"):
        text = substitute(path.read_text("utf-8"))
        path.write_text(text.replace("127.0.0.1:6379", f"127.0.0.1:{port}"), "utf-8")
    (suite / "conftest.py").write_text(CONFTEST.format(port=port, limit_s=TEST_S), "utf-8")


def install_needs(suite: Path) -> None:
    """Put what the suite imports beside it; it is nothing that we need."""
    if importlib.util.find_spec("psutil"):
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(suite), "psutil"]
    subprocess.run(pip, check=True)


def substitute(source: str) -> str:
    """Put an import of ours behind each statement that imports such a class from RQ."""
    lines = source.splitlines()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    for node in sorted(imports, key=lambda node: -node.lineno):
        ours = [a.name for a in node.names if node.module in REPLACED.get(a.name, ())]
        if ours:
            indent = " " * node.col_offset
            line = f"{indent}from substitutes import {', '.join(ours)}"
            lines.insert(node.end_lineno or node.lineno, line)
    return "\n".join(lines) + "\n"


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """Run a server that keeps nothing on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--port", port, "--bind", "127.0.0.1", "--databases", DATABASES, "--dir", folder]
    command = [find_binary(), *options, "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        await_server(port)
        yield port
    finally:
        process.kill()
        process.wait()


def await_server(port: int) -> None:
    """Block until the server answers."""
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), int(START_S / 0.05))
    with redis.Redis(port=port, retry=retry) as connection:
        connection.ping()


def run_suite(suite: Path, classes: str, pytest_options: list[str]) -> Outcomes:
    """Return what became of each test: passed, failed or skipped."""
    outcomes = run_pytest(suite, classes, pytest_options or ["tests"])
    failed = [test for test, outcome in outcomes.items() if outcome == "failed"]
    # Many of RQ's tests wait for a fixed time, which a busy machine does not keep.
    again = run_pytest(suite, classes, failed) if failed else {}
    return outcomes | again


def run_pytest(suite: Path, classes: str, options: list[str]) -> Outcomes:
    """Run pytest with one set of classes; what failed is told by its last lines."""
    report_path = suite / f"{classes}.xml"
    bin_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    before = os.environ.get("PYTHONPATH", "")
    python_path = os.pathsep.join([str(HERE), str(suite), *filter(None, [before])])
    environment = {"RQ_SUITE_CLASSES": classes, "PYTHONPATH": python_path, "PATH": bin_path}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--junitxml={report_path}", "-o", "junit_family=xunit1", *options]
    with (suite / f"{classes}.log").open("a") as log:
        subprocess.run(
            command, cwd=suite, env=os.environ | environment, stdout=log, stderr=log, check=False
        )
    return read_outcomes(report_path)


def read_outcomes(report_path: Path) -> Outcomes:
    """Read pytest's JUnit report."""
    outcomes = {}
    for case in ElementTree.parse(report_path).iter("testcase"):
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
        file, within = str(case.get("file")), str(case.get("classname"))
        classes = within.removeprefix(file.removesuffix(".py").replace("/", ".")).split(".")
        outcomes["::".join([file, *filter(None, classes), str(case.get("name"))])] = outcome
    return outcomes


def counts(outcomes: Outcomes) -> str:
    """Say how many tests passed, failed and were skipped."""
    values = list(outcomes.values())
    return ", ".join(f"{values.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))


def report(outcomes: dict[str, Outcomes]) -> int:
    """Print where the sets of classes differ; return the exit code."""
    base = outcomes.get("rq", {})
    print("\nfailed with rq:", *sorted(t for t, o in base.items() if o == "failed"), sep="\n  ")
    for classes in [name for name in outcomes if name != "rq"]:
        lost = sorted(t for t, o in outcomes[classes].items() if o == "failed" != base.get(t))
        print(
            f"\nfailed with {classes} only, not with rq ({len(lost)}):" if base else "",
            *lost,
            sep="\n  ",
        )
    compare(outcomes, "flowq", "worker")
    return 1 if compare(outcomes, "empty", "flowq") else 0


def compare(outcomes: dict[str, Outcomes], before: str, after: str) -> list[str]:
    """Print what one set of classes passes and the other does not; return what was lost."""
    if not {before, after} <= outcomes.keys():
        return []
    first, second = outcomes[before], outcomes[after]
    lost = sorted(t for t, o in first.items() if o == "passed" != second.get(t))
    gained = sorted(t for t, o in second.items() if o == "passed" != first.get(t))
    print(f"\npassed with {before}, not with {after} ({len(lost)}):", *lost, sep="\n  ")
    print(f"passed with {after}, not with {before} ({len(gained)}):", *gained, sep="\n  ")
    return lost


if __name__ == "__main__":
    sys.exit(main())
