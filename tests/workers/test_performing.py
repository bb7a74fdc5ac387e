"""What a job calls, and what becomes of what that returns."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RQJob

from flowq.callables import NameMissing
from flowq.runtime.job import Job

NAMES = [
    "builtins.len",
    "len",
    "os.path.join",
    "datetime.datetime.now",
    "worker_jobs.nothing",
    "worker_jobs.add",
]

WRONG = ["worker_jobs.not_there", "not_there.at_all", "worker_jobs.nothing.more", "nothing_at_all"]


def job_of(function: Any, *arguments: Any, job_class: type[RQJob] = Job) -> Any:
    return job_class.create(function, arguments, connection=Redis())


class Text(str):
    """A value that is nearly a plain one."""

    def times(self, number: int) -> str:
        """Return it so often."""
        return self * number


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_those_that_rq_finds(name: str) -> None:
    assert job_of(name).func == job_of(name, job_class=RQJob).func


@pytest.mark.parametrize("name", WRONG)
def test_what_rq_does_not_find_is_an_error_that_names_what_is_missing(name: str) -> None:
    with pytest.raises(ValueError, match=name.rpartition(".")[2]):
        _ = job_of(name, job_class=RQJob).func
    with pytest.raises((NameMissing, ModuleNotFoundError), match=r"not_there|more|nothing_at_all"):
        _ = job_of(name).func


def test_a_method_is_called_on_its_object() -> None:
    assert job_of(Text("ab").times, 2).perform() == "abab"


def test_a_module_that_was_replaced_or_removed_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changing_module.py").write_text("def tell(): return 'first'")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = [job_of("changing_module.tell").perform()]
    sys.modules["changing_module"].tell = lambda: "second"  # type: ignore[attr-defined]
    told.append(job_of("changing_module.tell").perform())
    other = ModuleType("changing_module")
    other.tell = lambda: "third"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "changing_module", other)
    told.append(job_of("changing_module.tell").perform())
    monkeypatch.delitem(sys.modules, "changing_module")
    told.append(job_of("changing_module.tell").perform())
    assert told == ["first", "second", "third", "first"]


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "text", b"bytes", [1], (1,), {"a": 1}, {1}, Text("t")]
)
def test_what_a_function_returns_is_the_result(value: Any) -> None:
    assert job_of(eval, repr(value)).perform() == value


def test_a_coroutine_is_awaited() -> None:
    assert job_of("worker_jobs.wait_a_little").perform() == "waited"
