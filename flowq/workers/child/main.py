"""The main loop of a child: tasks in, ends out, until the channel closes.

Messages from the supervisor are pickled tuples: ("run", [Task, …], is_last), ("conclude", Task,
End) and ("chore", name, arguments). The child sends (child_messages.py) "ready" before its first
job, ends, several in one message, "chore" when it has done one, "outdated" with a file before it
ends without beginning what it was given, "unfit" with the reason when it cannot preload
something, and "secrets" with a list as JSON before users' code has them; a fork server (fork.py)
adds "died" with an exit code.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from flowq.runtime import masking, unpickling
from flowq.runtime.connections import describe, is_passing
from flowq.workers.child import timeouts
from flowq.workers.child.execute import Executor
from flowq.workers.child.rq_work import RQWork
from flowq.workers.child.sources import Sources
from flowq.workers.child_messages import write_end, write_ends, write_secrets, write_text
from flowq.workers.messages import End, Settings, Task, failed
from flowq.workers.output import Capture, open_stream
from flowq.workers.shared_state import SharedState

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

log = logging.getLogger("rq.worker")


FLUSH_S = 0.004
"""How long the end of a short job may wait for others, when more jobs are at hand."""

FLUSH_COUNT = 32

MAX_END_BYTES = 512 * 2**20
"""Of one end: Redis takes no longer argument."""


class Outbox:
    """Sends a child's messages. Ends of short jobs wait in the shared state, and go together."""

    def __init__(self, channel: Connection, shared: SharedState) -> None:
        self._channel = channel
        self._shared = shared
        self._ends: list[bytes] = []
        self._flushed_at = time.monotonic()

    @property
    def count(self) -> int:
        """How many ends are not sent yet."""
        return len(self._ends)

    def add(self, end: End) -> None:
        """Send an end, soon."""
        written = _write_end(end)
        self._ends.append(written)
        is_kept = self._shared.keep(written)
        is_late = time.monotonic() - self._flushed_at > FLUSH_S
        if is_late or not is_kept or len(self._ends) >= FLUSH_COUNT:
            self.flush()

    def flush(self, last: End | None = None) -> None:
        """Send what is not sent yet, and that one behind it."""
        ends = self._ends if last is None else [*self._ends, _write_end(last)]
        if ends:
            self._channel.send_bytes(write_ends(ends))
        if self._ends:
            self._shared.clear()
            self._ends = []
        self._flushed_at = time.monotonic()

    def send(self, kind: str, text: str = "") -> None:
        """Send one other message now."""
        self._channel.send_bytes(write_text(kind, text))

    def send_ready(self) -> None:
        """Say that "unfit" comes from a job from now on; the supervisor may be gone already."""
        with suppress(OSError):
            self.send("ready")

    def send_secrets(self, values: Sequence[str]) -> None:
        """Send secrets now; what is too long for that is not said, and then not heard."""
        if message := write_secrets(values):
            self._channel.send_bytes(message)


def _write_end(end: End) -> bytes:
    written = write_end(end)
    if len(written) > MAX_END_BYTES:
        size = f"{len(written) / 1_000_000:.0f} MB"
        text = (
            f"the result has {size}, which no server takes; write it to a file, and return its path"
        )
        written = write_end(failed(end.number, text, end.started_at, end.ended_at))
    return written


def main(
    channel: Connection, lifeline: Connection, shared: SharedState, settings: Settings
) -> None:
    """Be a child. Returns when there is nothing more to do; the process should exit then."""
    set_up_process(settings)
    hold_on(lifeline)
    timeouts.prepare()
    outbox = Outbox(channel, shared)
    sources = Sources()
    preload(outbox, settings.preload)
    outbox.send_ready()
    executor = Executor(settings)
    rq_work = RQWork(settings, executor.connection)
    capture = Capture(settings.log_folder, settings.scratch_folder, shared)
    share_secrets(outbox, shared, capture)
    shared.say_ready()
    while True:
        try:
            message = pickle.loads(channel.recv_bytes())  # noqa: S301 - from our own supervisor
        except (EOFError, OSError):
            return
        if message[0] == "run" and is_outdated(outbox, sources):
            return
        if not handle(outbox, shared, executor, rq_work, capture, message):
            return


def preload(outbox: Outbox, modules: Sequence[str]) -> None:
    """Import modules before the first job; say which ones cannot be, and go on without them."""
    for name in modules:
        try:
            import_module(name)
        except BaseException as error:  # noqa: BLE001 - a user's module may raise anything
            with suppress(OSError):  # the supervisor is gone already
                outbox.send("unfit", f"cannot preload {name}: {_explain(error)}")


def _explain(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = "".join(traceback.format_exception_only(error)).strip()
    is_missing = isinstance(error, ModuleNotFoundError)  # the place would be one of Python's own
    return text if is_missing else f"{text} ({last.filename}:{last.lineno})"


def share_secrets(outbox: Outbox, shared: SharedState, capture: Capture) -> None:
    """See to it that the supervisor knows the secrets of a job before it moves the job's output.

    The shared state says first that there are some: until the supervisor has read them, it moves
    nothing.
    """

    def learn(values: Sequence[str]) -> None:
        new = [each for each in values if each not in capture.mask]
        if not new:
            return
        capture.mask.add(new)
        shared.count_secrets(len(new))
        outbox.send_secrets(new)

    if capture.is_on:
        masking.set_reader(learn)


def is_outdated(outbox: Outbox, sources: Sources) -> bool:
    """Tell the supervisor when this process has old code; then it must not begin what it got."""
    changed = sources.find_changed()
    if changed:
        with suppress(OSError):
            outbox.send("outdated", changed)
    return bool(changed)


def handle(
    outbox: Outbox,
    shared: SharedState,
    executor: Executor,
    rq_work: RQWork,
    capture: Capture,
    message: tuple[Any, ...],
) -> bool:
    """Do what a message says; False when the child must not go on."""
    if message[0] == "conclude":
        shared.begin_to_conclude()
        outbox.flush(_conclude(rq_work, *message[1:]))
        return True
    if message[0] == "chore":
        _do_chore(rq_work, *message[1:])
        outbox.send("chore")
        return True
    return work_off(outbox, shared, executor, capture, *message[1:])


def work_off(
    outbox: Outbox,
    shared: SharedState,
    executor: Executor,
    capture: Capture,
    tasks: list[Any],
    is_last: bool,
) -> bool:
    """Execute these jobs, one after the other; False when the child must not go on.

    `is_last`: none are known to follow, so somebody may wait for the last one's end: the fewer are
    left, the fewer ends wait for each other.
    """
    pid, is_spent, left = os.getpid(), False, len(tasks)
    for task in map(Task._make, tasks):
        if is_spent or not shared.begin(task.number, pid):
            break
        end = executor.execute(task, shared.ask_for)
        if os.getpid() != pid:  # the job has forked, and its copy came back out of the function
            os._exit(0)
        if not capture.end(task.job_id):
            end = end._replace(is_spent=True)
        is_spent = end.is_spent
        left -= 1
        if is_spent or left <= (outbox.count + 1 if is_last else 0):
            outbox.flush(end)
        else:
            outbox.add(end)
    outbox.flush()
    return not is_spent


def _conclude(rq_work: RQWork, task: Any, end: End) -> End:
    try:
        return rq_work.conclude(Task._make(task), end)
    except Exception as error:
        if is_passing(error):
            return end._replace(how="later")
        # The supervisor tries another child, and gives up after a few.
        log.exception("job %s: RQ's own way to end it failed", Task._make(task).job_id)
        return end._replace(how="conclude")


def _do_chore(rq_work: RQWork, name: str, arguments: tuple[Any, ...]) -> None:
    try:
        getattr(rq_work, name)(*arguments)
    except Exception as error:  # the same is tried again later, or by another worker
        if is_passing(error):
            log.warning("%s failed: %s", name, describe(error))
        else:
            log.exception("%s failed", name)


def live(body: Callable[[], None]) -> NoReturn:
    """Do that, then end this process, whatever jobs have left behind in it.

    What comes out of it is told here: nobody else would.
    """
    code = 1
    try:
        body()
        code = 0
    except BaseException:  # noqa: BLE001 - this is the end of the process
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # whatever a job has put there; a forked child must not be a second supervisor
            os._exit(code)


def set_up_process(settings: Settings) -> None:
    """Become a child: a process group of its own, no signals from the terminal, the paths, and
    nothing but what the worker may run."""
    if settings.allowed is not None:
        unpickling.restrict(settings.allowed)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = open_stream(1)
    sys.stderr = open_stream(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGBREAK"):
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seed_anew()
    os.environ["RQ_WORKER_ID"] = settings.worker
    for path in reversed(settings.paths):
        if path not in sys.path:
            sys.path.insert(0, path)


def seed_anew() -> None:
    """Let processes that were forked from one draw random numbers of their own.

    That goes for the generators that whole modules share; those that a module has made for itself
    nobody knows.
    """
    random.seed()
    if shared := sys.modules.get("numpy.random"):
        shared.seed()


def hold_on(lifeline: Connection) -> None:
    """End this process, and what it started, when the supervisor is gone.

    It may have gone while we began, of which the system tells nobody; what it has sent us before
    belongs to another worker by now, or soon, and must not begin here.
    """
    die_with_parent()
    try:
        is_cut = lifeline.poll()  # nothing is ever sent through it
    except OSError:
        is_cut = True
    if is_cut:
        end_group()
    threading.Thread(target=_watch, args=(lifeline,), name="flowq-lifeline", daemon=True).start()


def die_with_parent() -> None:
    """Let the system end us with our parent, where it can: a job in C code stops every thread."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    end_group()


def end_group() -> None:
    """End this process and the others of its group, at once."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
