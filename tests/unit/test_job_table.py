"""The versions of a mapping: cheap to make, and none changes another."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.job_table import JobTable
from flowq.status import Event, JobStatus, RunStatus, fold

NAMES = st.sampled_from("abcde")
CHANGES = st.lists(st.lists(st.tuples(NAMES, st.none() | st.integers(0, 5)), max_size=4))


def kind_of(value: int) -> str:
    return "odd" if value % 2 else ""


def after(table: dict[str, int], changes: list[tuple[str, int | None]]) -> dict[str, int]:
    table = dict(table)
    for name, value in changes:
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
    return table


@given(CHANGES, st.data())
def test_each_version_is_as_if_it_had_a_table_of_its_own(
    batches: list[list[tuple[str, int | None]]], data: st.DataObject
) -> None:
    expected: list[dict[str, int]] = [{"a": 1, "b": 2}]
    versions = [JobTable(dict(expected[0]), kind_of)]
    for changes in batches:
        at = data.draw(st.integers(0, len(versions) - 1))  # not always the newest
        versions.append(versions[at].changed(changes))
        expected.append(after(expected[at], changes))
    order = data.draw(st.permutations(range(len(versions))))
    for at in order:
        assert list(versions[at].items()) == list(expected[at].items())
        odd = sum(value % 2 for value in expected[at].values())
        assert versions[at].counts["odd"] == odd


@pytest.mark.parametrize("which", ["the first", "the last"])
def test_a_status_is_pickled_and_copied_without_the_versions_after_it(which: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("a", "b", "c")
    first = RunStatus("r", "w", jobs={name: JobStatus(name, name) for name in names})
    first = last = fold(first, [Event("1-0", at, "a", "a", "queued")])
    for number in range(3_000):
        state = "started" if number % 2 else "queued"
        last = fold(last, [Event(f"2-{number}", at, "b", "b", state)])
    status, state = (first, "deferred") if which == "the first" else (last, "started")
    assert len(pickle.dumps(status)) < 2_000
    for copied in (pickle.loads(pickle.dumps(status)), copy.deepcopy(status), copy.copy(status)):
        assert copied == status
        assert copied.jobs["b"].state == state
    assert asdict(status)["jobs"] == status.jobs
    following = [Event("3-0", at, "c", "c", "failed")]
    assert fold(pickle.loads(pickle.dumps(status)), following) == fold(status, following)


def test_an_iteration_goes_on_with_its_version_when_the_next_one_is_made() -> None:
    version = JobTable({"a": 1, "b": 2, "c": 3}, kind_of)
    names, items = iter(version), iter(version.items())
    assert (next(names), next(items)) == ("a", ("a", 1))
    later = version.changed([("b", 7), ("new", 9)])
    assert (list(names), list(items)) == (["b", "c"], [("b", 2), ("c", 3)])
    assert dict(later) == {"a": 1, "b": 7, "c": 3, "new": 9}


def test_a_thread_sees_whole_versions_while_another_one_makes_the_next() -> None:
    interval_s = sys.getswitchinterval()
    versions = [JobTable({f"n{at}": 0 for at in range(20)}, kind_of)]
    wrong: list[str] = []

    def make() -> None:
        for number in range(1, 2_000):
            changes = [(f"n{at}", number) for at in range(20)]
            versions.append(versions[-1].changed([*changes, (f"new{number % 50}", number)]))

    maker = Thread(target=make)
    sys.setswitchinterval(1e-6)
    try:
        maker.start()
        while maker.is_alive():
            try:
                items = versions[-1].items()
                seen = {value for name, value in items if not name.startswith("new")}
            except (KeyError, RuntimeError) as error:
                wrong.append(repr(error))
            else:
                if len(seen) != 1:
                    wrong.append(f"{seen} in one version")
    finally:
        sys.setswitchinterval(interval_s)
        maker.join()
    assert wrong == []


class Counting(dict[str, JobStatus]):
    """Counts how many jobs are read or written, by all versions that share this table."""

    touched = 0

    def get(self, name: str, default: object = None) -> JobStatus:
        self.touched += 1
        return super().get(name, default)  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> JobStatus:
        self.touched += 1
        return super().__getitem__(name)

    def __setitem__(self, name: str, job: JobStatus) -> None:
        self.touched += 1
        super().__setitem__(name, job)

    def __iter__(self) -> object:  # type: ignore[override]
        self.touched += len(self)
        return super().__iter__()

    def values(self) -> object:  # type: ignore[override]
        self.touched += len(self)
        return super().values()

    items = keys = copy = values  # type: ignore[assignment]


def test_an_event_costs_the_same_in_a_run_of_ten_and_of_ten_thousand_jobs() -> None:
    at, touched = datetime(2026, 1, 1, tzinfo=UTC), {}
    for size in (10, 10_000):
        status = fold(RunStatus("r", "w"), [])
        names = [f"page[{index}]" for index in range(size)]
        table = Counting({name: JobStatus(name, name) for name in names})
        jobs = JobTable[JobStatus](table, status.jobs._kind_of)  # type: ignore[attr-defined]
        status = RunStatus("r", "w", "running", jobs=jobs)
        table.touched = 0
        for number, state in enumerate(("queued", "handed", "started", "failed", "queued")):
            status = fold(status, [Event(f"{number}-1", at, names[3], names[3], state)])
        touched[size] = table.touched
        assert status.jobs[names[3]].state == "queued"
    assert touched[10] == touched[10_000] < 30
