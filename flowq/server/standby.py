"""The guardian's standby: a shell that starts another guardian when the first one is killed.

It waits for a word through a pipe. A guardian that ends as it should sends one; the pipe of one
that was killed closes without it. The next guardian adopts the server, and has a standby of its
own. Should the server be gone as well it leaves, and the next command starts both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

SHELL = "/bin/sh"
SCRIPT = 'IFS= read -r next; read -r word || eval "exec $next"'


class Standby:
    """One standby, which runs until the guardian ends. Without a shell there is none.

    `words` are for the next guardian, which starts in the current folder, with the standard input
    of this one: a parent is noticed by it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._pipe: int | None = None

    def start(self) -> None:
        """Start it. Call once."""
        reading, self._pipe = os.pipe()
        kept = 3 if reading != 3 else 4  # where it keeps the standard input
        command = [sys.executable, "-I", "-S", sys.argv[0], *self._words]
        line = f"{' '.join(map(quote, command))} 0<&{kept} {kept}<&- 1>/dev/null\n"
        actions = [(os.POSIX_SPAWN_DUP2, 0, kept), (os.POSIX_SPAWN_DUP2, reading, 0)]
        # In a group of its own, and without the guardian's name on its command line: a kill by
        # either, which is meant for the guardian, must not reach the standby.
        with suppress(OSError):
            os.posix_spawn(
                SHELL, [SHELL, "-c", SCRIPT], os.environ, file_actions=actions, setpgroup=0
            )
        os.close(reading)
        with suppress(OSError):
            os.write(self._pipe, line.encode(errors="surrogateescape"))

    def dismiss(self) -> None:
        """Let it end. Idempotent."""
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, b"end\n")
            os.close(self._pipe)
            self._pipe = None


def quote(word: str) -> str:
    """Return a word for a line of a POSIX shell; `shlex` would be slow to import."""
    return "'" + word.replace("'", "'\\''") + "'"
