"""Record a command on a terminal, as an SVG that moves:

    python docs/tools/record.py docs/run.svg flowq run workflows/gallery.yaml

The command runs for real, on a pseudo-terminal of `COLUMNS` x `LINES`. What is on the screen is
kept whenever it has changed, at most ten times a second; lines that several frames share are stored
once. The SVG needs no script, and shows the last frame alone to readers who want no motion.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 80, 9
FRAME_S, PAUSE_S, LAST_S = 0.1, 1.0, 5.0
WIDTH, HEIGHT = 8.4, 19  # of a character, in pixels
COLOURS: Mapping[str, str] = {
    "red": "#ff7b72",
    "green": "#7ee787",
    "yellow": "#f2cc60",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
}
_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


def run(command: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Run a command; yield all that it has written, with the seconds since its start."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    began, written = time.monotonic(), b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not part:
            break
        written += part
        yield time.monotonic() - began, written.decode("utf-8", "replace")
    os.close(terminal)
    os.waitpid(pid, 0)


def screen(written: str) -> list[str]:
    """Return the lines on the screen, with their colours. rich rewrites whole lines, no parts."""
    rows, row = [""], 0
    for token in _TOKEN.finditer(written):
        if token.group() == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif token[2] == "A":
            row = max(0, row - int(token[1] or 1))
        elif token[2] == "K":
            rows[row] = ""
        elif token[2] in ("m", None) and token.group() != "\r":
            rows[row] += token.group()
    return rows[-LINES:]


def keep_frames(states: Iterable[tuple[float, str]]) -> list[tuple[float, list[str]]]:
    """Return what was on the screen, and since when; a frame for each change."""
    frames: list[tuple[float, list[str]]] = [(0.0, [])]
    waited_s = 0.0
    for seconds, written in states:
        lines = screen(written)
        if lines == frames[-1][1]:
            continue
        at_s = seconds - waited_s
        if (longer_s := at_s - frames[-1][0] - PAUSE_S) > 0:  # nobody watches a still picture
            waited_s, at_s = waited_s + longer_s, at_s - longer_s
        if at_s - frames[-1][0] < FRAME_S and len(frames) > 1:
            frames[-1] = (frames[-1][0], lines)  # the newer one instead
        else:
            frames.append((at_s, lines))
    return frames


def draw(line: str, name: str) -> str:
    """Return one line as an SVG text, with its colours."""
    text = next(AnsiDecoder().decode(line), Text())
    parts = []
    for segment in text.render(_console()):
        style = segment.style
        fill = (
            COLOURS.get(style.color.name.removeprefix("bright_")) if style and style.color else ""
        )
        marks = f' fill="{fill}"' if fill else ""
        marks += ' opacity="0.6"' if style and style.dim else ""
        marks += ' font-weight="bold"' if style and style.bold else ""
        shown = escape(segment.text.rstrip("\n"))
        parts.append(f"<tspan{marks}>{shown}</tspan>" if marks else shown)
    return f'<text id="{name}">{"".join(parts)}</text>'


def write_svg(title: str, frames: Sequence[tuple[float, Sequence[str]]]) -> str:
    """Return the recording: each line once, and each frame as a list of lines."""
    total_s = frames[-1][0] + LAST_S
    names = {
        line: f"l{n}" for n, line in enumerate(dict.fromkeys(li for _, f in frames for li in f))
    }
    rules, groups = [], []
    for number, (at_s, lines) in enumerate(frames):
        ends_s = frames[number + 1][0] if number + 1 < len(frames) else total_s
        start, end = 100 * at_s / total_s, 100 * ends_s / total_s
        is_last = number + 1 == len(frames)
        rules.append(
            f"@keyframes f{number}{{0%{{opacity:{int(not number)}}}{start:.2f}%{{opacity:1}}"
            f"{end:.2f}%{{opacity:{int(is_last)}}}}}"
            f"#f{number}{{animation:f{number} {total_s:.1f}s step-end infinite}}"
        )
        uses = "".join(
            f'<use href="#{names[line]}" x="16" y="{64 + HEIGHT * row}"/>'
            for row, line in enumerate(lines)
        )
        groups.append(f'<g id="f{number}" opacity="{int(is_last)}">{uses}</g>')
    width, height = COLUMNS * WIDTH + 32, LINES * HEIGHT + 70
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"'
        f' role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>'
        "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#e6edf3;"
        "white-space:pre}@media(prefers-reduced-motion:no-preference){"
        + "".join(rules)
        + "}</style>\n<defs>"
        + "\n".join(draw(line, name) for line, name in names.items())
        + f'</defs>\n<rect width="100%" height="100%" rx="8" fill="#0d1117"/>'
        f'<text x="16" y="32"><tspan opacity="0.6">$</tspan> {escape(title)}</text>\n'
        + "\n".join(groups)
        + "\n</svg>\n"
    )


def _console() -> Console:
    return Console(width=COLUMNS, color_system="truecolor", force_terminal=True)


def main() -> None:
    """Record the command behind the name of the file."""
    file, *command = sys.argv[1:]
    Path(file).write_text(write_svg(" ".join(command), keep_frames(run(command))), "utf-8")


if __name__ == "__main__":
    main()
