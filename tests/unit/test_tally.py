"""What a table of a run counts: the same as a look at each job, at the cost of what has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.cells import count_cells
from flowq.render.groups import by_declaration
from flowq.render.lines import plain, plain_text
from flowq.render.progress import progress, rows
from flowq.render.tally import Tally
from flowq.status import Event, JobStatus, RunStatus, fold

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STATES = ("deferred", "scheduled", "queued", "started", "finished", "failed", "skipped", "canceled")
NAMES = {
    "plain": "plain",
    "thumb(list)": "thumb",
    **{f"thumb[{i}]": f"thumb--{i}" for i in range(3)},
    "pack": "pack",
    "pack(start)": "pack--start",
    "pack.box(list)": "pack--box",
    **{f"pack.box[{i}]": f"pack--box--{i}" for i in range(3)},
    "pack.lid": "pack--lid",
    "each(list)": "each",
    **{f"each[{i}]": f"each--{i}" for i in range(2)},
    **{f"each[{i}](start)": f"each--{i}--start" for i in range(2)},
    **{f"each[{i}].cut": f"each--{i}--cut" for i in range(2)},
    "keyed[a.b(c)]": "keyed--0",
}


def _at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def _run(*names: str) -> RunStatus:
    jobs = {name: JobStatus(name, f"r-{NAMES.get(name, name)}") for name in names}
    groups = {"thumb", "each", "keyed"} & {name.partition("[")[0] for name in names}
    return RunStatus("r", "flow", "running", jobs, _at(0), groups=frozenset(groups))


def _event(second: float, name: str, state: str, reason: str = "", error: str = "") -> Event:
    job_id = f"r-{NAMES.get(name, name)}"
    return Event(f"{second:.0f}-0", _at(second), job_id, name, state, reason, error=error)


def _lines(
    status: RunStatus, second: float, width: int = 120, height: int | None = None
) -> list[str]:
    return [plain(line) for line in progress(status, _at(second), width, height)]


changes = st.lists(st.tuples(st.sampled_from(list(NAMES)), st.sampled_from(STATES)), max_size=40)


@given(changes, st.integers(0, 40))
def test_a_tally_that_is_kept_counts_like_a_look_at_each_job(
    happened: list[tuple[str, str]], cut_at: int
) -> None:
    events = [_event(at, name, state) for at, (name, state) in enumerate(happened)]
    status = fold(_run(*NAMES), events[:cut_at])
    tally = Tally(status)
    status = fold(status, events[cut_at:])
    tally.update(status, {event.name for event in events[cut_at:]})

    assert tally.count_by_state() == Counter(status.count_by_state())
    declared = by_declaration(status)
    assert list(tally.parts) == list(declared)
    assert {name: part.state for name, part in tally.parts.items()} == {
        name: each.state for name, each in declared.items()
    }
    assert set(tally.running) == {
        job.name for job in status.jobs.values() if job.state == "started" and not job.helps
    }


def test_a_frame_costs_as_much_as_what_has_changed() -> None:
    names = [f"thumb[{i}]" for i in range(2_000)]
    status = fold(_run("thumb(list)", *names), [])
    tally = Tally(status)
    status = fold(status, [_event(1, "thumb[7]", "finished")])

    class Counting(dict[str, JobStatus]):
        read = 0

        def get(self, *args: object) -> JobStatus | None:  # type: ignore[override]
            Counting.read += 1
            return super().get(*args)  # type: ignore[arg-type]

    counting = replace(status, jobs=Counting(status.jobs))
    tally.update(counting, ["thumb[7]"])
    progress(counting, _at(2), tally=tally)

    assert Counting.read == 1
    assert tally.parts["thumb"].states == {"deferred": 1_999, "finished": 1}


def _group(total: int, ended: int, *, failed: int = 0, list_state: str = "finished") -> RunStatus:
    names = [f"thumb[{i}]" for i in range(total)]
    events = [_event(0, "thumb(list)", list_state)]
    events += [_event(0, name, "started") for name in names[: ended + 1]]
    events += [_event(4, name, "finished") for name in names[failed:ended]]
    events += [
        _event(4, name, "failed", error=f"ValueError: {name} is bad") for name in names[:failed]
    ]
    return fold(_run("thumb(list)", *names), events)


def test_a_group_has_a_bar_its_rate_and_the_time_left() -> None:
    assert _lines(_group(1_000, 400), 4) == [
        "flow  running 4.0s  400/1,000  run r",
        "▶ thumb 400/1,000     4.0s  ████████░░░░░░░░░░░░  40%  started, 100/s, about 6.0s left",
    ]


def test_what_was_canceled_is_not_counted_as_done() -> None:
    run = _group(2_000, 120)
    left = [_event(4, f"thumb[{i}]", "canceled") for i in range(120, 2_000)]
    status = fold(run, [*left[:1_000]])

    headline, row = _lines(status, 4)
    assert headline == "flow  running 4.0s  120/2,000  run r"
    assert row == "○ thumb 120/2,000     4.0s  █░░░░░░░░░░░░░░░░░░░   6%  deferred, 1,000 canceled"

    status = replace(fold(status, left[1_000:]), state="canceled")
    headline, row = _lines(status, 4)
    assert headline.startswith("flow  canceled 4.0s  120/2,000  run r")
    assert row.endswith("thumb 120/2,000     4.0s  1,880 canceled")


def test_nothing_is_said_about_the_time_left_before_it_can_be_known() -> None:
    assert _lines(_group(1_000, 9), 4)[1].endswith(" 0%  started"), "too few items"
    assert _lines(_group(1_000, 400), 1)[1].endswith("40%  started"), "too little time"


def test_within_80_columns_failures_rate_and_time_left_are_seen_before_retries() -> None:
    reason = "attempt 1 failed: ValueError; again in 1m"
    tries = [_event(4, f"thumb[{i}]", "scheduled", reason) for i in (998, 999)]
    status = fold(_group(1_000, 400, failed=12), tries)

    row = _lines(status, 4, width=80)[1]

    assert row[:80].endswith("  12 failed, 100/s, ~6.0s left, 2 ret")
    assert row.endswith(", 2 retry in 1m 00s")


def test_what_still_grows_is_counted_so_far() -> None:
    headline, row = _lines(_group(1_000, 400, list_state="started"), 4)

    assert headline == "flow  running 4.0s  400/1,000 so far  run r"
    assert row == "▶ thumb 400/1,000 so far     4.0s  started, 100/s"


def test_a_group_that_grew_after_its_list_may_grow_again() -> None:
    status = _group(100, 40)
    tally = Tally(status)
    more = [_event(4, f"thumb[{i}]", "queued") for i in range(100, 110)]
    status = fold(status, more)
    tally.update(status, [event.name for event in more])

    lines = [plain(line) for line in progress(status, _at(4), 120, tally=tally)]

    assert lines[1] == "▶ thumb 40/110 so far     4.0s  started, 10/s"


def test_a_list_that_ends_within_one_frame_has_not_grown_afterwards() -> None:
    tally = Tally(_run("thumb(list)"))
    events = [_event(1, f"thumb[{i}]", "queued") for i in range(9)]
    events += [_event(2, "thumb(list)", "finished")]
    tally.update(fold(_run("thumb(list)"), events), {event.name for event in events})

    assert not tally.parts["thumb"].is_growing


def test_a_group_has_no_number_before_its_list_is_made() -> None:
    status = _run("thumb(list)")
    assert _lines(status, 4)[1].split() == ["○", "thumb", "deferred"]
    empty = fold(status, [_event(2, "thumb(list)", "finished")])
    assert _lines(empty, 4)[1].split()[1:3] == ["thumb", "0/0"]


def test_failures_of_a_group_are_shown_at_once_with_their_error() -> None:
    lines = _lines(_group(1_000, 400, failed=5), 4)

    assert lines[1].split("  ")[-1] == "started, 5 failed, 100/s, about 6.0s left"
    assert [line.split() for line in lines[2:5]] == [
        ["✗", f"thumb[{i}]", "4.0s", "failed,", "ValueError:", f"thumb[{i}]", "is", "bad"]
        for i in (2, 3, 4)
    ]
    assert lines[5:] == ["  … and 2 more: flowq show r thumb --state failed"]
    many = _lines(_group(1_000, 400, failed=300), 4)  # more than are remembered with their reason
    assert many[5:] == ["  … and 297 more: flowq show r thumb --state failed"]


def test_a_job_that_waits_for_its_next_try_says_when_and_why() -> None:
    reason = "attempt 1 failed: ValueError; again in 12s"
    tries = [_event(1, "plain", "scheduled", reason, "ValueError: it is black")]

    lines = _lines(fold(_run("plain"), tries), 3)

    assert (
        lines[1].split("  ")[-1].strip()
        == "retries in 10 s, attempt 1 failed: ValueError: it is black"
    )


def test_of_a_group_it_is_told_how_many_wait_for_a_retry_apart_from_those_that_are_queued() -> None:
    reason = "attempt 1 failed: ValueError; again in 1m"
    names = [f"thumb[{i}]" for i in range(5)]
    tries = [_event(0, name, "queued") for name in names]
    tries += [_event(at, names[at], "scheduled", reason) for at in (1, 2)]
    status = fold(_run(*names), tries)

    assert _lines(status, 3)[1].endswith("queued, 2 wait for a retry, the next in 58 s")
    status = fold(status, [_event(5, name, "finished") for name in names if name != names[1]])
    assert _lines(status, 6)[1].endswith("1 retries in 55 s")


def test_nested_workflows_are_trees_while_they_go_on() -> None:
    names = [name for name in NAMES if name.startswith("pack")]
    events = [
        _event(1, "pack(start)", "finished"),
        _event(1, "pack.box(list)", "finished"),
        _event(1, "pack.box[0]", "started"),
    ]
    status = fold(_run(*names), events)

    assert _lines(status, 2, 50) == [
        "flow  running 2.0s  0/5  run r",
        "▶ pack 0/4      1.0s  started",
        "  ▶ box 0/3     1.0s  started",
        "  ○ lid               deferred",
    ]
    assert len(_lines(status, 2, 50, height=3)) <= 3
    ended = fold(status, [_event(3, name, "finished") for name in names if "(" not in name])
    assert [line.split()[1] for line in _lines(ended, 4)] == ["running", "pack"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_bar_is_wider_than_the_terminal(width: int) -> None:
    row = progress(_group(1_000, 400, failed=5), _at(4), width)[1]

    assert len(plain(row[:-1])) <= width


def test_a_terminal_with_few_characters_gets_a_bar_of_letters() -> None:
    row = progress(_group(1_000, 400, failed=5), _at(4), 120, unicode=False)[1]

    assert "  #######x------------  40%" in plain(row)
    assert plain(row).isascii()


def test_items_of_any_name_take_one_line_each_and_leave_the_columns_aligned() -> None:
    names = [
        "<script>alert(1)</script>",
        '"]; DROP',
        "数据",
        "שלום",
        "عنوان",
        "🚀",
        "a\nb",
        "\x1b[2J",
    ]
    jobs = [f"thumb[{name}]" for name in names]
    events = [_event(1, name, "started") for name in jobs]
    events += [_event(2, name, "failed", error="ValueError: no") for name in jobs]
    status = fold(_run(*jobs), events)

    lines = [plain(line) for line in rows(list(status.jobs.values()), _at(3))]

    assert len({count_cells(line.partition("1.0s")[0]) for line in lines}) == 1
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert "thumb[a\\nb]" in lines[6]
    assert "thumb[\\x1b[2J]" in lines[7]
    for name, line in zip(names[:6], lines, strict=False):
        assert f"thumb[{name}]" in line
    assert plain_text([(("thumb[a\nb] ", ""), ("failed", "red"))]) == "thumb[a\\nb] failed\n"
