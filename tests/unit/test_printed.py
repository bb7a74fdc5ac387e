"""What an attempt has printed, as a value: what is kept of it, and how it is shown."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from flowq.errors import UsageError
from flowq.job_output import Tail
from flowq.render.job_output import attempt_lines, output_documents, output_lines, split_lines
from flowq.runtime.printed import HEAD_BYTES, TAIL_BYTES, Printed, read_budget, read_text
from flowq.runtime.views import LARGE_BYTES, strip_view
from flowq.status import JobStatus

KEPT_BYTES = HEAD_BYTES + TAIL_BYTES


def printed(*parts: bytes) -> Printed:
    made = Printed()
    for part in parts:
        made.add(part)
    return made


def parts_of(each: Printed) -> tuple[bytes, int, bytes]:
    return each.head, each.left_out, each.tail


@pytest.mark.parametrize("size", [1, 255, 257, HEAD_BYTES, KEPT_BYTES, KEPT_BYTES + 1, 300_000])
def test_head_and_tail_are_kept_however_the_text_comes(size: int) -> None:
    chance = random.Random(size)
    text = chance.randbytes(size)
    cuts = sorted(chance.choices(range(size), k=7))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    at_once, joined = printed(text), Printed()
    for piece in pieces:
        joined.join(printed(piece))
    for each in (at_once, printed(*pieces), joined, Printed.read(at_once.write())):
        left_out = max(0, size - KEPT_BYTES)
        tail = text[max(HEAD_BYTES, size - TAIL_BYTES) :]
        assert parts_of(each) == (text[:HEAD_BYTES], left_out, tail)


def test_what_is_skipped_is_counted_and_what_follows_is_the_tail() -> None:
    made = printed(b"begin")
    made.skip(1_000_000)
    made.join(printed(b"end"))
    assert parts_of(Printed.read(made.write())) == (b"begin", 1_000_000, b"end")
    assert attempt_lines(made) == ["begin", "[… 1,000,000 bytes left out …]", "end"]


def test_a_record_can_be_anything_and_is_read_as_no_more_than_its_attempts_text() -> None:
    chance = random.Random(3)
    whole = printed(b"line\n" * 30_000).write()
    records = [
        *(b"", b"{", b"[]\n", b"5\nx", b'{"bytes":-1}\nx', b'{"bytes":1e400}\nx'),
        *(b'{"bytes":1,"head":9}\nabc', b'{"bytes":"a"}\n', b'{"bytes":9,"z":1}\nno zlib'),
        *(b"[" * 100_000, b'{"bytes":' + b"9" * 5_000 + b"}\n", b'{"bytes":5,"head":-2}\nabcde'),
        *(bytes(chance.randbytes(200)) for _ in range(100)),
        *(whole[: chance.randrange(len(whole))] for _ in range(100)),
    ]
    for record in records:
        read = Printed.read(record)
        assert len(read.head) + len(read.tail) <= KEPT_BYTES
        assert all(isinstance(line, str) for line in attempt_lines(read))
    bomb = printed(b"x" * KEPT_BYTES).write()
    assert len(bomb) < 1_000
    assert read_text("no base64 \0") == b""
    assert read_text("QUJD" * 100_000) == b""


def test_output_that_is_not_kept_is_named_with_the_reason() -> None:
    record = b'{"bytes":123456,"dropped":"budget","budget":8000000}\n'
    why = "[output dropped, 123,456 bytes: the run's budget of 8 MB is used up]"
    assert attempt_lines(Printed.read(record)) == [why]
    refused = Printed(size=9, dropped="refused")
    assert attempt_lines(Printed.read(refused.write())) == [
        "[output dropped, 9 bytes: the server refused to store it]"
    ]
    assert output_documents({2: Printed.read(record)}) == [
        {
            "attempt": 2,
            "head": [],
            "tail": [],
            "bytes": 123_456,
            "dropped_bytes": 123_456,
            "note": why.strip("[]"),
        }
    ]


def test_lines_are_what_a_terminal_leaves_of_them() -> None:
    assert split_lines(b"") == []
    assert split_lines(b"a\n\nb") == ["a", "", "b"]
    assert split_lines(b" 1%\r 50%\r100%\r\nnext\r\n") == ["100%", "next"]
    assert split_lines(b"caf\xc3\xa9 \xff\x00") == ["café \\xff\x00"]


def test_attempts_are_told_apart() -> None:
    both = {2: printed(b"two\n"), 1: printed(b"one\n")}
    assert output_lines(both) == ["one", "--- attempt 2 ---", "two"]
    assert output_lines({2: printed(b"two\n")}) == ["two"]
    assert [each["attempt"] for each in output_documents(both)] == [1, 2]


class Feed:
    """Stands for the output of a run, which grows."""

    def __init__(self) -> None:
        self.now: dict[str, dict[int, Printed]] = {}
        self.transferred = 0

    def read(self, _run: Any, job_ids: Any, choose: Any) -> Mapping[str, Mapping[int, Printed]]:
        jobs = {job_id: self.now[job_id] for job_id in job_ids if job_id in self.now}
        length_by_place = {(i, n): len(jobs[i][n].write()) for i in jobs for n in jobs[i]}
        found: dict[str, dict[int, Printed]] = {}
        for job_id, number in choose(length_by_place):
            found.setdefault(job_id, {})[number] = jobs[job_id][number]
            self.transferred += 1
        return found


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    feed = Feed()
    monkeypatch.setattr("flowq.job_output.read", feed.read)
    return feed


def follow(tail: Tail, attempts: int, *, has_ended: bool = False) -> list[str]:
    ended_at = datetime.now(UTC) if has_ended else None
    job = JobStatus("a", "r-a", "started", attempts=attempts, ended_at=ended_at)
    return [line for _, line in tail.new_lines([job])]


def test_a_follower_gets_each_line_once_and_is_told_what_it_has_missed(feed: Feed) -> None:
    tail = Tail(Any)
    assert follow(tail, 1) == []
    text = printed(b"one\ntw")
    feed.now["r-a"] = {1: text}
    assert follow(tail, 1) == ["one"]
    assert follow(tail, 1) == []
    text.add(b"o\n")
    assert follow(tail, 1) == ["two"]
    text.add(b"x" * 200_000 + b"\nlast")
    missed = follow(tail, 1)
    assert missed[0] == "x" * (HEAD_BYTES - len("one\ntwo\n"))
    assert missed[1] == f"[… {200_013 - KEPT_BYTES:,} bytes left out …]"
    assert missed[2:] == ["x" * (TAIL_BYTES - 5)]
    text.add(b" words")
    assert follow(tail, 1, has_ended=True) == ["last words"]
    assert follow(tail, 1, has_ended=True) == []


def test_a_follower_gets_the_end_of_an_attempt_that_is_retried_and_the_next_one(feed: Feed) -> None:
    tail = Tail(Any)
    feed.now["r-a"] = {1: printed(b"one\nno line feed")}
    assert follow(tail, 1) == ["one"]
    feed.now["r-a"][2] = printed(b"two\n")
    assert follow(tail, 2) == ["no line feed", "two"]
    feed.now["r-a"][3] = Printed(size=9, dropped="refused")
    assert follow(tail, 3) == []
    assert follow(tail, 3, has_ended=True) == [
        "[output dropped, 9 bytes: the server refused to store it]"
    ]


def test_a_follower_reads_only_records_that_may_have_changed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, text = Tail(Any), printed(b"1\n")
    feed.now["r-a"] = {1: printed(b"before\n"), 2: text}
    assert follow(tail, 2) == ["before", "1"]
    for _ in range(3):
        assert follow(tail, 2) == []
    assert feed.transferred == 2
    text.add(b"2\n")
    assert follow(tail, 2) == ["2"]
    assert feed.transferred == 3
    monkeypatch.setattr("flowq.job_output.SAME_LENGTH_S", 0.0)  # as if they had passed
    assert follow(tail, 2) == []
    assert feed.transferred == 4


def test_the_budget_is_a_number_of_megabytes() -> None:
    assert read_budget({}) is None
    assert read_budget({"FLOWQ_RUN_BUDGET_MB": " 0.5 "}) == 500_000
    assert read_budget({"FLOWQ_RUN_BUDGET_MB": "0"}) == 0
    for text in ("8 MB", "-1", "nan", "inf", "1e9"):
        with pytest.raises(UsageError, match="FLOWQ_RUN_BUDGET_MB must be a number of megabytes"):
            read_budget({"FLOWQ_RUN_BUDGET_MB": text})


def test_the_short_form_of_a_view_keeps_what_expressions_read() -> None:
    view = '{"arguments":{"a":"' + "x" * 3_000 + '"},"result":[1],"exit_code":7}'
    short = strip_view(view)
    assert '"exit_code":7' in short
    assert short.count("the memory budget of the run is used up") == 2
    assert len(short) < LARGE_BYTES
    for hostile in ("[]", "no JSON", "[" * 100_000, '{"failure":"' + "x" * 9_000 + '"}'):
        assert strip_view(hostile) == "{}"
