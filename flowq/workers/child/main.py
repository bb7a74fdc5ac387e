"""The main loop of a child: tasks in, ends out, until the channel closes.

Messages from the supervisor are pickled tuples: ("run", [Task, …], is_last), ("conclude", Task,
End) and ("chore", name, arguments). The child answers in the format of child_messages.py:

    ready      before its first job
    ends       of one or more jobs, and of an execution that it concluded
    chore      after a chore
    outdated   with the name of a changed file, before it ends without beginning its jobs
    unfit      with the reason why a module cannot be preloaded, or a handler not be imported
    secrets    before user code gets them
    died       from a fork server (fork.py), with the exit code of a job's process
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

from rq.utils import import_attribute

from flowq.importing import importing
from flowq.runtime import masking, unpickling
from flowq.runtime.connections import describe, is_passing
from flowq.workers import logs
from flowq.workers.child import mark_process, timeouts
from flowq.workers.child.execute import Executor, find_handler
from flowq.workers.child.rq_work import RQWork
from flowq.workers.child.sources import Sources
from flowq.workers.child.spans import flush
from flowq.workers.child_messages import write_end, write_ends, write_secrets, write_text
from flowq.workers.messages import End, Settings, Task, failed
from flowq.workers.output import Capture, open_stream
from flowq.workers.shared_state import SharedState

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

log = logging.getLogger("rq.worker")


FLUSH_S = 0.004
"""How long the end of a short job may wait for others, if the child has more jobs."""

FLUSH_COUNT = 32

FAILED = 70
"""The exit code after an exception (EX_SOFTWARE of sysexits.h). Not 1, which on Windows is also the
code of a process that was killed."""

MAX_END_BYTES = 512 * 2**20
"""The limit of one end: Redis accepts no longer argument."""


class Outbox:
    """Sends a child's messages. Ends of short jobs are stored in the shared state and sent
    together."""

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
        """Send an end, now or with later ones."""
        written = _write_end(end)
        self._ends.append(written)
        is_kept = self._shared.keep(written)
        is_late = time.monotonic() - self._flushed_at > FLUSH_S
        if is_late or not is_kept or len(self._ends) >= FLUSH_COUNT:
            self.flush()

    def flush(self, last: End | None = None) -> None:
        """Send the stored ends now, and `last` after them."""
        ends = self._ends if last is None else [*self._ends, _write_end(last)]
        if ends:
            self._channel.send_bytes(write_ends(ends))
        if self._ends:
            self._shared.clear()
            self._ends = []
        self._flushed_at = time.monotonic()

    def send(self, kind: str, text: str = "") -> None:
        """Send a message of another kind now."""
        self._channel.send_bytes(write_text(kind, text))

    def send_ready(self) -> None:
        """Send "ready": a later "unfit" may come from a job."""
        with suppress(OSError):  # the supervisor may be gone already
            self.send("ready")

    def send_secrets(self, values: Sequence[str]) -> None:
        """Send secrets now. If they are too long, the supervisor withholds the output instead."""
        if message := write_secrets(values):
            self._channel.send_bytes(message)


def _write_end(end: End) -> bytes:
    written = write_end(end)
    if len(written) > MAX_END_BYTES:
        size = f"{len(written) / 1_000_000:.0f} MB"
        text = (
            f"the result has {size}, which no server accepts; write it to a file, and "
            "return its path"
        )
        written = write_end(failed(end.number, text, end.started_at, end.ended_at))
    return written


def main(
    channel: Connection, lifeline: Connection, shared: SharedState, settings: Settings
) -> None:
    """Run a child until its channel closes. The process should exit then."""
    set_up_process(settings)
    end_with_supervisor(lifeline)
    timeouts.prepare()
    outbox = Outbox(channel, shared)
    sources = Sources()
    preload(outbox, settings.preload)
    check_handlers(outbox, settings)
    outbox.send_ready()
    executor = Executor(settings, shared.report)
    rq_work = RQWork(settings, executor.connection)
    capture = Capture(settings.scratch_folder, shared, echoes=settings.echoes)
    share_secrets(outbox, shared, capture)
    shared.note_ready()
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
    """Import modules before the first job; report those that fail, and go on without them."""
    for name in modules:
        try:
            with importing():
                import_module(name)
        except BaseException as error:  # noqa: BLE001 - a user's module may raise anything
            with suppress(OSError):  # the supervisor may be gone already
                outbox.send("unfit", f"cannot preload {name}: {_explain(error)}")


def check_handlers(outbox: Outbox, settings: Settings) -> None:
    """Report exception handlers that cannot be imported, before a job fails and needs them."""
    for handler in settings.exception_handlers:
        try:
            find_handler(handler)
        except BaseException as error:  # noqa: BLE001 - as above
            with suppress(OSError):
                text = f"cannot import the exception handler {handler}: {_explain(error)}"
                outbox.send("unfit", text)


def _explain(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = "".join(traceback.format_exception_only(error)).strip()
    is_missing = isinstance(error, ModuleNotFoundError)  # its last frame is in Python's own code
    is_of_rq = last.filename == import_attribute.__code__.co_filename
    return text if is_missing or is_of_rq else f"{text} ({last.filename}:{last.lineno})"


def share_secrets(outbox: Outbox, shared: SharedState, capture: Capture) -> None:
    """Make sure that the supervisor knows the secrets of a job before it moves the job's output.

    The shared state announces their number first: the supervisor moves no output until it has
    received that many.
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
    """Whether this process has old code: it tells the supervisor, and must not begin its jobs."""
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
    """Handle a message of the supervisor; False if the child must not go on."""
    if message[0] == "conclude":
        shared.begin_to_conclude()
        outbox.flush(_conclude(rq_work, *message[1:]))
        return True
    if message[0] == "chore":
        _do_chore(rq_work, *message[1:])
        outbox.send("chore")
        return True
    return run_tasks(outbox, shared, executor, capture, *message[1:])


def run_tasks(
    outbox: Outbox,
    shared: SharedState,
    executor: Executor,
    capture: Capture,
    tasks: list[Any],
    is_last: bool,
) -> bool:
    """Execute these jobs, one after the other; False if the child must not go on.

    `is_last`: the queues are empty, so a join may wait for the last end. Then ends are sent the
    earlier the fewer jobs are left.
    """
    pid, is_spent, left = os.getpid(), False, len(tasks)
    for task in map(Task._make, tasks):
        if is_spent or not shared.begin(task.number, pid):
            break
        end = executor.execute(task, shared.ask_for)
        if os.getpid() != pid:  # the job forked, and the copy returned from the function too
            os._exit(0)
        end = capture.take(task, end)
        is_spent = end.is_spent
        left -= 1
        if is_spent or left <= (outbox.count + 1 if is_last else 0):
            outbox.flush(end)
        else:
            outbox.add(end)
        capture.clear()
    outbox.flush()
    return not is_spent


def _conclude(rq_work: RQWork, task: Any, end: End) -> End:
    try:
        return rq_work.conclude(Task._make(task), end)
    except Exception as error:
        if is_passing(error):
            return end._replace(how="later")
        # The supervisor tries other children, up to MAX_TRIES (turns.py).
        log.exception("job %s: RQ's own way to end it failed", Task._make(task).job_id)
        return end._replace(how="conclude")


def _do_chore(rq_work: RQWork, name: str, arguments: tuple[Any, ...]) -> None:
    try:
        getattr(rq_work, name)(*arguments)
    except Exception as error:  # it is tried again later, or by another worker
        if is_passing(error):
            log.warning("%s failed: %s", name, describe(error))
        else:
            log.exception("%s failed", name)


def live(body: Callable[[], None]) -> NoReturn:
    """Call `body`, then exit at once, whatever threads or handlers jobs have left behind.

    Prints the traceback of an exception, because no other code would.
    """
    code = FAILED
    try:
        body()
        code = 0
        flush()
    except BaseException:  # noqa: BLE001 - this is the end of the process
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # even if a job broke the streams: a forked child must never return from here
            os._exit(code)


def set_up_process(settings: Settings) -> None:
    """Prepare a child process: restrictions, process group, streams, signals and paths."""
    mark_process()
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
    if settings.json_log_level:
        logs.set_up_child(settings.json_log_level)


def seed_anew() -> None:
    """Seed random generators, so that processes forked from one do not share their sequence.

    This covers the global generators of `random` and numpy. Generators that a module has made for
    itself cannot be found.
    """
    random.seed()
    if shared := sys.modules.get("numpy.random"):
        shared.seed()


def end_with_supervisor(lifeline: Connection) -> None:
    """End this process and its group when the supervisor ends.

    Also if the supervisor ended while this process started, which the system does not report. The
    jobs in the channel then belong to another worker, or soon will, and must not begin here.
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
    """Have Linux kill this process with its parent: C code may block the thread that watches."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    end_group()


def end_group() -> None:
    """Kill this process and its group."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
