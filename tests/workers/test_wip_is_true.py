"""What is listed as being executed, beside the processes that execute it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import redis

from flowq.runtime.wip import list_executing, list_workers
from tests.workers.wip_samples import Sampler

SLACK_S = 0.5
"""How old a difference may get, beyond what the looks themselves were late."""


def test_what_is_listed_is_what_really_runs_also_when_a_worker_is_killed(
    connection: redis.Redis,
    redis_url: str,
    mode: str,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    sampler = Sampler(redis_url, connection, mode, tmp_path)
    try:
        wait_until(lambda: len(list_workers(connection)) == 2)
        sampler.enqueue_long(3)  # so each of the two has one, and the killed one loses it
        wait_until(lambda: len(list_executing(connection)) == 3)
        wait_until(lambda: sampler.counts() == (3, 0))
        sampler.enqueue(60, 0.8, random.Random(mode))
        wait_until(lambda: {each.state for each in list_workers(connection)} == {"busy"})
        (first, _) = list_workers(connection)
        assert (first.name, first.mode, first.pid) == ("first", mode, sampler.first.pid)
        assert first.concurrency == 2
        # However slow the machine is: short jobs have ended before the death, and it was noticed.
        sampler.look_until(lambda it: len(it.samples) >= 25 and it.counts()[1] > 0, 0.02)
        sampler.kill(sampler.first)
        sampler.look_until(lambda it: len(it.samples) >= 60 and it.has_lost(), 0.02)
    finally:
        sampler.end()
    found = sampler.compare(SLACK_S + sampler.late_s)
    assert found.listed > 50
    assert found.lost > 0, "between its death and the recovery"
    assert (found.surplus, found.missing, found.not_lost, found.wrong_pids) == ([], [], [], [])
