"""An environment for each peer, since their pins conflict; what cannot be installed is left out.

A folder holds a virtual environment for each group of packages, and `js/` with node's packages. A
virtual environment called `venv` in it serves every peer that can be imported there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PACKAGES = {
    "rq": ["rq>=3,<4", "hiredis"],
    "celery": ["celery[redis]", "hiredis"],
    "dramatiq": ["dramatiq[redis]", "hiredis"],
    "huey": ["huey[redis]", "hiredis"],
    "saq": ["saq[redis,hiredis]", "typing_extensions"],  # imported, not required
    "streaq": ["streaq"],
}
NODE_PACKAGES = ["bullmq", "ioredis"]
INSTALL_S = 600
IMPORT_S = 60


def default_folder() -> Path:
    """Where the environments are kept from one run to the next."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "flowq-benchmarks")


def prepare(name: str, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Return the folder of an environment's programs, installed if need be; for `js` node_modules.

    Blocks: a minute, the first time. Errors: RuntimeError, with the last line of the installer.
    """
    if name == "flowq":
        return Path(sys.executable).parent
    if name == "js":
        return _prepare_node(folder / "js", say)
    for candidate in (folder / name, folder / "venv"):
        if _has(candidate, name):
            return _programs(candidate)
    say(f"installing {name} in {folder / name}")
    python = _programs(folder / name) / "python"
    _run([sys.executable, "-m", "venv", str(folder / name)])
    _run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]])
    if not _has(folder / name, name):
        raise RuntimeError(f"{name} was installed and cannot be imported")
    return _programs(folder / name)


def find_version(name: str, programs: Path) -> str:
    """Return the version of what an environment is for, as in `celery 5.7.0`."""
    if name == "js":
        package = json.loads((programs / NODE_PACKAGES[0] / "package.json").read_text())
        return f"{package['name']} {package['version']}"
    distribution = "rq-flowq" if name == "flowq" else name
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    command = [str(programs / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_S)
    return f"{name} {done.stdout.strip() or '?'}"


def _programs(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin")


def _has(environment: Path, module: str) -> bool:
    python = _programs(environment) / "python"
    if not python.exists():
        return False
    command = [str(python), "-c", f"import {module}"]
    return not subprocess.run(
        command, capture_output=True, check=False, timeout=IMPORT_S
    ).returncode


def _prepare_node(folder: Path, say: Callable[[str], None]) -> Path:
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise RuntimeError(f"there is no {program} on the PATH")
    modules = folder / "node_modules"
    if not all((modules / package).is_dir() for package in NODE_PACKAGES):
        say(f"installing {', '.join(NODE_PACKAGES)} in {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        _run(["npm", "install", "--silent", "--prefix", str(folder), *NODE_PACKAGES])
    return modules


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"code {done.returncode}"]
        raise RuntimeError(f"{' '.join(command[:4])} …: {lines[-1]}")
