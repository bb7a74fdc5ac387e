"""The embedded server and its guardian, as real processes."""

from __future__ import annotations

from pathlib import Path

from flowq import server


def test_a_started_server_answers_and_is_reused(tmp_path: Path) -> None:
    first = server.ensure(tmp_path, idle_s=5)
    try:
        first.connect().set("a", 1)
        assert server.ensure(tmp_path) == first
        assert first.connect().get("a") == b"1"
    finally:
        first.stop()
