"""Workers of two versions side by side, as during an upgrade."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import redis
import worker_jobs

from flowq.runtime import keys, scripts
from flowq.runtime.queue import Queue

HERE = Path(__file__).parent
Wait = Callable[..., None]

NEWER = """
import hashlib, sys
from flowq.runtime import scripts
for script in vars(scripts).values():
    if isinstance(script, scripts.Script):
        script.source += "\\n-- of a newer version"
        script.digest = hashlib.sha1(script.source.encode()).hexdigest()
    if isinstance(script, scripts.HotScript):
        newer = script.function + "_newer"
        script.library = script.library.replace(script.function, newer)
        script.function = newer
from flowq.workers import main
main(url=sys.argv[1], mode="warm", name="newer", paths=[sys.argv[2]], quiet=True)
"""


def test_workers_with_different_scripts_work_off_one_graph(
    redis_url: str,
    connection: redis.Redis,
    start_worker: Callable[..., subprocess.Popen[bytes]],
    wait_until: Wait,
    tmp_path: Path,
) -> None:
    queue = Queue(connection=connection)
    newer = subprocess.Popen([sys.executable, "-c", NEWER, redis_url, str(HERE)])
    try:
        start_worker(name="older")
        wait_until(lambda: connection.scard("rq:workers") == 2, 20)
        go = tmp_path / "go"
        report = queue.enqueue(worker_jobs.get_pid, deferred=True)
        blockers = []
        for number in range(40):
            begun = str(tmp_path / f"began-{number}")
            call = (worker_jobs.touch_and_wait, begun, str(go)) if number < 2 else (sum, [number])
            blockers.append(queue.enqueue(*call, blocked_by=report))
        report.release()
        # Both must be at it before the others go on.
        wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2, 20)
        at_work = {connection.hget(blocker.key, "worker_name") for blocker in blockers[:2]}
        assert at_work == {b"older", b"newer"}
        go.touch()
        wait_until(lambda: report.get_status(refresh=True) == "finished", 20)
        loaded = {library[1].decode() for library in connection.function_list()}
        assert {scripts.TURN.function, f"{scripts.TURN.function}_newer"} <= loaded
        assert [blocker.return_value() for blocker in blockers[2:]] == list(range(2, 40))
        assert connection.lrange(f"rq:deferred:{report.id}", 0, -1) == [
            blocker.id.encode() for blocker in blockers
        ]
    finally:
        newer.kill()
        newer.wait()


def test_what_a_newer_version_notes_in_a_job_is_left_alone(
    connection: redis.Redis, work_off: Callable[..., object]
) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(worker_jobs.add, 1, 2)
    connection.hset(job.key, "flowq_newer", "yes")
    work_off()
    assert job.return_value() == 3
    assert connection.hget(job.key, "flowq_newer") == b"yes"


def test_the_keys_of_another_version_are_not_touched(
    connection: redis.Redis, work_off: Callable[..., object]
) -> None:
    other = f"{keys.PREFIX}:flowq:{keys.VERSION + 1}:todo"
    connection.zadd(other, {"fancy:work": 1})
    Queue(connection=connection).enqueue(worker_jobs.nothing)
    work_off()
    assert connection.zrange(other, 0, -1) == [b"fancy:work"]
