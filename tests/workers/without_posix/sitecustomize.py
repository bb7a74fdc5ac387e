"""Makes an interpreter look like one on Windows to everything but the standard library.

Python imports this at its start when the folder is on PYTHONPATH, also in spawned children. The
standard library is imported first and keeps the real modules; whoever imports `os`, `signal` or
`socket` afterwards gets a stand-in without what Windows does not have. The temp folder is another
one, as on another machine: workers of two systems do not see each other's locks in it.
"""

import importlib
import os
import sys
import tempfile
import types
from pathlib import Path

STANDARD = [
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "bdb",
    "collections",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "csv",
    "ctypes",
    "ctypes.util",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "email",
    "enum",
    "errno",
    "fnmatch",
    "fractions",
    "functools",
    "getpass",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "http.client",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "ipaddress",
    "itertools",
    "json",
    "logging",
    "logging.config",
    "logging.handlers",
    "multiprocessing",
    "multiprocessing.connection",
    "multiprocessing.context",
    "multiprocessing.heap",
    "multiprocessing.managers",
    "multiprocessing.pool",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.queues",
    "multiprocessing.reduction",
    "multiprocessing.resource_sharer",
    "multiprocessing.resource_tracker",
    "multiprocessing.sharedctypes",
    "multiprocessing.spawn",
    "multiprocessing.synchronize",
    "numbers",
    "operator",
    "pathlib",
    "pdb",
    "pickle",
    "pkgutil",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "runpy",
    "secrets",
    "select",
    "selectors",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "token",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unittest",
    "unittest.mock",
    "urllib.parse",
    "urllib.request",
    "uuid",
    "warnings",
    "weakref",
    "webbrowser",
    "xml.etree.ElementTree",
    "zipfile",
    "zlib",
    "zoneinfo",
]

TEMP = "as-on-windows"

temp = Path(tempfile.gettempdir())
if temp.name != TEMP:  # else a child of one that has it already
    temp /= TEMP
    temp.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temp)

MISSING = {
    "os": "fork forkpty wait wait3 wait4 waitpid killpg getpgid getpgrp setpgrp setpgid setsid "
    "getuid posix_spawn posix_spawnp WIFSIGNALED WTERMSIG EX_OK WNOHANG register_at_fork mkfifo",
    "signal": "SIGALRM SIGKILL SIGRTMIN SIGHUP SIGUSR1 alarm setitimer ITIMER_REAL",
    "socket": "AF_UNIX",
    "select": "poll epoll",
}

for name in STANDARD:
    importlib.import_module(name)


def without(name: str, missing: list[str]) -> types.ModuleType:
    """Return a copy of a module in which some names are not there."""
    real = sys.modules[name]
    stand_in = types.ModuleType(name, real.__doc__)
    for key, value in vars(real).items():
        if key not in missing:
            setattr(stand_in, key, value)
    return stand_in


for name, missing in MISSING.items():
    sys.modules[name] = without(name, missing.split())
for name in ("resource", "pwd", "grp", "fcntl", "termios"):
    sys.modules[name] = None  # type: ignore[assignment]

import windows_answers  # noqa: E402 - when the names are gone

windows_answers.install()
