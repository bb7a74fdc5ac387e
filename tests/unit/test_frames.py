"""How often the live table is drawn."""

from __future__ import annotations

import io

import pytest

from flowq.cli import display
from flowq.status import RunStatus


class Clock:
    """A clock that a test moves on. A frame takes `frame_s` by it."""

    def __init__(self, frame_s: float) -> None:
        self.now, self.frame_s, self.frames = 0.0, frame_s, 0

    def draw(self, *_: object, **__: object) -> list[object]:
        self.now += self.frame_s
        self.frames += 1
        return []


@pytest.mark.parametrize(("frame_s", "least", "most"), [(0.001, 36, 40), (0.05, 2, 2)])
def test_drawing_takes_a_few_percent_of_the_time_however_large_the_run_is(
    monkeypatch: pytest.MonkeyPatch, frame_s: float, least: int, most: int
) -> None:
    clock = Clock(frame_s)
    for name in ("monotonic", "process_time"):
        monkeypatch.setattr(f"flowq.cli.display.time.{name}", lambda: clock.now)
    live = display.Live(io.StringIO())
    monkeypatch.setattr(live, "_lines", clock.draw)
    while clock.now < 10:
        live.show(RunStatus("r1", "demo"), [])
        clock.now += 0.01
    assert least <= clock.frames <= most


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_process_killed_between_two_frames_leaves_the_cursor_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = _Terminal()
    with display.Live(stream) as live:
        live.show(RunStatus("r1", "demo"), [])
        written = stream.getvalue()
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l") >= 0
