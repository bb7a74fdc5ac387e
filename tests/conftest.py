"""One private server for the whole test run, empty at the beginning of each test.

Tests depend neither on the speed of the machine nor on what else is installed or runs there: the
temp folder is a new one for each test run, work is counted in operations, and limits of time are
only for what would otherwise hang.
"""

from __future__ import annotations

import compileall
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from _pytest.assertion import rewrite
from hypothesis import HealthCheck, settings

import flowq
from flowq import server
from flowq.runtime.maintenance import Lease
from flowq.server import state
from tests import JOBS_FOLDER
from tests.rare_repairs import make_repairs_rare
from tests.workers.forked_workers import Template

LIMIT_S = 60.0
"""How long a test waits for what would otherwise hang. A busy machine takes many times longer than
a quiet one, and a test that fails late costs nothing."""

SETTINGS = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "XDG_RUNTIME_DIR")
"""Variables with which the user of this machine tells rich or flowq something, as with `FLOWQ_…`
and `RQ_…`. Those of the tests themselves are read when their modules are imported."""

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

make_repairs_rare()  # a repair after 30 s would hide from tests with this limit what it repairs


def pytest_configure(config: pytest.Config) -> None:
    """Compile what the tests' processes import, as pip compiles what it installs.

    Where the environment forbids Python to keep what it has compiled (PYTHONDONTWRITEBYTECODE),
    each of two thousand workers, children and commands would compile all of flowq.
    """
    if hasattr(config, "workerinput"):
        return  # it was done once for all processes of pytest-xdist
    for folder in (*flowq.__path__, JOBS_FOLDER):
        compileall.compile_dir(folder, quiet=2)
    if getattr(config.option, "numprocesses", None):
        rewrite_tests(config)


def rewrite_tests(config: pytest.Config) -> None:
    """Rewrite the assertions of all test modules, and keep that, as pytest does.

    The processes of pytest-xdist import the same modules at the same time, so each of them would do
    all the work, which takes ten seconds. Here, each processor does a part of it.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    files += [file for folder in flowq.__path__ for file in Path(folder).rglob("*.py")]
    if not hasattr(os, "fork"):
        return
    children = []
    for index in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                for file in files[index::count]:
                    keep_rewritten(file, config)
            finally:
                os._exit(0)  # what is not kept is rewritten when it is imported
    for child in children:
        os.waitpid(child, 0)


def keep_rewritten(file: Path, config: pytest.Config) -> None:
    """What `AssertionRewritingHook.exec_module` does, without executing the module."""
    kept = rewrite.get_cache_dir(file) / (file.name[:-3] + rewrite.PYC_TAIL)
    if rewrite._read_pyc(file, kept) is None and rewrite.try_makedirs(kept.parent):
        status, code = rewrite._rewrite_test(file, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, status, kept)


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No settings of the user's, and temp and state folders for this test run alone.

    In a shared temp folder workers remove what killed ones have left, also of other test runs.
    Files get the usual permissions.
    """
    place = str(tmp_path_factory.mktemp("temp"))
    umask = os.umask(0o022)
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name in SETTINGS or name.startswith(("FLOWQ_", "RQ_")):
                patch.delenv(name)
        for name in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(name, place)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setattr(tempfile, "tempdir", None)  # what was asked for before is remembered there
        yield
    os.umask(umask)
    ours = str(tmp_path_factory.getbasetemp())
    leaked = [folder for folder in state.find_owners() if folder.startswith(ours)]
    assert not leaked, f"tests have made states in the user's state folder: {leaked}"


@pytest.fixture(scope="session")
def test_server(own_surroundings: None) -> Iterator[server.Server]:
    """A real server on a Unix socket of its own; it ends with the test run, however that ends."""
    with server.temporary() as started:
        yield started


@pytest.fixture(scope="session")
def template(own_surroundings: None) -> Iterator[Template]:
    """The process from which this test run forks its workers."""
    template = Template()
    yield template
    template.end()


@pytest.fixture
def redis_url(test_server: server.Server, connection: redis.Redis) -> str:
    """The URL of the (emptied) test server, for commands and other processes."""
    return test_server.url


@pytest.fixture
def connection(test_server: server.Server) -> Iterator[redis.Redis]:
    """A connection to the test server, whose databases are empty."""
    connected = test_server.connect()
    connected.flushall()
    yield connected
    connected.close()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """Workers of this test are lost after a fifth of the time. Returns the seconds of the lease.

    Those in processes of their own need it as `lease_s`: the environment allows no lease so short.
    """
    monkeypatch.setattr("flowq.workers.worker.read_lease", lambda environment: Lease(1.0))
    return 1.0


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(predicate)`: fail when it does not become true. Only a `within_s` above the usual
    limit counts."""

    def wait(predicate: Callable[[], object], within_s: float = LIMIT_S) -> None:
        within_s = max(within_s, LIMIT_S)
        deadline = time.monotonic() + within_s
        while not predicate():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not happen within {within_s} s: {predicate}")
            time.sleep(0.005)

    return wait


@pytest.fixture
def count_operations() -> Callable[[Callable[[], object]], int]:
    """`count_operations(function)`: how many lines of Python and calls a call of it takes.

    This thread's only. The figure is the same on any machine, and under any load.
    """

    def count(function: Callable[[], object]) -> int:
        total = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal total
            total += 1
            return trace

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal total
            total += event == "c_call"

        before = sys.gettrace(), sys.getprofile()
        sys.setprofile(profile)
        sys.settrace(trace)
        try:
            function()
        finally:
            sys.settrace(before[0])
            sys.setprofile(before[1])
        return total

    return count
