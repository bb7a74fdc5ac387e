"""Errors of a group's items are counted together if they differ only in values."""

from __future__ import annotations

import pytest

from flowq.status import JobStatus
from flowq.ui.pages.group import MAX_ERROR, count_errors, without_values


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ValueError: item 7 is broken", "ValueError: item … is broken"),
        ("KeyError: 'a7'", "KeyError: …"),
        ("OSError: no file /data/2026-11/part-7.csv", "OSError: no file …"),
        ("OSError: no file data/part.csv, sorry", "OSError: no file …, sorry"),
        (r"OSError: C:\data\x.csv is locked", "OSError: … is locked"),
        ("OSError: [Errno 5] Input/output error", "OSError: [Errno …] Input/output error"),
        ("HTTPError: https://host:80/a?b=1 says no", "HTTPError: … says no"),
        ("TypeError: <X object at 0x7f3a> can't", "TypeError: <X object at …> can't"),
        ("Gone: 1b4e28ba-2fa1-11d2-883f-0016d3cca427", "Gone: …"),
        ("Gone: commit 3dd6b3ef is lost", "Gone: commit … is lost"),
        ("Late: 12:30:01.5, not 1,204.50", "Late: …, not …"),
        ("Error: it can't be 'x', nor \"y z\"", "Error: it can't be …, nor …"),
        ("Error: the cut 'text goes", "Error: the cut …"),
        ("Error: deadbeef is a word", "Error: deadbeef is a word"),
        ("", ""),
    ],
)
def test_values_are_left_out_of_an_error(line: str, kind: str) -> None:
    assert without_values(line) == kind


@pytest.mark.parametrize(
    "text", ["a-", "a/", "'", "'a", "/", "0", "0,", "a.", "f0", "\\", "~", "a'"]
)
def test_an_error_of_any_length_is_read_in_few_steps(text: str) -> None:
    assert len(without_values(text * 1_000_000)) <= MAX_ERROR


def test_errors_that_differ_only_in_values_are_counted_together() -> None:
    errors = [
        *(f"ValueError: item {at} is broken" for at in range(5)),
        "exit code 3",
        "exit code 3",
    ]
    jobs = [
        JobStatus(f"process[{at}]", f"r-{at}", "failed", error=error)
        for at, error in enumerate(errors)
    ]

    assert count_errors(jobs) == [
        ("ValueError: item … is broken", 5, ["process[0]", "process[1]", "process[2]"]),
        ("exit code 3", 2, ["process[5]", "process[6]"]),
    ]
