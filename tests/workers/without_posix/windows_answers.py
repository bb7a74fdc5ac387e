"""What flowq, rq and the user's code see on Windows, besides what they miss.

Other packages keep what fits the machine that they were installed for: only an import from flowq,
rq or a user's file gets one of these stand-ins. They are stricter than Windows where that helps:
whatever would go wrong there in silence fails here.
"""

import builtins
import multiprocessing
import multiprocessing.context
import os
import select
import signal
import subprocess
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BREAK = 21
"""SIGBREAK's number on Windows. Here it is SIGTTIN, which serves as well."""

BINARY = 0x8000
BIN = Path(__file__).with_name("bin")

SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")

MORE_MISSING = {
    "os": "geteuid getegid getgid getgroups getsid tcgetpgrp chown fchown fchmod lchown pread "
    "pwrite sched_getaffinity sched_setaffinity uname statvfs getloadavg nice sysconf mknod waitid "
    "pipe2 O_NONBLOCK O_CLOEXEC O_NOFOLLOW WIFEXITED WEXITSTATUS openpty ttyname fchdir fdatasync",
    "signal": "pause pthread_kill pthread_sigmask sigwait siginterrupt getitimer "
    + " ".join(each.name for each in signal.Signals if each.name not in SIGNALS),
    "subprocess": "",
    "select": "",
    "platform": "",
}


class Changed(types.ModuleType):
    """A module in which some names are not there, and some are others."""

    def __init__(self, real: types.ModuleType, missing: Iterable[str], **changes: Any) -> None:
        super().__init__(real.__name__, real.__doc__)
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "_missing", frozenset(missing))
        object.__setattr__(self, "_changes", changes)

    def __getattribute__(self, name: str) -> Any:
        inside = object.__getattribute__
        if name in inside(self, "_missing"):
            raise AttributeError(f"module {inside(self, '_real').__name__!r} has no {name!r}")
        changes = inside(self, "_changes")
        return changes[name] if name in changes else getattr(inside(self, "_real"), name)

    def __dir__(self) -> list[str]:
        inside = object.__getattribute__
        names = {*dir(inside(self, "_real")), *inside(self, "_changes")}
        return sorted(names - inside(self, "_missing"))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_real"), name, value)


# os ----------------------------------------------------------------------------------------------


def open_file(path: Any, flags: int, *more: Any, **options: Any) -> int:
    """`os.open`, which on Windows changes line ends unless it is told not to."""
    assert flags & BINARY or path == os.devnull, f"{path} is opened in text mode"
    return os.open(path, flags & ~BINARY, *more, **options)


def kill(pid: int, number: int) -> None:
    """`os.kill`, which on Windows ends the process, whatever the signal."""
    assert number > 1, "on Windows these numbers are Ctrl-C and Ctrl-Break, and go to a whole group"
    os.kill(pid, 9)


# signal ------------------------------------------------------------------------------------------

HANDLED = {*(signal.Signals[name] for name in SIGNALS), BREAK}


def handle(number: int, handler: Any) -> Any:
    """`signal.signal`, with the few signals that there are."""
    if number not in HANDLED:
        raise ValueError("invalid signal value")
    return signal.signal(number, handler)


# subprocess --------------------------------------------------------------------------------------


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A process that knows flags instead of sessions, and one command line instead of words."""

    def __init__(self, args: Any, **options: Any) -> None:
        for name in ("start_new_session", "process_group", "preexec_fn", "pass_fds"):
            assert not options.get(name), f"{name} means nothing on Windows"
        if options.pop("creationflags", 0) & 0x200:
            options["start_new_session"] = True
        environment = dict(options.get("env") or os.environ)
        environment["PATH"] = f"{BIN}{os.pathsep}{environment.get('PATH', '')}"
        options["env"] = environment
        if isinstance(args, str):
            args = args.split(" ", 1)
        if args[0] in ("taskkill", "cmd", "cmd.exe"):
            args = [str(BIN / args[0].removesuffix(".exe")), *args[1:]]
        super().__init__(args, **options)

    def terminate(self) -> None:
        """End it: there is no asking."""
        self.kill()


def with_our_popen(function: Any, names: dict[str, Any]) -> Any:
    """Return a function of the module `subprocess` that uses another `Popen`."""
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def select_sockets(read: Any, write: Any, other: Any, timeout_s: Any = None) -> Any:
    """`select.select`, which on Windows knows sockets only, and must have one."""
    sources = [*read, *write, *other]
    assert sources, "select without a socket is an error on Windows"
    assert all(hasattr(each, "getsockname") for each in sources), "select knows sockets only"
    return select.select(read, write, other, timeout_s)


def stand_ins() -> dict[str, types.ModuleType]:
    """Return the modules as flowq finds them."""
    popen: dict[str, Any] = {**vars(subprocess), "Popen": Popen}
    for name in ("run", "call", "check_call", "check_output"):
        popen[name] = with_our_popen(vars(subprocess)[name], popen)
    flags = {"CREATE_NEW_PROCESS_GROUP": 0x200, "CREATE_NO_WINDOW": 0x8000000}
    changes: dict[str, dict[str, Any]] = {
        "os": {"name": "nt", "O_BINARY": BINARY, "open": open_file, "kill": kill},
        "signal": {
            "signal": handle,
            "SIGBREAK": signal.Signals(BREAK),
            "CTRL_C_EVENT": 0,
            "CTRL_BREAK_EVENT": 1,
        },
        "subprocess": {**popen, **flags},
        "select": {"select": select_sockets},
        "platform": {"system": lambda: "Windows", "machine": lambda: "AMD64"},
    }
    found: dict[str, types.ModuleType] = {
        name: Changed(sys.modules[name], missing.split(), **changes[name])
        for name, missing in MORE_MISSING.items()
    }
    found["sys"] = Changed(sys, ["setdlopenflags", "abiflags"], platform="win32")
    return found


# Who gets them -----------------------------------------------------------------------------------

OTHERS = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(BIN.parent), "<frozen"}
)


def is_ours(names: Any) -> bool:
    """Whether an import comes from flowq, rq, or the user's code."""
    if not names:
        return False
    root = str(names.get("__name__", "")).partition(".")[0]
    if root in ("flowq", "rq"):
        return True
    file = names.get("__file__")
    return bool(file) and not str(file).startswith(OTHERS) and root not in sys.stdlib_module_names


def install() -> None:
    """From now on ours import the stand-ins, and children are spawned or not at all."""
    found = stand_ins()
    really_import = builtins.__import__

    def import_(name: str, *around: Any, **named: Any) -> Any:
        module = really_import(name, *around, **named)
        top = name.partition(".")[0]
        importer, fromlist = [*around, None, None, None][:3:2]
        if top in found and is_ours(importer) and (name == top or not fromlist):
            return found[top]
        return module

    builtins.__import__ = import_
    spawn = {"spawn": multiprocessing.get_context("spawn")}
    multiprocessing.context._concrete_contexts = spawn  # type: ignore[attr-defined]
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    multiprocessing.set_start_method("spawn", force=True)
    # With PYTHONWARNDEFAULTENCODING: whoever opens a text without a word about its encoding.
    warnings.filterwarnings("error", category=EncodingWarning, module=r"(flowq|rq)\b")
