"""What the workers' tests run. Importable by the children through `paths=[<this folder>]`."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rq import Retry, get_current_job
from rq.timeouts import JobTimeoutException

import flowq
from flowq import server
from flowq.runtime import scripts


def nothing() -> None:
    """Do nothing."""


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def fail(text: str = "no") -> None:
    """Raise."""
    raise ValueError(text)


def fail_twice(key: str) -> None:
    """Note when each attempt starts, and raise in the first two."""
    connection = get_current_job().connection
    if connection.rpush(key, time.time()) < 3:
        raise ValueError("not yet")


def fail_at_first(path: str, value: Any) -> Any:
    """Raise, unless it did so before."""
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("not yet")
    return value


def sleep(seconds: float) -> float:
    """Take that long."""
    time.sleep(seconds)
    return seconds


def sleep_with(seconds: float, _value: bytes) -> None:
    """Take that long, and something to carry."""
    time.sleep(seconds)


def sleep_with_default_alarm(seconds: float) -> None:
    """Take that long, without Python's handler of the signal of the alarm."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    time.sleep(seconds)


def touch(path: str) -> None:
    """Say so with a file."""
    Path(path).touch()


def append_id(path: str) -> None:
    """Write this job's id into a file, without asking Redis."""
    with Path(path).open("a") as file:
        file.write(f"{os.environ['RQ_JOB_ID']}\n")


def append_id_slowly(path: str, seconds: float) -> None:
    """Write this job's id into a file at once, and say with another one that it has ended."""
    append_id(path)
    time.sleep(seconds)
    Path(f"{path}.ended").touch()


def get_dict() -> dict[str, int]:
    """Return something that has to be pickled."""
    return {"a": 1}


def on_success(job: Any, connection: Any, result: Any) -> None:
    """Leave a mark."""
    connection.rpush("callbacks", f"success {job.id}")


def on_failure(job: Any, connection: Any, *error: Any) -> None:
    """Leave a mark."""
    connection.rpush("callbacks", f"failure {job.id}")


def return_retry() -> Retry:
    """Ask to be run again, always."""
    get_current_job().connection.incr("runs")
    return Retry(max=2)


# Jobs that behave badly -----------------------------------------------------------------------


def kill_oneself() -> None:
    """Die of a signal."""
    print("the last words")
    os.kill(os.getpid(), signal.SIGKILL)


def exit_hard(code: int = 3) -> None:
    """End the process."""
    os._exit(code)


def crash() -> None:
    """Read address 0."""
    faulthandler.disable()  # pytest's would tell the whole story on the terminal
    ctypes.string_at(0)


def exit_softly() -> None:
    """Raise SystemExit."""
    sys.exit(7)


def interrupt() -> None:
    """Raise what is no Exception."""
    raise KeyboardInterrupt


def return_lambda() -> Any:
    """Return what cannot be pickled."""
    return lambda: None


def print_much(megabytes: int) -> None:
    """Write that much to descriptor 1, past Python."""
    for _ in range(megabytes):
        os.write(1, b"x" * 1_000_000)
    os.write(1, b"the end")


def take_descriptor(path: str) -> None:
    """Have a file of our own where the child has opened the one for our output."""
    [taken] = [
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if int(link.name) > 2 and os.path.realpath(link).endswith(f"child-{os.getpid()}.out")
    ]
    print("some output")
    ours = os.open(path, os.O_RDWR)
    os.dup2(ours, taken)
    os.write(taken, b"written")


def leave_thread() -> int:
    """Return while a thread goes on; tell the process."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


def get_pid() -> int:
    """Tell the process."""
    return os.getpid()


def scripts_not_put_together() -> list[str]:
    """Return the Lua scripts whose text this process would have to put together first."""
    return [script.name for script in scripts.ALL if "source" not in vars(script)]


def swallow_timeout() -> None:
    """Go on when told to end."""
    while True:
        with suppress(BaseException):
            time.sleep(60)


def loop_in_python() -> None:
    """Loop."""
    while True:
        pass


def loop_in_c() -> int:
    """Sit in C code for hours, where no exception comes through."""
    return pow(7, 10**10)


def ignore_sigterm(path: str) -> None:
    """Start a process that ignores SIGTERM and inherits our group, write down its id, and hang."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(str(child.pid))
    swallow_timeout()


def fork_and_return() -> str:
    """Fork, and come back twice."""
    os.fork()
    return "back"


def change_folder() -> str:
    """Change the working folder; return where we were."""
    before = str(Path.cwd())
    os.chdir("/")
    return before


async def wait_a_little() -> str:
    """Be a coroutine."""
    await asyncio.sleep(0)
    return "waited"


def count_run(key: str) -> int:
    """Count how often this ran."""
    return int(get_current_job().connection.incr(key))


def hang_once(key: str) -> str:
    """Hang in the first run only."""
    if count_run(key) == 1:
        time.sleep(600)
    return "done"


def die_always(key: str) -> None:
    """Count, and take the whole worker down (its warm children are children of the supervisor)."""
    count_run(key)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def save_progress() -> dict[str, Any]:
    """Use what RQ offers inside a job."""
    job = get_current_job()
    job.meta["progress"] = 50
    job.save_meta()
    return {"id": job.id, "environment": os.environ["RQ_JOB_ID"]}


def exit_if(condition: bool) -> None:
    """Count the run of this job; end the process if so."""
    job = get_current_job()
    job.connection.incr(f"run:{job.id}")
    if condition:
        os._exit(9)


def tell_pid(key: str) -> None:
    """Write down the process id, and hang."""
    get_current_job().connection.set(key, os.getpid())
    time.sleep(600)


def tell_pid_once(key: str) -> str:
    """Write down the process id and hang, in the first run only."""
    if get_current_job().connection.set(key, os.getpid(), nx=True):
        time.sleep(600)
    return "done"


def append_line(path: str) -> None:
    """Say with a line in a file that this job has run."""
    with Path(path).open("a") as file:
        file.write(f"{os.environ['RQ_JOB_ID']}\n")


def wait_and_count(began: str, go: str) -> None:
    """Say that we have begun; when we may, ask the server something."""
    touch_and_wait(began, go)
    count_run("runs")


def count_own_run() -> None:
    """Say that this job has run."""
    job = get_current_job()
    job.connection.sadd("ran", job.id)
    job.connection.incr("total")


def on_stopped(job: Any, connection: Any) -> None:
    """Leave a mark."""
    connection.rpush("callbacks", f"stopped {job.id}")


def fail_once(key: str) -> None:
    """Raise in the first run only."""
    if count_run(key) == 1:
        raise ValueError("the first time")


def touch_and_wait(began: str, go: str) -> None:
    """Say that we have begun; return when we may."""
    Path(began).touch()
    while not Path(go).exists():
        time.sleep(0.01)


def end_server(folder: str) -> None:
    """End the embedded server of a folder, for good."""
    server.ensure(Path(folder)).stop()


def end_server_and_worker(folder: str, ended: str) -> None:
    """End the server, tell the worker to end, and take a little longer than that."""
    end_server(folder)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1)
    Path(ended).touch()


def interrupt_worker(times: int) -> None:
    """Press Ctrl-C that often, for the worker alone, and take a little longer."""
    for _ in range(times):
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.4)  # one that follows at once is the first one again


def work_a_little() -> None:
    """Take some milliseconds, and say that this job has run."""
    time.sleep(0.005)
    count_own_run()


def measure_oneself(n: int) -> float:
    """Return how long it took: some take longer than the others."""
    began_s = time.monotonic()
    if n % 40 == 0:
        time.sleep(0.005)
    return time.monotonic() - began_s


def note(text: str) -> None:
    """Write it down."""
    get_current_job().connection.rpush("notes", text)


def leave_orphans(count: int) -> None:
    """Leave processes behind that end a moment later, and that nobody waits for."""
    for _ in range(count):
        subprocess.run(["sh", "-c", "(sleep 0.05 &)"], check=True)


def list_orphans() -> list[str]:
    """Return the states of the processes that process 1 has inherited, `Z` for those that ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            state, parent, *_ = rest.split()
            if parent == "1" and name in ("sh", "sleep"):
                found.append(state)
    return found


def wait_for_others(key: str, count: int) -> None:
    """Return when so many jobs are being executed at this moment."""
    connection = get_current_job().connection
    connection.incr(key)
    while int(connection.get(key)) < count:
        time.sleep(0.01)


def check_sum(count: int) -> int:
    """Return how often the jobs before us have run; that must have been so often."""
    found = int(get_current_job().connection.get("sum"))
    assert found == count
    return found


def echo(value: bytes) -> bytes:
    """Return the argument."""
    return value


def print_around(before: str, go: str, after: str) -> None:
    """Print, wait until we may go on, print again."""
    os.write(1, before.encode())
    while not Path(go).exists():
        time.sleep(0.01)
    os.write(1, after.encode())


def print_wait_die(text: str, go: str) -> None:
    """Print, wait until we may go on, print again, and die of a signal."""
    print_around(text, go, "the last words")
    os.kill(os.getpid(), signal.SIGKILL)


def chunks_of(seed: int) -> list[bytes]:
    """Return what `print_chunks` prints."""
    chance = random.Random(seed)
    sizes = [chance.choice((1, 7, 4_096, 30_000, 200_000)) for _ in range(chance.randrange(1, 12))]
    return [b"%d" % (index % 10) * size for index, size in enumerate(sizes)]


def print_chunks(seed: int) -> None:
    """Print much, with pauses; every seventh dies of it."""
    for chunk in chunks_of(seed):
        os.write(1, chunk)
        time.sleep(0.004)
    if seed % 7 == 0:
        os.kill(os.getpid(), signal.SIGKILL)


# For the tests themselves -----------------------------------------------------------------------


def make_end(number: int) -> Any:
    """Return the end of a job without a result."""
    from flowq.workers.messages import End

    return End(number, "finished", started_at=time.time(), ended_at=time.time(), ttl="500")


def _is_first(path: str) -> bool:
    is_first = not Path(path).exists()
    Path(path).touch()
    return is_first


def die_once(path: str, code: int | None = None) -> str:
    """End the process of the job the first time: by signal 9, or with an exit code."""
    if _is_first(path):
        if code is not None:
            os._exit(code)
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def raise_timeout_once(path: str) -> str:
    """Raise what RQ raises where a job takes too long, the first time."""
    if _is_first(path):
        raise JobTimeoutException("too long")
    return "in time"


def read_variables() -> dict[str, str]:
    """Return what the job is told about itself."""
    names = ("FLOWQ_RUN", "FLOWQ_JOB", "FLOWQ_ITEM", "FLOWQ_ATTEMPT")
    return {name: os.environ[name] for name in names if name in os.environ}


def die_before_release() -> None:
    """Prepare this process to be killed when it has added jobs, and has not released them."""
    from flowq.runtime import groups

    groups.release_added = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


def report_progress(until: int, wait_s: float = 0.0) -> None:
    """Report its progress step by step, then wait."""
    for done in range(until + 1):
        flowq.progress(done, until, f"step {done}")
    time.sleep(wait_s)


def report_and_die(text: str) -> None:
    """Report its progress and be killed."""
    flowq.progress(3, 10, text)
    os.kill(os.getpid(), signal.SIGKILL)


def report_at_first(key: str, go: str) -> None:
    """Report its progress and fail; the second time wait without a report."""
    if _is_first(key):
        flowq.progress(7, 10)
        raise ValueError("again")
    while not Path(go).exists():
        time.sleep(0.01)


def report_text(text: str) -> None:
    """Report a message."""
    flowq.progress(1, message=text)


def report_from_threads() -> None:
    """Report its progress from a thread."""
    thread = threading.Thread(target=flowq.progress, args=(1, 2, "from a thread"))
    thread.start()
    thread.join()


def report_until_interrupted(times: int) -> None:
    """Report in loops, each of which is interrupted like a job that exceeds its timeout."""

    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGVTALRM, interrupt)
    for _ in range(times):
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.005)
        try:
            while True:
                flowq.progress(1, 2, "again and again")
        except Interrupted:
            continue
    signal.signal(signal.SIGVTALRM, before)


def kill_processes_that_report(times: int) -> None:
    """Start processes that report in a loop, and kill them."""
    for _ in range(times):
        pid = os.fork()
        while pid == 0:
            flowq.progress(1, 2, "again and again")
        time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def report_after_setting(name: str, value: str) -> None:
    """Report, after a field of the job's hash was set."""
    job = get_current_job()
    assert job is not None
    job.connection.hset(job.key, name, value)
    flowq.progress(1, 2)


def count_calls_of_a_report() -> int:
    """Return how many functions a report calls."""
    calls = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        flowq.progress(3, 10, "a message")
    finally:
        sys.setprofile(None)
    return calls


def report_and_wait(go: str) -> None:
    """Report its progress, and wait."""
    flowq.progress(1, 4, "first of four")
    while not Path(go).exists():
        time.sleep(0.01)
