"""The process that declares jobs for a system, as seen from here; see `systems/client.py`."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.processes import last_line


class Trouble(Exception):
    """What a system could not do, in its own words."""


class Client:
    """A client process. Errors of its methods: Trouble; after that it is of no use."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )

    def ask(self, limit_s: float, **order: Any) -> dict[str, Any]:
        """Give an order, and return the answer, if it comes in time."""
        self.begin(**order)
        return self.await_answer(limit_s)

    def begin(self, **order: Any) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Trouble(last_line(self._log)) from error

    def await_answer(self, limit_s: float) -> dict[str, Any]:
        """Return the answer to the last order."""
        answer = self.find_answer(limit_s)
        if answer is None:
            raise Trouble(f"declaring took more than {limit_s:g} s")
        return answer

    def find_answer(self, wait_s: float = 0.0) -> dict[str, Any] | None:
        """Return the answer to the last order, or None while it is not there."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], wait_s)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            raise Trouble(last_line(self._log))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Trouble(answer["error"])
        return answer

    def close(self) -> None:
        """End it. Idempotent."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()
