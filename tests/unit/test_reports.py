"""Reports of progress: what is accepted, and how they travel as text."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowq
from flowq.errors import UsageError
from flowq.render.events import progress_text
from flowq.reports import (
    MAX_BYTES,
    MAX_MESSAGE,
    MAX_NUMBER,
    Progress,
    check_progress,
    read_progress,
    write_progress,
)
from flowq.runtime.masking import Mask

NUMBERS = st.integers(0, MAX_NUMBER) | st.floats(0, MAX_NUMBER)


def as_is(text: str) -> str:
    return text


@given(NUMBERS, st.none() | NUMBERS.filter(bool), st.text(max_size=3 * MAX_MESSAGE))
def test_a_report_comes_back_from_its_text(done: float, total: float | None, message: str) -> None:
    report = check_progress(done, total, message)
    text = write_progress(report, as_is)
    assert len(text.encode()) < MAX_BYTES
    read = read_progress(text)
    assert read is not None
    assert (read.done, read.total) == (done, total)
    assert read.message == report.message or len(read.message) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("done", "total", "message", "says"),
    [
        (-1, 10, "", "done is a number from 0 to 10\\*\\*15, not -1"),
        (math.nan, 10, "", "done is a number"),
        (math.inf, None, "", "done is a number"),
        ("3", 10, "", "done is a number from 0 to 10\\*\\*15, not '3'"),
        (True, None, "", "done is a number"),
        (None, None, "", "done is a number"),
        (Decimal(1), None, "", "done is a number"),
        pytest.param(2**20_000, None, "", "done is .* not a huge number", id="huge"),
        (1, 0, "", "total is 0; leave it out"),
        (1, -5, "", "total is a number"),
        (1, math.nan, "", "total is a number"),
        (1, 2, b"bytes", "message must be a text, not b'bytes'"),
        (1, 2, None, "message must be a text"),
    ],
)
def test_a_report_that_says_nothing_is_refused(
    done: Any, total: Any, message: Any, says: str
) -> None:
    with pytest.raises(UsageError, match=f"progress: {says}"):
        flowq.progress(done, total, message)


def test_outside_of_a_job_a_report_does_nothing() -> None:
    flowq.progress(1, 2, "nobody listens")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "7", '{"done":1}', '{"done":"1","total":2,"message":""}'),
        *('{"done":NaN,"total":2,"message":""}', '{"done":1,"total":0,"message":""}'),
        *('{"done":true,"total":2,"message":""}', '{"done":-1,"total":null,"message":""}'),
        *('{"done":1,"total":2,"message":3}', '{"done":1,"total":2,"message":"' + 300 * "x" + '"}'),
        *("[" * 100_000, '{"done":1e400,"total":2,"message":""}'),
    ],
)
def test_a_text_that_is_no_report_is_none(text: str) -> None:
    assert read_progress(text) is None


def test_secrets_are_hidden_before_a_message_is_cut() -> None:
    mask = Mask()
    mask.add(["geheimnis"])
    for before in range(MAX_MESSAGE - 15, MAX_MESSAGE + 5):
        text = write_progress(check_progress(1, 2, "x" * before + "geheimnis"), mask.hide)
        assert "xg" not in text


def test_progress_reads_as_a_share() -> None:
    assert progress_text(Progress(30, 120, "page 30")) == "30/120 (25%): page 30"
    assert progress_text(Progress(1_000_000)) == "1,000,000"
    assert progress_text(Progress(11, 10)) == "11/10 (100%)"
    assert progress_text(Progress(0.5, 2.5, "a\x1b[2Jb")) == "0.5/2.5 (20%): ab"
