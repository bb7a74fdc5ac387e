"""Jobs that die, hang, print and misbehave: what it costs the job, and nobody else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import rq
import worker_jobs
from rq.job import Job as RQJob
from rq.job import JobStatus

from flowq.errors import FlowqError
from flowq.runtime import scripts
from flowq.runtime.attempts import Failure
from flowq.runtime.queue import Queue
from flowq.workers.address import address_of
from flowq.workers.child.main import FAILED, live
from flowq.workers.children import Child, Pool
from flowq.workers.claims import Claim
from flowq.workers.messages import Settings
from flowq.workers.processes import is_kill
from flowq.workers.scratch_folder import ScratchFolder
from flowq.workers.shared_state import SharedState
from tests.runtime.server_processes import is_alive

Drain = Callable[..., Any]


def error_of(job: RQJob) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (worker_jobs.kill_oneself, "signal 9 (SIGKILL)"),
        (worker_jobs.exit_hard, "exit code 3"),
        (worker_jobs.crash, "signal 11 (SIGSEGV)"),
        (worker_jobs.exit_softly, "SystemExit: 7"),
        (worker_jobs.interrupt, "KeyboardInterrupt"),
    ],
)
def test_only_the_job_that_ends_its_process_fails(
    queue: Queue, drain: Drain, mode: str, function: Any, words: str
) -> None:
    before = queue.enqueue(worker_jobs.add, 1, 2)
    bad = queue.enqueue(function)
    after = queue.enqueue(worker_jobs.add, 3, 4)
    drain(mode=mode)
    assert bad.get_status() is JobStatus.FAILED
    assert words in error_of(bad)
    assert [before.return_value(), after.return_value()] == [3, 7]
    assert not queue.started_job_registry.get_job_ids(cleanup=False)


def test_children_that_cannot_begin_say_why_and_end_the_worker(
    queue: Queue,
    drain: Drain,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def make_and_lose() -> ScratchFolder:
        folder = ScratchFolder()
        shutil.rmtree(folder.path)
        return folder

    queue.enqueue(worker_jobs.nothing)
    monkeypatch.setattr("flowq.workers.worker.ScratchFolder", make_and_lose)
    with pytest.raises(FlowqError, match="before they can take a job"):
        drain(mode=mode)
    assert "FileNotFoundError" in capfd.readouterr().err


def test_an_error_with_text_that_is_not_utf8_is_kept(queue: Queue, drain: Drain, mode: str) -> None:
    job = queue.enqueue(worker_jobs.fail, "no caf\udce9")
    concluded = queue.enqueue(worker_jobs.fail, "no caf\udce9", retry=rq.Retry(max=1))
    drain(mode=mode)
    assert r"ValueError: no caf\xe9" in error_of(job)
    assert r"ValueError: no caf\xe9" in error_of(concluded)


def test_the_last_output_is_in_the_error(queue: Queue, drain: Drain, mode: str) -> None:
    bad = queue.enqueue(worker_jobs.kill_oneself)
    drain(mode=mode)
    assert "the last words" in error_of(bad)


def test_retry_decides_about_a_job_that_was_killed(queue: Queue, drain: Drain) -> None:
    bad = queue.enqueue(worker_jobs.exit_hard, retry=rq.Retry(max=2))
    drain()
    assert bad.get_status() is JobStatus.FAILED
    assert bad.retries_left is not None
    assert bad.get_meta() == {}
    bad.refresh()
    assert bad.retries_left == 0


def test_in_a_batch_only_the_job_that_was_executing_is_charged(queue: Queue, drain: Drain) -> None:
    # All of one kind, so that they are handed over together once it is known to be short.
    jobs = [queue.enqueue(worker_jobs.exit_if, number == 150) for number in range(200)]
    drain()
    statuses = [job.get_status() for job in jobs]
    assert statuses[150] is JobStatus.FAILED
    assert statuses.count(JobStatus.FINISHED) == 199
    runs = [int(queue.connection.get(f"run:{job.id}") or 0) for job in jobs]
    assert runs == [1] * 200


@pytest.mark.parametrize("function", [worker_jobs.swallow_timeout, worker_jobs.loop_in_c])
def test_a_job_that_does_not_mind_its_timeout_is_killed(
    queue: Queue, drain: Drain, mode: str, function: Any
) -> None:
    bad = queue.enqueue(function, job_timeout=1)
    good = queue.enqueue(worker_jobs.add, 1, 2)
    drain(mode=mode, timeout_grace_s=0.3)
    assert bad.get_status() is JobStatus.FAILED
    assert "JobTimeoutException" in error_of(bad)
    assert "1 seconds" in error_of(bad)
    assert good.return_value() == 3


def test_the_error_of_a_timeout_is_whole_whatever_its_number() -> None:
    claim = Claim(1, "job", "execution", "default", [b"data", b""], "kind", 1.5)
    how = "Task exceeded maximum timeout value (1.5 seconds); it was killed"
    end = claim.describe_death(how, "last words.", 2.0, -9, is_late=True)
    failure = Failure.read(end.failure)
    assert failure is not None
    assert failure.error == f"JobTimeoutException: {how}"
    assert "rq.timeouts:JobTimeoutException" in failure.names


def test_a_timeout_is_raised_in_the_job_first(queue: Queue, drain: Drain, mode: str) -> None:
    slow = queue.enqueue(worker_jobs.sleep, 60, job_timeout=1)
    drain(mode=mode)
    assert slow.get_status() is JobStatus.FAILED
    assert "time.sleep(seconds)" in error_of(slow)
    assert "rq.timeouts.JobTimeoutException: Task exceeded maximum timeout" in error_of(slow)


def test_what_a_killed_job_has_started_dies_with_it(
    queue: Queue, drain: Drain, mode: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    path = tmp_path / "pid"
    queue.enqueue(worker_jobs.ignore_sigterm, str(path), job_timeout=1)
    drain(mode=mode, timeout_grace_s=0.3)
    pid = int(path.read_text())
    wait_until(lambda: not is_alive(pid))


def test_a_result_that_cannot_be_pickled_becomes_a_text(queue: Queue, drain: Drain) -> None:
    job = queue.enqueue(worker_jobs.return_lambda)
    drain()
    assert job.get_status() is JobStatus.FINISHED
    assert job.return_value() == "Unserializable return value"


def test_output_of_a_job_of_no_run_goes_to_the_workers_own_output_and_stays_bounded(
    queue: Queue, drain: Drain, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = queue.enqueue(worker_jobs.print_much, 100)
    queue.enqueue(worker_jobs.nothing)
    drain(mode=mode)
    text = capfd.readouterr().out
    assert loud.get_status() is JobStatus.FINISHED
    assert len(text) < 1_100_000
    assert text.endswith("the end")
    assert "bytes left out" in text


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_file_in_the_place_of_the_output_is_not_emptied(
    queue: Queue, drain: Drain, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    taking = queue.enqueue(worker_jobs.take_descriptor, str(path))
    after = queue.enqueue(worker_jobs.print_much, 0)
    drain()
    assert taking.get_status() is after.get_status() is JobStatus.FINISHED
    assert path.read_text() == "written" + "precious"[len("written") :]
    assert capfd.readouterr().out.endswith("the end")


def test_a_child_in_which_threads_were_left_is_replaced(queue: Queue, drain: Drain) -> None:
    first = queue.enqueue(worker_jobs.leave_thread)
    second = queue.enqueue(worker_jobs.get_pid)
    third = queue.enqueue(worker_jobs.get_pid)
    drain()
    assert first.return_value() != second.return_value() == third.return_value()


def test_a_thread_that_a_module_starts_when_it_is_imported_may_stay(
    queue: Queue, drain: Drain
) -> None:
    jobs = [queue.enqueue("threading_jobs.get_pid") for _ in range(3)]
    drain()
    assert len({job.return_value() for job in jobs}) == 1


def test_fork_mode_has_a_process_for_each_job(queue: Queue, drain: Drain) -> None:
    jobs = [queue.enqueue(worker_jobs.get_pid) for _ in range(3)]
    drain(mode="fork")
    pids = {job.return_value() for job in jobs}
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_a_process_for_one_job_finds_the_scripts_put_together(
    queue: Queue, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script in scripts.ALL:
        for name in ("source", "digest", "function", "library"):
            monkeypatch.delitem(vars(script), name, raising=False)
    missing = queue.enqueue(worker_jobs.scripts_not_put_together)
    drain(mode="fork")
    assert missing.return_value() == []


def test_a_child_is_replaced_after_its_number_of_jobs(queue: Queue, drain: Drain) -> None:
    jobs = [queue.enqueue(worker_jobs.get_pid) for _ in range(6)]
    drain(max_jobs_per_child=2)
    pids = [job.return_value() for job in jobs]
    assert pids[::2] == pids[1::2]
    assert len(set(pids)) == 3


def test_a_copy_that_a_job_has_forked_does_not_work_on(queue: Queue, drain: Drain) -> None:
    job = queue.enqueue(worker_jobs.fork_and_return)
    others = [queue.enqueue(worker_jobs.count_run, "runs") for _ in range(20)]
    drain()
    assert job.return_value() == "back"
    assert sorted(other.return_value() for other in others) == list(range(1, 21))


def test_a_job_does_not_inherit_the_folder_of_the_one_before(queue: Queue, drain: Drain) -> None:
    jobs = [queue.enqueue(worker_jobs.change_folder) for _ in range(2)]
    drain()
    assert [job.return_value() for job in jobs] == [str(Path.cwd())] * 2


def test_coroutines_meta_and_the_current_job_work(queue: Queue, drain: Drain, mode: str) -> None:
    coroutine = queue.enqueue(worker_jobs.wait_a_little)
    progress = queue.enqueue(worker_jobs.save_progress)
    drain(mode=mode)
    assert coroutine.return_value() == "waited"
    assert progress.return_value() == {"id": progress.id, "environment": progress.id}
    assert progress.get_meta() == {"progress": 50}


def test_children_that_are_killed_while_they_wait_are_replaced_as_often_as_it_takes(
    mode: str,
    wait_until: Callable[..., None],
    connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("YOUNG_S", "PAUSE_S"):
        monkeypatch.setattr(f"flowq.workers.restarts.{name}", 1000.0)
    pool = _pool(mode, connection)
    for _ in range(8):

        def has_begun() -> bool:
            pool.fill()
            return any(child.shared.is_ready for child in pool.children)

        wait_until(has_begun)
        [child] = pool.children
        child.process.kill()
        while pool.children:  # what it said before is received first
            pool.receive(child)
        pool.fill()
        assert not pool.children, "it does not spend its time on hiring"
        pool.restarts.next_at = 0.0
    pool.close()


def test_children_that_are_killed_before_they_are_ready_are_replaced_as_often_as_it_takes(
    mode: str, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.PAUSE_S", 0.0)
    pool = _pool(mode, connection)
    killed_early = 0
    for _ in range(100):
        pool.fill()
        [child] = pool.children
        child.process.kill()
        while pool.children:  # what it said before is received first
            pool.receive(child)
        killed_early += not child.shared.is_ready
        if killed_early == 8:
            break
    assert killed_early == 8
    pool.close()


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that kills each process that imports it."""
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "too_large.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "too_large"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signals")
def test_the_pauses_between_children_that_are_killed_before_they_are_ready_grow_to_a_limit(
    connection: redis.Redis, killer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.PAUSE_S", 1000.0)
    monkeypatch.setattr("flowq.workers.restarts.MAX_PAUSE_S", 3000.0)
    pool = _pool("warm", connection, preload=(killer,))
    pauses = []
    for _ in range(4):
        pool.restarts.next_at = 0.0
        pool.fill()
        pool.receive(pool.children[0])
        pool.fill()
        assert not pool.children
        pauses.append(round((pool.restarts.next_at - time.monotonic()) / 100))
    assert pauses == [10, 20, 30, 30]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signals")
def test_a_worker_gives_up_when_preloading_kills_its_children_for_a_long_time(
    queue: Queue,
    drain: Drain,
    mode: str,
    killer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.PAUSE_S", 0.0)
    monkeypatch.setattr("flowq.workers.restarts.MAX_KILLS", 3)
    monkeypatch.setattr("flowq.workers.restarts.MAX_KILLED_S", 0.0)
    job = queue.enqueue(worker_jobs.nothing)
    message = r"3 children in a row were killed before they could .* and --preload"
    with pytest.raises(FlowqError, match=message) as info:
        drain(mode=mode, preload=[killer])
    assert info.value.exit_code == 1
    assert job.get_status() is JobStatus.QUEUED


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signals")
def test_kills_count_neither_for_a_short_time_nor_beside_a_child_that_is_ready(
    connection: redis.Redis,
    killer: str,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.PAUSE_S", 0.0)
    monkeypatch.setattr("flowq.workers.restarts.MAX_KILLS", 1)
    pool = _pool("warm", connection, preload=(killer,))
    for _ in range(5):
        pool.fill()
        pool.receive(pool.children[0])
    pool.settings = Settings("w", address_of(connection))
    pool.fill()
    wait_until(lambda: pool.children[0].shared.is_ready)
    monkeypatch.setattr("flowq.workers.restarts.MAX_KILLED_S", 0.0)
    pool.size = 2
    pool.fill()
    assert len(pool.children) == 2
    pool.close()


def test_what_ends_a_process_from_outside_is_told_from_what_it_does_itself() -> None:
    kills = [each for each in signal.Signals if is_kill(-each)]
    assert [each.name for each in kills] == ["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"]
    assert not any(map(is_kill, (0, 1, 9, 137, 255)))


def test_on_windows_a_killed_child_is_told_from_one_that_fails_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "killpg")
    assert is_kill(1)
    assert not any(map(is_kill, (0, FAILED, 3, 255)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_child_that_fails_by_itself_has_an_exit_code_of_its_own() -> None:
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        live(lambda: int("no number"))  # type: ignore[arg-type, return-value]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == FAILED


@pytest.mark.parametrize("young_s", [5.0, 0.0])
def test_a_worker_whose_children_cannot_begin_gives_up_however_long_they_took(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch, young_s: float
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.YOUNG_S", young_s)
    pool = _pool("multiprocessing", connection, exception_handlers=(Bomb(),))

    def hire_again_and_again() -> None:
        for _ in range(9):
            pool.fill()
            pool.receive(pool.children[0])

    with pytest.raises(FlowqError, match="before they can take a job"):
        hire_again_and_again()


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_a_child_that_leaves_messages_unread_ends_as_it_ends_itself(
    connection: redis.Redis,
) -> None:
    from flowq.workers.processes.fork import Forked

    pool = _pool("warm", connection)
    ours, theirs = multiprocessing.Pipe()
    _, lifeline = multiprocessing.Pipe(duplex=False)
    shared = SharedState(multiprocessing.get_context("fork"))

    def become_another_program() -> None:
        theirs.recv_bytes()
        os.execv("/bin/sh", ["sh", "-c", "sleep 0.3; exit 5"])

    child = Child(Forked(become_another_program), ours, lifeline, shared)
    theirs.close()
    claim = Claim(1, "job", "execution", "default", [b"data", b""], "kind", None)
    child.claims[1] = claim
    pool.children.append(child)
    shared.allow(1, 2)
    assert shared.begin(1, child.process.pid)
    ours.send_bytes(b"read")
    ours.send_bytes(b"unread")
    pool.receive(child)
    assert pool.ends.popleft() is claim
    how = "The process of the job ended unexpectedly: exit code 5"
    assert claim.end.failure == Failure(exit_code=5, error=how).write()


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def _pool(mode: str, connection: redis.Redis, **settings: Any) -> Pool:
    return Pool(1, mode, Settings("w", address_of(connection), **settings), None)  # type: ignore[arg-type]
