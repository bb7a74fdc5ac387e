"""`RQ_JOB_ID`: each job and what it starts see their own, whatever the job before has done."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from flowq.workers.child.environment import JOB_ID as NAME
from flowq.workers.child.environment import MAX_BYTES, JobVariables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is set plainly")


@pytest.fixture
def tell() -> Iterator[Callable[[str], None]]:
    teller = JobVariables()
    yield lambda job_id: teller.set(job_id, {})
    os.environ.pop(NAME, None)


def seen() -> tuple[str | None, str]:
    """What Python has, and what a process that is started has."""
    command = ["/bin/sh", "-c", f"echo ${NAME}"]
    return os.environ.get(NAME), subprocess.check_output(command, text=True).strip()


def clear_in_c() -> None:
    ctypes.CDLL(None).clearenv()


def grow() -> None:
    for number in range(100):
        os.environ[f"FLOWQ_TEST_{number}"] = "x"


def shrink() -> None:
    for number in range(100):
        os.environ.pop(f"FLOWQ_TEST_{number}", None)


CHANGES = {
    "nothing": lambda: None,
    "set": lambda: os.environ.update({NAME: "of somebody else"}),
    "set in C": lambda: os.putenv(NAME, "of somebody else"),
    "remove": lambda: os.environ.pop(NAME),
    "remove in C": lambda: os.unsetenv(NAME),
    "clear": os.environ.clear,
    "clear in C": clear_in_c,
    "more": grow,
    "fewer": shrink,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_sees_its_id_whatever_the_one_before_has_done(
    tell: Callable[[str], None], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = dict(os.environ)
    try:
        tell("the first, with a longer name")
        assert seen() == ("the first, with a longer name",) * 2
        CHANGES[change]()
        for job_id in ("second", "third"):
            tell(job_id)
            assert seen() == (job_id, job_id)
    finally:
        os.environ.clear()
        os.environ.update(kept)


def test_a_mapping_in_the_place_of_the_environment_has_it(
    tell: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", mapping)
    tell("a")
    assert mapping == {NAME: "a"}
    monkeypatch.undo()
    tell("b")
    assert seen() == ("b", "b")


def test_long_ids_are_told_too(tell: Callable[[str], None]) -> None:
    for length in range(MAX_BYTES - 2, MAX_BYTES + 3):
        tell("z" * length)
        assert seen() == ("z" * length,) * 2
    for job_id in ("x" * MAX_BYTES, "y" * (MAX_BYTES + 1), "short"):
        tell(job_id)
        assert seen() == (job_id, job_id)


def test_ids_do_not_pile_up(tell: Callable[[str], None]) -> None:
    tell("warm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(100_000):
        tell(f"{number:036d}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4_000  # of 9,300 KB


def test_a_job_of_a_run_sees_its_variables_whatever_the_one_before_has_done() -> None:
    teller, told = JobVariables(), {"FLOWQ_RUN": "r1", "FLOWQ_JOB": "é[1]", "FLOWQ_ATTEMPT": "1"}
    show = ["/bin/sh", "-c", "echo ${FLOWQ_RUN-} ${FLOWQ_JOB-} ${FLOWQ_ITEM-} ${FLOWQ_ATTEMPT-}"]
    for _ in range(2):
        teller.set("r1-a", told)
        assert {name: os.environ.get(name) for name in (*told, "FLOWQ_ITEM")} == {
            **told,
            "FLOWQ_ITEM": None,
        }
        assert subprocess.check_output(show).decode().split() == [*told.values()]
        os.environ["FLOWQ_RUN"] = os.environ["FLOWQ_ITEM"] = "of somebody else"
        del os.environ["FLOWQ_JOB"]
    teller.set("plain", {})
    assert subprocess.check_output(show).decode().split() == []


def test_a_name_that_no_variable_can_have_is_spelt_out() -> None:
    JobVariables().set("r1-a", {"FLOWQ_RUN": "r1", "FLOWQ_JOB": "a\ud800\0b", "FLOWQ_ATTEMPT": "1"})
    show = ["/bin/sh", "-c", 'printf %s "$FLOWQ_JOB"']
    assert subprocess.check_output(show) == rb"a\ud800\x00b"
