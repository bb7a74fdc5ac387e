"""A supervisor reads what a child sends in a plain form, and believes nothing of it."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_jobs
import pytest
from rq.job import Retry

import flowq
from flowq.errors import UsageError
from flowq.runtime.queue import Queue
from flowq.runtime.waiting import Wait, read_retry, write_retry
from flowq.workers import child_messages, output
from flowq.workers.child import main as child
from flowq.workers.child_messages import (
    BadMessage,
    read_kept,
    read_message,
    write_end,
    write_ends,
    write_secrets,
    write_text,
)
from flowq.workers.children import Child, Pool
from flowq.workers.messages import End, Settings, failed
from flowq.workers.output import Secrets

ENDS = [
    End(1, "finished", "turn", 1.5, 2.5, "-1", "return_value", "gASVBgA=", 3, True, '{"a":1}', "m"),
    End(2**40, "failed", "conclude", 1.25, 1764379551.123456, "500", "exc_string", "x" * 70_000),
    End(3, "stopped", "later", view="ü\ud800\n", code="ü"),
    End(4, "finished", "lost", field="retry", value="e30="),
]


def test_what_a_child_sends_arrives_as_it_was() -> None:
    written = [write_end(end) for end in ENDS]
    assert read_message(write_ends(written)) == ("ends", ENDS)
    assert read_kept(b"".join(written)) == ENDS
    for kind in ("chore", "outdated", "unfit"):
        assert read_message(write_text(kind, "why: ü")) == (kind, "why: ü")
    assert read_message(write_text("died", "-9")) == ("died", -9)
    secrets = ["a", "b\n\0 ü\udce9", "c" * 200_000]
    assert read_message(write_secrets(secrets)) == ("secrets", secrets)
    assert write_secrets(["x" * 8_000_000]) == b""
    kind, text = read_message(write_text("unfit", "x" * 1_000_000))
    assert len(text) < child_messages.MAX_TEXT_BYTES


def test_a_kept_report_that_was_cut_is_left_out_and_a_sent_one_refused() -> None:
    written = [write_end(end) for end in ENDS]
    for cut in range(1, len(written[3])):
        assert read_kept(b"".join(written)[:-cut]) == ENDS[:3]
        with pytest.raises(BadMessage):
            read_message(write_ends(written)[:-cut])


@pytest.mark.parametrize(
    "change",
    [
        {"started_at": float("nan")},
        {"ended_at": float("inf")},
        {"started_at": 1e300},
        {"ended_at": -1.0},
        {"ttl": "1 2"},
        {"ttl": "-"},
        {"ttl": "²"},
        {"ttl": "9" * 30},
        {"code": "digest\n{}"},
        {"view": "a\0b"},
    ],
)
def test_a_report_with_values_of_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_message(write_ends([write_end(ENDS[0]._replace(**change))]))


def test_bytes_of_no_form_raise_nothing_but_the_one_error() -> None:
    good = write_ends([write_end(end) for end in (ENDS[0], ENDS[2])])
    bad = [
        b"",
        b"X",
        b"S{}",
        b'S["a", 1]',
        b"S" + b"[" * 10_000,
        pickle.dumps(("ends", [])),
        b"C" * 200_000,
    ]
    bad += [
        bytes([letter]) + text for letter in b"ECOUDS" for text in (b"", b"\xc2\xb2", b"-", b"{")
    ]
    for at in range(len(good)):
        bad += [good[:at], *(good[:at] + bytes([byte]) + good[at + 1 :] for byte in (0, 7, 255))]
    for data in bad:
        for read in (read_message, read_kept):
            try:
                read(data)
            except BadMessage:
                continue


def test_an_error_of_a_child_that_is_no_packed_text_is_read_all_the_same() -> None:
    assert failed(1, "why", 0.0, 0.0).error == "why"
    for value in ("!", "AAAA", "eJw"):
        assert End(1, "failed", field="exc_string", value=value).error.isascii()


def test_a_retry_is_passed_on_in_a_plain_form() -> None:
    class Own(Retry):
        """A class of a user's."""

    for retry in (Retry(3), Own(2, [1, 2], enqueue_at_front=True), Wait("who?"), Wait()):
        read = read_retry(write_retry(retry))
        kind = Wait if isinstance(retry, Wait) else Retry
        assert type(read) is kind
        assert vars(read) == vars(retry)
    for data in (b"", b"{}", pickle.dumps(Retry(1))):
        with pytest.raises((ValueError, KeyError)):
            read_retry(data)


def test_a_result_that_no_server_takes_fails_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_END_BYTES", 1_000)
    (end,) = read_kept(child._write_end(ENDS[0]._replace(value="x" * 2_000)))
    assert end.status == "failed"
    assert end.error.startswith("the result has 0 MB, which no server accepts")


def test_nothing_in_the_supervisor_loads_a_pickle() -> None:
    # In the child's own files messages of the supervisor are read.
    workers = Path(flowq.__file__).parent / "workers"
    loading = {
        path.relative_to(workers).as_posix()
        for path in workers.rglob("*.py")
        if re.search(r"\b(pickle|marshal|shelve)\.loads?\(|\.recv\(\)", path.read_text("utf-8"))
    }
    assert loading == {"child/main.py", "processes/fork.py"}


@pytest.mark.parametrize("mode", ["warm", "fork"])
def test_a_job_that_talks_to_the_supervisor_is_failed_and_nothing_of_it_is_loaded(
    queue: Queue, drain: Callable[..., Any], mode: str, tmp_path: Path
) -> None:
    mark = str(tmp_path / "mark")
    hostile = [queue.enqueue(hostile_jobs.send_pickle, mark)]
    if mode == "warm":
        hostile.append(queue.enqueue(hostile_jobs.send_length, 2**50))
    dead = queue.enqueue(hostile_jobs.keep_pickle, mark)
    good = [queue.enqueue(hostile_jobs.nothing) for _ in range(3)]
    drain(mode=mode)
    assert not (tmp_path / "mark").exists()
    for job in hostile:
        result = job.latest_result()
        # The job may have ended before the supervisor has read what it had sent.
        assert job.get_status() in ("failed", "finished")
        assert result is not None
        assert "not a message of flowq's" in (result.exc_string or "not a message of flowq's")
    assert "exit code 7" in str(dead.latest_result().exc_string)  # type: ignore[union-attr]
    assert {job.get_status() for job in good} == {"finished"}
    assert not queue.started_job_registry.get_job_ids(cleanup=False)


def test_only_a_child_without_jobs_may_end_its_worker_as_unfit() -> None:
    nothing: Any = None
    pool = Pool(1, "warm", Settings("w", nothing), None)
    ours, theirs = multiprocessing.Pipe()
    child = Child(nothing, ours, nothing, nothing)
    theirs.send_bytes(write_text("unfit", "cannot preload shop"))
    with pytest.raises(UsageError, match="cannot preload"):
        pool.receive(child)
    for kind, text in (("ready", ""), ("unfit", "cannot preload shop")):
        theirs.send_bytes(write_text(kind, text))
        pool.receive(child)


def test_what_a_child_says_cannot_move_the_cursor_of_a_terminal() -> None:
    nothing: Any = None
    pool = Pool(1, "warm", Settings("w", nothing), None)
    ours, theirs = multiprocessing.Pipe()
    child = Child(nothing, ours, nothing, nothing)
    theirs.send_bytes(write_text("unfit", "cannot preload \x1b[2Jshop"))
    with pytest.raises(UsageError, match=r"cannot preload \\x1b\[2Jshop"):
        pool.receive(child)


def test_the_secrets_of_a_child_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_SECRETS_COUNT", 2)
    secrets = Secrets()
    assert secrets.add(["first secret", "second secret"])
    assert not secrets.add(["third secret"])
    assert secrets.count == 2
    monkeypatch.setattr(output, "MAX_SECRETS", 20)
    assert not Secrets().add(["x" * 21])
