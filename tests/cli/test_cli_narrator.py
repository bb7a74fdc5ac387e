"""The plain lines of large runs: counts instead of a line for each transition."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowq.render.lines import plain
from flowq.render.narrator import FAILURES, GROUPS, ITEMS_IN_FULL, JOBS_IN_FULL, STEPS, Narrator
from flowq.runtime.groups import ITEMS_PER_CALL
from flowq.status import Event, JobStatus, RunStatus, fold
from tests.cli.commands import Said

BEGIN = datetime(2026, 11, 24, 12, 3, 4, tzinfo=UTC)
LIMIT = 500

Told = tuple[str, str]
"""The events of a job, from its queueing to its end; failures have an error."""


def _events(told: Iterable[Told]) -> Iterator[Event]:
    for number, (name, state) in enumerate(told):
        at = BEGIN + timedelta(milliseconds=number)
        is_bad, is_again = state == "failed" and bool(name), state == "failed once"
        yield Event(
            f"{number}-0",
            at,
            f"r-{name}",
            name,
            "queued" if is_again else state,
            "attempt 1 failed: ValueError; again" if is_again else "",
            began_at=at if name and state in ("finished", "failed") else None,
            took_ms=5.0 if is_bad else None,
            error=f"ValueError: no {name}" if is_bad else "",
        )


def _whole(name: str, end: str = "finished") -> list[Told]:
    return [(name, "deferred"), (name, "queued"), (name, "started"), (name, end)]


def _run(*parts: Iterable[Told], end: str = "succeeded") -> list[Event]:
    return list(_events([("", "running"), *(told for part in parts for told in part), ("", end)]))


def _items(name: str, number: int, bad: Sequence[int] = ()) -> Iterator[Told]:
    """Yield a group whose items are all made before the first one starts."""
    for state in ("deferred", "queued"):
        yield from ((f"{name}[{index}]", state) for index in range(number))
    for index in range(number):
        yield f"{name}[{index}]", "started"
        yield f"{name}[{index}]", "failed" if index in bad else "finished"


def _tell(events: Sequence[Event], batch: int = 1_000, *, is_verbose: bool = False) -> list[str]:
    """Return the lines without their instants, told as a display does: some events at a time."""
    narrator, status, lines = Narrator(UTC, is_verbose=is_verbose), RunStatus("r", "flow"), []
    for first in range(0, len(events), batch):
        some = events[first : first + batch]
        status = fold(status, some)
        lines += narrator.tell(some, status.jobs.values())
    return [plain(line).partition(" ")[2] for line in lines]


def test_a_run_of_10_000_items_is_told_by_counts_and_by_its_failures() -> None:
    bad = range(17, 10_000, 200)
    events = _run(_whole("list"), _items("page", 10_000, bad), _whole("report"), end="failed")

    lines = _tell(events)

    assert len(lines) <= 100 < len(events)
    assert lines[:6] == [
        "run running",
        "list deferred",
        "list queued",
        "list started",
        "list finished (1ms)",
        "page started: 10,000 jobs",
    ]
    assert "page running 1,000/10,000: 995 finished, 5 failed" in lines
    assert "page failed (20s): 9,950 finished, 50 failed" in lines
    assert [line for line in lines if line.startswith("page[")] == [
        f"page[{index}] failed (5ms): ValueError: no page[{index}]" for index in bad
    ]
    assert lines[-5:-1] == [
        "report deferred",
        "report queued",
        "report started",
        "report finished (1ms)",
    ]


def test_verbose_tells_each_transition() -> None:
    events = _run(_items("page", 1_000))

    assert len(_tell(events, is_verbose=True)) == len(events)


def test_a_small_group_is_told_one_by_one() -> None:
    events = _run(_whole("list"), _items("page", ITEMS_IN_FULL), _whole("report"))

    assert _tell(events) == _tell(events, is_verbose=True)


def test_of_thousands_of_failures_the_first_are_told_one_by_one() -> None:
    lines = _tell(_run(_items("page", 5_000, range(5_000)), end="failed"))

    assert sum(line.startswith("page[") for line in lines) == FAILURES
    assert f"page failed: more than {FAILURES} jobs, now only counted; --verbose prints each" in (
        lines
    )
    assert lines[-2].endswith(": 5,000 failed")


def test_a_retried_job_is_told_when_it_has_failed_for_the_last_time() -> None:
    items = [f"page[{index}]" for index in range(200)]
    first = [told for name in items for told in (*_whole(name)[:3], (name, "failed once"))]
    again = [told for name in items for told in ((name, "started"), (name, "finished"))]
    again[-1] = (items[-1], "failed")

    lines = _tell(_run(first, again, end="failed"))

    assert [line for line in lines if line.startswith("page[")] == [
        "page[199] failed (5ms): ValueError: no page[199]"
    ]
    assert lines[-2].endswith("199 finished, 1 failed, 200 retries")


def test_a_nested_workflow_with_a_large_group_is_told_as_one() -> None:
    inside = [("inner", "deferred"), *_whole("inner(start)"), *_whole("inner.page(list)")]
    events = _run(inside, _items("inner.page", 1_000, [3]), [("inner", "failed")], end="failed")

    lines = _tell(events)

    assert len(lines) <= 40
    assert "inner.page[3] failed (5ms): ValueError: no inner.page[3]" in lines
    # Itself counts, and what begins it, or makes the list, does not.
    assert re.fullmatch(r"inner failed \(.*\): 999 finished, 2 failed", lines[-2])


def test_the_end_of_a_group_is_told_once_although_its_list_is_made_in_steps() -> None:
    steps: list[Told] = _whole("page(list)")[:3]
    for first in range(0, 500, ITEMS_PER_CALL):
        names = [f"page[{index}]" for index in range(first, first + ITEMS_PER_CALL)]
        steps += [(name, "deferred") for name in names]
        steps += [told for name in names for told in _whole(name)[1:]]
    events = _run(steps, [("page(list)", "finished")])

    lines = _tell(events, batch=7 * ITEMS_PER_CALL)

    assert sum(line.startswith("page finished") for line in lines) == 1
    assert lines[-2].endswith(": 500 finished")
    assert not [line for line in lines if line.startswith("page[")]


def test_two_groups_by_turns_are_told_each_for_itself() -> None:
    events = _run(
        turn
        for both in zip(_items("left", 1_000), _items("right", 1_000, [8]), strict=True)
        for turn in both
    )

    lines = _tell(events)

    for name, ends in (("left", "finished"), ("right", "failed")):
        assert sum(line.startswith(f"{name} running") for line in lines) == STEPS - 1
        assert sum(line.startswith(f"{name} {ends}") for line in lines) == 1
    assert len(lines) == 2 + 2 * (STEPS + 1) + 1


@pytest.mark.parametrize("batch", [1, 1_000])
def test_no_shape_of_a_run_takes_more_lines(batch: int) -> None:
    """A chain of thousands, many small groups, many large ones; each failure counts as well."""
    dice = random.Random(batch)
    shapes = {
        "chain": [_whole(f"job_{index}") for index in range(500)],
        "small groups": [list(_items(f"group_{index}", 30, [3])) for index in range(60)],
        "large groups": [list(_items(f"group_{index}", 300, [3])) for index in range(12)],
    }
    shapes["mixed"] = [part for parts in shapes.values() for part in parts[-8:]]
    dice.shuffle(shapes["mixed"])
    for shape, parts in shapes.items():
        declared = {name: JobStatus(name, f"r-{name}") for part in parts for name, _ in part}
        status, narrator, told = RunStatus("r", "flow", jobs=declared), Narrator(UTC), 0
        events = _run(*parts)
        for first in range(0, len(events), batch):
            some = events[first : first + batch]
            status = fold(status, some)
            told += len(narrator.tell(some, status.jobs.values()))

        assert told <= LIMIT, shape
    assert GROUPS < 12 < ITEMS_IN_FULL < ITEMS_PER_CALL


def test_what_is_too_much_for_a_line_each_is_told_together() -> None:
    jobs = [f"job_{index}" for index in range(JOBS_IN_FULL + 100)]
    declared = {name: JobStatus(name, f"r-{name}") for name in jobs}
    events = _run(*(_whole(name) for name in jobs))

    told = Narrator(UTC).tell(
        events, fold(RunStatus("r", "f", jobs=declared), events).jobs.values()
    )

    lines = [plain(line).partition(" ")[2] for line in told]
    others = [line for line in lines if line.startswith("other jobs")]
    assert (others[0], len(others)) == ("other jobs started: 100 jobs", STEPS + 1)
    assert re.fullmatch(r"other jobs finished \(.*\): 100 finished", others[-1])
    assert len(lines) == 2 + 4 * JOBS_IN_FULL + len(others)


def test_a_retry_tells_of_a_large_group_what_it_does_again() -> None:
    jobs = {
        f"page[{index}]": JobStatus(f"page[{index}]", f"r-page--{index}", "finished")
        for index in range(1_000)
    }
    events = list(_events([("page[7]", "queued"), ("page[7]", "started"), ("page[7]", "finished")]))
    status = fold(RunStatus("r", "flow", jobs=jobs), events)

    lines = [plain(line) for line in Narrator(UTC).tell(events, status.jobs.values())]

    assert lines == [
        "12:03:04 page started: 1,000 jobs, 999 of them have ended before",
        "12:03:04 page finished (1ms): 1,000 finished",
    ]


def test_what_is_kept_of_another_run_took_no_time_and_has_no_helpers() -> None:
    names = ("nest(start)", "nest.y(list)", "nest.y[0]", "nest")
    kept = "kept from run k3v9x0q2m5ab"
    events = [
        replace(event, reason=kept) for event in _events((name, "finished") for name in names)
    ]
    jobs = {name: JobStatus(name, f"r-{name}") for name in names}
    status = fold(RunStatus("r", "flow", jobs=jobs), events)

    lines = [plain(line) for line in Narrator(UTC).tell(events, status.jobs.values())]

    assert [line.partition(" ")[2] for line in lines] == [
        f"nest.y[0] finished: {kept}",
        f"nest finished: {kept}",
    ]


def test_canceled_items_are_counted() -> None:
    rest = [(f"page[{index}]", "canceled") for index in range(600, 1_000)]
    made = list(_items("page", 1_000))[: 2_000 + 2 * 600]

    lines = _tell(_run(made, rest, end="canceled"))

    assert re.fullmatch(r"page canceled \(.*\): 600 finished, 400 canceled", lines[-2])
    assert lines[-3].startswith("page running 600/1,000")


def test_a_run_of_300_items_prints_counts_and_failures_where_there_is_no_terminal(
    call: Callable[..., Said], folder: Path, redis_url: str
) -> None:
    items = [f"dark {index}" if index % 60 == 7 else "white" for index in range(300)]
    (folder / "toasts.yaml").write_text(
        f"name: toasts\njobs:\n  toast:\n    for_each: {items}\n"
        "    call: kitchen:taste\n    with: {toast: '${{ item }}'}\n",
        encoding="utf-8",
    )

    said = call("run", "toasts.yaml", "-c", "1", "--redis-url", redis_url)

    lines = [line[9:] for line in said.out.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert said.code == 1
    assert len(lines) <= 40
    assert sum(line.startswith("toast started: 300 jobs") for line in lines) == 1
    assert "before" not in said.out
    failed = [line for line in lines if line.startswith("toast[")]
    assert [re.sub(r"\(.*?\)", "(…)", line) for line in failed] == [
        f"toast[{index}] failed (…): ValueError: dark {index} is black"
        for index in range(7, 300, 60)
    ]
    assert lines[-2].startswith("toast failed (")
    assert lines[-2].endswith(": 295 finished, 5 failed")

    watched = call("watch", "last", "--verbose", "--redis-url", redis_url)
    assert len(re.findall(r"toast\[\d+\] (?:finished|failed) \(", watched.out)) == 300
