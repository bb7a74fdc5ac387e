"""What attempts have printed, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowq.runtime.printed import Printed
from flowq.texts import show_bytes


def output_lines(printed: Mapping[int, Printed]) -> list[str]:
    """Return the lines of all attempts, by number, with a line before each but the first."""
    lines: list[str] = []
    for at, number in enumerate(sorted(printed)):
        lines += [f"--- attempt {number} ---"] if at else []
        lines += attempt_lines(printed[number])
    return lines


def attempt_lines(printed: Printed) -> list[str]:
    """Return the lines of one attempt; a line in brackets says what is not kept."""
    if printed.dropped or not printed.left_out:
        note = [drop_note(printed)] if printed.dropped else []
        return [*note, *split_lines(printed.head + printed.tail)]
    left_out = left_out_note(printed.left_out)
    return [*split_lines(printed.head), left_out, *split_lines(printed.tail)]


def left_out_note(count: int) -> str:
    """Return the line that stands for so many bytes."""
    return f"[… {count:,} bytes left out …]"


def drop_note(printed: Printed) -> str:
    """Return the line that stands for output of which nothing is kept; empty if it is kept."""
    if not printed.dropped:
        return ""
    if printed.dropped == "unreadable":
        return "[output dropped: what is stored of it cannot be read]"
    why = f"the run's budget of {printed.budget / 1_000_000:g} MB is used up"
    if printed.dropped == "refused":
        why = "the server refused to store it"
    return f"[output dropped, {printed.size:,} bytes: {why}]"


def split_lines(text: bytes) -> list[str]:
    r"""Return the lines of a text, as a terminal leaves them: of parts before a `\r` the last one.

    So a progress bar is one line. Bytes that are not UTF-8 become escapes.
    """
    return list(_lines(text))


def _lines(text: bytes) -> Iterator[str]:
    *lines, rest = text.split(b"\n")
    for line in [*lines, rest] if rest else lines:
        yield show_line(line)


def show_line(line: bytes) -> str:
    """Return one line, which must not have a line feed."""
    return show_bytes(line.rstrip(b"\r").rpartition(b"\r")[2])


def output_documents(printed: Mapping[int, Printed]) -> list[dict[str, Any]]:
    """Return the output of each attempt for JSON; without a gap, all lines are in `head`."""
    return [_document(number, each) for number, each in sorted(printed.items())]


def _document(number: int, printed: Printed) -> dict[str, Any]:
    has_gap = printed.left_out > 0 and not printed.dropped
    return {
        "attempt": number,
        "head": split_lines(printed.head if has_gap else printed.head + printed.tail),
        "tail": split_lines(printed.tail) if has_gap else [],
        "bytes": printed.size,
        "dropped_bytes": printed.size if printed.dropped else printed.left_out,
        "note": drop_note(printed).strip("[]") or None,
    }
