"""The report about the rooms counts what it says."""

from __future__ import annotations

from pathlib import Path

from tests.house.report import describe, rooms


def test_it_counts_explanation_and_private_functions_that_are_called_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""One."""\n\n\ndef _b():  # two\n    return 1\n\n\n_b()\n')
    (tmp_path / "c.py").write_text("def _d():\n    pass\n\n\n_d()\n_d()\n")
    room = describe(sorted(tmp_path.iterdir()))
    assert (room.files, room.lines, room.functions) == (2, 14, 2)
    assert room.called_once == ["a:_b"]
    assert room.explanation == 2 / 14


def test_each_file_is_in_a_room() -> None:
    found = rooms()
    assert {"(modules)", "declare", "runtime", "workers"} <= found.keys()
    assert describe(found["workers"]).functions
